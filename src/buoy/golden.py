"""A model folder's sample pictures and the results that are expected of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from buoy.errors import InputError, ManifestError
from buoy.model import Model
from buoy.outputs import FORMATS, save
from buoy.results import Result, decode_record

__all__ = ["EXPECTED", "Found", "differences", "pictures", "write_expected", "written_in"]

#: In a model folder; beside it the pictures.
EXPECTED = Path("sample") / "expected.json"

#: Other processors and other versions of the runtime sum in another order: a result may move by this much.
_SCORE_TOLERANCE = 0.02
_BOX_TOLERANCE = 0.005  # of the picture's longer side


class Found(Struct, frozen=True, forbid_unknown_fields=True):
    """One expected detection."""

    label: str
    score: float
    box: tuple[float, float, float, float]


def pictures(folder: Path) -> list[Path]:
    """The sample pictures of a model folder, by name."""
    kinds = (".jpg", ".png", ".tif", ".webp")
    return sorted(path for path in (folder / EXPECTED.parent).glob("*") if path.suffix in kinds)


def write_expected(model: Model, folder: Path) -> None:
    """Run the model over its samples and keep the results as the expected ones."""
    entries = []
    for path in pictures(folder):
        found = ",".join(f"\n    {msgspec.json.encode(each).decode()}" for each in _found(model.predict(path)))
        entries.append(f'\n  "{path.name}": [{found}]')
    save(folder / EXPECTED, f"{{{','.join(entries)}\n}}\n".encode())


def differences(folder: Path, look: Callable[[Path], Result]) -> Iterator[str]:
    """What is not as expected of the samples of a model folder, a line each; nothing if all is well.

    Args:
        folder: the model's folder.
        look: gives the result of a sample picture: `Model.predict`, or a reader of results written elsewhere.

    Raises:
        ManifestError: there are no samples, or expected.json is absent or wrong.
    """
    try:
        expected = msgspec.json.decode((folder / EXPECTED).read_bytes(), type=dict[str, list[Found]])
    except (OSError, msgspec.DecodeError) as error:
        raise ManifestError(f"{folder / EXPECTED}: {error}", "make it with: buoy check --update") from error
    names = [path.name for path in pictures(folder)]
    if sorted(expected) != names or not names:
        yield f"{folder / EXPECTED}: expects {sorted(expected)}, the pictures are {names}"
        return
    for name, wanted in expected.items():
        yield from (f"{name}: {line}" for line in _compare(wanted, look(folder / EXPECTED.parent / name)))


def written_in(results: Path) -> Callable[[Path], Result]:
    """A reader of the results that a service has written into a folder, for `differences`."""

    def read(picture: Path) -> Result:
        path = results / f"{picture.name}{FORMATS['json'].suffix}"
        try:
            record = decode_record(path.read_bytes())
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}", "the service has not written it") from error
        if not isinstance(record, Result):
            raise InputError(f"{path}: {record.error.message}", record.error.hint)
        return record

    return read


def _found(result: Result) -> list[Found]:
    return [Found(each.label, each.score, each.box) for each in result.detections or []]


def _compare(wanted: list[Found], result: Result) -> Iterator[str]:
    side = max(result.input.width or 0, result.input.height or 0)
    left = _found(result)
    for each in wanted:
        twin = next((other for other in left if _alike(each, other, side * _BOX_TOLERANCE)), None)
        if twin is None:
            yield f"expected {each.label} {each.score:.2f} at {list(each.box)}, it was not found"
        else:
            left.remove(twin)
    for other in left:
        yield f"found {other.label} {other.score:.2f} at {list(other.box)}, it was not expected"


def _alike(one: Found, other: Found, pixels: float) -> bool:
    near = all(abs(a - b) <= pixels for a, b in zip(one.box, other.box, strict=True))
    return one.label == other.label and near and abs(one.score - other.score) <= _SCORE_TOLERANCE
