"""The local stack's secrets: written once, for owner and group alone, and a certificate that holds for localhost."""

import re
import socket
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy.engine import make_url

from backend.core.config import Settings
from backend.local_secrets import write_secrets
from backend.testing import ROOT


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_what_exists_is_kept_and_what_is_missing_is_made_to_fit(tmp_path: Path) -> None:
    written = write_secrets(tmp_path / "secrets")
    first = content(tmp_path / "secrets")
    assert sorted(written) == sorted(first)
    assert write_secrets(tmp_path / "secrets") == []
    assert content(tmp_path / "secrets") == first

    (tmp_path / "secrets/database__url").unlink()
    (tmp_path / "secrets/security__secret_key").unlink()
    assert sorted(write_secrets(tmp_path / "secrets")) == ["database__url", "security__secret_key"]
    second = content(tmp_path / "secrets")
    assert second["database__url"] == first["database__url"]
    assert second["security__secret_key"] != first["security__secret_key"]


def test_the_secrets_that_the_documentation_removes_are_made_anew_and_fit_each_other(tmp_path: Path) -> None:
    removed = set(re.findall(r"/run/secrets/([\w/.]+)", (ROOT / "docs/how-to/rotate-secrets.md").read_text()))
    write_secrets(tmp_path)
    for name in removed:
        (tmp_path / name).unlink()
    assert set(write_secrets(tmp_path)) == removed
    new = content(tmp_path)
    assert new["postgres/password"] in new["database__url"]
    assert new["redis/password"] in new["redis__url"]
    assert new["postgres/collector_password"] == new["collector/postgres_password"]
    assert all(new[name] in new["redis/redis.conf"] for name in ("redis/password", "collector/redis_password"))


def test_two_stacks_share_no_secret(tmp_path: Path) -> None:
    write_secrets(tmp_path / "one")
    write_secrets(tmp_path / "two")
    one, two = content(tmp_path / "one"), content(tmp_path / "two")
    assert one.keys() == two.keys()
    assert not [name for name in one if one[name] == two[name]]


def test_only_the_owner_and_the_group_can_read(tmp_path: Path) -> None:
    write_secrets(tmp_path)
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {0o440}


def test_the_app_and_the_programs_around_it_are_told_the_same(environment: Callable[..., None], tmp_path: Path) -> None:
    write_secrets(tmp_path)
    environment(SECRETS_DIR=str(tmp_path), ENVIRONMENT="production")
    settings = Settings()
    assert settings.offences(settings) == []
    assert make_url(settings.database.url).password == (tmp_path / "postgres/password").read_text()
    password = (tmp_path / "redis/password").read_text()
    assert f":{password}@" in settings.redis.url
    assert f"requirepass {password}\n" in (tmp_path / "redis/redis.conf").read_text()
    assert (tmp_path / "prometheus/metrics__token").read_text() == (tmp_path / "metrics__token").read_text()
    collectors = (tmp_path / "postgres/collector_password").read_text()
    assert (tmp_path / "collector/postgres_password").read_text() == collectors


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_the_certificate_holds_for_this_machine(tmp_path: Path, name: str) -> None:
    write_secrets(tmp_path)
    certificate, key = tmp_path / "nginx/tls.crt", tmp_path / "nginx/tls.key"
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            plain, _ = listener.accept()
            with server.wrap_socket(plain, server_side=True) as secured:
                secured.sendall(b"hello")

        thread = threading.Thread(target=answer)
        thread.start()
        client = ssl.create_default_context(cafile=certificate)
        with (
            socket.create_connection(listener.getsockname(), timeout=10) as plain,
            client.wrap_socket(plain, server_hostname=name) as secured,
        ):
            assert secured.recv(5) == b"hello"
        thread.join(10)


def put_certificate(folder: Path, days: float, *, issuer: str = "localhost", own_key: bool = True) -> None:
    """Put a certificate of localhost in place of what is there; it ends after so many days."""
    key = serialization.load_pem_private_key((folder / "nginx/tls.key").read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    subjects = key if own_key else ec.generate_private_key(ec.SECP256R1())
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("localhost", issuer)]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(issuer_name=names[1], subject_name=names[0], public_key=subjects.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    (folder / "nginx/tls.crt").unlink()
    (folder / "nginx/tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


@pytest.mark.parametrize(("days", "own_key"), [(29, True), (-0.5, True), (400, False)])
def test_a_certificate_that_signs_itself_is_renewed_before_it_ends_and_when_the_key_is_another(
    tmp_path: Path, days: float, own_key: bool
) -> None:
    write_secrets(tmp_path)
    put_certificate(tmp_path, days, own_key=own_key)
    assert write_secrets(tmp_path) == ["nginx/tls.crt"]
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(tmp_path / "nginx/tls.crt", tmp_path / "nginx/tls.key")  # says no when they do not fit
    [certificate] = x509.load_pem_x509_certificates((tmp_path / "nginx/tls.crt").read_bytes())
    assert certificate.not_valid_after_utc > datetime.now(UTC) + timedelta(days=800)


@pytest.mark.parametrize(
    ("days", "issuer", "own_key"), [(31, "localhost", True), (-0.5, "Some Authority", True), (400, "Another", False)]
)
def test_other_certificates_stay(tmp_path: Path, days: float, issuer: str, own_key: bool) -> None:
    write_secrets(tmp_path)
    put_certificate(tmp_path, days, issuer=issuer, own_key=own_key)
    assert write_secrets(tmp_path) == []
