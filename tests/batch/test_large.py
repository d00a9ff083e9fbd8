"""Large pictures wait on the disk, not in a worker's memory."""

from __future__ import annotations

from pathlib import Path

from support.batch import BatchRun
from support.tiny import make_model, picture_with_squares, png

LARGE, LARGE_BYTES = 24, 40 << 20


def test_large_pictures_are_not_all_held_in_memory(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    whole = png(picture_with_squares((1, 1)))
    for number in range(LARGE):
        with (source / f"{number:02d}.png").open("wb") as file:
            file.write(whole)
            file.truncate(LARGE_BYTES)  # PNG ends where it says so
    run = BatchRun(make_model(tmp_path / "models"), str(source), str(tmp_path / "out"))
    assert run.run("--dry-run").returncode == 0
    run.plan(0, LARGE)
    pilot = run.pilot()
    peak = 0
    while pilot.poll() is None:
        peak = max(peak, _peak_bytes(pilot.pid))
    assert pilot.returncode == 0
    assert peak < LARGE * LARGE_BYTES / 2
    assert run.run().returncode == 0
    assert run.report()["counts"] == {"ok": LARGE}


def _peak_bytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return int(status.split("VmHWM:")[1].split()[0]) << 10 if "VmHWM:" in status else 0
