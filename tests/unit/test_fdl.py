"""FDL files: rendered from manifests, read alike by every client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from buoy import fdl, outputs
from buoy.cli.fdl import fdl as command
from buoy.errors import ServiceError
from buoy.fdl import Site, render, text, tree
from buoy.gateway.services import service_from
from buoy.manifest import Manifest, Needs
from support.need import CHECKOUT
from support.tiny import make_model

SITE = Site(cluster_id="my-oscar", image_prefix="registry.example.org/sea", outputs=["json", "drawn"])


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "functions"
    make_model(folder, "tiny", version="1.2+b3", needs={"cpu": 0.5, "memory": "512Mi"})
    make_model(folder, "other")
    monkeypatch.setenv("BUOY_FUNCTIONS", str(folder))
    return folder


def service(folder: Path, site: Site = SITE, variant: fdl.Variant = "async") -> dict[str, Any]:
    document = render(Manifest.load(folder), site, variant)
    (cluster,) = document["functions"]["oscar"]
    found: dict[str, Any] = cluster[site.cluster_id]
    return found


def test_a_service_comes_from_manifest_and_site(functions: Path) -> None:
    assert service(functions / "tiny") == {
        "name": "tiny",
        "cpu": "0.5",
        "memory": "512Mi",
        "image": "registry.example.org/sea/tiny:1.2-b3",
        "script": "../script.sh",
        "log_level": "CRITICAL",
        "input": [{"storage_provider": "minio.default", "path": "tiny/input"}],
        "output": [{"storage_provider": "minio.default", "path": "tiny/output"}],
        "environment": {"Variables": {"BUOY_MODEL": "tiny", "BUOY_INPUT": "tiny/input", "BUOY_OUTPUTS": "json,drawn"}},
    }


def test_a_service_of_pilots_comes_from_them_too(functions: Path) -> None:
    assert service(functions / "tiny", variant="batch") == {
        "name": "tiny-batch",
        "cpu": "0.5",
        "memory": "512Mi",
        "image": "registry.example.org/sea/tiny-batch:1.2-b3",
        "script": "../script.sh",
        "log_level": "CRITICAL",
        "file_stage_in": True,
        "environment": {"Variables": {"BUOY_MODEL": "tiny"}},
    }


def test_an_exposed_service_comes_from_them_too(functions: Path) -> None:
    site = msgspec.structs.replace(SITE, scale=(0, 3), rewrite_target=False)
    assert service(functions / "tiny", site, "exposed") == {
        "name": "tiny-live",
        "cpu": "0.5",
        "memory": "512Mi",
        "image": "registry.example.org/sea/tiny-live:1.2-b3",
        "script": "../script.sh",
        "log_level": "CRITICAL",
        "expose": {
            "min_scale": 0,
            "max_scale": 3,
            "api_port": [8000],
            "cpu_threshold": 80,
            "rewrite_target": False,
            "default_command": True,
            "set_auth": True,
            "health_path": "/v2/health/ready",
        },
        "environment": {"Variables": {"BUOY_MODEL": "tiny"}},
    }
    with pytest.raises(ServiceError, match="the least number of instances comes first"):
        service(functions / "tiny", msgspec.structs.replace(SITE, scale=(3, 2)), "exposed")


def test_a_volume_keeps_the_streams_of_one_instance(functions: Path) -> None:
    site = msgspec.structs.replace(SITE, scale=(1, 1), volume="1Gi")
    found = service(functions / "tiny", site, "exposed")
    volume = {"name": "tiny-live", "size": "1Gi", "mount_path": "/data", "lifecycle_policy": "delete"}
    assert found["volume"] == volume
    assert found["environment"]["Variables"]["BUOY_SERVE_DATA"] == volume["mount_path"]
    for variant in ("async", "batch"):
        assert service(functions / "tiny", site, variant) == service(functions / "tiny", SITE, variant)  # type: ignore[arg-type]
    with pytest.raises(ServiceError, match=r"volume: 1Gi with scale: \[1, 2\].*each instance"):
        service(functions / "tiny", msgspec.structs.replace(site, scale=(1, 2)), "exposed")


def test_a_gpu_is_asked_for_only_where_it_is_needed(functions: Path) -> None:
    manifest = msgspec.structs.replace(Manifest.load(functions / "tiny"), needs=Needs(gpu=True))
    (cluster,) = render(manifest, SITE)["functions"]["oscar"]
    assert cluster["my-oscar"]["enable_gpu"] is True
    (cluster,) = render(manifest, SITE, "exposed")["functions"]["oscar"]
    assert cluster["my-oscar"]["enable_gpu"] is True


@pytest.mark.parametrize(("source", "target"), [("input", "input"), ("in", "in/out"), ("data/in", "data")])
def test_folders_inside_each_other_are_refused(functions: Path, source: str, target: str) -> None:
    with pytest.raises(ServiceError, match="inside each other"):
        service(functions / "tiny", Site(input_folder=source, output_folder=target))


def test_folders_with_a_common_beginning_are_not_inside_each_other(functions: Path) -> None:
    site = Site(input_folder="in", output_folder="in-results")
    assert service(functions / "tiny", site)["output"][0]["path"] == "tiny/in-results"


def test_a_name_that_oscar_would_cut_is_refused(functions: Path) -> None:
    manifest = msgspec.structs.replace(Manifest.load(functions / "tiny"), name="n" * 19)
    with pytest.raises(ServiceError, match="19 characters; 18 are possible"):
        render(manifest, SITE)


def test_every_output_format_can_be_asked_for() -> None:
    assert set(get_args(fdl.OutputFormat)) == set(outputs.FORMATS)


class GoPath(msgspec.Struct, forbid_unknown_fields=True):
    storage_provider: str
    path: str


class GoEnvironment(msgspec.Struct, forbid_unknown_fields=True):
    Variables: dict[str, str]  # the only spelling that oscar-cli reads


class GoService(msgspec.Struct, forbid_unknown_fields=True):
    """The fields of oscar-cli (grycap/oscar v3.3.0 pkg/types/service.go) that our files use, with their types."""

    name: str
    cpu: str
    memory: str
    image: str
    script: str
    log_level: str
    input: list[GoPath]
    output: list[GoPath]
    environment: GoEnvironment


class GoExpose(msgspec.Struct, forbid_unknown_fields=True):
    """Of the server (grycap/oscar v4 pkg/types/expose.go): it applies no defaults, so none may be absent."""

    min_scale: int
    max_scale: int
    api_port: list[int]
    cpu_threshold: int
    rewrite_target: bool
    default_command: bool
    set_auth: bool
    health_path: str


class GoVolume(msgspec.Struct, forbid_unknown_fields=True):
    """Of the server (grycap/oscar v4 pkg/types/service.go)."""

    name: str
    size: str
    mount_path: str
    lifecycle_policy: Literal["delete", "retain"]


class GoExposed(msgspec.Struct, forbid_unknown_fields=True):
    """The fields of the server that our exposed services use."""

    name: str
    cpu: str
    memory: str
    image: str
    script: str
    log_level: str
    expose: GoExpose
    environment: GoEnvironment
    volume: GoVolume | None = None


KEPT = "cluster_id: my-oscar\nscale: [1, 1]\nvolume: 1Gi\n"


def written(functions: Path, folder: Path, site: str = "cluster_id: my-oscar\n") -> Path:
    folder.mkdir()
    (folder / fdl.SITE_FILE).write_text(site)
    fdl.write(tree(folder, [functions / "tiny"]))
    return folder / "tiny" / "async.yaml"


def test_the_types_are_those_of_the_go_clients(functions: Path, tmp_path: Path) -> None:
    document = yaml.safe_load(written(functions, tmp_path / "fdl").read_text())
    (cluster,) = document["functions"]["oscar"]
    assert msgspec.convert(cluster["my-oscar"], GoService).cpu == "0.5"
    exposed = yaml.safe_load((tmp_path / "fdl" / "tiny" / "exposed.yaml").read_text())
    (cluster,) = exposed["functions"]["oscar"]
    assert msgspec.convert(cluster["my-oscar"], GoExposed).expose.api_port == [8000]
    kept = written(functions, tmp_path / "kept", KEPT).with_name("exposed.yaml")
    (cluster,) = yaml.safe_load(kept.read_text())["functions"]["oscar"]
    assert msgspec.convert(cluster["my-oscar"], GoExposed).volume == GoVolume("tiny-live", "1Gi", "/data", "delete")


def test_oscar_python_reads_it_as_meant(functions: Path, tmp_path: Path) -> None:
    path = written(functions, tmp_path / "fdl", KEPT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # webdavclient3, which it imports, has invalid escapes in its strings
        from oscar_python.client import Client
    options = {"cluster_id": "my-oscar", "endpoint": "http://127.0.0.1:1", "user": "u", "password": "p", "ssl": "False"}
    site = Site.load(path.parents[1])
    for variant in fdl.VARIANTS:
        read = Client(options)._check_fdl_definition(str(path.with_name(f"{variant}.yaml")))
        assert read == {**service(functions / "tiny", site, variant), "script": fdl.SCRIPT}


def test_the_server_reads_what_a_client_sends(functions: Path) -> None:
    sent = json.loads(json.dumps({**service(functions / "tiny"), "script": fdl.SCRIPT}))
    read = service_from(sent, token="t")
    assert (read.name, read.cpu_milli, read.memory_bytes) == ("tiny", 500, 512 << 20)
    assert read.variables["BUOY_MODEL"] == "tiny"
    assert read.inputs[0].holds("tiny", "input/2011/a.jpg")
    assert not read.inputs[0].holds("tiny", "output/a.jpg.json")
    sent = json.loads(json.dumps({**service(functions / "tiny", variant="exposed"), "script": fdl.SCRIPT}))
    exposure = service_from(sent, token="t").exposure
    assert exposure is not None
    assert (exposure.prefix, exposure.access) == ("/system/services/tiny-live/exposed", "basic")
    assert (exposure.min_scale, exposure.max_scale, exposure.whole_path) == (1, 2, True)
    site = msgspec.structs.replace(SITE, scale=(1, 1), volume="1Gi")
    sent = json.loads(json.dumps({**service(functions / "tiny", site, "exposed"), "script": fdl.SCRIPT}))
    assert service_from(sent, token="t").definition["volume"] == sent["volume"]


def test_the_text_is_marked_and_always_the_same(functions: Path, tmp_path: Path) -> None:
    path = written(functions, tmp_path / "fdl")
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# Generated by buoy fdl; do not edit.")
    assert '        cpu: "0.5"' in lines
    assert '        memory: "512Mi"' in lines
    assert tree(tmp_path / "fdl", [functions / "tiny"])[path] == path.read_text()


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs"])))
def test_any_text_comes_back_as_text(value: str) -> None:
    assert yaml.safe_load(text({"key": value}, "x")) == {"key": value}


@pytest.mark.parametrize(
    "value",
    ["y", "n", "no", "On", "TRUE", "null", "~", "", "1e3", "0o17", "0x1f", "1:30", "1_000", ".5", "2011-01-02", "inf"],
)
def test_text_that_some_reader_takes_for_something_else_is_quoted(value: str) -> None:
    assert text({"key": value}, "x").splitlines()[1] == f'key: "{value}"'


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("cluster: x", "unknown key 'cluster'.*did you mean cluster_id"),
        ("password: x", "unknown key 'password'.*known: cluster_id"),
        ("outputs: [pdf]", r"Invalid enum value 'pdf'.*outputs"),
        ("outputs: []", "length >= 1"),
        ("log_level: LOUD", "Invalid enum value 'LOUD'"),
        ("cluster_id: 7", "Expected `str`"),
        ("scale: [1, 0]", ">= 1"),
        ("scale: 3", "Expected `array`"),
        ("volume: 1GB", "matching regex"),
        ("volume: 0Gi", "matching regex"),
        ("input_folder: ../x", "matching regex"),
        ("input_folder: /x", "matching regex"),
        ("storage_provider: s3.mine", "matching regex"),
        ("[a]", "Expected `object`"),
        ("a: [", "cannot be read"),
    ],
)
def test_a_wrong_site_file_is_told_with_its_key(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "site.yaml").write_text(content)
    with pytest.raises(ServiceError, match=f"site.yaml.*(?s:{says})"):
        Site.load(tmp_path)


def test_without_a_site_file_the_defaults_hold(tmp_path: Path) -> None:
    assert Site.load(tmp_path) == Site()
    (tmp_path / "site.yaml").write_text("# nothing set\n")
    assert Site.load(tmp_path) == Site()


def test_the_script_is_posix_shell_and_hands_its_exit_code_on(tmp_path: Path) -> None:
    stand_in = tmp_path / "buoy"
    stand_in.write_text('#!/bin/sh\n[ "$*" = function ] && exit 3\n')
    stand_in.chmod(0o755)
    (tmp_path / "script.sh").write_text(fdl.SCRIPT)
    env = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    assert subprocess.run(["/bin/sh", str(tmp_path / "script.sh")], env=env).returncode == 3


def test_the_command_writes_what_differs_and_checks_it(functions: Path) -> None:
    folder = functions.parent / "fdl"
    models = [folder / model / f"{variant}.yaml" for model in ("other", "tiny") for variant in fdl.VARIANTS]
    files = [folder / "script.sh", *models]
    run = CliRunner()
    missing = run.invoke(command, ["--check"], standalone_mode=False)
    assert (missing.return_value, missing.stdout.splitlines()) == (1, [str(path) for path in files])
    assert not folder.exists()
    first = run.invoke(command, [], standalone_mode=False)
    assert (first.return_value, first.stdout.splitlines()) == (0, [str(path) for path in files])
    assert run.invoke(command, [], standalone_mode=False).stdout == ""
    assert run.invoke(command, ["--check"], standalone_mode=False).return_value == 0
    files[-1].write_text(files[-1].read_text().replace("0.5", "0.6"))
    stale = run.invoke(command, ["--check"], standalone_mode=False)
    assert (stale.return_value, stale.stdout.splitlines()) == (1, [str(files[-1])])
    assert run.invoke(command, ["other", "--check"], standalone_mode=False).return_value == 0
    assert run.invoke(command, ["tiny"], standalone_mode=False).stdout.splitlines() == [str(files[-1])]


def test_a_file_whose_model_is_gone_is_stale(functions: Path, tmp_path: Path) -> None:
    folder = tmp_path / "deployed"
    run = CliRunner()
    run.invoke(command, ["-o", str(folder)], standalone_mode=False)
    (functions / "other").rename(tmp_path / "away")
    (folder / "own").mkdir()
    (folder / "own" / "service.yaml").write_text("# written by hand\n")
    stale = run.invoke(command, ["-o", str(folder), "--check"], standalone_mode=False)
    gone = [str(folder / "other" / f"{variant}.yaml") for variant in fdl.VARIANTS]
    assert (stale.return_value, stale.stdout.splitlines()) == (1, gone)


def test_the_committed_files_are_fresh() -> None:
    models = sorted(path.parent for path in (CHECKOUT / "functions").glob("*/manifest.yaml"))
    files = tree(CHECKOUT / "fdl", models)
    assert len(files) > 1
    assert fdl.stale(files) == []
    assert fdl.orphans(CHECKOUT / "fdl", files) == []


def test_the_console_command_knows_fdl(functions: Path) -> None:
    code = "import sys; from buoy.cli import main; sys.argv[1:] = ['fdl', '--check']; main()"
    env = {"PATH": os.environ["PATH"], "BUOY_FUNCTIONS": str(functions)}
    ended = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "stale: run buoy fdl" in ended.stderr
