"""Pilots on OSCAR: what is told of a cluster's room, and the event that points to a run."""

from __future__ import annotations

import base64
import json
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buoy.batch.engines.oscar_api import Cluster, find_cluster
from buoy.batch.engines.oscar_room import need_of, nodes_of, quota_of, room
from buoy.batch.fit import ANY
from buoy.batch.pointer import Pointer, is_pointer
from buoy.cli.batch_pilot import command_of, store_variables
from buoy.errors import UsageError
from buoy.manifest import Needs

GIB = 1 << 30
NEED = need_of(Needs(cpu=1.0, memory="1Gi"))


def node(cpu: int, gib: int, *, asked: int = 0, used: int = 0, **others: Any) -> dict[str, Any]:
    """A node of the layout since version 4; zeros are left out there."""
    amounts = {"capacity_cores": cpu, "usage_cores": used, "request_cores": asked}
    return {
        "name": "n",
        "cpu": {name: amount for name, amount in amounts.items() if amount},
        "memory": {"capacity_bytes": gib * GIB},
        "gpu": 0,
        "is_interlink": False,
        "status": "Ready",
        "conditions": [{"type": "MemoryPressure", "status": False}, {"type": "Ready", "status": True}],
        **others,
    }


def status(*nodes: dict[str, Any], cores: int = 10**6, free: int = 0) -> dict[str, Any]:
    cpu = {"total_free_cores": free, "total_schedulable_cores": cores}
    memory = {"total_free_bytes": 0, "total_schedulable_bytes": 10**15}
    metrics = {"cpu": cpu, "memory": memory, "gpu": {"total_gpu": 0}}
    return {"cluster": {"nodes_count": len(nodes), "metrics": metrics, "nodes": list(nodes)}}


def test_a_pilot_needs_thousandths_of_cores_and_bytes() -> None:
    assert need_of(Needs(cpu=0.5, memory="512Mi", gpu=True)) == {"cpu": 500, "memory": 512 << 20, "gpu": 1}


def test_nodes_are_counted_one_by_one_and_by_what_was_asked_for() -> None:
    assert room(status(node(1900, 64), node(1900, 64)), {}, NEED).pilots == 2
    assert room(status(node(4000, 64, asked=2500, used=100)), {}, NEED).pilots == 1
    assert room(status(node(4000, 64, asked=100, used=4000)), {}, NEED).pilots == 3


def test_nodes_of_interlink_and_nodes_that_are_not_ready_are_left_out() -> None:
    away = node(64000, 64, is_interlink=True)
    ill = node(64000, 64, status="NotReady", conditions=[{"type": "Ready", "status": False}])
    assert len(nodes_of(status(node(2000, 8), away, ill))) == 1
    assert room(status(away, ill), {}, NEED) == (0, "no node is ready and takes pods")


def test_the_whole_cluster_gives_no_more_than_can_be_scheduled_whatever_is_free() -> None:
    found = room(status(node(64000, 64), cores=3000, free=64000), {}, NEED)
    assert found == (3, "the cluster has no more cpu")


def test_a_tenth_is_left_to_others() -> None:
    assert room(status(node(20000, 64)), {}, NEED).pilots == 18


def test_graphics_cards_are_counted() -> None:
    need = need_of(Needs(cpu=1.0, memory="1Gi", gpu=True))
    assert room(status(node(64000, 64, gpu=2), node(64000, 64)), {}, need).pilots == 2


def test_the_layout_of_old_clusters_is_read() -> None:
    detail = {
        "nodeName": "n", "cpuCapacity": "4000", "cpuUsage": "1500", "cpuPercentage": "37.50",
        "memoryCapacity": str(8 * GIB), "memoryUsage": str(GIB), "memoryPercentage": "12.50",
    }  # fmt: skip
    old = {"numberNodes": 1, "cpuFreeTotal": "2500", "memoryFreeTotal": str(7 * GIB), "detail": [detail]}
    assert room(old, {}, NEED).pilots == 2


def test_quotas_are_a_limit_and_no_quotas_are_none() -> None:
    quota = {"user_id": "u", "resources": {"cpu": {"max": 4000, "used": 1500}, "memory": {"max": 64 * GIB, "used": 0}}}
    found = room(status(node(64000, 64)), quota, NEED)
    assert found == (2, "a quota leaves no more cpu")
    as_text = {"resources": {"cpu": {"max": "4", "used": "1500m"}, "memory": {"max": "64Gi", "used": "0"}}}
    assert quota_of(as_text) == quota_of(quota)
    assert room(status(node(2000, 64)), {}, NEED).pilots == 2
    assert room(status(node(2000, 64)), {}, NEED) != ANY


@given(
    st.lists(st.tuples(st.integers(0, 64000), st.integers(0, 64000), st.integers(0, 256)), max_size=8),
    st.integers(1, 8000),
)
def test_what_is_found_can_be_placed(sizes: list[tuple[int, int, int]], cpu: int) -> None:
    need = {"cpu": float(cpu), "memory": float(GIB)}
    nodes = [node(capacity, gib, asked=asked) for capacity, asked, gib in sizes]
    places = sum(min(max(0, capacity - asked) // cpu, gib) for capacity, asked, gib in sizes)
    found = room(status(*nodes, cores=10**9), {}, need).pilots
    assert places * 0.9 <= found <= places


PLACES = st.text(min_size=1, max_size=60)


@given(PLACES, PLACES, PLACES, st.none() | st.floats(1, 1e6), st.floats(0, 64))
def test_a_pointer_is_letters_and_digits_and_says_what_was_said(
    out: str, run: str, pilot: str, budget_s: float | None, cpu: float
) -> None:
    pointer = Pointer(out, run, pilot, budget_s, cpu)
    event = pointer.encode()
    assert set(event) <= set(string.ascii_letters + string.digits)
    assert is_pointer(event)
    assert Pointer.decode(event + "\n") == pointer
    assert json.loads(base64.b64decode(event, validate=True)) == json.loads(base64.urlsafe_b64decode(event))


def test_a_pointer_comes_through_a_shell_unquoted(tmp_path: Path) -> None:
    (tmp_path / "e").write_text("a file that a glob could find")
    event = Pointer("s3://archive/fish ~?>*/", "a-b", "c", 1500.0, 0.5).encode()
    told = subprocess.run(["/bin/sh", "-c", "echo $EVENT"], env={"EVENT": event}, cwd=tmp_path, capture_output=True)
    assert told.stdout.decode() == event + "\n"


def test_other_events_are_no_pointers_and_a_damaged_one_is_refused() -> None:
    assert not is_pointer('{"Records": []}')
    assert not is_pointer("")
    with pytest.raises(UsageError, match="cannot be read"):
        Pointer.decode(Pointer("s3://a", "b", "c").encode()[:-7])


def test_a_pilot_takes_the_part_of_the_machine_that_it_was_promised() -> None:
    command = command_of(Pointer("s3://a", "b", "c", 1500.0, 0.5), 4, 1.1)
    assert command == [sys.executable, "-m", "buoy.batch.work", "s3://a", "b", "--share", "8", "--budget", "1650"]
    assert command_of(Pointer("s3://a", "b", "c", None, 2.0), 1, 0.9)[-2:] == ["--share", "1"]


def test_the_store_is_reached_by_variables_else_by_what_oscar_mounts(tmp_path: Path) -> None:
    (tmp_path / "accessKey").write_text("marta\n")
    (tmp_path / "secretKey").write_text("secret")
    config = tmp_path / "function_config.yaml"
    config.write_text("storage_providers:\n  minio:\n    default:\n      endpoint: http://minio:9000\n")
    assert store_variables({}, tmp_path, config) == {
        "BUOY_S3_ACCESS_KEY": "marta", "BUOY_S3_SECRET_KEY": "secret", "BUOY_S3_ENDPOINT": "http://minio:9000",
    }  # fmt: skip
    given = {"BUOY_S3_ACCESS_KEY": "x", "BUOY_S3_ENDPOINT": "http://elsewhere"}
    assert store_variables(given, tmp_path, config) == {}
    assert store_variables({}, tmp_path / "none", tmp_path / "none") == {}


def test_a_cluster_is_found_where_oscar_cli_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.yaml"
    entries = {
        name: f"{{endpoint: 'https://{name}.example.org/', auth_user: u, auth_password: p, ssl_verify: false}}"
        for name in ("one", "two")
    }
    config.write_text(
        "oscar:\n" + "".join(f"  {name}: {entry}\n" for name, entry in entries.items()) + "default: one\n"
    )
    monkeypatch.setenv("OSCAR_CLI_CONFIG", str(config))
    monkeypatch.delenv("BUOY_URL", raising=False)
    assert find_cluster() == Cluster("https://one.example.org", "u", "p", verify=False)
    assert find_cluster("two").url == "https://two.example.org"
    with pytest.raises(UsageError, match="three"):
        find_cluster("three")
    monkeypatch.setenv("BUOY_URL", "http://127.0.0.1:8080/")
    monkeypatch.setenv("BUOY_USER", "me")
    monkeypatch.setenv("BUOY_PASSWORD", "word")
    assert find_cluster() == Cluster("http://127.0.0.1:8080", "me", "word")
    assert find_cluster("one").url == "https://one.example.org"
