"""A real OpenID provider on a loopback port: its discovery document, its keys, and tokens signed with them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey

__all__ = ["AUDIENCE", "Issuer", "issuer"]

AUDIENCE = "buoy-test"
_Key = RSAKey | ECKey | OKPKey
_MAKERS: dict[str, Callable[[str], _Key]] = {
    "RS256": lambda kid: RSAKey.generate_key(2048, {"kid": kid}),
    "ES256": lambda kid: ECKey.generate_key("P-256", {"kid": kid}),
    "Ed25519": lambda kid: OKPKey.generate_key("Ed25519", {"kid": kid}),
}


class Issuer:
    """The provider; `asked` counts how often its keys were fetched."""

    def __init__(self) -> None:
        self.asked = 0
        self.slow = threading.Event()
        self.down = False
        self.says: dict[str, Any] = {}
        self.signers = {alg: make(f"{alg}-1") for alg, make in _MAKERS.items()}
        self._number = 1
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._answers())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/realm"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self.slow.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def rotate(self) -> None:
        """New keys; the old ones are no longer published."""
        self._number += 1
        self.signers = {alg: make(f"{alg}-{self._number}") for alg, make in _MAKERS.items()}

    def token(self, alg: str = "RS256", header: dict[str, Any] | None = None, **claims: Any) -> str:
        """A good token, but for what is given; a claim of `None` is left out."""
        now = int(time.time())
        said = {"iss": self.url, "aud": AUDIENCE, "sub": "ana", "iat": now, "exp": now + 300, **claims}
        said = {name: value for name, value in said.items() if value is not None}
        key = self.signers[alg]
        return jwt.encode({"alg": alg, "kid": key.kid, **(header or {})}, said, key, algorithms=[alg])

    def document(self, path: str) -> dict[str, Any] | None:
        """What is at that path."""
        if path == "/realm/.well-known/openid-configuration":
            return {"issuer": self.url, "jwks_uri": f"{self.url}/keys", **self.says}
        if path == "/realm/keys":
            self.asked += 1
            return dict(KeySet([*self.signers.values()]).as_dict(private=False))
        return None

    def _answers(outer) -> type[BaseHTTPRequestHandler]:
        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                document = None if outer.down else outer.document(self.path)
                body = json.dumps(document).encode()
                self.send_response(200 if document else 503)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Answers


@contextmanager
def issuer() -> Iterator[Issuer]:
    """A provider for the time of the block."""
    provider = Issuer()
    try:
        yield provider
    finally:
        provider.close()
