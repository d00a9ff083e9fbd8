"""LitServe around the plain work, as its documentation has it: `python -m bench.serve.litserve_app MODEL PORT`."""

from __future__ import annotations

import sys

import litserve
from starlette.responses import Response

from bench.work import Work


class _Api(litserve.LitAPI):  # type: ignore[misc]
    def setup(self, device: str) -> None:
        self.work = Work(sys.argv[1])

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # LitServe reads the annotation: none is a form
        return request["data"].file.read()

    def predict(self, data: bytes) -> bytes:
        return self.work(data)

    def encode_response(self, output: bytes) -> Response:
        return Response(output, media_type="application/json")


if __name__ == "__main__":
    server = litserve.LitServer(_Api(api_path="/predict"), accelerator="cpu", workers_per_device=1, timeout=False)
    server.run(port=int(sys.argv[2]), host="127.0.0.1", generate_client_file=False, log_level="warning")
