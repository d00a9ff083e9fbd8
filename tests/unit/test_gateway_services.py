"""Service definitions: what comes in, what is made of it."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buoy.errors import ServiceError
from buoy.gateway.services import BucketPath, public, quantity, service_from

MINIMAL = {"name": "fish", "script": "true"}


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.5", 0.5), ("500m", 0.5), ("2", 2), ("2k", 2000), ("256Mi", 256 << 20), ("1.5Gi", 1.5 * 2**30), ("1e3", 1000)],
)
def test_quantities_are_read_as_kubernetes_reads_them(text: str, value: float) -> None:
    assert quantity(text) == value


@given(st.text(max_size=8))
def test_a_quantity_is_read_or_refused(text: str) -> None:
    with suppress(ValueError):
        assert quantity(text) >= 0


def test_keys_match_in_any_case_and_unknown_ones_are_ignored() -> None:
    body = {
        "NAME": "fish",
        "Script": "a\r\nb\r\n",
        "Memory": "1Gi",
        "environment": {"Variables": {"BUOY_MODEL": "m", "N": 1, "YES": True}, "SECRETS": {"S": "x"}},
        "Expose": {"API_PORT": 80, "nodeport": [1, 2]},
        "replicas": [1],
    }
    service = service_from(body, token="t")
    assert service.script == "a\nb\n"
    assert service.memory_bytes == 1 << 30
    assert service.variables == {"BUOY_MODEL": "m", "N": "1", "YES": "true", "S": "x"}
    assert service.definition["expose"]["api_port"] == [80]
    assert service.definition["expose"]["nodePort"] == [1, 2]
    assert "replicas" not in service.definition


def test_what_is_left_out_has_oscars_defaults() -> None:
    service = service_from(MINIMAL, token="t", owner="me")
    assert (service.cpu_milli, service.memory_bytes) == (200, 256 << 20)
    shown = public(service, {"endpoint": "e"})
    assert shown["expose"] | {"rewrite_target": None} == {
        "min_scale": 1,
        "max_scale": 10,
        "cpu_threshold": 80,
        "rewrite_target": None,
        "default_command": False,
        "set_auth": False,
        "health_path": "/",
    }
    assert (shown["visibility"], shown["log_level"], shown["owner"], shown["token"]) == ("private", "INFO", "me", "t")
    assert shown["input"] == shown["output"] == shown["allowed_users"] == []


def test_secrets_and_passwords_do_not_come_back() -> None:
    body = {
        **MINIMAL,
        "environment": {"secrets": {"KEY": "secret"}},
        "clusters": {"site": {"endpoint": "e", "auth_password": "secret"}, "odd": 1},
        "storage_providers": {"s3": {"x": {}}},
    }
    shown = public(service_from(body, token="t"), {"endpoint": "e", "secret_key": "secret"})
    assert "'secret'" not in repr(shown)
    assert set(shown["storage_providers"]) == {"s3", "minio"}


def test_a_definition_survives_a_round() -> None:
    first = service_from({**MINIMAL, "input": [{"path": "abc/b"}], "cpu": 0.5}, token="t", owner="me")
    assert service_from(first.definition, token="t", owner="me") == first


@pytest.mark.parametrize(
    ("path", "bucket", "prefix"),
    [("abc/in", "abc", "in/"), (" /abc/in/deep/ ", "abc", "in/deep/"), ("in", "fish", "in/")],
)
def test_paths_are_read_by_oscars_rule(path: str, bucket: str, prefix: str) -> None:
    (read,) = service_from({**MINIMAL, "input": [{"path": path}]}, token="t").inputs
    assert (read.bucket, read.key_prefix) == (bucket, prefix)


def test_a_path_holds_what_lies_below_it_and_no_folder_markers() -> None:
    path = BucketPath("abc", "in")
    assert path.holds("abc", "in/x")
    assert not path.holds("abc", "input/x")
    assert not path.holds("abc", "in/deep/")
    assert not path.holds("abd", "in/x")


def test_outputs_are_filtered_by_prefix_and_suffix() -> None:
    path = BucketPath("abc", "out", prefixes=("a/", "b"), suffixes=(".json",))
    assert path.takes("a/x.json")
    assert path.takes("b.json")
    assert not path.takes("x/a/x.json")
    assert not path.takes("a/x.jpg")


KEYS = st.sampled_from(["cpu", "input", "path", "environment", "variables", "expose", "api_port", "Script"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
)


@given(st.dictionaries(KEYS, JSON))
def test_anything_is_a_service_or_a_service_error(body: dict[str, object]) -> None:
    with suppress(ServiceError):
        assert service_from({**MINIMAL, **body}, token="t").name == "fish"
