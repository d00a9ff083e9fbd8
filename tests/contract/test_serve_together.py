"""Requests that share a run of the network: each caller gets its own answer, whoever leaves meanwhile."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import httpx2

from support.loop import run
from support.serve import Served, serving
from support.tiny import STRIDE, make_model, picture_with_squares, png

CELLS = [(row, column) for row in range(4) for column in range(4)]
PNG = {"Content-Type": "image/png"}


async def one(http: httpx2.AsyncClient, number: int, chance: random.Random, leaves: bool) -> str:
    """Ask about a picture that nobody else asks about; perhaps leave before the answer."""
    cells = [cell for bit, cell in enumerate(CELLS) if (number * 2_654_435_761 >> bit) & 1] or [CELLS[number % 16]]
    asking: asyncio.Task[Any] = asyncio.create_task(
        http.post("/predict", content=png(picture_with_squares(*cells)), params={"name": f"{number}.png"}, headers=PNG)
    )
    if leaves:
        await asyncio.wait({asking}, timeout=chance.random() * 0.02)
        if asking.cancel():
            await asyncio.gather(asking, return_exceptions=True)
            return "left"
    answer = await asking
    assert answer.status_code == 200, answer.text
    record = answer.json()
    assert record["input"]["name"] == f"{number}.png"
    found = {(int(each["box"][1]) // STRIDE, int(each["box"][0]) // STRIDE) for each in record["detections"]}
    assert found == set(cells)
    return "answered"


async def crowd(served: Served, seed: int, callers: int, each: int) -> list[str]:
    chance = random.Random(seed)

    async def caller(at: int) -> list[str]:
        async with httpx2.AsyncClient(base_url=served.url, timeout=60.0) as http:
            return [await one(http, at * each + count, chance, chance.random() < 0.4) for count in range(each)]

    return [outcome for outcomes in await asyncio.gather(*map(caller, range(callers))) for outcome in outcomes]


def test_each_caller_gets_its_own_answer_out_of_a_batch_while_others_leave(tmp_path: Path) -> None:
    model = make_model(tmp_path, batch="n", slow=True, run={"callers": 1, "threads": 1, "batch": 8})
    with serving(tmp_path, model, options=("--max-wait", "30")) as served:
        assert served.metric("buoy_batch_most", model="tiny") == 8
        outcomes = run(crowd(served, seed=3, callers=24, each=20))
        assert outcomes.count("answered") > 200
        assert outcomes.count("left") > 50
        served.until(lambda: served.metric("nv_inference_pending_request_count") == 0)
        assert served.metric("buoy_batch_size_sum") > served.metric("buoy_batch_size_count")  # some did share a run
        assert served.metric("buoy_worker_restarts_total") == 0
        assert not [line for line in served.log if line["event"] == "fault"]
