"""A page of a listing is read as botocore would, or by botocore."""

from __future__ import annotations

from typing import Any

import botocore.parsers
import botocore.session
import pytest

from buoy.store.s3 import _parse_page

SPACE = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
ENTRY = (
    "<Contents><Key>{key}</Key><LastModified>2026-11-25T08:25:13.123Z</LastModified>"
    "<ETag>&#34;9dd4e461&#34;</ETag><Size>12</Size><Owner><ID>x</ID></Owner></Contents>"
)
TAIL = "<IsTruncated>true</IsTruncated><CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes>"


def page(body: str, space: str = SPACE) -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult{space}>{body}</ListBucketResult>'.encode()


def botocores(answer: dict[str, Any]) -> dict[str, Any]:
    shape = botocore.session.get_session().get_service_model("s3").operation_model("ListObjectsV2").output_shape
    parsed: dict[str, Any] = botocore.parsers.create_parser("rest-xml").parse(answer, shape)
    return parsed


def answer(body: bytes, status: int = 200) -> dict[str, Any]:
    return {"status_code": status, "headers": {}, "body": body, "context": {}}


@pytest.mark.parametrize("space", [SPACE, ""])
@pytest.mark.parametrize("keys", [[], ["a%20b.jpg"], ["%C3%A9", "a&amp;b", "x+y"]])
def test_entries_are_those_of_botocore(keys: list[str], space: str) -> None:
    body = page("<Name>b</Name>" + "".join(ENTRY.format(key=key) for key in keys) + TAIL, space)
    ahead, ours = answer(body), dict[str, Any]()
    _parse_page(ahead, ours)
    wanted = botocores(answer(body))
    entries = [
        {name: each[name] for name in ("Key", "LastModified", "ETag", "Size")} for each in wanted.pop("Contents", [])
    ]
    assert ours["Contents"] == entries
    assert len(entries) == len(keys)
    rest = botocores(ahead)
    assert rest == wanted
    assert rest["IsTruncated"] is True


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (page("<Contents><Key>a</Key></Contents>"), 200),
        (page(ENTRY.format(key="a").replace("12", "")), 200),
        (b"<Error><Code>SlowDown</Code></Error>", 503),
        (b"no xml", 200),
    ],
)
def test_what_is_odd_is_left_to_botocore(body: bytes, status: int) -> None:
    ahead, ours = answer(body, status), dict[str, Any]()
    _parse_page(ahead, ours)
    assert (ahead, ours) == (answer(body, status), {})
