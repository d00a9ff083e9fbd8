"""What a cluster has left for the pilots of a run: of its nodes, and of the quota of the namespace.

Pods of the run itself are left out of what is taken, so what is found is room for all its pilots, those that run
included. Requests count, not use: they are what the scheduler goes by.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from buoy.batch.engines.kube_api import Forbidden, KubeApi, quantity
from buoy.batch.engines.kube_job import ended
from buoy.batch.fit import ANY, Fit, Place, by_nodes, by_quota

__all__ = ["nodes_of", "quotas_of", "requests_of", "room"]

Amounts = dict[str, float]


#: Quotas with other scopes are about other pods than ours.
_OUR_SCOPES = {"NotTerminating", "NotBestEffort"}


def room(api: KubeApi, requests: Mapping[str, str], selector: str) -> Fit:
    """For how many pilots with these requests there is room, by nodes and quotas, whichever is less.

    Args:
        api: the cluster.
        requests: of one pilot.
        selector: finds the pods of the run, which are not counted as taken.
    """
    need = {**{name: quantity(value) for name, value in requests.items()}, "pods": 1.0}
    own = [pod for pod in api.pods(selector) if not ended(pod)]
    found = [ANY]
    with suppress(Forbidden):  # not everybody may see the nodes
        pods, mine = api.pods_on_nodes(), {pod["metadata"]["uid"] for pod in own}
        others = [pod for pod in pods if pod["metadata"]["uid"] not in mine]
        found.append(by_nodes(nodes_of(api.nodes(), others, list(need)), need))
    with suppress(Forbidden):
        ours = {name: value * len(own) for name, value in need.items()}
        found += [by_quota(quota, need) for quota in quotas_of(api.quotas(), ours)]
    return min(found)


def nodes_of(
    nodes: Iterable[Mapping[str, Any]], pods: Iterable[Mapping[str, Any]], names: Sequence[str]
) -> list[Place]:
    """The nodes that take pods.

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
            gives = node["status"].get("allocatable") or {}
            amounts = {name: quantity(gives.get(name, 0)) for name in names}
            found.append(Place(amounts, taken.get(node["metadata"]["name"], {})))
    return found


def quotas_of(quotas: Iterable[Mapping[str, Any]], ours: Amounts) -> list[Place]:
    """The quotas, without what is used by ourselves; a quota of requests and one of limits are two."""
    found = []
    for quota in quotas:
        spec, status = quota["spec"], quota.get("status") or {}
        if set(spec.get("scopes") or []) <= _OUR_SCOPES and not spec.get("scopeSelector"):
            hard, used = status.get("hard") or spec.get("hard") or {}, status.get("used") or {}
            for prefix in ("", "requests.", "limits.", "count/"):  # our limits are our requests
                named = [name for name in ours if prefix + name in hard]
                taken = {name: quantity(used.get(prefix + name, 0)) - ours[name] for name in named}
                found.append(Place({name: quantity(hard[prefix + name]) for name in named}, taken))
    return found


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
