"""External identities in the console: who may come in from where."""

from collections.abc import Mapping
from typing import Any, ClassVar

from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.auth import Principal
from backend.core.console import ConsoleView
from backend.core.models import key_of
from backend.features.external_sign_in import service
from backend.features.external_sign_in.models import ExternalIdentity
from backend.features.users.service import get_user, may_manage


class IdentityView(ConsoleView, model=ExternalIdentity):
    """Deleting one unlinks it."""

    scope = "external_identities"
    belongs_to: ClassVar[Mapping[Any, str]] = {ExternalIdentity.user_id: "user"}
    removal = "Unlink", "The person can link it again after signing in another way.", "unlinked"
    name, name_plural = "External identity", "External identities"
    icon = "fa-solid fa-link"
    column_list: ClassVar[list[Any]] = [
        ExternalIdentity.id,
        ExternalIdentity.email,
        ExternalIdentity.provider,
        ExternalIdentity.user_id,
        ExternalIdentity.created_at,
        ExternalIdentity.last_used_at,
    ]
    column_details_list: ClassVar[list[Any]] = [*column_list, ExternalIdentity.subject]
    column_searchable_list: ClassVar[list[Any]] = [ExternalIdentity.email, ExternalIdentity.subject]
    column_sortable_list: ClassVar[list[Any]] = [
        ExternalIdentity.id,
        ExternalIdentity.provider,
        ExternalIdentity.user_id,
        ExternalIdentity.last_used_at,
    ]
    column_labels: ClassVar[dict[Any, str]] = {
        "id": "ID",
        "email": "E-mail",
        "provider": "Provider",
        "user_id": "Account",
        "subject": "Key at the provider",
        "created_at": "Linked",
        "last_used_at": "Last used",
    }

    async def remove(self, session: AsyncSession, record: ExternalIdentity, caller: Principal) -> None:
        await may_manage(session, caller, await get_user(session, record.user_id))
        await service.unlink(session, record.user_id, key_of(record))
