"""Shows that an address is its owner's: a new account, and one with a new address, gets a mail with a link.

`EMAIL_VERIFICATION__REQUIRED=true` keeps those out who have not opened it.
"""

from backend.core.feature import Feature
from backend.features.email_verification.routes import api, pages
from backend.features.email_verification.service import keep_out_unverified, mail_new_account, mail_new_address
from backend.features.email_verification.settings import EmailVerificationSettings
from backend.features.users.events import AccountCreated, EmailChanged, IdentityProven

feature = Feature(
    name="email_verification",
    summary="Mails a link that shows whose an address is",
    needs=("users",),
    settings=EmailVerificationSettings,
    v1=api,
    root=pages,
    on={AccountCreated: mail_new_account, EmailChanged: mail_new_address, IdentityProven: keep_out_unverified},
)
