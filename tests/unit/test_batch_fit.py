"""Room for pilots, by nodes and by quotas."""

from __future__ import annotations

from typing import Any

import pytest

from buoy.batch.engines.kube_job import unfinished
from buoy.batch.engines.kube_room import nodes_of, quotas_of, requests_of
from buoy.batch.fit import ANY, Place, by_nodes, by_quota

NEED = {"cpu": 1.0, "memory": 2.0}


def asks(cpu: str) -> dict[str, Any]:
    return {"resources": {"requests": {"cpu": cpu}}}


def node(name: str, ready: str = "True") -> dict[str, Any]:
    status = {"allocatable": {"cpu": "4", "pods": "110"}, "conditions": [{"type": "Ready", "status": ready}]}
    return {"metadata": {"name": name}, "spec": {}, "status": status}


def test_two_halves_on_two_nodes_are_no_place() -> None:
    halves = [Place({"cpu": 1.5, "memory": 64}, {"cpu": 0.5})] * 2
    assert by_nodes(halves, NEED, head_room=0).pilots == 2
    assert by_nodes([Place({"cpu": 1.5, "memory": 64}, {"cpu": 0.75})] * 2, NEED, head_room=0).pilots == 0


def test_what_is_shortest_decides_on_each_node_and_is_told() -> None:
    nodes = [
        Place({"cpu": 64, "memory": 4}, {}),
        Place({"cpu": 2, "memory": 64}, {}),
        Place({"cpu": 64, "memory": 6}, {}),
    ]
    fit = by_nodes(nodes, NEED, head_room=0)
    assert fit.pilots == 2 + 2 + 3
    assert fit.why == "memory is what 2 of 3 nodes are short of"


def test_a_part_of_the_places_is_left_to_others_but_never_the_last_ones() -> None:
    assert by_nodes([Place({"cpu": 40, "memory": 100}, {})], NEED, head_room=0.1).pilots == 36
    assert by_nodes([Place({"cpu": 1, "memory": 2}, {})] * 9, NEED, head_room=0.1).pilots == 9


def test_a_resource_that_a_node_has_not_is_no_room() -> None:
    fit = by_nodes([Place({"cpu": 64, "memory": 64}, {})], {**NEED, "nvidia.com/gpu": 1.0})
    assert fit == (0, "nvidia.com/gpu is what 1 of 1 nodes are short of")


def test_a_quota_counts_only_what_it_names() -> None:
    assert by_quota(Place({"cpu": 5}, {"cpu": 2}), NEED).pilots == 3
    assert by_quota(Place({"services": 5}, {}), NEED) == ANY
    assert by_quota(Place({"cpu": 5, "memory": 3}, {"cpu": 7}), NEED) == (0, "a quota leaves no more cpu")


def test_thirds_add_up() -> None:
    assert by_quota(Place({"cpu": 0.3}, {}), {"cpu": 0.1}).pilots == 3


@pytest.mark.parametrize(
    ("spec", "held"),
    [
        ({"containers": [asks("500m"), asks("1")]}, 1.5),
        ({"containers": [asks("1")], "initContainers": [asks("3")]}, 3.0),
        ({"containers": [asks("1")], "initContainers": [{**asks("1"), "restartPolicy": "Always"}, asks("3")]}, 4.0),
        ({"containers": [asks("1")], "initContainers": [asks("2"), {**asks("1"), "restartPolicy": "Always"}]}, 2.0),
        ({"containers": [asks("1")], "overhead": {"cpu": "250m"}}, 1.25),
        ({"containers": [asks("1")], "resources": {"requests": {"cpu": "2"}}}, 2.0),
    ],
)
def test_a_pod_holds_what_the_scheduler_counts(spec: dict[str, Any], held: float) -> None:
    assert requests_of(spec) == {"cpu": held}


def test_nodes_that_take_no_pods_are_left_out() -> None:
    tainted = {**node("tainted"), "spec": {"taints": [{"key": "gpu", "effect": "NoSchedule"}]}}
    drained = {**node("drained"), "spec": {"unschedulable": True}}
    soft = {**node("soft"), "spec": {"taints": [{"key": "spot", "effect": "PreferNoSchedule"}]}}
    pods = [{"spec": {"nodeName": "reef", "containers": [asks("1500m")]}}]
    found = nodes_of([node("reef"), node("lost", "Unknown"), tainted, drained, soft], pods, ["cpu", "pods"])
    assert found == [({"cpu": 4.0, "pods": 110.0}, {"cpu": 1.5, "pods": 1.0}), ({"cpu": 4.0, "pods": 110.0}, {})]


def test_quotas_are_taken_without_our_own_share_and_only_if_they_are_about_us() -> None:
    status = {
        "hard": {"requests.cpu": "5", "limits.cpu": "8", "pods": "10"},
        "used": {"requests.cpu": "3", "limits.cpu": "3"},
    }
    quotas = [{"spec": {}, "status": status}, {"spec": {"scopes": ["BestEffort"]}, "status": status}]
    found = [place for place in quotas_of(quotas, {"cpu": 2.0, "pods": 2.0}) if place.gives]
    assert found == [({"pods": 10.0}, {"pods": -2.0}), ({"cpu": 5.0}, {"cpu": 1.0}), ({"cpu": 8.0}, {"cpu": 1.0})]


@pytest.mark.parametrize(
    ("status", "left"),
    [
        ({}, 9),
        ({"active": 2, "succeeded": 1, "failedIndexes": "0,3-5"}, 4),
        ({"conditions": [{"type": "Complete", "status": "True"}]}, 0),
        ({"conditions": [{"type": "Failed", "status": "True"}], "succeeded": 2}, 0),
        ({"conditions": [{"type": "Suspended", "status": "True"}]}, 9),
    ],
)
def test_pilots_of_a_job_are_its_indexes_that_have_not_ended(status: dict[str, Any], left: int) -> None:
    assert unfinished({"spec": {"completions": 9}, "status": status}) == left
