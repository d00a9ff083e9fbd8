"""The messages of `inference.proto`, made from its compiled form, `inference.pb`.

They live in a pool of their own, so that a program which also uses a client of the protocol, with its own copy
of these names, can import both; and they fit every protobuf runtime, which generated Python does not.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["SERVICE", "message"]

SERVICE = "inference.GRPCInferenceService"
_HERE = files("buoy.serve.rpc")


def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString((_HERE / "inference.pb").read_bytes()).file:
        pool.Add(file)
    return pool


_POOL = _pool()


def message(name: str) -> Any:
    """The class of a message, by its name in the package."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"inference.{name}"))
