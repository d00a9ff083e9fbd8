"""Exposed services of a gateway: the tiny model behind `buoy serve`, and a script that is a small web service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2

from support.gateway import Gateway, until

__all__ = ["STAND_IN", "Live", "expose_model", "expose_script"]

#: A web service of its own, started through its script as OSCAR starts one. Its answers tell what reached it.
STAND_IN = """#!/usr/bin/env python3
import asyncio, hashlib, json, os, uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute

left, held = [], [0]

async def echo(request):
    headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.scope["headers"]]
    raw = request.scope["raw_path"].decode()
    environment = {name: value for name, value in os.environ.items() if name.startswith(("OSCAR_", "BUOY_"))}
    said = {"method": request.method, "path": raw, "query": request.url.query, "headers": headers, "env": environment,
            "pid": os.getpid(), "version": os.environ.get("VERSION", ""), "cwd": os.getcwd()}
    back = {"connection": "x-private", "x-private": "1", "keep-alive": "timeout=5", "x-kept": "yes"}
    return JSONResponse(said, headers=back)

class Duplex:
    async def __call__(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        more = True
        while more:
            message = await receive()
            more = message.get("more_body", False)
            await send({"type": "http.response.body", "body": message.get("body", b"").upper(), "more_body": more})

async def digest(request):
    seen, size = hashlib.sha256(), 0
    async for piece in request.stream():
        seen.update(piece)
        size += len(piece)
    return JSONResponse({"size": size, "sha256": seen.hexdigest()})

async def refuse(request):
    return JSONResponse({"error": "too large"}, 413, {"connection": "close"})

async def large(request):
    size = int(request.query_params["size"])
    return Response(b"x" * size)

async def forever(request):
    async def events():
        try:
            number = 0
            while True:
                yield f"data: {number}\\n\\n"
                number += 1
                await asyncio.sleep(0.01)
        finally:
            left.append("forever")
    return StreamingResponse(events(), media_type="text/event-stream")

async def hold(request):
    held[0] += 1
    while not os.path.exists(request.query_params["until"]):
        await asyncio.sleep(0.01)
        if await request.is_disconnected():
            left.append("hold")
            break
    held[0] -= 1
    return JSONResponse({})

async def state(request):
    return JSONResponse({"left": left, "held": held[0]})

async def slow(request):
    await asyncio.sleep(float(request.query_params["s"]))
    return JSONResponse({"version": os.environ.get("VERSION", ""), "pid": os.getpid()})

async def keep(request):
    open(os.path.join(os.environ["BUOY_SERVE_DATA"], "state"), "w").close()
    return Response()

async def busy(request):
    return JSONResponse({}, 429, {"retry-after": "3"})

async def crash(request):
    os._exit(7)

async def cut(request):
    async def half():
        yield b"half of it"
        os._exit(7)
    return StreamingResponse(half(), headers={"content-length": "1000"})

async def socket(websocket):
    wanted = websocket.scope["subprotocols"]
    await websocket.accept(wanted[0] if wanted else None)
    async for message in websocket.iter_text():
        if message == "bye":
            await websocket.close(4321, "as you wish")
            return
        await websocket.send_bytes(message.encode())
    left.append("socket")

routes = [Route("/health", lambda request: Response("well"))]
routes += [Route(path, endpoint, methods=["GET", "POST", "PUT", "DELETE", "HEAD"]) for path, endpoint in [
    ("/duplex", Duplex()), ("/digest", digest), ("/refuse", refuse), ("/large", large), ("/forever", forever),
    ("/busy", busy),
    ("/hold", hold), ("/state", state), ("/crash", crash), ("/slow", slow), ("/keep", keep), ("/cut", cut)]]
routes += [WebSocketRoute("/socket", socket), Route("/{rest:path}", echo, methods=["GET", "POST", "HEAD", "PUT"])]
app = Starlette(routes=routes)
if os.environ.get("SLOW_START"):
    import time
    time.sleep(float(os.environ["SLOW_START"]))
print("the stand-in starts", flush=True)
uvicorn.run(app, port=int(os.environ["BUOY_PORT"]), log_level="warning", timeout_graceful_shutdown=1)
"""


class Live:
    """An exposed service, as its callers and its operator see it."""

    def __init__(self, gateway: Gateway, definition: dict[str, Any]) -> None:
        self.gateway = gateway
        self.name: str = definition["name"]
        self.token: str = definition["token"]

    @property
    def url(self) -> str:
        """Where it is exposed."""
        return f"{self.gateway.url}/system/services/{self.name}/exposed"

    def client(self, **more: Any) -> httpx2.Client:
        """A client with the service's token."""
        return httpx2.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=60.0, **more)

    def status(self) -> dict[str, Any]:
        """Its deployment, as OSCAR tells it."""
        with self.gateway.client() as http:
            found: dict[str, Any] = http.get(f"/system/services/{self.name}/deployment").json()
        return found

    def is_in(self, state: str, instances: int | None = None, timeout_s: float = 60.0) -> dict[str, Any]:
        """Wait until it is in a state, with so many instances that are all right."""

        def so() -> dict[str, Any] | None:
            found = self.status()
            right = found["active_instances"] - found["affected_instances"]
            return found if found["state"] == state and instances in (None, right) else None

        return until(so, timeout_s, lambda: f"{self.status()}\n{self.log()[-2000:]}") or {}

    def operate(self, action: str) -> httpx2.Response:
        """Start, stop or restart it."""
        with self.gateway.client() as http:
            return http.post(f"/system/services/{self.name}/{action}")

    def log(self) -> str:
        """What its instances wrote."""
        with self.gateway.client() as http:
            found = http.get(f"/system/services/{self.name}/deployment/logs", params={"tailLines": 1000}).json()
        return "\n".join(entry["message"] for entry in found["entries"])

    def pids(self) -> list[int]:
        """The processes of its instances."""
        notes = (self.gateway.data / "work").glob(f"exposed-{self.name}-*/pid")
        return [int(note.read_text().split()[0]) for note in notes]


def _definition(name: str, expose: dict[str, Any], variables: dict[str, str], **fields: Any) -> dict[str, Any]:
    body = {"name": name, "cpu": "1.0", "memory": "512Mi", "image": "none", "script": "true"}
    return {**body, "expose": expose, "environment": {"Variables": variables}, **fields}


def expose_model(gateway: Gateway, name: str, model: Path, *, update: bool = False, **changes: Any) -> Live:
    """Expose a model folder as `fdl/<model>/exposed.yaml` does; `changes` go into the `expose` block."""
    expose = {
        "min_scale": 1, "max_scale": 2, "api_port": [8000], "rewrite_target": True, "default_command": True,
        "set_auth": True, "health_path": "/v2/health/ready", **changes,
    }  # fmt: skip
    return _apply(gateway, _definition(name, expose, {"BUOY_MODEL": str(model)}), update=update)


def expose_script(
    gateway: Gateway,
    name: str,
    script: str = STAND_IN,
    *,
    update: bool = False,
    variables: dict[str, str] | None = None,
    fields: dict[str, Any] | None = None,
    **changes: Any,
) -> Live:
    """Expose a script; `changes` go into the `expose` block."""
    expose = {"min_scale": 1, "max_scale": 1, "api_port": [80], "set_auth": True, "health_path": "/health", **changes}
    return _apply(gateway, _definition(name, expose, variables or {}, script=script, **(fields or {})), update=update)


def _apply(gateway: Gateway, body: dict[str, Any], *, update: bool) -> Live:
    with gateway.client() as http:
        answer = http.request("PUT" if update else "POST", "/system/services", json=body)
        assert answer.status_code in (201, 204), answer.text
        return Live(gateway, http.get(f"/system/services/{body['name']}").json())
