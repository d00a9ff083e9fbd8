"""When an alert is raised."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from buoy.streams.rule import Rule

HIT, MISS = [("rip", 0.9)], [("rip", 0.3), ("boat", 0.99)]


def raised(rule: Rule, hits: str, every_s: float = 1.0) -> list[int]:
    """Which frames raise an alert: x reaches the score, a dash does not, f is flagged."""
    return [
        at
        for at, hit in enumerate(hits)
        if rule.see(HIT if hit in "xf" else MISS, flagged=hit == "f", now_s=at * every_s)
    ]


def test_k_of_the_last_n_frames_raise_an_alert() -> None:
    assert raised(Rule("rip", 0.5, 3, 5, 1000), "x-x-x") == [4]
    assert raised(Rule("rip", 0.5, 3, 5, 1000), "x-x--x") == []
    assert raised(Rule("rip", 0.5, 1, 1, 0), "x-xx") == [0, 2, 3]


def test_a_flagged_frame_counts_for_nothing() -> None:
    assert raised(Rule("rip", 0.5, 2, 2, 1000), "xffffx") == [5]
    assert raised(Rule("rip", 0.5, 2, 2, 1000), "ffffff") == []


def test_no_alert_during_the_pause_and_again_after_it() -> None:
    assert raised(Rule("rip", 0.5, 1, 1, 3.0), "xxxxxxxx") == [0, 3, 6]


def test_an_alert_is_raised_by_a_frame_that_reaches_the_score() -> None:
    # The pause ends at frame 2 with 2 of 3 hits in the window, but it is frame 4 that shows something.
    assert raised(Rule("rip", 0.5, 2, 4, 1.5), "xx--x") == [1, 4]


def test_a_gap_parts_what_is_before_it_from_what_comes_after() -> None:
    rule = Rule("rip", 0.5, 2, 5, 0)
    assert raised(rule, "x") == []
    rule.forget()
    assert raised(rule, "-x") == []
    assert raised(rule, "x") == [0]


def test_an_alert_that_reached_nobody_ends_the_pause() -> None:
    rule = Rule("rip", 0.5, 1, 1, 300)
    assert raised(rule, "xx") == [0]
    rule.rearm(3.0)
    assert raised(rule, "xxxxx") == [3]
    rule.rearm(9999.0)  # the pause itself ends sooner
    assert rule.see(HIT, flagged=False, now_s=303.0)


def test_without_a_label_any_will_do() -> None:
    assert Rule("", 0.5, 1, 1, 0).see(MISS, flagged=False, now_s=0)
    assert not Rule("rip", 0.5, 1, 1, 0).see(MISS, flagged=False, now_s=0)


@given(
    hits=st.lists(st.sampled_from("x-f"), max_size=60),
    n=st.integers(1, 8),
    k=st.integers(1, 8),
    cooldown_s=st.sampled_from([0.0, 1.0, 2.5, 7.0]),
)
def test_the_rule_is_what_its_sentence_says(hits: list[str], n: int, k: int, cooldown_s: float) -> None:
    expected, quiet_until_s = [], float("-inf")
    for at, hit in enumerate(hits):
        counted = [each for each in hits[: at + 1] if each != "f"][-n:]
        if hit == "x" and counted.count("x") >= k and at >= quiet_until_s:
            expected.append(at)
            quiet_until_s = at + cooldown_s
    assert raised(Rule("rip", 0.5, k, n, cooldown_s), "".join(hits)) == expected
