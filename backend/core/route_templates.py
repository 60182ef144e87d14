"""Which route answered, as its template: bounded, where raw paths are not."""

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.routing import Mount, compile_path
from starlette.types import Scope

UNMATCHED = "unmatched"


class RouteTemplates:
    """The templates of an app's routes, with the prefixes they were included under (`scope["route"]` lacks them).

    v2 serves v1's very routes again: one route has several templates then, told apart by how the path begins.
    """

    def __init__(self, app: FastAPI) -> None:
        self.templates: dict[int, list[tuple[str, str]]] = {}  # by id(), as routes cannot be hashed
        self.mounts: list[str] = []
        for context in iter_route_contexts(app.routes):
            path, own = context.path, getattr(context.original_route, "path", None)
            if path is None or own is None:
                continue
            if isinstance(context.original_route, Mount):
                self.mounts.append(path)
            else:
                options = self.templates.setdefault(id(context.original_route), [])
                options.append((path.removesuffix(own), compile_path(path)[1]))  # {id:int} reads {id}, as in OpenAPI

    def of(self, scope: Scope, root_path: str) -> str:
        """Of a request that was answered; `root_path` is the scope's before it was: mounted apps lengthen it."""
        if mounted := scope.get("root_path", "").removeprefix(root_path):
            return next((path for path in self.mounts if f"{mounted}/".startswith(f"{path}/")), UNMATCHED)
        templates = self.templates.get(id(scope.get("route")), ())
        if len(templates) == 1:
            return templates[0][1]
        path = scope["path"].removeprefix(root_path)
        return next((template for prefix, template in templates if path.startswith(f"{prefix}/")), UNMATCHED)
