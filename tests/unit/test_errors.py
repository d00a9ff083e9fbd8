import errno

import pytest

from buoy.errors import BuoyError, InputError, JobError, StoreError, as_buoy_error


def test_an_error_is_what_where_and_what_next() -> None:
    error = InputError("x.jpg is empty", "upload it again")
    assert str(error) == "x.jpg is empty; upload it again"
    assert error.record() == {"class": "InputError", "message": "x.jpg is empty", "hint": "upload it again"}


@pytest.mark.parametrize(
    ("number", "remedy"), [(errno.ENOSPC, "free some space"), (errno.EROFS, "read-only"), (errno.EACCES, "mode")]
)
def test_errors_of_the_system_get_a_remedy(number: int, remedy: str) -> None:
    told = as_buoy_error(OSError(number, "no"), "writing x.json")
    assert isinstance(told, StoreError)
    assert remedy in told.hint
    assert told.message.startswith("writing x.json")


def test_anything_else_is_told_as_a_fault_of_ours() -> None:
    told = as_buoy_error(KeyError("a"), "x.jpg")
    assert isinstance(told, JobError)
    assert "report it" in told.hint
    same = BuoyError("a")
    assert as_buoy_error(same, "x") is same
