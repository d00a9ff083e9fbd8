import os
import subprocess
import sys
from pathlib import Path

import pytest

from buoy import machine


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cgroup file system that the test writes; the kernel's own needs privileges to set quotas in."""
    monkeypatch.setattr(machine, "_CGROUP", tmp_path / "fs")
    monkeypatch.setattr(machine, "_PROC_CGROUP", tmp_path / "self")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    return tmp_path


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_without_a_quota_affinity_counts(cgroups: Path) -> None:
    assert machine.cores() == 64


@pytest.mark.parametrize(
    ("quota", "cores"), [("200000 100000", 2), ("150000 100000", 1), ("50000 100000", 1), ("max 100000", 64)]
)
def test_the_quota_of_the_unified_hierarchy_counts(cgroups: Path, quota: str, cores: int) -> None:
    put(cgroups / "self", "0::/pod/box\n")
    put(cgroups / "fs/pod/box/cpu.max", quota)
    assert machine.cores() == cores


def test_a_quota_further_up_counts_too(cgroups: Path) -> None:
    put(cgroups / "self", "0::/pod/box\n")
    put(cgroups / "fs/pod/cpu.max", "300000 100000")
    put(cgroups / "fs/pod/box/cpu.max", "max 100000")
    assert machine.cores() == 3


def test_the_quota_of_the_old_hierarchy_counts(cgroups: Path) -> None:
    put(cgroups / "self", "4:cpu,cpuacct:/box\n1:name=systemd:/box\n")
    put(cgroups / "fs/cpu/box/cpu.cfs_quota_us", "400000\n")
    put(cgroups / "fs/cpu/box/cpu.cfs_period_us", "100000\n")
    assert machine.cores() == 4


def test_memory_is_the_least_limit(cgroups: Path) -> None:
    put(cgroups / "self", "0::/box\n")
    put(cgroups / "fs/box/memory.max", str(64 << 20))
    assert machine.memory_bytes() == 64 << 20


def test_real_affinity_counts_in_a_real_process() -> None:
    one = sorted(os.sched_getaffinity(0))[0]
    code = f"import os; os.sched_setaffinity(0, {{{one}}}); from buoy import machine; print(machine.cores())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"


def test_a_pinned_allocator_does_not_give_a_freed_buffer_back() -> None:
    code = """
import numpy as np, resource
from buoy import machine
assert machine.pin_allocator()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(6_000_000, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(sum(faults() for _ in range(10)))
"""
    pinned = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    code = code.replace("assert machine.pin_allocator()", "")
    plain = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(pinned) < 100
    assert int(plain) > int(pinned) * 10


def test_what_nothing_uses_is_given_back_though_the_allocator_is_pinned() -> None:
    code = """
import numpy as np, psutil
from buoy import machine
assert machine.pin_allocator()
held = [np.ones(1 << 20, np.uint8) for _ in range(200)]
held = held[::10] + [np.ones(1, np.uint8)]  # holes between what stays
before = psutil.Process().memory_info().rss
assert machine.give_back()
print((before - psutil.Process().memory_info().rss) >> 20)
"""
    given = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(given) > 150
