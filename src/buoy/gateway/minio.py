"""The MinIO behind `--store minio`: a process of ours, and its events.

Measured: `listen_bucket_notification` is no event path (MinIO holds its answer back in packets of about
4 KB, so a single event waits for minutes). The webhook is, and OSCAR uses it too. Without a queue folder an
event comes within 10 ms and is lost while nobody listens; with one none is lost, but each waits up to 3 s.
So there is none: what an outage loses, listing finds.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from buoy.errors import BuoyError, MissingError, StoreError, UsageError
from buoy.gateway.auth import Credentials
from buoy.gateway.events import Record
from buoy.gateway.processes import note
from buoy.gateway.services import Service
from buoy.gateway.watch import Listing
from buoy.store.s3 import S3Store
from buoy.store.s3_events import subscribe

__all__ = ["OUR_ARN", "MinioEvents", "MinioProcess"]

_log = logging.getLogger(__name__)

#: The webhook that our own MinIO knows: `arn:minio:sqs:<region>:<id>:webhook`, its region empty.
OUR_ARN = "arn:minio:sqs::BUOY:webhook"
_PROBE_BUCKET = "buoy-probe"
_PROBE_WAIT_S = 5.0
_START_S = 60.0
#: Between two listings, with events that are proven, and without.
_SELDOM_S, _OFTEN_S = 30.0, 2.0
#: Between two looks at whether the store still answers.
_LOOK_EVERY_S = 2.0
_PROVE_AGAIN_S = 30.0


class MinioProcess:
    """A MinIO on the loopback, restarted when it ends by itself.

    Args:
        data: our data folder; MinIO's is `data/minio`.
        webhook: our URL for its events.
        restarted: called when it had ended and answers again.
    """

    def __init__(self, data: Path, credentials: Credentials, webhook: str, restarted: Callable[[], None]) -> None:
        self._program = _find_program()
        self._data = data
        self._credentials = credentials
        self._webhook = webhook
        self._restarted = restarted
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="minio", daemon=True)

    @property
    def endpoint(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            StoreError: it ended, or took too long.
        """
        self._launch()
        self._thread.start()

    def stop(self) -> None:
        """End it properly."""
        self._stopping.set()
        process = self._process
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if self._thread.is_alive():
            self._thread.join()

    def _launch(self) -> None:
        folder = self._data / "minio"
        folder.mkdir(exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MINIO_")}
        environment |= {
            "MINIO_ROOT_USER": self._credentials.access_key,
            "MINIO_ROOT_PASSWORD": self._credentials.secret_key,
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
            "MINIO_NOTIFY_WEBHOOK_ENABLE_BUOY": "on",
            "MINIO_NOTIFY_WEBHOOK_ENDPOINT_BUOY": self._webhook,
            "MINIO_NOTIFY_WEBHOOK_AUTH_TOKEN_BUOY": self._credentials.event_token,
        }
        log_path = self._data / "logs" / "minio.log"
        command = [self._program, "server", "--quiet", "--address", f"127.0.0.1:{self._port}", str(folder)]
        with log_path.open("ab") as log:
            self._process = process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        note(process.pid, self._data / "work" / "minio")
        deadline = time.monotonic() + _START_S
        while not self._ready():
            if process.poll() is not None or time.monotonic() > deadline:
                told = log_path.read_text(errors="replace")[-500:].strip()
                raise StoreError(f"MinIO did not start: {told}", f"see {log_path}", retry=True)
            if self._stopping.wait(0.05):
                return

    def _ready(self) -> bool:
        import httpx2

        try:
            return httpx2.get(f"{self.endpoint}/minio/health/cluster", timeout=5).status_code == 200
        except httpx2.HTTPError:
            return False

    def _keep(self) -> None:
        while not self._stopping.is_set():
            assert self._process is not None
            code = self._process.wait()
            if self._stopping.is_set():
                return
            _log.warning("MinIO ended with %s; starting it again", code)
            try:
                self._launch()
            except StoreError as error:
                _log.error("%s", error)
                self._stopping.wait(5.0)
            else:
                self._restarted()


class MinioEvents:
    """Subscribes to what services take in, proves that events arrive, and lists wherever they may not have.

    An event path counts only after an object of ours came back through it. Until then, and where there is
    none (`arn` empty), listing does the work.
    """

    def __init__(self, store: S3Store, services: Mapping[str, Service], listing: Listing, arn: str) -> None:
        self._store = store
        self._services = services
        self._listing = listing
        self._arn = arn
        self._subscribed: dict[str, frozenset[str]] = {}
        self._probe = ""
        self._arrived = threading.Event()
        self._wake = threading.Event()
        self._stopping = False
        self.proven = False
        self._prove_at_s = 0.0
        self._thread = threading.Thread(target=self._loop, name="s3-events", daemon=True)
        listing.period_s = _OFTEN_S

    def start(self) -> None:
        """Begin; the probe needs our webhook to answer, so this does not wait for it."""
        if not self._arn:
            _log.warning(
                "%s: no BUOY_S3_WEBHOOK_ARN is given, so new objects are found by listing, every %g s",
                self._store.endpoint,
                _OFTEN_S,
            )
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping = True
        self._wake.set()
        self._thread.join()

    def refresh(self) -> None:
        """The services have changed."""
        self._wake.set()

    def doubt(self) -> None:
        """There was an outage: list, and rely on events only when they are proven again."""
        self.proven, self._prove_at_s, self._subscribed = False, 0.0, {}
        self._listing.period_s = _OFTEN_S
        self._listing.ask()
        self._wake.set()

    def receive(self, found: Iterable[Record]) -> None:
        """See whether the probe is among what the webhook brings."""
        if any(record.bucket == _PROBE_BUCKET and record.key == self._probe for record in found):
            self._arrived.set()

    def _loop(self) -> None:
        up = True
        while not self._stopping:
            self._wake.clear()
            try:
                self._store.buckets()
                if not up:
                    _log.info("%s answers again", self._store.endpoint)
                    up = True
                    self.doubt()
                if self._arn and not self.proven and time.monotonic() >= self._prove_at_s:
                    self._prove_at_s = time.monotonic() + _PROVE_AGAIN_S
                    self._prove()
                if self.proven:
                    self._subscribe()
            except BuoyError as error:
                if up:
                    _log.warning("events of %s: %s", self._store.endpoint, error)
                up = False
                self.doubt()
                self._wake.clear()
            self._wake.wait(_LOOK_EVERY_S)

    def _prove(self) -> None:
        """Put an object, and see whether its event comes."""
        self._probe = f"probe/{secrets.token_hex(8)}"
        self._arrived.clear()
        self._store.create_bucket(_PROBE_BUCKET)
        try:
            subscribe(self._store, _PROBE_BUCKET, self._arn, ["probe/"])
            self._store.put(_PROBE_BUCKET, self._probe, b"does an event of this come?")
            came = self._arrived.wait(_PROBE_WAIT_S)
        except StoreError as error:
            if error.retry:
                raise
            came = False
            _log.warning("%s", error)
        finally:
            with suppress(BuoyError):
                self._store.delete_bucket(_PROBE_BUCKET)
        if came:
            _log.info("events of %s arrive", self._store.endpoint)
        else:
            _log.warning(
                "%s: no event of a probe object came within %g s; objects are found by listing, every %g s",
                self._store.endpoint,
                _PROBE_WAIT_S,
                _OFTEN_S,
            )
        self.proven = came
        self._listing.period_s = _SELDOM_S if came else _OFTEN_S
        self._subscribed = {}

    def _subscribe(self) -> None:
        wanted: dict[str, set[str]] = {bucket: set() for bucket in self._subscribed}
        for service in tuple(self._services.values()):
            for path in service.inputs:
                wanted.setdefault(path.bucket, set()).add(path.key_prefix)
        for bucket, prefixes in wanted.items():
            if self._subscribed.get(bucket) != frozenset(prefixes):
                try:
                    subscribe(self._store, bucket, self._arn, prefixes)
                except MissingError:
                    if prefixes:  # else it went with its service
                        _log.warning("a service's input bucket %s is gone", bucket)
                self._subscribed[bucket] = frozenset(prefixes)
                self._listing.ask()  # what came before the subscription


def _find_program() -> str:
    places = os.pathsep.join([os.environ.get("BUOY_TOOLS", ""), os.environ.get("PATH", "")])
    found = shutil.which("minio", path=places)
    if found is None:
        raise UsageError("there is no program `minio`", "put it on PATH, or use --store folder")
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
