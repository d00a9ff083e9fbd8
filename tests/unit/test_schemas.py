import json

import jsonschema_rs
import pytest
import yaml

from buoy import schemas
from support.need import CHECKOUT
from support.tiny import manifest_of


@pytest.mark.parametrize("name", schemas.documents())
def test_committed_schema_is_fresh(name: str) -> None:
    committed = (CHECKOUT / "schemas" / name).read_text()
    assert committed == schemas.documents()[name], "run: python -m buoy.schemas schemas"


def test_the_manifest_schema_takes_what_the_loader_takes() -> None:
    schema = json.loads(schemas.documents()["manifest.schema.json"])
    validator = jsonschema_rs.Draft202012Validator(schema)
    good = yaml.safe_load(yaml.safe_dump(manifest_of("tiny")))
    assert validator.is_valid(good)
    assert not validator.is_valid(good | {"unknown": 1})
    assert not validator.is_valid({key: good[key] for key in good if key != "task"})
