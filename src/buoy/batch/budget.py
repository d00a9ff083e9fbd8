"""What a run may take: judged from the heartbeats, so it holds over coordinators, and without one."""

from __future__ import annotations

from buoy.batch.beats import Beats, vitals_of
from buoy.batch.control import Order
from buoy.batch.ledger import Ledger

__all__ = ["Budget"]

#: What is in flight counts for no more than such a part of a cap, so that a small one is not used up by it.
_MOST_IN_FLIGHT = 0.1


class Budget:
    """The caps of a run, as the order has them, against what was spent.

    In flight is what pilots spend before they learn that the run pauses: until their next look, with a heartbeat
    that is already on its way to be old. They then finish the objects in hand.
    """

    def __init__(self, ledger: Ledger, *, beat_s: float, look_s: float) -> None:
        self.beats = Beats(ledger, beat_s)
        self._ledger, self._notice_s = ledger, beat_s + look_s

    def reached(self, order: Order) -> str:
        """Which cap is reached by what is spent and in flight; empty if none is, or there is none."""
        if order.max_hours is None and order.max_core_hours is None:
            return ""
        beats = self.beats.read()
        vitals = vitals_of(beats.values())
        gone = {each.key.removeprefix("gone/") for each in self._ledger.names("gone/")}
        cores = [float(beat.get("cores", 1)) for name, beat in beats.items() if name not in gone]
        for name, cap, spent_s, flight_s in (
            ("hours", order.max_hours, vitals.elapsed_s, self._notice_s if cores else 0.0),
            ("core hours", order.max_core_hours, vitals.core_s, self._notice_s * sum(cores)),
        ):
            if cap is not None and spent_s + min(flight_s, _MOST_IN_FLIGHT * cap * 3600) >= cap * 3600:
                return f"of {cap:.3g} {name} that it may take {spent_s / 3600:.3g} are spent"
        return ""
