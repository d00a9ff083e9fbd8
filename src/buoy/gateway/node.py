"""All that one `buoy up` consists of, wired together; without HTTP."""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from buoy.errors import BuoyError, ExistsError, MissingError, ServiceError, StoreError, UsageError, as_buoy_error
from buoy.gateway import fdl_folder
from buoy.gateway.auth import Credentials
from buoy.gateway.dispatch import Dispatcher
from buoy.gateway.events import Intake, Record
from buoy.gateway.exposed import Exposed
from buoy.gateway.minio import OUR_ARN, MinioEvents, MinioProcess
from buoy.gateway.processes import end_leftovers
from buoy.gateway.services import Service, service_from
from buoy.gateway.slots import Slots
from buoy.gateway.state import State
from buoy.gateway.watch import FolderWatch, Listing
from buoy.store import Store
from buoy.store.folder import FolderStore
from buoy.store.s3 import S3Store

__all__ = ["OWNER", "Node", "Settings"]

_log = logging.getLogger(__name__)

#: OSCAR's TTL_JOB.
_KEEP_LOGS_S = 30 * 86_400
#: What OSCAR calls the administrator; every service here is theirs.
OWNER = "cluster_admin"


@dataclass(frozen=True)
class Settings:
    """What `buoy up` was asked for."""

    data: Path
    host: str = "127.0.0.1"
    port: int = 8080
    store: str = "folder"
    workers: int | None = None
    fdl: Path | None = None
    job_timeout_s: float = 3600.0
    idle_s: float = 300.0

    @property
    def loopback(self) -> bool:
        """Tells whether only this machine can connect."""
        return self.host in ("127.0.0.1", "localhost", "::1")


class Node:
    """The gateway behind its HTTP face."""

    def __init__(self, settings: Settings, port: int) -> None:
        """Open everything; `port` is where the gateway will be reached."""
        self.settings = settings
        self.port = port
        data = settings.data
        self._lock_file = _claim(data)
        self.credentials = Credentials.load(data / "credentials.yaml")
        self.state = State(data / "state.db")
        self.services: dict[str, Service] = {}
        self.stopping = threading.Event()
        self._started = False
        self._changing = threading.Lock()
        self.provider: dict[str, Any] = {
            "endpoint": "", "verify": False, "access_key": "", "secret_key": "", "region": "us-east-1",
        }  # fmt: skip
        self._minio: MinioProcess | None = None
        self._events: MinioEvents | None = None
        self.store = self._open_store()
        self.slots = Slots(workers=settings.workers)
        self.dispatcher = Dispatcher(
            self.state, self.store, self.services, data, self.slots,
            timeout_s=settings.job_timeout_s, idle_s=settings.idle_s,
        )  # fmt: skip
        self.exposed = Exposed(self.services, data, self.dispatcher, settings.idle_s, self.state.notify)
        self.intake = Intake(self.state, self.store, self.services, self.dispatcher.wake)
        self.listing = Listing(self.intake, self.services, 30.0)
        self._sources: list[Any] = []
        if isinstance(self.store, FolderStore):
            self._sources.append(FolderWatch(self.store, self.intake, self.listing))
        elif isinstance(self.store, S3Store):
            arn = OUR_ARN if self._minio else os.environ.get("BUOY_S3_WEBHOOK_ARN", "")
            self._events = MinioEvents(self.store, self.services, self.listing, arn)
            self._sources.append(self._events)

    def _open_store(self) -> Store:
        """The folder store, or the S3 endpoint that is given or will be started."""
        where = self.settings.store
        if where == "folder":
            return FolderStore(self.settings.data / "buckets")
        if where == "minio":
            credentials, webhook = self.credentials, f"http://127.0.0.1:{self.port}/events/minio"
            self._minio = MinioProcess(self.settings.data, credentials, webhook, self._store_restarted)
            where, keys = self._minio.endpoint, (credentials.access_key, credentials.secret_key)
        elif where.startswith(("http://", "https://")):
            keys = _keys_of_environment()
        else:
            raise UsageError(f"--store {where}", "folder, minio, or the http(s) URL of an S3 endpoint")
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        self.provider |= {"endpoint": where, "verify": True, "access_key": keys[0], "secret_key": keys[1]}
        self.provider["region"] = region
        return S3Store(where, *keys, region)

    def _tidy(self) -> None:
        """Remove logs that are older than OSCAR keeps jobs, and payloads that never became one."""
        logs, payloads = self.settings.data / "logs", self.settings.data / "payloads"
        old = time.time() - _KEEP_LOGS_S
        for path in logs.iterdir():
            if path.stat().st_mtime < old:
                path.unlink()
        for path in payloads.iterdir():
            if self.state.job(path.name) is None:
                path.unlink()

    def _store_restarted(self) -> None:
        if self._events:
            self._events.doubt()

    def start(self) -> None:
        """Take up the work where it was left, then look for what arrived meanwhile."""
        work = self.settings.data / "work"
        ended, again = end_leftovers(work), self.state.recover()
        if ended or again:
            _log.info("after a hard stop: ended %d processes, %d jobs start again", ended, again)
        _remove_below(work)
        self._tidy()
        if self._minio:
            self._minio.start()
        self.store.buckets()  # an endpoint that is not there is told now
        for row in self.state.services():
            try:
                self.services[row.name] = service_from(
                    row.definition, token=row.definition["token"], owner=OWNER, fdl=row.fdl
                )
            except ServiceError as error:
                _log.error("%s", error)
        for source in self._sources:
            source.start()
        self._register_folder()
        self.listing.start()
        self.dispatcher.start()
        self._started = True

    def receive(self, found: list[Record]) -> list[str]:
        """Queue what a webhook brings."""
        if self._events:
            self._events.receive(found)
        return self.intake.deliver(found)

    def ask_to_stop(self) -> None:
        """Let whoever waits for changes go; `stop` does the rest."""
        self.stopping.set()
        self.state.notify()

    def stop(self) -> None:
        """End within seconds; what runs goes back into the queue."""
        self.stopping.set()
        for source in reversed(self._sources if self._started else []):
            source.stop()
        if self._started:
            self.listing.stop()
            self.dispatcher.stop()
        self.exposed.stop()
        if self._minio:
            self._minio.stop()
        self.state.close()
        os.close(self._lock_file)

    # Services

    def apply(self, body: object, *, fdl: str = "", create: bool | None = None) -> Service:
        """Create or update a service as `body` defines it; `create` insists on the one or the other.

        Token and owner stay what they are over an update: OSCAR loses the owner there, and cannot
        delete such a service's buckets later.

        Raises:
            ServiceError: the definition cannot be used.
            ExistsError: there is a service of that name, on create.
            MissingError: there is none, on update.
        """
        with self._changing:
            name = service_from(body, token="").name
            known = self.services.get(name)
            if create is True and known:
                raise ExistsError(f"a service with name {name!r} is there already", "update it, or delete it first")
            if create is False and not known:
                raise MissingError(f"there is no service {name!r}", "create it first")
            token = known.token if known else secrets.token_hex(32)
            service = service_from(body, token=token, owner=OWNER, fdl=fdl)
            for bucket in service.buckets():
                self.store.create_bucket(bucket)
            for path in (*service.inputs, *service.outputs):
                if path.folder and isinstance(self.store, FolderStore):
                    self.store.put(path.bucket, path.key_prefix, b"")
            if service != known:
                self.state.put_service(service.name, service.definition, fdl)
                self.services[service.name] = service
        if self._events:
            self._events.refresh()
        self.listing.ask()
        self.dispatcher.wake()
        self.exposed.wake()
        return service

    def remove(self, name: str, *, delete_data: bool) -> None:
        """Delete a service; its buckets only when asked to, and no other service uses them."""
        with self._changing:
            service = self.service(name)
            del self.services[name]
            self.state.delete_service(name)
        self.exposed.remove(name, delete_data=delete_data)
        used = {bucket for other in self.services.values() for bucket in other.buckets()}
        for bucket in service.buckets():
            if delete_data and bucket not in used:
                self.store.delete_bucket(bucket)
            else:
                _log.info("service %s is deleted, its bucket %s stays", name, bucket)

    def service(self, name: str) -> Service:
        """The service of that name.

        Raises:
            MissingError: there is none.
        """
        try:
            return self.services[name]
        except KeyError:
            known = ", ".join(sorted(self.services)) or "none yet"
            raise MissingError(f"there is no service {name!r}", f"services: {known}") from None

    def _register_folder(self) -> None:
        folder = self.settings.fdl or fdl_folder.default_folder()
        if folder is None:
            return
        if not folder.is_dir():
            raise UsageError(f"--fdl {folder} is no folder", "name a folder that holds FDL files")
        for found in fdl_folder.definitions(folder):
            try:
                if isinstance(found, BuoyError):
                    raise found
                self.apply(found.body, fdl=found.text)
            except BuoyError as error:
                _log.error("%s", error)

    def drop_folders(self) -> dict[str, str]:
        """Where an input of each service goes: a folder of this machine, or bucket and prefix."""
        root = f"{self.settings.data / 'buckets'}/" if isinstance(self.store, FolderStore) else "s3://"
        return {
            service.name: f"{root}{service.inputs[0].bucket}/{service.inputs[0].key_prefix}"
            for _, service in sorted(self.services.items())
            if service.inputs
        }

    def on_change(self, watcher: Callable[[], None]) -> Callable[[], None]:
        """See `State.on_change`."""
        return self.state.on_change(watcher)


def _keys_of_environment() -> tuple[str, str]:
    """The keys of an endpoint that is not ours; empty ones leave it to boto3 to find some."""
    known = os.environ
    return (
        known.get("BUOY_S3_ACCESS_KEY") or known.get("AWS_ACCESS_KEY_ID", ""),
        known.get("BUOY_S3_SECRET_KEY") or known.get("AWS_SECRET_ACCESS_KEY", ""),
    )


def _claim(data: Path) -> int:
    """Make the data folder, and see to it that no other `buoy up` uses it."""
    try:
        for name in ("buckets", "logs", "work", "payloads"):
            (data / name).mkdir(parents=True, exist_ok=True)
        lock = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        told = as_buoy_error(error, str(data))
        raise StoreError(told.message, told.hint or "choose a folder you may write with --data") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise UsageError(f"another buoy up uses {data}", "stop it, or choose another folder with --data") from None
    return lock


def _remove_below(folder: Path) -> None:
    import shutil

    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
