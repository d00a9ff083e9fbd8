"""What a network is for: how an input becomes tensors, and tensors become findings.

A task has three steps, all pure: `read` (bytes to a sample: a picture, later a sound), `prepare` (a sample to
one or more input tensors of the network's shape, and what is needed to map back), and `decode` (the output
tensors of those runs to findings). A classifier decodes scores, a tiled task prepares many tensors and
merges them; the model around them stays the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from buoy.errors import ManifestError, UsageError
from buoy.session import Shape, Tensor, Tensors

if TYPE_CHECKING:
    from buoy.image import Sample
    from buoy.manifest import Manifest

__all__ = ["PLANNED", "TASKS", "Prepared", "Task", "Thresholds", "make_task"]


@dataclass(frozen=True)
class Thresholds:
    """What a caller may set for one input; the manifest has the defaults. Both from 0 to 1."""

    score: float
    iou: float

    def __post_init__(self) -> None:
        """Refuse values outside 0-1, NaN included."""
        for name in ("score", "iou"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise UsageError(f"{name} is {value}", "give a number from 0 to 1")


class Prepared(NamedTuple):
    """Input tensors of the network, and what `decode` needs to map their outputs back to the sample."""

    tensors: Sequence[Tensor]
    context: Any


class Task(Protocol):
    """One kind of work, set up from a manifest."""

    #: The key under which the findings stand in a result.
    findings: str

    def check(self, inputs: Shape, outputs: dict[str, Shape]) -> None:
        """Refuse a network whose tensors do not fit the manifest.

        Raises:
            ManifestError: sizes differ, or the number of classes is not the output's width.
        """
        ...

    def read(self, data: bytes) -> Sample:
        """Bytes of an input file to a sample.

        Raises:
            InputError: they cannot be read.
        """
        ...

    def prepare(self, sample: Sample) -> Prepared:
        """A sample to input tensors."""
        ...

    def decode(self, outputs: Sequence[Tensors], context: Any, thresholds: Thresholds) -> list[Any]:
        """Output tensors, one set for each input tensor, to findings in a fixed order."""
        ...

    def parameters(self, thresholds: Thresholds) -> dict[str, Any]:
        """The thresholds and sizes that a run with these thresholds really uses."""
        ...


#: Name of the task to the module that has its class, loaded when a model needs it.
TASKS = {"detect": "buoy.tasks.detect:Detect"}

#: Named in notes and exporters, and not here yet.
PLANNED = ("classify", "segment", "obb")


def make_task(manifest: Manifest) -> Task:
    """Set up the task that a manifest names.

    Raises:
        ManifestError: no such task.
    """
    if manifest.task not in TASKS:
        raise ManifestError(f"{manifest.name}: unknown task {manifest.task!r}", f"known: {', '.join(TASKS)}")
    module, _, name = TASKS[manifest.task].partition(":")
    task: Task = getattr(import_module(module), name)(manifest)
    return task
