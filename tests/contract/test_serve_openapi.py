"""The OpenAPI document held against the service: made-up requests of every route, and what may come back."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.need import CHECKOUT
from support.serve import Served, serving
from support.tiny import make_model, picture_with_squares, png

TOKEN = "correct-horse"
GOOD = png(picture_with_squares((0, 0), (2, 3)))
#: Routes that gave what they are for, at least once.
REACHED = (
    "/predict", "/models/{model}/predict", "/v2/models/{model}", "/v2/models/{model}/versions/{version}",
    "/swagger.json", "/streams", "/streams/{stream}", "/streams/{stream}/gaps", "/streams/{stream}/series",
)  # fmt: skip
CHECKS = (
    "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "negative_data_rejection", "unsupported_method", "allow_header_conformance",
    "ignored_auth",
)  # fmt: skip
SETTINGS = """
[generation]
max-examples = 12

[parameters]
"path.model" = "tiny"
"path.version" = "1.0"
"path.stream" = "cam"

[[operations]]
include-path-regex = "/(mjpeg|events)$"  # they have no end
parameters = { "path.stream" = "nowhere" }

[[operations]]
include-name = "POST /streams"  # the largest of all bodies
generation = { max-examples = 60 }

[[operations]]
include-name = "DELETE /streams/{stream}"  # `cam` is the operator's, and stays
parameters = { "path.stream" = "made" }
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    model = make_model(tmp_path_factory.mktemp("functions"))
    folder = tmp_path_factory.mktemp("serve")
    (folder / "streams.yaml").write_text("- name: cam\n  source: 'push:'\n")
    options = ("--max-upload", "2", "--max-wait", "30", "--streams", str(folder / "streams.yaml"))
    with serving(folder, model, options=options, BUOY_TOKEN=TOKEN) as served:
        yield served


def test_made_up_requests_get_what_the_document_says(served: Served, tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(SETTINGS)
    command = [Path(sys.executable).with_name("schemathesis"), "--config-file", tmp_path / "schemathesis.toml"]
    bounds = ["--phases", "coverage,fuzzing", "--seed", "5", "--workers", "1", "--no-color"]
    # The page's form answers in HTML, and loading takes its time. `support.made_up` says what streams open.
    left_out = ["--exclude-path-regex", "^/(session|ui)|/load$"]
    hooks = {"SCHEMATHESIS_HOOKS": "support.made_up", "PYTHONPATH": str(CHECKOUT / "tests")}
    ended = subprocess.run(
        [*command, "run", f"{served.url}/openapi.json", "-H", f"Authorization: Bearer {TOKEN}",
         *bounds, *left_out, "--checks", ",".join(CHECKS), "--continue-on-failure", "--warnings", "off"],
        cwd=tmp_path, env=os.environ | hooks, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]
    tested = re.search(r"Test cases:\s+(\d+) generated", ended.stdout)
    assert tested
    assert int(tested[1]) > 200
    counted = [line for line in metrics(served) if line.startswith("buoy_requests_total")]
    statuses = {found[1] for line in counted if (found := re.search(r'status="(\d+)"', line))}
    assert {"200", "201", "204", "400", "401", "404", "405", "409", "422"} <= statuses
    for route in REACHED:
        assert any(f'route="{route}"' in line and 'status="200"' in line for line in counted), route
    assert {status for status in statuses if status >= "500"} <= {"503", "504"}  # deadlines are made up too
    log = served.log
    assert {"fault", "the inference process ended"}.isdisjoint(line["event"] for line in log)
    assert not [line for line in log if "trace" in line]
    with served.client(headers={"Authorization": f"Bearer {TOKEN}"}) as http:
        assert http.post("/predict", content=GOOD, headers={"Content-Type": "image/png"}).status_code == 200


def metrics(served: Served) -> list[str]:
    with served.client(headers={"Authorization": f"Bearer {TOKEN}"}) as http:
        return http.get("/metrics").text.splitlines()
