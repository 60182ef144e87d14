"""What goes in and out of the second factor's API."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints

from backend.core.schemas import NO_NUL, Input, Output
from backend.features.users.schemas import Password

Code = Annotated[
    str,
    StringConstraints(max_length=64, pattern=NO_NUL),
    Field(description="Of your authenticator app, or a recovery code", examples=["123456"]),
]
SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"  # noqa: S105  an example


class TotpBegin(Input):
    """Your password shows that it is really you."""

    password: Password


class TotpCode(Input):
    """A code that is good now."""

    code: Code


class TotpDisable(TotpBegin):
    """Both factors, to give up one."""

    code: Code


class TotpOut(Output):
    """Your second factor."""

    enabled: bool = Field(description="Whether signing in asks for a code")
    required: bool = Field(description="Whether what your account may do requires it")
    confirmed_at: datetime | None = Field(description="Since when it is on")
    recovery_codes_left: int = Field(examples=[10])


class TotpEnrolment(BaseModel):
    """What your authenticator app needs, three times: to type, to open, to scan. Shown this once."""

    secret: str = Field(examples=[SECRET], description="Base32 (RFC 4648)")
    uri: str = Field(examples=[f"otpauth://totp/Mainstay:ada%40example.com?secret={SECRET}&issuer=Mainstay"])
    qr_svg: str = Field(examples=['<svg xmlns="http://www.w3.org/2000/svg">…</svg>'], description="A picture, as text")


class RecoveryCodes(BaseModel):
    """Each is good once, instead of a code of the app. Shown this once."""

    recovery_codes: list[str] = Field(examples=[["3f4k-qx2m-7abz-p5wn-m2c7-t4vd-kk3x-xq6h"]])
