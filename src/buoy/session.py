"""The one place that knows ONNX Runtime: a loaded network with fixed shapes and a known provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from buoy import machine
from buoy.errors import WeightsError
from buoy.together import Ran, Together

__all__ = ["Session", "Shape", "Tensor", "Tensors"]

Tensor = NDArray[Any]
#: Output tensors by name.
Tensors = Mapping[str, Tensor]
Shape = tuple[int, ...]

_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}


class Session:
    """A network in memory, run by up to `callers` threads at once with `threads` threads each.

    A network whose batch size is free may be run on several inputs at once (`buoy.together`).

    Two callers with one thread each beat one caller with two (25.1 against 19.0 pictures a second on a
    55 ms detector): throughput paths use callers, single pictures use threads.

    Args:
        path: the ONNX file.
        threads: ONNX Runtime's threads within one run; by default all cores.
        callers: runs at once; more wait for their turn.
        batch: inputs in one run at the most; 1 where the network's batch size is fixed.

    Raises:
        WeightsError: not an ONNX network, a size that is not fixed, or no usable runtime.
    """

    def __init__(self, path: Path, *, threads: int | None = None, callers: int = 1, batch: int = 1) -> None:
        self.threads = threads or machine.cores()
        self.callers = callers
        runtime = _runtime()
        self.runtime = f"onnxruntime {runtime.__version__}"
        try:
            self._session = runtime.InferenceSession(
                str(path), _options(runtime, self.threads), providers=_providers(runtime)
            )
        except Exception as error:  # the runtime raises classes of its own, one for each way to be wrong
            raise WeightsError(f"{path}: ONNX Runtime cannot load it: {error}", "export it to ONNX again") from error
        self.provider: str = self._session.get_providers()[0]
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise WeightsError(f"{path}: the network has {len(inputs)} inputs; one is expected")
        self._input_name: str = inputs[0].name
        self.input_shape = _fixed(path, inputs[0])
        self.input_dtype = _dtype(path, inputs[0])
        outputs = self._session.get_outputs()
        self.output_shapes: dict[str, Shape] = {output.name: _fixed(path, output) for output in outputs}
        self._output_names = list(self.output_shapes)
        #: Whether several inputs can be run at once.
        self.batchable = all(value.shape and not isinstance(value.shape[0], int) for value in (inputs[0], *outputs))
        self.batch = batch if self.batchable else 1
        self._together: Together[Tensor, Tensors] = Together(self.run_all, callers, self.batch)

    @property
    def metadata(self) -> dict[str, str]:
        """What the exporter wrote into the file about the network, if anything."""
        return dict(self._session.get_modelmeta().custom_metadata_map)

    def run(self, tensor: Tensor) -> Ran[Tensors]:
        """Run the network on one input tensor of `input_shape` and `input_dtype`."""
        return self._together.run(tensor)

    def noise(self) -> Tensor:
        """A tensor that fits, for trying the network out."""
        return np.random.default_rng(0).random(self.input_shape, np.float32).astype(self.input_dtype)

    def run_all(self, tensors: Sequence[Tensor]) -> list[Tensors]:
        """Run it on several inputs at once, whatever others do; more than one only where it is `batchable`."""
        fed = tensors[0] if len(tensors) == 1 else np.concatenate(tensors)
        values = self._session.run(self._output_names, {self._input_name: fed})
        if len(tensors) == 1:
            return [dict(zip(self._output_names, values, strict=True))]
        return [
            {name: value[at : at + 1] for name, value in zip(self._output_names, values, strict=True)}
            for at in range(len(tensors))
        ]


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise WeightsError(
            "ONNX Runtime is not installed", "pip install onnxruntime (or onnxruntime-gpu, never both)"
        ) from error
    return onnxruntime


def _options(runtime: Any, threads: int) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; its warnings are about graph optimisation
    # The default arena stays: with fixed shapes it stops growing after the first runs. Extending it by exactly what
    # is requested was measured too: two callers then fragment it, and the peak is a tenth higher.
    return options


def _providers(runtime: Any) -> list[str]:
    """CUDA where the installed build has it, and the CPU always; which one runs is recorded in every result."""
    available = runtime.get_available_providers()
    return [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]


def _fixed(path: Path, value: Any) -> Shape:
    shape = tuple(value.shape)
    # A free batch dimension is common and harmless: it is always one here.
    shape = (1, *shape[1:]) if shape and not isinstance(shape[0], int) else shape
    if not all(isinstance(side, int) and side > 0 for side in shape):
        raise WeightsError(
            f"{path}: {value.name} has the free size {list(value.shape)}",
            "export it with fixed sizes (dynamic=False): free ones make memory grow without bound",
        )
    return shape


def _dtype(path: Path, value: Any) -> type[Any]:
    if value.type not in _DTYPES:
        raise WeightsError(f"{path}: {value.name} takes {value.type}", f"supported: {', '.join(_DTYPES)}")
    return _DTYPES[value.type]
