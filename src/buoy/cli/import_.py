"""`buoy import`: a model folder from a checkpoint or an ONNX file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from buoy.cli.talk import say

if TYPE_CHECKING:
    from buoy.importer import Imported


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Of the model: its folder, service and bucket are called so.")
@click.option("--into", type=click.Path(path_type=Path), help="Where its folder goes.  [default: functions/]")
@click.option("--sample", "samples", multiple=True, type=click.Path(path_type=Path), metavar="PICTURE",
              help="A picture that the model knows; again for more. Without any, some are drawn.")  # fmt: skip
@click.option("--size", nargs=2, type=int, metavar="H W", help="Input size; the checkpoint has the default.")
@click.option("--classes", type=click.Path(path_type=Path), help="Text file, a class a line, for ONNX without names.")
@click.option("--maturity", type=click.Choice(["demo", "published"]), default="demo", show_default=True,
              help="Whether conclusions may be drawn from its results.")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace a model folder of that name.")
@click.option("--json", "as_json", is_flag=True, help="What was made, as JSON.")
def import_(
    file: Path, name: str, into: Path | None, samples: tuple[Path, ...], size: tuple[int, int] | None,
    classes: Path | None, maturity: Literal["demo", "published"], force: bool, as_json: bool,
) -> None:  # fmt: skip
    """Make a model folder from FILE: an ultralytics checkpoint (.pt) or an ONNX network (.onnx).

    The folder appears only if our results in the sample pictures are those of ultralytics itself: boxes within 0.5
    pixels, scores within 0.001. Detectors only, so far.

    Reading a .pt file runs code that is in it: only import checkpoints you trust. Nothing that was uploaded to a
    bucket or to the page is ever imported.
    """
    from buoy import importer, scaffold

    request = importer.Request(
        source=file, name=name, into=into or scaffold.default_place(), samples=samples, size=size or None,
        classes=classes, maturity=maturity, force=force,
    )  # fmt: skip
    imported = importer.import_model(request, tell=lambda step: say(f"{step} ..."))
    for note in imported.notes:
        say(f"note: {note}")
    if imported.manifest.licence.startswith("AGPL"):
        say("note: the file is marked AGPL-3.0 by ultralytics: see the card, and mind it before you pass results on")
    click.echo(json.dumps(_record(imported), ensure_ascii=False) if as_json else _summary(imported))


def _record(imported: Imported) -> dict[str, Any]:
    manifest, parity = imported.manifest, imported.parity
    return {
        "folder": str(imported.folder),
        "name": manifest.name,
        "task": manifest.task,
        "maturity": manifest.maturity,
        "classes": manifest.labels,
        "size": list(manifest.input.size),
        "weights_sha256": manifest.weights.sha256,
        "licence": manifest.licence,
        "parity": parity
        and {
            "score": parity.score,
            "compared": parity.compared,
            "borderline": parity.excused,
            "largest_px": round(parity.largest_px, 4),
            "largest_score": round(parity.largest_score, 6),
        },
        "notes": imported.notes,
    }


def _summary(imported: Imported) -> str:
    manifest, parity = imported.manifest, imported.parity
    height, width = manifest.input.size
    lines = [f"{imported.folder}: {manifest.task}, {len(manifest.labels)} classes, {height} x {width} pixels"]
    if parity and parity.compared:
        lines.append(
            f"{parity.compared} boxes compared with ultralytics' own: at most {parity.largest_px:.2f} px and "
            f"{parity.largest_score:.1g} in score apart"
        )
    return "\n".join(lines)
