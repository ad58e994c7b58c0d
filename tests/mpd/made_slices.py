"""Made-up slices in the exact format of the dataset, and what several test files do with them."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pandas as pd

from sasrec_utils.mpd import prepare

ROOT = Path(__file__).parents[2]
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


def assert_only(out: Path, *results: Path) -> None:
    assert {path.name for path in out.iterdir()} - {".lock"} == {result.name for result in results}
