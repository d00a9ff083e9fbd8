"""A tiny detector made on the spot: it finds bright and red squares, exactly and in a millisecond."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, save
from PIL import Image

from buoy.model import sha256_of

__all__ = ["STRIDE", "make_model", "make_network", "manifest_of", "picture_with_squares", "png", "set_version"]

#: The network looks at cells of this many pixels and reports each bright one as a box of its size.
STRIDE = 16


def make_network(
    path: Path, size: int = 64, classes: int = 2, batch: int | str = 1, side: int = STRIDE, *, slow: int = 0
) -> Path:
    """Write an ONNX file with the layout yolov8: input (batch, 3, size, size), output (batch, 4 + classes, cells).

    A `batch` that is a word is free. Boxes with a `side` of several cells overlap, as a tracker needs them. A `slow`
    one takes some ten milliseconds for the same answer, longer than everything around it; with a number, as many times.

    Class 0 scores the brightness of a cell, class 1 how much redder it is than green and blue; more classes score 0.
    """
    cells = size // STRIDE
    weights = np.zeros((classes, 3, 1, 1), np.float32)
    weights[0, :, 0, 0] = 1 / 3
    if classes > 1:
        weights[1, :, 0, 0] = 1, -0.5, -0.5
    centres = (np.arange(cells, dtype=np.float32) + 0.5) * STRIDE
    x, y = np.meshgrid(centres, centres)
    sides = np.full(cells * cells, side, np.float32)
    boxes = np.stack([x.ravel(), y.ravel(), sides, sides])[None]
    nodes = [
        helper.make_node("AveragePool", ["images"], ["cells"], kernel_shape=[STRIDE] * 2, strides=[STRIDE] * 2),
        helper.make_node("Conv", ["cells", "weights"], ["maps"]),
        helper.make_node("Clip", ["maps", "zero", "one"], ["clipped"]),
        helper.make_node("Reshape", ["clipped", "flat"], ["scores"]),
        # the same boxes for each picture of a batch
        helper.make_node("ReduceMax", ["scores", "axis"], ["best"], keepdims=1),
        helper.make_node("Mul", ["best", "zero"], ["nothing"]),
        helper.make_node("Add", ["boxes", "nothing"], ["all_boxes"]),
        helper.make_node("Concat", ["all_boxes", "scores"], ["output0"], axis=1),
    ]
    constants = {
        "weights": weights,
        "boxes": boxes.astype(np.float32),
        "zero": np.float32(0).reshape(()),
        "one": np.float32(1).reshape(()),
        "flat": np.array([-1, classes, cells * cells], np.int64),
        "axis": np.array([1], np.int64),
    }
    if slow:
        # means, as sums of sums would become infinite
        constants["widen"] = np.ones((64, 3, 3, 3), np.float32)
        constants["mix"] = np.full((64, 64, 3, 3), 1 / 576, np.float32)
        nodes[4:6] = [
            helper.make_node("Conv", ["images", "widen"], ["mixed0"], pads=[1] * 4),
            *(
                helper.make_node("Conv", [f"mixed{at}", "mix"], [f"mixed{at + 1}"], pads=[1] * 4)
                for at in range(int(slow))
            ),
            helper.make_node("ReduceMax", [f"mixed{int(slow)}"], ["most"], keepdims=0),
            helper.make_node("ReduceMax", ["scores", "axis"], ["best"], keepdims=1),
            helper.make_node("Mul", ["best", "most"], ["product"]),
            helper.make_node("Mul", ["product", "zero"], ["nothing"]),
        ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, size, size])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [batch, 4 + classes, cells * cells])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 8
    save(model, path)
    return path


def make_model(
    folder: Path, name: str = "tiny", *, batch: int | str = 1, side: int = STRIDE, slow: int = 0, **changes: Any
) -> Path:
    """Write a whole model folder `folder/name`; `changes` replace top-level keys of the manifest."""
    home = folder / name
    home.mkdir(parents=True)
    manifest = manifest_of(name)
    manifest["weights"] = {
        "file": "tiny.onnx",
        "sha256": sha256_of(make_network(home / "tiny.onnx", batch=batch, side=side, slow=slow)),
    }
    manifest.update(changes)
    (home / "manifest.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))
    return home


def manifest_of(name: str) -> dict[str, Any]:
    """The manifest of the tiny detector, as data."""
    return {
        "name": name,
        "version": "1.0",
        "task": "detect",
        "maturity": "demo",
        "title": "Bright squares",
        "weights": {"file": "tiny.onnx", "sha256": "0" * 64},
        "input": {"size": [64, 64]},
        "output": {"layout": "yolov8", "score": 0.5, "iou": 0.45},
        "classes": ["bright", {"label": "red", "taxon": {"aphia_id": 125559}}],
        "source": {"title": "made by the tests"},
        "licence": "Apache-2.0",
    }


def picture_with_squares(*cells: tuple[int, int], red: bool = False, size: int = 64) -> NDArray[np.uint8]:
    """(size, size, 3) uint8 RGB: black with a bright (or red) square in each of the cells (row, column)."""
    pixels = np.zeros((size, size, 3), np.uint8)
    for row, column in cells:
        square = pixels[row * STRIDE : (row + 1) * STRIDE, column * STRIDE : (column + 1) * STRIDE]
        square[:] = (255, 0, 0) if red else (255, 255, 255)
    return pixels


def png(pixels: NDArray[np.uint8]) -> bytes:
    """The picture as the bytes of a PNG file."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def set_version(folder: Path, version: str) -> None:
    """Give the model in a folder another version, as somebody who installs one would."""
    manifest = yaml.safe_load((folder / "manifest.yaml").read_text())
    (folder / "manifest.yaml").write_text(yaml.safe_dump({**manifest, "version": version}, sort_keys=False))
