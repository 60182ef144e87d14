"""Talking to providers: where to send the person, and who they turn out to be. Bounded in time, never a 500."""

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import structlog
from authlib.integrations.base_client import OAuthError  # type: ignore[import-untyped]
from authlib.integrations.httpx_client import AsyncOAuth2Client  # type: ignore[import-untyped]

from backend.core.errors import Unavailable
from backend.core.outside import Outside
from backend.features.external_sign_in.errors import NotVouched
from backend.features.external_sign_in.flow import Flow
from backend.features.external_sign_in.providers import Provider

log = structlog.get_logger(__name__)

TIMEOUT = 5  # seconds, for everything that one request of ours asks of a provider
REMEMBERED_FOR = 3600  # seconds, for what a provider publishes about itself
# Errors (RFC 6749 §4.1.2.1, §5.2) that are not the person's doing: an outage over there, or a client set up badly here.
AMISS = frozenset(
    {
        "server_error",
        "temporarily_unavailable",
        "incorrect_client_credentials",
        "invalid_client",
        "invalid_request",
        "invalid_scope",
        "redirect_uri_mismatch",
        "unauthorized_client",
        "unsupported_response_type",
    }
)

ERROR_CODE = re.compile(r"[a-z_]{1,50}")

_published: dict[str, tuple[float, dict[str, Any]]] = {}


class Nonsense(Exception):
    """The provider answered something that is not what the protocol says."""


def refusal(provider: Provider, error: str) -> NotVouched | Unavailable:
    """What an error code of a provider means to the person."""
    if error in AMISS:
        log.warning("provider_error", provider=provider.name, error=error)
        return Unavailable(f"{provider.label} cannot help at the moment: try again, or sign in another way")
    return NotVouched(details={"error": error if ERROR_CODE.fullmatch(error) else "unknown"})


@asynccontextmanager
async def talking_to(outside: Outside, provider: Provider, redirect_uri: str) -> AsyncIterator[AsyncOAuth2Client]:
    """A client of the provider's; Unavailable when it does not answer in time, or answers nonsense."""
    try:
        with anyio.fail_after(TIMEOUT):
            async with AsyncOAuth2Client(
                client_id=provider.client_id,
                client_secret=provider.client_secret.get_secret_value(),
                scope=provider.scopes,
                redirect_uri=redirect_uri,
                code_challenge_method="S256",
                **outside.options,
            ) as client:
                yield client
    except OAuthError as error:
        raise refusal(provider, str(error.error)) from error
    except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, Nonsense) as error:
        log.warning("provider_unavailable", provider=provider.name, error=type(error).__name__)
        raise Unavailable(
            f"{provider.label} does not answer as it should: try again, or sign in another way"
        ) from error


async def get_json(client: AsyncOAuth2Client, url: str, *, anonymous: bool = False) -> Any:
    response = await client.request("GET", url, headers={"Accept": "application/json"}, withhold_token=anonymous)
    response.raise_for_status()
    try:
        return response.json()
    except ValueError as error:
        raise Nonsense(url) from error


async def published(client: AsyncOAuth2Client, url: str, *, afresh: bool = False) -> dict[str, Any]:
    """A document that the provider publishes, an hour old at most; `afresh` asks in any case."""
    known = _published.get(url)
    if known and not afresh and time.monotonic() - known[0] < REMEMBERED_FOR:
        return known[1]
    document = await get_json(client, url, anonymous=True)
    if not isinstance(document, dict):
        raise Nonsense(url)
    _published[url] = time.monotonic(), document
    return document


async def discovered(client: AsyncOAuth2Client, provider: Provider) -> dict[str, Any]:
    """What the issuer says about itself (OpenID Connect Discovery §4); of GitHub's kind, what we know of it."""
    if not provider.issuer:
        return {
            "authorization_endpoint": provider.authorization_endpoint,
            "token_endpoint": provider.token_endpoint,
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
        }
    document = await published(client, f"{provider.issuer.rstrip('/')}/.well-known/openid-configuration")
    needed = ("authorization_endpoint", "token_endpoint", "jwks_uri")
    if document.get("issuer") != provider.issuer or not all(isinstance(document.get(name), str) for name in needed):
        raise Nonsense("discovery document")
    return document


async def authorization_url(outside: Outside, provider: Provider, flow: Flow, redirect_uri: str) -> str:
    """Where the person signs in."""
    async with talking_to(outside, provider, redirect_uri) as client:
        document = await discovered(client, provider)
        # With a click over there: a link of another site shall sign nobody in by itself.
        more = {"prompt": "select_account"} | ({"nonce": flow.nonce} if provider.issuer else {})
        url, _ = client.create_authorization_url(
            document["authorization_endpoint"], state=flow.state, code_verifier=flow.verifier, **more
        )
        return str(url)


async def redeem(client: AsyncOAuth2Client, document: dict[str, Any], flow: Flow, code: str) -> dict[str, Any]:
    """The provider's tokens for the code (RFC 6749 §4.1.3), with the PKCE verifier."""
    methods = document.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
    client.token_endpoint_auth_method = (
        "client_secret_basic" if "client_secret_basic" in methods else "client_secret_post"
    )
    try:
        token = await client.fetch_token(
            document["token_endpoint"], grant_type="authorization_code", code=code, code_verifier=flow.verifier
        )
    except (ValueError, TypeError) as error:  # no JSON object, or no number of seconds
        raise Nonsense("token answer") from error
    if not isinstance(token.get("access_token"), str):
        raise Nonsense("token answer")
    return dict(token)
