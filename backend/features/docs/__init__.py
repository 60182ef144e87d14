"""The API documentation as web pages: Swagger UI to try things out, ReDoc to read. Both from our own files.

The files in `static/swagger-ui` (swagger-ui-dist 5.35.0) and `static/redoc` (redoc 3.0.1) are unchanged copies from
npm. To update one: `npm pack` it, copy the same files over, change the version here, run the tests of this folder.
"""

from backend.core.feature import Feature
from backend.features.docs.routes import router

feature = Feature(name="docs", summary="API documentation at /docs and /redoc, from our own files", root=router)
