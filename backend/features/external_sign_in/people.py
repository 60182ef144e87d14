"""Who it is that a provider vouches for: by ID token (OpenID Connect), or as GitHub says it."""

from dataclasses import dataclass
from typing import Any

import structlog
from authlib.integrations.httpx_client import AsyncOAuth2Client  # type: ignore[import-untyped]
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry
from pydantic import TypeAdapter, ValidationError

from backend.core.outside import Outside
from backend.features.external_sign_in.errors import NotVouched
from backend.features.external_sign_in.exchange import Nonsense, discovered, get_json, published, redeem, talking_to
from backend.features.external_sign_in.flow import Flow
from backend.features.external_sign_in.providers import Provider
from backend.features.users.emails import is_storable
from backend.features.users.schemas import Email

log = structlog.get_logger(__name__)

# Signatures only: neither `none` nor a shared secret.
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA"]
LEEWAY = 60  # seconds that two clocks may differ
ADDRESS = TypeAdapter[str](Email)


@dataclass(frozen=True, kw_only=True)
class Person:
    """What a provider says about somebody. `email` is empty unless it is one; `subject` never changes."""

    subject: str
    email: str
    email_verified: bool
    name: str


def _person(subject: Any, email: Any, verified: Any, name: Any) -> Person:
    # padded: MariaDB would take it for the one without
    if not isinstance(subject, str) or not 0 < len(subject) <= 255 or subject != subject.strip():
        raise Nonsense("subject")
    if not is_storable(subject):
        raise Nonsense("subject")
    try:
        address = ADDRESS.validate_python(email)
    except ValidationError:
        address, verified = "", False
    name = name.strip()[:200].strip() if isinstance(name, str) and is_storable(name) else ""
    # some issuers write booleans as text
    return Person(subject=subject, email=address, email_verified=verified is True or verified == "true", name=name)


async def person_behind(
    outside: Outside, provider: Provider, flow: Flow, *, code: str, issuer: str, redirect_uri: str
) -> Person:
    """Exchange the code and read who it is. NotVouched when what comes is not to be believed."""
    async with talking_to(outside, provider, redirect_uri) as client:
        document = await discovered(client, provider)
        if issuer and issuer != provider.issuer and provider.issuer:  # RFC 9207: another issuer's answer, mixed up
            raise NotVouched
        if document.get("authorization_response_iss_parameter_supported") is True and not issuer:
            raise NotVouched
        token = await redeem(client, document, flow, code)
        if not provider.issuer:
            return await _at_github(client, provider)
        claims = await _claims(client, provider, document, flow, token.get("id_token"))
        if "email" not in claims and isinstance(document.get("userinfo_endpoint"), str):
            more = await get_json(client, document["userinfo_endpoint"])
            if not isinstance(more, dict) or more.get("sub") != claims["sub"]:  # OpenID Connect Core §5.3.2
                raise NotVouched
            claims = {**more, **claims}
        return _person(claims["sub"], claims.get("email"), claims.get("email_verified"), claims.get("name"))


async def _claims(
    client: AsyncOAuth2Client, provider: Provider, document: dict[str, Any], flow: Flow, id_token: Any
) -> dict[str, Any]:
    """What the ID token says, checked by OpenID Connect Core §3.1.3.7."""
    if not isinstance(id_token, str):
        raise Nonsense("no ID token")
    registry = JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
    rules = jwt.JWTClaimsRegistry(
        leeway=LEEWAY,
        iss={"essential": True, "value": provider.issuer},
        aud={"essential": True, "value": provider.client_id},
        nonce={"essential": True, "value": flow.nonce},
        sub={"essential": True},
        exp={"essential": True},
        iat={"essential": True},
    )
    try:
        try:
            claims = jwt.decode(id_token, await _keys(client, document), registry=registry).claims
        except InvalidKeyIdError:  # the issuer has changed its keys
            claims = jwt.decode(id_token, await _keys(client, document, afresh=True), registry=registry).claims
        rules.validate(claims)
    except (JoseError, ValueError) as untrue:
        log.warning("id_token_refused", provider=provider.name, error=type(untrue).__name__)
        raise NotVouched from untrue
    several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    if claims.get("azp", None if several else provider.client_id) != provider.client_id:
        raise NotVouched
    return claims


async def _keys(client: AsyncOAuth2Client, document: dict[str, Any], *, afresh: bool = False) -> KeySet:
    keys = await published(client, document["jwks_uri"], afresh=afresh)
    try:
        return KeySet.import_key_set({"keys": keys["keys"]})
    except (JoseError, KeyError, TypeError, ValueError) as error:
        raise Nonsense("keys") from error


async def _at_github(client: AsyncOAuth2Client, provider: Provider) -> Person:
    """GitHub speaks OAuth without OpenID Connect: its API says whose the token is, and which addresses are theirs."""
    user = await get_json(client, provider.user_endpoint)
    emails = await get_json(client, provider.emails_endpoint)
    if not isinstance(user, dict) or not isinstance(user.get("id"), int) or not isinstance(emails, list):
        raise Nonsense("user")
    primary = next((one for one in emails if isinstance(one, dict) and one.get("primary") is True), {})
    return _person(str(user["id"]), primary.get("email"), primary.get("verified"), user.get("name"))
