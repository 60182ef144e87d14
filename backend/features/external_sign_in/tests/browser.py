"""What a browser does in a sign-in with a provider, step by step."""

from urllib.parse import parse_qs, urlsplit

import httpx2

EXTERNAL = "/api/v1/auth/external"
COOKIE = "external_sign_in"


def plain_client() -> httpx2.AsyncClient:
    """For the real network, without TLS: reading the certificates of the world for nothing takes a while."""
    return httpx2.AsyncClient(verify=False)


async def start(browser: httpx2.AsyncClient, provider: str = "oidc", **query: str) -> str:
    """Begin; where the provider is."""
    answer = await browser.get(f"{EXTERNAL}/{provider}/start", params=query)
    assert answer.status_code == 302, answer.text
    return str(answer.headers["location"])


def parameters(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


async def consent(url: str, sub: str = "", *, deny: bool = False) -> str:
    """Sign in over there, by its form if it has one; where that sends the browser."""
    async with plain_client() as network:
        if not sub:
            return str((await network.get(url)).headers["location"])
        answer = await network.post(url, data={"action": "deny"} if deny else {"sub": sub})
    assert answer.status_code == 302, answer.text
    return str(answer.headers["location"])


async def come_in(browser: httpx2.AsyncClient, sub: str = "", provider: str = "oidc", **query: str) -> httpx2.Response:
    """The whole way, there and back."""
    return await browser.get(await consent(await start(browser, provider, **query), sub))


async def tell(mock: str, sub: str, **claims: object) -> None:
    """Let oidc-provider-mock know a person."""
    async with plain_client() as network:
        (await network.put(f"{mock}/users/{sub}", json=claims)).raise_for_status()
