"""Counts of a stream: whatever happens, received = processed + dropped + in flight."""

from __future__ import annotations

import threading
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from buoy.streams.account import Account

EVENTS = st.lists(st.sampled_from(["received", "processed", "newer", "sampling", "reconnected"]), max_size=200)


def balances(account: Account) -> bool:
    counts = account.counts()
    return counts["received"] == counts["processed"] + sum(counts["dropped"].values()) + counts["in_flight"]


@given(EVENTS)
def test_counts_say_what_happened_at_every_moment(events: list[str]) -> None:
    account, told = Account(), Counter[str]()
    for event in events:
        waiting = told["received"] - told["processed"] - told["newer"] - told["sampling"]
        if event not in ("received", "reconnected") and not waiting:
            continue  # each frame is received before anything else becomes of it
        told[event] += 1
        if event in ("newer", "sampling"):
            account.dropped(event)
        else:
            getattr(account, event)()
        counts = account.counts()
        assert balances(account)
        assert counts["in_flight"] == told["received"] - told["processed"] - told["newer"] - told["sampling"]
        assert counts["received"] == told["received"]
        assert counts["processed"] == told["processed"]
        assert counts["dropped"] == {reason: told[reason] for reason in ("newer", "sampling") if told[reason]}
        assert counts["reconnects"] == told["reconnected"]


def test_what_is_in_flight_at_the_end_is_dropped_for_a_reason() -> None:
    account = Account()
    for _ in range(5):
        account.received()
    account.processed()
    account.dropped("newer")
    account.close("failed")
    expected = {"received": 5, "processed": 1, "dropped": {"newer": 1, "failed": 3}, "in_flight": 0, "reconnects": 0}
    assert account.counts() == expected
    account.received()
    account.processed()  # what a thread that was left behind still tells
    account.dropped("newer")
    assert account.counts() == expected


def test_an_account_without_frames_in_flight_closes_as_it_is() -> None:
    account = Account()
    account.received()
    account.processed()
    account.close("failed")
    assert account.counts()["dropped"] == {}
    assert account.settled() == (1, 1)


def test_many_threads_count_every_frame() -> None:
    account, unbalanced = Account(), []

    def work(number: int) -> None:
        for at in range(500):
            account.received()
            account.dropped("newer") if at % 3 == number % 3 else account.processed()
            if not balances(account):
                unbalanced.append(at)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = account.counts()
    assert not unbalanced
    assert (counts["received"], counts["in_flight"]) == (3000, 0)
    assert counts["processed"] + counts["dropped"]["newer"] == 3000
