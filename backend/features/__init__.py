"""The batteries. One name and one comment per line; delete a line and its folder, and the feature is gone.

Order: a feature comes after those it needs, and the earlier one's middleware is the outer one.
"""

FEATURES = (
    "request_id",  # X-Request-ID on every answer, error body and log line
    "access_log",  # one structured log line per request
    "process_time",  # Server-Timing: how long the app took
    "security_headers",  # strict CSP, HSTS, nosniff, frame and referrer policy
    "trusted_hosts",  # 400 for Host headers that are not ours
    "cors",  # cross-origin requests from the origins you allow
    "request_limits",  # 413 for large bodies, 431 for large headers
    "gzip",  # compressed responses
    "docs",  # /docs and /redoc from our own files
    "health",  # /health, /health/detailed, /ready, /live
    "users",  # accounts, sign-in, console sessions: the spine
    "items",  # the store's items: the example to copy
)
