"""A Kubernetes API server: found, asked, and its refusals told in our words. The only file that imports the client."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from buoy.errors import JobError, UsageError

__all__ = ["Exists", "Forbidden", "KubeApi", "quantity"]

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
#: To connect, and between two parts of an answer.
_TIMEOUT_S = (5.0, 30.0)
_PAGE = 500


class Exists(Exception):
    """There is an object of that name already."""


class Forbidden(JobError):
    """These credentials may not do it."""


class KubeApi:
    """Jobs of one namespace, and what is there to see of the cluster.

    Found as `kubectl` finds it (KUBECONFIG, ~/.kube/config), and inside a pod by its service account.

    Args:
        namespace: of the Jobs; empty for that of the context or of the pod.

    Raises:
        UsageError: the client is not installed, or there is no configuration.
    """

    def __init__(self, namespace: str = "") -> None:
        try:
            from kubernetes import client, config
        except ImportError as error:
            raise UsageError("the Kubernetes client is not installed", "pip install 'buoy[kube]'") from error
        found = client.Configuration()
        try:
            if os.environ.get("KUBERNETES_SERVICE_HOST") and not os.environ.get("KUBECONFIG"):
                config.load_incluster_config(client_configuration=found)
                own = (_ACCOUNT / "namespace").read_text().strip()
            else:
                files = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
                config.load_kube_config(files, client_configuration=found)
                own = config.list_kube_config_contexts(files)[1]["context"].get("namespace", "")
        except (config.ConfigException, OSError) as error:
            raise UsageError(f"there is no Kubernetes to be found: {error}", "set KUBECONFIG to its file") from error
        self.namespace = namespace or own or "default"
        self.host: str = found.host
        self._client = client.ApiClient(found)
        self._core, self._batch = client.CoreV1Api(self._client), client.BatchV1Api(self._client)

    def jobs(self, selector: str) -> list[dict[str, Any]]:
        """The Jobs with these labels."""
        return list(self._list(self._batch.list_namespaced_job, namespace=self.namespace, label_selector=selector))

    def pods(self, selector: str) -> list[dict[str, Any]]:
        """The pods with these labels, ended ones too."""
        return list(self._list(self._core.list_namespaced_pod, namespace=self.namespace, label_selector=selector))

    def quotas(self) -> list[dict[str, Any]]:
        """The quotas of the namespace."""
        return list(self._list(self._core.list_namespaced_resource_quota, namespace=self.namespace))

    def nodes(self) -> list[dict[str, Any]]:
        """The nodes of the cluster."""
        return list(self._list(self._core.list_node))

    def pods_on_nodes(self) -> list[dict[str, Any]]:
        """The pods of all namespaces that hold something of a node."""
        held = "status.phase!=Succeeded,status.phase!=Failed,spec.nodeName!="
        return list(self._list(self._core.list_pod_for_all_namespaces, field_selector=held))

    def create_job(self, document: dict[str, Any]) -> None:
        """Create a Job.

        Raises:
            Exists: there is one of that name.
        """
        with self._told("creating a Job"):
            self._batch.create_namespaced_job(self.namespace, document, _request_timeout=_TIMEOUT_S)

    def delete_job(self, name: str) -> None:
        """Delete a Job and, in the background, its pods; nothing if it is not there."""
        with self._told("deleting a Job"):
            self._batch.delete_namespaced_job(
                name, self.namespace, propagation_policy="Background", _request_timeout=_TIMEOUT_S
            )

    def _list(self, call: Callable[..., Any], **options: Any) -> Iterator[dict[str, Any]]:
        """All pages. As plain data: the client's own classes take longer than the server does."""
        more = ""
        while True:
            with self._told("listing " + call.__name__.removeprefix("list_").replace("_", " ")):
                answer = call(
                    **options, limit=_PAGE, _continue=more, _preload_content=False, _request_timeout=_TIMEOUT_S
                )
                page = json.loads(answer.data)
            yield from page.get("items") or []
            if not (more := page["metadata"].get("continue") or ""):
                return

    @contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except ApiException as error:
            if error.status == 404 and doing.startswith("deleting"):
                return
            message = _message(error)
            if error.status == 409:
                raise Exists(message) from error
            where = f"{self.host}: {doing}: {message}"
            if "exceeded quota" in message:
                raise JobError(where, retry=True) from error
            if error.status in (401, 403):
                raise Forbidden(where, "give this account the rights that services/batch names") from error
            raise JobError(where, retry=error.status == 429 or error.status >= 500) from error
        except HTTPError as error:
            raise JobError(f"{self.host}: {doing}: {error}", "is the cluster reachable?", retry=True) from error


def quantity(text: Any) -> float:
    """A number as Kubernetes writes it: `250m`, `1Gi`."""
    from kubernetes.utils.quantity import parse_quantity

    return float(parse_quantity(text))


def _message(error: Any) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return f"{error.status} {error.reason}"
