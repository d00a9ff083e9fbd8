"""The streams' numbers among the metrics.

Counts are ours (`buoy_stream_...`). Frames a second are also shown under Frigate's names, with its label
`camera_name`, so that dashboards made for it work; Roboflow's `inference_pipeline_..._fps` would be the same numbers
a third time.
"""

from __future__ import annotations

from collections.abc import Iterable

from buoy.serve.live.stream import Stream
from buoy.serve.metrics import Counter, Gauge

__all__ = ["of"]


def of(streams: Iterable[Stream]) -> list[Counter]:
    """What they are now; streams that are gone leave none."""
    received = Counter("buoy_stream_frames_received_total", "Frames that came from the source")
    processed = Counter("buoy_stream_frames_processed_total", "Frames that were looked at")
    dropped = Counter("buoy_stream_frames_dropped_total", "Frames that were not, by reason")
    in_flight = Gauge("buoy_stream_frames_in_flight", "Frames that wait or are looked at")
    reconnects = Counter("buoy_stream_reconnects_total", "Times the source was opened again")
    lag_s = Gauge("buoy_stream_lag_seconds", "Age of the latest frame when it had been looked at")
    live = Gauge("buoy_stream_live", "1 if frames come")
    viewers = Gauge("buoy_stream_viewers", "Who watches the pictures")
    sunk = Counter("buoy_stream_sink_dropped_total", "What a sink lost, by reason")
    camera_fps = Gauge("frigate_camera_fps", "Frames received each second")
    process_fps = Gauge("frigate_process_fps", "Frames looked at each second")
    skipped_fps = Gauge("frigate_skipped_fps", "Frames dropped each second")
    for stream in streams:
        name, counts, rates = stream.spec.name, stream.totals.now(), stream.totals.rates()
        received.add(counts["received"], stream=name)
        processed.add(counts["processed"], stream=name)
        for reason, number in counts["dropped"].items():
            dropped.add(number, stream=name, reason=reason)
        in_flight.set(counts["in_flight"], stream=name)
        reconnects.add(counts["reconnects"], stream=name)
        lag_s.set(stream.lag_ms / 1000, stream=name)
        live.set(stream.state == "live", stream=name)
        viewers.set(stream.widths.total(), stream=name)
        for sink in stream.sinks.status() if stream.sinks else []:
            for reason, number in sink["dropped"].items():
                sunk.add(number, stream=name, sink=sink["kind"], reason=reason)
        camera_fps.set(rates["received"], camera_name=name)
        process_fps.set(rates["processed"], camera_name=name)
        skipped_fps.set(rates["dropped"], camera_name=name)
    every: list[Counter] = [received, processed, dropped, in_flight, reconnects, lag_s, live, viewers, sunk]
    return [*every, camera_fps, process_fps, skipped_fps]
