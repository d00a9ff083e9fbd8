"""The Job of some pilots, as a document, and what its status says. Pure."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

from buoy.batch.naming import PLACE
from buoy.manifest import Needs

__all__ = ["PilotJob", "ended", "unfinished", "waiting"]

#: A pilot that ended badly is started again so often by Kubernetes, waiting longer each time.
_AGAIN = 3
#: What has ended is kept for so long, for its logs.
_KEEP_S = 1800
#: A pilot finishes the picture it has in hand when its pod is told to go.
_GRACE_S = 30
_GPU = "nvidia.com/gpu"


class PilotJob(NamedTuple):
    """What all Jobs of a run have in common.

    `backoffLimitPerIndex` and the rule about disruptions let Kubernetes replace a pilot that crashed, or whose node
    went away, though no coordinator lives. The rest is what the strictest of the pod security standards asks for.
    """

    out: str
    run: str
    image: str
    needs: Needs
    #: After so long a pilot takes no more work; `None` if the run itself says it.
    budget_s: float | None
    #: Names of the Secret with what pilots reach the store by, and of their service account.
    secret: str
    account: str = ""

    @property
    def label(self) -> str:
        """Tells the run's Jobs from all others: the same run may go to two places."""
        return f"{self.run[-32:].strip('-')}-{hashlib.sha256(self.out.encode()).hexdigest()[:8]}"

    @property
    def selector(self) -> str:
        """Finds the run's Jobs and pods."""
        return f"app.kubernetes.io/name=buoy-batch,buoy/run={self.label}"

    def name(self, number: int) -> str:
        """Of the run's Job of that number: two coordinators that count the same create the same one."""
        return f"buoy-{self.label}-{number}"

    def number(self, name: str) -> int:
        """Of a Job of the run, by its name."""
        return int(name.rpartition("-")[2])

    def document(self, number: int, pilots: int) -> dict[str, Any]:
        """The Job number `number`, of so many pilots."""
        labels = {"app.kubernetes.io/name": "buoy-batch", "buoy/run": self.label}
        told = {"buoy/out": self.out, "buoy/run": self.run}
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": self.name(number), "labels": labels, "annotations": told},
            "spec": {
                "completionMode": "Indexed",
                "completions": pilots,
                "parallelism": pilots,
                "backoffLimitPerIndex": _AGAIN,
                "ttlSecondsAfterFinished": _KEEP_S,
                "podFailurePolicy": {
                    "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
                },
                "template": {"metadata": {"labels": labels, "annotations": told}, "spec": self._pod()},
            },
        }

    @property
    def requests(self) -> dict[str, str]:
        """What one pilot asks for, as Kubernetes writes it."""
        asked = {"cpu": f"{round(self.needs.cpu * 1000)}m", "memory": self.needs.memory}
        return {**asked, _GPU: "1"} if self.needs.gpu else asked

    def _pod(self) -> dict[str, Any]:
        command = ["python3", "-m", "buoy.batch.work", self.out, self.run]
        if self.budget_s is not None:
            command += ["--budget", f"{self.budget_s:g}"]
        pod: dict[str, Any] = {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": _GRACE_S,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "pilot",
                    "image": self.image,
                    "command": command,
                    "envFrom": [{"secretRef": {"name": self.secret}}],
                    "env": [{"name": PLACE, "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}],
                    # limits too: a pilot takes as many threads as its quota of processors lets it
                    "resources": {"requests": self.requests, "limits": self.requests},
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                }
            ],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        }
        return {**pod, "serviceAccountName": self.account} if self.account else pod


def unfinished(job: dict[str, Any]) -> int:
    """The pilots of a Job that run, or are about to, or wait for being started again."""
    status = job.get("status") or {}
    if any(
        each["type"] in ("Complete", "Failed") and each["status"] == "True" for each in status.get("conditions") or []
    ):
        return 0
    failed = sum(_width(each) for each in (status.get("failedIndexes") or "").split(",") if each)
    return max(0, int(job["spec"]["completions"]) - int(status.get("succeeded") or 0) - failed)


def ended(pod: dict[str, Any]) -> bool:
    """Whether nothing of the pod runs any more."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def waiting(pod: dict[str, Any]) -> str:
    """Why a pod has not begun: no place, no image; empty if it runs, has ended, or is being started."""
    status = pod.get("status") or {}
    if status.get("phase") != "Pending":
        return ""
    for container in status.get("containerStatuses") or []:
        state = (container.get("state") or {}).get("waiting") or {}
        if state.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return f"{state['reason']} {state.get('message', '')}".strip()
    placed = [each for each in status.get("conditions") or [] if each["type"] == "PodScheduled"]
    return next((each.get("message", "") for each in placed if each["status"] == "False"), "")


def _width(text: str) -> int:
    """How many indexes `3` or `3-5` are."""
    first, _, last = text.partition("-")
    return int(last or first) - int(first) + 1
