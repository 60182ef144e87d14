"""What goes in and out of the accounts API."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, EmailStr, Field, SecretStr, StringConstraints, WithJsonSchema

from backend.core.schemas import TRIMMED, Input, Moment, Output, Search, absent
from backend.features.users.emails import is_storable, normalised

EMAIL_MAX = 254  # characters; RFC 5321 §4.5.3.1.3, less the angle brackets
Role = Literal["user", "staff", "admin"]
Email = Annotated[EmailStr, AfterValidator(normalised), Field(max_length=EMAIL_MAX, examples=["ada@example.com"])]
FullName = Annotated[str, StringConstraints(max_length=200, pattern=rf"{TRIMMED}|^$"), Field(examples=["Ada Lovelace"])]
PASSWORD_MAX = 128  # characters: a limit on what strangers can make us hash


def _acceptable(password: SecretStr) -> SecretStr:
    text = password.get_secret_value()
    if len(text) > PASSWORD_MAX:
        raise ValueError(f"Use at most {PASSWORD_MAX} characters")
    if not is_storable(text):
        raise ValueError("Leave out NUL and broken Unicode: a form could not send them back")
    return password


Password = Annotated[
    SecretStr,
    AfterValidator(_acceptable),
    WithJsonSchema(
        {
            "type": "string",
            "format": "password",
            "maxLength": PASSWORD_MAX,
            "examples": ["correct horse battery staple"],
            "writeOnly": True,
        }
    ),
]


class Signup(Input):
    """A new account for oneself."""

    email: Email
    password: Password
    full_name: FullName = ""


class ProfilePatch(Input):
    """What people may change about themselves."""

    full_name: FullName = absent()


class UserPut(Input):
    """An account as an administrator states it; the password stays as it is."""

    email: Email
    full_name: FullName = ""
    role: Role = "user"
    is_active: bool = True


class UserCreate(UserPut):
    """A new account, made by an administrator."""

    password: Password


class UserPatch(Input):
    """The fields to change; what is left out stays."""

    email: Email = absent()
    full_name: FullName = absent()
    role: Role = absent()
    is_active: bool = absent()
    password: Password = absent()


class UserForm(UserPut):
    """The console's form: an empty password leaves it as it is."""

    password: Password = SecretStr("")


class UserOut(Output):
    """An account as others may see it: never the password hash."""

    id: int
    email: str
    full_name: str
    role: Role
    is_active: bool
    created_at: datetime
    updated_at: datetime
    version: int


class Me(UserOut):
    """One's own account, and what this token may do."""

    permissions: list[str]


class Token(BaseModel):
    """OAuth2 access token answer (RFC 6749 §5.1); `expires_in` in seconds."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105
    expires_in: int
    scope: str


class UserFilter(BaseModel):
    """Which accounts to list, and in which order."""

    q: Search = Field("", description="Part of the e-mail address or the name")
    role: Role | None = None
    is_active: bool | None = None
    created_from: Moment | None = Field(None, description="Not older than this")
    created_to: Moment | None = Field(None, description="Older than this")
    sort: Literal["id", "-id", "email", "-email", "created_at", "-created_at"] = "id"
