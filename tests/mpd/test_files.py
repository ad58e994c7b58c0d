from __future__ import annotations

import errno
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from sasrec_utils.mpd.files import lock, remove_leftovers, write_beside

ROOT = Path(__file__).parents[2]


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("old")
    with write_beside(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old" and beside.parent == tmp_path
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_what_fails_changes_nothing(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("old")
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), write_beside(path) as beside:
            beside.write_text("half")
            raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_two_writers_do_not_share_a_file(tmp_path):
    path = tmp_path / "config.json"
    with write_beside(path) as first, write_beside(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]  # the one that ended last


def test_a_full_disk_names_the_file(tmp_path):
    path = tmp_path / "weights"
    with pytest.raises(OSError, match="No space left") as caught, write_beside(path) as beside:
        beside.write_bytes(b"some")
        raise OSError(errno.ENOSPC, "No space left on device")  # as `file.write` does: without a name
    assert caught.value.filename == str(path) and list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError) as caught, write_beside(tmp_path / "no" / "file") as beside:
        beside.write_bytes(b"some")
    assert caught.value.filename == str(tmp_path / "no" / "file")  # the name that the user knows
    with pytest.raises(FileNotFoundError) as caught, write_beside(path):
        (tmp_path / "input").read_bytes()
    assert caught.value.filename == str(tmp_path / "input")  # an error that is not about our file stays as it is


def test_several_files_appear_together_or_none(tmp_path):
    paths = [tmp_path / name for name in ("a", "b", "c")]
    with pytest.raises(RuntimeError), ExitStack() as stack:
        for path in paths:
            stack.enter_context(write_beside(path)).write_text(path.name)
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with ExitStack() as stack:
        for path in paths:
            stack.enter_context(write_beside(path)).write_text(path.name)
        assert not any(path.exists() for path in paths)
    assert sorted(tmp_path.iterdir()) == paths


def test_leftovers_of_a_killed_writer_are_removed(tmp_path):
    code = """
import os, sys
from sasrec_utils.mpd.files import write_beside
for name in ("a.csv", "b.csv"):
    beside = write_beside(os.path.join(sys.argv[1], name)).__enter__()
    beside.write_text("half")
os._exit(9)
"""
    (tmp_path / "mine.tmp").touch()
    assert subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT).returncode == 9
    assert len(list(tmp_path.iterdir())) == 3
    remove_leftovers(tmp_path, "a.csv")
    assert len(list(tmp_path.iterdir())) == 2
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.tmp"]


def test_a_lock_lets_one_in_and_ends_with_its_holder(tmp_path):
    code = """
import sys, time
from sasrec_utils.mpd.files import lock
with lock(sys.argv[1]):
    print("in", flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "lock"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "in\n"

        def give_up():
            raise TimeoutError("busy")

        with pytest.raises(TimeoutError, match="busy"), lock(tmp_path / "lock", on_wait=give_up):
            pytest.fail("two at once")
        waiting, inside = threading.Event(), threading.Event()

        def wait():
            with lock(tmp_path / "lock", on_wait=waiting.set):
                inside.set()

        thread = threading.Thread(target=wait)
        thread.start()
        assert waiting.wait(20) and not inside.is_set()
        holder.kill()
        assert inside.wait(20)
        thread.join()
    finally:
        holder.kill()
        holder.communicate()
    with lock(tmp_path / "lock", on_wait=give_up):
        pass
