"""Inventories of buckets, as S3 writes them."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pyarrow as pa
import pyarrow.orc
import pyarrow.parquet as pq

__all__ = ["entry", "inventory"]


def inventory(folder: Path, form: str, rows: list[dict[str, Any]], *, bucket: str = "archive") -> Path:
    """An inventory as S3 makes it, copied into a folder, with two files."""
    names = ["Bucket", "Key", "VersionId", "IsLatest", "IsDeleteMarker", "Size", "LastModifiedDate", "ETag"]
    files = []
    for number, part in enumerate((rows[: len(rows) // 2], rows[len(rows) // 2 :])):
        path = folder / "data" / f"{number}.{form.lower()}{'.gz' if form == 'CSV' else ''}"
        path.parent.mkdir(exist_ok=True)
        if form == "CSV":
            text = io.StringIO()
            writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
            for row in part:
                cells = [str(row[name]).lower() if isinstance(row[name], bool) else row[name] for name in names]
                writer.writerow([cells[0], quote_plus(cells[1], safe="/"), *cells[2:]])
            path.write_bytes(gzip.compress(text.getvalue().encode()))
        else:
            snake = [
                "bucket",
                "key",
                "version_id",
                "is_latest",
                "is_delete_marker",
                "size",
                "last_modified_date",
                "e_tag",
            ]
            times = [datetime.fromisoformat(row["LastModifiedDate"]).replace(tzinfo=None) for row in part]
            columns = [times if name == "LastModifiedDate" else [row[name] for row in part] for name in names]
            table = pa.table(dict(zip(snake, columns, strict=True)))
            pq.write_table(table, path) if form == "Parquet" else pyarrow.orc.write_table(table, path)
        md5 = hashlib.md5(path.read_bytes()).hexdigest()
        files.append({"key": f"inv/{bucket}/all/data/{path.name}", "size": path.stat().st_size, "MD5checksum": md5})
    manifest = {
        "sourceBucket": bucket, "destinationBucket": "arn:aws:s3:::inv", "version": "2016-11-30",
        "creationTimestamp": "1514944800000", "fileFormat": form, "files": files,
        "fileSchema": ", ".join(names) if form == "CSV" else "message s3.inventory {}",
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2))
    return folder / "manifest.json"


def entry(key: str, version: str = "v1", *, latest: bool = True, gone: bool = False, size: int = 5) -> dict[str, Any]:
    return {
        "Bucket": "archive", "Key": key, "VersionId": version, "IsLatest": latest, "IsDeleteMarker": gone, "Size": size,
        "LastModifiedDate": "2011-01-02T03:04:05.000Z", "ETag": f"etag-{version}",
    }  # fmt: skip
