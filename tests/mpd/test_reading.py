from __future__ import annotations

import errno
import html
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_slices import PLAYLIST_KEYS, TRACK_KEYS, make_slice, quiet, tables, write

from sasrec_utils.__main__ import main
from sasrec_utils.mpd import MPDError, batches, has_slices, read_slice, slice_files
from sasrec_utils.world import TEACHING, World, write_slices

WORLD = World(TEACHING)


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


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("mpd.slice.0-999.json", True),
        ("mine.json", True),
        ("MINE.JSON", True),
        ("challenge_set.json", True),  # found and then refused: not passed over as if nothing were there
        (".mine.json", False),
        ("mine.json.gz", False),
        ("mine.txt", False),
        ("folder.json/mine.json", False),
    ],
)
def test_everyone_means_the_same_by_a_slice(tmp_path, name, counts, capsys):
    path = tmp_path / "raw" / name
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    assert has_slices(path.parents[name.count("/")]) is counts
    if counts:
        assert slice_files(tmp_path / "raw") == [path]
        with pytest.raises(MPDError, match="holds slices already"):
            write_slices(WORLD, tmp_path / "raw", 1)
    else:
        with pytest.raises(MPDError, match="there is no slice"):
            slice_files(tmp_path / "raw")
        assert len(write_slices(WORLD, tmp_path / "copy", 1)) == 1
    assert main(["train", "--data-dir", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert ("there are no slices" in said) is not counts and (str(path) in said) is counts


def test_a_folder_that_is_not_there_has_no_slices(tmp_path):
    assert not has_slices(tmp_path / "missing")
    (tmp_path / "file.json").touch()
    assert not has_slices(tmp_path / "file.json")


def test_a_folder_that_must_not_be_read_is_not_an_empty_one(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    for ask in (has_slices, slice_files):
        with pytest.raises(MPDError, match=r"the folder cannot be read \(Permission denied\)"):
            ask(tmp_path)


def by_pandas(value):
    """What a way through DataFrames makes of a slice: floats for whole numbers, NaN for what is missing."""
    if isinstance(value, dict):
        return {key: by_pandas(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [by_pandas(inner) for inner in value]
    if value is None:
        return float("nan")
    return float(value) if type(value) is int else value


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"]),
    st.sampled_from([by_pandas, lambda data: data]),
    st.sets(st.tuples(st.integers(0, 3), st.sampled_from([*PLAYLIST_KEYS, *TRACK_KEYS]))),
    st.integers(0, 1),
)
def test_copies_by_other_programs_say_the_same(encoding, copy, missing, which):
    slices = [make_slice(0, 4), make_slice(4, 4, seed=1)]
    for data in slices:
        for index, key in missing - {(index, key) for index in range(4) for key in ("pid", "track_uri")}:
            playlist = data["playlists"][index]
            (playlist if key in PLAYLIST_KEYS else playlist["tracks"][-1])[key] = None
    with tempfile.TemporaryDirectory() as name:
        plain, other = Path(name) / "plain", Path(name) / "other"
        for folder in (plain, other):
            folder.mkdir()
            paths = [write(folder, data, ensure_ascii=False) for data in slices]
        paths[which].write_text(json.dumps(copy(slices[which]), ensure_ascii=False), encoding=encoding)
        wanted, got = (read_slice(folder / paths[which].name) for folder in (plain, other))
        pd.testing.assert_frame_equal(got.playlists, wanted.playlists)
        pd.testing.assert_frame_equal(got.rows, wanted.rows)
        results = [quiet(folder, Path(name) / "out") for folder in (plain, other)]
        for one, two in zip(*map(tables, results), strict=True):
            pd.testing.assert_frame_equal(one, two)


def test_a_copy_that_pandas_made(tmp_path):
    data = make_slice(0)
    del data["playlists"][1]["num_edits"], data["playlists"][2]["tracks"][0]["pos"]
    frame = pd.DataFrame(data["playlists"])
    frame["tracks"] = [pd.DataFrame(tracks).to_dict("records") for tracks in frame["tracks"]]
    text = json.dumps({"playlists": frame.to_dict("records")})
    assert "NaN" in text and '"num_edits": 2.0' in text
    (tmp_path / "copy.json").write_text(text)
    got, wanted = read_slice(tmp_path / "copy.json"), read_slice(write(tmp_path, data))
    pd.testing.assert_frame_equal(got.playlists, wanted.playlists)
    pd.testing.assert_frame_equal(got.rows, wanted.rows)


def test_the_second_attempt_at_a_file_forgets_the_first(tmp_path, monkeypatch):
    """NaN in the last playlist: all tracks before it have been seen by then, and must count once."""
    monkeypatch.setattr(batches, "TRACKS_PER_PART", 3)
    slices = [make_slice(0), make_slice(6, tracks=400), make_slice(12, tracks=400)]
    slices[1]["playlists"][-1]["num_edits"] = None
    wanted = tables(quiet([write(tmp_path, data) for data in slices], tmp_path / "out"))
    slices[1]["playlists"][-1]["num_edits"] = float("nan")
    got = tables(quiet([write(tmp_path, data) for data in slices], tmp_path / "out"))
    for one, two in zip(got, wanted, strict=True):
        pd.testing.assert_frame_equal(one, two)


def test_a_slice_without_playlists_cannot_be_shown(tmp_path):
    path = tmp_path / "mpd.slice.0-999.json"
    path.write_text('{"playlists": []}')
    with pytest.raises(MPDError, match=r"0-999\.json: `\$\.playlists` is empty"):
        read_slice(path)
