"""The plain work as a module for DEEPaaS, which calls these functions in its worker process."""

from __future__ import annotations

import json
import os
from typing import Any

from webargs import fields

from bench.work import Work

_work: list[Work] = []


def get_metadata() -> dict[str, Any]:
    return {"id": "bench", "name": "bench", "description": "the work of the bench", "version": "1"}


def warm() -> None:
    _work.append(Work(os.environ["BENCH_MODEL"]))


def get_predict_args() -> dict[str, Any]:
    return {"data": fields.Field(required=True, type="file", location="form")}


def predict(**arguments: Any) -> Any:
    if not _work:
        warm()
    with open(arguments["data"].filename, "rb") as file:
        return json.loads(_work[0](file.read()))
