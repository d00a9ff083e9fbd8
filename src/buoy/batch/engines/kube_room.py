"""What a cluster has left for the pilots of a run: of its nodes, and of the quota of the namespace.

Pods of the run itself are left out of what is taken, so what is found is room for all its pilots, those that run
included. Requests count, not use: they are what the scheduler goes by.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import Any, NamedTuple

from buoy.batch.engines.kube_api import Forbidden, KubeApi, quantity
from buoy.batch.engines.kube_job import ended

__all__ = ["Room", "room"]

Amounts = dict[str, float]

#: Of every node so much is left to others.
_HEAD_ROOM = 0.1
#: Where nothing that may be seen sets a limit: the person does.
_ANY = 1_000_000

#: Quotas with other scopes are about other pods than ours.
_OUR_SCOPES = {"NotTerminating", "NotBestEffort"}


class Room(NamedTuple):
    """So many pilots, and what sets that limit."""

    pilots: int
    why: str


def room(api: KubeApi, requests: Mapping[str, str], selector: str) -> Room:
    """For how many pilots with these requests there is room, by nodes and quotas, whichever is less.

    Args:
        api: the cluster.
        requests: of one pilot.
        selector: finds the pods of the run, which are not counted as taken.
    """
    need = {**{name: quantity(value) for name, value in requests.items()}, "pods": 1.0}
    own = [pod for pod in api.pods(selector) if not ended(pod)]
    found = [Room(_ANY, "")]
    try:
        nodes, pods = api.nodes(), api.pods_on_nodes()
    except Forbidden:
        pass
    else:
        mine = {pod["metadata"]["uid"] for pod in own}
        others = [pod for pod in pods if pod["metadata"]["uid"] not in mine]
        found.append(fit_nodes(nodes_of(nodes, others, list(need)), need))
    try:
        quotas = api.quotas()
    except Forbidden:
        pass
    else:
        found += [fit_quota(quota, need, len(own)) for quota in quotas_of(quotas, list(need))]
    return min(found)


def fit_nodes(nodes: Sequence[tuple[Amounts, Amounts]], need: Amounts) -> Room:
    """The sum over nodes, each by what it is shortest of: two halves on two nodes are no place."""
    if not nodes:
        return Room(0, "no node is ready and open to pods")
    pilots, short = 0, dict.fromkeys(need, 0)
    for gives, taken in nodes:
        fits = {name: ((1 - _HEAD_ROOM) * gives[name] - taken[name]) / need[name] for name in need}
        short[min(fits, key=lambda name: fits[name])] += 1
        pilots += max(0, int(min(fits.values())))
    scarce = max(short, key=lambda name: short[name])
    return Room(pilots, f"{len(nodes)} nodes have room for {pilots}: {scarce} is taken first")


def fit_quota(quota: tuple[Amounts, Amounts], need: Amounts, own: int) -> Room:
    """What a quota leaves, with `own` pilots among what is used of it."""
    hard, used = quota
    fits = {name: (hard[name] - used[name]) / need[name] + own for name in hard}
    scarce = min(fits, key=lambda name: fits[name])
    pilots = max(0, int(min(fits.values(), default=inf)))
    return Room(pilots, f"the quota of the namespace leaves {scarce} for {pilots}")


def nodes_of(
    nodes: Iterable[Mapping[str, Any]], pods: Iterable[Mapping[str, Any]], names: Sequence[str]
) -> list[tuple[Amounts, Amounts]]:
    """What each node that takes pods can give in all, and what is taken of it.

    Args:
        nodes: as the API server describes them.
        pods: the same, without those that have ended.
        names: of the resources, such as `cpu`; `pods` counts pods.
    """
    taken: dict[str, Amounts] = {}
    for pod in pods:
        _add(taken.setdefault(pod["spec"].get("nodeName", ""), {}), {**requests_of(pod["spec"]), "pods": 1.0})
    found = []
    for node in nodes:
        if _takes_pods(node):
            gives, holds = node["status"].get("allocatable") or {}, taken.get(node["metadata"]["name"], {})
            found.append(
                ({name: quantity(gives.get(name, 0)) for name in names}, {name: holds.get(name, 0.0) for name in names})
            )
    return found


def quotas_of(quotas: Iterable[Mapping[str, Any]], names: Sequence[str]) -> list[tuple[Amounts, Amounts]]:
    """What each quota allows of each resource that it limits, and what is used of it."""
    found = []
    for quota in quotas:
        spec, status = quota["spec"], quota.get("status") or {}
        if set(spec.get("scopes") or []) <= _OUR_SCOPES and not spec.get("scopeSelector"):
            hard, used = status.get("hard") or spec.get("hard") or {}, status.get("used") or {}
            for prefix in ("", "requests.", "limits.", "count/"):  # our limits are our requests
                named = [name for name in names if prefix + name in hard]
                found.append(
                    (
                        {name: quantity(hard[prefix + name]) for name in named},
                        {name: quantity(used.get(prefix + name, 0)) for name in named},
                    )
                )
    return [each for each in found if each[0]]


def requests_of(spec: Mapping[str, Any]) -> Amounts:
    """What a pod holds of its node, as the scheduler counts it.

    Source: Kubernetes documentation, "Sidecar containers", resource sharing within containers: the larger of the sum of
    what runs together, and each init container beside the sidecars started before it; and the pod's overhead.
    """
    together: Amounts = {}
    for container in spec.get("containers") or []:
        _add(together, _requests(container))
    sidecars: Amounts = {}
    peak: Amounts = {}
    for container in spec.get("initContainers") or []:
        own = _requests(container)
        if container.get("restartPolicy") == "Always":
            _add(sidecars, own)
            own = {}
        for name in {*own, *sidecars}:
            peak[name] = max(peak.get(name, 0.0), own.get(name, 0.0) + sidecars.get(name, 0.0))
    _add(together, sidecars)
    found = {name: max(together.get(name, 0.0), peak.get(name, 0.0)) for name in {*together, *peak}}
    found.update(_requests(spec))  # of the pod as a whole, where it has been given any
    _add(found, {name: quantity(value) for name, value in (spec.get("overhead") or {}).items()})
    return found


def _takes_pods(node: Mapping[str, Any]) -> bool:
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in node["status"].get("conditions") or [])
    closed = any(each["effect"] in ("NoSchedule", "NoExecute") for each in node["spec"].get("taints") or [])
    return ready and not closed and not node["spec"].get("unschedulable")


def _requests(container: Mapping[str, Any]) -> Amounts:
    asked = (container.get("resources") or {}).get("requests") or {}
    return {name: quantity(value) for name, value in asked.items()}


def _add(total: Amounts, more: Mapping[str, float]) -> None:
    for name, value in more.items():
        total[name] = total.get(name, 0.0) + value
