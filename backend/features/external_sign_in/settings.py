"""Who may vouch for people. A provider is there once its client id is set."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from backend.core.config import EnvSettings, Settings

SLUG = r"^[a-z][a-z0-9-]{0,29}$"
TAKEN = {"google", "github"}


def _free(name: str) -> str:
    if name in TAKEN:
        raise ValueError(f"{name} is ready-made: choose another name")
    return name


def _with_openid(scopes: str) -> str:
    if "openid" not in scopes.split():
        raise ValueError("without the scope openid there is no ID token")
    return scopes


class ExternalSignInSettings(EnvSettings):
    model_config = SettingsConfigDict(env_prefix="EXTERNAL_SIGN_IN__")

    google_client_id: str = Field("", description="Client id at Google; empty: no sign-in with Google")
    google_client_secret: SecretStr = Field(SecretStr(""), description="Its secret")
    github_client_id: str = Field("", description="Client id of an OAuth app at GitHub; empty: no sign-in with GitHub")
    github_client_secret: SecretStr = Field(SecretStr(""), description="Its secret")
    oidc_name: Annotated[str, AfterValidator(_free)] = Field(
        "oidc",
        pattern=SLUG,
        description="What to call another OpenID Connect issuer, in addresses too; a new issuer needs a new name",
    )
    oidc_issuer: str = Field("", description="URL of that issuer, as its discovery document spells it")
    oidc_client_id: str = Field("", description="Client id at that issuer; empty: no sign-in with it")
    oidc_client_secret: SecretStr = Field(SecretStr(""), description="Its secret")
    oidc_scopes: Annotated[str, AfterValidator(_with_openid)] = Field(
        "openid email profile", description="What to ask that issuer for"
    )

    def offences(self, settings: Settings) -> list[str]:
        clients = {
            "GOOGLE": (self.google_client_id, self.google_client_secret),
            "GITHUB": (self.github_client_id, self.github_client_secret),
            "OIDC": (self.oidc_client_id, self.oidc_client_secret),
        }
        found = [
            f"EXTERNAL_SIGN_IN__{name}_CLIENT_ID is set without its secret: the provider would let nobody in"
            for name, (client_id, secret) in clients.items()
            if client_id and not secret.get_secret_value()
        ]
        if self.oidc_client_id and urlsplit(self.oidc_issuer).scheme != "https":
            found.append("EXTERNAL_SIGN_IN__OIDC_ISSUER is no https URL: anybody on the way could sign in as anybody")
        return found
