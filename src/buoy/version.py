"""The version of buoy, as pyproject.toml has it (a test compares)."""

__all__ = ["VERSION"]

VERSION = "0.1.0"
