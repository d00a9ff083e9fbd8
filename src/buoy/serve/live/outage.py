"""The picture that stands for no picture: players of the live one must not go on showing the last as if it were."""

from __future__ import annotations

from pathlib import Path

__all__ = ["OUTAGE"]

#: JPEG, 960 x 540.
OUTAGE = Path(__file__).with_name("outage.jpg").read_bytes()
