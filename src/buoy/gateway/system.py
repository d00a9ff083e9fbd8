"""OSCAR's `/system` routes about the cluster and its services.

Source: pkg/handlers of grycap/oscar (v4); the fields and their order are what its clients look for.
"""

from __future__ import annotations

import logging
import platform
import socket
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import psutil
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from buoy import machine
from buoy.errors import UsageError
from buoy.gateway.fleet import Fleet
from buoy.gateway.http import compact, json_body, sync
from buoy.gateway.joblog import tail
from buoy.gateway.node import Node
from buoy.gateway.services import Service, public
from buoy.version import VERSION

__all__ = ["System"]

_log = logging.getLogger(__name__)
_STARTED = time.time()


class System:
    """The endpoints, for one node."""

    def __init__(self, node: Node, calls: deque[dict[str, Any]]) -> None:
        self._node = node
        self._calls = calls
        self.info, self.config, self.status = sync(self._info), sync(self._config), sync(self._status)
        self.create, self.services, self.update = sync(self._create), sync(self._services), sync(self._update)
        self.service, self.delete = sync(self._service), sync(self._delete)
        self.deployment, self.deployment_logs = sync(self._deployment), sync(self._deployment_logs)
        self.access_log = sync(self._access_log)

    def _info(self, request: Request, _: bytes) -> Response:
        return compact(
            {
                "version": f"buoy-{VERSION}",
                "git_commit": "",
                "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
                "kubernetes_version": "",
                "serverless_backend": {"name": "buoy", "version": VERSION},
            }
        )

    def _config(self, request: Request, _: bytes) -> Response:
        config = {
            "name": "oscar",
            "namespace": "oscar",
            "services_namespace": "oscar-svc",
            "controller_service_account": "",
            "gpu_available": False,
            "interLink_available": False,
            "serverless_backend": "buoy",
            "yunikorn_enable": False,
            "kueue_enable": False,
            "volume_enable": False,
            "oidc_groups": [],
            "minio_quota_enabled": False,
        }
        return compact({"config": config, "minio_provider": self._node.provider, "allowed_image_repositories": []})

    def _status(self, request: Request, _: bytes) -> Response:
        return compact(_status(self._node))

    def _create(self, request: Request, body: bytes) -> Response:
        self._node.apply(json_body(body), create=True)
        return Response(status_code=201)

    def _update(self, request: Request, body: bytes) -> Response:
        self._node.apply(json_body(body), create=False)
        return Response(status_code=204)

    def _services(self, request: Request, _: bytes) -> Response:
        services = [service for _, service in sorted(self._node.services.items())]
        return compact([self._shown(request, service) for service in services])

    def _service(self, request: Request, _: bytes) -> Response:
        return compact(self._shown(request, self._node.service(request.path_params["service"])))

    def _shown(self, request: Request, service: Service) -> dict[str, Any]:
        shown = public(service, self._node.provider)
        if request.query_params.get("include") == "deployment":
            shown["deployment"] = self._deployed(service)
        return shown

    def _delete(self, request: Request, _: bytes) -> Response:
        self._node.remove(request.path_params["service"], delete_data=request.query_params.get("delete_data") == "true")
        return Response(status_code=204)

    async def stop(self, request: Request) -> Response:
        """End the instances of an exposed service, until `start`."""
        return self._ask(request, Fleet.stop)

    async def start(self, request: Request) -> Response:
        """Run an exposed service again."""
        return self._ask(request, Fleet.start)

    async def restart(self, request: Request) -> Response:
        """Replace the instances of an exposed service; no request fails."""
        return self._ask(request, Fleet.restart)

    def _ask(self, request: Request, action: Callable[[Fleet], None]) -> Response:
        service = self._node.service(request.path_params["service"])
        action(self._node.exposed.fleet(service.name))
        return compact(self._deployed(service))

    def _deployed(self, service: Service) -> dict[str, Any]:
        if service.exposure is not None:
            return self._deployed_instances(service)
        running = self._node.state.counts(service.name)["Running"]
        return {
            "service_name": service.name,
            "state": "ready",
            "active_instances": max(running, int(self._node.dispatcher.loaded(service.name))),
            "affected_instances": 0,
            "resource_kind": "process",
        }

    def _deployed_instances(self, service: Service) -> dict[str, Any]:
        fleet = self._node.exposed.look(service.name)
        found: dict[str, Any] = {"state": "pending", "reason": "", "active_instances": 0}
        if fleet:
            found = fleet.status()
        since = found.pop("since", None)
        times = {"last_transition_time": stamp(since)} if since else {}
        return {
            "service_name": service.name,
            "state": found["state"],
            **({"reason": found["reason"]} if found["reason"] else {}),
            **times,
            "active_instances": found["active_instances"],
            "affected_instances": found.get("affected_instances", 0),
            "resource_kind": "exposed_service",
        }

    def _deployment(self, request: Request, _: bytes) -> Response:
        return compact(self._deployed(self._node.service(request.path_params["service"])))

    def _deployment_logs(self, request: Request, _: bytes) -> Response:
        service = self._node.service(request.path_params["service"])
        lines = request.query_params.get("tailLines", "200")
        if not lines.isdecimal() or not 1 <= int(lines) <= 1000:
            raise UsageError(f"tailLines={lines}", "a number from 1 to 1000")
        exposed = service.exposure is not None
        log = self._node.dispatcher.log_path(f"{'exposed' if exposed else 'worker'}-{service.name}")
        entries = [{"message": line} for line in tail(log, 200_000).splitlines()[-int(lines) :]]
        found: dict[str, Any] = {"service_name": service.name, "available": log.exists()}
        if not log.exists():
            found["message"] = (
                "no instance has run yet" if exposed
                else "no resident worker has run for this service; see the logs of its jobs"
            )  # fmt: skip
        return compact({**found, "entries": entries})

    def _access_log(self, request: Request, _: bytes) -> Response:
        return compact({"logs": list(self._calls)})


async def health(request: Request) -> Response:
    """Answer that the gateway runs."""
    return PlainTextResponse("Ok")


def stamp(seconds: float) -> str:
    """A time as OSCAR writes it: RFC 3339, whole seconds, UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _status(node: Node) -> dict[str, Any]:
    """The v4 layout, and beside it the keys up to v3.6, which oscar-batch still reads (all texts)."""
    counts = node.state.counts()
    cores_milli, memory = machine.cores() * 1000, machine.memory_bytes()
    used_milli = min(cores_milli, round(psutil.cpu_percent() / 100 * cores_milli))
    used_bytes = min(memory, memory - min(memory, psutil.virtual_memory().available))
    free_milli, free_bytes = cores_milli - used_milli, memory - used_bytes
    asked_milli, asked_bytes = _asked(node)
    asked_milli, asked_bytes = min(cores_milli, asked_milli), min(memory, asked_bytes)
    host = socket.gethostname()
    buckets = node.store.buckets()
    return {
        "cluster": {
            "nodes_count": 1,
            "metrics": {
                "cpu": {
                    "total_free_cores": free_milli,
                    "max_free_on_node_cores": free_milli,
                    "total_schedulable_cores": cores_milli - asked_milli,
                    "total_schedulable_on_node_cores": cores_milli - asked_milli,
                },
                "memory": {
                    "total_free_bytes": free_bytes,
                    "max_free_on_node_bytes": free_bytes,
                    "total_schedulable_bytes": memory - asked_bytes,
                    "max_schedulable_on_node_bytes": memory - asked_bytes,
                },
                "gpu": {"total_gpu": 0},
            },
            "nodes": [
                {
                    "name": host,
                    "cpu": {
                        "capacity_cores": cores_milli,
                        "usage_cores": used_milli,
                        "request_cores": asked_milli,
                    },
                    "memory": {
                        "capacity_bytes": memory,
                        "usage_bytes": used_bytes,
                        "request_bytes": asked_bytes,
                    },
                    "gpu": 0,
                    "is_interlink": False,
                    "status": "Ready",
                    "conditions": [{"type": "Ready", "status": True}],
                }
            ],
        },
        "oscar": {
            "deployment_name": "oscar",
            "ready": True,
            "deployment": {
                "available_replicas": 1,
                "ready_replicas": 1,
                "replicas": 1,
                "creation_timestamp": stamp(_STARTED),
                "strategy": "",
                "labels": {},
            },
            "jobs_count": sum(counts.values()),
            "pods": {"total": sum(counts.values()), "states": {**counts, "Unknown": 0}},
            "oidc": {"enabled": False, "issuers": [], "groups": []},
        },
        "minio": {"buckets_count": len(buckets), "total_objects": _first_pages(node, buckets)},
        "numberNodes": 1,
        "cpuFreeTotal": str(free_milli),
        "cpuMaxFree": str(free_milli),
        "memoryFreeTotal": str(free_bytes),
        "memoryMaxFree": str(free_bytes),
        "detail": [
            {
                "nodeName": host,
                "cpuCapacity": str(cores_milli),
                "cpuUsage": str(used_milli),
                "cpuPercentage": f"{100 * used_milli / cores_milli:.2f}",
                "memoryCapacity": str(memory),
                "memoryUsage": str(used_bytes),
                "memoryPercentage": f"{100 * used_bytes / memory:.2f}",
            }
        ],
    }


def _asked(node: Node) -> tuple[int, int]:
    """Thousandths of cores and bytes that the definitions ask for of the jobs that run."""
    running = [(service, node.state.counts(service.name)["Running"]) for service in tuple(node.services.values())]
    return (
        sum(number * service.cpu_milli for service, number in running),
        sum(number * service.memory_bytes for service, number in running),
    )


def _first_pages(node: Node, buckets: list[str]) -> int:
    """Objects in all buckets, at most 1,000 of each, as upstream counts."""
    return sum(len(node.store.list(bucket).objects) for bucket in buckets)
