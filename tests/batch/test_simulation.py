"""Thousands of played runs of the real coordinator and pilots. A failure names its seed, which plays it again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from batch import simulation
from batch.checker import faults_of
from batch.simulation import Faults, Outcome, encode, play, result_of
from buoy.batch import fin, overview, pilot
from buoy.batch.area import Area
from buoy.batch.coordinator import Coordinator
from buoy.batch.lease import LeaseWatch
from buoy.batch.ledger import Created, Ledger, Record
from buoy.batch.seal import Seal, make_seal
from buoy.batch.view import View

ROWS = 10
BOUNDS = (0, 4, 7, 9, 10)
EXPECTED = encode([result_of(row) for row in range(ROWS)])
#: Schedules of each world; more for a long run: `BUOY_SEEDS=100000`.
SEEDS = int(os.environ.get("BUOY_SEEDS", "0"))

NOISE = Faults(refused=0.05, unheard=0.05, late=0.03, twice=0.03, behind=30)
WORLDS = {
    "quiet": (Faults(), 50),
    "noise": (NOISE, 300),
    "kills": (Faults(killed=0.01), 400),
    "kills nobody tells of": (Faults(killed=0.01, tells_dead=False), 300),
    "stalls": (Faults(stalled=0.02), 300),
    "two coordinators": (Faults(coordinators=2, killed=0.005, unheard=0.03), 300),
    "twins": (Faults(twins=True, killed=0.005, behind=20), 200),
    "signals": (Faults(signalled=True, killed=0.003, unheard=0.02), 200),
    "meddled": (Faults(meddled=True, killed=0.003), 150),
    "everything": (
        Faults(
            refused=0.04, unheard=0.04, late=0.02, twice=0.02, behind=20, stalled=0.005, killed=0.005, twins=True,
            coordinators=2, tells_dead=False, meddled=True, signalled=True,
        ),
        400,
    ),
}  # fmt: skip


def decode(data: bytes) -> list[tuple[int, str, bool]]:
    return [(row, status, "killer" in lines) for row, status, lines in json.loads(data)]


def seeds_of(name: str, number: int) -> range:
    first = Random(name).randrange(10**6)
    return range(first, first + (SEEDS or number))


def told(outcome: Outcome, seed: int, faults: Faults) -> str:
    return f"seed {seed} of {faults}: {sorted(outcome.objects)}"


@pytest.mark.parametrize("name", WORLDS)
def test_every_run_ends_with_every_row_once(name: str) -> None:
    faults, number = WORLDS[name]
    for seed in seeds_of(name, number):
        try:
            outcome = play(seed, faults, BOUNDS)
        except BaseException as error:
            raise AssertionError(f"seed {seed} of {faults}") from error
        assert faults_of(outcome.objects, ROWS, decode) == [], told(outcome, seed, faults)
        mutable = {key for key in outcome.world.overwritten if not key.startswith("hb/")}
        assert mutable == set(), told(outcome, seed, faults)
        assert set(outcome.results) == {EXPECTED} or has_killer(outcome), told(outcome, seed, faults)
        assert len(set(outcome.results)) == 1, told(outcome, seed, faults)


def has_killer(outcome: Outcome) -> bool:
    """Three kills in a row may hit the same single row, which is then given up; the checker looks at that."""
    return any(b"killer" in result for result in outcome.results)


def test_a_run_without_faults_looks_at_every_row_once() -> None:
    for seed in seeds_of("once", 40):
        outcome = play(seed, Faults(), BOUNDS)
        assert sorted(row for _, row in outcome.world.looked) == list(range(ROWS)), f"seed {seed}"
        assert outcome.results == [EXPECTED], f"seed {seed}"


def test_a_signal_loses_nothing_that_was_looked_at() -> None:
    for seed in seeds_of("signal", 100):
        outcome = play(seed, Faults(signalled=True), BOUNDS)
        assert sorted(row for _, row in outcome.world.looked) == list(range(ROWS)), f"seed {seed}"


def test_a_row_that_kills_everybody_costs_that_row_alone() -> None:
    for seed in seeds_of("poison", 60):
        outcome = play(seed, Faults(poison=5), (0, 8, 10))
        assert faults_of(outcome.objects, ROWS, decode) == [], f"seed {seed}"
        rows = {row: status for row, status, _ in decode(outcome.results[0])}
        assert rows == {row: "failed" if row in (5, 9) else "ok" for row in range(ROWS)}, f"seed {seed}"


def test_two_live_holders_of_a_slot_are_seen_only_where_one_was_taken_for_dead() -> None:
    for seed in seeds_of("slots", 60):
        outcome = play(seed, Faults(twins=True), BOUNDS)
        holders = [key for key in outcome.objects if key.startswith("slot/")]
        assert len({key.split("-")[0] for key in holders}) <= 3, f"seed {seed}"


def test_what_the_store_loses_is_done_again_or_the_run_says_that_it_is_damaged() -> None:
    for seed in seeds_of("vanishes", 400):
        outcome = play(seed, Faults(vanishes=0.01), BOUNDS)
        if outcome.damaged:
            continue
        faults = faults_of(outcome.objects, ROWS, decode, lossy=True)
        after_seal = any(key.startswith("att/") for key in outcome.world.vanished)
        assert faults == [] or (after_seal and all("is not what was sealed" in each for each in faults)), f"seed {seed}"
        assert set(outcome.results) == {EXPECTED}, f"seed {seed}"


def test_results_are_right_on_a_store_that_ignores_conditions() -> None:
    for seed in seeds_of("ignored", 300):
        faults = Faults(conditions_ignored=True, killed=0.01, stalled=0.01, unheard=0.03)
        outcome = play(seed, faults, BOUNDS)
        assert faults_of(outcome.objects, ROWS, decode, lossy=True) == [], told(outcome, seed, faults)
        for result in outcome.results:
            assert result == EXPECTED or b"killer" in result, told(outcome, seed, faults)


ASSIGNED = Faults(conditions_ignored=True, assigned=True)
#: Faults in which no process dies or stands still, so that each key keeps its one writer.
ASSIGNED_QUIET = {
    "quiet": (ASSIGNED, 60),
    "noise": (replace(ASSIGNED, refused=0.05, unheard=0.05, late=0.03, twice=0.03, behind=30), 400),
    "signals": (replace(ASSIGNED, signalled=True, unheard=0.02), 200),
}
ASSIGNED_KILLS = {
    "kills": (replace(ASSIGNED, killed=0.01), 400),
    "kills nobody tells of": (replace(ASSIGNED, killed=0.01, tells_dead=False), 300),
    "stalls": (replace(ASSIGNED, stalled=0.02), 300),
    "two coordinators": (replace(ASSIGNED, coordinators=2, killed=0.005, unheard=0.03), 300),
    "everything": (
        replace(
            ASSIGNED, refused=0.04, unheard=0.04, late=0.02, twice=0.02, behind=20, stalled=0.005, killed=0.005,
            twins=True, coordinators=2, tells_dead=False, signalled=True,
        ),
        400,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ASSIGNED_QUIET)
def test_nothing_is_overwritten_where_work_is_given_though_the_store_would(name: str) -> None:
    faults, number = ASSIGNED_QUIET[name]
    for seed in seeds_of(f"assigned {name}", number):
        outcome = play(seed, faults, BOUNDS)
        assert faults_of(outcome.objects, ROWS, decode) == [], told(outcome, seed, faults)
        assert {key for key in outcome.world.overwritten if not key.startswith("hb/")} == set(), told(
            outcome, seed, faults
        )
        assert outcome.results == [EXPECTED], told(outcome, seed, faults)
        if faults is ASSIGNED:
            assert sorted(row for _, row in outcome.world.looked) == list(range(ROWS)), f"seed {seed}"


@pytest.mark.parametrize("name", ASSIGNED_KILLS)
def test_work_that_is_given_comes_to_its_end_whatever_dies(name: str) -> None:
    faults, number = ASSIGNED_KILLS[name]
    for seed in seeds_of(f"assigned {name}", number):
        try:
            outcome = play(seed, faults, BOUNDS)
        except BaseException as error:
            raise AssertionError(f"seed {seed} of {faults}") from error
        assert faults_of(outcome.objects, ROWS, decode, lossy=True) == [], told(outcome, seed, faults)
        for result in outcome.results:
            assert result == EXPECTED or b"killer" in result, told(outcome, seed, faults)


def test_a_row_that_kills_everybody_costs_that_row_alone_where_work_is_given() -> None:
    for seed in seeds_of("assigned poison", 60):
        outcome = play(seed, replace(ASSIGNED, poison=5), (0, 8, 10))
        assert faults_of(outcome.objects, ROWS, decode) == [], f"seed {seed}"
        rows = {row: status for row, status, _ in decode(outcome.results[0])}
        assert rows == {row: "failed" if row in (5, 9) else "ok" for row in range(ROWS)}, f"seed {seed}"


def test_a_seed_plays_the_same_run_again() -> None:
    faults, _ = WORLDS["everything"]
    first, second = play(7, faults, BOUNDS), play(7, faults, BOUNDS)
    assert first.objects == second.objects
    assert first.world.looked == second.world.looked


# Broken code must be caught, or the runs above prove nothing


def overwrites_fin(monkeypatch: pytest.MonkeyPatch) -> None:
    put = Area.put
    monkeypatch.setattr(
        Area,
        "put",
        lambda self, key, body, create_only=False: put(self, key, body, create_only=create_only and "fin/" not in key),
    )


def forgets_its_nonce(monkeypatch: pytest.MonkeyPatch) -> None:
    create = Ledger.create

    def always_lost(self: Ledger, key: str, record: Record) -> Created:
        made = create(self, key, record)
        return Created(made.won and not self.patience.retries, made.record)

    monkeypatch.setattr(Ledger, "create", always_lost)


def seals_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    def sealed(self: Coordinator) -> Seal | None:
        leaves, _ = self._overview.resolve()
        return make_seal(self._ledger, leaves) if len(leaves) > 1 else None

    monkeypatch.setattr(Coordinator, "_sealed", sealed)


def takes_everybody_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LeaseWatch, "expired", lambda self, thing, pilot: True)


def never_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pilot, "_HALVE_AFTER", 10**9)
    monkeypatch.setattr(pilot, "_GIVE_UP_AFTER", 10**9)


def gives_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pilot, "_GIVE_UP_AFTER", 1)


def drops_what_was_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pilot, "split", lambda cell, stop, attempt: [pilot.Part(cell.start, cell.stop, attempt)])


def splits_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (fin, overview):
        monkeypatch.setattr(module, "announce", lambda ledger, parts: None)


def gives_a_cell_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(View, "claimed", lambda self, cell, epoch: None)


MUTANTS = [
    (gives_a_cell_twice, Faults(conditions_ignored=True, assigned=True)),
    (overwrites_fin, Faults(stalled=0.02)),
    (forgets_its_nonce, Faults(unheard=0.1)),
    (seals_what_it_has, Faults()),
    (takes_everybody_for_dead, Faults()),
    (never_halves, Faults(poison=5)),
    (gives_up_at_once, Faults(killed=0.04)),
    (drops_what_was_begun, Faults(signalled=True)),
    (splits_without_a_word, Faults(signalled=True)),
]


@pytest.mark.parametrize(("mutate", "faults"), MUTANTS, ids=[mutate.__name__ for mutate, _ in MUTANTS])
def test_broken_code_is_caught(
    mutate: Callable[[pytest.MonkeyPatch], None], faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)
    monkeypatch.setattr(simulation.World, "most_steps", 6000)
    for seed in seeds_of("mutants", 300):
        try:
            outcome = play(seed, faults, BOUNDS)
        except (AssertionError, simulation.Stuck):
            return
        looked = [row for _, row in outcome.world.looked]
        if (
            faults_of(outcome.objects, ROWS, decode)
            or {key for key in outcome.world.overwritten if not key.startswith("hb/")}
            or (outcome.damaged and not faults.vanishes)
            or set(outcome.results) != {EXPECTED}
            or (faults in (Faults(), Faults(unheard=0.1)) and len(looked) > ROWS)
        ):
            return
    raise AssertionError("nobody noticed")
