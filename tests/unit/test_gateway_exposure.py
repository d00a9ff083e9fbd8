"""What an `expose` block means."""

from __future__ import annotations

from typing import Any

import pytest

from buoy.errors import ServiceError
from buoy.gateway.exposed_access import strip_cookies, token_in, without_token
from buoy.gateway.exposure import Exposure
from buoy.gateway.instance import pending_in
from buoy.gateway.services import service_from
from buoy.gateway.slots import Slots
from buoy.serve.metrics import Metrics


def exposure(**expose: Any) -> Exposure | None:
    body = {"name": "fish", "script": "true", "expose": expose, "environment": {"Variables": {"BUOY_MODEL": "m"}}}
    return service_from(body, token="t").exposure


def exposed(**expose: Any) -> Exposure:
    found = exposure(api_port=80, **expose)
    assert found is not None
    return found


def test_without_a_port_a_service_is_not_exposed() -> None:
    assert exposure(min_scale=1, set_auth=True) is None
    # what oscar-cli sends with every service
    assert exposure(min_scale=0, max_scale=0, api_port=0, cpu_threshold=0, rewrite_target=False) is None


def test_what_is_left_out_is_as_documented_and_zero_is_a_number_of_instances() -> None:
    assert (exposed().min_scale, exposed().max_scale, exposed().health_path) == (1, 10, "/")
    assert exposed(min_scale=0).min_scale == 0


def test_the_mode_of_access_is_upstreams() -> None:
    assert exposed().access == "none"
    assert exposed(set_auth=True).access == "basic"
    assert exposed(set_auth=True, auth_type="forward").access == "forward"


def test_the_probe_of_legacy_services_has_the_prefix() -> None:
    assert exposed(health_path="live").health_path == "/live"
    whole = exposed(health_path="/live", rewrite_target=True, probe_mode="legacy")
    assert whole.health_path == "/system/services/fish/exposed/live"
    assert exposed(health_path="/live", probe_mode="legacy").health_path == "/live"


@pytest.mark.parametrize(
    ("expose", "says"),
    [
        ({"min_scale": 3, "max_scale": 2}, "min_scale 3 and max_scale 2"),
        ({"min_scale": -1}, "min_scale -1"),
        ({"auth_type": "magic"}, "auth_type 'magic': expected basic or forward"),
    ],
)
def test_what_cannot_be_run_is_refused(expose: dict[str, Any], says: str) -> None:
    with pytest.raises(ServiceError, match=says):
        exposed(**expose)


def test_an_image_without_a_model_is_refused() -> None:
    body = {"name": "fish", "script": "true", "expose": {"api_port": 80, "default_command": True}}
    with pytest.raises(ServiceError, match="images do not run here"):
        service_from(body, token="t")


def test_the_token_goes_no_further_and_the_rest_of_the_query_does() -> None:
    assert without_token(b"token=x") == b""
    assert without_token(b"a=%20&token=x&b&tokens=1") == b"a=%20&b&tokens=1"
    assert token_in("/system/services/fish/exposed/?a=1&token=x%2B") == "x+"
    assert token_in("/") == ""
    assert strip_cookies(b"a=1; buoy_session=s ;b=2", ("buoy_session",)) == b"a=1;b=2"
    assert strip_cookies(b"buoy_session=s", ("buoy_session",)) == b""


def test_the_queue_is_read_from_the_names_that_the_service_has() -> None:
    metrics = Metrics()
    metrics.pending.set(3, model="a")
    metrics.pending.set(4, model="b")
    assert pending_in(metrics.text().encode()) == 7
    assert pending_in(b"") == pending_in(b"other 1\n") == 0


def test_instances_and_jobs_share_the_machine() -> None:
    slots = Slots(cpu_milli=2000, memory_bytes=1 << 30)
    one = service_from({"name": "a", "script": "true", "cpu": "1", "memory": "100Mi"}, token="t")
    job = service_from({"name": "b", "script": "true", "cpu": "1", "memory": "100Mi"}, token="t")
    assert slots.hold(one, must=True) == (0, 100 << 20)  # idle most of the time: jobs may have the cores
    first, second = slots.hold(one, must=False), slots.hold(one, must=False)
    assert first is not None
    assert second is not None
    assert slots.hold(one, must=False) is None
    slots.take(job)  # something may always run
    assert slots.pick([(1, one, False)]) is None
    slots.let_go(first)
    assert slots.hold(one, must=False) is None  # the job has it now
    slots.give(job)
    assert slots.hold(one, must=False) is not None
