"""What this process may use of the machine: cores, memory, the C allocator."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

__all__ = ["cores", "give_back", "memory_bytes", "pin_allocator", "processor"]

_CGROUP = Path("/sys/fs/cgroup")
_PROC_CGROUP = Path("/proc/self/cgroup")

# glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def cores() -> int:
    """How many threads can run at once: the least of affinity and every cgroup quota above us, at least 1.

    The host's core count is not it: under a quota of 2 on a 64-core host, 64 threads spend their
    time being throttled. A fractional quota is rounded down, for the same reason.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [_quota_v2(folder) for folder in _cgroup_folders("")]
    quotas += [_quota_v1(folder) for folder in _cgroup_folders("cpu")]
    return max(1, int(min([float(allowed), *(quota for quota in quotas if quota)])))


def memory_bytes() -> int:
    """The memory that this process may use: the least of the machine's and every cgroup limit above us."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for folder in _cgroup_folders(""):
        limits += _numbers(folder / "memory.max")[:1]
    for folder in _cgroup_folders("memory"):
        limits += _numbers(folder / "memory.limit_in_bytes")[:1]
    return int(min(limits))


def processor() -> str:
    """The model of the processor, for telling machines apart; empty where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def pin_allocator() -> bool:
    """Keep large buffers in the process instead of giving each one back to the kernel.

    glibc maps every buffer above a threshold anew and unmaps it when freed: about 2,000 page faults and
    5 ms for each full-HD picture. Pinning both thresholds nearly doubles a small network on such pictures.
    The price is that memory once used stays with the process: so single-picture runs do not ask for it, and
    all threads share one arena, where what one frees serves the next. Returns `False` where the C library
    is not glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    largest = 1 << 30  # 1 GiB: above any picture that the pixel limit lets through
    settings = ((_M_MMAP_THRESHOLD, largest), (_M_TRIM_THRESHOLD, largest), (_M_ARENA_MAX, 1))
    return all([mallopt(name, value) for name, value in settings])


def give_back() -> bool:
    """Return the pages that nothing uses to the kernel, wherever in the heap they lie.

    With a pinned allocator and pictures of many sizes the heap grows holes that no picture fits: without this,
    a service grows by a few percent an hour. Costs some tens of milliseconds, and as much again when the pages
    are needed next. Returns `False` where the C library is not glibc, or nothing was returned.
    """
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (OSError, AttributeError):
        return False


def _cgroup_folders(controller: str) -> list[Path]:
    """Our cgroup's folder and all above it; `controller` empty for the unified (v2) hierarchy."""
    try:
        lines = _PROC_CGROUP.read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, inside = line.split(":", 2)
        if controller in controllers.split(","):
            root = _CGROUP / controller if controller else _CGROUP
            here = root / inside.lstrip("/")
            # In a container the path may name a folder of the host; its root is ours then.
            return [root, *(folder for folder in [here, *here.parents] if root in folder.parents)]
    return []


def _quota_v2(folder: Path) -> float | None:
    numbers = _numbers(folder / "cpu.max")
    return numbers[0] / numbers[1] if len(numbers) == 2 and numbers[1] else None


def _quota_v1(folder: Path) -> float | None:
    quota = _numbers(folder / "cpu.cfs_quota_us")
    period = _numbers(folder / "cpu.cfs_period_us")
    return quota[0] / period[0] if quota and period and quota[0] > 0 and period[0] else None


def _numbers(path: Path) -> list[int]:
    """The whole numbers in a cgroup file; empty when it is absent or says `max`."""
    try:
        words = path.read_text().split()
    except OSError:
        return []
    return [int(word) for word in words] if all(word.lstrip("-").isdigit() for word in words) else []
