"""A real Kubernetes on the loopback, without machines: etcd, API server, controllers, scheduler; KWOK plays the nodes.

KWOK starts the pods that the scheduler gives to its nodes, and ends them when a test (or `PodPlayer`, which really runs
their commands) writes into an annotation with which exit code they have ended.
"""

from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from joserfc.jwk import ECKey
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from support.need import program

__all__ = ["EXIT_CODE", "KubeCluster", "PodPlayer", "kube_cluster"]

#: The annotation of a pod that KWOK ends it by.
EXIT_CODE = "buoy-tests/exit-code"
_ADMIN = "tests-admin-token"
_STAGES = Path(__file__).with_name("kube_stages.yaml")
#: Only catches what hangs.
_LONGEST_S = 90.0
_CONTROLLERS = (
    "job-controller,garbage-collector-controller,namespace-controller,serviceaccount-controller,resourcequota-controller,"
    "node-lifecycle-controller,pod-garbage-collector-controller,ttl-after-finished-controller"
)


@dataclass
class KubeCluster:
    """A cluster that this process has started, and its administrator's client."""

    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    tokens: dict[str, str] = field(default_factory=lambda: {"admin": _ADMIN})

    def start(self, *users: str) -> None:
        """Start everything; `users` are more people, without any right."""
        etcd, peer, self.port = (_free_port() for _ in range(3))
        self.tokens |= {user: f"tests-{user}-token" for user in users}
        lines = [
            f"{token},{user},{user}{',system:masters' if user == 'admin' else ''}"
            for user, token in self.tokens.items()
        ]
        (self.folder / "tokens.csv").write_text("\n".join(lines) + "\n")
        _make_key(self.folder / "accounts.key")
        self._run(
            "etcd", f"--data-dir={self.folder}/etcd", f"--listen-client-urls=http://127.0.0.1:{etcd}",
            f"--advertise-client-urls=http://127.0.0.1:{etcd}", f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}", f"--initial-cluster=default=http://127.0.0.1:{peer}",
            "--unsafe-no-fsync", "--log-level=warn",
        )  # fmt: skip
        self.wait(lambda: _answers(f"http://127.0.0.1:{etcd}/health"))
        accounts = f"{self.folder}/accounts.key"
        self._run(
            "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{etcd}", "--bind-address=127.0.0.1",
            f"--secure-port={self.port}", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none",
            f"--cert-dir={self.folder}/certificates", f"--token-auth-file={self.folder}/tokens.csv",
            "--authorization-mode=RBAC", "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={accounts}.pub", f"--service-account-signing-key-file={accounts}",
            "--service-cluster-ip-range=10.96.0.0/24", "--profiling=false",
        )  # fmt: skip
        self.wait(Path(self.certificate).exists)
        self.kubeconfig = self.config_of("admin")
        settings = client.Configuration()
        config.load_kube_config(str(self.kubeconfig), client_configuration=settings)
        self.client = client.ApiClient(settings)
        self.core, self.batch, self.rbac = (
            client.CoreV1Api(self.client), client.BatchV1Api(self.client), client.RbacAuthorizationV1Api(self.client),
        )  # fmt: skip
        self.wait(self._ready)
        common = (f"--kubeconfig={self.kubeconfig}",)
        self._run(
            "kube-controller-manager", *common, "--leader-elect=false", "--secure-port=0",
            f"--controllers={_CONTROLLERS}", f"--service-account-private-key-file={accounts}",
            "--kube-api-qps=200", "--kube-api-burst=200",
            "--node-monitor-period=1s", "--concurrent-resource-quota-syncs=2",
        )  # fmt: skip
        self._run("kube-scheduler", *common, "--leader-elect=false", "--secure-port=0")
        self._run("kwok", *common, "--manage-all-nodes=true", f"--config={_STAGES}")

    @property
    def certificate(self) -> str:
        """The file that says whom to believe."""
        return f"{self.folder}/certificates/apiserver.crt"

    def stop(self) -> None:
        """End all processes; nobody needs their data any more."""
        for process in reversed(self.processes):
            process.kill()
        for process in self.processes:
            process.wait()
        if hasattr(self, "client"):
            self.client.close()

    def config_of(self, user: str, namespace: str = "") -> Path:
        """A kubeconfig for one of the users."""
        path = self.folder / f"{user}-{namespace or 'any'}.kubeconfig"
        here: dict[str, Any] = {"cluster": "loopback", "user": user}
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "loopback",
                    "contexts": [
                        {"name": "loopback", "context": {**here, **({"namespace": namespace} if namespace else {})}}
                    ],
                    "clusters": [
                        {
                            "name": "loopback",
                            "cluster": {
                                "server": f"https://127.0.0.1:{self.port}",
                                "certificate-authority": self.certificate,
                            },
                        }
                    ],
                    "users": [{"name": user, "user": {"token": self.tokens[user]}}],
                }
            )
        )
        return path

    def token_of(self, account: str, namespace: str) -> str:
        """A token of a service account, as its pods get them."""
        return str(self.core.create_namespaced_service_account_token(account, namespace, {"spec": {}}).status.token)

    def namespace(self, name: str) -> str:
        """Make a namespace, with the account that its pods run as."""
        self.core.create_namespace({"metadata": {"name": name}})
        self.wait(lambda: bool(self.core.list_namespaced_service_account(name).items))
        return name

    def node(self, name: str, cpu: str = "4", memory: str = "8Gi", **more: str) -> None:
        """Make a node, and wait until pods may be placed there."""
        amounts = {"cpu": cpu, "memory": memory, "pods": "110", **more}
        status = {"allocatable": amounts, "capacity": amounts}
        self.core.create_node({"metadata": {"name": name}, "status": status})
        self.wait(lambda: _usable(self.core.read_node(name)))

    def delete_nodes(self) -> None:
        """Delete all nodes, and the pods on them."""
        for node in self.core.list_node().items:
            self.core.delete_node(node.metadata.name)
        for pod in self.core.list_pod_for_all_namespaces().items:
            self.core.delete_namespaced_pod(pod.metadata.name, pod.metadata.namespace, grace_period_seconds=0)
        self.wait(lambda: not self.core.list_node().items)

    def pods(self, namespace: str, phase: str = "") -> list[Any]:
        """Its pods, those in a phase."""
        found = self.core.list_namespaced_pod(namespace).items
        return [pod for pod in found if phase in ("", pod.status.phase)]

    def wait_for_pods(self, namespace: str, number: int, phase: str) -> list[Any]:
        """Wait until exactly so many pods are in a phase."""
        self.wait(lambda: len(self.pods(namespace, phase)) == number)
        return self.pods(namespace, phase)

    def end(self, pod: Any, code: int = 0) -> None:
        """Have a pod end with an exit code."""
        self.core.patch_namespaced_pod(
            pod.metadata.name, pod.metadata.namespace, {"metadata": {"annotations": {EXIT_CODE: str(code)}}}
        )

    def _ready(self) -> bool:
        try:
            return bool(self.core.read_namespace("kube-system") and self.rbac.read_cluster_role("cluster-admin"))
        except (ApiException, HTTPError):
            return False

    def _run(self, name: str, *options: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes.append(
                subprocess.Popen(
                    [program("buoy-kubernetes"), name, *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    cwd=self.folder,
                )
            )  # fmt: skip

    def wait(self, holds: Callable[[], bool], timeout_s: float = _LONGEST_S) -> None:
        """Wait until something holds."""
        ends = time.monotonic() + timeout_s
        while not holds():
            dead = [process.args for process in self.processes if process.poll() is not None]
            if dead or time.monotonic() > ends:
                logs = [f"{log.name}:\n{log.read_text(errors='replace')[-1500:]}" for log in self.folder.glob("*.log")]
                raise AssertionError(f"{'has ended' if dead else 'not within the time'}: {dead}\n" + "\n".join(logs))
            time.sleep(0.05)


class PodPlayer:
    """What a kubelet would do: runs the command of each pod that KWOK has started, with the environment it asks for.

    When the process ends, the pod ends with its code; when the pod is deleted, the process is told to end.

    Args:
        cluster: where the pods are.
        namespace: whose pods are played.
        first: more environment for the first processes, in the order in which they are started.
    """

    def __init__(self, cluster: KubeCluster, namespace: str, *first: dict[str, str]) -> None:
        self._cluster, self._namespace, self._first = cluster, namespace, list(first)
        self._running: dict[str, tuple[Any, subprocess.Popen[bytes]]] = {}
        self.started = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._play)
        self._thread.start()

    def close(self) -> None:
        """Stop, and kill what runs."""
        self._stop.set()
        self._thread.join()
        for _, process in self._running.values():
            process.kill()
            process.wait()

    def _play(self) -> None:
        while not self._stop.wait(0.2):
            pods = {pod.metadata.uid: pod for pod in self._cluster.pods(self._namespace)}
            for uid, pod in pods.items():
                if pod.status.phase == "Running" and not pod.metadata.deletion_timestamp and uid not in self._running:
                    self._running[uid] = pod, self._process(pod)
                    self.started += 1
            for uid, (pod, process) in list(self._running.items()):
                now = pods.get(uid)
                if now is None or now.metadata.deletion_timestamp:
                    process.send_signal(signal.SIGTERM)
                if process.poll() is not None and now is not None and EXIT_CODE not in (now.metadata.annotations or {}):
                    self._end(pod, process.returncode)

    def _end(self, pod: Any, code: int) -> None:
        try:
            self._cluster.end(pod, code if code >= 0 else 128 - code)
        except ApiException as error:
            if error.status != 404:
                raise

    def _process(self, pod: Any) -> subprocess.Popen[bytes]:
        (container,) = pod.spec.containers
        env = {name: os.environ[name] for name in ("PATH", "HOME", "XDG_CACHE_HOME") if name in os.environ}
        for source in container.env_from or []:
            secret = self._cluster.core.read_namespaced_secret(source.secret_ref.name, self._namespace)
            env |= {name: base64.b64decode(value).decode() for name, value in secret.data.items()}
        for each in container.env or []:
            env[each.name] = _field(pod, each.value_from.field_ref.field_path) if each.value_from else each.value
        if self._first:
            env |= self._first.pop(0)
        assert container.command[0] == "python3"
        log = (self._cluster.folder / f"{pod.metadata.name}.pod").open("ab")
        with log:
            return subprocess.Popen([sys.executable, *container.command[1:]], env=env, stdout=log, stderr=log, cwd="/")


@contextmanager
def kube_cluster(folder: Path, *users: str) -> Iterator[KubeCluster]:
    """A cluster for the time of a `with` block; skips the test where it cannot be had."""
    program("buoy-kubernetes")
    cluster = KubeCluster(folder)
    try:
        cluster.start(*users)
        yield cluster
    finally:
        cluster.stop()


def _field(pod: Any, path: str) -> str:
    """What the downward API gives for `metadata.uid` or `metadata.labels['name']`."""
    name, _, key = path.removeprefix("metadata.").partition("[")
    found = getattr(pod.metadata, name)
    return str(found[key.strip("']")] if key else found)


def _usable(node: Any) -> bool:
    ready = any(each.type == "Ready" and each.status == "True" for each in node.status.conditions or [])
    return ready and not node.spec.taints


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _make_key(path: Path) -> None:
    """The pair of keys that tokens of service accounts are signed and checked with."""
    key = ECKey.generate_key("P-256")
    path.write_bytes(key.as_pem(private=True))
    Path(f"{path}.pub").write_bytes(key.as_pem(private=False))
