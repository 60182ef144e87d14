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
PASSWORD_EXAMPLE = "correct horse battery staple"  # noqa: S105
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
            "examples": [PASSWORD_EXAMPLE],
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


class PasswordChange(Input):
    """One's own new password; the present one shows that it is really you."""

    current_password: Password
    new_password: Password


class RefreshRequest(Input):
    """The refresh token, unless the browser holds it as a cookie."""

    refresh_token: str = Field("", max_length=200, examples=["Jx0Yp3Zb1c4o9m5N7qKf2sWvR8tUaEdGhLiBnMzXyQw"])


class SecondStep(Input):
    """What completes a sign-in that asked for a second factor."""

    pending: str = Field(max_length=200, examples=["Jx0Yp3Zb1c4o9m5N7qKf2sWvR8tUaEdGhLiBnMzXyQw"])
    code: str = Field(max_length=64, examples=["123456"])
    scope: str = Field("", max_length=2000, description="As in the first step", examples=["items:read"])
    refresh_by: Literal["body", "cookie"] = "body"


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
    email: str = Field(examples=["ada@example.com"])
    full_name: str = Field(examples=["Ada Lovelace"])
    role: Role
    is_active: bool = Field(description="Whether the person may sign in")
    email_verified: bool = Field(description="Whether the person has shown that the address is theirs")
    created_at: datetime
    updated_at: datetime
    version: int


class Me(UserOut):
    """One's own account, and what this token may do."""

    permissions: list[str] = Field(examples=[["items:read", "items:write"]])


class Token(BaseModel):
    """OAuth2 access token answer (RFC 6749 §5.1); both `…expires_in` in seconds."""

    access_token: str = Field(examples=["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.4fZ0b3mVwq9s"])
    token_type: Literal["bearer"] = "bearer"  # noqa: S105
    expires_in: int = Field(examples=[900])
    refresh_token: str | None = Field(
        examples=["Jx0Yp3Zb1c4o9m5N7qKf2sWvR8tUaEdGhLiBnMzXyQw"],
        description="Good once, at `/auth/refresh`; null when the browser got it as a cookie",
    )
    refresh_expires_in: int = Field(examples=[1209600])
    scope: str = Field(examples=["items:read items:write"])


class SessionOut(Output):
    """A sign-in: from where, by what, since when."""

    id: int
    kind: Literal["token", "console"] = Field(description="The API's tokens, or the console's cookie")
    method: str = Field(examples=["password"], description="What they signed in with")
    address: str = Field(examples=["203.0.113.7"])
    user_agent: str = Field(examples=["Mozilla/5.0 (X11; Linux x86_64)"])
    created_at: datetime
    last_seen_at: datetime = Field(description="Some minutes exact")
    expires_at: datetime
    current: bool = Field(False, description="Whether this is the one that asks")


class UserFilter(BaseModel):
    """Which accounts to list, and in which order."""

    q: Search = Field("", description="Part of the e-mail address or the name")
    role: Role | None = Field(None, description="Only those with this role")
    is_active: bool | None = Field(None, description="Only those that may sign in, or only the others")
    created_from: Moment | None = Field(None, description="Not older than this")
    created_to: Moment | None = Field(None, description="Older than this")
    sort: Literal["id", "-id", "email", "-email", "created_at", "-created_at"] = Field(
        "id", description="By which field, ascending; `-` in front for descending"
    )
