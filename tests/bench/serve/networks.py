"""A network of a small classifier's size, made on the spot: decoding a picture costs as much as looking at it.

It has the output layout of a detector, since that is the task at hand; how long it takes is what matters here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml
from onnx import TensorProto, helper, numpy_helper, save

from buoy.model import sha256_of
from support.tiny import manifest_of

__all__ = ["small_model"]

_SIZE = 224
#: Of each convolution: output channels and stride. About 3.5 ms with one thread on the machine it was made on.
_LAYERS = ((24, 2), (48, 2), (48, 1), (96, 2), (96, 1), (192, 2), (192, 1), (384, 2), (384, 1))


def small_model(folder: Path) -> Path:
    """Write the model folder `folder/small`."""
    home = folder / "small"
    home.mkdir(parents=True)
    _write(home / "small.onnx")
    manifest = manifest_of("small")
    manifest["weights"] = {"file": "small.onnx", "sha256": sha256_of(home / "small.onnx")}
    manifest["input"] = {"size": [_SIZE, _SIZE]}
    (home / "manifest.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))
    return home


def _write(path: Path, classes: int = 2) -> None:
    chance, nodes, constants = np.random.default_rng(3), [], {}
    value, channels, cells = "images", 3, _SIZE
    for number, (wide, stride) in enumerate((*_LAYERS, (4 + classes, 1))):
        last = wide == 4 + classes
        side = 1 if last else 3
        scale = np.sqrt(2 / (channels * side * side))
        constants[f"w{number}"] = (chance.standard_normal((wide, channels, side, side)) * scale).astype(np.float32)
        nodes.append(
            helper.make_node("Conv", [value, f"w{number}"], [f"c{number}"], strides=[stride] * 2, pads=[side // 2] * 4)
        )
        nodes.append(helper.make_node("Sigmoid" if last else "Relu", [f"c{number}"], [f"r{number}"]))
        value, channels, cells = f"r{number}", wide, -(-cells // stride)
    constants["flat"] = np.array([1, 4 + classes, cells * cells], np.int64)
    nodes.append(helper.make_node("Reshape", [value, "flat"], ["output0"]))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, _SIZE, _SIZE])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 4 + classes, cells * cells])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    save(model, path)
