"""What a pilot on OSCAR gets as its event: where its run is. Never keys, never secrets.

OSCAR hands an event to a job as `echo $EVENT | supervisor`, unquoted: spaces collapse, `*` becomes names of files, and
backslashes are rewritten. The supervisor then decodes what is no JSON as base64, and ends if it cannot. So a pointer
is base64 of JSON in ASCII, written so that it is the same text in both alphabets of base64, and without padding.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import NamedTuple

from buoy.errors import UsageError

__all__ = ["MARK", "Pointer", "is_pointer"]

#: What all of them begin with: base64 of `{"buoy.batch`.
MARK = "eyJidW95LmJhdGNo"
#: Their six bits, at the end of three bytes, would be `+` or `/`.
_UNLIKE = ("~", ">", "?", "\x7f")


class Pointer(NamedTuple):
    """One pilot of one run."""

    #: Where the run's results go, `s3://bucket/prefix`.
    out: str
    run: str
    #: The pilot's number, as its engine counts.
    pilot: str
    #: After so long it takes no more work; `None` if the run itself says it.
    budget_s: float | None = None
    #: The cores that its job has been promised; 0 for those of the machine.
    cpu: float = 0.0

    def encode(self) -> str:
        """As an event: letters and digits."""
        text = json.dumps({"buoy.batch": list(self)}, separators=(",", ":"))
        for letter in _UNLIKE:
            text = text.replace(letter, f"\\u{ord(letter):04x}")
        data = text.encode("ascii")
        return base64.b64encode(data + b" " * (-len(data) % 3)).decode()

    @classmethod
    def decode(cls, event: str) -> Pointer:
        """Read an event that `is_pointer`.

        Raises:
            UsageError: it is damaged.
        """
        try:
            out, run, pilot, budget_s, cpu = json.loads(base64.b64decode(event.strip(), validate=True))["buoy.batch"]
            return cls(str(out), str(run), str(pilot), None if budget_s is None else float(budget_s), float(cpu))
        except (binascii.Error, ValueError, KeyError, TypeError) as error:
            hint = "is this buoy older than the one that started the run?"
            raise UsageError(f"the pointer to a batch run cannot be read: {event[:80]!r}", hint) from error


def is_pointer(event: str) -> bool:
    """Whether an event is one."""
    return event.startswith(MARK)
