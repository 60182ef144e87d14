"""Lets people in who forgot their password, by a link in a mail; and tells everybody by mail of a new password."""

from backend.core.feature import Feature
from backend.features.password_reset.actions import SEND, SEND_LINK
from backend.features.password_reset.pages import pages
from backend.features.password_reset.routes import api
from backend.features.password_reset.service import tell_owner
from backend.features.password_reset.settings import PasswordResetSettings
from backend.features.users.events import PasswordChanged

feature = Feature(
    name="password_reset",
    summary="A new password by a link in a mail, and a notice of every new one",
    needs=("users",),
    settings=PasswordResetSettings,
    v1=api,
    root=pages,
    permissions=(SEND,),
    record_actions={"user": (SEND_LINK,)},
    on={PasswordChanged: tell_owner},
)
