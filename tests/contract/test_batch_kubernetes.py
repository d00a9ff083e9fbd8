"""The Kubernetes engine of `buoy batch` against a real API server, with its real controllers and scheduler."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import utils

from batch.checker import faults_of_run
from buoy.batch.area import Area, open_area
from buoy.batch.engines.kube_api import Forbidden, KubeApi
from buoy.batch.engines.kube_job import PilotJob
from buoy.batch.engines.kubernetes import KubernetesEngine
from buoy.batch.naming import place_of
from buoy.errors import JobError, UsageError
from buoy.manifest import Needs
from support.batch import BatchRun, make_source
from support.kube import KubeCluster, PodPlayer, kube_cluster
from support.minio import MinioServer
from support.need import CHECKOUT
from support.tiny import make_model

_NUMBERS = count(1)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeCluster]:
    with kube_cluster(tmp_path_factory.mktemp("kubernetes"), "marta") as running:
        yield running


@pytest.fixture
def namespace(cluster: KubeCluster) -> Iterator[str]:
    name = cluster.namespace(f"sea-{next(_NUMBERS)}")
    yield name
    cluster.core.delete_namespace(name)
    cluster.delete_nodes()


@pytest.fixture
def engine(cluster: KubeCluster, namespace: str, monkeypatch: pytest.MonkeyPatch) -> KubernetesEngine:
    return make(cluster, namespace, monkeypatch)


def make(cluster: KubeCluster, namespace: str, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> KubernetesEngine:
    """An engine as a coordinator that begins now has it."""
    user = changes.pop("user", "admin")
    monkeypatch.setenv("KUBECONFIG", str(cluster.config_of(user)))
    return KubernetesEngine(KubeApi(namespace), a_job(**changes), fresh_s=0.0)


def a_job(**changes: Any) -> PilotJob:
    return PilotJob(
        **{
            "out": "s3://results/fish",
            "run": "tiny-0123456789",
            "image": "registry.example.org/buoy/tiny:1",
            "needs": Needs(cpu=1.0, memory="1Gi"),
            "budget_s": 1500.0,
            "secret": "buoy-batch",
            **changes,
        }
    )


@pytest.fixture
def run(
    cluster: KubeCluster, namespace: str, minio_server: MinioServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> BatchRun:
    """A run over 60 pictures in a bucket, by the account of the example that we give, with no more rights than that."""
    store = {
        "BUOY_S3_ENDPOINT": minio_server.endpoint,
        "BUOY_S3_ACCESS_KEY": minio_server.access_key,
        "BUOY_S3_SECRET_KEY": minio_server.secret_key,
    }
    for name, value in store.items():
        monkeypatch.setenv(name, value)
    bucket = f"batch-{namespace}"
    area = open_bucket(bucket)
    source = make_source(tmp_path / "source", 60, bad_every=20)
    for path in sorted(source.rglob("*.png")):
        area.put(f"in/{path.relative_to(source)}", path.read_bytes())
    install(cluster, namespace, store)
    cluster.tokens["coordinator"] = cluster.token_of("buoy-batch", namespace)
    return BatchRun(
        make_model(tmp_path),
        f"s3://{bucket}/in/",
        f"s3://{bucket}/out",
        env={"KUBECONFIG": str(cluster.config_of("coordinator", namespace))},
        options=("--engine", "kubernetes", "--image", "registry.example.org/buoy/tiny-batch:1", "--workers", "2"),
    )


def install(cluster: KubeCluster, namespace: str, store: dict[str, str]) -> None:
    """What services/batch/kubernetes.yaml says, in a namespace of the tests and with their store."""
    text = (CHECKOUT / "services" / "batch" / "kubernetes.yaml").read_text()
    text = text.replace("namespace: sea", f"namespace: {namespace}").replace("buoy-batch-nodes", f"{namespace}-nodes")
    documents = list(yaml.safe_load_all(text))
    documents[0]["stringData"] = store
    for document in documents:
        utils.create_from_dict(cluster.client, document)


def open_bucket(bucket: str) -> Area:
    store = open_area(f"s3://{bucket}/").store
    store.create_bucket(bucket)
    return Area(store, bucket)


def jobs(cluster: KubeCluster, namespace: str) -> list[Any]:
    return list(cluster.batch.list_namespaced_job(namespace).items)


def player(cluster: KubeCluster, namespace: str, *first: dict[str, str]) -> AbstractContextManager[PodPlayer]:
    return closing(PodPlayer(cluster, namespace, *first))


def pilots_of(pods: list[Any]) -> list[str]:
    """The names of the pilots that run there, as they make them themselves."""
    return [f"{place_of(pod.metadata.uid)}.1.170000.0000abcd" for pod in pods]


def test_pilots_are_the_indexes_of_a_job_that_the_strictest_cluster_takes(
    cluster: KubeCluster, namespace: str, engine: KubernetesEngine
) -> None:
    cluster.core.patch_namespace(
        namespace, {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    )
    cluster.node("reef")
    engine.submit(3)
    pods = cluster.wait_for_pods(namespace, 3, "Running")
    (job,) = jobs(cluster, namespace)
    assert (job.spec.completion_mode, job.spec.completions, job.spec.parallelism) == ("Indexed", 3, 3)
    assert job.spec.backoff_limit_per_index == 3
    assert job.spec.ttl_seconds_after_finished > 0
    (rule,) = job.spec.pod_failure_policy.rules
    assert (rule.action, rule.on_pod_conditions[0].type) == ("Ignore", "DisruptionTarget")
    (container,) = pods[0].spec.containers
    assert container.command == [
        "python3", "-m", "buoy.batch.work", "s3://results/fish", "tiny-0123456789", "--budget", "1500",
    ]  # fmt: skip
    assert container.resources.requests == container.resources.limits == {"cpu": "1", "memory": "1Gi"}
    assert container.env_from[0].secret_ref.name == "buoy-batch"
    assert engine.alive() == 3


def test_another_coordinator_finds_the_pilots_of_the_one_before(
    cluster: KubeCluster, namespace: str, engine: KubernetesEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.node("reef")
    engine.submit(2)
    other = make(cluster, namespace, monkeypatch)
    assert other.alive() == 2
    other.submit(1)
    assert [job.metadata.name[-2:] for job in jobs(cluster, namespace)] == ["-1", "-2"]
    assert engine.alive() == 3
    elsewhere = make(cluster, namespace, monkeypatch, out="s3://results/other")
    assert elsewhere.alive() == 0


def test_two_coordinators_that_see_the_same_create_the_same(
    cluster: KubeCluster, namespace: str, engine: KubernetesEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make(cluster, namespace, monkeypatch)
    seen = other._jobs()
    monkeypatch.setattr(other, "_jobs", lambda: seen)
    engine.submit(2)
    other.submit(2)
    assert len(jobs(cluster, namespace)) == 1
    assert engine.alive() == 2


def test_pilots_that_have_ended_are_not_alive_and_others_take_their_place(
    cluster: KubeCluster, namespace: str, engine: KubernetesEngine
) -> None:
    cluster.node("reef")
    engine.submit(3)
    pods = cluster.wait_for_pods(namespace, 3, "Running")
    names = pilots_of(pods)
    assert engine.dead(names) == []
    cluster.end(pods[0])
    cluster.wait(lambda: engine.alive() == 2)
    assert engine.dead(names) == names[:1]
    engine.submit(1)
    cluster.wait_for_pods(namespace, 3, "Running")
    assert engine.alive() == 3


def test_a_pilot_that_crashed_or_whose_node_went_away_is_replaced_without_a_coordinator(
    cluster: KubeCluster, namespace: str, engine: KubernetesEngine
) -> None:
    """Takes as long as Kubernetes waits before it does that: ten seconds."""
    cluster.node("reef")
    engine.submit(2)
    first, second = cluster.wait_for_pods(namespace, 2, "Running")
    names = pilots_of([first, second])
    assert engine.dead(names) == []
    cluster.core.create_namespaced_pod_eviction(
        first.metadata.name, namespace, {"metadata": {"name": first.metadata.name, "namespace": namespace}}
    )
    cluster.end(second, 139)
    cluster.wait(lambda: engine.dead(names) == names)
    assert engine.alive() == 2, "they will be started again"
    cluster.wait_for_pods(namespace, 2, "Running")
    cluster.wait(lambda: not any(pod.metadata.finalizers for pod in cluster.pods(namespace, "Failed")))
    cluster.wait(lambda: not has_uncounted(jobs(cluster, namespace)[0]))
    assert jobs(cluster, namespace)[0].status.failed == 1, "a disruption is not counted"
    assert engine.dead(names) == names


def has_uncounted(job: Any) -> bool:
    """Whether pods have ended that are not yet among those that the job counts."""
    uncounted = job.status.uncounted_terminated_pods
    return bool(uncounted and (uncounted.failed or uncounted.succeeded))


def test_room_is_counted_node_by_node_from_what_pods_have_asked_for(
    cluster: KubeCluster, namespace: str, engine: KubernetesEngine
) -> None:
    assert engine.fit().pilots == 0
    assert engine.fit().why == "no node is ready and takes pods"
    cluster.node("reef", cpu="4", memory="8Gi")
    cluster.node("harbour", cpu="1", memory="64Gi")
    cluster.node("drained", cpu="64", memory="64Gi")
    cluster.core.patch_node("drained", {"spec": {"unschedulable": True}})
    assert engine.fit().pilots == 5
    asked = {"requests": {"cpu": "1500m", "memory": "1Gi"}}
    cluster.core.create_namespaced_pod(
        namespace,
        {
            "metadata": {"name": "other"},
            "spec": {"nodeName": "reef", "containers": [{"name": "other", "image": "other", "resources": asked}]},
        },
    )
    assert engine.fit().pilots == 3, "2 on the reef, 1 in the harbour"
    engine.submit(2)
    cluster.wait_for_pods(namespace, 3, "Running")
    assert engine.fit().pilots == 3, "its own pilots are counted in"


def test_a_quota_of_the_namespace_limits_too(cluster: KubeCluster, namespace: str, engine: KubernetesEngine) -> None:
    cluster.node("reef", cpu="32", memory="64Gi")
    # Of 32 places a tenth is left to others; pods of another test, on a node of this name, may be there for a moment.
    cluster.wait(lambda: engine.fit().pilots == 29)
    cluster.core.create_namespaced_resource_quota(
        namespace, {"metadata": {"name": "team"}, "spec": {"hard": {"requests.cpu": "5", "limits.memory": "3584Mi"}}}
    )
    cluster.wait(lambda: bool(cluster.core.read_namespaced_resource_quota("team", namespace).status.used))
    assert engine.fit().pilots == 3
    assert engine.fit().why == "a quota leaves no more memory"
    engine.submit(2)
    cluster.wait_for_pods(namespace, 2, "Running")
    cluster.wait(
        lambda: cluster.core.read_namespaced_resource_quota("team", namespace).status.used["requests.cpu"] == "2"
    )
    assert engine.fit().pilots == 3


def test_a_gpu_is_asked_for_where_the_model_needs_one(
    cluster: KubeCluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make(cluster, namespace, monkeypatch, needs=Needs(cpu=1.0, memory="1Gi", gpu=True))
    cluster.node("reef", cpu="32", memory="64Gi")
    assert engine.fit() == (0, "nvidia.com/gpu is what 1 of 1 nodes are short of")
    cluster.node("deep", cpu="32", memory="64Gi", **{"nvidia.com/gpu": "2"})
    assert engine.fit().pilots == 2
    engine.submit(2)
    assert {pod.spec.node_name for pod in cluster.wait_for_pods(namespace, 2, "Running")} == {"deep"}


def test_in_a_pod_the_account_of_the_pod_is_used_and_what_it_may_not_see_sets_no_limit(
    cluster: KubeCluster, namespace: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(cluster, namespace, {})
    cluster.rbac.delete_cluster_role_binding(f"{namespace}-nodes")
    (tmp_path / "token").write_text(cluster.token_of("buoy-batch", namespace))
    (tmp_path / "namespace").write_text(namespace)
    monkeypatch.setattr("buoy.batch.engines.kube_api._ACCOUNT", tmp_path)
    monkeypatch.setattr("kubernetes.config.incluster_config.SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr("kubernetes.config.incluster_config.SERVICE_CERT_FILENAME", cluster.certificate)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(cluster.port))
    engine = KubernetesEngine(KubeApi(), a_job(), fresh_s=0.0)
    assert engine.fit().pilots > 1000
    cluster.core.create_namespaced_resource_quota(
        namespace, {"metadata": {"name": "team"}, "spec": {"hard": {"count/pods": "4"}}}
    )
    cluster.wait(lambda: bool(cluster.core.read_namespaced_resource_quota("team", namespace).status.used))
    assert engine.fit() == (4, "a quota leaves no more pods")
    cluster.node("reef")
    engine.submit(1)
    cluster.wait_for_pods(namespace, 1, "Running")
    engine.cancel()
    cluster.wait(lambda: cluster.pods(namespace) == [])


def test_what_pods_wait_for_is_told(cluster: KubeCluster, namespace: str, engine: KubernetesEngine) -> None:
    assert engine.trouble().startswith("; see: kubectl describe jobs")
    engine.submit(2)
    cluster.wait(lambda: engine.trouble() == ": no nodes available to schedule pods")
    pod = cluster.pods(namespace)[0]
    state = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    told = {"name": "pilot", "image": "x", "imageID": "", "ready": False, "restartCount": 0, "state": state}
    cluster.core.patch_namespaced_pod_status(pod.metadata.name, namespace, {"status": {"containerStatuses": [told]}})
    assert engine.trouble() == ": ImagePullBackOff no such image; no nodes available to schedule pods"
    assert engine.alive() == 2


def test_a_quota_of_jobs_is_waited_for(cluster: KubeCluster, namespace: str, engine: KubernetesEngine) -> None:
    cluster.core.create_namespaced_resource_quota(
        namespace, {"metadata": {"name": "team"}, "spec": {"hard": {"count/jobs.batch": "0"}}}
    )
    cluster.wait(lambda: bool(cluster.core.read_namespaced_resource_quota("team", namespace).status.used))
    with pytest.raises(JobError, match="exceeded quota: team") as refused:
        engine.submit(1)
    assert refused.value.retry


def test_a_cluster_that_does_not_answer_is_waited_for(
    cluster: KubeCluster, namespace: str, engine: KubernetesEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "port", 1)
    with pytest.raises(JobError, match="is the cluster reachable") as refused:
        make(cluster, namespace, monkeypatch).alive()
    assert refused.value.retry


def test_a_name_that_was_never_seen_here_is_left_to_its_lease(engine: KubernetesEngine) -> None:
    assert engine.dead(["podffffffffffffffff.1.170000.0000abcd", "laptop.4711.170000.0000abcd"]) == []


def test_cancelling_deletes_the_jobs_and_the_pods(
    cluster: KubeCluster, namespace: str, engine: KubernetesEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.node("reef")
    other = make(cluster, namespace, monkeypatch, run="tiny-9876543210")
    engine.submit(2)
    engine.submit(1)
    other.submit(1)
    cluster.wait_for_pods(namespace, 4, "Running")
    engine.cancel()
    cluster.wait(lambda: len(cluster.pods(namespace)) == 1)
    assert engine.alive() == 0
    assert other.alive() == 1


def test_there_is_no_cluster_without_a_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="KUBECONFIG"):
        KubeApi()


def test_who_may_not_create_jobs_is_told_so(
    cluster: KubeCluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = make(cluster, namespace, monkeypatch, user="marta")
    with pytest.raises(Forbidden, match="marta"):
        stranger.alive()


def test_a_run_on_kubernetes_has_every_object_once_though_pods_and_coordinator_were_killed(
    cluster: KubeCluster, namespace: str, run: BatchRun
) -> None:
    """Takes as long as Kubernetes waits before it starts again what has crashed: ten seconds."""
    cluster.node("reef")
    known = json.loads(run.run("--dry-run", "--json").stdout)["found"]
    assert (known["workers"], known["workers_that_fit"]) == (2, 2)
    run.plan(*range(0, 60, 5), 60)
    with player(
        cluster, namespace, {"BUOY_FAILPOINT": "pilot.attempt:2"}, {"BUOY_FAILPOINT": "pilot.attempt:3"}
    ) as pods:
        coordinator = run.start()
        cluster.wait_for_pods(namespace, 2, "Failed")
        coordinator.kill()
        coordinator.communicate()
        assert len(run.ledger.names("fin/")) == 3
        ended = run.run("--json")
        assert ended.returncode == 3, ended.stderr
        assert pods.started in (3, 4)
    assert faults_of_run(run, 60) == []
    assert run.report()["counts"] == {"failed": 3, "ok": 57}
    assert len(jobs(cluster, namespace)) == 1, "Kubernetes has replaced the pods, not the coordinator"


def test_a_run_on_kubernetes_is_resumed_there_waits_for_room_and_is_cancelled_without_a_coordinator(
    cluster: KubeCluster, namespace: str, run: BatchRun
) -> None:
    found = run.run("--dry-run")
    assert "on Kubernetes" in found.stderr
    assert "room for 0 of 2 workers: no node is ready and takes pods" in found.stderr
    run.plan(*range(0, 60, 5), 60)
    told = run.start("--json")
    assert told.stdout is not None
    wait = '"waits": "room for 0 of 2 workers: no node is ready and takes pods"'
    assert any(wait in line for line in told.stdout)
    told.kill()
    told.communicate()
    assert run.say("pause", run.out).returncode == 0
    assert jobs(cluster, namespace) == []
    command = subprocess.Popen(run.command("resume", run.out), env=run.environ(), stderr=subprocess.PIPE)
    cluster.node("reef")
    cluster.wait_for_pods(namespace, 2, "Running")
    command.kill()
    command.communicate()
    cancelled = run.say("cancel", run.out)
    assert cancelled.returncode == 0, cancelled.stderr
    cluster.wait(lambda: cluster.pods(namespace) == [])
    assert jobs(cluster, namespace) == []
