from __future__ import annotations

import pytest

from buoy.importer.parity import FLOOR, Box, Parity, compare, threshold_for


def found(ours: list[Box], theirs: list[Box], score: float = 0.25, iou_limit: float = 0.7) -> Parity:
    parity = Parity(score=score)
    compare("fish.jpg", ours, theirs, iou_limit, parity)
    return parity


def boxes(*scores: float, left: float = 0.0, class_id: int = 0) -> list[Box]:
    """Boxes far from each other, one for each score."""
    return [Box(class_id, score, (left + 100 * i, 0, left + 100 * i + 50, 40)) for i, score in enumerate(scores)]


def test_equal_results_are_equal() -> None:
    parity = found(boxes(0.9, 0.5, 0.3), boxes(0.9, 0.5, 0.3))
    assert (parity.ok, parity.compared, parity.excused, parity.largest_px) == (True, 3, 0, 0)


@pytest.mark.parametrize(
    ("theirs", "line"),
    [
        (boxes(0.9, 0.5, left=0.6), "0.60 px and 0.0000 in score apart"),
        (boxes(0.9, 0.502), "0.0020 in score apart"),
        (boxes(0.9), "only we find it"),
        (boxes(0.9, 0.5, 0.4), "we do not find it"),
        (boxes(0.9, 0.5, class_id=1), "class 1"),
    ],
)
def test_every_kind_of_difference_is_found_and_told(theirs: list[Box], line: str) -> None:
    parity = found(boxes(0.9, 0.5), theirs)
    assert not parity.ok
    assert any(line in told and told.startswith("fish.jpg: ") for told in parity.worst())


def test_differences_within_the_tolerances_pass_and_are_measured() -> None:
    parity = found(boxes(0.9, 0.5), boxes(0.9005, 0.5005, left=0.4))
    assert parity.ok
    assert parity.largest_px == pytest.approx(0.4)
    assert parity.largest_score == pytest.approx(0.0005)


def test_a_box_right_at_the_threshold_may_be_on_one_side_only() -> None:
    parity = found(boxes(0.9, 0.8, 0.2504), boxes(0.9, 0.8, 0.2499))
    assert (parity.ok, parity.compared, parity.excused) == (True, 2, 1)


def test_a_box_at_the_limit_of_overlap_may_be_on_one_side_only_and_what_it_suppresses() -> None:
    # of 100 px wide boxes, a shift by 17.65 px is an overlap of 0.7
    best, at_limit, next_one = (Box(0, score, (x, 0, x + 100, 100)) for score, x in ((0.9, 0), (0.8, 17.65), (0.7, 34)))
    parity = found([best, at_limit], [best, next_one])
    assert (parity.ok, parity.compared, parity.excused) == (True, 1, 2)
    apart = Box(0, 0.8, (60, 0, 160, 100))
    assert not found([best, apart], [best]).ok


def test_too_many_borderline_cases_are_a_difference() -> None:
    parity = found(boxes(*[0.2505] * 5), [])
    assert not parity.ok
    assert parity.worst() == ["5 boxes are on one side only, 0 on both"]


def test_only_the_largest_differences_are_told() -> None:
    parity = found(boxes(*[0.9] * 20), boxes(*[0.9] * 20, left=3) + boxes(0.4, left=5000))
    assert len(parity.faults) == 21
    assert len(parity.worst()) == 5
    assert "we do not find it" in parity.worst()[0]


def test_the_usual_threshold_is_kept_where_it_leaves_a_fair_number() -> None:
    assert threshold_for([0.9] * 10 + [0.1] * 50, 0.25) == 0.25


def test_a_threshold_is_found_in_the_widest_gap_otherwise() -> None:
    few = [0.9, 0.8] + [0.2 - 0.001 * i for i in range(20)] + [0.05 - 0.0001 * i for i in range(20)]
    chosen = threshold_for(few, 0.25)
    assert 0.05 < chosen < 0.181
    many = [0.9 - 0.0001 * i for i in range(150)] + [0.5 - 0.0001 * i for i in range(1000)]
    assert 0.5 < threshold_for(many, 0.25) < 0.886
    assert threshold_for([0.02, 0.03], 0.25) == FLOOR
    assert threshold_for([], 0.25) == FLOOR
