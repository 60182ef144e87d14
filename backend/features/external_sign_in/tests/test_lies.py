"""An issuer that lies, is slow, or is not there; and GitHub, which has a dialect of its own."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from backend.features.external_sign_in import exchange, providers
from backend.features.external_sign_in.tests.browser import EXTERNAL, come_in, consent, parameters, start
from backend.features.external_sign_in.tests.local_issuer import CLIENT_ID, CLIENT_SECRET, Issuer, key_named
from backend.features.external_sign_in.tests.test_sign_in import error, me
from backend.testing import free_port

DISCOVERY = "/.well-known/openid-configuration"


async def test_the_honest_issuer_is_believed(client: httpx2.AsyncClient, issuer: Issuer) -> None:
    for _ in range(2):
        assert (await me(client, await come_in(client))).json()["email"] == "ada@example.com"
    assert issuer.asked.count(DISCOVERY) == 1
    assert issuer.asked.count("/jwks") == 1


async def test_the_request_has_state_nonce_and_a_hashed_verifier(client: httpx2.AsyncClient, issuer: Issuer) -> None:
    one, two = [parameters(await start(client)) for _ in range(2)]
    assert (one["response_type"], one["client_id"], one["scope"]) == ("code", CLIENT_ID, "openid email profile")
    assert one["code_challenge_method"] == "S256"
    assert one["prompt"] == "select_account"  # no session without a click of the person's
    assert all(len(one[name]) >= 43 and one[name] != two[name] for name in ("state", "nonce", "code_challenge"))


async def test_a_code_without_its_verifier_is_worthless(client: httpx2.AsyncClient, issuer: Issuer) -> None:
    """Somebody else's code, put into an attempt of my own: the issuer compares the challenge of theirs."""
    theirs = parameters(await consent(await start(client)))["code"]
    mine = parameters(await start(client))["state"]
    answer = await client.get(f"{EXTERNAL}/oidc/callback", params={"code": theirs, "state": mine})
    assert error(answer) == (401, "provider_refused")
    assert answer.json()["error"]["details"] == {"error": "invalid_grant"}


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"aud": "another client"},
        {"aud": ["another client"]},
        {"aud": None},
        {"aud": [CLIENT_ID, "another"]},
        {"aud": [CLIENT_ID, "another"], "azp": "another"},
        {"azp": "another"},
        {"iss": "https://evil.example"},
        {"iss": None},
        {"exp": 1},
        {"exp": None},
        {"exp": "soon"},
        {"iat": None},
        {"iat": 4_000_000_000},
        {"sub": None},
        {"sub": 42},
        {"sub": ""},
    ],
    ids=str,
)
async def test_an_id_token_that_says_something_untrue_is_refused(
    client: httpx2.AsyncClient, issuer: Issuer, claims: dict[str, Any]
) -> None:
    issuer.claims = claims
    assert error(await come_in(client)) == (401, "provider_refused")


@pytest.mark.parametrize("sub", ["42 ", "x" * 256, "nul\x00", "\ud800"], ids=ascii)
async def test_a_key_that_cannot_be_stored_as_it_is_is_refused(
    client: httpx2.AsyncClient, issuer: Issuer, sub: str
) -> None:
    issuer.claims = {"sub": sub}
    assert error(await come_in(client)) == (503, "unavailable")


async def test_an_id_token_for_several_is_good_when_it_was_issued_to_us(
    client: httpx2.AsyncClient, issuer: Issuer
) -> None:
    issuer.claims = {"aud": [CLIENT_ID, "another"], "azp": CLIENT_ID}
    assert (await come_in(client)).status_code == 200


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
async def test_an_id_token_must_be_signed_with_a_key_of_the_issuers(
    client: httpx2.AsyncClient, issuer: Issuer, algorithm: str
) -> None:
    issuer.algorithm = algorithm
    assert error(await come_in(client)) == (401, "provider_refused")


async def test_a_signature_of_somebody_else_is_refused(client: httpx2.AsyncClient, issuer: Issuer) -> None:
    issuer.signed_by = key_named("somebody else's")
    assert error(await come_in(client)) == (401, "provider_refused")


async def test_an_issuer_may_change_its_keys(client: httpx2.AsyncClient, issuer: Issuer) -> None:
    assert (await come_in(client)).status_code == 200
    issuer.rotate("second")
    assert (await come_in(client)).status_code == 200


async def test_another_issuers_answer_is_not_taken_for_this_ones(client: httpx2.AsyncClient, issuer: Issuer) -> None:
    assert (await client.get(await consent(await start(client)) + f"&iss={issuer.url}")).status_code == 200
    mixed_up = await client.get(await consent(await start(client)) + "&iss=https://evil.example")
    assert error(mixed_up) == (401, "provider_refused")


async def test_who_promises_to_name_itself_has_to(client: httpx2.AsyncClient, issuer: Issuer) -> None:
    issuer.metadata = {"authorization_response_iss_parameter_supported": True}
    assert error(await come_in(client)) == (401, "provider_refused")


async def test_the_address_may_be_at_userinfo_alone(client: httpx2.AsyncClient, issuer: Issuer) -> None:
    issuer.claims = {"email": None, "email_verified": None}
    assert (await me(client, await come_in(client))).json()["email"] == "ada@example.com"
    issuer.instead["/userinfo"] = 200, json.dumps({**issuer.person, "sub": "another"})
    assert error(await come_in(client)) == (401, "provider_refused")


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        (DISCOVERY, (500, "")),
        (DISCOVERY, (200, "<html>")),
        (DISCOVERY, (200, "[]")),
        (DISCOVERY, (200, '{"issuer": "https://evil.example"}')),
        ("/token", (500, "")),
        ("/token", (200, "<html>")),
        ("/token", (200, "[]")),
        ("/token", (200, "{}")),
        ("/token", (200, '{"access_token": "opaque", "token_type": "bearer", "expires_in": []}')),
        ("/token", (200, '{"access_token": "opaque", "token_type": "bearer"}')),
        ("/token", (401, '{"error": "invalid_client"}')),
        ("/jwks", (404, "")),
        ("/jwks", (200, '{"keys": 1}')),
        ("/jwks", (200, '{"keys": [{"kty": "RSA"}]}')),
    ],
    ids=str,
)
async def test_nonsense_of_an_issuer_is_an_outage_and_no_error_of_ours(
    client: httpx2.AsyncClient, issuer: Issuer, path: str, answer: tuple[int, str]
) -> None:
    issuer.instead[path] = answer
    refused = await client.get(f"{EXTERNAL}/oidc/start") if path == DISCOVERY else await come_in(client)
    assert error(refused) == (503, "unavailable")
    assert "Retry-After" in refused.headers


async def test_an_issuer_does_not_speak_for_another(client: httpx2.AsyncClient, issuer: Issuer) -> None:
    issuer.metadata = {"issuer": "https://evil.example"}
    assert error(await client.get(f"{EXTERNAL}/oidc/start")) == (503, "unavailable")


async def test_an_issuer_that_is_not_there_is_an_outage(
    client: httpx2.AsyncClient, environment: Callable[..., None]
) -> None:
    for issuer in (f"http://127.0.0.1:{free_port()}", "no address"):
        environment(EXTERNAL_SIGN_IN__OIDC_ISSUER=issuer, EXTERNAL_SIGN_IN__OIDC_CLIENT_ID=CLIENT_ID)
        assert error(await client.get(f"{EXTERNAL}/oidc/start")) == (503, "unavailable")


async def test_an_issuer_gets_so_much_time_and_no_more(
    client: httpx2.AsyncClient, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    callback = await consent(await start(client))
    monkeypatch.setattr(exchange, "TIMEOUT", 0.2)
    issuer.delay = 30
    began = time.monotonic()
    assert error(await client.get(callback)) == (503, "unavailable")
    assert time.monotonic() - began < 5


# --- GitHub --------------------------------------------------------------------------------------------------------


@pytest.fixture
def github(issuer: Issuer, environment: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Issuer:
    """The app talks GitHub's dialect to a server of ours."""
    local = replace(
        providers.READY_MADE["github"],
        authorization_endpoint=f"{issuer.url}/login/oauth/authorize",
        token_endpoint=f"{issuer.url}/login/oauth/access_token",
        user_endpoint=f"{issuer.url}/user",
        emails_endpoint=f"{issuer.url}/user/emails",
    )
    monkeypatch.setitem(providers.READY_MADE, "github", local)
    environment(EXTERNAL_SIGN_IN__GITHUB_CLIENT_ID=CLIENT_ID, EXTERNAL_SIGN_IN__GITHUB_CLIENT_SECRET=CLIENT_SECRET)
    return issuer


async def test_github_is_asked_for_its_primary_address(client: httpx2.AsyncClient, github: Issuer) -> None:
    github.emails.insert(0, {"email": "old@example.com", "primary": False, "verified": True})
    account = (await me(client, await come_in(client, provider="github"))).json()
    assert (account["email"], account["full_name"]) == ("ada@example.com", "Ada Lovelace")
    github.person["name"] = None
    github.emails = []
    assert (await me(client, await come_in(client, provider="github"))).json()["id"] == account["id"]
    asked = parameters(await start(client, "github"))
    assert asked["scope"] == "read:user user:email"
    assert asked["code_challenge_method"] == "S256"
    assert "nonce" not in asked


@pytest.mark.parametrize(
    "emails",
    [
        [],
        [{"email": "ada@example.com", "primary": True, "verified": False}],
        [{"email": "ada@example.com", "primary": False, "verified": True}],
    ],
    ids=str,
)
async def test_an_address_that_github_has_not_verified_opens_nothing(
    client: httpx2.AsyncClient, github: Issuer, emails: list[object]
) -> None:
    github.emails = emails
    assert error(await come_in(client, provider="github")) == (403, "email_not_verified")


async def test_github_says_no_with_status_200(client: httpx2.AsyncClient, github: Issuer) -> None:
    state = parameters(await start(client, "github"))["state"]
    answer = await client.get(f"{EXTERNAL}/github/callback", params={"code": "wrong", "state": state})
    assert error(answer) == (401, "provider_refused")
    assert answer.json()["error"]["details"] == {"error": "bad_verification_code"}


@pytest.mark.parametrize(
    "instead", [{"/user": (200, "{}")}, {"/user/emails": (200, "{}")}, {"/user": (403, "{}")}], ids=str
)
async def test_nonsense_of_github_is_an_outage(
    client: httpx2.AsyncClient, github: Issuer, instead: dict[str, tuple[int, str]]
) -> None:
    github.instead |= instead
    assert error(await come_in(client, provider="github")) == (503, "unavailable")
