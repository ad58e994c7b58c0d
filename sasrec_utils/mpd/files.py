"""Writing files so that nobody ever sees half of one, and taking turns: what every module that writes files uses."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def write_beside(path: str | os.PathLike) -> Iterator[Path]:
    """Give a path beside `path` to write to; when the block ends well, that file takes the name `path`.

        with write_beside(folder / "config.json") as beside:
            beside.write_text(text, encoding="utf-8")

    A reader finds the old file or the new one, never a part. The name beside is new each time
    (`.config.json.1f0a….tmp`), so two processes that write the same file cannot mix their bytes: the later one wins.
    When the block raises, the file beside is removed and `path` stays as it was. An OSError that names no file, as
    that of a full disk, leaves with `path` as its `filename`. Several files appear together, or none, when an
    `ExitStack` enters them all (the last entered is renamed first).
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        yield beside
        beside.replace(path)
    except OSError as error:
        if error.filename is None or str(beside) in (error.filename, error.filename2):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        with contextlib.suppress(OSError):  # the error that brought us here says more than a second one
            beside.unlink()


def remove_leftovers(folder: str | os.PathLike, name: str = "*") -> None:
    """Remove what killed processes left of files that `write_beside` was to write: `name`, or all in `folder`.

    Call it only while you hold the lock that all writers of these files take: else it takes a living process's
    file away.
    """
    for path in Path(folder).glob(f".{name}." + "[0-9a-f]" * 16 + ".tmp"):
        if path.is_file():
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def lock(path: str | os.PathLike, on_wait: Callable[[], object] | None = None) -> Iterator[None]:
    """Let one process at a time into the block; the others wait.

    `path` is an empty file for this purpose, made if it is not there, and stays. The system frees the lock when its
    holder ends, however it ends. `on_wait` is called once if another holds the lock: it may tell the user, or raise
    to give up instead of waiting. A process that takes the same lock inside the block waits for itself, for ever.
    OSError when `path` cannot be opened. Where the file system has no locks, as some network ones, nobody waits.
    """
    with Path(path).open("ab") as file:
        if not _acquire(file, wait=False):
            if on_wait is not None:
                on_wait()
            while not _acquire(file, wait=True):
                pass
        yield


def _acquire(file: BinaryIO, wait: bool) -> bool:
    """Try to lock; False if another has the lock (with `wait` only on Windows, which gives up after ten seconds)."""
    if os.name == "nt":
        import msvcrt

        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
    else:
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass  # no locks here
    return True
