"""The load generator, a process of its own: `python -m bench.serve.load`, told by JSON on stdin, answers on stdout.

closed   so many clients, each sends the next picture when it has its answer: for the peak
open     pictures at fixed times (or, with a seed, of a Poisson process), however long the answers take: for overload
         and latency. Time counts from when a picture was due, so that a late generator cannot hide a queue.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from bench.serve.connection import Ask, Clients

__all__ = ["Plan", "Seen", "form"]

#: A client that was refused in a closed loop comes back after it.
_BACK_S = 0.02


class Plan(Struct, kw_only=True):
    """What to send, where, how often."""

    host: str
    port: int
    path: str
    #: Media type of the body; `form` for a form with the picture in the field `data`.
    kind: str
    pictures: list[str]
    seconds: float
    #: Clients of a closed loop; 0 for an open one.
    clients: int = 0
    #: Pictures a second of an open one.
    rate: float = 0.0
    #: Of a Poisson process; `None` for equal intervals.
    seed: int | None = None
    patience_s: float = 10.0
    #: Send one more when all others have been answered or given up, with this patience.
    next_patience_s: float = 0.0
    #: Of a closed loop: what is not counted at its beginning.
    warm_s: float = 0.3


class Seen(Struct, kw_only=True):
    """What became of it; times in ms as sorted lists."""

    #: Answered with 200, a second; of a closed loop.
    rate: float
    sent: int
    statuses: dict[str, int]
    #: From when it was due to the answer, for those with 200.
    due_ms: list[float]
    #: The same from the first byte.
    begun_ms: list[float]
    #: From the last byte sent to a 429, and from the first byte.
    refused_ms: list[float]
    refused_from_first_ms: list[float]
    refused_without_retry_after: int
    next_ms: float | None
    #: How late the generator began to send, and its part of one core.
    late_ms: list[float]
    own_cpu: float
    connections: int
    again: int
    seconds: float


def requests(plan: Plan) -> list[bytes]:
    """The bytes of a request for each picture."""
    made = []
    for path in plan.pictures:
        body, kind = Path(path).read_bytes(), plan.kind
        if kind == "form":
            kind, body = form(body)
        head = f"POST {plan.path} HTTP/1.1\r\nHost: {plan.host}:{plan.port}\r\nAccept: application/json\r\n"
        made.append(f"{head}Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    return made


def form(picture: bytes) -> tuple[str, bytes]:
    """A form with the picture in it: its media type and its bytes."""
    head = (
        b'--buoybench\r\nContent-Disposition: form-data; name="data"; filename="frame.jpg"\r\n'
        b"Content-Type: image/jpeg\r\n\r\n"
    )
    return "multipart/form-data; boundary=buoybench", head + picture + b"\r\n--buoybench--\r\n"


def closed(plan: Plan, clients: Clients, bodies: list[bytes]) -> Iterator[Ask]:
    """Keep `plan.clients` requests going."""
    begin_s, number = time.perf_counter(), 0
    back: list[float] = [begin_s] * plan.clients
    while (now := time.perf_counter()) < begin_s + plan.seconds or clients.outstanding:
        if now < begin_s + plan.seconds:
            for due_s in [due_s for due_s in back if due_s <= now]:
                back.remove(due_s)
                number += 1
                clients.send(Ask(due_s), bodies[number % len(bodies)])
        wait_s = min(back) - now if back and now < begin_s + plan.seconds else 0.1
        for ask in clients.poll(wait_s):
            now = time.perf_counter()
            back.append(now if ask.status == 200 else now + _BACK_S)
            yield ask


def opened(plan: Plan, clients: Clients, bodies: list[bytes]) -> Iterator[Ask]:
    """Send at the times of the plan."""
    chance = random.Random(plan.seed)
    begin_s = due_s = time.perf_counter() + 0.01
    number = 0
    while True:
        now = time.perf_counter()
        more = due_s < begin_s + plan.seconds
        if more and due_s <= now:
            clients.send(Ask(due_s), bodies[number % len(bodies)])
            number += 1
            spread = plan.seed is not None
            due_s = due_s + chance.expovariate(plan.rate) if spread else begin_s + number / plan.rate
            yield from clients.poll(0)
            continue
        if not more and not clients.outstanding:
            return
        yield from clients.poll(due_s - now if more else 0.1)


def summary(plan: Plan, asks: list[Ask], begin_s: float) -> dict[str, Any]:
    """The parts of `Seen` that follow from the requests."""
    good = [ask for ask in asks if ask.status == 200]
    refused = [ask for ask in asks if ask.status == 429]
    ends = sorted(ask.answered_s for ask in good)
    counted = [end_s for end_s in ends if begin_s + plan.warm_s <= end_s <= begin_s + plan.seconds]
    span_s = counted[-1] - counted[0] if len(counted) > 1 else 0.0
    statuses: dict[str, int] = {}
    for ask in asks:
        name = {0: "given up", -1: "broken"}.get(ask.status, str(ask.status))
        statuses[name] = statuses.get(name, 0) + 1
    return {
        "rate": (len(counted) - 1) / span_s if span_s else 0.0,
        "sent": len(asks),
        "statuses": statuses,
        "due_ms": _ms(ask.answered_s - ask.due_s for ask in good),
        "begun_ms": _ms(ask.answered_s - ask.begun_s for ask in good),
        # 0 for one that was refused before all of it was sent
        "refused_ms": _ms(max(0.0, ask.answered_s - (ask.sent_s or ask.answered_s)) for ask in refused),
        "refused_from_first_ms": _ms(ask.answered_s - ask.begun_s for ask in refused),
        "refused_without_retry_after": sum(not ask.retry_after for ask in refused),
        "late_ms": _ms(ask.begun_s - ask.due_s for ask in asks),
        "again": sum(ask.again for ask in asks),
    }


def _ms(seconds: Iterator[float]) -> list[float]:
    return sorted(round(each * 1000, 3) for each in seconds)


def main() -> None:
    """Do what stdin says."""
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    bodies = requests(plan)
    clients = Clients(plan.host, plan.port, plan.patience_s)
    cpu_s, begin_s = time.process_time(), time.perf_counter()
    asks = list((closed if plan.clients else opened)(plan, clients, bodies))
    end_s = time.perf_counter()
    own = (time.process_time() - cpu_s) / (end_s - begin_s)
    following = None
    if plan.next_patience_s:
        later = Clients(plan.host, plan.port, plan.next_patience_s)
        later.send(Ask(time.perf_counter()), bodies[0])
        while later.outstanding:
            for ask in later.poll(0.1):
                following = (ask.answered_s - ask.begun_s) * 1000 if ask.status == 200 else None
        later.close()
    told = summary(plan, asks, begin_s)
    seen = Seen(
        **told, next_ms=following, own_cpu=own, connections=clients.open_most, seconds=end_s - begin_s
    )  # fmt: skip
    clients.close()
    sys.stdout.buffer.write(msgspec.json.encode(seen))


if __name__ == "__main__":
    main()
