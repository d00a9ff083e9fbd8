"""Who may do what: the generated credentials, OSCAR's two schemes, the page's cookie, signed URLs."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import yaml

from buoy.errors import StoreError, UsageError

__all__ = ["Credentials"]

_SESSION_S = 7 * 86_400


@dataclass(frozen=True)
class Credentials:
    """The secrets of one data folder, made at its first start."""

    username: str
    password: str
    #: The keys of the MinIO that `--store minio` starts.
    access_key: str
    secret_key: str
    #: What a MinIO sends with its events (its `MINIO_NOTIFY_WEBHOOK_AUTH_TOKEN_<id>`).
    event_token: str
    #: Signs cookies and URLs.
    signing_key: str

    @classmethod
    def load(cls, path: Path) -> Credentials:
        """Read them, or make them if there are none: in a file that only its owner can read."""
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return cls._read(path)
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}", "choose a folder you may write with --data") from error
        password, secret_key = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        made = cls("oscar", password, "buoy", secret_key, secrets.token_hex(32), secrets.token_hex(32))
        with os.fdopen(file, "w", encoding="utf-8") as out:
            out.write("# Made at the first start of `buoy up`. Keep it to yourself.\n")
            yaml.safe_dump(asdict(made), out, sort_keys=False)
        return made

    @classmethod
    def _read(cls, path: Path) -> Credentials:
        try:
            given = yaml.safe_load(path.read_text(encoding="utf-8"))
            values = {field.name: str(given[field.name]) for field in fields(cls)}
        except (OSError, yaml.YAMLError, TypeError, KeyError) as error:
            hint = "delete the file, and new ones are made at the next start"
            raise UsageError(f"{path}: these are not credentials ({type(error).__name__}: {error})", hint) from error
        return cls(**values)

    def admin(self, header: str) -> bool:
        """Tells whether an Authorization header is the administrator's (Basic)."""
        scheme, _, value = header.partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            given = base64.b64decode(value, validate=True)
        except ValueError:
            return False
        return hmac.compare_digest(given, f"{self.username}:{self.password}".encode())

    def knows(self, username: str, password: str) -> bool:
        """Tells whether both are right."""
        return hmac.compare_digest(f"{username}:{password}".encode(), f"{self.username}:{self.password}".encode())

    def session(self) -> str:
        """A new cookie value for the page."""
        expires = str(int(time.time()) + _SESSION_S)
        return f"{expires}.{self.sign('session', expires)}"

    def in_session(self, cookie: str) -> bool:
        """Tells whether a cookie is one of ours and not too old."""
        expires, _, signature = cookie.partition(".")
        genuine = hmac.compare_digest(signature.encode(), self.sign("session", expires).encode())
        return genuine and expires.isdecimal() and int(expires) > time.time()

    def sign(self, *parts: str) -> str:
        """A signature over the parts, 64 hexadecimal digits."""
        text = "\n".join(part.replace("\\", "\\\\").replace("\n", "\\n") for part in parts)
        return hmac.new(self.signing_key.encode(), text.encode(), hashlib.sha256).hexdigest()


def bearer(header: str) -> str:
    """The token of an Authorization header; '' if there is none."""
    scheme, _, value = header.partition(" ")
    return value.strip() if scheme.lower() == "bearer" else ""


def only_owner_reads(path: Path) -> bool:
    """Tells whether nobody else on this machine can read the file."""
    return path.stat().st_mode & 0o077 == 0
