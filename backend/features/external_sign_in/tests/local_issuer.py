"""A small issuer on a real port that also lies when told to, and speaks GitHub's dialect."""

import base64
import contextlib
import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT_ID, CLIENT_SECRET = "mainstay", "a secret of the client"
PERSON = {"sub": "42", "email": "ada@example.com", "email_verified": True, "name": "Ada Lovelace"}


def b64(text: bytes) -> str:
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


@cache
def key_named(kid: str) -> RSAKey:
    """Made once: it takes a while."""
    return RSAKey.generate_key(2048, {"kid": kid, "use": "sig"})


class Issuer:
    """What it says is in `person` and `emails`; the attributes below `lies` make it lie."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.rotate("first")
        self.person: dict[str, Any] = dict(PERSON)
        self.emails: Any = [{"email": "ada@example.com", "primary": True, "verified": True}]
        self.codes: dict[str, dict[str, str]] = {}
        self.asked: list[str] = []  # paths
        # lies
        self.claims: dict[str, Any] = {}  # in place of true ones in ID tokens; None: left out
        self.algorithm = "RS256"
        self.signed_by: RSAKey | None = None
        self.metadata: dict[str, Any] = {}
        self.instead: dict[str, tuple[int, str]] = {}  # path → status and body
        self.delay = 0.0

    def rotate(self, kid: str) -> None:
        self.key = key_named(kid)

    @property
    def discovery(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "userinfo_endpoint": f"{self.url}/userinfo",
            "jwks_uri": f"{self.url}/jwks",
            **self.metadata,
        }

    def id_token(self, nonce: str) -> str:
        now = int(time.time())
        true = {"iss": self.url, "aud": CLIENT_ID, "iat": now, "exp": now + 300, "nonce": nonce, **self.person}
        claims = {name: value for name, value in {**true, **self.claims}.items() if value is not None}
        header = {"alg": self.algorithm, "kid": self.key.kid}
        if self.algorithm == "none":
            return f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}."
        if self.algorithm == "HS256":  # the public key, which anybody has, as a shared secret
            signed = ".".join(b64(json.dumps(part).encode()) for part in (header, claims))
            return f"{signed}.{b64(hmac.digest(self.key.as_pem(private=False), signed.encode(), 'sha256'))}"
        return jwt.encode(header, claims, self.signed_by or self.key)

    def authorize(self, query: dict[str, str]) -> str:
        """Everybody consents at once; returns where the browser goes."""
        code = secrets.token_urlsafe(16)
        self.codes[code] = query
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def token(self, form: dict[str, str], authorization: str, *, github: bool) -> tuple[int, Any]:
        basic = "Basic " + base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        posted = form.get("client_id"), form.get("client_secret")
        if (posted != (CLIENT_ID, CLIENT_SECRET)) if github else (authorization != basic):
            return 401, {"error": "invalid_client"}
        begun = self.codes.pop(form.get("code", ""), None)
        challenge = b64(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if (
            begun is None
            or begun["redirect_uri"] != form.get("redirect_uri")
            or (begun.get("code_challenge_method"), begun.get("code_challenge")) != ("S256", challenge)
        ):
            return (200, {"error": "bad_verification_code"}) if github else (400, {"error": "invalid_grant"})
        answer = {"access_token": "opaque", "token_type": "bearer"}
        return 200, answer if github else {**answer, "id_token": self.id_token(begun["nonce"])}

    def answer(self, path: str, form: dict[str, str], authorization: str) -> tuple[int, Any]:
        if path in ("/token", "/login/oauth/access_token"):
            return self.token(form, authorization, github=path != "/token")
        if path in ("/userinfo", "/user", "/user/emails") and authorization != "Bearer opaque":
            return 401, {"message": "Bad credentials"}
        known = {
            "/.well-known/openid-configuration": self.discovery,
            "/jwks": {"keys": [self.key.as_dict(private=False)]},
            "/userinfo": self.person,
            "/user": {"id": int(self.person["sub"]), "login": "ada", "name": self.person["name"], "email": None},
            "/user/emails": self.emails,
        }
        return (200, known[path]) if path in known else (404, {})


@contextlib.contextmanager
def running_issuer() -> Iterator[Issuer]:
    """An issuer that listens on a free port, in a thread of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            issuer.asked.append(url.path)
            if url.path.endswith("/authorize"):
                self.send_response(302)
                self.send_header("Location", issuer.authorize(dict(parse_qsl(url.query))))
                self.end_headers()
                return
            length = int(self.headers.get("Content-Length") or 0)
            form = dict(parse_qsl(self.rfile.read(length).decode()))
            status, body = issuer.answer(url.path, form, self.headers.get("Authorization", ""))
            status, text = issuer.instead.get(url.path, (status, json.dumps(body)))
            stopping.wait(issuer.delay)
            with contextlib.suppress(OSError):  # the caller was tired of waiting
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(text.encode())

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Tests are quiet."""

    stopping = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer = Issuer(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield issuer
    finally:
        stopping.set()
        server.shutdown()
        thread.join(5)
        server.server_close()
