"""One search over all that the person may see: a few records of each kind, with the way to all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from admin.actions import asking_for
from backend.core.console import ConsoleView

FEW = 5  # records of a kind


@dataclass(frozen=True)
class Found:
    """What one view has; one record more than is shown says that there are more."""

    view: ConsoleView
    records: Sequence[Any]

    @property
    def shown(self) -> Sequence[Any]:
        return self.records[:FEW]

    @property
    def is_more(self) -> bool:
        return len(self.records) > FEW


async def _found(request: Request, view: ConsoleView) -> Found:
    statement = view.matching(request).order_by(view.pk_columns[0].desc()).limit(FEW + 1)
    async with view.session_maker() as session:
        return Found(view, (await session.execute(statement)).scalars().all())


async def search_page(request: Request, views: Sequence[ConsoleView], templates: Any) -> Response:
    """One statement for each kind, one after the other, on one connection. HTTPException for a term that is none."""
    term = request.query_params.get("search", "").strip()
    asked = asking_for(request, urlencode({"search": term}))
    open_ones = [view for view in views if view.column_searchable_list]
    mine = [view for view in open_ones if view.is_open_to(request.state.principal, "list")]
    found = [await _found(asked, view) for view in mine] if term else []
    context = {"term": term, "found": [one for one in found if one.records], "searched": mine}
    answer: Response = await templates.TemplateResponse(request, "sqladmin/search.html", context)
    return answer
