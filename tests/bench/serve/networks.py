"""A network of a small classifier's size, made on the spot: decoding a picture costs as much as looking at it.

Its body is that of MobileNetV2 (Sandler et al. 2018, table 2) with random weights; its end has the output layout of a
detector, so that the same task serves both networks, and finds nothing. How long it takes is what matters.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper, save

from buoy import machine
from buoy.model import sha256_of
from support.tiny import manifest_of

__all__ = ["small_model"]

_SIZE, _CLASSES = 224, 2
#: Of each row of blocks: expansion, channels, how many, stride of the first.
_ROWS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def small_model(folder: Path, batch: int | None = None) -> Path:
    """Write the model folder `folder/small`; with `batch` it takes that many pictures in one run, at the most."""
    home = folder / "small"
    home.mkdir(parents=True)
    _Network().save(home / "small.onnx", free=batch is not None)
    manifest = manifest_of("small")
    manifest["weights"] = {"file": "small.onnx", "sha256": sha256_of(home / "small.onnx")}
    manifest["input"] = {"size": [_SIZE, _SIZE]}
    manifest["output"] |= {"score": 0.75}  # its scores are all about 0.5
    if batch is not None:
        manifest["run"] = {"callers": machine.cores(), "threads": 1, "batch": batch}
    (home / "manifest.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))
    return home


class _Network:
    """Collects nodes and weights; `value` is what the latest gives, with so many `channels` and cells a side."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, NDArray[np.float32 | np.int64]] = {}
        self.value, self.channels, self.cells = "images", 3, _SIZE
        self._chance = np.random.default_rng(3)

    def save(self, path: Path, *, free: bool) -> None:
        self.conv(32, 3, stride=2)
        for expansion, channels, count, stride in _ROWS:
            for number in range(count):
                self._block(expansion, channels, stride if number == 0 else 1)
        self.conv(1280, 1)
        self.conv(4 + _CLASSES, 1, after="Sigmoid")
        cells = self.cells**2
        self.constants["flat"] = np.array([-1, 4 + _CLASSES, cells], np.int64)
        self.nodes.append(helper.make_node("Reshape", [self.value, "flat"], ["output0"]))
        first = "batch" if free else 1
        graph = helper.make_graph(
            self.nodes,
            "small",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, [first, 3, _SIZE, _SIZE])],
            [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [first, 4 + _CLASSES, cells])],
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
        save(model, path)

    def conv(self, wide: int, side: int, *, stride: int = 1, group: int = 1, after: str = "Relu") -> None:
        """A convolution with padding, and what follows it."""
        name, inside = f"w{len(self.constants)}", self.channels // group
        scale = 1e-7 if after == "Sigmoid" else np.sqrt(2 / (inside * side * side))
        self.constants[name] = (self._chance.standard_normal((wide, inside, side, side)) * scale).astype(np.float32)
        pads = [side // 2] * 4
        self._node("Conv", [self.value, name], strides=[stride] * 2, pads=pads, group=group)
        if after:
            self._node(after, [self.value])
        self.channels, self.cells = wide, -(-self.cells // stride)

    def _block(self, expansion: int, wide: int, stride: int) -> None:
        begin, same = self.value, stride == 1 and self.channels == wide
        if expansion > 1:
            self.conv(self.channels * expansion, 1)
        self.conv(self.channels, 3, stride=stride, group=self.channels)
        self.conv(wide, 1, after="")
        if same:
            self._node("Add", [begin, self.value])

    def _node(self, kind: str, inputs: list[str], **attributes: object) -> None:
        self.value = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [self.value], **attributes))
