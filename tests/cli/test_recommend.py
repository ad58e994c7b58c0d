"""What should follow: names, links and whole playlists in; tables, JSON and sentences out, on any terminal."""

from __future__ import annotations

import contextlib
import io
import json
import os

import pandas as pd
import pytest
from command_line import program, refused, sasrec

from sasrec_utils.__main__ import main


def test_recommend(made):
    data, first = made
    known = json.loads(first.out)["recommendations"][0]
    outcome = sasrec("recommend", known["track_uri"], "never heard of", "--data-dir", data, "-k", 4, "--json")
    answer = json.loads(outcome.out)
    assert outcome.code == 0 and answer["recognised"] == 1
    assert set(answer) == {"recommendations", "recognised", "unknown", "suggestions", "note"}
    assert answer["unknown"] == ["never heard of"] and len(answer["recommendations"]) == 4
    assert known["track_uri"] not in {row["track_uri"] for row in answer["recommendations"]}
    by_name = sasrec("recommend", f"{known['artist_name']} - {known['track_name']}".upper(), "--data-dir", data)
    assert by_name.code == 0 and by_name.err == "" and len(by_name.out.splitlines()) == 11
    assert sasrec("recommend", known["track_uri"], "--data-dir", data, "-k", 10**15).code == 0


def test_a_name_that_is_nearly_right_is_answered_by_the_right_one(made):
    data, first = made
    known = json.loads(first.out)["recommendations"][0]
    label = f"{known['artist_name']} - {known['track_name']}"
    typo = f"{label[:3]}{label[4:]}x"
    for given in (typo, "https://open.spotify.com/playlist/37i9dQZF1DX", "spotify:track:unknown"):
        outcome = sasrec("recommend", given, "--data-dir", data)
        assert outcome.code == 1 and outcome.out == "" and "sasrec tracks" in outcome.err.splitlines()[-1]
        assert "is a link to a playlist" in outcome.err or "is not known" in outcome.err
        assert (label in outcome.err) == (given == typo)
        answer = sasrec("recommend", given, "--json", "--data-dir", data)
        result = json.loads(answer.out)
        assert answer.code == 1 and result["recommendations"] == [] and result["unknown"] == [given]
        suggested = [row["track_uri"] for row in result["suggestions"][given]]
        assert (known["track_uri"] in suggested) == (given == typo)
    refused(sasrec("recommend", "--data-dir", data), "name at least one track")
    one_known = sasrec("recommend", known["track_uri"], typo, "--data-dir", data)
    assert one_known.code == 0 and f"perhaps {label}" in one_known.err and "most played" not in one_known.out


def test_recommend_for_a_playlist_in_a_file(made, tmp_path):
    data, first = made
    rows = json.loads(first.out)["recommendations"][:4]
    table = pd.DataFrame(
        {"Track URI": ["", *(row["track_uri"] for row in rows[1:])], "Track Name": [row["track_name"] for row in rows],
         "Artist Name(s)": [f"{row['artist_name']},Guest" for row in rows]}
    )  # fmt: skip
    table.loc[len(table)] = ["spotify:track:0", "No Such Song", "Nobody"]
    table.to_csv(tmp_path / "mine.csv", index=False)
    text = "\n".join(f"{row['track_name']} — {row['artist_name']}" for row in rows) + "\nNo Such Song — Nobody"
    (tmp_path / "mine.txt").write_text(text, encoding="utf-8")
    uris = [row["track_uri"] for row in rows]
    expected = json.loads(sasrec("recommend", *uris, "--data-dir", data, "--json").out)
    for name in ("mine.csv", "mine.txt"):
        outcome = sasrec("recommend", "--playlist", tmp_path / name, "--data-dir", data, "--json")
        assert outcome.code == 0 and "4 of 5 tracks recognised." in outcome.err
        answer = json.loads(outcome.out)
        assert answer["recommendations"] == expected["recommendations"] and answer["recognised"] == 4
    more = sasrec("recommend", uris[0], "--playlist", tmp_path / "mine.csv", "--data-dir", data, "--json")
    assert json.loads(more.out)["recognised"] == 5
    piped = program("recommend", "--playlist", "-", "--data-dir", data, "--json", given=text.encode())
    assert json.loads(piped.out)["recommendations"] == expected["recommendations"]
    (tmp_path / "empty.csv").write_text("")
    refused(sasrec("recommend", "--playlist", tmp_path / "empty.csv", "--data-dir", data), "empty.csv is empty")
    refused(sasrec("recommend", "--playlist", tmp_path / "gone.csv", "--data-dir", data), "gone.csv: cannot be read")


def test_tracks_finds_names(made):
    data, first = made
    known = json.loads(first.out)["recommendations"][0]
    for query in (
        known["track_name"][:-2],
        f"{known['artist_name']} {known['track_name']}".upper(),
        known["track_uri"],
    ):
        result = json.loads(sasrec("tracks", *query.split(), "-k", 1000, "--data-dir", data, "--json").out)
        assert known["track_uri"] in [row["track_uri"] for row in result["tracks"]] and result["nearest"] == []
    outcome = sasrec("tracks", known["track_name"], "--data-dir", data)
    assert outcome.code == 0 and known["track_uri"] in outcome.out
    nothing = sasrec("tracks", f"{known['artist_name']} - {known['track_name']}"[1:] + "q", "--data-dir", data)
    assert nothing.code == 1 and nothing.out == "" and known["track_name"] in nothing.err
    assert sasrec("tracks", "?!", "--data-dir", data).code == 1
    refused(sasrec("tracks", "a", "--name", "never-trained", "--data-dir", data), "train a model there first")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_letters_that_a_terminal_does_not_have_are_written_in_others(strange, encoding):
    data, uri = strange
    with io.TextIOWrapper(io.BytesIO(), encoding=encoding) as terminal:
        with contextlib.redirect_stdout(terminal):
            assert main(["recommend", uri, "--data-dir", str(data), "-k", "30"]) == 0
        text = terminal.buffer.getvalue().decode(encoding)
    assert r"\u0422\u0438\u0445\u0438\u0439" in text and len(text.splitlines()) == 31


def test_names_cannot_command_a_terminal_and_missing_ones_are_left_out(strange):
    data, uri = strange
    for arguments in (["recommend", uri, "-k", 30], ["tracks", "red"], ["recommend", "\x1b[31mRed\x1b[2J"]):
        outcome = sasrec(*arguments, "--data-dir", data)
        assert "Red" in outcome.out + outcome.err and "\x1b" not in outcome.out + outcome.err
        assert "None" not in outcome.out and "nan" not in outcome.out.lower()
    refused(sasrec("recommend", uri, "--data-dir", f"{data}\x1b[31m\nline"), "train a model there first")


def test_a_closed_pipe_is_no_error(made, capsys):
    """`sasrec … | head`: the reader leaves, and nothing is said about it, not even when Python ends."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as stdout, contextlib.redirect_stdout(stdout):
        assert main(["tracks", "a", "-k", "100000", "--data-dir", str(made[0])]) == 141
    assert capsys.readouterr().err == ""
