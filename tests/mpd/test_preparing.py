from __future__ import annotations

import csv as csv_module
import json
import os
import subprocess
import sys
import textwrap
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from made_slices import (
    ROOT,
    as_bytes,
    assert_only,
    expected_tables,
    make_files,
    make_slice,
    make_track,
    quiet,
    tables,
    write,
)

from sasrec_utils.mpd import CSV_NAME, Catalogue, MPDError, batches, preparing, read_slice, slice_files


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
    paths = make_files(tmp_path / "raw", 3 * batches.FILES_PER_PROCESS + 1)
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
    monkeypatch.setitem(preparing.SETTINGS, "playlists_per_group", 10)
    monkeypatch.setitem(preparing.SETTINGS, "tracks_per_group", 4)
    monkeypatch.setattr(batches, "TRACKS_PER_PART", 3)
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
    assert CSV_NAME not in before
    assert quiet(paths, tmp_path / "out", csv=True) == result
    text = (result / "spotify_mpd_interactions.csv").read_text()
    assert text.startswith("user_id,track_id,timestamp\n")
    wanted = tables(result)[0][["user_id", "track_id", "timestamp"]].values.tolist()
    assert [[int(cell) for cell in row] for row in list(csv_module.reader(text.splitlines()))[1:]] == wanted
    after = as_bytes(result)
    assert set(after) == {*before, CSV_NAME}
    tables_only = [path for path in made if path.suffix == ".parquet"]
    assert all(after[path.name] == before[path.name] for path in tables_only)
    assert all(path.stat().st_ino == made[path] for path in tables_only)  # they are the same files
    info, was = (json.loads(content["info.json"]) for content in (after, before))
    assert info["tables"].pop(CSV_NAME)["bytes"] == len(text) and info == was  # with how to know that it is whole


# --- Files with nothing to learn from ---------------------------------------------------------------------


def empty(folder: Path, name: str) -> Path:
    (folder / name).write_text('{"info": {}, "playlists": []}')
    return folder / name


def challenge(folder: Path, name: str, first_pid: int, seed: int = 9) -> Path:
    """Shaped like the challenge set: titles, a few seeds of each playlist, the rest held out."""
    data = make_slice(first_pid, tracks=300, seed=seed)
    for playlist in data["playlists"]:
        playlist["tracks"] = playlist["tracks"][: playlist["pid"] % 5]
        playlist |= {"num_samples": len(playlist["tracks"]), "num_holdouts": 5}
    data = {"date": "2018-01-16", "version": "v1", "playlists": data["playlists"], "name": "spotify-challenge"}
    return write(folder, data, name=name)


@pytest.mark.parametrize("count", [3, 2 * batches.FILES_PER_PROCESS])
def test_files_with_nothing_to_learn_from_are_skipped_and_named(tmp_path, count):
    raw = tmp_path / "raw"
    paths = make_files(raw, count)
    wanted = tables(quiet(paths, tmp_path / "out"))
    nothing = [
        empty(raw, "mpd.slice.1-2.json"),  # between two others
        challenge(raw, "mpd.slice.8-9.json", 100_000),
        empty(raw, "mpd.slice.90000-90999.json"),
        challenge(raw, "challenge_set.json", 110_000),  # the last
    ]
    with pytest.warns(UserWarning, match=f"skipped 4 of {count + 4} files") as warned:
        result = quiet(raw, tmp_path / "out")
    assert len(warned) == 1 and all(str(path) in str(warned[0].message) for path in nothing)
    assert warned[0].filename == str(Path(__file__).with_name("made_slices.py"))  # it points at who called `prepare`
    for one, two in zip(tables(result), wanted, strict=True):
        pd.testing.assert_frame_equal(one, two)
    info = json.loads((result / "info.json").read_text())
    assert [skipped["name"] for skipped in info["skipped"]] == [path.name for path in nothing]
    assert info["counts"]["slices"] == count and len(info["files"]) == count + 4


def test_only_files_with_nothing_to_learn_from(tmp_path):
    nothing = [empty(tmp_path, f"mpd.slice.{n}-{n}.json") for n in range(3)]
    nothing.append(challenge(tmp_path, "challenge_set.json", 0))
    with pytest.raises(MPDError, match="nothing to learn from; put slices with playlists there") as caught:
        quiet(tmp_path, tmp_path / "out")
    assert all(str(path) in str(caught.value) for path in nothing)
    assert_only(tmp_path / "out")


def test_one_playlist_that_holds_out_tracks_is_enough(tmp_path):
    data = make_slice(0)
    data["playlists"][3]["num_holdouts"] = 5
    mixed = write(tmp_path, data)
    wanted = tables(quiet(write(tmp_path, make_slice(6)), tmp_path / "out"))
    with pytest.warns(UserWarning, match=r"0-5\.json \(playlists with tracks held out"):
        result = quiet([mixed, tmp_path / "mpd.slice.6-11.json"], tmp_path / "out")
    for one, two in zip(tables(result), wanted, strict=True):
        pd.testing.assert_frame_equal(one, two)
    assert len(read_slice(mixed).playlists) == 6  # to look at, it is as good as any
