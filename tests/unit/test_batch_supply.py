"""When a coordinator asks for pilots, and for how many."""

from __future__ import annotations

from buoy.batch.fit import ANY, Fit
from buoy.batch.supply import Supply


class Hours:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def names(number: int, first: int = 0) -> list[str]:
    return [f"pilot-{count}" for count in range(first, first + number)]


def test_the_first_are_few_and_what_works_is_doubled() -> None:
    supply, alive, asked = Supply(Hours()), 0, []
    for _ in range(6):
        wanted = supply.wanted(50, ANY, alive, names(alive))
        asked.append(wanted.pilots)
        alive += wanted.pilots
    assert asked == [4, 4, 8, 16, 18, 0]


def test_no_more_are_asked_for_than_are_useful_or_than_fit() -> None:
    supply = Supply(Hours())
    assert supply.wanted(2, ANY, 0, []) == (2, "", False)
    assert supply.wanted(3, Fit(1, "cpu is short"), 0, [])[:2] == (1, "room for 1 of 3 workers: cpu is short")
    assert supply.wanted(3, Fit(0, "cpu is short"), 0, [])[:2] == (0, "room for 0 of 3 workers: cpu is short")
    assert supply.wanted(1, ANY, 3, []).pilots == 0


def test_none_is_asked_for_while_one_has_not_begun_for_two_minutes() -> None:
    clock = Hours()
    supply = Supply(clock)
    assert supply.wanted(50, ANY, 0, []).pilots == 4
    clock.sleep(119)
    assert supply.wanted(50, ANY, 4, names(3)).pilots == 2
    clock.sleep(119)
    assert supply.wanted(50, ANY, 6, names(5)).pilots == 4, "others have begun in the meantime"
    clock.sleep(120)
    assert supply.wanted(50, ANY, 10, names(5)) == (0, "5 of 10 workers have not begun for 120 s", True)
    clock.sleep(5)
    assert supply.wanted(50, ANY, 10, names(10)).pilots == 10, "they have begun"


def test_what_has_ended_is_replaced_at_once_however_many_end_together() -> None:
    clock = Hours()
    supply = Supply(clock)
    assert supply.wanted(40, ANY, 40, names(40)).pilots == 0
    clock.sleep(3600)
    assert supply.wanted(40, ANY, 0, []).pilots == 40


def test_one_that_began_and_stands_still_does_not_keep_others_from_coming() -> None:
    clock = Hours()
    supply = Supply(clock)
    supply.wanted(8, ANY, 4, names(4))
    clock.sleep(3600)
    assert supply.wanted(8, ANY, 4, names(4)).pilots == 4
