"""From an object to the jobs it starts: which services want it, and never twice."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote_plus, unquote_plus

from buoy.errors import InputError, MissingError
from buoy.gateway.services import Service
from buoy.gateway.state import Job, NewJob, State
from buoy.store import Object, Store

__all__ = ["Intake", "Record", "job_name", "records", "storage_event"]

_log = logging.getLogger(__name__)


class Record(NamedTuple):
    """One record of a storage event."""

    bucket: str
    key: str
    event: str


def storage_event(obj: Object) -> str:
    """The event of an object as MinIO sends it: one line of JSON with one record.

    Source: minio/minio, internal/event/event.go; the key is URL-encoded with `+` for a space.
    """
    when = datetime.fromtimestamp(obj.modified_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    record = {
        "eventVersion": "2.0",
        "eventSource": "minio:s3",
        "awsRegion": "",
        "eventTime": when,
        "eventName": "s3:ObjectCreated:Put",
        "userIdentity": {"principalId": "buoy"},
        "requestParameters": {"principalId": "buoy", "region": "", "sourceIPAddress": "127.0.0.1"},
        "responseElements": {},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "Config",
            "bucket": {
                "name": obj.bucket,
                "ownerIdentity": {"principalId": "buoy"},
                "arn": f"arn:aws:s3:::{obj.bucket}",
            },
            "object": {"key": quote_plus(obj.key), "size": obj.size_bytes, "eTag": obj.etag, "sequencer": obj.etag},
        },
        "source": {"host": "127.0.0.1", "port": "", "userAgent": "buoy"},
    }
    name = f"{obj.bucket}/{obj.key}"
    return json.dumps({"EventName": record["eventName"], "Key": name, "Records": [record]}, separators=(",", ":"))


def records(body: object) -> list[Record]:
    """The object-created records of a storage event, every one of them; [] if the body is no such event.

    The supervisor looks at `Records[0]` alone; MinIO sends one per event, AWS may send more.
    """
    if not isinstance(body, dict) or not isinstance(body.get("Records"), list):
        return []
    found = []
    for record in body["Records"]:
        if not isinstance(record, dict) or record.get("eventSource") not in ("minio:s3", "aws:s3"):
            continue
        if "ObjectCreated" not in str(record.get("eventName", "s3:ObjectCreated:Put")):
            continue
        try:
            bucket, key = record["s3"]["bucket"]["name"], unquote_plus(record["s3"]["object"]["key"])
        except (KeyError, TypeError):
            raise InputError("an event record without s3.bucket.name and s3.object.key") from None
        one = {"EventName": record.get("eventName", ""), "Key": f"{bucket}/{key}", "Records": [record]}
        found.append(Record(bucket, key, json.dumps(one, separators=(",", ":"))))
    return found


def job_name(service: str) -> str:
    """A new job's name. Source: pkg/handlers/job.go: a long service name is cut to 16 characters."""
    return f"{service if len(service) < 25 else service[:16]}-{uuid.uuid4()}"


class Intake:
    """Takes objects, whoever reports them, and queues what the services have not seen."""

    def __init__(self, state: State, store: Store, services: Mapping[str, Service], wake: Callable[[], None]) -> None:
        self._state = state
        self._store = store
        self._services = services
        self._wake = wake
        self._skipped: set[tuple[str, str, str]] = set()

    def wanted(self, bucket: str, key: str) -> bool:
        """Tells whether any service takes its input there."""
        return any(_takes(service, bucket, key) for service in tuple(self._services.values()))

    def offer(self, objects: Iterable[Object], events: Mapping[tuple[str, str], str] | None = None) -> list[str]:
        """Queue the objects for every service whose input they lie in; returns the new jobs' names."""
        new: list[NewJob] = []
        for obj in objects:
            for service in tuple(self._services.values()):
                if _takes(service, obj.bucket, obj.key):
                    new += self._job(service, obj, (events or {}).get((obj.bucket, obj.key)))
        accepted = self._state.accept(new)
        if accepted:
            self._wake()
        return accepted

    def deliver(self, found: Iterable[Record]) -> list[str]:
        """Queue what an event source reports; objects that are gone again are left to the next event."""
        objects, events = [], {}
        for record in found:
            if self.wanted(record.bucket, record.key):
                try:
                    objects.append(self._store.stat(record.bucket, record.key))
                except MissingError:
                    _log.info("%s/%s: gone before its event was handled", record.bucket, record.key)
                    continue
                events[record.bucket, record.key] = record.event
        return self.offer(objects, events)

    def post(self, service: Service, record: Record, *, source: str) -> Job:
        """Queue an event that somebody posted to the service itself, wherever its object lies.

        A job that the object already was is answered again: duplicate events do nothing.

        Raises:
            MissingError: there is no such object.
        """
        obj = self._store.stat(record.bucket, record.key)
        name = job_name(service.name)
        lineage = self._state.lineage(obj)
        self._state.accept(
            [NewJob(name, service.name, *obj[:2], obj.etag, obj.size_bytes, source, record.event, lineage)]
        )
        self._wake()
        job = self._state.job(name) or self._state.job_of(service.name, obj)
        assert job is not None, "either it was accepted or it was there"
        return job

    def reconcile(self, service: Service) -> int:
        """List the service's input paths and queue what no event has brought; returns how many."""
        found = 0
        for path in service.inputs:
            try:
                for page in _pages(self._store, path.bucket, path.key_prefix):
                    known = self._state.known(service.name, path.bucket, page[0].key, page[-1].key)
                    new = [
                        job
                        for obj in page
                        if (obj.key, obj.etag) not in known and path.holds(obj.bucket, obj.key)
                        for job in self._job(service, obj, None)
                    ]
                    found += len(self._state.accept(new))
            except MissingError:
                _log.warning("service %s: its bucket %s is gone", service.name, path.bucket)
        if found:
            self._wake()
        return found

    def _job(self, service: Service, obj: Object, event: str | None) -> Iterator[NewJob]:
        lineage = self._state.lineage(obj)
        if service.name in lineage:
            loop = (service.name, obj.bucket, obj.key)
            if loop not in self._skipped:
                self._skipped.add(loop)
                way = " → ".join(lineage)
                _log.info("%s/%s: not run by %s, which it comes from (%s)", obj.bucket, obj.key, service.name, way)
            return
        yield NewJob(
            job_name(service.name), service.name, obj.bucket, obj.key, obj.etag, obj.size_bytes,
            event=event, lineage=lineage,
        )  # fmt: skip


def _takes(service: Service, bucket: str, key: str) -> bool:
    return any(path.holds(bucket, key) for path in service.inputs)


def _pages(store: Store, bucket: str, prefix: str) -> Iterator[list[Object]]:
    after = ""
    while True:
        page = store.list(bucket, prefix, after=after)
        if page.objects:
            yield page.objects
        if not page.next:
            return
        after = page.next
