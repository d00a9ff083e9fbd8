"""Key patterns: what is read out of keys, and what is said of patterns that cannot be used."""

from __future__ import annotations

import pytest

from buoy.batch.pattern import KeyPattern, Place
from buoy.errors import UsageError

WHEN = "2011-02-03T04:05:06"


@pytest.mark.parametrize(
    ("pattern", "key", "place"),
    [
        ("{station}/{camera}/{time:%Y%m%d_%H%M%S}.jpg", "OBSEA/cam 1/20110203_040506.jpg", (WHEN, "OBSEA", "cam 1")),
        ("{station}/{camera}/", "archive/OBSEA/20110203.jpg", ("", "archive", "OBSEA")),
        ("{time:%Y/%m/%d/%H.%M.%S}", "OBSEA/2011/02/03/04.05.06-x.png", (WHEN, "", "")),
        ("*_{camera}.{time:%Y%j}", "a/b_left.2011034.png", ("2011-02-03T00:00:00", "", "left")),
        ("{time:%Y%m%d%H%M%S%f}", "20110203040506250.png", ("2011-02-03T04:05:06.250000", "", "")),
        ("{camera}_{time}.jpg", "cam1_20110203_040506.jpg", (WHEN, "", "cam1")),
        ("{station}/{camera}", "OBSEA/cam1/20110203.jpg", ("", "OBSEA", "cam1")),
        ("{camera}/{time}", "cam1/2011-02-03", ("2011-02-03T00:00:00", "", "cam1")),
        (r"(?P<station>[A-Z]+)\d?_(?P<time>\d{8}T\d{6})", "x/OBSEA2_20110203T040506Z.png", (WHEN, "OBSEA", "")),
        (r"^(?P<camera>\w+)/", "cam1/a.png", ("", "", "cam1")),
        ("", "OBSEA/cam1/20110203.jpg", ("", "", "")),
    ],
)
def test_a_pattern_reads_keys(pattern: str, key: str, place: tuple[str, str, str]) -> None:
    assert KeyPattern(pattern).read(key) == Place(*place)


@pytest.mark.parametrize(
    "time",
    [
        "20110203T040506",
        "20110203_040506",
        "20110203-040506",
        "20110203040506",
        "2011-02-03_04-05-06",
        WHEN,
        f"{WHEN}Z",
    ],
)
def test_a_time_without_a_format_is_read_as_people_write_them(time: str) -> None:
    assert KeyPattern("/{time}.jpg").read(f"a/{time}.jpg").time == WHEN
    assert KeyPattern(r"/(?P<time>[^/]+)\.jpg").read(f"a/{time}.jpg").time == WHEN


@pytest.mark.parametrize("key", ["OBSEA/20111303.jpg", "OBSEA/2011.jpg", "OBSEA/20110203.png", "20110203.jpg", ""])
def test_a_key_that_does_not_fit_says_nothing(key: str) -> None:
    assert KeyPattern("{station}/{time:%Y%m%d}.jpg").read(key) == Place()


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("{ship}/{time:%Y%m%d}.jpg", r"names \['ship', 'time'\]"),
        (r"(?P<ship>\w+)/(?P<time>\d+)", r"names \['ship', 'time'\]"),
        ("*.jpg", "names nothing"),
        ("{1}.jpg", "cannot be read"),
        ("{camera}/{camera}.jpg", "cannot be read: redefinition"),
        ("(?P<camera>[a-z", "cannot be read: unterminated"),
        ("{time:%Y%Q}", "%Q in the key pattern is not known"),
        ("{time:%Y%}", "% in the key pattern is not known"),
        ("{time:%Y/%m/%Y%m%d}.jpg", "has %Y twice"),
        ("{station:%Y}/{time:%Y%m%d}", "only time has a form"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_refused_before_the_run(pattern: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as refused:
        KeyPattern(pattern)
    assert refused.value.hint


def test_a_pattern_is_tried_on_keys_and_refused_if_it_reads_none() -> None:
    pattern = KeyPattern("{camera}/{time:%Y%m%d}")
    assert pattern.check(["cam1/20110203.jpg", "cam1/20119999.jpg", "a.jpg", "cam2/20110204.jpg"]) == 0.5
    assert pattern.check([]) == KeyPattern("").check(["a.jpg"]) == 1.0
    with pytest.raises(UsageError, match=r"reads none of 2 keys, such as 'a\.jpg'"):
        pattern.check(["a.jpg", "b.jpg"])
