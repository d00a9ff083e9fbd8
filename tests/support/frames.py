"""Records of frames, as the process that looks at them tells them."""

from __future__ import annotations

from collections.abc import Sequence

from buoy.results import Detection, ErrorInfo, Failure, FrameInfo, InputInfo, ModelInfo, Result, RunInfo, encode_record

__all__ = ["failed_frame", "frame"]

_MODEL = ModelInfo(name="obsea-fish", version="1.0", weights_sha256="0" * 64, maturity="demo")
_RUN = RunInfo(
    started="2026-11-25T14:00:00.000Z", read_ms=1.0, infer_ms=2.0, total_ms=3.0, host="h", buoy="0.1.0",
    runtime="onnxruntime", provider="CPUExecutionProvider", threads=1, callers=1,
)  # fmt: skip


def frame(
    number: int,
    captured: str = "2026-11-25T14:00:00.000Z",
    found: Sequence[tuple[str, float]] = (),
    flags: Sequence[str] = (),
    *,
    stream: str = "reef",
    track: bool = False,
) -> bytes:
    """The record of a frame in which these labels were found with these scores."""
    return encode_record(
        Result(
            input=_input(number, captured, flags, stream),
            model=_MODEL,
            task="detect",
            parameters={"score": 0.25},
            detections=[
                Detection(
                    label=label, class_id=0, score=score, box=(1.0, 2.0, 30.5, 40.25), taxon={"aphia_id": 126505},
                    **({"track_id": at + 1} if track else {}),
                )
                for at, (label, score) in enumerate(found)
            ],
            run=_RUN,
        )
    )  # fmt: skip


def failed_frame(number: int, captured: str = "2026-11-25T14:00:00.000Z", *, stream: str = "reef") -> bytes:
    """The record of a frame that could not be read."""
    error = ErrorInfo(class_="InputError", message="this is no picture", hint="")
    return encode_record(Failure(input=_input(number, captured, (), stream), model=_MODEL, error=error))


def _input(number: int, captured: str, flags: Sequence[str], stream: str) -> InputInfo:
    info = FrameInfo(stream=stream, number=number, captured=captured, position_s=number / 25, flags=list(flags))
    return InputInfo(
        name=f"{stream}-{number}.jpg", size_bytes=9, sha256="1" * 64, width=640, height=480, frame=info
    )  # fmt: skip
