"""Jobs, results and services as the page and the command line show them."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import yaml

from buoy.errors import BuoyError
from buoy.folders import find_folder
from buoy.gateway.node import Node
from buoy.gateway.services import Service, public
from buoy.gateway.state import Job, Output
from buoy.manifest import Manifest

__all__ = ["job_view", "matches", "result_view", "service_view"]


def job_view(job: Job) -> dict[str, Any]:
    """A job, times in seconds since 1970."""
    duration_s = None
    if job.started is not None and job.finished is not None:
        duration_s = round(job.finished - job.started, 4)
    return {
        "id": job.id,
        "name": job.name,
        "service": job.service,
        "bucket": job.bucket,
        "key": job.key,
        "state": job.state,
        "created": job.created,
        "started": job.started,
        "finished": job.finished,
        "duration_s": duration_s,
        "exit_code": job.exit_code,
        "reason": job.reason,
        "attempt": job.attempt,
        "inputs_failed": job.inputs_failed,
    }


def result_view(node: Node, output: Output, job: Job) -> dict[str, Any]:
    """A result with the picture it is about; `result` is `None` where the object is gone, or is no JSON."""
    try:
        result = json.loads(node.store.get(output.bucket, output.key))
    except (BuoyError, ValueError):
        result = None
    given = job.key.rpartition("/")[2]
    of_input = output.key.rpartition("/")[2] in (f"{given}.json", f"{given}.error.json")
    name = result.get("input", {}).get("name", job.key) if isinstance(result, dict) else job.key
    inside = name.partition(f"{given}/")[2]
    picture = f"/page/objects/{job.bucket}/{quote(job.key)}" if job.bucket and (of_input or inside) else None
    if picture and inside:
        picture += f"?entry={quote(inside, safe='')}"
    return {
        "job": job.name,
        "service": job.service,
        "bucket": job.bucket,
        "key": job.key,
        "name": name,
        "state": job.state,
        "result": result if isinstance(result, dict) else None,
        "picture": picture,
        "output_bucket": output.bucket,
        "output_key": output.key,
        "output": f"/page/objects/{output.bucket}/{quote(output.key)}",
    }


def matches(result: Any, label: str, min_score: float) -> bool:
    """Tells whether a result has a finding of that label, with at least that score."""
    if not label and not min_score:
        return True
    findings = result.get("detections") if isinstance(result, dict) else None
    return isinstance(findings, list) and any(
        (not label or finding.get("label") == label) and finding.get("score", 0) >= min_score for finding in findings
    )


def service_view(node: Node, service: Service) -> dict[str, Any]:
    """A service, with what its model's manifest says."""
    shown = public(service, node.provider)
    model = service.variables.get("BUOY_MODEL", "")
    return {
        "name": service.name,
        "model": model,
        **_manifest(model),
        "input": [f"{path.bucket}/{path.folder}".rstrip("/") for path in service.inputs],
        "output": [f"{path.bucket}/{path.folder}".rstrip("/") for path in service.outputs],
        "folder": node.drop_folders().get(service.name, ""),
        "image": shown["image"],
        "cpu": shown["cpu"],
        "memory": shown["memory"],
        "warm": node.dispatcher.warm(service),
        "loaded": node.dispatcher.loaded(service.name),
        "exposed": _exposed(node, service),
        "fdl": service.fdl or _as_fdl(shown),
    }


def _exposed(node: Node, service: Service) -> dict[str, Any] | None:
    """How an exposed service is, and where; `None` for the others."""
    if service.exposure is None:
        return None
    fleet = node.exposed.look(service.name)
    found = fleet.status() if fleet else {"state": "pending", "reason": ""}
    return {**found, "path": f"{service.exposure.prefix}/", "access": service.exposure.access}


def _manifest(model: str) -> dict[str, Any]:
    """Task, maturity and labels; empty for a script that has no model of ours."""
    if model:
        try:
            manifest = Manifest.load(find_folder(model))
            return {"task": manifest.task, "maturity": manifest.maturity, "labels": list(manifest.labels)}
        except BuoyError as error:
            return {"task": "", "maturity": "", "labels": [], "fault": str(error)}
    return {"task": "", "maturity": "", "labels": []}


def _as_fdl(definition: dict[str, Any]) -> str:
    private = ("token", "storage_providers", "clusters")
    service = {key: value for key, value in definition.items() if value and key not in private}
    cluster = definition.get("cluster_id") or "oscar-cluster"
    return yaml.safe_dump({"functions": {"oscar": [{cluster: service}]}}, sort_keys=False, allow_unicode=True)
