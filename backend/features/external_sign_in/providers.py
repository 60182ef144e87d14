"""The providers there are: two ready-made ones and one of your choice."""

from dataclasses import dataclass, field, replace

from pydantic import SecretStr

from backend.core.errors import NotFound
from backend.features.external_sign_in.settings import ExternalSignInSettings


@dataclass(frozen=True, kw_only=True)
class Provider:
    """Where to send people and whom to ask. With `issuer` (OpenID Connect) the addresses are found from it."""

    name: str
    label: str
    scopes: str
    issuer: str = ""
    authorization_endpoint: str = ""
    token_endpoint: str = ""
    user_endpoint: str = ""
    emails_endpoint: str = ""
    client_id: str = ""
    client_secret: SecretStr = field(default=SecretStr(""), repr=False)


READY_MADE = {
    "google": Provider(
        name="google", label="Google", scopes="openid email profile", issuer="https://accounts.google.com"
    ),
    "github": Provider(
        name="github",
        label="GitHub",
        scopes="read:user user:email",
        authorization_endpoint="https://github.com/login/oauth/authorize",
        token_endpoint="https://github.com/login/oauth/access_token",  # noqa: S106
        user_endpoint="https://api.github.com/user",
        emails_endpoint="https://api.github.com/user/emails",
    ),
}


def configured() -> dict[str, Provider]:
    """The providers that have a client id, by name."""
    chosen = ExternalSignInSettings.current()
    own = Provider(name=chosen.oidc_name, label=chosen.oidc_name, scopes=chosen.oidc_scopes, issuer=chosen.oidc_issuer)
    clients = (
        (READY_MADE["google"], chosen.google_client_id, chosen.google_client_secret),
        (READY_MADE["github"], chosen.github_client_id, chosen.github_client_secret),
        (own, chosen.oidc_client_id, chosen.oidc_client_secret),
    )
    return {
        one.name: replace(one, client_id=client_id, client_secret=secret)
        for one, client_id, secret in clients
        if client_id
    }


def provider_named(name: str) -> Provider:
    if (found := configured().get(name)) is None:
        raise NotFound("There is no such provider here")
    return found
