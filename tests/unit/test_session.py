from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from buoy.errors import WeightsError
from buoy.session import Session
from support.tiny import make_network


def identity(path: Path, shape: list[int | str], kind: int = TensorProto.FLOAT) -> Path:
    value = [helper.make_tensor_value_info(name, kind, shape) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


def test_session_tells_its_shapes_provider_and_threads(tmp_path: Path) -> None:
    session = Session(make_network(tmp_path / "n.onnx"), threads=1)
    assert session.input_shape == (1, 3, 64, 64)
    assert session.output_shapes == {"output0": (1, 6, 16)}
    assert session.provider == "CPUExecutionProvider"
    assert session.runtime.startswith("onnxruntime ")
    assert session.run(np.ones((1, 3, 64, 64), np.float32)).found["output0"].shape == (1, 6, 16)


def test_a_free_batch_size_is_taken_as_one(tmp_path: Path) -> None:
    assert Session(identity(tmp_path / "n.onnx", ["batch", 3, 8, 8])).input_shape == (1, 3, 8, 8)


def test_other_free_sizes_are_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="dynamic=False"):
        Session(identity(tmp_path / "n.onnx", [1, 3, "height", 8]))


def test_other_input_types_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="supported"):
        Session(identity(tmp_path / "n.onnx", [1, 3], TensorProto.INT64))


def test_what_is_no_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "n.onnx").write_bytes(b"not a network")
    with pytest.raises(WeightsError, match="cannot load"):
        Session(tmp_path / "n.onnx")
