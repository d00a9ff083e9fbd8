"""Bare Starlette: the plain work in its thread pool, no queue, no limits: `... starlette_app MODEL PORT`."""

from __future__ import annotations

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench.work import Work


def main(model: str, port: int) -> None:
    """Serve."""
    work = Work(model)

    async def predict(request: Request) -> Response:
        return Response(await run_in_threadpool(work, await request.body()), media_type="application/json")

    app = Starlette(routes=[Route("/predict", predict, methods=["POST"])])
    uvicorn.run(app, port=port, log_level="warning")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
