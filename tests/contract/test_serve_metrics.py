"""The numbers of the service, and the dashboard that shows them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.need import CHECKOUT
from support.serve import Served, serving
from support.tiny import make_model, picture_with_squares, png

GOOD = png(picture_with_squares((0, 0), (2, 3)))
JPEG = {"Content-Type": "image/jpeg"}
#: What Prometheus itself adds, or a function needs.
OF_PROMETHEUS = {"job", "instance", "le"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    model = make_model(tmp_path_factory.mktemp("functions"))
    with serving(tmp_path_factory.mktemp("serve"), model) as served, served.client() as http:
        for data in (GOOD, GOOD, b"bad"):
            http.post("/predict", content=data, headers=JPEG)
        http.post("/streams", json={"name": "cam", "source": "push:"}).raise_for_status()
        yield served


@pytest.fixture(scope="module")
def families(served: Served) -> dict[str, set[str]]:
    """Name of each sample, or of a family without one, and the labels it has."""
    with served.client() as http:
        text = http.get("/metrics").text
    found: dict[str, set[str]] = {}
    assert all(family.documentation for family in text_string_to_metric_families(text))
    for name, labels in re.findall(r"^([a-z]\w*)(?:{(.*)})? ", text, re.MULTILINE):
        found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    for name in re.findall(r"^# TYPE (\S+)", text, re.MULTILINE):
        if not any(each == name or each.startswith(f"{name}_") for each in found):
            found[name] = set()
    return found


def expressions(of: Any) -> list[str]:
    if isinstance(of, dict):
        own = [of[key] for key in ("expr", "query") if isinstance(of.get(key), str)]
        return own + [each for value in of.values() for each in expressions(value)]
    return [each for value in of for each in expressions(value)] if isinstance(of, list) else []


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CHECKOUT / "services" / "exposed" / "grafana.json").read_text())
    return found


def test_every_number_of_the_dashboard_is_served(families: dict[str, set[str]]) -> None:
    shown = [each for each in expressions(dashboard()) if each != "prometheus"]
    assert len(shown) > 20
    for expression in shown:
        names = re.findall(r"\b(?:nv_inference|buoy)_\w+", expression)
        assert names, expression
        wanted = set(re.findall(r"(\w+)\s*=~?", expression))
        wanted |= {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
        for name in names:
            assert name in families, f"{name} is not served"
            if families[name]:
                assert wanted - OF_PROMETHEUS <= families[name], expression


def test_every_number_is_on_the_dashboard(families: dict[str, set[str]]) -> None:
    shown = " ".join(expressions(dashboard()))
    missing = [
        name
        for name in families
        if re.sub(r"_(bucket|sum|count)$", "", name) not in shown
        # shown as a histogram, and under other programs' names
        and not name.startswith(("nv_inference_request_dur", "frigate_"))
    ]
    assert missing == []


def test_panels_do_not_overlap_and_have_names_of_their_own() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_parts_of_a_picture_add_up_and_are_counted_once(served: Served) -> None:
    answered = served.metric("nv_inference_request_success")
    assert answered == 2
    for part in ("queue", "decode", "inference", "post"):
        assert served.metric(f"buoy_{part}_seconds_count", model="tiny") == answered
    for part, counter in (("inference", "compute_infer"), ("decode", "compute_input"), ("queue", "queue")):
        in_us = served.metric(f"nv_inference_{counter}_duration_us")
        assert served.metric(f"buoy_{part}_seconds_sum") == pytest.approx(in_us / 1e6, rel=0.01, abs=1e-5)
    assert served.metric("buoy_batch_size_count") == answered
    assert served.metric("nv_inference_request_failure", reason="InputError") == 1
    assert served.metric("buoy_refused_total", reason="InputError") == 1
    assert served.metric("buoy_worker_restarts_total", model="tiny") == 0
    assert served.metric("buoy_queue_depth", model="tiny") == 0


def test_what_strangers_make_up_becomes_no_label(served: Served) -> None:
    with served.client() as http:
        for number in range(30):
            http.get(f"/made-up-{number}", headers={"X-Request-ID": f"made-up-{number}"})
            http.get(f"/v2/models/made-up-{number}")
            http.post("/predict", content=GOOD, params={f"made-up-{number}": "1"}, headers=JPEG)
        text = http.get("/metrics").text
    assert "made-up" not in text
    assert len(text.splitlines()) < 400
