"""The batteries. One name and one comment per line; delete a line and its folder, and the feature is gone.

Order: a feature comes after those it needs, and the earlier one's middleware is the outer one.
"""

FEATURES = (
    "metrics",  # /metrics for Prometheus; outermost, to count what all the others answer, refusals too
    "tracing",  # OpenTelemetry traces, once TRACING__ENDPOINT is set; outside all that a request passes
    "sentry",  # unhandled errors to Sentry, once SENTRY__DSN is set
    "request_id",  # X-Request-ID on every answer, error body and log line
    "access_log",  # one structured log line per request
    "process_time",  # Server-Timing: how long the app took
    "security_headers",  # strict CSP, HSTS, nosniff, frame and referrer policy
    "trusted_hosts",  # 400 for Host headers that are not ours
    "cors",  # cross-origin requests from the origins you allow
    "load_shedding",  # 503 for more than the process can carry
    "request_timeouts",  # 504 for what takes too long, and its work is cancelled
    "request_limits",  # 413 for large bodies, 431 for large headers
    "rate_limits",  # how often callers may ask, RateLimit headers, 429
    "gzip",  # compressed responses
    "docs",  # /docs and /redoc from our own files
    "health",  # /health, /health/detailed, /ready, /live
    "users",  # accounts, sign-in, console sessions: the spine
    "audit",  # who changed what, before and after; every security event
    "lockout",  # growing delays for those who guess passwords, first to hear of a sign-in
    "roles",  # rows that bundle permissions, held in addition to a rank
    "two_factor",  # TOTP and recovery codes; after what gives rights, which it may hold back
    "impersonation",  # acting as somebody else for some minutes, with both names on all of it
    "api_keys",  # API keys for services, with scopes, rotation and an end
    "email_verification",  # a mail with a link shows that an address is its owner's
    "password_reset",  # a mail with a link lets people in who forgot their password, and one tells of a new password
    "external_sign_in",  # sign-in with Google, GitHub, or any OpenID Connect issuer
    "idempotency",  # Idempotency-Key: a request that is sent again is carried out once; innermost middleware
    "log_level",  # the level of the log, changed for a while at run time
    "cache_control",  # how the cache does, and a way to empty it
    "analytics",  # how the API is used: requests, errors and latencies over time
    "incidents",  # uptime over 90 days, incidents that open and close by themselves, /api/v2/status
    "processes",  # which processes run, how they do, and the last answers that failed
    "console_jobs",  # actions on thousands of records in the console, in the background
    "items",  # the store's items: the example to copy
    "realtime",  # WebSocket echo and a resumable stream of server-sent events
)
