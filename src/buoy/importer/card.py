"""The README of an imported model: what is known of it, and what is not."""

from __future__ import annotations

from collections.abc import Sequence

from buoy.importer.child import Facts
from buoy.importer.parity import Parity
from buoy.scaffold import Draft

__all__ = ["card"]


def card(draft: Draft, facts: Facts, source: str, parity: Parity | None, real_samples: bool) -> str:
    """The text of the card."""
    height, width = draft.size
    samples = (
        "The pictures in `sample/` were given at the import; `expected.json` has what the model finds in them."
        if real_samples
        else "The pictures in `sample/` are drawn: they prove that the model runs as it ran at the import, not that it "
        "finds anything.\nReplace them by real ones, then: "
        f"`buoy check {draft.name} --update`."
    )
    return f"""\
# {draft.title}

A detector with {len(draft.labels)} classes ({_few(draft.labels)}), which takes pictures of {height} x {width} pixels \
(height, width).
`buoy import` made this folder from `{source}`. The ONNX file was written by:
{facts.maker}.

What it was trained on, how well it does and where it should not be used is not recorded in the file it came from, and
so not known here. Maturity: {draft.maturity}.

## Same results as ultralytics

{_parity(parity)}

## Samples

{samples}

## Licence

{_licence(draft, facts)}
"""


def _few(labels: Sequence[str]) -> str:
    shown = ", ".join(labels[:8])
    return shown if len(labels) <= 8 else f"{shown} and {len(labels) - 8} more"


def _parity(parity: Parity | None) -> str:
    if parity is None:
        return "Not compared: the results of the software that this network comes from were not at hand at the import."
    if not parity.compared:
        return "Compared at the import, but the pictures gave no boxes: nothing was shown."
    return (
        f"At the import, {parity.compared} boxes with scores above {parity.score:.3g} were compared with those of "
        f"ultralytics' own `predict`.\nThe largest differences: {parity.largest_px:.2f} px, "
        f"{parity.largest_score:.1g} in score."
    )


def _licence(draft: Draft, facts: Facts) -> str:
    if draft.licence == "AGPL-3.0-only":
        return (
            f"{draft.licence}: ultralytics marks every file that it writes so, and holds that its licence covers\n"
            "trained weights and exported files. If yours were released under another one, change it here and in\n"
            "`manifest.yaml`."
        )
    said = f'the file says "{facts.licence}"' if facts.licence else "the file names none"
    return f"{draft.licence}: {said}. Ask its authors before you pass the model on, and correct `manifest.yaml`."
