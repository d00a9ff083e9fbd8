"""Certificates: the operator's, checked; and one for development, which nobody has reason to trust, made by openssl."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

from buoy.errors import UsageError
from buoy.serve.access import is_loopback

__all__ = ["check", "make"]


def check(certificate: Path, key: Path) -> None:
    """Find out whether the service can speak TLS with these.

    Raises:
        UsageError: one cannot be used; the message names it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(certificate)
    except OSError as error:
        raise UsageError(f"--tls-cert: {certificate} is no certificate: {error}", "give a file in PEM") from error
    try:
        context.load_cert_chain(certificate, key, password="")  # nobody is there to be asked for one
    except OSError as error:
        raise UsageError(
            f"--tls-key: {key} is no key that goes with {certificate}: {error}",
            "give its key in PEM, without a password",
        ) from error


def make(folder: Path, host: str) -> tuple[Path, Path]:
    """Write `cert.pem` and `key.pem` for localhost and `host`, valid for 30 days.

    Raises:
        UsageError: openssl is not installed, or fails.
    """
    program = shutil.which("openssl")
    if program is None:
        raise UsageError("--tls self needs the program openssl", "install it, or give --tls-cert and --tls-key")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    names = ["DNS:localhost", "IP:127.0.0.1", "IP:::1"]
    if not is_loopback(host) and host not in ("0.0.0.0", "::"):
        names.append(f"{'IP' if host.replace('.', '').isdecimal() or ':' in host else 'DNS'}:{host}")
    command = [
        program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
        "-subj", "/CN=buoy development", "-addext", f"subjectAltName={','.join(names)}",
        "-keyout", str(key), "-out", str(certificate),
    ]  # fmt: skip
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode:
        raise UsageError(f"openssl cannot make a certificate: {made.stderr.strip()[-300:]}", "give --tls-cert")
    key.chmod(0o600)
    return certificate, key
