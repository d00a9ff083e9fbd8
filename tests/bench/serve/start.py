"""Process start to the first answer, and memory: what an operator pays before and after any load."""

from __future__ import annotations

import statistics
from contextlib import suppress

import psutil

from bench.book import Book, alternate
from bench.serve.candidates import STARLETTE, Direct, Kind, Service
from bench.serve.setting import Setting

__all__ = ["memory", "resident_mib", "start"]

_BUSY_CLIENTS = 24


def start(setting: Setting, book: Book) -> None:
    """Seconds from the start of the process to the first answer, each time a new one."""
    model, picture = setting.networks["detector"], setting.pictures[0]
    data = picture.read_bytes()

    def served(kind: Kind) -> float:
        with kind.serve(model, setting.folder) as service:
            return service.until_answered(data)

    def plain() -> float:
        with Direct("plain", model, [picture], pin=False) as loop:
            return loop.start_s

    kinds = (setting.buoy, STARLETTE, *setting.others)
    taken = alternate(
        setting.rounds * 2, {"plain": plain} | {kind.name: (lambda kind=kind: served(kind)) for kind in kinds}, book
    )
    for name, values in taken.items():
        book.add("start to first answer", name, statistics.median(values), "s", rounds=values,
                 goal="<= 0.5" if name == "buoy" else "")  # fmt: skip


def memory(setting: Setting, book: Book) -> None:
    """Resident memory of all processes of a service: ready, and after a load of many clients."""
    model, pictures = setting.networks["detector"], setting.pictures
    with Direct("plain", model, pictures[:1], pin=False) as loop:
        book.add("memory, ready", "plain", loop.rss_mib, "MiB RSS", note="after one picture")
    for kind in (setting.buoy, STARLETTE, *setting.others):
        with kind.serve(model, setting.folder) as service:
            service.until_answered(pictures[0].read_bytes())
            _tell(book, "memory, ready", service, "<= 190" if kind is setting.buoy else "")
            before = set(service.left_files())  # ONNX Runtime leaves one when it loads
            service.load(pictures, 12.0, clients=_BUSY_CLIENTS)
            _tell(book, f"memory, after {_BUSY_CLIENTS} clients", service, "")
            left = set(service.left_files()) - before
            book.add("temporary files left", kind.name, len(left), "files", goal="<= 0" if kind is setting.buoy else "")


def _tell(book: Book, row: str, service: Service, goal: str) -> None:
    rss, pss, parts = resident_mib(service)
    each = " + ".join(f"{part:.0f}" for part in parts)
    book.add(row, service.kind.name, rss, "MiB RSS", goal=goal, note=f"PSS {pss:.0f} MiB; processes {each}")


def resident_mib(service: Service) -> tuple[float, float, list[float]]:
    """RSS and PSS of the process tree, and the RSS of each process, MiB; shared pages count often in RSS."""
    parts, pss = [], 0.0
    for process in service.tree():
        with suppress(psutil.NoSuchProcess, OSError):
            parts.append(process.memory_info().rss / (1 << 20))
            with open(f"/proc/{process.pid}/smaps_rollup", encoding="ascii") as lines:
                pss += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    return sum(parts), pss, parts
