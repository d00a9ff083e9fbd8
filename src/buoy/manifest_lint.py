"""What is wrong with a manifest: every fault at once, each with its line and the nearest known key."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema_rs
import yaml

from buoy.errors import ManifestError

__all__ = ["Fault", "explain", "faults"]

Steps = tuple[str | int, ...]
Schema = dict[str, Any]


class Fault(NamedTuple):
    """One thing to mend, at a line of the file (from 1)."""

    line: int
    message: str


def explain(path: Path, text: str, schema: Schema) -> ManifestError:
    """One error that lists all faults of the manifest, one a line, as `file:line: what`."""
    found = faults(text, schema)
    lines = [f"{path}:{fault.line}: {fault.message}" for fault in found]
    return ManifestError("\n".join(lines), "mend the lines named, then run: buoy check")


def faults(text: str, schema: Schema) -> list[Fault]:
    """All faults of a manifest's text by its JSON Schema, in the order of its lines."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return [Fault(mark.line + 1 if mark else 1, f"not YAML: {error.problem or error}")]
    except yaml.YAMLError as unmarked:
        return [Fault(1, f"not YAML: {unmarked}")]
    if root is None:
        return [Fault(1, "the file is empty")]
    lines: dict[Steps, int] = {}
    found: list[Fault] = []
    _walk(root, (), lines, found)
    data = yaml.safe_load(text)
    validator = jsonschema_rs.Draft202012Validator(schema)
    for broken in validator.iter_errors(data):
        found += _faults_of(broken, lines, schema)
    found += _repeated_labels(data, lines)
    return sorted(set(found))


def _walk(node: yaml.Node, steps: Steps, lines: dict[Steps, int], found: list[Fault]) -> None:
    """Note the line of every key and item, and keys that stand twice (YAML silently takes the last)."""
    lines.setdefault(steps, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                found.append(Fault(line, f"{_name((*steps, key.value))} stands twice"))
            seen.add(key.value)
            lines[(*steps, key.value)] = line
            _walk(value, (*steps, key.value), lines, found)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _walk(item, (*steps, index), lines, found)


def _faults_of(error: jsonschema_rs.ValidationError, lines: dict[Steps, int], schema: Schema) -> list[Fault]:
    steps = tuple(error.instance_path)
    line = _line(steps, lines)
    kind: Any = error.kind  # each kind has attributes of its own
    if kind.name == "additionalProperties":
        known = _known_keys(error, schema)
        return [
            Fault(_line((*steps, key), lines), f"unknown key {_name((*steps, key))}{_nearest(key, known)}")
            for key in kind.unexpected
        ]
    if kind.name == "required":
        return [Fault(line, f"{_name((*steps, str(kind.property)))} is missing")]
    if kind.name == "anyOf" and steps and steps[0] == "classes":
        return [Fault(line, f"{_name(steps)} is {_shown(error.instance)}: give a name (quoted), or label and taxon")]
    return [Fault(line, f"{_name(steps)}: {error.message}")]


def _known_keys(error: jsonschema_rs.ValidationError, schema: Schema) -> list[str]:
    """The keys that the schema has at the place of the error."""
    node: Any = schema
    for step in error.schema_path[:-1]:  # the last step names the rule that was broken
        node = node[step]
    return sorted(node.get("properties", {}))


def _repeated_labels(data: Any, lines: dict[Steps, int]) -> list[Fault]:
    classes = data.get("classes") if isinstance(data, dict) else None
    found, seen = [], set()
    for index, entry in enumerate(classes if isinstance(classes, list) else []):
        label = entry.get("label") if isinstance(entry, dict) else entry
        if isinstance(label, str) and label in seen:
            found.append(Fault(_line(("classes", index), lines), f"classes[{index}]: the label {label!r} stands twice"))
        if isinstance(label, str):
            seen.add(label)
    return found


def _line(steps: Steps, lines: dict[Steps, int]) -> int:
    while steps not in lines and steps:
        steps = steps[:-1]
    return lines.get(steps, 1)


def _name(steps: Steps) -> str:
    """A path as people write it: input.size, classes[3]."""
    name = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return name.lstrip(".") or "the file"


def _nearest(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known here: {', '.join(known)}"


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
