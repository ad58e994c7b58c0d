"""Made-up slices look like the MPD's, are the same in every process, and name the world they come from."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from naive import ALARM, TINY
from scipy import stats

import sasrec_utils.world.writing as writing
from sasrec_utils.mpd import Catalogue, MPDError, prepare, read_slice
from sasrec_utils.world import (
    REPEAT,
    TEACHING,
    TITLE_WORDS,
    World,
    load_world,
    slice_json,
    title_words,
    write_slices,
)

PLAYLIST_KEYS = [
    "name", "collaborative", "pid", "description", "modified_at", "num_tracks", "num_albums", "num_followers", "tracks",
    "num_edits", "duration_ms", "num_artists",
]  # fmt: skip
TRACK_KEYS = [
    "pos", "artist_name", "track_uri", "artist_uri", "track_name", "album_uri", "duration_ms", "album_name",
]  # fmt: skip


def playlists_of(folder: Path) -> list[dict]:
    files = sorted(folder.glob("*.json"), key=lambda p: int(p.name.split(".")[2].split("-")[0]))
    return [p for file in files for p in json.loads(file.read_text())["playlists"]]


def test_slices_have_the_format_of_the_mpd(raw, tiny):
    slices = [json.loads(path.read_text(encoding="ascii")) for path in sorted(raw.glob("*.json"))]
    assert [list(s) for s in slices] == [["info", "playlists"]] * 2
    assert [list(s["info"]) for s in slices] == [["generated_on", "slice", "version"]] * 2
    assert [s["info"]["slice"] for s in slices] == ["0-999", "1000-1999"]
    playlists = [p for s in slices for p in s["playlists"]]
    assert [p["pid"] for p in playlists] == list(range(1500))
    for p in playlists:
        assert list(p) == [k for k in PLAYLIST_KEYS if k != "description" or k in p]
        assert p["collaborative"] in ("true", "false") and isinstance(p["name"], str)
        numbers = [p[k] for k in PLAYLIST_KEYS if k.startswith("num") or k in ("modified_at", "duration_ms", "pid")]
        assert all(type(v) is int for v in numbers)
        assert p["modified_at"] % 86_400 == 0 and p["num_followers"] >= 1 and p["num_edits"] >= 2
        rows = p["tracks"]
        assert [t["pos"] for t in rows] == list(range(len(rows)))
        assert p["num_tracks"] == len(rows)
        assert p["num_artists"] == len({t["artist_uri"] for t in rows})
        assert p["num_albums"] == len({t["album_uri"] for t in rows})
        assert p["duration_ms"] == sum(max(0, t["duration_ms"]) for t in rows)
        for t in rows:
            assert list(t) == TRACK_KEYS and type(t["duration_ms"]) is int
            for kind in ("track", "artist", "album"):
                assert re.fullmatch(rf"spotify:{kind}:[0-9A-Za-z]{{22}}", t[f"{kind}_uri"]) and t[f"{kind}_name"]
    drawn = tiny.playlists()
    assert [t["track_uri"] for p in playlists for t in p["tracks"]] == tiny.uris("track", drawn.tracks)


def test_compact_and_indented_are_the_same_json(tiny):
    drawn = tiny.draw_slice(0, 30)
    compact = slice_json(tiny, drawn, 0)
    indented = slice_json(World(replace(TINY, indent=True)), drawn, 0)
    assert indented == json.dumps(json.loads(compact), indent=4) and compact == json.dumps(json.loads(indented))


def test_what_surrounds_the_tracks_has_the_rates_of_the_mpd(tiny):
    parts = [json.loads(slice_json(tiny, tiny.draw_slice(i, 1000), i))["playlists"] for i in range(12)]
    playlists = [p for part in parts for p in part]

    def rate(flags: list[bool], expected: float) -> bool:
        return stats.binomtest(sum(flags), len(flags), expected).pvalue > ALARM

    described = [p["description"] for p in playlists if "description" in p]
    assert rate(["description" in p for p in playlists], 0.019)
    assert all(re.search(r"&(amp|lt|quot|#x27);", d) and not re.search(r"[<>'\"]", d) for d in described)
    assert rate([p["name"] != p["name"].strip() for p in playlists], 0.06)
    for followers, share in ((1, 0.754), (2, 0.150), (3, 0.047), (4, 0.020)):
        assert rate([p["num_followers"] == followers for p in playlists], share)
    law = stats.lognorm(s=1.30, scale=math.exp(2.13))
    for edits in (2, 3, 4, 10):  # as in the MPD: round(LogNormal(2.13, 1.30)), what falls below 2 is drawn anew
        share = (law.cdf(edits + 0.5) - law.cdf(edits - 0.5)) / law.sf(1.5)
        assert rate([p["num_edits"] == edits for p in playlists], share)
    names = [p["name"] for p in playlists]
    assert any(ord(ch) > 0x2000 for n in names for ch in n) and len({n.lower() for n in names}) > len(names) / 4
    assert any(n.isupper() for n in names) and any(n.islower() for n in names)


def test_the_oracle_reads_the_mood_word_out_of_the_title(raw, tiny):
    assert np.array_equal(title_words([p["name"] for p in playlists_of(raw)]), tiny.playlists().word)
    names = ["Road Trip 2014", "", None, "MY CHILL!!", "chiller", "sad songs", "untitled", "Songs, happy"]
    expected = ["road trip", None, None, "chill", None, "sad songs", None, "happy"]
    assert title_words(names).tolist() == [TITLE_WORDS.index(w) if w else -1 for w in expected]


def test_durations_have_the_mean_and_the_gaps_of_the_mpd():
    duration = writing._durations(2018, np.arange(400_000))
    gaps = duration == -1
    assert stats.binomtest(int(gaps.sum()), len(gaps), 1 / 5000).pvalue > ALARM
    assert abs(duration[~gaps].mean() / 60_000 - 3.9) < 0.01 and duration[~gaps].min() > 30_000


def test_a_few_songs_have_two_uris(raw, tiny):
    again = np.flatnonzero(tiny.twin != np.arange(tiny.n_tracks))
    assert len(again)
    uris = tiny.uris("track", np.arange(tiny.n_tracks))
    rows = {t["track_uri"]: t for p in playlists_of(raw) for t in p["tracks"]}
    for x in again:
        song, other = rows[uris[x]], rows[uris[tiny.twin[x]]]
        same = ("track_name", "artist_name", "duration_ms")
        assert [song[k] for k in same] == [other[k] for k in same] and song["track_uri"] != other["track_uri"]
    share = 1 - np.mean(World(TEACHING).twin == np.arange(World(TEACHING).n_tracks))
    assert 0.005 < share < 0.015


def test_the_same_bytes_in_every_process(raw, tmp_path):
    def digests(folder: Path) -> list[str]:
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())]

    program = (
        "import sys, json; from sasrec_utils.world import *\n"
        "config = json.loads(sys.argv[1]); load = lambda v: tuple(map(load, v)) if isinstance(v, list) else v\n"
        "write_slices(World(WorldConfig(**{k: load(v) for k, v in config.items()})), sys.argv[2])"
    )
    config = json.dumps(json.loads((raw / writing.SIDECAR).read_text())["config"])
    for seed in ("0", "4242"):
        here = dict(os.environ, PYTHONHASHSEED=seed, PYTHONPATH=str(Path(writing.__file__).parents[2]))
        subprocess.run([sys.executable, "-c", program, config, str(tmp_path / seed)], check=True, env=here)
        assert digests(tmp_path / seed) == digests(raw)


def test_another_seed_is_another_world(tiny):
    other = World(replace(TINY, seed=12))
    assert not set(other.uris("track", np.arange(other.n_tracks))) & set(tiny.uris("track", np.arange(tiny.n_tracks)))
    assert not np.array_equal(other.playlists(50).tracks[:100], tiny.playlists(50).tracks[:100])


def test_slices_are_never_written_over(raw, tiny):
    before = {p.name: p.read_bytes() for p in raw.iterdir()}
    with pytest.raises(MPDError, match="holds slices already"):
        write_slices(tiny, raw)
    assert {p.name: p.read_bytes() for p in raw.iterdir()} == before


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_nothing(tiny, tmp_path, monkeypatch, failure):
    calls = []

    def slice_json(*args):
        calls.append(1)
        if len(calls) == 2:
            raise failure
        return real_slice_json(*args)

    real_slice_json = writing.slice_json
    monkeypatch.setattr(writing, "slice_json", slice_json)
    with pytest.raises(MPDError if isinstance(failure, OSError) else KeyboardInterrupt) as caught:
        write_slices(tiny, tmp_path)
    assert list(tmp_path.iterdir()) == []
    if isinstance(failure, OSError):
        assert "No space left" in str(caught.value) and str(tmp_path) in str(caught.value)
    monkeypatch.undo()
    assert len(write_slices(tiny, tmp_path)) == 2


def test_user_errors_are_one_clear_sentence(tiny, tmp_path):
    with pytest.raises(MPDError, match="at least one"):
        write_slices(tiny, tmp_path, 0)
    (tmp_path / "file").write_text("")
    with pytest.raises(MPDError, match="file"):
        write_slices(tiny, tmp_path / "file", 10)


def test_load_world_finds_the_world_again(raw, tiny, tmp_path):
    again = load_world(raw)
    assert again is not None and again.config == TINY
    for table in ("artist", "album", "within", "neighbour_ids", "mood_genres", "mood_words", "twin"):
        assert np.array_equal(getattr(again, table), getattr(tiny, table))
    assert load_world(tmp_path) is None
    for damaged in ("{", "[]", '{"config": {"name": "x", "unheard": 1}}', '{"config": {"name": "x", "tracks": 3}}'):
        (tmp_path / writing.SIDECAR).write_text(damaged)
        with pytest.raises(MPDError, match="made-up world"):
            load_world(tmp_path)


def test_the_projects_reader_takes_the_slices(raw, tiny, tmp_path):
    drawn = tiny.playlists()
    first = read_slice(raw / "mpd.slice.0-999.json")
    assert len(first.playlists) == 1000 and first.rows["track_uri"].tolist() == tiny.uris(
        "track", drawn.tracks[: drawn.offsets[1000]]
    )
    assert not first.playlists["description"].dropna().str.contains("&amp;|&#x27;").any()
    folder = prepare(raw, tmp_path, progress=False)
    rows = pq.read_table(folder / "interactions.parquet").to_pandas()
    catalogue = Catalogue.load(folder)
    uris = catalogue.tracks["track_uri"].to_numpy()[rows["track_id"].to_numpy() - 1]
    assert uris.tolist() == tiny.uris("track", drawn.tracks)
    assert np.array_equal(rows["user_id"], np.repeat(drawn.pids, np.diff(drawn.offsets)))
    assert np.array_equal(rows["repeat"], drawn.mechanism == REPEAT)
    assert len(catalogue) == len(np.unique(drawn.tracks))
