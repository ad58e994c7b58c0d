from __future__ import annotations

import csv as csv_module
import errno
import html
import json
import os
import random
import subprocess
import sys
import tempfile
import textwrap
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sasrec_utils import mpd
from sasrec_utils.mpd import Catalogue, MPDError, prepare, read_slice, slice_files

ROOT = Path(__file__).parents[1]
PLAYLIST_KEYS = [
    "name",
    "collaborative",
    "pid",
    "description",
    "modified_at",
    "num_tracks",
    "num_albums",
    "num_followers",
    "num_edits",
    "duration_ms",
    "num_artists",
]
TRACK_KEYS = ["pos", "artist_name", "track_uri", "artist_uri", "track_name", "album_uri", "duration_ms", "album_name"]
NAMES = ["  road trip ", "Chill \u2600", "R&amp;B", "caf\u00e9 \U0001f389", "x"]


# --- Made-up slices in the exact format of the dataset ----------------------------------------------------


def make_track(number: int, pos: int) -> dict:
    artist, album = number // 4, number // 3
    return {
        "pos": pos,
        "artist_name": f"Artist {artist}",
        "track_uri": f"spotify:track:{number:022d}",
        "artist_uri": f"spotify:artist:{artist:022d}",
        "track_name": f"Song {number} \u00e9",
        "album_uri": f"spotify:album:{album:022d}",
        "album_name": f"Album {album}",
        "duration_ms": -1 if number % 7 == 0 else 1000 * number,
    }


def make_slice(first_pid: int = 0, playlists: int = 6, tracks: int = 40, seed: int = 0) -> dict:
    rng = random.Random(seed + first_pid)
    made = []
    for pid in range(first_pid, first_pid + playlists):
        rows = [make_track(int(tracks * rng.random() ** 2), pos) for pos in range(rng.randint(3, 12))]
        playlist = {
            "name": rng.choice(NAMES),
            "collaborative": rng.choice(["true", "false"]),
            "pid": pid,
            "modified_at": 1_400_000_000 + 86_400 * rng.randrange(900),
            "num_tracks": len(rows),
            "num_albums": len({row["album_uri"] for row in rows}),
            "num_followers": 1,
            "tracks": rows,
            "num_edits": 2,
            "duration_ms": 12345,
            "num_artists": len({row["artist_uri"] for row in rows}),
        }
        if pid % 3 == 0:
            playlist["description"] = "it&#x27;s &lt;mine&gt;"
        made.append(playlist)
    info = {
        "generated_on": "2017-12-03 08:41:42.057563",
        "slice": f"{first_pid}-{first_pid + playlists - 1}",
        "version": "v1",
    }
    return {"info": info, "playlists": made}


def write(folder: Path, data: dict, name: str | None = None, **options) -> Path:
    pids = [playlist["pid"] for playlist in data["playlists"]]
    path = folder / (name or f"mpd.slice.{pids[0]}-{pids[-1]}.json")
    path.write_text(json.dumps(data, **{"indent": 4, **options}), encoding="utf-8")
    return path


def make_files(folder: Path, count: int, playlists: int = 6, **options) -> list[Path]:
    folder.mkdir(exist_ok=True)
    return [write(folder, make_slice(playlists * number, playlists, **options)) for number in range(count)]


def expected_tables(slices: list[dict]) -> tuple[list[tuple], dict[str, int], Counter]:
    """The plainest way to the interactions, the ids and the plays."""
    rows, plays = [], Counter()
    for data in slices:
        for playlist in data["playlists"]:
            ordered = sorted(playlist["tracks"], key=lambda track: track["pos"])
            for place, track in enumerate(ordered):
                uri = track["track_uri"]
                stamp = playlist["modified_at"] - (len(ordered) - 1 - place)
                before = [other["track_uri"] for other in ordered[:place]]
                rows.append((playlist["pid"], uri, stamp, uri in before))
                plays[uri] += 1
    ids = {uri: number for number, uri in enumerate(sorted(plays, key=lambda uri: (-plays[uri], uri)), 1)}
    return [(pid, ids[uri], stamp, repeat) for pid, uri, stamp, repeat in rows], ids, plays


def tables(result: Path) -> list[pd.DataFrame]:
    return [pd.read_parquet(result / f"{name}.parquet") for name in ("interactions", "tracks", "playlists")]


def quiet(raw, out, **options) -> Path:
    return prepare(raw, out, progress=False, **options)


def as_bytes(result: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in result.iterdir()}


# --- Reading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"indent": None}, {"indent": None, "separators": (",", ":")}, {"ensure_ascii": False}]
)
def test_read_slice_has_every_key(tmp_path, options):
    data = make_slice(30)
    got = read_slice(write(tmp_path, data, **options))
    assert got.info == data["info"]
    assert sorted(got.playlists) == sorted(PLAYLIST_KEYS)
    assert sorted(got.rows) == sorted(["pid", *TRACK_KEYS])
    for row, playlist in zip(got.playlists.to_dict("records"), data["playlists"], strict=True):
        assert row["name"] == playlist["name"]  # as it is: blanks, escapes, emoji
        assert row["collaborative"] is (playlist["collaborative"] == "true")
        if "description" in playlist:
            assert row["description"] == html.unescape(playlist["description"]) == "it's <mine>"
        else:
            assert pd.isna(row["description"])
        for key in set(PLAYLIST_KEYS) - {"name", "collaborative", "description"}:
            assert row[key] == playlist[key]
    tracks = [(playlist["pid"], track) for playlist in data["playlists"] for track in playlist["tracks"]]
    for row, (pid, track) in zip(got.rows.to_dict("records"), tracks, strict=True):
        assert row["pid"] == pid
        for key in set(TRACK_KEYS) - {"duration_ms"}:
            assert row[key] == track[key]
        length = track["duration_ms"]
        assert pd.isna(row["duration_ms"]) if length == -1 else row["duration_ms"] == length


def test_read_slice_of_a_reduced_copy(tmp_path):
    data = {"playlists": [{"pid": 7, "tracks": [{"track_uri": "b"}, {"track_uri": "a"}]}, {"pid": 8, "tracks": []}]}
    got = read_slice(write(tmp_path, data))
    assert got.playlists["pid"].tolist() == [7, 8] and got.playlists["pid"].dtype == np.int64
    assert got.playlists.drop(columns="pid").isna().all(axis=None)
    assert got.rows[["pid", "track_uri"]].values.tolist() == [[7, "b"], [7, "a"]]
    assert got.rows.drop(columns=["pid", "track_uri"]).isna().all(axis=None)
    assert got.info == {}


def test_slice_files_are_in_numeric_order(tmp_path):
    names = ["mpd.slice.10000-10999.json", "mpd.slice.2000-2999.json", "other.json", "mpd.slice.0-999.json", "a.json"]
    for name in [*names, "._mpd.slice.0-999.json", "notes.txt"]:
        (tmp_path / name).touch()
    wanted = [tmp_path / names[index] for index in (3, 1, 0, 4, 2)]
    assert slice_files(tmp_path) == slice_files(str(tmp_path)) == wanted
    assert slice_files([tmp_path / name for name in names] * 2) == wanted
    assert slice_files(wanted[0]) == wanted[:1]


# --- Preparing --------------------------------------------------------------------------------------------


def test_prepare_gives_what_the_plainest_way_gives(tmp_path):
    slices = [make_slice(pid, seed=3) for pid in (0, 12, 102)]
    raw = tmp_path / "raw"
    raw.mkdir()
    for data, options in zip(slices, [{}, {"indent": None}, {"ensure_ascii": False}], strict=True):
        write(raw, data, **options)
    rows, ids, plays = expected_tables(slices)
    result = quiet(raw, tmp_path / "out")
    interactions, tracks, playlists = tables(result)

    assert list(interactions) == ["user_id", "track_id", "timestamp", "repeat"]
    assert [str(kind) for kind in interactions.dtypes] == ["int64", "int32", "int64", "bool"]
    assert list(interactions.itertuples(index=False, name=None)) == rows
    assert interactions["repeat"].any()

    assert tracks["track_id"].tolist() == list(range(1, len(ids) + 1))
    assert dict(zip(tracks["track_uri"], tracks["track_id"], strict=True)) == ids
    assert dict(zip(tracks["track_uri"], tracks["plays"], strict=True)) == plays
    numbers = tracks[["track_id", "artist_id", "album_id", "plays"]]
    assert set(numbers.dtypes) == {np.dtype("int32")}
    for row in tracks.to_dict("records"):
        track = make_track(int(row["track_uri"][-22:]), 0)
        for key in ("track_name", "artist_name", "artist_uri", "album_name", "album_uri"):
            assert row[key] == track[key]
        length = track["duration_ms"]
        assert pd.isna(row["duration_ms"]) if length == -1 else row["duration_ms"] == length
    for kind in ("artist", "album"):
        count = Counter()
        for row in tracks.to_dict("records"):
            count[row[f"{kind}_uri"]] += row["plays"]
        order = sorted(count, key=lambda uri: (-count[uri], uri))
        assert tracks[f"{kind}_id"].tolist() == [order.index(uri) + 1 for uri in tracks[f"{kind}_uri"]]

    made = [playlist for data in slices for playlist in data["playlists"]]
    assert playlists["user_id"].tolist() == [playlist["pid"] for playlist in made]
    assert playlists["name"].tolist() == [playlist["name"] for playlist in made]
    assert playlists["collaborative"].tolist() == [playlist["collaborative"] == "true" for playlist in made]
    assert playlists["length"].tolist() == [len(playlist["tracks"]) for playlist in made]
    assert playlists["description"].dropna().unique().tolist() == ["it's <mine>"]

    info = json.loads((result / "info.json").read_text())
    assert info["counts"] == {
        "slices": 3,
        "playlists": 18,
        "rows": len(rows),
        "tracks": len(ids),
        "repeats": sum(row[3] for row in rows),
        "artists": tracks["artist_id"].max(),
        "albums": tracks["album_id"].max(),
    }
    assert [file["name"] for file in info["files"]] == [path.name for path in slice_files(raw)]


def test_rows_follow_pos_and_else_the_file(tmp_path):
    shuffled = [make_track(number, pos) for number, pos in ((5, 2), (6, 0), (7, 1))]
    partly = [make_track(5, 2), make_track(6, 0), make_track(7, 1)]
    del partly[2]["pos"]
    gaps = [make_track(number, pos) for number, pos in ((1, 100), (2, 7), (3, 7))]
    data = {
        "playlists": [
            {"pid": 1, "modified_at": 50, "tracks": shuffled},
            {"pid": 2, "modified_at": 50, "tracks": partly},
            {"pid": 3, "tracks": gaps},
        ]
    }
    interactions, tracks, _ = tables(quiet(write(tmp_path, data), tmp_path / "out"))
    number = tracks.set_index("track_id")["track_uri"].str[-22:].astype(int)
    assert number[interactions["track_id"]].tolist() == [6, 7, 5, 5, 6, 7, 2, 3, 1]
    assert interactions["timestamp"].tolist() == [48, 49, 50, 48, 49, 50, 0, 1, 2]


def test_reduced_copy(tmp_path):
    data = {
        "playlists": [
            {
                "pid": 3,
                "tracks": [
                    {"track_uri": "t2", "artist_name": "A", "track_name": None},
                    {"track_uri": "t1", "pos": None},
                    {"track_uri": "t1"},
                ],
            },
            {"pid": 4, "name": None, "collaborative": None, "tracks": []},
        ]
    }
    interactions, tracks, playlists = tables(quiet(write(tmp_path, data), tmp_path / "out"))
    assert interactions.values.tolist() == [[3, 2, 0, False], [3, 1, 1, False], [3, 1, 2, True]]
    assert tracks["track_uri"].tolist() == ["t1", "t2"] and tracks["plays"].tolist() == [2, 1]
    assert tracks["artist_id"].tolist() == [0, 1] and tracks["album_id"].tolist() == [0, 0]
    assert tracks[["track_name", "album_name", "duration_ms"]].isna().all(axis=None)
    assert playlists["length"].tolist() == [3, 0]
    assert playlists.drop(columns=["user_id", "length"]).isna().all(axis=None)


def test_only_empty_playlists(tmp_path):
    result = quiet(write(tmp_path, {"playlists": [{"pid": 1, "tracks": []}]}), tmp_path / "out", csv=True)
    interactions, tracks, playlists = tables(result)
    assert (len(interactions), len(tracks), len(playlists)) == (0, 0, 1)
    assert len(Catalogue.load(result)) == 0 and Catalogue.load(result).ids(["a"]).tolist() == [0]


def test_first_row_gives_the_names(tmp_path):
    def one(pid, name):
        return {"playlists": [{"pid": pid, "tracks": [{"track_uri": "t", "track_name": name}]}]}

    paths = [write(tmp_path, one(20, "later")), write(tmp_path, one(3, "first"))]
    assert tables(quiet(paths, tmp_path / "out"))[1]["track_name"].tolist() == ["first"]


def test_order_of_the_files_does_not_matter(tmp_path):
    paths = make_files(tmp_path / "raw", 5)
    first = quiet(paths, tmp_path / "a")
    second = quiet([*paths[::-1], paths[0]], tmp_path / "b")
    assert first.name == second.name and as_bytes(first) == as_bytes(second)


def test_order_of_slices_changes_no_id(tmp_path):
    """The same playlists under exchanged file names: other rows first, but every track keeps its id."""
    for folder, pids in (("a", (0, 12)), ("b", (12, 0))):
        (tmp_path / folder).mkdir()
        for number, pid in enumerate(pids):
            write(tmp_path / folder, make_slice(pid), name=f"mpd.slice.{number}-{number}.json")
    made = [tables(quiet(tmp_path / name, tmp_path / "out")) for name in "ab"]
    (rows_a, tracks_a, _), (rows_b, tracks_b, _) = made
    pd.testing.assert_frame_equal(tracks_a, tracks_b)
    assert rows_a["user_id"].tolist() != rows_b["user_id"].tolist()


def test_same_bytes_in_every_process(tmp_path):
    """Whatever the hash seed and the number of processes; and from a script without a __main__ guard."""
    paths = make_files(tmp_path / "raw", 3 * mpd.FILES_PER_PROCESS + 1)
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(ROOT)!r})
        from sasrec_utils.mpd import prepare
        print(prepare({str(tmp_path / "raw")!r}, sys.argv[1], processes=int(sys.argv[2]), csv=True))
        """)
    )
    results = [quiet(paths, tmp_path / "here", processes=1, csv=True)]
    for seed, processes in (("1", "1"), ("2", "3")):
        done = subprocess.run(
            [sys.executable, "-W", "error", script, tmp_path / seed, processes],
            text=True,
            capture_output=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        assert "slice" in done.stderr  # the progress bar
        results.append(Path(done.stdout.strip()))
    assert len({result.name for result in results}) == 1
    assert as_bytes(results[0]) == as_bytes(results[1]) == as_bytes(results[2])


def test_playlists_over_several_row_groups(tmp_path, monkeypatch):
    slices = [make_slice(6 * number) for number in range(7)]
    for data in slices:
        write(tmp_path, data)
    monkeypatch.setitem(mpd.SETTINGS, "playlists_per_group", 10)
    monkeypatch.setitem(mpd.SETTINGS, "tracks_per_group", 4)
    monkeypatch.setattr(mpd, "TRACKS_PER_PART", 3)
    result = quiet(tmp_path, tmp_path / "out")
    assert pq.ParquetFile(result / "interactions.parquet").num_row_groups == 4
    interactions, tracks, playlists = tables(result)
    assert list(interactions.itertuples(index=False, name=None)) == expected_tables(slices)[0]
    assert tracks["track_id"].tolist() == list(range(1, len(tracks) + 1)) and len(playlists) == 42


def test_memory_does_not_grow_with_the_number_of_slices(tmp_path):
    paths = make_files(tmp_path / "raw", 24, playlists=60)

    def peak(count: int) -> int:
        tracemalloc.start()
        quiet(paths[:count], tmp_path / "out", processes=1)
        value = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return value

    peak(2)
    # The pids are kept, to see one that occurs twice; rows are not.
    assert peak(24) - peak(4) < 0.1 * sum(path.stat().st_size for path in paths[4:])


def test_csv(tmp_path):
    paths = make_files(tmp_path / "raw", 2)
    result = quiet(paths, tmp_path / "out")
    before, made = as_bytes(result), {path: path.stat().st_ino for path in result.iterdir()}
    assert mpd.CSV_NAME not in before
    assert quiet(paths, tmp_path / "out", csv=True) == result
    text = (result / "spotify_mpd_interactions.csv").read_text()
    assert text.startswith("user_id,track_id,timestamp\n")
    wanted = tables(result)[0][["user_id", "track_id", "timestamp"]].values.tolist()
    assert [[int(cell) for cell in row] for row in list(csv_module.reader(text.splitlines()))[1:]] == wanted
    assert {name: content for name, content in as_bytes(result).items() if name != mpd.CSV_NAME} == before
    assert all(path.stat().st_ino == number for path, number in made.items())  # the tables are the same files


# --- Results are kept, and never half-written -------------------------------------------------------------


def test_a_result_is_not_made_again(tmp_path, monkeypatch):
    paths = make_files(tmp_path / "raw", 2)
    result = quiet(paths, tmp_path / "out")
    monkeypatch.setattr(mpd, "_write_tables", lambda *_: pytest.fail("made again"))
    assert quiet(paths, tmp_path / "out") == quiet(tmp_path / "raw", str(tmp_path / "out")) == result


@pytest.mark.parametrize("read_all_bytes", [mpd.READ_ALL_BYTES, 0])
def test_fingerprint_follows_names_and_content(tmp_path, monkeypatch, read_all_bytes):
    monkeypatch.setattr(mpd, "READ_ALL_BYTES", read_all_bytes)
    monkeypatch.setattr(mpd, "EDGE_BYTES", 64)
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
    monkeypatch.setitem(mpd.SETTINGS, "format", -1)
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
        from sasrec_utils import mpd
        mpd._write_interactions = lambda *_: os._exit(9)
        mpd.prepare(sys.argv[1], sys.argv[2], progress=False)
        """)
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "raw", tmp_path / "out"], cwd=ROOT)
    assert done.returncode == 9
    stale = list((tmp_path / "out").glob(".*.tmp"))
    assert len(stale) == 1 and as_bytes(previous) == before
    result = quiet(paths, tmp_path / "out")
    assert not stale[0].exists() and len(tables(result)[2]) == 12 and as_bytes(previous) == before
    assert {path.name for path in (tmp_path / "out").iterdir()} == {".lock", previous.name, result.name}


def assert_only(out: Path, *results: Path) -> None:
    assert {path.name for path in out.iterdir()} - {".lock"} == {result.name for result in results}


@pytest.mark.parametrize("step", ["_writer", "_merge", "_write_tracks", "_write_interactions", "_write_csv"])
def test_full_disk(tmp_path, monkeypatch, step):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    paths = make_files(tmp_path / "raw", 2)
    previous = quiet(paths[:1], tmp_path / "out")
    before = as_bytes(previous)
    with monkeypatch.context() as patch:
        patch.setattr(mpd, step, full)
        with pytest.raises(MPDError, match=r"out: .*No space left on device.*free some space"):
            quiet(paths, tmp_path / "out", csv=True)
    assert as_bytes(previous) == before
    result = quiet(paths, tmp_path / "out", csv=True)
    assert set(as_bytes(result)) == {*mpd.TABLES, mpd.CSV_NAME}
    assert_only(tmp_path / "out", previous, result)


@pytest.mark.skipif(sys.platform == "win32", reason="limits on file size are a Unix thing")
def test_file_size_limit(tmp_path):
    """A write that really fails, in each of the files in turn: the system refuses files beyond a size."""
    paths = make_files(tmp_path / "raw", 4, playlists=60)  # the CSV is the largest
    whole = quiet(paths, tmp_path / "out", csv=True)
    limits = [0, 100, *(path.stat().st_size - 1 for path in whole.iterdir())]
    code = textwrap.dedent("""
        import resource, sys
        from sasrec_utils import mpd
        for limit in map(int, sys.argv[3:]):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            try:
                mpd.prepare(sys.argv[1], f"{sys.argv[2]}/{limit}", progress=False, csv=True)
            except mpd.MPDError as error:
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
            assert set(as_bytes(out / whole.name)) == set(mpd.TABLES)
            assert as_bytes(out / whole.name).items() < as_bytes(whole).items()


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
    assert as_bytes(quiet(paths, tmp_path / "out")) == before


def test_progress_goes_to_stderr(tmp_path, capfd):
    path = make_files(tmp_path / "raw", 1)
    quiet(path, tmp_path / "a")
    assert capfd.readouterr() == ("", "")
    prepare(path, tmp_path / "b")
    out, err = capfd.readouterr()
    assert out == "" and "1/1" in err


# --- Bad input --------------------------------------------------------------------------------------------


def changed(change) -> bytes:
    data = make_slice(100)
    change(data)
    return json.dumps(data, indent=4).encode()


def set_at(value, *keys):
    def change(data):
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = value

    return changed(change)


def drop_at(*keys):
    def change(data):
        for key in keys[:-1]:
            data = data[key]
        del data[keys[-1]]

    return changed(change)


GOOD = changed(lambda data: None)
BAD = {
    "empty file": (b"", r"cut off after byte 0.*copy the file again"),
    "no JSON": (b"hello", r"byte 0.*copy the file again"),
    "other JSON": (b"[1, 2]", r"Expected `object`, got `array`"),
    "cut off": (GOOD[:2000], r"cut off after byte 2000.*copy the file again"),
    "rubbish at the end": (GOOD + b"}", r"trailing characters \(byte \d+\)"),
    "missing playlists": (b'{"info": {}}', r"missing required field `playlists`"),
    "no playlists": (b'{"playlists": []}', r"`\$\.playlists` is empty"),
    "null playlists": (b'{"playlists": null}', r"\$\.playlists"),
    "playlist is a number": (set_at(3, "playlists", 2), r"`object`, got `int` - at `\$\.playlists\[2\]`"),
    "missing pid": (drop_at("playlists", 2, "pid"), r"required field `pid` - at `\$\.playlists\[2\]`"),
    "null pid": (set_at(None, "playlists", 2, "pid"), r"\$\.playlists\[2\]\.pid"),
    "pid is text": (set_at("7", "playlists", 2, "pid"), r"got `str` - at `\$\.playlists\[2\]\.pid`"),
    "huge pid": (set_at(2**63, "playlists", 2, "pid"), r"\$\.playlists\[2\]\.pid"),
    "huge time": (set_at(-(10**18), "playlists", 2, "modified_at"), r"\$\.playlists\[2\]\.modified_at"),
    "very huge count": (set_at(10**100, "playlists", 2, "num_edits"), r"\$\.playlists\[2\]\.num_edits"),
    "missing tracks": (drop_at("playlists", 1, "tracks"), r"field `tracks` - at `\$\.playlists\[1\]`"),
    "tracks is a number": (set_at(1, "playlists", 1, "tracks"), r"\$\.playlists\[1\]\.tracks"),
    "missing uri": (
        drop_at("playlists", 0, "tracks", 1, "track_uri"),
        r"field `track_uri` - at `\$\.playlists\[0\]\.tracks\[1\]`",
    ),
    "empty uri": (set_at("", "playlists", 0, "tracks", 1, "track_uri"), r"\[0\]\.tracks\[1\]\.track_uri"),
    "name is a list": (set_at([], "playlists", 0, "tracks", 1, "track_name"), r"tracks\[1\]\.track_name"),
    "pos is a fraction": (set_at(1.5, "playlists", 0, "tracks", 1, "pos"), r"tracks\[1\]\.pos"),
    "collaborative": (set_at("yes", "playlists", 0, "collaborative"), r"'yes' - at `\$\.playlists\[0\]\.col"),
    "not UTF-8": (GOOD.replace(b"Song", b"S\xffng"), r"byte \d+ is no UTF-8 text"),
    "lone surrogate": (GOOD.replace(b"Song", b"\\ud800"), r"surrogate.*byte \d+"),
    "other lone surrogate": (GOOD.replace(b"Song", b"\\udc00"), r"surrogate.*byte \d+"),
    "UTF-16": (GOOD.decode().encode("utf-16"), r"byte 0"),
    "nested": (b'{"x":' + b"[" * 100_000, r"nest too deeply"),
    "pid twice": (set_at(100, "playlists", 3, "pid"), r"pid 100 occurs a second time.*remove one"),
    "pid of another file": (set_at(2, "playlists", 3, "pid"), r"pid 2 occurs a second time, .*0-5\.json"),
}


MANY = 2 * mpd.FILES_PER_PROCESS  # enough for reader processes, which pass on all errors alike


@pytest.mark.parametrize(
    ("case", "count"),
    [*((case, 1) for case in BAD), ("cut off", MANY), ("missing uri", MANY), ("pid of another file", MANY)],
)
def test_bad_input(tmp_path, case, count):
    content, message = BAD[case]
    good = make_files(tmp_path / "raw", count)
    previous = quiet(good[0], tmp_path / "out")
    before = as_bytes(previous)
    bad = tmp_path / "raw" / "mpd.slice.5000-5999.json"
    bad.write_bytes(content)
    with pytest.raises(MPDError, match=message) as caught:
        quiet(tmp_path / "raw", tmp_path / "out")
    assert str(bad) in str(caught.value) and "\n" not in str(caught.value)
    assert as_bytes(previous) == before
    assert_only(tmp_path / "out", previous)
    if not case.startswith("pid"):
        with pytest.raises(MPDError, match=message):
            read_slice(bad)


def test_no_files(tmp_path):
    for raw in (tmp_path, []):
        with pytest.raises(MPDError, match="no slice"):
            quiet(raw, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_unreadable_files(tmp_path):
    (tmp_path / "folder.json").mkdir()
    for path in (tmp_path / "missing.json", [tmp_path / "folder.json"]):
        with pytest.raises(MPDError, match=r"(missing|folder)\.json: the file cannot be read .*check"):
            quiet(path, tmp_path / "out")
    with pytest.raises(MPDError, match="cannot be read"):
        read_slice(tmp_path / "missing.json")


def test_out_is_a_file(tmp_path):
    paths = make_files(tmp_path / "raw", 1)
    (tmp_path / "out").touch()
    with pytest.raises(MPDError, match="out: the tables cannot be written"):
        quiet(paths, tmp_path / "out")


def test_reader_process_dies(tmp_path, monkeypatch):
    paths = make_files(tmp_path / "raw", MANY)
    monkeypatch.setattr(sys, "path", [])  # so that it cannot even start
    with pytest.raises(MPDError, match=r"0-5\.json: the process that read it ended .*processes=1"):
        quiet(paths, tmp_path / "out")
    assert_only(tmp_path / "out")


def result_or_error(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mpd.slice.0-5.json"
        path.write_bytes(content)
        try:
            read_slice(path)
            result = quiet(path, Path(folder) / "out", csv=True)
        except MPDError as error:
            assert str(path) in str(error)
            return
        interactions, tracks, playlists = tables(result)
        assert playlists["length"].sum() == len(interactions) == tracks["plays"].sum()
        assert set(interactions["track_id"]) == set(range(1, len(tracks) + 1))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60) | st.text('{}[]":,0123456789.eE-+ntrufalspidckoy\\', max_size=60).map(str.encode))
def test_any_bytes(content):
    result_or_error(content)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(GOOD)), st.integers(0, 3), st.binary(max_size=3)), min_size=1, max_size=3))
def test_any_changed_bytes(changes):
    content = GOOD
    for at, removed, added in changes:
        content = content[:at] + added + content[at + removed :]
    result_or_error(content)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**53, 2**53 + 1, -(2**53), 2**63, 2**64, 10**30])
    | st.floats()
    | st.text(alphabet=st.characters(exclude_categories=[])),  # with lone surrogates
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 5),
    st.sampled_from([*PLAYLIST_KEYS, *TRACK_KEYS, "tracks", "extra"]),
    st.booleans(),
    VALUES,
    st.sampled_from([None, 4]),
)
def test_any_changed_values(index, key, in_track, value, indent):
    data = make_slice()
    place = data["playlists"][index]["tracks"][0] if in_track else data["playlists"][index]
    place[key] = value
    result_or_error(json.dumps(data, indent=indent).encode())


# --- The catalogue ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    folder = tmp_path_factory.mktemp("catalogue")
    songs = [
        ("u1", "Love", "Abba", 5),
        ("u2", "My LOVE (Live)", "Beyonc\u00e9", 9),
        ("u3", "Stra\u00dfe", "Die \u00c4rzte", 2),
        ("u4", "One - Radio Edit", "U2", 3),
        ("u5", "a+b (x", "Abba", 1),
        ("u6", None, None, 1),
    ]
    tracks = [
        {"track_uri": uri, "track_name": name, "artist_name": artist, "album_name": f"On {name}"}
        for uri, name, artist, plays in songs
        for _ in range(plays)
    ]
    path = write(folder, {"playlists": [{"pid": 0, "tracks": tracks}]})
    return Catalogue.load(quiet(path, folder / "out"))


def test_catalogue_ids(catalogue):
    ids = catalogue.ids(["u2", "u1", "u9", "u6", None, "u2"])
    assert ids.dtype == np.int32 and ids.tolist() == [1, 2, 0, 6, 0, 1]
    assert len(catalogue) == 6
    assert catalogue.ids(catalogue.tracks["track_uri"]).tolist() == [1, 2, 3, 4, 5, 6]
    assert catalogue.ids([]).tolist() == [] and catalogue.ids([]).dtype == np.int32
    assert catalogue.ids("u1").tolist() == [2]


def test_catalogue_find(catalogue):
    def found(text, k=10):
        return catalogue.find(text, k)["track_uri"].tolist()

    assert found("love") == ["u1", "u2"]  # the whole name before the more played
    assert found("LOVE", k=1) == ["u1"] and found("my love") == ["u2"]
    assert found("strasse") == ["u3"] and found(" STRASSE ") == ["u3"]
    assert found("u2 - one") == found("one - radio edit") == ["u4"] and found("Beyonc\u00c9 - love") == ["u2"]
    assert found("abba - one") == []
    assert found("a+b (") == ["u5"]  # text, not a pattern
    assert found("nothing like it") == []
    columns = ["track_id", "track_uri", "track_name", "artist_name", "album_name"]
    assert list(catalogue.find("love")) == columns == list(catalogue.find("nothing like it"))


def test_catalogue_table(catalogue):
    shown = catalogue.table([2, 99, 1, 0, 2])
    assert shown["track_id"].tolist() == [2, 99, 1, 0, 2] and shown.index.tolist() == [0, 1, 2, 3, 4]
    assert shown["track_name"].fillna("?").tolist() == ["Love", "?", "My LOVE (Live)", "?", "Love"]
    assert len(catalogue.table([])) == 0
    assert catalogue.table(np.array([1], np.int32))["artist_name"].tolist() == ["Beyonc\u00e9"]


def test_catalogue_groups(catalogue):
    assert catalogue.artist_of.dtype == catalogue.album_of.dtype == np.int32
    # Plays: Beyonce 9, Abba 6, U2 3, Die Aerzte 2, unknown; albums by plays, ties by name.
    assert catalogue.artist_of.tolist() == [0, 1, 2, 3, 4, 2, 0]
    assert catalogue.album_of[0] == 0 and sorted(catalogue.album_of[1:]) == [1, 2, 3, 4, 5, 6]


def test_catalogue_that_is_not_there(tmp_path):
    with pytest.raises(MPDError, match=r"tracks\.parquet: the tracks cannot be read .*`prepare`"):
        Catalogue.load(tmp_path)
    (tmp_path / "tracks.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(MPDError, match="cannot be read"):
        Catalogue.load(tmp_path)
