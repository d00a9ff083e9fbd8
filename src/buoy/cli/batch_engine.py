"""Which engine runs the workers of a run, as options of the command line, and as the run remembers it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from buoy.cli.batch_terminal import log_of
from buoy.errors import JobError, UsageError

if TYPE_CHECKING:
    from buoy.batch.area import Home
    from buoy.batch.engines import PilotEngine
    from buoy.batch.fit import Fit
    from buoy.batch.ledger import Ledger
    from buoy.batch.spec import Spec
    from buoy.manifest import Needs

__all__ = ["Choice", "Crew", "choose", "crew_of", "engine_options", "last_choice", "open_engine", "share_of"]

#: As it stands in the ledger: `kind`, and what that kind needs.
Choice = dict[str, str]

#: Workers of a cluster that have no other end: after so long, others may have the place.
_BUDGET_S = 1500.0


_OPTIONS = (
    click.option(
        "--engine", type=click.Choice(["local", "kubernetes", "oscar"]), default="local", show_default=True,
        help="What runs the workers.",
    ),
    click.option("--image", envvar="BUOY_BATCH_IMAGE", default="", help="On Kubernetes: of the pods."),
    click.option(
        "--namespace", envvar="BUOY_BATCH_NAMESPACE", default="", help="On Kubernetes.  [default: the context's]"
    ),
    click.option(
        "--service", envvar="BUOY_BATCH_SERVICE", default="", help="On OSCAR: that runs them.  [default: MODEL-batch]"
    ),
    click.option(
        "--cluster", envvar="BUOY_BATCH_CLUSTER", default="",
        help="An OSCAR that oscar-cli knows.  [default: BUOY_URL, else oscar-cli's default]",
    ),
)  # fmt: skip


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that `choose` takes."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def choose(engine: str, image: str, namespace: str, service: str, cluster: str) -> Choice:
    """What the options say.

    Raises:
        UsageError: something is missing.
    """
    if engine == "local":
        return {"kind": engine}
    if engine == "oscar":
        return {"kind": engine, "service": service, "cluster": cluster}
    if not image:
        raise UsageError("no image for the pods", "give --image; it is made by: scripts/image MODEL batch")
    named = {name: os.environ.get(f"BUOY_BATCH_{name.upper()}", "") for name in ("secret", "account")}
    return {"kind": engine, "image": image, "namespace": namespace, **named}


def last_choice(ledger: Ledger) -> Choice:
    """The engine of the coordinator before; this machine, if there was none."""
    from buoy.batch.layout import chain_key

    record = ledger.read(chain_key("coord", ledger.last("coord")))
    return Choice((record or {}).get("engine") or {"kind": "local"})


def open_engine(choice: Choice, spec: Spec, home: Home, pilots: int) -> PilotEngine:
    """The engine for a run.

    Raises:
        UsageError: what it needs is not installed, or is not found.
    """
    if choice["kind"] == "oscar":
        _check_places(spec, home)
        return _oscar(choice, spec, home)
    if choice["kind"] == "kubernetes":
        _check_places(spec, home)
        from buoy.batch.engines.kube_api import KubeApi
        from buoy.batch.engines.kube_job import PilotJob
        from buoy.batch.engines.kubernetes import KubernetesEngine

        job = PilotJob(
            out=home.where,
            run=spec.run,
            image=choice["image"],
            needs=_needs(spec),
            budget_s=_BUDGET_S,
            secret=choice["secret"] or "buoy-batch",
            account=choice["account"],
        )
        return KubernetesEngine(KubeApi(choice["namespace"]), job, fresh_s=spec.pace.look_s)
    from buoy.batch.engines.local import LocalEngine

    return LocalEngine(home.where, spec.run, pilots, log_of(spec.run))


def _check_places(spec: Spec, home: Home) -> None:
    for place in (spec.source, home.where):
        if not place.startswith("s3://"):
            raise UsageError(f"{place}: pods cannot reach it", "use s3://bucket/prefix for the source and for --out")


def _oscar(choice: Choice, spec: Spec, home: Home) -> PilotEngine:
    from buoy.batch.engines.oscar import Beats, OscarEngine
    from buoy.batch.engines.oscar_api import OscarApi, find_cluster
    from buoy.batch.pointer import Pointer
    from buoy.batch.run import open_ledger

    ledger, needs = open_ledger(home, spec.run), _needs(spec)

    def beats() -> Beats:
        gone = [each.key.removeprefix("gone/") for each in ledger.names("gone/")]
        return Beats({each.key.removeprefix("hb/"): each.etag for each in ledger.names("hb/")}, gone)

    api = OscarApi(find_cluster(choice["cluster"]), choice["service"] or f"{spec.model.name}-batch")
    pilot = Pointer(home.where, spec.run, "", None if spec.pace.budget_s else _BUDGET_S, needs.cpu)
    return OscarEngine(api, pilot, needs, beats, fresh_s=3 * spec.pace.look_s)


def share_of(choice: Choice, spec: Spec, cores: int, pilots: int) -> float:
    """How many times longer than a machine with so many cores, all of them, one of the pilots takes."""
    return pilots if choice["kind"] == "local" else cores / _needs(spec).cpu


class Crew(NamedTuple):
    """The workers that a run may have now."""

    fit: Fit
    #: So many times longer than the whole of this machine do they take: as many as fit, one at least.
    longer: float
    #: For people.
    where: str


def crew_of(choice: Choice, spec: Spec, home: Home, cores: int, pilots: int) -> Crew:
    """For how many workers there is room; for none, and why, if the engine does not answer.

    Raises:
        UsageError: what the engine needs is not installed, or is not found.
    """
    from buoy.batch.fit import Fit

    try:
        fit = open_engine(choice, spec, home, pilots).fit()
    except JobError as error:
        fit = Fit(0, str(error))
    if choice["kind"] == "local":
        return Crew(fit, 1.0, "here")
    where = {"kubernetes": "on Kubernetes", "oscar": "on OSCAR"}[choice["kind"]]
    return Crew(fit, share_of(choice, spec, cores, pilots) / max(1, min(pilots, fit.pilots)), where)


def _needs(spec: Spec) -> Needs:
    from buoy.batch.spec import check_model
    from buoy.manifest import Manifest

    return Manifest.load(check_model(spec.model)).needs
