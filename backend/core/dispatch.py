"""Finds a request's route without trying every one: routing is linear, and two API versions have hundreds of routes."""

from starlette.routing import BaseRoute, Match, Router
from starlette.types import Receive, Scope, Send


def fixed_part(route: BaseRoute) -> str:
    """The whole segments that every path of this route begins with: `/store/items` of `/store/items/{item_id}`."""
    path: str = getattr(route, "path", "")
    return path.partition("{")[0].rpartition("/")[0] if "{" in path else path.rstrip("/")


def is_within(path: str, part: str) -> bool:
    return f"{path}/".startswith(f"{part}/")


class Dispatch:
    """In front of a router: tries the routes, in their order, whose fixed part the path begins with.

    Whatever is not answered that way is left to the router: unknown paths, wrong methods, redirects to slashes.
    """

    def __init__(self, router: Router) -> None:
        self.router = router
        self.routes: list[BaseRoute] = []
        self.table: dict[str, list[BaseRoute]] = {}

    def index(self) -> None:
        self.routes = list(self.router.routes)
        parts = [fixed_part(route) for route in self.routes]
        pairs = list(zip(parts, self.routes, strict=True))
        self.table = {path: [route for part, route in pairs if is_within(path, part)] for path in {"", *parts}}

    def candidates(self, path: str) -> list[BaseRoute]:
        """The routes that may match. Indexed anew when routes were added or taken out."""
        if len(self.routes) != len(self.router.routes):
            self.index()
        while path not in self.table:
            path = path.rpartition("/")[0]
        return self.table[path]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            scope.setdefault("router", self.router)
            for route in self.candidates(scope["path"].removeprefix(scope.get("root_path", ""))):
                match, found = route.matches(scope)
                if match is Match.FULL:
                    scope.update(found)
                    await route.handle(scope, receive, send)
                    return
        await self.router.app(scope, receive, send)
