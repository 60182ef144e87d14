"""What `docker compose up` must know before its first start: passwords, keys, and a certificate for localhost.

Each program gets a folder of its own, so that the one that faces the network cannot read the database's password.
Files are for their owner and group alone: docker-compose.yml lets the containers read through the group.
"""

import ipaddress
import os
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

MODE = 0o440
CERTIFICATE_DAYS = 825  # the longest that browsers accept
RENEWED_BEFORE = timedelta(days=30)  # its end


def write_secrets(folder: Path) -> list[str]:
    """Write what is missing in `folder`, keep what is there, but for a certificate of ours that will soon not do.

    Returns the paths that were written, relative to `folder`.
    """
    written: list[str] = []

    def keep(name: str, make: Callable[[], str], does: Callable[[str], bool] = bool) -> str:
        path = folder / name
        if not path.exists() or not does(path.read_text()):
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, make())
            written.append(name)
        return path.read_text()

    password = keep("postgres/password", secrets.token_hex)
    keep("database__url", lambda: f"postgresql://mainstay:{password}@postgres:5432/mainstay")
    collectors = keep("collector/postgres_password", secrets.token_hex)
    keep("postgres/collector_password", lambda: collectors)
    password = keep("redis/password", secrets.token_hex)
    collectors = keep("collector/redis_password", secrets.token_hex)
    keep("redis/redis.conf", lambda: f"requirepass {password}\nuser collector on >{collectors} +info +ping\n")
    keep("redis__url", lambda: f"redis://:{password}@redis:6379/0")
    keep("security__secret_key", lambda: secrets.token_urlsafe(48))
    token = keep("metrics__token", secrets.token_urlsafe)
    keep("prometheus/metrics__token", lambda: token)
    keep("grafana/password", secrets.token_urlsafe)
    key = keep("nginx/tls.key", _new_key)
    keep("nginx/tls.crt", lambda: _certificate(key), lambda certificate: _does(certificate, key))
    return written


def _write(path: Path, text: str) -> None:
    """All of the file or none of it, and never readable by others, not even while it is written."""
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, MODE), "w") as file:
        os.fchmod(file.fileno(), MODE)  # whatever the umask took away
        file.write(text)
    unfinished.rename(path)


def _new_key() -> str:
    pem, pkcs8, plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(pem, pkcs8, plain).decode()


def _does(certificate_pem: str, key_pem: str) -> bool:
    """Whether a certificate can stay. One that somebody else signed is not ours to judge."""
    certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
    if certificate.issuer != certificate.subject:
        return True
    key = serialization.load_pem_private_key(key_pem.encode(), password=None)
    lasts = certificate.not_valid_after_utc - datetime.now(UTC) > RENEWED_BEFORE
    return lasts and certificate.public_key() == key.public_key()


def _certificate(key_pem: str) -> str:
    """A certificate for this machine that signs itself; browsers ask once whether to trust it."""
    key = cast(ec.EllipticCurvePrivateKey, serialization.load_pem_private_key(key_pem.encode(), password=None))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    names = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=CERTIFICATE_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
