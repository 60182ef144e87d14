"""Acting as somebody else, to see what they see: for a quarter of an hour, by the API, with both names on all of it."""

from backend.core.feature import Feature
from backend.features.impersonation.actions import IMPERSONATE, SIGN_IN_AS
from backend.features.impersonation.hooks import end_after_change, end_with_account, note_ended
from backend.features.impersonation.settings import ImpersonationSettings
from backend.features.users.events import AccountDeleted, ActiveChanged, RoleChanged, SessionsEnded

feature = Feature(
    name="impersonation",
    summary="Acting as somebody else, on the record",
    needs=("users",),
    settings=ImpersonationSettings,
    permissions=(IMPERSONATE,),
    record_actions={"user": (SIGN_IN_AS,)},
    on={
        SessionsEnded: note_ended,
        ActiveChanged: end_after_change,
        RoleChanged: end_after_change,
        AccountDeleted: end_with_account,
    },
)
