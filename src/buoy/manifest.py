"""A model folder's `manifest.yaml`: everything that running the model needs to know about it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml
from msgspec import UNSET, Meta, Struct, UnsetType

from buoy.errors import ManifestError

__all__ = [
    "FILE_NAME",
    "ClassLabel",
    "InputSpec",
    "Manifest",
    "Needs",
    "OutputSpec",
    "Run",
    "Source",
    "Weights",
    "json_schema",
]

FILE_NAME = "manifest.yaml"

#: Names of models become services, buckets, images and Kubernetes objects. OSCAR cuts service names of 25
#: characters and more when it names jobs (grycap/oscar pkg/handlers/job.go); 18 leaves room for `-batch`.
NAME_PATTERN = r"^[a-z]([a-z0-9-]{0,16}[a-z0-9])?$"

Name = Annotated[str, Meta(pattern=NAME_PATTERN, description="lower-case letters, digits, hyphens; at most 18")]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$", description="64 hexadecimal digits, lower case")]
Side = Annotated[int, Meta(ge=16, le=8192)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Triple = tuple[float, float, float]


class _Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Unknown keys are errors in every section."""


class Weights(_Section, frozen=True):
    """Where the network is, and the proof that it is that one."""

    file: Annotated[str, Meta(pattern=r"^[^/\\]+\.onnx$", description="an ONNX file in the model's folder")]
    sha256: Sha256
    url: str | UnsetType = UNSET


class InputSpec(_Section, frozen=True):
    """How a picture becomes the network's input tensor: (x / scale - mean) / std."""

    size: Annotated[tuple[Side, Side], Meta(description="height, width of the network's input, pixels")]
    fit: Literal["letterbox", "stretch"] = "letterbox"
    decode: Annotated[
        Literal["full", "reduced"], Meta(description="reduced: large JPEGs at a half to an eighth; changes results")
    ] = "full"
    colour: Literal["rgb", "bgr"] = "rgb"
    scale: Annotated[float, Meta(gt=0)] = 255.0
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)
    layout: Literal["nchw", "nhwc"] = "nchw"


class OutputSpec(_Section, frozen=True):
    """How the network's output tensors become findings."""

    layout: Literal["yolov8"] = "yolov8"
    score: Fraction = 0.25
    iou: Fraction = 0.45
    max_detections: Annotated[int, Meta(ge=1, le=10000)] = 300


class ClassLabel(_Section, frozen=True):
    """One class with its identifiers in taxonomic registers, such as `aphia_id` of WoRMS."""

    label: Annotated[str, Meta(min_length=1)]
    taxon: dict[str, int | str] | UnsetType = UNSET


class Needs(_Section, frozen=True):
    """What one running instance takes of a machine."""

    cpu: Annotated[float, Meta(gt=0, le=256)] = 1.0
    memory: Annotated[str, Meta(pattern=r"^[0-9]+(Mi|Gi)$")] = "2Gi"
    gpu: bool = False


class Run(_Section, frozen=True):
    """How the network is run where many pictures come; what is absent is measured on the machine."""

    callers: Annotated[int, Meta(ge=1, le=256, description="runs of the network at once")] | UnsetType = UNSET
    threads: Annotated[int, Meta(ge=1, le=256, description="threads within one run")] | UnsetType = UNSET
    batch: Annotated[int, Meta(ge=1, le=256, description="pictures in one run, at the most")] | UnsetType = UNSET


class Source(_Section, frozen=True):
    """Where the weights come from and whom to cite."""

    title: str
    url: str | UnsetType = UNSET
    doi: str | UnsetType = UNSET
    cite: str | UnsetType = UNSET
    data: str | UnsetType = UNSET


class Manifest(_Section, frozen=True, kw_only=True):
    """One model, as its folder describes it."""

    name: Name
    version: Annotated[str, Meta(pattern=r"^[0-9]+(\.[0-9]+)*([a-z0-9.+-]*)$")]
    task: Literal["detect"]
    maturity: Literal["demo", "published"]
    title: str
    weights: Weights
    input: InputSpec
    output: OutputSpec = OutputSpec()
    classes: Annotated[list[Annotated[str, Meta(min_length=1)] | ClassLabel], Meta(min_length=1)]
    needs: Needs = Needs()
    run: Run = Run()
    source: Source
    licence: Annotated[str, Meta(min_length=1, description="licence of the weights, as an SPDX name")]

    @classmethod
    def load(cls, folder: Path | str) -> Manifest:
        """Read and check the manifest of a model folder.

        Raises:
            ManifestError: the file is absent or wrong; the message lists every fault with its line.
        """
        path = Path(folder) / FILE_NAME
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise ManifestError(
                f"{path}: no such file", "a model folder holds one; start with: buoy new NAME"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise ManifestError(f"{path}: cannot be read: {error}", "it must be UTF-8 text") from error
        try:
            manifest = msgspec.convert(yaml.load(text, Loader=_loader()), type=cls, str_keys=True)
        except (msgspec.ValidationError, yaml.YAMLError):
            manifest = None
        if manifest is not None and len(set(manifest.labels)) == len(manifest.labels):
            return manifest
        # The way above stops at the first fault. Finding all of them costs more: only a bad file pays for it.
        from buoy.manifest_lint import explain

        raise explain(path, text, json_schema())

    @property
    def labels(self) -> list[str]:
        """The classes' labels, in the order of the network's outputs."""
        return [entry if isinstance(entry, str) else entry.label for entry in self.classes]

    @property
    def taxa(self) -> list[dict[str, int | str] | UnsetType]:
        """The classes' taxon identifiers, in the same order."""
        return [UNSET if isinstance(entry, str) else entry.taxon for entry in self.classes]


#: Made here, as msgspec (0.22) learns a type with its first use, and two threads that do so at once end the process.
_learned = msgspec.json.Decoder(Manifest)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a manifest, for editors; committed as schemas/manifest.schema.json."""
    return msgspec.json.schema(Manifest)


def _loader() -> type[yaml.SafeLoader]:
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)
