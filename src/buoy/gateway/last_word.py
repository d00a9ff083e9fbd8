"""The error record of a picture that ended its model's process, which could not write it any more."""

from __future__ import annotations

from buoy.errors import JobError
from buoy.gateway.deliver import Workplace
from buoy.gateway.services import Service
from buoy.gateway.state import Job

__all__ = ["write_error_record"]


def write_error_record(job: Job, service: Service, place: Workplace, error: JobError) -> None:
    """Leave `<name>.error.json` among the job's outputs, as the function would have done."""
    if place.input is None:
        return
    from buoy.function import Event, give_up, model_info  # OpenCV comes with it

    event = Event(place.input, place.output_dir, job.key if job.bucket else "")
    model = model_info(service.variables.get("BUOY_MODEL", ""))
    give_up(error, event, service.variables.get("BUOY_INPUT", ""), model, lambda _: None)
