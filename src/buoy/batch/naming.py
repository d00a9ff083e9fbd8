"""Names of pilots: where one works, its process, and chance, for twins of any kind.

By the first part whoever started it knows it again. On a machine that is the host. Engines whose hosts have the same
names everywhere say in the pilot's environment what else the place is called: a pod's UID, the name of a job.
"""

from __future__ import annotations

import hashlib
import os
import socket
from random import SystemRandom

import psutil

__all__ = ["PLACE", "pilot_name", "place_of", "this_host"]

#: The variable by which an engine names the place of a pilot.
PLACE = "BUOY_PILOT_PLACE"


def pilot_name() -> str:
    """A name of its own for this process."""
    place = os.environ.get(PLACE, "")
    started = int(psutil.Process().create_time() * 100)
    first = place_of(place) if place else this_host()
    return f"{first}.{os.getpid()}.{started}.{SystemRandom().getrandbits(32):08x}"


def place_of(name: str) -> str:
    """The first part of the names of pilots at a place that their engine has named."""
    return f"at{hashlib.sha256(name.encode()).hexdigest()[:18]}"


def this_host() -> str:
    """The first part of the names of pilots that work here without an engine that names places."""
    return "".join(letter for letter in socket.gethostname().lower() if letter.isalnum())[:20] or "host"
