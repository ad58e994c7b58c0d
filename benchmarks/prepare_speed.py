"""Speed and memory of `sasrec_utils.mpd.prepare` next to two naive ways, and what the full dataset takes.

    python benchmarks/prepare_speed.py                  made-up slices: 1, 10 and 50 of them
    python benchmarks/prepare_speed.py --vocabulary     and with as many tracks as the full dataset has
    python benchmarks/prepare_speed.py --raw data/raw   your own slices

The made-up slices have the size and the share of new tracks of the real ones (33 MB, 66,000 rows and 34,000
different tracks in one slice, 500,000 different tracks in fifty) but no musical sense: every track is drawn
independently. Each line is measured in a process of its own; files are in the system's cache. Seconds depend
on what else the machine does, ratios and CPU seconds less so. Unix only (peak memory).
"""

from __future__ import annotations

import argparse
import hashlib
import html
import json
import os
import random
import resource
import string
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1]))
from sasrec_utils.mpd import prepare, slice_files

SLICES, TRACKS = 1_000, 2_262_292  # of the full dataset
BASE62 = (string.digits + string.ascii_letters).encode()
TO_BASE62 = bytes(BASE62[byte % 62] for byte in range(256))
WORDS = (
    "love night Blue the Of river gold you Never heart feat. Fire (Remastered) caf\\u00e9 sun One Live "
    "dream - Radio Edit road Sky me Dance Ni\\u00f1o home Rain"
).split()
PLAYLIST_KEYS = ("modified_at", "num_tracks", "num_albums", "num_followers", "num_edits", "duration_ms", "num_artists")


# --- Made-up slices ---------------------------------------------------------------------------------------


def uri(kind: str, number: int) -> str:
    """A well-formed URI that depends on its kind and number alone."""
    digest = hashlib.blake2b(f"{kind}{number}".encode(), digest_size=22).digest()
    return f"spotify:{kind}:{digest.translate(TO_BASE62).decode()}"


def track_text(track: int) -> str:
    """All of a track but its position, in the layout and key order of the real files."""
    rng, artist, album = random.Random(track), int(track**0.88), track // 3
    values = {
        "artist_name": f"{WORDS[artist % 25]} {WORDS[artist % 23]} {artist}",
        "track_uri": uri("track", track),
        "artist_uri": uri("artist", artist),
        "track_name": f"{' '.join(rng.choices(WORDS, k=rng.randint(1, 5)))} {track}",
        "album_uri": uri("album", album),
        "duration_ms": rng.randint(120_000, 350_000),
        "album_name": f"{WORDS[album % 24]} {WORDS[album % 19]} {album}",
    }
    texts = (str(value) if key == "duration_ms" else f'"{value}"' for key, value in values.items())
    return ",\n".join(f'                    "{key}": {text}' for key, text in zip(values, texts, strict=True))


def write_slices(folder: Path, count: int, *, all_new: bool = False, seed: int = 0) -> None:
    """Write `count` slices of 1,000 playlists, indented like the real ones; `all_new`: no track twice."""
    rng, known, following = np.random.default_rng(seed), {}, 0
    weight = np.cumsum((np.arange(TRACKS) + 1000.0) ** -1.3)
    for number in range(count):
        lengths = np.rint(rng.lognormal(3.96, 1.01, 2000)).astype(int)
        lengths = lengths[(lengths >= 5) & (lengths <= 250)][:1000].tolist()
        drawn = np.searchsorted(weight / weight[-1], rng.random(sum(lengths))).clip(max=TRACKS - 1).tolist()
        if all_new:
            drawn, known = list(range(following, following + len(drawn))), {}
            following += len(drawn)
        playlists, start = [], 0
        for index, length in enumerate(lengths):
            rows = []
            for pos, track in enumerate(drawn[start : start + length]):
                if track not in known:
                    known[track] = track_text(track)
                rows.append(
                    f'                {{\n                    "pos": {pos},\n{known[track]}\n                }}'
                )
            start += length
            fields = {
                "name": f"Playlist {rng.integers(1000)} \u2600",
                "collaborative": "false",
                "pid": 1000 * number + index,
                "num_tracks": length,
                "num_albums": length,
                "modified_at": 1_400_000_000 + int(rng.integers(1000)) * 86_400,
                "num_followers": 1,
            }
            if index % 50 == 0:
                fields["description"] = "it&#x27;s made up"
            head = ",\n".join(f"            {json.dumps(k)}: {json.dumps(v)}" for k, v in fields.items())
            tail = ",\n".join(f'            "{key}": 5' for key in PLAYLIST_KEYS[-3:])
            playlists.append(
                f'        {{\n{head},\n            "tracks": [\n'
                + ",\n".join(rows)
                + f"\n            ],\n{tail}\n        }}"
            )
        name = f"{1000 * number}-{1000 * number + 999}"
        info = f'    "info": {{\n        "slice": "{name}",\n        "version": "v1"\n    }}'
        text = f'{{\n{info},\n    "playlists": [\n' + ",\n".join(playlists) + "\n    ]\n}"
        (folder / f"mpd.slice.{name}.json").write_text(text, encoding="ascii")


# --- Two naive ways to the same tables --------------------------------------------------------------------


def naive_dicts(paths: list[Path], out: Path) -> None:
    """json.load, dicts for every number, pandas to write."""
    first, plays, rows, lists = {}, Counter(), [], []
    for path in paths:
        for playlist in json.loads(path.read_text(encoding="utf-8"))["playlists"]:
            lists.append(playlist_row(playlist))
            seen, length = set(), len(playlist["tracks"])
            for track in playlist["tracks"]:
                uri = track["track_uri"]
                first.setdefault(uri, track)
                plays[uri] += 1
                rows.append(
                    {
                        "user_id": playlist["pid"],
                        "track_uri": uri,
                        "repeat": uri in seen,
                        "timestamp": playlist["modified_at"] - (length - 1 - track["pos"]),
                    }
                )
                seen.add(uri)
    artists, albums = Counter(), Counter()
    for uri, track in first.items():
        artists[track["artist_uri"]] += plays[uri]
        albums[track["album_uri"]] += plays[uri]

    def numbers(counts: Counter) -> dict[str, int]:
        return {key: i for i, key in enumerate(sorted(counts, key=lambda key: (-counts[key], key)), 1)}

    ids, artists, albums = numbers(plays), numbers(artists), numbers(albums)
    names = ("track_name", "artist_name", "artist_uri", "album_name", "album_uri", "duration_ms")
    tracks = pd.DataFrame(
        [
            {
                "track_id": number,
                "track_uri": uri,
                "plays": plays[uri],
                "artist_id": artists[first[uri]["artist_uri"]],
                "album_id": albums[first[uri]["album_uri"]],
                **{name: first[uri][name] for name in names},
            }
            for uri, number in ids.items()
        ]
    )
    interactions = pd.DataFrame(rows)
    interactions["track_id"] = interactions["track_uri"].map(ids)
    write_tables(out, interactions, tracks, pd.DataFrame(lists))


def naive_frames(paths: list[Path], out: Path) -> None:
    """json.load, a list of dicts for every row, and all numbers by pandas."""
    rows, lists = [], []
    for path in paths:
        for playlist in json.loads(path.read_text(encoding="utf-8"))["playlists"]:
            lists.append(playlist_row(playlist))
            last = playlist["modified_at"] - len(playlist["tracks"]) + 1
            rows += [
                {"user_id": playlist["pid"], "timestamp": last + track["pos"], **track} for track in playlist["tracks"]
            ]
    interactions = pd.DataFrame(rows)
    names = ["track_name", "artist_name", "artist_uri", "album_name", "album_uri", "duration_ms"]
    groups = interactions.groupby("track_uri")
    tracks = groups.agg(plays=("pos", "size"), **{name: (name, "first") for name in names}).reset_index()
    tracks = tracks.sort_values(["plays", "track_uri"], ascending=[False, True], ignore_index=True)
    tracks["track_id"] = tracks.index + 1
    for kind in ("artist", "album"):
        totals = tracks.groupby(f"{kind}_uri")["plays"].sum().reset_index()
        totals = totals.sort_values(["plays", f"{kind}_uri"], ascending=[False, True], ignore_index=True)
        totals[f"{kind}_id"] = totals.index + 1
        tracks = tracks.merge(totals.drop(columns="plays"), on=f"{kind}_uri")
    interactions = interactions.merge(tracks[["track_uri", "track_id"]], on="track_uri")
    interactions["repeat"] = interactions.duplicated(["user_id", "track_id"])
    write_tables(out, interactions, tracks, pd.DataFrame(lists))


def playlist_row(playlist: dict) -> dict:
    description = playlist.get("description")
    return {
        "user_id": playlist["pid"],
        "name": playlist["name"],
        "collaborative": playlist["collaborative"] == "true",
        "length": len(playlist["tracks"]),
        "description": None if description is None else html.unescape(description),
        **{key: playlist[key] for key in PLAYLIST_KEYS},
    }


def write_tables(out: Path, interactions: pd.DataFrame, tracks: pd.DataFrame, lists: pd.DataFrame) -> None:
    tracks["duration_ms"] = tracks["duration_ms"].where(tracks["duration_ms"] >= 0)
    interactions = interactions[["user_id", "track_id", "timestamp", "repeat"]]
    for name, table in (("interactions", interactions), ("tracks", tracks), ("playlists", lists)):
        table.to_parquet(out / f"{name}.parquet", compression="zstd")


# --- Measuring --------------------------------------------------------------------------------------------


def peak(who: int) -> int:
    """Peak resident memory in MB."""
    return resource.getrusage(who).ru_maxrss // (2**20 if sys.platform == "darwin" else 2**10)


def measure(way: str, files: list[Path], processes: int, repeats: int) -> dict:
    """Run one way; the quickest of `repeats` runs counts."""
    seconds, cpu, memory = [], [], None
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as out:
            started, used = time.perf_counter(), sum(os.times()[:4])
            if way == "prepare":
                folder = prepare(files, out, processes=processes, progress=False)
            else:
                folder = Path(out)
                {"dicts": naive_dicts, "frames": naive_frames}[way](files, folder)
            seconds.append(time.perf_counter() - started)
            cpu.append(sum(os.times()[:4]) - used)
            if memory is None:  # of the first run: what follows it here takes memory of its own
                memory = {"parent": peak(resource.RUSAGE_SELF), "child": peak(resource.RUSAGE_CHILDREN)}
            tables = [folder / "tracks.parquet", folder / "interactions.parquet"]
            tracks, rows = (pq.read_metadata(path).num_rows for path in tables)
            # A sum to compare the three ways by, whatever their types and order of columns.
            content = (
                [
                    int(pd.util.hash_pandas_object(table[sorted(table)].astype(str), index=False).sum())
                    for table in map(pd.read_parquet, tables)
                ]
                if len(files) == 1
                else None
            )
    return {
        "slices": len(files),
        "rows": rows,
        "tracks": tracks,
        "seconds": min(seconds),
        "cpu": min(cpu),
        "content": content,
        **memory,
    }


def in_own_process(*arguments: object) -> dict:
    done = subprocess.run(
        [sys.executable, __file__, "--job", *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout)


def job(what: str, folder: str, count: str, processes: str, repeats: str) -> dict:
    if what in ("some_new", "all_new"):
        write_slices(Path(folder), int(count), all_new=what == "all_new")
        return {}
    return measure(what, slice_files(folder)[: int(count)], int(processes), int(repeats))


def show(label: str, got: dict, processes: int) -> None:
    readers = processes if got["child"] else 0
    print(
        f"{label:24} {got['slices']:6} {got['rows']:10,} {got['tracks']:10,} {got['seconds']:9.2f} "
        f"{got['seconds'] / got['slices']:8.3f} {got['cpu'] / got['slices']:8.3f} {got['parent']:7,} "
        f"{readers} x {got['child']:,}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--raw", type=Path, help="folder of slices; made up when not given")
    parser.add_argument("--slices", type=int, nargs="+", default=[1, 10, 50])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--vocabulary", action="store_true", help="also with all tracks of the full set")
    parser.add_argument("--job", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        print(json.dumps(job(*options.job)))
        return
    with tempfile.TemporaryDirectory() as made:
        raw = options.raw
        if raw is None:
            raw = made
            in_own_process("some_new", raw, max(options.slices), 0, 0)
        print(
            f"{'way':24} {'slices':>6} {'rows':>10} {'tracks':>10} {'seconds':>9} {'/slice':>8} {'CPU':>8} "
            "parent  readers (MB)"
        )
        results = {}
        for way in ("dicts", "frames", "prepare"):
            results[way] = in_own_process(way, raw, 1, 1, 5)
            show(way if way == "prepare" else f"naive, {way}", results[way], 1)
        if len({str(got["content"]) for got in results.values()}) > 1:
            print("the three ways do not agree on the content of the tables")
        runs = [in_own_process("prepare", raw, count, options.processes, 1) for count in options.slices[1:]]
        for got in runs:
            show(f"prepare, {options.processes} processes", got, options.processes)
        for way in ("dicts", "frames"):
            wall, cpu = (results[way][key] / results["prepare"][key] for key in ("seconds", "cpu"))
            print(f"one slice: {wall:.1f} times as fast as naive, {way} (CPU seconds: {cpu:.1f} times)")
        if len(runs) > 1:
            small, large = runs[-2], runs[-1]
            per_slice = (large["seconds"] - small["seconds"]) / (large["slices"] - small["slices"])
            per_track = (large["parent"] - small["parent"]) / max(1, large["tracks"] - small["tracks"])
            seconds = large["seconds"] + per_slice * (SLICES - large["slices"])
            memory = large["parent"] + per_track * (TRACKS - large["tracks"])
            print(
                f"full set, extrapolated: {seconds:.0f} s (linear in slices); parent {memory:,.0f} MB "
                "(linear in tracks; --vocabulary measures it, and the readers)"
            )
    if options.vocabulary:
        with tempfile.TemporaryDirectory() as made:
            in_own_process("all_new", made, round(TRACKS / 66_000), 0, 0)
            show(
                "all tracks of the full set",
                in_own_process("prepare", made, SLICES, options.processes, 1),
                options.processes,
            )


if __name__ == "__main__":
    main()
