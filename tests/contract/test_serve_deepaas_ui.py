"""The marketplace's user interface (launch.py and ui_utils.py of ai4os/deepaas_ui), without its page.

What it does with the document and with what is entered is done here step by step, its oddities included.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import requests

from support.serve import Served, serving
from support.tiny import make_model, picture_with_squares, png

GOOD = png(picture_with_squares((0, 0), (2, 3)))
BASE = "/system/services/tiny-live/exposed"
ON_OSCAR = {
    "OSCAR_SERVICE_BASE_PATH": BASE,
    "OSCAR_SERVICE_TOKEN": "a-service-token",
    "OSCAR_SERVICE_NAME": "tiny-live",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("functions"))


@pytest.fixture(scope="module")
def served(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("serve"), model) as served:
        yield served


class Form(NamedTuple):
    """What the user interface makes of the first `.../predict/` of the document."""

    api: str
    path: str
    parameters: list[dict[str, Any]]
    types: list[str]

    @classmethod
    def of(cls, api: str) -> Form:
        document = requests.get(api + "swagger.json").json()
        path = next(path for path in document["paths"] if path.endswith("predict/"))
        operation = document["paths"][path]["post"]
        for kind in operation["produces"]:
            assert kind.startswith(("application/", "image/", "audio/", "video/")), "it ends at any other"
        assert "ModelPredictionResponse" not in document.get("definitions", {}), "it would look for other keys"
        return cls(api, path, operation["parameters"], operation["produces"])

    def about(self) -> dict[str, Any]:
        found: dict[str, Any] = requests.get(f"{self.api}/{self.path.removesuffix('/predict/')}/").json()
        return found

    def submit(self, kind: str, **entered: object) -> requests.Response:
        fields = [each for each in self.parameters if each["name"] != "accept"]
        values = [entered.pop(each["name"], initially(each)) for each in fields]
        assert not entered, "there is no such field"
        sent: dict[str, Any] = {}
        files: dict[str, Any] = {}
        for value, parameter in zip(values, self.parameters, strict=False):  # by their places
            if value or value is False:
                (files if parameter["type"] == "file" else sent)[parameter["name"]] = value
        url = f"{self.api.strip('/')}/{self.path.strip('/')}"
        return requests.post(url, params=sent | {"accept": kind}, files=files, headers={"accept": kind})


def initially(parameter: dict[str, Any]) -> object:
    """What stands in the field before anything is entered."""
    if parameter["type"] == "integer" and {"minimum", "maximum"} <= set(parameter):  # a slider
        return parameter.get("default", parameter["minimum"])
    return parameter.get("default")


def test_its_form_has_the_parameters_and_makes_a_prediction(served: Served) -> None:
    form = Form.of(f"{served.url}/")
    assert {each["name"]: (each["in"], each["type"], each["required"]) for each in form.parameters} == {
        "files": ("formData", "file", True),
        "conf": ("query", "number", False),
        "iou": ("query", "number", False),
        "deadline_ms": ("query", "integer", False),
        "accept": ("query", "string", False),
    }
    assert next(each["enum"] for each in form.parameters if each["name"] == "accept") == form.types
    assert (form.about()["name"], form.about()["description"]) == ("tiny", "Bright squares")
    answer = form.submit("application/json", files=("a.png", GOOD, "image/png"), conf=0.6)
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "OK"
    predictions = answer.json()["predictions"]
    assert [each["label"] for each in predictions["detections"]] == ["bright", "bright"]
    assert predictions["parameters"]["score"] == 0.6
    for kind in form.types[1:]:
        drawn = form.submit(kind, files=("a.png", GOOD, "image/png"))
        assert drawn.headers["content-type"] == kind
        assert cv2.imdecode(np.frombuffer(drawn.content, np.uint8), cv2.IMREAD_COLOR).shape == (64, 64, 3)


def test_what_is_refused_says_why_as_deepaas_routes_do(served: Served) -> None:
    form = Form.of(f"{served.url}/")
    wrong: list[tuple[dict[str, Any], int, str]] = [
        *(({name: value}, 400, name) for name, value in (("conf", 2), ("iou", -1))),
        ({"deadline_ms": 4_000_000}, 400, "deadline"),
        ({"files": ("a.png", b"x", "image/png")}, 422, "picture"),
    ]
    for entered, status, says in wrong:
        answer = form.submit("application/json", **{"files": ("a.png", GOOD, "image/png")} | entered)
        assert answer.status_code == status
        assert says in answer.json()["error"]["message"]


@pytest.mark.parametrize("rewrite_target", [True, False])
def test_it_works_below_oscars_path_with_the_token_in_the_address(
    tmp_path: Path, model: Path, rewrite_target: bool
) -> None:
    with serving(tmp_path, model, **ON_OSCAR) as served:
        root = served.url if rewrite_target else served.url.removesuffix(BASE)
        assert requests.get(f"{root}/swagger.json").status_code == 401
        form = Form.of(f"{root}/".replace("://", "://tiny-live:a-service-token@"))
        document = requests.get(f"{form.api}swagger.json").json()
        assert (document["swagger"], document["basePath"]) == ("2.0", BASE)
        assert form.about()["name"] == "tiny"
        answer = form.submit("application/json", files=("a.png", GOOD, "image/png")).json()
        assert (answer["status"], len(answer["predictions"]["detections"])) == ("OK", 2)


def test_every_model_is_described_and_so_are_the_routes_around_it(tmp_path: Path, model: Path) -> None:
    with serving(tmp_path, model, make_model(tmp_path, "second")) as served:
        paths = requests.get(f"{served.url}/swagger.json").json()["paths"]
        assert list(paths) == [
            "/v2/models/",
            *(f"/v2/models/{name}/{more}" for name in ("tiny", "second") for more in ("", "predict/")),
        ]
        for path, operations in paths.items():
            for method in operations:
                assert requests.request(method, served.url + path).status_code not in (404, 405), path
