"""Does the made-up world look like the Million Playlist Dataset, and is it as hard to predict? Two tables.

    python benchmarks/calibration.py                    # one slice, then 7,071 playlists: two minutes
    python benchmarks/calibration.py --slices 50        # also how the catalogue grows: minutes, 1.2 GB of scratch
    python benchmarks/calibration.py --raw data/raw     # slices that are there, real ones included

The first has the MPD's figure, the one found here, their ratio and how far it is off, from one slice. Its slices go
the way of all data: written as JSON, read and turned into tables by `mpd.prepare`, counted there. The MPD's figures
come from its own statistics file and README and from print-outs of published notebooks.

The second says how well counting predicts the next track, beside what was measured on 7,071 real playlists; see
`predictability` for how. Only the made-up world of a preset has it, since it takes 7,071 playlists.
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

from sasrec_utils.baselines import Blend, ItemKNN, Markov, Popularity, tune_blend
from sasrec_utils.evaluation import ndcg_at, ranks, recall_at
from sasrec_utils.mpd import prepare
from sasrec_utils.sequences import Sequences, Vocabulary, leave_last_out, split_playlists
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
    "next track never seen, by Good and Turing": 0.37,  # 0.72 × 34,443 / 67,503, from two rows above
    "unique tracks after 10 slices": 175_000,
    "unique tracks after 50 slices": 460_000,
    "unique tracks after 100 slices": 682_000,
}


def statistics(prepared: str | Path) -> dict[str, float]:
    """The statistics of `TARGETS` in a folder made by `mpd.prepare`.

    Figures of one slice come from the first 1,000 playlists; growth is given as far as there are slices. The chance
    that the next track was never seen is estimated as the number of tracks played once over the number of rows
    (Good 1953, after Turing).
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
        "next track never seen, by Good and Turing": (ranked == 1).sum() / one.sum(),
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
    return table.assign(
        ratio=table["here"] / table["MPD"], off=(table["here"] / table["MPD"] - 1).map("{:+.0%}".format)
    )


METRICS = ("Recall@10", "NDCG@10")
REAL = {  # measured on 7,071 real playlists: Recall@10 and NDCG@10
    "popularity": (0.009, 0.004),
    "Markov, last track": (0.065, 0.043),
    "item-kNN": (0.109, 0.063),
    "item-kNN + Markov": (0.121, 0.074),
    "split by playlist, item-kNN + Markov": (0.052, 0.028),
}
REAL_UNSEEN = 0.42  # of last tracks, split by playlist
PLAYLISTS = 7071
CORE = 5


def predictability(tracks: np.ndarray, offsets: np.ndarray, n_test: int | None = None) -> dict[str, float]:
    """How well counting predicts the last track of each playlist, by the names of `REAL`.

    `tracks` int [R] and `offsets` int [U + 1] as in `Sequences`, any ids. Leave one out: tracks in fewer than five
    playlists and playlists of fewer than five tracks are dropped, again and again until none is left to drop; the last
    track is held out, all is fitted on the rest; every track of the catalogue is ranked, without those already in the
    playlist. A last track that its playlist has already is not counted. item-kNN sees the last 20 tracks (decay .8),
    the chain in the blend the last three (decay .5); their weights are chosen on the last but one track, fitted on
    what comes before. Split by playlist: 80 % of all playlists to learn from, 10 % to choose the weights, 10 % for the
    test; tracks with five plays in training are known, all others are lost, and lost ones count as misses. `n_test`:
    take a sample of that many playlists for the first part.
    """
    seqs = _core(Sequences(_shuffled_ids(tracks), offsets))
    histories, targets = leave_last_out(seqs)
    earlier, before = leave_last_out(histories)
    n_items = int(seqs.items.max())
    rows = np.random.default_rng(0).permutation(len(seqs))
    sample = np.sort(rows[:2000])
    weights = _blend(earlier, n_items, earlier.take(sample), before[sample]).weights
    blend = Blend((_knn(histories, n_items), _chain(histories, n_items)), weights)
    scorers = {
        "popularity": Popularity.fit(histories, n_items),
        "Markov, last track": Markov.fit(histories, n_items),
        "item-kNN": blend.scorers[0],
        "item-kNN + Markov": blend,
    }
    judged = np.sort(rows[:n_test])
    found: dict[str, float] = {"playlists kept": len(seqs), "tracks kept": n_items, "rows kept": len(seqs.items)}
    for name, scorer in scorers.items():
        rank = ranks(scorer, histories.take(judged), targets[judged])
        found |= {f"{name}, Recall@10": recall_at(rank, 10).mean(), f"{name}, NDCG@10": ndcg_at(rank, 10).mean()}
    # split by playlist
    seqs = Sequences(_shuffled_ids(tracks), offsets)
    split = split_playlists(len(seqs))
    vocabulary = Vocabulary.fit(seqs.take(split.train), int(seqs.items.max()), CORE)
    train, valid, test = (vocabulary.encode(seqs.take(part)) for part in split)
    n_items = vocabulary.n_items
    blend = _blend(train, n_items, *leave_last_out(valid))
    histories, targets = leave_last_out(test)
    rank = ranks(blend, histories, targets)
    name = "split by playlist, item-kNN + Markov"
    of_all = len(rank[rank > 0]) / len(rank)
    return found | {
        f"{name}, Recall@10": recall_at(rank, 10).mean() * of_all,
        f"{name}, NDCG@10": ndcg_at(rank, 10).mean() * of_all,
        "split by playlist, last tracks unknown": (targets > n_items).mean(),
    }


def predictability_table(found: dict[str, float]) -> pd.DataFrame:
    """The real figure, the one of `predictability`, and their ratio."""
    real = {f"{name}, {what}": x for name, both in REAL.items() for what, x in zip(METRICS, both, strict=True)}
    real |= {"playlists kept": 6359, "tracks kept": 23_340, "rows kept": 439_000}
    real["split by playlist, last tracks unknown"] = REAL_UNSEEN
    table = pd.DataFrame({"real": pd.Series(real), "here": pd.Series(found)}).loc[list(found)]
    return table.assign(ratio=table["here"] / table["real"])


def _knn(train: Sequences, n_items: int) -> ItemKNN:
    return ItemKNN.fit(train, n_items, n_last=20, decay=0.8)


def _chain(train: Sequences, n_items: int) -> Markov:
    return Markov.fit(train, n_items, n_last=3, decay=0.5)


def _blend(train: Sequences, n_items: int, histories: Sequences, targets: np.ndarray) -> Blend:
    """item-kNN + Markov with weights chosen on these targets."""
    return tune_blend((_knn(train, n_items), _chain(train, n_items)), histories, targets)[0]


def _shuffled_ids(tracks: np.ndarray) -> np.ndarray:
    """Ids 1…N in an order that says nothing of a track: in a made-up world its id tells its artist and its fame."""
    unique, row = np.unique(tracks, return_inverse=True)
    return (np.random.default_rng(0).permutation(len(unique)) + 1)[row].astype(np.int32)


def _core(seqs: Sequences) -> Sequences:
    """What is left when tracks in fewer than five playlists and playlists of fewer than five tracks are dropped."""
    while True:
        pairs = np.unique(seqs.owner * (int(seqs.items.max()) + 1) + seqs.items) % (int(seqs.items.max()) + 1)
        known = np.bincount(pairs, minlength=int(seqs.items.max()) + 1) >= CORE
        kept = seqs.keep(known[seqs.items])
        kept = kept.take(np.flatnonzero(kept.lengths >= CORE))
        if len(kept.items) == len(seqs.items):
            return Sequences(_shuffled_ids(kept.items), kept.offsets)
        seqs = kept


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
    """Make slices (or take those of `--raw`), prepare them, print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--slices", type=int, default=1, help="how many slices to make up (default 1)")
    parser.add_argument("--preset", choices=list(PRESETS), default="mpd-like")
    parser.add_argument("--seed", type=int, default=PRESETS["mpd-like"].seed, help="another seed is another world")
    parser.add_argument("--raw", type=Path, help="a folder of slices to measure instead")
    args = parser.parse_args()
    world = World(replace(PRESETS[args.preset], seed=args.seed, indent=args.slices == 1))  # compact: two thirds
    with tempfile.TemporaryDirectory() as scratch:
        raw = args.raw
        if raw is None:
            raw = Path(scratch) / "raw"
            write_slices(world, raw, args.slices * SLICE, progress=True)
        table = calibration_table(prepare(raw, Path(scratch) / "prepared"))
    with pd.option_context("display.float_format", "{:,.3f}".format, "display.max_rows", None, "display.width", 120):
        print(table)
        if args.raw is None:
            drawn = world.playlists(PLAYLISTS)
            print(f"\n{PLAYLISTS:,} playlists:")
            print(predictability_table(predictability(drawn.tracks, drawn.offsets)))


if __name__ == "__main__":
    main()
