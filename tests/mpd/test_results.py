"""Results are kept, never half-written, and made again when they are damaged."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from made_slices import ROOT, as_bytes, assert_only, make_files, quiet, tables

from sasrec_utils.mpd import CSV_NAME, TABLES, MPDError, prepare, preparing


def test_a_result_is_not_made_again(tmp_path, monkeypatch):
    paths = make_files(tmp_path / "raw", 2)
    result = quiet(paths, tmp_path / "out")
    monkeypatch.setattr(preparing, "_write_tables", lambda *_: pytest.fail("made again"))
    assert quiet(paths, tmp_path / "out") == quiet(tmp_path / "raw", str(tmp_path / "out")) == result


@pytest.mark.parametrize("read_all_bytes", [preparing.READ_ALL_BYTES, 0])
def test_fingerprint_follows_names_and_content(tmp_path, monkeypatch, read_all_bytes):
    monkeypatch.setattr(preparing, "READ_ALL_BYTES", read_all_bytes)
    monkeypatch.setattr(preparing, "EDGE_BYTES", 64)
    path = make_files(tmp_path / "raw", 1)[0]
    stamp = path.stat().st_mtime_ns
    seen = {quiet(path, tmp_path / "out").name}
    original = path.read_bytes()
    # A letter at the beginning, a blank at the end and a letter in the middle; always the same size.
    for at in (original.index(b"2017"), len(original) - 2, original.index(b"Song")):
        path.write_bytes(original[:at] + (b" " if at == len(original) - 2 else b"9") + original[at + 1 :])
        # The middle is not read of large sets: there the time of change stands for it.
        moved = stamp + (1 if read_all_bytes == 0 and at == original.index(b"Song") else 0)
        os.utime(path, ns=(moved, moved))
        seen.add(quiet(path, tmp_path / "out").name)
    path.write_bytes(original)
    os.utime(path, ns=(stamp, stamp))
    assert quiet(path, tmp_path / "out").name in seen
    path.rename(path.with_name("mpd.slice.1-6.json"))
    seen.add(quiet(tmp_path / "raw", tmp_path / "out").name)
    monkeypatch.setitem(preparing.SETTINGS, "format", -1)
    seen.add(quiet(tmp_path / "raw", tmp_path / "out").name)
    assert len(seen) == 6


def test_fingerprint_of_small_sets_is_the_same_after_copying(tmp_path):
    first, second = make_files(tmp_path / "a", 2), make_files(tmp_path / "b", 2)
    os.utime(second[0], ns=(1, 1))
    assert quiet(first, tmp_path / "out") == quiet(second, tmp_path / "out")


def test_killed_in_the_middle(tmp_path):
    paths = make_files(tmp_path / "raw", 2)
    previous = quiet(paths[:1], tmp_path / "out")
    before = as_bytes(previous)
    code = textwrap.dedent("""
        import os, sys
        from sasrec_utils.mpd import preparing
        preparing._write_interactions = lambda *_: os._exit(9)
        preparing.prepare(sys.argv[1], sys.argv[2], progress=False)
        """)
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "raw", tmp_path / "out"], cwd=ROOT)
    assert done.returncode == 9
    stale = list((tmp_path / "out").glob(".*.tmp"))
    assert len(stale) == 1 and as_bytes(previous) == before
    result = quiet(paths, tmp_path / "out")
    assert not stale[0].exists() and len(tables(result)[2]) == 12 and as_bytes(previous) == before
    assert {path.name for path in (tmp_path / "out").iterdir()} == {".lock", previous.name, result.name}


@pytest.mark.parametrize("step", ["_writer", "_merge", "_write_tracks", "_write_interactions", "_write_csv"])
def test_full_disk(tmp_path, monkeypatch, step):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    paths = make_files(tmp_path / "raw", 2)
    previous = quiet(paths[:1], tmp_path / "out")
    before = as_bytes(previous)
    with monkeypatch.context() as patch:
        patch.setattr(preparing, step, full)
        with pytest.raises(MPDError, match=r"written \(No space left on device\); free some space") as caught:
            quiet(paths, tmp_path / "out", csv=True)
    named = str(caught.value).split(": ")[0]
    assert named.endswith(CSV_NAME) if step == "_write_csv" else named == str(tmp_path / "out")
    assert as_bytes(previous) == before
    result = quiet(paths, tmp_path / "out", csv=True)
    assert set(as_bytes(result)) == {*TABLES, CSV_NAME}
    assert_only(tmp_path / "out", previous, result)


@pytest.mark.skipif(sys.platform == "win32", reason="limits on file size are a Unix thing")
def test_file_size_limit(tmp_path):
    """A write that really fails, in each of the files in turn: the system refuses files beyond a size."""
    paths = make_files(tmp_path / "raw", 4, playlists=60)  # the CSV is the largest
    whole = quiet(paths, tmp_path / "out", csv=True)
    limits = [0, 100, *(path.stat().st_size - 1 for path in whole.iterdir())]
    code = textwrap.dedent("""
        import resource, sys
        from sasrec_utils.mpd import preparing
        for limit in map(int, sys.argv[3:]):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            try:
                preparing.prepare(sys.argv[1], f"{sys.argv[2]}/{limit}", progress=False, csv=True)
            except preparing.MPDError as error:
                print(error)
        """)
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "raw", tmp_path / "new", *map(str, limits)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    errors = done.stdout.splitlines()
    assert done.returncode == 0 and done.stderr == "" and len(errors) == len(limits)
    assert all("cannot be written" in error and "File too large" in error for error in errors)
    for limit in limits:  # never a table in part; all of them if only the CSV was too large
        out = tmp_path / "new" / str(limit)
        only_csv = limit == max(limits)
        assert [path.name for path in out.iterdir() if path.name != ".lock"] == [whole.name] * only_csv
        if only_csv:
            assert set(as_bytes(out / whole.name)) == set(TABLES)
            assert all((out / whole.name / name).read_bytes() == (whole / name).read_bytes() for name in TABLES[:3])


def test_two_at_the_same_time(tmp_path):
    make_files(tmp_path / "raw", 12)
    code = "import sys; from sasrec_utils.mpd import prepare; print(prepare(*sys.argv[1:], progress=False))"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, tmp_path / "raw", tmp_path / "out"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    printed = [process.communicate()[0].strip() for process in running]
    assert [process.returncode for process in running] == [0, 0] and printed[0] == printed[1]
    assert_only(tmp_path / "out", Path(printed[0]))


def test_a_result_with_a_missing_table_is_made_again(tmp_path):
    paths = make_files(tmp_path / "raw", 1)
    result = quiet(paths, tmp_path / "out")
    before = as_bytes(result)
    (result / "tracks.parquet").unlink()
    with pytest.warns(UserWarning, match=f"{result.name}: tables were missing or damaged and have been made again"):
        assert as_bytes(quiet(paths, tmp_path / "out")) == before


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGE = {
    "cut off": lambda content: content[: len(content) // 2],
    "a byte short": lambda content: content[:-1],
    "empty": lambda content: b"",
    "a flipped bit": flipped,
    "of another set": lambda content: content.replace(b"S", b"T"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", TABLES[:3])
def test_a_damaged_table_is_made_again(tmp_path, name, damage):
    paths = make_files(tmp_path / "raw", 1)
    result = quiet(paths, tmp_path / "out")
    before = as_bytes(result)
    (result / name).write_bytes(DAMAGE[damage](before[name]))
    (result / "notes.txt").write_text("mine")
    assert as_bytes(result) != before
    with pytest.warns(UserWarning, match="made again"):
        assert quiet(paths, tmp_path / "out") == result
    assert as_bytes(result) == {**before, "notes.txt": b"mine"}
    assert quiet(paths, tmp_path / "out") == result  # and now it is whole
    assert_only(tmp_path / "out", result)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"tables": []}', '{"tables": {"tracks.parquet": 3}}', "[" * 10_000]
)
def test_a_damaged_info_counts_as_damage(tmp_path, content):
    paths = make_files(tmp_path / "raw", 1)
    result = quiet(paths, tmp_path / "out")
    before = as_bytes(result)
    (result / "info.json").write_text(content)
    with pytest.warns(UserWarning, match="made again"):
        assert as_bytes(quiet(paths, tmp_path / "out")) == before


def test_damage_to_large_tables_is_seen_at_their_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "CHECK_ALL_BYTES", 0)
    monkeypatch.setattr(preparing, "EDGE_BYTES", 64)
    paths = make_files(tmp_path / "raw", 1)
    result = quiet(paths, tmp_path / "out")
    before = as_bytes(result)
    for damage in ("cut off", "a byte short", "empty"):
        (result / "tracks.parquet").write_bytes(DAMAGE[damage](before["tracks.parquet"]))
        with pytest.warns(UserWarning, match="made again"):
            assert as_bytes(quiet(paths, tmp_path / "out")) == before
    read = []
    real = preparing._checksum
    monkeypatch.setattr(preparing, "_checksum", lambda path, read_all: read.append(read_all) or real(path, read_all))
    quiet(paths, tmp_path / "out")
    assert read == [True, False, False, False]  # the slice, and of each table only its ends


def test_a_damaged_csv_is_written_again(tmp_path, monkeypatch):
    paths = make_files(tmp_path / "raw", 1)
    result = quiet(paths, tmp_path / "out", csv=True)
    before = as_bytes(result)
    monkeypatch.setattr(preparing, "_write_tables", lambda *_: pytest.fail("the tables are whole"))
    for content in (before[CSV_NAME][:-7], b"", flipped(before[CSV_NAME])):
        (result / CSV_NAME).write_bytes(content)
        assert quiet(paths, tmp_path / "out") == result  # nobody asked for it
        assert as_bytes(quiet(paths, tmp_path / "out", csv=True)) == before


@pytest.mark.parametrize("csv", [True, False])
def test_what_a_killed_csv_left_behind_is_removed(tmp_path, csv):
    paths = make_files(tmp_path / "raw", 1)
    result = quiet(paths, tmp_path / "out")
    code = textwrap.dedent("""
        import os, sys
        from sasrec_utils.mpd import preparing
        preparing.pa_csv.write_csv = lambda *_: os._exit(9)
        preparing.prepare(sys.argv[1], sys.argv[2], progress=False, csv=True)
        """)
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "raw", tmp_path / "out"], cwd=ROOT)
    assert done.returncode == 9 and len(as_bytes(result)) == len(TABLES) + 1
    quiet(paths, tmp_path / "out", csv=csv)
    assert set(as_bytes(result)) == {*TABLES, *[CSV_NAME] * csv}


@pytest.mark.parametrize("same_size", [True, False])
def test_a_file_that_changes_while_it_is_read(tmp_path, monkeypatch, same_size):
    paths = make_files(tmp_path / "raw", 2)
    real = preparing._fingerprint

    def then_change(files):
        name = real(files)
        content = paths[1].read_bytes()
        paths[1].write_bytes(content.replace(b"Song", b"Gong") if same_size else content + b" ")
        return name

    with monkeypatch.context() as patch:
        patch.setattr(preparing, "_fingerprint", then_change)
        with pytest.raises(MPDError, match=r"6-11\.json: the file changed while it was read; try again"):
            quiet(paths, tmp_path / "out")
    assert_only(tmp_path / "out")
    assert tables(quiet(paths, tmp_path / "out"))[1]["track_name"].str.startswith("Gong").any() == same_size


def test_a_file_that_is_removed_while_it_is_read(tmp_path, monkeypatch):
    paths = make_files(tmp_path / "raw", 2)
    real = preparing._fingerprint

    def then_remove(files):
        name = real(files)
        paths[1].unlink()
        return name

    monkeypatch.setattr(preparing, "_fingerprint", then_remove)
    with pytest.raises(MPDError, match=r"6-11\.json: the file cannot be read .*check that it exists"):
        quiet(paths, tmp_path / "out")
    assert_only(tmp_path / "out")


def test_progress_goes_to_stderr(tmp_path, capfd):
    path = make_files(tmp_path / "raw", 1)
    quiet(path, tmp_path / "a")
    assert capfd.readouterr() == ("", "")
    prepare(path, tmp_path / "b")
    out, err = capfd.readouterr()
    assert out == "" and "1/1" in err
