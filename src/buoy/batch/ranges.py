"""Listing in ranges of keys, several at once, for a store that is far away.

What ranges save is waiting: a store whose answer to the smallest question takes long answers sixteen of them in the
same time. A store near by is not faster for it, so ranges are used only where such questions were seen to take long.

    manifest/ranges.json                   the keys between which the ranges lie
    manifest/range-0007-00002.parquet      what was listed of a range; its last key is where a killed listing goes on

Ranges are read back in their order, so nothing is sorted. How well they are cut decides how long it
takes, nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, pairwise, takewhile
from queue import SimpleQueue
from typing import Any, NamedTuple

from buoy.batch.ledger import Ledger
from buoy.batch.tables import arrow, read_table, write_table
from buoy.errors import ExistsError
from buoy.store import Object

__all__ = ["RANGES", "Walk", "cut", "is_far", "walk_ranges"]

RANGES = "manifest/ranges.json"
#: An answer that takes longer comes from far away.
_FAR_S, _TRIES = 0.02, 5
_LISTERS, _PART_ROWS = 16, 10_000
#: Ranges to aim at; many more than are listed at once, since nobody knows how full they are.
_WANTED, _BRANCHES = 64, 40
_LAST = "\U0010ffff"

#: Lists the objects after a key.
Walk = Callable[[str], Iterator[Object]]
#: The first key that starts with a prefix and comes after a key.
First = Callable[[str, str], str | None]


def is_far(first: First) -> bool:
    """Whether not one of the store's smallest answers comes soon; a busy store near by has quick ones among them."""
    for _ in range(_TRIES):
        began_s = time.monotonic()
        first("", "")
        if time.monotonic() - began_s <= _FAR_S:
            return False
    return True


def cut(first: First, after: str, wanted: int = _WANTED) -> list[str]:
    """Keys, or beginnings of keys, between which ranges lie: `after`, and where keys begin to differ.

    Finds the branches of the tree of keys level by level, each with one small question.
    """
    nodes, bounds = [""], [after]
    with ThreadPoolExecutor(_LISTERS, thread_name_prefix="cut") as pool:
        while len(nodes) < wanted:
            below = [name for names in pool.map(lambda node: _branches(first, node, after), nodes) for name in names]
            if len(below) <= len(nodes):
                break
            nodes = below
    return sorted({*bounds, *(node for node in nodes if node > after)})


def _branches(first: First, node: str, after: str) -> list[str]:
    """The node's keys by the first character in which they differ; none if there is at most one key."""
    key = first(node, after)
    if key is None:
        return []
    low, high = len(node), len(key)
    while low < high:  # as much as all of them begin with
        middle = (low + high + 1) // 2
        if first(node, key[:middle] + _LAST) is None:
            low = middle
        else:
            high = middle - 1
    base, found = key[:low], list[str]()
    while key is not None and len(found) < _BRANCHES:
        found.append(key[: low + 1])
        key = first(base, found[-1] + _LAST)
        if key is not None and key[: low + 1] <= found[-1]:
            break
    return found


class _Part(NamedTuple):
    """What was listed of a range, in one piece."""

    objects: list[Object]
    #: Whether the range ends with it.
    ended: bool


def walk_ranges(ledger: Ledger, walk: Walk, bounds: Sequence[str], bucket: str) -> Iterator[Object]:
    """The objects after the first bound, in order, listed in ranges at once and from where they were left.

    Raises:
        StoreError: the source cannot be listed, or the ledger not be written.
    """
    have: dict[int, int] = {}
    for each in ledger.names("manifest/range-"):
        names = each.key.removeprefix("manifest/range-").removesuffix(".parquet").split("-")
        have[int(names[0])] = max(have.get(int(names[0]), 0), int(names[1]) + 1)
    ranges = [*pairwise([*bounds, ""])]
    lists = _Ranges(ledger, walk, bucket)
    ready: list[SimpleQueue[str | BaseException | None]] = [SimpleQueue() for _ in ranges]
    pool = ThreadPoolExecutor(_LISTERS, thread_name_prefix="range")
    try:
        for number, (start, stop) in enumerate(ranges):
            pool.submit(lists.run, number, start, stop, have.get(number, 0), ready[number])
        for queue in ready:
            while (part := queue.get()) is not None:
                if isinstance(part, BaseException):
                    raise part
                yield from lists.load(part).objects
    finally:
        lists.stopped = True
        pool.shutdown(cancel_futures=True)


class _Ranges:
    """Lists ranges into parts."""

    def __init__(self, ledger: Ledger, walk: Walk, bucket: str) -> None:
        self._ledger, self._walk, self._bucket = ledger, walk, bucket
        self.stopped = False

    def run(self, number: int, start: str, stop: str, have: int, ready: SimpleQueue[Any]) -> None:
        """One range, from `start`, or from the last of the parts that it has, to `stop` or the end."""
        try:
            ended = False
            for part in range(have):
                ready.put(_key(number, part))
            if have:
                start, ended = self._last(_key(number, have - 1), start)
            while not ended:
                start, ended, have = self._extend(number, start, stop, have, ready)
            ready.put(None)
        except BaseException as error:
            ready.put(error)

    def _extend(self, number: int, start: str, stop: str, part: int, ready: SimpleQueue[Any]) -> tuple[str, bool, int]:
        """Add parts until the range ends, or another process has added one."""
        objects = takewhile(lambda each: not stop or each.key <= stop, self._walk(start))
        while not self.stopped:
            some = list(islice(objects, _PART_ROWS))
            key, ended = _key(number, part), len(some) < _PART_ROWS
            data = _encode(some, ended)
            part += 1
            try:
                self._ledger.patiently(lambda: self._ledger.area.put(key, data, create_only=True))  # noqa: B023
            except ExistsError:
                ready.put(key)
                return *self._last(key, start), part
            ready.put(key)
            if ended:
                return start, True, part
            start = some[-1].key
        return start, True, part

    def load(self, key: str) -> _Part:
        """A part."""
        table = read_table(self._ledger.load(key))
        columns = (table[name].to_pylist() for name in ("key", "size_bytes", "etag", "modified_s"))
        objects = [Object(self._bucket, *values) for values in zip(*columns, strict=True)]
        return _Part(objects, table.schema.metadata[b"ended"] == b"1")

    def _last(self, key: str, start: str) -> tuple[str, bool]:
        """Where a range goes on after a part."""
        part = self.load(key)
        return part.objects[-1].key if part.objects else start, part.ended


def _key(number: int, part: int) -> str:
    return f"manifest/range-{number:04d}-{part:05d}.parquet"


def _encode(objects: Sequence[Object], ended: bool) -> bytes:
    pa = arrow()
    kinds = {"key": pa.string(), "size_bytes": pa.int64(), "etag": pa.string(), "modified_s": pa.float64()}
    schema = pa.schema(list(kinds.items()), metadata={"ended": "1" if ended else "0"})
    columns = [[getattr(each, name) for each in objects] for name in kinds]
    return write_table(pa.table([pa.array(c, k) for c, k in zip(columns, kinds.values(), strict=True)], schema=schema))
