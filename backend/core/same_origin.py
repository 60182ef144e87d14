"""Whether a browser's request comes from our own pages (Fetch Metadata, https://www.w3.org/TR/fetch-metadata/).

`Origin` says it in older browsers, and where there is no TLS. What carries a cookie and changes something must come
from our own pages; a request that says nothing is refused.
"""

from starlette.datastructures import Headers


def same_origin(headers: Headers) -> bool:
    if site := headers.get("sec-fetch-site"):
        return site == "same-origin"
    scheme, separator, authority = headers.get("origin", "").partition("://")
    return bool(separator) and scheme in {"http", "https"} and authority == headers.get("host")
