"""Storage events, made and read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buoy.errors import InputError
from buoy.gateway.events import job_name, records, storage_event
from buoy.store import Object


@given(st.text(min_size=1, max_size=50).filter(lambda text: text.isprintable()))
def test_an_event_names_its_object_whatever_the_key(key: str) -> None:
    event = storage_event(Object("sea", key, 3, "tag", 1.5))
    assert "\n" not in event
    ((bucket, found, again),) = records(json.loads(event))
    assert (bucket, found) == ("sea", key)
    assert records(json.loads(again))[0][:2] == ("sea", key)


def test_all_records_are_read_and_what_is_no_creation_is_passed_over() -> None:
    def record(key: str, source: str = "minio:s3", name: str = "s3:ObjectCreated:Put") -> dict[str, object]:
        return {"eventSource": source, "eventName": name, "s3": {"bucket": {"name": "b"}, "object": {"key": key}}}

    event = {"Records": [record("a+b%2Bc"), record("x", name="s3:ObjectRemoved:Delete"), record("y", source="z"), 7]}
    assert [found.key for found in records(event)] == ["a b+c"]


@pytest.mark.parametrize("body", [None, [], "Records", {"Records": {}}, {"Records": [None]}, {"event": "x"}])
def test_what_is_no_storage_event_has_no_records(body: object) -> None:
    assert records(body) == []


def test_a_record_without_its_object_is_an_error() -> None:
    with pytest.raises(InputError, match=r"without s3\.bucket\.name"):
        records({"Records": [{"eventSource": "minio:s3"}]})


def test_a_jobs_name_has_at_most_16_characters_of_a_long_service_name() -> None:
    assert job_name("fish").startswith("fish-")
    assert job_name("a" * 24).startswith("a" * 24 + "-")
    assert job_name("a" * 25).startswith("a" * 16 + "-")
    assert len(job_name("a" * 39)) == 53
