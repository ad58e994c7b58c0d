"""Does the made-up world look like the Million Playlist Dataset? One table: the MPD's figure, ours, their ratio.

    python benchmarks/calibration.py                    # one made-up slice, 10 seconds
    python benchmarks/calibration.py --slices 50        # also how the catalogue grows: minutes, 1.2 GB of scratch
    python benchmarks/calibration.py --raw data/raw     # slices that are there, real ones included

The slices go the way of all data: written as JSON, read and turned into tables by `mpd.prepare`, counted there.
The MPD's figures come from its own statistics file and README and from print-outs of published notebooks.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from sasrec_utils.mpd import prepare
from sasrec_utils.world import PRESETS, SLICE, World, write_slices

TARGETS = {
    "playlist length, mean": 66.3,
    "playlist length, standard deviation": 53.7,
    "playlist length, lower quartile": 26,
    "playlist length, median": 49,
    "playlist length, upper quartile": 91,
    "edits, median": 10,  # of round(LogNormal(2.13, 1.30)) from 2 on
    "edits, upper quartile": 22,
    "playlists with 1 follower": 0.754,
    "playlists with 2 followers": 0.150,
    "playlists named by the top 20 titles": 0.12,
    "artists in a playlist": 38,
    "albums in a playlist": 50,
    "tracks per artist of a playlist": 1.74,
    "tracks per album of a playlist": 1.34,
    "next track has the same artist": 0.25,
    "next track has the same album": 0.15,
    "same artist in random order": 0.02,
    "same album in random order": 0.01,
    "rows that repeat a track": 0.013,
    "playlists with a repeat": 0.30,
    "track duration, minutes": 3.9,
    "rows in a slice": 67_503,
    "unique tracks in a slice": 34_443,
    "tracks of a slice seen once": 0.72,
    "rows of tracks with 5 plays or more": 0.37,
    "rows of the top 1 % of tracks": 0.11,
    "rows of the top 10 % of tracks": 0.42,
    "next track that is new": 0.72 * 34_443 / 67_503,  # Good and Turing's estimate: tracks seen once / rows
    "unique tracks after 10 slices": 175_000,
    "unique tracks after 50 slices": 460_000,
    "unique tracks after 100 slices": 682_000,
}


def statistics(prepared: str | Path) -> dict[str, float]:
    """The statistics of `TARGETS` in a folder made by `mpd.prepare`.

    Figures of one slice come from the first 1,000 playlists; growth is given as far as there are slices. "Next track
    that is new" is Good and Turing's estimate, as in notebook 01: the rows of tracks played once, as a share of all rows.
    """
    rows, lists, tracks = (
        pq.read_table(Path(prepared) / f"{name}.parquet", columns=columns).to_pandas()
        for name, columns in (
            ("interactions", ["track_id", "repeat"]),
            ("playlists", ["name", "num_edits", "num_followers", "length"]),
            ("tracks", ["artist_id", "album_id", "duration_ms"]),
        )
    )
    length, track, repeat = lists["length"].to_numpy(), rows["track_id"].to_numpy(), rows["repeat"].to_numpy()
    owner = np.repeat(np.arange(len(length)), length)
    artists = _together(tracks["artist_id"].to_numpy()[track - 1], owner, length)
    albums = _together(tracks["album_id"].to_numpy()[track - 1], owner, length)
    quartiles, edits = np.quantile(length, (0.25, 0.5, 0.75)), lists["num_edits"].quantile((0.5, 0.75)).tolist()
    titles = lists["name"].map(_normalised).value_counts()
    found = {
        "playlist length, mean": length.mean(),
        "playlist length, standard deviation": length.std(),
        "playlist length, lower quartile": quartiles[0],
        "playlist length, median": quartiles[1],
        "playlist length, upper quartile": quartiles[2],
        "edits, median": edits[0],
        "edits, upper quartile": edits[1],
        "playlists with 1 follower": (lists["num_followers"] == 1).mean(),
        "playlists with 2 followers": (lists["num_followers"] == 2).mean(),
        "playlists named by the top 20 titles": titles.iloc[:20].sum() / len(lists),
        "artists in a playlist": artists[0],
        "albums in a playlist": albums[0],
        "tracks per artist of a playlist": length.mean() / artists[0],
        "tracks per album of a playlist": length.mean() / albums[0],
        "next track has the same artist": artists[1],
        "next track has the same album": albums[1],
        "same artist in random order": artists[2],
        "same album in random order": albums[2],
        "rows that repeat a track": repeat.mean(),
        "playlists with a repeat": len(np.unique(owner[repeat])) / len(length),
        "track duration, minutes": tracks["duration_ms"].iloc[track - 1].mean() / 60_000,
    }
    # one slice: how plays are spread over its tracks
    one = owner < SLICE
    plays = np.bincount(track[one])
    ranked = np.sort(plays[plays > 0])[::-1]
    found |= {
        "rows in a slice": one.sum(),
        "unique tracks in a slice": len(ranked),
        "tracks of a slice seen once": (ranked == 1).mean(),
        "rows of tracks with 5 plays or more": ranked[ranked >= 5].sum() / one.sum(),
        "rows of the top 1 % of tracks": ranked[: round(len(ranked) / 100)].sum() / one.sum(),
        "rows of the top 10 % of tracks": ranked[: round(len(ranked) / 10)].sum() / one.sum(),
        "next track that is new": (ranked == 1).sum() / one.sum(),
    }
    first_slice = np.sort(owner[np.unique(track, return_index=True)[1]] // SLICE)  # of each track
    for slices in (10, 50, 100):
        if len(length) >= slices * SLICE:
            found[f"unique tracks after {slices} slices"] = np.searchsorted(first_slice, slices)
    return {name: float(value) for name, value in found.items()}


def calibration_table(prepared: str | Path) -> pd.DataFrame:
    """Target, made-up figure and their ratio for each statistic that the folder's slices allow."""
    found = statistics(prepared)
    table = pd.DataFrame({"MPD": pd.Series(TARGETS), "here": pd.Series(found)}).loc[list(found)]
    return table.assign(ratio=table["here"] / table["MPD"])


def _together(ids: np.ndarray, owner: np.ndarray, length: np.ndarray) -> tuple[float, float, float]:
    """Distinct ids per playlist, and how often the next row has the same id: in this order, and in a random one."""
    stay = owner[1:] == owner[:-1]
    pairs, count = np.unique(owner * (int(ids.max()) + 1) + ids, return_counts=True)
    shuffled = count * (count - 1) / length[pairs // (int(ids.max()) + 1)]  # expected neighbours of a random order
    return len(pairs) / len(length), (ids[1:] == ids[:-1])[stay].mean(), shuffled.sum() / stay.sum()


def _normalised(title: str | None) -> str:
    """The MPD's own normal form of titles: no case, no punctuation, single blanks."""
    return " ".join(re.sub(r"[.,/#!$%^*;:{}=_`~()@]", " ", (title or "").lower()).split())


def main() -> None:
    """Make slices (or take those of `--raw`), prepare them, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--slices", type=int, default=1, help="how many slices to make up (default 1)")
    parser.add_argument("--preset", choices=list(PRESETS), default="mpd-like")
    parser.add_argument("--seed", type=int, default=PRESETS["mpd-like"].seed, help="another seed is another world")
    parser.add_argument("--raw", type=Path, help="a folder of slices to measure instead")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        raw = args.raw
        if raw is None:
            raw = Path(scratch) / "raw"
            config = replace(PRESETS[args.preset], seed=args.seed, indent=args.slices == 1)  # compact: two thirds
            write_slices(World(config), raw, args.slices * SLICE, progress=True)
        table = calibration_table(prepare(raw, Path(scratch) / "prepared"))
    with pd.option_context("display.float_format", "{:,.3f}".format, "display.max_rows", None):
        print(table)


if __name__ == "__main__":
    main()
