"""For how many more pilots an OSCAR cluster has room, as its `/system/status` and quotas tell. Pure.

Two layouts: that since version 4 (numbers; all cores are thousandths, whatever their keys say; zeros are left out) and
that up to 3.6 (`detail`, texts). What is measured as used now is free for a moment only, so what was asked for counts
where the cluster tells it: `request_*` of nodes, and `total_schedulable_*` of the whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from buoy.batch.fit import ANY, Fit, Place, by_nodes, by_quota
from buoy.manifest import Needs

__all__ = ["need_of", "nodes_of", "quota_of", "room"]

_UNITS = {"": 1.0, "m": 0.001, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30,
          "Ti": 2.0**40}  # fmt: skip


def need_of(needs: Needs) -> dict[str, float]:
    """What one pilot asks for: thousandths of cores, bytes, graphics cards."""
    need = {"cpu": needs.cpu * 1000, "memory": _quantity(needs.memory)}
    return {**need, "gpu": 1.0} if needs.gpu else need


def room(status: Mapping[str, Any], quota: Mapping[str, Any], need: Mapping[str, float]) -> Fit:
    """So many more pilots have room, by nodes, by the whole and by the user's quota, whichever is least."""
    found = [by_nodes(nodes_of(status), need), _whole(status, need), by_quota(quota_of(quota), need)]
    return min(found, key=lambda fit: fit.pilots)


def nodes_of(status: Mapping[str, Any]) -> list[Place]:
    """The nodes that take pods. Those of InterLink are none: they stand for somebody else's queue."""
    if (cluster := status.get("cluster")) is None:
        return [
            Place(
                {"cpu": _number(node, "cpuCapacity"), "memory": _number(node, "memoryCapacity")},
                {"cpu": _number(node, "cpuUsage"), "memory": _number(node, "memoryUsage")},
            )
            for node in status.get("detail") or []
        ]
    return [
        Place(
            {**_amounts(node, "capacity"), "gpu": _number(node, "gpu")},
            _amounts(node, "request"),
        )
        for node in cluster.get("nodes") or []
        if not node.get("is_interlink") and _is_ready(node)
    ]


def quota_of(answer: Mapping[str, Any]) -> Place:
    """A user's quota, as `{"resources": {"cpu": {"max": ..., "used": ...}}}`; one that is not told is no limit."""
    gives, taken = {}, {}
    for name, each in (answer.get("resources") or {}).items():
        kind = "gpu" if "gpu" in name else name
        if kind in ("cpu", "memory", "gpu") and each.get("max") is not None:
            gives[kind], taken[kind] = _amount(kind, each["max"]), _amount(kind, each.get("used") or 0)
    return Place(gives, taken)


def _whole(status: Mapping[str, Any], need: Mapping[str, float]) -> Fit:
    metrics = (status.get("cluster") or {}).get("metrics") or {}
    left = {
        "cpu": (metrics.get("cpu") or {}).get("total_schedulable_cores"),
        "memory": (metrics.get("memory") or {}).get("total_schedulable_bytes"),
    }
    known = {name: float(amount) for name, amount in left.items() if amount is not None}
    fit = by_quota(Place(known, {}), need)
    return fit if fit == ANY else Fit(fit.pilots, fit.why.replace("a quota leaves", "the cluster has"))


def _is_ready(node: Mapping[str, Any]) -> bool:
    told = [each.get("status") for each in node.get("conditions") or [] if each.get("type") == "Ready"]
    return told[0] in (True, "True") if told else node.get("status") != "NotReady"


def _amounts(node: Mapping[str, Any], of: str) -> dict[str, float]:
    return {
        "cpu": _number(node.get("cpu") or {}, f"{of}_cores"),
        "memory": _number(node.get("memory") or {}, f"{of}_bytes"),
    }


def _number(found: Mapping[str, Any], key: str) -> float:
    return float(found.get(key) or 0)


def _amount(kind: str, value: Any) -> float:
    """A number is in thousandths or bytes, as in the rest of the API; a text is a quantity of Kubernetes."""
    if isinstance(value, str):
        return _quantity(value) * (1000 if kind == "cpu" else 1)
    return float(value)


def _quantity(text: str) -> float:
    found = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", text.strip())
    return float(found[1]) * _UNITS.get(found[2], 1.0) if found else 0.0
