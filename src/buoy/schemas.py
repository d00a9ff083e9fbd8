"""The JSON Schemas that are committed under schemas/, generated from the classes that read and write the files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from buoy.manifest import json_schema
from buoy.results import Failure, Result

__all__ = ["documents", "write"]


def documents() -> dict[str, str]:
    """File name to text of every schema."""
    manifest = {"title": "The manifest.yaml of a model folder", **json_schema()}
    result = {"title": "A buoy.result/1 record", **_result_schema()}
    return {"manifest.schema.json": _text(manifest), "result.schema.json": _text(result)}


def write(folder: Path) -> None:
    """Write them all into `folder`."""
    for name, text in documents().items():
        (folder / name).write_text(text, encoding="utf-8")


def _result_schema() -> dict[str, Any]:
    schemas, components = msgspec.json.schema_components([Result, Failure], ref_template="#/$defs/{name}")
    for record in (Result, Failure):  # the classes fill it in, a file must have it
        components[record.__name__]["required"].insert(0, "schema")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "oneOf": list(schemas), "$defs": components}


def _text(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    write(Path(sys.argv[1]))
