"""Lists of objects as the source of a run: what is read, in which order, and what is said of bad lines."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buoy.batch.area import Area
from buoy.batch.list_source import ListLister, pin_list
from buoy.batch.manifest import Listed
from buoy.batch.order import Entry, in_order
from buoy.batch.sieve import Sieve
from buoy.batch.spec import Filters
from buoy.errors import UsageError
from buoy.store.s3 import S3Store
from support.inventory import entry, inventory

KEYS = ["b/2.jpg", "a/1.jpg", "c.txt"]
#: Never asked: lists are read without the store.
S3 = Area(S3Store("http://127.0.0.1:1"), "archive", "2011/")


def lister(path: Path, source: str = "s3://archive/2011/", filters: Filters | None = None) -> ListLister:
    filters = filters or Filters()
    return ListLister(pin_list(str(path), source), source, S3, Sieve(filters, "2011/"), filters)


def written(folder: Path, data: str | bytes, name: str = "list.csv") -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@pytest.fixture(autouse=True)
def _place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUOY_S3_ENDPOINT", "http://127.0.0.1:1")


def forms(folder: Path) -> Iterator[Path]:
    """The same three objects in each form."""
    when = "2011-01-02T03:04:05Z"
    rows = [{"key": key, "size": 7, "etag": f"e{n}", "modified": when} for n, key in enumerate(KEYS)]
    table = "Object Key;Size (bytes);ETag;LastModified\n" + "".join(
        f'{r["key"]};7;"{r["etag"]}";{when}\n' for r in rows
    )
    yield written(folder, "\ufeff" + table)
    yield written(folder, gzip.compress(table.replace(";", "\t").encode()), "list.csv.gz")
    yield written(folder, "\n".join(json.dumps(row) for row in rows), "list.jsonl")
    stamps = [datetime.fromisoformat(when).replace(tzinfo=None)] * 3
    path = folder / "list.parquet"
    pq.write_table(pa.table({"path": KEYS, "size_bytes": [7] * 3, "e_tag": ["e0", "e1", "e2"], "mtime": stamps}), path)
    yield path


def test_each_form_says_the_same(tmp_path: Path) -> None:
    when = datetime(2011, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
    for path in forms(tmp_path):
        assert list(lister(path).objects("", 0)) == [
            Listed("2011/a/1.jpg", 7, "e1", when, ""),
            Listed("2011/b/2.jpg", 7, "e0", when, ""),
            Listed("2011/c.txt", 7, "e2", when, "skipped"),
        ], path


def test_keys_may_be_whole_addresses_and_must_lie_in_the_source(tmp_path: Path) -> None:
    path = written(tmp_path, "url\ns3://archive/2011/x.jpg\ny.jpg\ns3://archive/2012/z.jpg\ns3://other/2011/z.jpg\n")
    given_list = lister(path)
    assert [each.key for each in given_list.objects("", 0)] == ["2011/x.jpg", "2011/y.jpg"]
    notes = given_list.notes()
    assert notes.bad == 2
    assert notes.told[0] == "line 4 names 's3://archive/2012/z.jpg', which is not below s3://archive/2011/"
    assert notes.told[1].startswith("line 5 names 's3://other/2011/z.jpg'")


def test_a_list_of_a_folder_has_paths_in_it(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    source = str(tmp_path / "source")
    path = written(tmp_path, f"file,version\n./a.jpg,\n{source}/b/c.jpg,\n/etc/passwd,\n../up.jpg,\nx.jpg,7\n")
    given_list = ListLister(pin_list(str(path), source), source, Area(S3.store, "source"), Sieve(Filters()), Filters())
    assert [each.key for each in given_list.objects("", 0)] == ["a.jpg", "b/c.jpg"]
    told = given_list.notes().told
    assert [text.partition(" names")[0].partition(" has")[0] for text in told] == ["line 4", "line 5", "line 6"]
    assert "leave that column out" in told[2]


def test_bad_lines_are_told_by_number_and_cost_only_themselves(tmp_path: Path) -> None:
    lines = [
        "key,size,etag,modified",
        "good.jpg,10,e,2011-01-01",
        "two.jpg,many,e,2011-01-01",
        "with,comma.jpg,10,e,2011-01-01",
        '"with,comma.jpg",10,e,2011-01-01',
        "three.jpg,10,e,yesterday",
        ",10,e,2011-01-01",
        "a/../b.jpg,10,e,2011-01-01",
        '"two\nlines.jpg",10,e,2011-01-01',
        "last.jpg,-1,e,2011-01-01",
    ]
    data = "\n".join(lines).encode() + b"\n\xff\xfe.jpg,10,e,2011-01-01\n"
    given_list = lister(written(tmp_path, data))
    keys = [each.key for each in given_list.objects("", 0)]
    assert keys == ["2011/good.jpg", "2011/two\nlines.jpg", "2011/with,comma.jpg"]
    notes = given_list.notes()
    assert notes.bad == 7
    assert [text.split()[1] for text in notes.told] == ["3", "4", "6", "7", "8", "11", "12"]
    for text, what in zip(
        notes.told, ["in bytes", "in quotes", "2024-01-31", "no key", "`..`", "in bytes", "Unicode"], strict=True
    ):
        assert what in text


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("", "is empty"),
        ("picture,size\na,1\n", "no column is called key"),
        ("key,size\n" + "a.jpg,big\n" * 3, "no line of the first 3 can be used: line 2 has the size 'big'"),
        (b"key\n" + b"\xff\n" * 5000, "no line of the first 1,000"),
        ('{"key": "a"\n', "no line of the first 1"),
        (b"PAR1 and nothing", "cannot be read as Parquet"),
        (gzip.compress(b"key\n" + bytes(random.Random(1).randbytes(90_000)).hex().encode())[:5000], "breaks off"),
    ],
)
def test_a_list_that_is_wrong_as_a_whole_is_refused(tmp_path: Path, data: str | bytes, says: str) -> None:
    path = written(tmp_path, data)
    with pytest.raises(UsageError, match=says):
        list(lister(path).objects("", 0))


def test_another_list_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "key\na.jpg\n")
    given_list = lister(path)
    path.write_text("key\nb.jpg\n")
    with pytest.raises(UsageError, match="not the list that the run began with"):
        list(given_list.objects("", 0))


def test_lines_said_twice_are_one_object_and_contradictions_are_told(tmp_path: Path) -> None:
    path = written(tmp_path, "key,etag,version_id\nb,1,\na,1,\nb,1,\na,2,\nb,3,v3\n")
    given_list = lister(path, filters=Filters(suffixes=("",)))
    assert [(e.key, e.etag, e.version) for e in given_list.objects("", 0)] == [
        ("2011/a", "1", ""), ("2011/b", "1", ""), ("2011/b", "3", "v3"),
    ]  # fmt: skip
    notes = given_list.notes()
    assert (notes.repeated, notes.bad) == (1, 1)
    assert notes.told == ("line 5 names '2011/a' with another etag than line 3",)


def test_what_the_filters_need_has_to_be_in_the_list(tmp_path: Path) -> None:
    path = written(
        tmp_path, "key,size,modified\na.jpg,5,2011-01-01\nb.jpg,,2011-01-01\nc.jpg,5,\nd.jpg,50,2011-01-01\n"
    )
    given_list = lister(path, filters=Filters(most_bytes=10, since_s=0.0))
    assert [(each.key, each.fate) for each in given_list.objects("", 0)] == [
        ("2011/a.jpg", ""), ("2011/d.jpg", "outside"),
    ]  # fmt: skip
    assert [text.split(",")[0] for text in given_list.notes().told] == [
        "line 3 has no size",
        "line 4 has no time of the last change",
    ]


def test_a_listing_goes_on_after_so_many_objects(tmp_path: Path) -> None:
    path = written(tmp_path, "key\n" + "".join(f"{n}.jpg\n" for n in range(100)) + "7.jpg\n")
    whole = list(lister(path).objects("", 0))
    assert len(whole) == 100
    assert list(lister(path).objects(whole[29].key, 30)) == whole[30:]
    assert lister(path).notes().repeated == 1  # also if nobody has asked for objects


@given(st.lists(st.tuples(st.text(max_size=3), st.sampled_from(["", "v"])), max_size=60), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_entries_come_in_the_order_of_their_utf_8_bytes(tmp_path_factory: Any, pairs: list[Any], run: int) -> None:
    entries = [Entry(key, version, line, None, "", None) for line, (key, version) in enumerate(pairs)]
    folder = tmp_path_factory.mktemp("runs")
    ordered = list(in_order(entries, folder, run=run))
    assert ordered == sorted(entries, key=lambda e: (e.key.encode("utf-8", "surrogatepass"), e.version, e.line))


@pytest.mark.parametrize("form", ["CSV", "Parquet", "ORC"])
def test_an_inventory_gives_the_latest_versions_of_what_is_there(tmp_path: Path, form: str) -> None:
    odd = '2011/zo\u00eb +%2B "q"\nx\U0001f41f.jpg'
    rows = [
        entry(odd), entry("2011/a.jpg", "v2"), entry("2011/a.jpg", "v1", latest=False), entry("2011/b.jpg", gone=True),
        entry("2010/elsewhere.jpg"), entry("2011/empty.jpg", size=0),
    ]  # fmt: skip
    given_list = lister(inventory(tmp_path, form, rows))
    when = datetime(2011, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
    assert list(given_list.objects("", 0)) == [
        Listed("2010/elsewhere.jpg", 0, "", 0.0, "outside"),
        Listed("2011/a.jpg", 5, "etag-v2", when, "", "v2"),
        Listed("2011/empty.jpg", 0, "etag-v1", when, "empty", "v1"),
        Listed(odd, 5, "etag-v1", when, "", "v1"),
    ]
    assert given_list.notes()._replace(told=()) == (0, (), 0, 2)


def test_an_inventory_of_another_bucket_or_with_damaged_files_is_refused(tmp_path: Path) -> None:
    path = inventory(tmp_path, "CSV", [entry("2011/a.jpg"), entry("2011/b.jpg")], bucket="other")
    with pytest.raises(UsageError, match="inventory is of the bucket other"):
        lister(path)
    path = inventory(tmp_path, "CSV", [entry("2011/a.jpg"), entry("2011/b.jpg")])
    with (tmp_path / "data" / "1.csv.gz").open("ab") as file:
        file.write(b"x")
    with pytest.raises(UsageError, match=r"1.csv.gz is not what the inventory says"):
        list(lister(path).objects("", 0))
    (tmp_path / "data" / "1.csv.gz").unlink()
    with pytest.raises(UsageError, match="copy it to"):
        list(lister(path).objects("", 0))
