"""What can be wrong with a sign-in at a provider, for programs to tell apart."""

from backend.core.errors import BadRequest, Conflict, Forbidden, Unauthorized


class NotStartedHere(BadRequest):
    code = "sign_in_not_started_here"
    message = "This sign-in was not begun in this browser, or too long ago: begin again"


class NotVouched(Unauthorized):
    """`details.error` has the provider's own word when it gave one, such as `access_denied`."""

    code, message = "provider_refused", "The provider did not confirm who you are"


class EmailNotVerified(Forbidden):
    code = "email_not_verified"
    message = "The provider has not verified your e-mail address: verify it there, or sign up with a password"


class AccountNotVerified(Conflict):
    """Somebody may have signed up with the victim's address, and wait for them to come (pre-hijacking)."""

    code = "account_not_verified"
    message = (
        "There is an account with your e-mail address that has not been shown to be yours: "
        "sign in with its password, and link the provider from your profile"
    )
