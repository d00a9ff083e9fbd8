import subprocess
import sys
import tomllib
from importlib import import_module

import buoy
from support.need import CHECKOUT


def test_public_names_are_sorted_and_there() -> None:
    assert buoy.__all__ == sorted(buoy.__all__)
    for name in buoy.__all__:
        assert getattr(buoy, name).__name__ == name


def test_every_error_of_ours_is_in_the_tree_and_listed() -> None:
    errors = import_module("buoy.errors")
    ours = {
        name
        for name, thing in vars(errors).items()
        if isinstance(thing, type) and issubclass(thing, Exception) and thing.__module__ == "buoy.errors"
    }
    assert ours <= set(errors.__all__)
    assert all(name in errors.__doc__ for name in ours)


def test_importing_buoy_costs_nothing() -> None:
    code = "import sys, buoy; print(sorted(set(sys.modules) & {'numpy', 'onnxruntime', 'cv2', 'yaml', 'msgspec'}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_version_is_that_of_the_distribution() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    assert buoy.__version__ == project["version"]
