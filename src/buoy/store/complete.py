"""Whether somebody is still writing a file.

Linux grants a read lease (fcntl(2), F_SETLEASE) only while nobody has the file open for writing, so
one system call tells it exactly and at once. It is trusted where every writer goes through this
kernel: on a local file system, and for files that we own (or as root). Elsewhere (NFS, SMB, FUSE,
somebody else's file) a file counts as written when nothing about it has changed for `QUIET_S`, which
is a guess: a writer that pauses longer deceives it. Such a writer should copy to a hidden name and
rename, as rsync and file managers do.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import time

__all__ = ["QUIET_S", "is_quiet", "is_whole", "leases_trusted", "wait_whole"]

#: How long a file must be left alone where leases tell nothing.
QUIET_S = 2.0

_LOCAL = frozenset(
    {
        *("bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "jfs", "ntfs3", "overlay"),
        *("ramfs", "reiserfs", "tmpfs", "vfat", "xfs", "zfs"),
    }
)


def is_whole(fd: int, *, trusted: bool) -> bool:
    """Whether nobody is writing the regular file that is open (for reading) as `fd`.

    Args:
        fd: the file.
        trusted: what `leases_trusted` says of its file system.
    """
    writer = _has_writer(fd) if trusted else None
    return is_quiet(os.fstat(fd)) if writer is None else not writer


def is_quiet(stat: os.stat_result) -> bool:
    """Whether neither content nor name of the file have changed lately.

    The time of the last change (ctime) is looked at too: copying programs set the other one back.
    """
    return time.time() - max(stat.st_mtime, stat.st_ctime) >= QUIET_S


def leases_trusted(fd: int) -> bool:
    """Whether the file or folder lies on a file system whose every writer is on this machine."""
    try:
        with open(f"/proc/self/fdinfo/{fd}", "rb") as info:
            mount = next(line.split()[1] for line in info if line.startswith(b"mnt_id:"))
        with open("/proc/self/mountinfo", "rb") as mounts:
            found = next(line for line in mounts if line.startswith(mount + b" "))
    except (OSError, StopIteration):  # no /proc, not Linux
        return False
    # proc_pid_mountinfo(5): optional fields, then " - ", then the type
    return found.partition(b" - ")[2].split()[0].decode() in _LOCAL


def wait_whole(fd: int) -> None:
    """Wait until nobody has the file open for writing, if that can be told; a second at most.

    A child that was forked while we wrote holds our descriptor until it calls exec.
    """
    for _ in range(1000):
        if not _has_writer(fd):
            return
        time.sleep(0.001)


def _has_writer(fd: int) -> bool | None:
    """Ask for a read lease; `None` if the kernel does not say."""
    if not hasattr(fcntl, "F_SETLEASE"):
        return None
    try:
        # Whoever opens the file in the microseconds that we hold the lease makes the kernel send us
        # a signal: SIGIO, which ends the process, unless another is asked for. SIGURG is ignored.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    return False
