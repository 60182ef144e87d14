"""API keys in the console."""

from collections.abc import Mapping
from typing import Any, ClassVar

from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.auth import Principal, Rank
from backend.core.console import ConsoleView
from backend.core.console_filters import DateRange, Filter, Related, YesNo
from backend.features.api_keys import service
from backend.features.api_keys.models import ApiKey
from backend.features.users.service import get_user, may_manage


class ApiKeyView(ConsoleView, model=ApiKey):
    """Whose services call. Deleting one revokes it; the record stays for a while."""

    scope, sees = "api_keys", Rank.ADMIN
    belongs_to: ClassVar[Mapping[Any, str]] = {ApiKey.user_id: "user"}
    removal = "Revoke", "Programs that use it are refused at once.", "revoked"
    name, name_plural = "API key", "API keys"
    filters: ClassVar[tuple[Filter, ...]] = (
        Related(ApiKey.user_id, "user"),
        YesNo(ApiKey.revoked_at),
        YesNo(ApiKey.last_used_at, "Ever used"),
        DateRange(ApiKey.expires_at),
    )
    icon = "fa-solid fa-key"
    column_list: ClassVar[list[Any]] = [
        ApiKey.id,
        ApiKey.prefix,
        ApiKey.name,
        ApiKey.user_id,
        ApiKey.scopes,
        ApiKey.last_used_at,
        ApiKey.expires_at,
        ApiKey.revoked_at,
    ]
    column_details_list: ClassVar[list[Any]] = [
        *column_list,
        ApiKey.last_used_address,
        ApiKey.replaced_by,
        ApiKey.created_at,
    ]
    column_searchable_list: ClassVar[list[Any]] = [ApiKey.prefix, ApiKey.name]
    column_sortable_list: ClassVar[list[Any]] = [ApiKey.id, ApiKey.user_id, ApiKey.last_used_at, ApiKey.expires_at]
    column_labels: ClassVar[dict[Any, str]] = {
        "id": "ID",
        "prefix": "Key",
        "name": "Name",
        "user_id": "Account",
        "scopes": "May do",
        "last_used_at": "Last used",
        "last_used_address": "From",
        "expires_at": "Expires",
        "revoked_at": "Revoked",
        "replaced_by": "Rotated to",
        "created_at": "Created",
    }

    async def remove(self, session: AsyncSession, record: ApiKey, caller: Principal) -> None:
        await may_manage(session, caller, await get_user(session, record.user_id))
        await service.revoke_key(session, record)
