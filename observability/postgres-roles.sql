-- The passwords of the local stack's roles, as its secrets have them. PostgreSQL's image runs this in a new database;
-- docs/how-to/rotate-secrets.md runs it again.
\set ON_ERROR_STOP on
\set own `cat /run/secrets/password`
\set collectors `cat /run/secrets/collector_password`
-- A file that cannot be read leaves the empty string, which would take the password away: end here, divided by zero.
SELECT 1 / length(:'own'), 1 / length(:'collectors') \g /dev/null
ALTER ROLE mainstay PASSWORD :'own';
-- May see how the server does, and no row of the app's tables.
SELECT 'CREATE ROLE collector LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'collector') \gexec
ALTER ROLE collector PASSWORD :'collectors';
GRANT pg_monitor TO collector;
