"""Service definitions: OSCAR's JSON in, checked at the door, the same JSON out.

The fields, their order and their defaults are those of `pkg/types/service.go` of grycap/oscar. What
differs is deliberate: keys match in any case (`Variables` comes from the CLI, `variables` from the docs),
a number for cpu is fine, and what cannot run is refused here with 400 instead of failing later with 500.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from buoy.errors import ServiceError, StoreError
from buoy.gateway.exposure import Exposure, exposure_of
from buoy.store.names import check_bucket

__all__ = ["BucketPath", "Service", "public", "quantity", "service_from"]

Json = dict[str, Any]

_DNS = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi|[eE]\d+)?")
_SUFFIXES = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_SUFFIXES |= {f"{prefix}i": 1024.0 ** (power + 1) for power, prefix in enumerate("KMGTP")}
_LEVELS = ("NOTSET", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@dataclass(frozen=True)
class BucketPath:
    """One input or output of a service: a folder in a bucket."""

    bucket: str
    #: Without slashes at its ends; '' is the whole bucket.
    folder: str
    prefixes: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()

    @property
    def key_prefix(self) -> str:
        """What the keys inside start with."""
        return f"{self.folder}/" if self.folder else ""

    def holds(self, bucket: str, key: str) -> bool:
        """Tells whether the object lies in it; folder markers (`in/`) do not count."""
        return bucket == self.bucket and key.startswith(self.key_prefix) and not key.endswith("/")

    def takes(self, relative: str) -> bool:
        """Tells whether an output of that name is wanted here, by the rule of the supervisor."""
        prefixed = not self.prefixes or relative.startswith(self.prefixes)
        return prefixed and (not self.suffixes or relative.endswith(self.suffixes))


@dataclass(frozen=True)
class Service:
    """A service as it runs. `definition` is the normalised JSON that clients see."""

    name: str
    script: str
    token: str
    #: What a job may use.
    cpu_milli: int
    memory_bytes: int
    inputs: tuple[BucketPath, ...]
    outputs: tuple[BucketPath, ...]
    variables: dict[str, str]
    #: OSCAR's `file_stage_in: true` means "do not fetch the input" (the name is inverted).
    skip_fetch: bool
    definition: Json
    fdl: str = ""
    #: How it is reached under `/system/services/<name>/exposed`, if it is.
    exposure: Exposure | None = None

    def buckets(self) -> list[str]:
        """All buckets that it reads or writes."""
        return sorted({path.bucket for path in (*self.inputs, *self.outputs)})


def service_from(body: object, *, token: str, owner: str = "", fdl: str = "") -> Service:
    """Check and normalise a definition as a client sends it.

    Raises:
        ServiceError: naming the service, the field and what is expected there.
    """
    if not isinstance(body, dict):
        raise ServiceError("a service is a JSON object", "send the definition that the FDL file has for it")
    given = {str(key).lower(): value for key, value in body.items()}
    name = _name(given.get("name"))
    definition: Json = {}
    for field, read, omit in _FIELDS:
        try:
            value = read(given.get(field))
        except ValueError as error:
            raise ServiceError(f"service {name}: {field}: {error}", _HINTS.get(field, "")) from None
        if not (omit and not value):
            definition[field] = value
    definition |= {"name": name, "token": token, "owner": owner or definition["owner"]}
    if not definition.get("script"):
        hint = "put the path of the script into the FDL file, or its text into the JSON"
        raise ServiceError(f"service {name}: there is no script", hint)
    environment = definition["environment"]
    variables = environment["variables"] | environment["secrets"]
    try:
        exposure = exposure_of(name, definition["expose"], variables)
    except ValueError as error:
        raise ServiceError(f"service {name}: expose: {error}", "see services/gateway/README.md") from None
    return Service(
        name=name,
        script=definition["script"],
        token=token,
        cpu_milli=max(1, round(quantity(definition["cpu"] or "0") * 1000)),
        memory_bytes=round(quantity(definition["memory"] or "0")),
        inputs=tuple(_paths(name, "input", definition["input"])),
        outputs=tuple(_paths(name, "output", definition["output"])),
        variables=variables,
        skip_fetch=definition["file_stage_in"],
        definition=definition,
        fdl=fdl,
        exposure=exposure,
    )


def public(service: Service, provider: Json) -> Json:
    """The definition as GET answers it: secrets blanked, passwords of clusters left out."""
    shown = dict(service.definition)
    environment = shown["environment"]
    shown["environment"] = {**environment, "secrets": dict.fromkeys(environment["secrets"], "")}
    hidden = {**provider, "access_key": "hidden", "secret_key": "hidden"}
    shown["storage_providers"] = {**shown.get("storage_providers", {}), "minio": {"default": hidden}}
    if "clusters" in shown:
        shown["clusters"] = {
            cluster: {**access, "auth_password": ""} if isinstance(access, dict) else {}
            for cluster, access in shown["clusters"].items()
        }
    return {key: shown[key] for key in _ORDER if key in shown}


def quantity(text: str) -> float:
    """A Kubernetes quantity as a number: `500m` is 0.5, `2Gi` is 2147483648.

    Source: apimachinery, pkg/api/resource/quantity.go (the subset without sign and nano).
    """
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a quantity")
    number, suffix = match[1], match[2] or ""
    return float(number + suffix) if suffix[:1] in "eE" and suffix else float(number) * _SUFFIXES[suffix]


def _name(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ServiceError("a service without a name", "give it one: 1 to 39 letters, digits and hyphens")
    if len(value) > 39 or not _DNS.fullmatch(value):
        raise ServiceError(
            f"service name {value!r} is not a DNS label",
            "use 1 to 39 lower-case letters, digits and hyphens, a letter or digit at both ends",
        )
    return value


def _paths(service: str, field: str, entries: list[Json]) -> list[BucketPath]:
    """Where the entries point, by OSCAR's rule: the first segment is the bucket.

    Source: pkg/handlers/create.go: trimmed of spaces and slashes; one segment alone is a folder in the
    bucket of the service's name.
    """
    paths = []
    for number, entry in enumerate(entries):
        where = f"service {service}: {field}[{number}]"
        provider = entry["storage_provider"]
        if provider.split(".")[0] != "minio":
            raise ServiceError(
                f"{where}.storage_provider: {provider!r} is not known here", "use minio.default, the store of buoy up"
            )
        path = entry["path"].strip(" /")
        if not path:
            raise ServiceError(f"{where}.path is empty", "write bucket/folder")
        bucket, _, folder = (path if "/" in path else f"{service}/{path}").partition("/")
        try:
            check_bucket(bucket, read=False)
        except StoreError as error:
            raise ServiceError(f"{where}.path: {error.message}", error.hint) from None
        if any(part in ("", ".", "..") for part in folder.split("/")):
            raise ServiceError(f"{where}.path: {folder!r} is not a folder", "write bucket/folder")
        paths.append(BucketPath(bucket, folder, tuple(entry.get("prefix", ())), tuple(entry.get("suffix", ()))))
    return paths


# Readers of one value each: `None` (absent, or null as Go takes it) gives the default; ValueError says
# what was expected.


def _string(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"expected text, not {value!r}")
    return value


def _bool(value: object) -> bool:
    if value is None:
        return False
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false, not {value!r}")
    return value


def _int(value: object) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"expected a whole number, not {value!r}")
    return value


def _ints(value: object) -> list[int]:
    """A list; one number alone comes from oscar-cli (types of OSCAR 3.3)."""
    if value is None or value == 0:
        return []
    return [_int(item) for item in (value if isinstance(value, list) else [value])]


def _strings(value: object) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueError(f"expected a list of texts, not {value!r}")
    return [_string(item) for item in value]


def _map(value: object) -> Json:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"expected a map, not {value!r}")
    return {str(key): item for key, item in value.items()}


def _texts(value: object) -> dict[str, str]:
    """A map of texts; YAML's bare numbers and booleans become the text they were written as."""
    texts = {}
    for key, item in _map(value).items():
        if isinstance(item, (dict, list)):
            raise ValueError(f"{key}: expected text, not {item!r}")
        texts[key] = str(item).lower() if isinstance(item, bool) else "" if item is None else str(item)
    return texts


def _quantity(value: object) -> str:
    if value is None or value == "":
        return ""
    text = str(value).strip() if isinstance(value, (int, float, str)) and not isinstance(value, bool) else None
    if text is None:
        raise ValueError(f"expected a quantity, not {value!r}")
    quantity(text)
    return text


def _script(value: object) -> str:
    return _string(value).replace("\r\n", "\n")


def _log_level(value: object) -> str:
    level = _string(value).upper()
    return level if level in _LEVELS else "INFO"


def _entries(value: object) -> list[Json]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueError(f"expected a list, not {value!r}")
    return [_struct(_ENTRY)(item) for item in value]


def _environment(value: object) -> Json:
    return _struct((("variables", _texts, False), ("secrets", _texts, False)))(value)


Reader = Callable[[object], Any]
Fields = tuple[tuple[str, Reader, bool], ...]


def _struct(fields: Fields) -> Callable[[object], Json]:
    """A reader of a Go struct: keys in any case, unknown ones ignored."""

    def read(value: object) -> Json:
        given = {key.lower(): item for key, item in _map(value).items()}
        found = {}
        for name, reader, omit in fields:
            try:
                item = reader(given.get(name.lower()))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
            if not (omit and not item):
                found[name] = item
        return found

    return read


_ENTRY: Fields = (
    ("storage_provider", lambda value: _string(value) or "minio.default", False),
    ("path", _string, False),
    ("suffix", _strings, True),
    ("prefix", _strings, True),
    ("options", _map, True),
)
_EXPOSE: Fields = (
    ("min_scale", lambda value: 1 if value is None else _int(value), False),
    ("max_scale", lambda value: _int(value) or 10, False),
    ("api_port", _ints, True),
    ("cpu_threshold", lambda value: _int(value) or 80, False),
    ("rewrite_target", _bool, False),
    ("nodePort", _ints, True),
    ("default_command", _bool, False),
    ("set_auth", _bool, False),
    ("auth_type", _string, True),
    ("health_path", lambda value: _string(value) or "/", False),
    ("probe_mode", _string, True),
)
#: (name, reader, left out when empty), in the order of the Go struct.
_FIELDS: Fields = (
    ("name", _string, False),
    ("cluster_id", _string, False),
    ("memory", lambda value: _quantity(value) or "256Mi", False),
    ("cpu", lambda value: _quantity(value) or "0.2", False),
    ("total_memory", _quantity, False),
    ("total_cpu", _quantity, False),
    ("ephemeral_storage_request", _quantity, True),
    ("enable_gpu", _bool, False),
    ("enable_sgx", _bool, False),
    ("image_prefetch", _bool, False),
    ("synchronous", _struct((("min_scale", _int, False), ("max_scale", _int, False))), False),
    ("federation", _map, True),
    ("log_level", _log_level, False),
    ("image", _string, False),
    ("alpine", _bool, False),
    ("token", lambda _: "", False),
    ("file_stage_in", _bool, False),
    ("input", _entries, False),
    ("output", _entries, False),
    ("script", _script, True),
    ("image_pull_secrets", _strings, True),
    ("expose", _struct(_EXPOSE), False),
    ("environment", _environment, False),
    ("annotations", _texts, False),
    ("labels", _texts, False),
    ("vo", _string, False),
    ("storage_providers", _map, True),
    ("clusters", _map, True),
    ("owner", _string, False),
    ("namespace", _string, True),
    ("visibility", lambda value: _string(value) or "private", False),
    ("allowed_users", _strings, False),
    ("bucket_list", _strings, False),
    ("isolation_level", _string, False),
    ("mount", _struct((("storage_provider", _string, False), ("path", _string, False))), False),
    ("volume", _map, True),
    ("volume_status", lambda _: {"enabled": False}, False),
)
_ORDER = [name for name, _, _ in _FIELDS]
_HINTS = {
    "cpu": 'cores as a Kubernetes quantity: "0.5", "2" or "500m"',
    "memory": 'a Kubernetes quantity: "512Mi" or "2Gi"',
}
