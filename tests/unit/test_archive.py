"""Zips: good ones in order, bad ones refused with a reason, nothing on disk."""

from __future__ import annotations

import contextlib
import io
import stat
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from buoy import archive
from buoy.archive import is_zip, picture_in, pictures_in
from buoy.errors import ArchiveError, InputError


def make_zip(path: Path, *entries: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as made:
        for name, content in entries:
            made.writestr(name, content, compress_type=method)
    return path


def contents(path: Path) -> dict[str, bytes]:
    return {name: content for name, content in pictures_in(path) if isinstance(content, bytes)}


def refusals(path: Path) -> dict[str, InputError]:
    return {name: content for name, content in pictures_in(path) if isinstance(content, InputError)}


def only_refusal(path: Path) -> tuple[str, str]:
    ((name, error),) = refusals(path).items()
    assert contents(path) == {}
    assert error.hint
    return name, error.message


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_entries_come_in_their_order_with_their_bytes(tmp_path: Path, method: int) -> None:
    entries = (("b.jpg", b"second"), ("dir/a.jpg", b"first" * 1000), ("empty.png", b""))
    path = make_zip(tmp_path / "x.zip", *entries, method=method)
    assert list(pictures_in(path)) == list(entries)
    assert list(tmp_path.iterdir()) == [path]


def test_a_zip_is_told_by_its_content_not_by_its_name(tmp_path: Path) -> None:
    assert is_zip(make_zip(tmp_path / "x.jpg", ("a.jpg", b"a")))
    (tmp_path / "y.zip").write_bytes(b"\xff\xd8 a picture")
    assert not is_zip(tmp_path / "y.zip")
    assert not is_zip(tmp_path / "absent.zip")
    assert not is_zip(tmp_path)


def test_one_entry_is_held_at_a_time(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", ("a.jpg", b"a"), ("b.jpg", b"b"))
    pictures = pictures_in(path)
    assert next(pictures) == ("a.jpg", b"a")
    # The second entry is read when it is asked for: damaged by then, it is answered as damaged.
    data = bytearray(path.read_bytes())
    data[data.index(b"b.jpg")] = ord("c")
    path.write_bytes(data)
    name, content = next(pictures)
    assert name == "b.jpg"
    assert isinstance(content, InputError)


def test_folders_and_system_litter_are_passed_over_silently(tmp_path: Path) -> None:
    litter = ["dir/", "__MACOSX/._a.jpg", "dir/.DS_Store", "dir/Thumbs.db", "desktop.ini", "dir/._a.jpg", "win\\"]
    path = make_zip(tmp_path / "x.zip", *((name, b"") for name in litter), ("dir/a.jpg", b"a"))
    assert list(pictures_in(path)) == [("dir/a.jpg", b"a")]


def test_same_names_are_all_answered(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = make_zip(
            tmp_path / "x.zip", ("a.jpg", b"1"), ("a.jpg", b"2"), ("a.jpg~2", b"3"), ("a.jpg", b"1"), ("./a.jpg", b"5")
        )
    assert list(pictures_in(path)) == [
        ("a.jpg", b"1"), ("a.jpg~2", b"2"), ("a.jpg~2~2", b"3"), ("a.jpg~3", b"1"), ("a.jpg~4", b"5"),
    ]  # fmt: skip


def test_names_of_every_kind_are_kept_apart_and_readable(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", ("año/ñandú 1+2%.jpg", b"a"), ("写真.jpg", b"b"), ("win\\a.jpg", b"c"))
    assert list(contents(path)) == ["año/ñandú 1+2%.jpg", "写真.jpg", "win/a.jpg"]


def test_utf8_names_without_the_flag_are_read_as_utf8(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", ("né.jpg", b"a"))
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.index(signature) + offset
        (flags,) = struct.unpack_from("<H", data, at)
        struct.pack_into("<H", data, at, flags & ~0x800)
    path.write_bytes(data)
    assert list(contents(path)) == ["né.jpg"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/a.jpg", "etc/a.jpg"),
        ("/etc/a.jpg", "etc/a.jpg"),
        ("\\server\\a.jpg", "server/a.jpg"),
        ("..\\..\\a.jpg", "a.jpg"),
        ("C:\\a.jpg", "a.jpg"),
        ("C:a.jpg", "a.jpg"),
        ("dir/../../a.jpg", "dir/a.jpg"),
        ("..", "unnamed"),
    ],
)
def test_names_that_point_outside_are_refused_under_a_harmless_name(tmp_path: Path, name: str, shown: str) -> None:
    path = make_zip(tmp_path / "x.zip", (name, b"evil"))
    found, message = only_refusal(path)
    assert found == shown
    assert "points outside" in message


def test_a_refused_name_does_not_hide_the_honest_one(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", ("../a.jpg", b"evil"), ("a.jpg", b"good"))
    assert list(refusals(path)) == ["a.jpg"]
    assert contents(path) == {"a.jpg~2": b"good"}


def test_hidden_files_are_refused_under_a_visible_name(tmp_path: Path) -> None:
    name, message = only_refusal(make_zip(tmp_path / "x.zip", (".cache/.a.jpg", b"a")))
    assert name == "cache/a.jpg"
    assert "hidden" in message


def test_symbolic_links_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("a.jpg")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    assert "symbolic link" in only_refusal(make_zip(tmp_path / "x.zip", (link, b"/etc/passwd")))[1]


def test_encrypted_entries_are_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", ("a.jpg", b"secret"))
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 0x1
    path.write_bytes(data)
    assert "encrypted" in only_refusal(path)[1]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_without_a_bound_on_memory_are_refused(tmp_path: Path, method: int) -> None:
    assert f"method {method}" in only_refusal(make_zip(tmp_path / "x.zip", ("a.jpg", b"a" * 99), method=method))[1]


def test_zips_inside_are_refused_by_name_and_by_content(tmp_path: Path) -> None:
    inner = make_zip(tmp_path / "inner.zip", ("a.jpg", b"a")).read_bytes()
    path = make_zip(tmp_path / "x.zip", ("inner.zip", b"anything"), ("b.jpg", inner), ("c.jpg", b"c"))
    assert {name: "archive inside" in error.message for name, error in refusals(path).items()} == {
        "inner.zip": True,
        "b.jpg": True,
    }
    assert contents(path) == {"c.jpg": b"c"}


def test_a_bomb_is_refused_by_its_ratio_and_the_others_finish(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", ("bomb.jpg", bytes(20 << 20)), ("a.jpg", b"a"))
    (error,) = refusals(path).values()
    assert "200 to 1" in error.message
    assert contents(path) == {"a.jpg": b"a"}


def test_small_entries_may_shrink_as_much_as_they_like(tmp_path: Path) -> None:
    assert contents(make_zip(tmp_path / "x.zip", ("black.png", bytes(1 << 20)))) == {"black.png": bytes(1 << 20)}


def test_limits_hold_for_what_is_read_whatever_the_headers_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_zip(tmp_path / "x.zip", ("bomb.jpg", bytes(20 << 20)))
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", data, data.index(signature) + offset, 1000)
    path.write_bytes(data)
    assert "damaged" in only_refusal(path)[1]  # a thousand bytes were unpacked, and do not match the checksum
    honest = make_zip(tmp_path / "y.zip", ("large.jpg", bytes(3 << 20)), ("a.jpg", b"a"))
    monkeypatch.setattr(archive, "MAX_ENTRY_BYTES", 2 << 20)
    assert list(refusals(honest)) == ["large.jpg"]
    assert list(contents(honest)) == ["a.jpg"]


def test_too_many_entries_are_refused_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_zip(tmp_path / "x.zip", ("a.jpg", b"a"), ("b.jpg", b"b"))
    monkeypatch.setattr(archive, "MAX_ENTRIES", 1)
    with pytest.raises(ArchiveError, match=r"has 2 entries; the limit is 1.*BUOY_ZIP_MAX_ENTRIES"):
        list(pictures_in(path))


def test_too_many_bytes_are_refused_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_zip(tmp_path / "x.zip", ("a.jpg", bytes(600)), ("b.jpg", bytes(600)))
    monkeypatch.setattr(archive, "MAX_BYTES", 1000)
    with pytest.raises(ArchiveError, match="BUOY_ZIP_MAX_BYTES"):
        list(pictures_in(path))


def test_a_list_of_entries_that_claims_to_be_huge_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with path.open("wb") as file:  # sparse: takes no room
        file.write(b"PK\x03\x04")
        file.seek(100 << 20)
        file.write(b"PK\x05\x06" + struct.pack("<4H2IH", 0, 0, 65535, 65535, 99 << 20, 1 << 20, 0))
    with pytest.raises(ArchiveError, match="list of entries has 99 MiB"):
        list(pictures_in(path))


def test_entries_that_share_their_data_are_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", ("a.jpg", bytes(range(256)) * 100), method=zipfile.ZIP_STORED)
    data = path.read_bytes()
    start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    entry = data[start:end]
    tail = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 9, 9, 9 * len(entry), start, 0)
    path.write_bytes(data[:start] + entry * 9 + tail)
    with pytest.raises(ArchiveError, match="overlap"):
        list(pictures_in(path))


@pytest.mark.parametrize("names", [(), ("dir/", "__MACOSX/._a.jpg")])
def test_a_zip_without_pictures_is_an_error_not_silence(tmp_path: Path, names: tuple[str, ...]) -> None:
    path = make_zip(tmp_path / "x.zip", *((name, b"") for name in names))
    with pytest.raises(ArchiveError, match="no pictures"):
        list(pictures_in(path))


def test_a_truncated_zip_is_refused_as_a_whole(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", ("a.jpg", bytes(range(256)) * 40))
    path.write_bytes(path.read_bytes()[:-30])
    assert is_zip(path)
    with pytest.raises(ArchiveError, match="not a whole zip"):
        list(pictures_in(path))


def test_a_damaged_entry_is_answered_and_the_others_finish(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", ("a.jpg", bytes(range(256)) * 40), ("b.jpg", b"b"), method=zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[200] ^= 0xFF
    path.write_bytes(data)
    assert "damaged" in refusals(path)["a.jpg"].message
    assert contents(path) == {"b.jpg": b"b"}


def test_long_and_odd_names_become_names_that_any_store_takes(tmp_path: Path) -> None:
    path = make_zip(
        tmp_path / "x.zip",
        ("é" * 300 + ".jpg", b"a"),
        ("/".join(["d" * 150] * 9) + "/b.jpg", b"b"),
        ("a\n\x7fb.jpg", b"c"),
    )
    long, deep, odd = contents(path)
    assert long.endswith("é.jpg")
    assert len(long.encode()) <= 200
    assert deep.endswith("/b.jpg")
    assert len(deep.encode()) <= 700
    assert odd == "a__b.jpg"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_ends_in_answers_or_in_an_archive_error(tmp_path: Path, data: st.DataObject) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as entries:
        entries.writestr("a.jpg", b"first picture" * 20)
        entries.writestr("dir/b.jpg", b"second picture" * 20)
    broken = bytearray(made.getvalue())
    for place, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(broken) - 1), st.integers(0, 255)), max_size=6)
    ):
        broken[place] = value
    path = tmp_path / "fuzz.zip"
    path.write_bytes(broken[: data.draw(st.integers(0, len(broken)))])
    with contextlib.suppress(ArchiveError):
        answers = list(pictures_in(path))
        assert answers
        assert all(not name.startswith((".", "/")) and ".." not in name.split("/") for name, _ in answers)


def test_one_picture_is_had_by_the_name_that_the_list_gives_it(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", ("dive/a.jpg", b"one"), ("../a.jpg", b"two"), ("b.jpg", b"three"))
    for name, content in pictures_in(path):
        if isinstance(content, bytes):
            assert picture_in(path, name) == content
        else:
            with pytest.raises(type(content), match="zip"):
                picture_in(path, name)
    with pytest.raises(InputError, match=r"no picture c\.jpg in the zip"):
        picture_in(path, "c.jpg")
