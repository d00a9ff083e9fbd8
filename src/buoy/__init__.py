"""buoy turns a folder with a model into a service that watches the sea.

    from buoy import Model

    model = Model.load("functions/obsea-fish")
    result = model.predict("frame.jpg")
    for found in result.detections:
        print(found.label, found.score, found.box)

The names below load on first use, so `import buoy` costs neither NumPy nor ONNX Runtime.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from buoy.version import VERSION

if TYPE_CHECKING:
    from buoy.engine import Engine, Input, Outcome
    from buoy.errors import BuoyError, InputError, ManifestError, StoreError, WeightsError
    from buoy.manifest import Manifest
    from buoy.model import Model
    from buoy.results import Detection, Failure, Result

__version__ = VERSION

__all__ = [
    "BuoyError",
    "Detection",
    "Engine",
    "Failure",
    "Input",
    "InputError",
    "Manifest",
    "ManifestError",
    "Model",
    "Outcome",
    "Result",
    "StoreError",
    "WeightsError",
]

_HOME = {
    "BuoyError": "errors",
    "Detection": "results",
    "Engine": "engine",
    "Failure": "results",
    "Input": "engine",
    "InputError": "errors",
    "Manifest": "manifest",
    "ManifestError": "errors",
    "Model": "model",
    "Outcome": "engine",
    "Result": "results",
    "StoreError": "errors",
    "WeightsError": "errors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'buoy' has no attribute {name!r}")
    return getattr(import_module(f"buoy.{_HOME[name]}"), name)
