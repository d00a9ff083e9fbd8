"""What a run tells at its end: `report.json`, and a description of the result set for whoever finds it later."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from buoy.batch.bases import FAILED, chain_of
from buoy.batch.ledger import Ledger, tally
from buoy.batch.manifest import Index, read_index
from buoy.batch.merge import File
from buoy.batch.overlay import counts_of
from buoy.batch.seal import Seal
from buoy.batch.spec import Spec
from buoy.errors import StoreError
from buoy.version import VERSION

__all__ = ["crate", "make_report"]


def make_report(
    ledger: Ledger, spec: Spec, index: Index, seal: Seal, files: Sequence[File], *, home: str, now_s: float
) -> dict[str, Any]:
    """Counts that add up to the manifest, throughput, waste, versions.

    Raises:
        StoreError: they do not add up.
    """
    own = tally(leaf.attempt.counts for leaf in seal.leaves)
    counts, rows = counts_of(seal, spec.base), _objects(spec, index)
    if sum(own.values()) != index.rows or sum(counts.values()) != rows:
        raise StoreError(f"the results have {sum(counts.values())} objects, the manifest has {rows}")
    first = ledger.read("coord/000001") or {}
    elapsed_s = max(0.001, now_s - float(first.get("at", now_s)))
    worked_s = sum(leaf.attempt.seconds for leaf in seal.leaves)
    pilots = [record for record in ledger.read_many([each.key for each in ledger.names("hb/")]) if record]
    looked = own.get("ok", 0) + own.get("failed", 0)
    missing = sum(counts.get(status, 0) for status in FAILED)
    return {
        "run": spec.run,
        "source": spec.source,
        "counts": counts,
        "objects": rows,
        "outside_filters": index.outside,
        "newer_than_listing": index.younger,
        **_builds_on(spec, index),
        **_listed(spec, index),
        "retry": f"buoy batch retry {home}/{spec.run}" if missing else "",
        "failures_by_class": tally(leaf.attempt.classes for leaf in seal.leaves),
        "elapsed_s": round(elapsed_s, 1),
        "worked_s": round(worked_s, 1),
        "objects_per_s": round(looked / elapsed_s, 2),
        "cells": len(seal.leaves),
        "pilots": len(pilots),
        "wasted_objects": sum(each["wasted"] for each in pilots),
        "store_retries": sum(each["retries"] for each in pilots),
        "ledger_requests": sum(each["requests"] for each in pilots),
        "ledger_s": round(sum(each["ledger_s"] for each in pilots), 3),
        "model": {
            "name": spec.model.name,
            "version": spec.model.version,
            "weights_sha256": spec.model.weights_sha256,
            "maturity": spec.model.maturity,
        },
        "buoy": VERSION,
        "fingerprint": spec.fingerprint,
        "manifest_sha256": index.sha256,
        "seal": seal.digest,
        "files": [file._asdict() for file in files],
    }


def _objects(spec: Spec, index: Index) -> int:
    """How many objects the results are about: of a retry, those of the run below."""
    for below in chain_of(spec.base) if spec.base is not None and spec.base.kind == "retry" else ():
        found = read_index(below.ledger)
        if found is None:
            raise StoreError(f"the manifest of {below.spec.run} is gone", "does the store delete objects by a rule?")
        index = found
        if below.spec.base is None or below.spec.base.kind != "retry":
            break
    return index.rows


def _builds_on(spec: Spec, index: Index) -> dict[str, Any]:
    """What a retry or a catch-up has to say of the run below."""
    if spec.base is None:
        return {}
    if spec.base.kind == "retry":
        return {"retry_of": spec.base.run, "retried": index.rows}
    return {
        "since": spec.base.run,
        "new": index.rows - index.altered,
        "changed_since": index.altered,
        "known": index.known,
    }


def _listed(spec: Spec, index: Index) -> dict[str, Any]:
    """What the list had beside good lines."""
    if spec.listed is None:
        return {}
    notes = index.notes
    return {
        "list": {
            "where": spec.listed.where,
            "sha256": spec.listed.sha256,
            "bad_lines": notes.bad,
            "faults": list(notes.told),
            "repeated": notes.repeated,
            "older_versions": notes.old,
        }
    }


def crate(spec: Spec, report: dict[str, Any], files: Sequence[File], span: tuple[str, str], now_s: float) -> bytes:
    """RO-Crate 1.1 metadata of the result set (https://w3id.org/ro/crate/1.1)."""
    made = datetime.fromtimestamp(now_s, UTC).isoformat(timespec="seconds")
    parts: list[dict[str, Any]] = [
        {
            "@id": file.name,
            "@type": "File",
            "contentSize": str(file.size_bytes),
            "sha256": file.sha256,
            "encodingFormat": "text/csv" if file.name.endswith(".csv") else "application/vnd.apache.parquet",
        }
        for file in files
    ]
    parts.append({"@id": "report.json", "@type": "File", "encodingFormat": "application/json"})
    root: dict[str, Any] = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"{spec.model.name} over {spec.source}",
        "description": f"{report['objects']} objects looked at with {spec.model.name} {spec.model.version}",
        "datePublished": made,
        "identifier": report["run"],
        "hasPart": [{"@id": part["@id"]} for part in parts],
        "mentions": {"@id": "#run"},
    }
    if span[0]:
        root["temporalCoverage"] = f"{span[0]}/{span[1]}"
    model = f"urn:sha256:{spec.model.weights_sha256}"
    graph = [
        {
            "@id": "ro-crate-metadata.json",
            "@type": "CreativeWork",
            "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
            "about": {"@id": "./"},
        },
        root,
        *parts,
        {
            "@id": "#run",
            "@type": "CreateAction",
            "endTime": made,
            "instrument": [{"@id": "#buoy"}, {"@id": model}],
            "object": {"@id": spec.source},
            "result": [{"@id": part["@id"]} for part in parts],
        },
        {"@id": "#buoy", "@type": "SoftwareApplication", "name": "buoy", "softwareVersion": VERSION},
        {
            "@id": model,
            "@type": "SoftwareSourceCode",
            "name": spec.model.name,
            "version": spec.model.version,
            "sha256": spec.model.weights_sha256,
            "creativeWorkStatus": spec.model.maturity,
        },
        {"@id": spec.source, "@type": "Dataset", "name": "input", "sha256": report["manifest_sha256"]},
    ]
    document = {"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": graph}
    return json.dumps(document, indent=2, ensure_ascii=False).encode()
