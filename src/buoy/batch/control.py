"""What the run is told to do: a chain of records of which the last one rules, obeyed without a coordinator too."""

from __future__ import annotations

from typing import Literal, NamedTuple

from buoy.batch.layout import chain_key
from buoy.batch.ledger import Ledger
from buoy.errors import UsageError

__all__ = ["Control", "Order", "State"]

State = Literal["running", "paused", "cancelled"]


class Order(NamedTuple):
    """One link of the chain."""

    number: int = 0
    state: State = "running"
    #: Pilots at once.
    pilots: int = 1
    reason: str = ""
    #: Who gave it.
    by: str = ""
    #: Whether pilots go on even if everything fails the same way.
    anyway: bool = False
    #: What the run may take in all, see `budget`.
    max_hours: float | None = None
    max_core_hours: float | None = None


class Control:
    """Reads and extends the chain; what was read is remembered, since it never changes."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.order = Order()

    def look(self) -> Order:
        """The order that rules now. Asks for the next number only: chains are short and never have gaps."""
        while (record := self._ledger.read(chain_key("ctl", self.order.number + 1))) is not None:
            self.order = _order(self.order.number + 1, record)
        return self.order

    def give(
        self,
        state: State,
        *,
        by: str,
        reason: str = "",
        pilots: int | None = None,
        anyway: bool = False,
        max_hours: float | None = None,
        max_core_hours: float | None = None,
    ) -> Order:
        """Make this the order that rules, unless it rules already; what is `None` stays as it was.

        Raises:
            UsageError: the run was cancelled, which is for good.
        """
        while True:
            now = self.look()
            if now.state == "cancelled" and state != "cancelled":
                raise UsageError("the run was cancelled", "start another one with: buoy batch run --again")
            order = Order(
                now.number + 1,
                state,
                now.pilots if pilots is None else pilots,
                reason,
                by,
                anyway,
                now.max_hours if max_hours is None else max_hours,
                now.max_core_hours if max_core_hours is None else max_core_hours,
            )
            if now.number and now._replace(reason="", by="") == order._replace(number=now.number, reason="", by=""):
                return now
            self._ledger.create(chain_key("ctl", order.number), order._asdict())


def _order(number: int, record: dict[str, object]) -> Order:
    return Order(**{**{name: record[name] for name in Order._fields if name in record}, "number": number})  # type: ignore[arg-type]
