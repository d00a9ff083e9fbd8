from __future__ import annotations

import pytest

from batch.model import Variant, explore
from batch.slot_model import Variant as SlotVariant
from batch.slot_model import explore as explore_slots

SOUND = {
    "one coordinator": Variant(attempts=4),
    "two coordinators": Variant(attempts=4, coordinators=2),
    "three rows, split anywhere": Variant(rows=3, attempts=3),
    "the store ignores conditions": Variant(conditions=False, attempts=3),
    "it ignores them before two coordinators": Variant(conditions=False, attempts=2, coordinators=2),
    "the store loses two objects": Variant(attempts=3, losses=2),
    "it loses one before two coordinators": Variant(attempts=3, coordinators=2, losses=1),
    "it loses two before a seal is asked for": Variant(attempts=3, losses=2, loses_sealed=False),
    "conditions hold, the merge reads fin": Variant(merge="fin"),
}

BROKEN = {
    "conditions ignored, the merge reads fin": (Variant(conditions=False, merge="fin"), "two merges"),
    "everything under att/ is merged": (Variant(merge="att"), "a row is there twice"),
    "commit and split stand under separate keys": (Variant(one_key=False), "a row is there twice"),
    "the same, and the merge reads fin": (Variant(one_key=False, merge="fin"), "a row is there twice"),
    "a loss, and the merge reads fin": (Variant(merge="fin", losses=1, splits=False), "two merges"),
    "nobody looks before the seal": (
        Variant(losses=1, loses_sealed=False, looks=False),
        "what was lost before is sealed",
    ),
}


@pytest.mark.parametrize("name", SOUND)
def test_every_merge_has_every_row_once_and_two_merges_are_equal(name: str) -> None:
    report = explore(SOUND[name])
    assert report.violation == ""
    assert report.merged
    assert report.states > 100


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_protocol_is_caught(name: str) -> None:
    variant, violation = BROKEN[name]
    assert violation in explore(variant).violation


def test_no_more_pilots_work_than_there_are_slots_but_for_those_taken_for_dead() -> None:
    for misjudged in (0, 1, 2):
        report = explore_slots(SlotVariant(misjudged=misjudged))
        assert report.full
        assert report.most == 2 + misjudged
        assert report.states > 100


@pytest.mark.parametrize("variant", [SlotVariant(conditions=False), SlotVariant(epochs=False)])
def test_broken_slots_are_caught(variant: SlotVariant) -> None:
    assert explore_slots(variant).most > variant.slots
