from __future__ import annotations

import gzip
import json
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_slices import PLAYLIST_KEYS, TRACK_KEYS, as_bytes, assert_only, make_files, make_slice, quiet, tables

from sasrec_utils.mpd import MPDError, batches, read_slice


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
    "playlists twice": (GOOD[:-2] + b',"playlists": []}', r"`playlists` occurs more than once"),
    "playlists twice, and NaN": (
        GOOD.replace(b'"pos": 0', b'"pos": NaN')[:-2] + b',"playlists": []}',
        r"invalid character \(byte \d+\)",
    ),
    "gzip": (gzip.compress(GOOD), r"compressed; unpack it"),
    "zip": (b"PK\x03\x04" + GOOD, r"compressed; unpack it"),
    "infinite": (set_at(float("inf"), "playlists", 2, "num_edits"), r"invalid character \(byte \d+\)"),
    "no uri in a copy by pandas": (set_at(float("nan"), "playlists", 0, "tracks", 1, "track_uri"), r"\[1\]\.track_uri"),
    "fraction in a copy by pandas": (
        GOOD.replace(b'"num_edits": 2', b'"num_edits": NaN', 1).replace(b'"pos": 1,', b'"pos": 1.5,', 1),
        r"got `float` - at `\$\.playlists\[0\]\.tracks\[1\]\.pos`",
    ),
    "UTF-16 and cut off": (GOOD.decode().encode("utf-16")[:2000], r"copy the file again"),
    "nested": (b'{"x":' + b"[" * 100_000, r"nest too deeply"),
    "pid twice": (set_at(100, "playlists", 3, "pid"), r"pid 100 occurs a second time.*remove one"),
    "pid of another file": (set_at(2, "playlists", 3, "pid"), r"pid 2 occurs a second time, .*0-5\.json"),
}


MANY = 2 * batches.FILES_PER_PROCESS  # enough for reader processes, which pass on all errors alike


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
