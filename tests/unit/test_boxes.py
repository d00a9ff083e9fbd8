import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from buoy.tasks.boxes import corners, iou, suppress


@pytest.mark.parametrize(
    ("one", "other", "ratio"),
    [
        ((0, 0, 10, 10), (5, 0, 15, 10), 0.3333),
        ((0, 0, 100, 100), (25, 25, 75, 75), 0.25),
        ((0, 0, 10, 10), (2, 2, 12, 12), 0.4706),
        ((0, 0, 10, 10), (1, 0, 11, 10), 0.8182),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0.0),
        ((0, 0, 0, 0), (0, 0, 0, 0), 0.0),
    ],
)
def test_iou_has_the_reference_values(one: tuple[int, ...], other: tuple[int, ...], ratio: float) -> None:
    assert iou(np.array(one, float), np.array([other], float))[0] == pytest.approx(ratio, abs=5e-5)


def test_centres_become_corners() -> None:
    assert corners(np.array([[10.0, 20, 4, 6]])).tolist() == [[8, 17, 12, 23]]


def plain_suppress(boxes: np.ndarray, scores: np.ndarray, ids: np.ndarray, threshold: float, most: int) -> list[int]:
    """The textbook's loops, one pair at a time."""
    kept: list[int] = []
    for index in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        clear = all(ids[index] != ids[k] or iou(boxes[k], boxes[index : index + 1])[0] <= threshold for k in kept)
        if clear and len(kept) < most:
            kept.append(index)
    return kept


@given(seed=some.integers(0, 10_000), count=some.integers(0, 60), threshold=some.sampled_from([0.0, 0.3, 0.45, 1.0]))
def test_suppression_agrees_with_the_textbook(seed: int, count: int, threshold: float) -> None:
    dice = np.random.default_rng(seed)
    corner = dice.integers(0, 40, (count, 2))
    boxes = np.concatenate([corner, corner + dice.integers(0, 30, (count, 2))], axis=1).astype(np.float64)
    scores = dice.integers(0, 5, count) / 5  # many equal ones
    ids = dice.integers(0, 3, count)
    kept = suppress(boxes, scores, ids, threshold, most=20)
    assert kept.tolist() == plain_suppress(boxes, scores, ids, threshold, most=20)
