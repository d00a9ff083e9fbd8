"""What the sinks may hold, and for how long."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Limits"]


class Limits(NamedTuple):
    """What a sink may hold, and for how long."""

    #: Webhook: the sending of an alert begins within so many seconds, or never.
    alert_s: float = 2.0
    #: Webhook: it ends within so many seconds, delivered or not.
    give_up_s: float = 60.0
    #: Bucket: how long a record may wait in memory while the disk is full or slow.
    queue_s: float = 30.0
    queue_bytes: int = 16 << 20
    #: Bucket: a file is sent when it is so old or so large, and when its hour is over.
    part_s: float = 600.0
    part_bytes: int = 64 << 20
    #: Bucket: how much may wait on the disk while the store cannot be reached.
    spool_bytes: int = 1 << 30
