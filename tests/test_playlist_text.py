"""A reader's own playlist, in every form that people have it in, and what is said about what is not one."""

from __future__ import annotations

import csv
import io

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sasrec_utils.playlist_text import PlaylistTextError, as_csv, as_m3u, read_entries, read_playlist
from sasrec_utils.track_names import TrackNames

TRACKS = pd.DataFrame({
    "track_uri": [f"spotify:track:{i:022d}" for i in range(1, 6)],
    "track_name": ["Silence", "Paper Lanterns - Remastered 2011", "Señorita (feat. X)", "Hello, World", '"Heroes"'],
    "artist_name": ["Ann Arbor", "The Velvet Anchors", "Ça Va", "The Bolts", "Ann Arbor"],
    "album_name": ["A", None, "B", "C", "D"],
})  # fmt: skip
NAMES = TrackNames(TRACKS)
EXPORTIFY = (
    "\ufeffTrack URI,Track Name,Album Name,Artist Name(s),Release Date\n"
    'spotify:track:0000000000000000000001,Silence,A,"Ann Arbor,Guest",2001\n'
    'spotify:track:another00000000000002,Paper Lanterns,Z,"The Velvet Anchors;Guest",2011\n'
    'spotify:local:::Se%C3%B1orita:200,Señorita,,"Guest, Ça Va",\n'
    '"spotify:track:0000000000000000000004","Hello, World",C,The Bolts,\n'
    "\n"
    "spotify:track:unknown0000000000000,Hello Wrld,C,The Bolts,\n"
)
SEMICOLONS = (
    EXPORTIFY.replace(",", ";").replace('"Ann Arbor;Guest"', "Ann Arbor").replace("Hello; World", "Hello, World")
)
M3U = (
    "#EXTM3U\n#EXTINF:210,Ann Arbor - Silence\nmusic/01 Silence.mp3\n\n#PLAYLIST:mine\n"
    "#EXTINF:-1,The Velvet Anchors - Paper Lanterns\nspotify:track:other\n"
    "C:\\Music\\Ça Va - Señorita.flac\n"
    "http://server/The%20Bolts%20-%20Hello%2C%20World.mp3\n#EXTINF:1,Nobody - Nothing\n"
)
LINES = (
    "Ann Arbor - Silence\n\nPaper Lanterns — Velvet Anchors\r\n3. ca va – SENORITA\n"
    'https://open.spotify.com/track/0000000000000000000004?si=1\nHello Wrld\n"Heros" - Ann Arbour\n'
)


@pytest.mark.parametrize(("text", "ids", "missing"), [
    (EXPORTIFY, [1, 2, 3, 4], ["The Bolts - Hello Wrld"]),
    (SEMICOLONS, [1, 2, 3, 4], None),
    (M3U, [1, 2, 3, 4], ["Nobody - Nothing"]),
    (LINES, [1, 2, 3, 4], ["Hello Wrld", '"Heros" - Ann Arbour']),
    ("Title,Artist\nSilence,Ann Arbor\n", [1], []),
    ("spotify id\n0000000000000000000003\n", [3], []),
    ("Silence\nSilence", [1, 1], []),  # a repeat stays a repeat
])  # fmt: skip
def test_each_form_is_understood(text, ids, missing):
    read = read_playlist(text, NAMES)
    if ids is not None:
        assert read.ids == ids
    assert len(read.ids) + len(read.missing) == len(read.entries)
    if missing is not None:
        assert [one.entry.text for one in read.missing] == missing


def test_what_is_not_recognised_is_said_with_what_may_be_meant():
    read = read_playlist(LINES + "https://open.spotify.com/playlist/abc\nspotify:track:gone\n", NAMES)
    said = str(read).splitlines()
    assert said[0] == "4 of 8 tracks recognised."
    assert said[1] == "  line 6: 'Hello Wrld' is not known; perhaps The Bolts - Hello, World?"
    assert "line 8" in said[3] and "a link to a playlist, not to a track: export" in said[3]
    assert said[4] == "  line 9: 'spotify:track:gone' is not known."
    assert [one.suggestions for one in read.missing] == [[4], [5, 1], [], []]
    assert read_playlist("Hello Wrld", NAMES, suggestions=0).missing[0].suggestions == []


def test_a_long_list_without_a_hit_does_not_take_for_ever(monkeypatch):
    asked = []
    monkeypatch.setattr(TrackNames, "nearest", lambda self, text, k: asked.append(text) or [])
    read = read_playlist("\n".join(f"no {i}" for i in range(3000)), NAMES)
    assert len(read.missing) == 3000 and len(asked) == 50


@pytest.mark.parametrize(("name", "content"), [
    ("list.csv", EXPORTIFY.encode()), ("list.m3u8", M3U.encode()), ("list.txt", LINES.encode("utf-16")),
    ("list.m3u", M3U.encode("cp1252")), ("list.TXT", LINES.encode("utf-8-sig")), ("noend", LINES.encode()),
])  # fmt: skip
def test_files_are_read_in_the_encodings_that_exist(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert read_playlist(tmp_path / name, NAMES).ids == read_playlist(content, NAMES).ids == [1, 2, 3, 4]
    if "." in name:  # one line that is the name of such a file means the file
        assert read_playlist(str(tmp_path / name), NAMES).ids == [1, 2, 3, 4]


@pytest.mark.parametrize(("source", "word"), [
    ("", "the text is empty"), (" \n ", "empty"), (b"", "the file is empty"), (b"\x89PNG\0\0", "not text"),
    ("a\0b", "not text"),
    ("Track URI,Track Name\n", "names no track"), ("#EXTM3U\n", "names no track"),
    ('Track URI,Track Name\n"open', "no valid CSV"),
    ("x" * 10_000_001, "longer than"), (b"x" * 10_000_001, "larger than"),
])  # fmt: skip
def test_what_is_no_playlist_is_one_sentence(source, word):
    with pytest.raises(PlaylistTextError, match=word) as error:
        read_playlist(source, NAMES)
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(PlaylistTextError, match=r"gone\.csv: cannot be read"):
        read_playlist(tmp_path / "gone.csv", NAMES)
    with pytest.raises(PlaylistTextError, match="cannot be read"):
        read_playlist(tmp_path, NAMES)


@given(st.text() | st.binary())
def test_whatever_is_pasted_gives_entries_or_one_sentence(source):
    try:
        for entry in read_entries(source):
            assert entry.text.strip() and entry.line >= 1
    except PlaylistTextError as error:
        assert "\n" not in str(error)


# And back

HOSTILE = TRACKS.assign(
    track_name=["=cmd|'/c calc'!A1", "+1", "-2 + 3", "@SUM(A1)", "two\nlines \x1b[31m"],
    artist_name=[None, "=1", "A\r\nB", "C", "D"],
    track_uri=["spotify:track:1\n#EXTM3U", "=HYPERLINK(1)", "\n\nhttp://server/x", "#EXTINF:1,x", "spotify:track:5"],
)


def test_what_is_written_is_read_back():
    for text in (as_csv(TRACKS), as_m3u(TRACKS)):
        assert read_playlist(text, NAMES).ids == [1, 2, 3, 4, 5]
    hostile = TrackNames(HOSTILE)
    assert [hostile.find_named(e.title, e.artist) for e in read_entries(as_csv(HOSTILE))][:4] == [1, 2, 3, 4]


def test_no_cell_is_a_formula():
    rows = list(csv.reader(io.StringIO(as_csv(HOSTILE))))
    assert rows[0] == ["position", "track_uri", "track_name", "artist_name", "album_name"] and len(rows) == 6
    for row in rows[1:]:
        assert not [cell for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert rows[1][2] == "'=cmd|'/c calc'!A1" and rows[1][3] == ""


def test_no_name_makes_a_line_of_its_own():
    lines = as_m3u(HOSTILE).splitlines()
    assert len(lines) == 1 + 2 * len(HOSTILE) and lines[0] == "#EXTM3U"
    assert all(line.startswith("#EXTINF:-1,") for line in lines[1::2])
    assert not [line for line in lines[2::2] if line.startswith("#")]
    assert (
        lines[1] == "#EXTINF:-1,=cmd|'/c calc'!A1"
        and as_m3u(TRACKS).splitlines()[1] == "#EXTINF:-1,Ann Arbor - Silence"
    )
