"""What side information buys, and for whom: the record that notebook 08 shows.

    python benchmarks/features.py [--data DIR] [--seconds N] [--world release] [--speed]

Three seeds of each model, in two worlds. *release*: 7,000 playlists of the teaching world in which a tenth of all
tracks come out after playlist 5,600; models learn from the playlists before. *mpd-like*: 3,000 playlists with a long
tail, split at random. Each run's ranks are kept in DIR (a run that is there is not done again; `--seconds` stops after
the run that goes beyond), and `features.csv` beside notebook 08 is made from all that are there: Recall@10 and NDCG@10
over all targets (those that a model cannot reach are misses), as a mean over the seeds, with 95 % intervals over
playlists, and the same for the paired differences to two of the models (`REFERENCES`). A minute or so a run, one
thread.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from sasrec_utils.baselines import Popularity
from sasrec_utils.evaluation import ranks
from sasrec_utils.evaluation.metrics import paired_interval
from sasrec_utils.evaluation.ranking import batch_ranks
from sasrec_utils.features import WORDS, load_titles, track_features, with_titles
from sasrec_utils.model import SASRec
from sasrec_utils.mpd import prepare
from sasrec_utils.sequences import Dataset, Sequences, Split, batches, leave_last_out, load_dataset, split_playlists
from sasrec_utils.training import Objective, TrainConfig, fit, recipe
from sasrec_utils.world import AUDIO, MPD_LIKE, TEACHING, Oracle, World, release_split, title_words, write_slices

ROOT = Path(__file__).resolve().parents[1]
SEEDS = (0, 1, 2)
LENGTHS = (0, 1, 5, 25, None)  # tracks of the history; None: all but the last
WORLDS = {  # the world, playlists, epochs
    "release": (replace(TEACHING, cold_share=0.1, release=5_600), 7_000, 5),
    "mpd-like": (MPD_LIKE, 3_000, 3),
}
REFERENCES = ("ids", "ids + artist, album")  # `gap` and `more` in the record are paired differences to these two
# What each model is told beside ids; "artist" stands for artist and album, "new" for newcomers.
MODELS = {
    "release": {
        "ids": (),
        "ids + artist, album": ("artist", "new"),
        "ids + genre": ("genre", "new"),
        "ids + audio": ("audio", "new"),
        "all of them": ("artist", "genre", "audio", "new"),
        "all + title": ("artist", "genre", "audio", "new", "title"),
    },
    "mpd-like": {
        "ids": (),
        "ids + artist, album": ("artist",),
        "all of them": ("artist", "genre", "audio", "new"),
    },
}


def dataset(world: str, folder: Path, newcomers: bool) -> tuple[Dataset, World, Path]:
    """The playlists of a world, split; made if they are not there."""
    config, playlists, _ = WORLDS[world]
    made = World(config)
    if not (folder / world / "raw").exists():
        write_slices(made, folder / world / "raw", playlists)
    prepared = prepare(folder / world / "raw", folder / world / "prepared")
    split = split_playlists(playlists, 0, 0.1, 0.2)
    if world == "release":
        split = Split(*release_split(made, np.arange(playlists)))
    return load_dataset(prepared, newcomers=newcomers, split=split), made, prepared


def questions(test: Sequences, length: int | None) -> tuple[Sequences, np.ndarray]:
    """The histories of this length and the track that follows each; 0 where a playlist has none."""
    if length is None:
        return leave_last_out(test)
    histories, targets = test.first(length), np.zeros(len(test), np.int64)
    longer = test.lengths > length
    targets[longer] = test.items[test.offsets[:-1][longer] + length]
    return histories, targets


def prepare_run(world: str, told: tuple[str, ...], seed: int, folder: Path) -> tuple[SASRec, Dataset, TrainConfig]:
    """A new model that is told of these things, its data, and how it is to be trained."""
    data, _, prepared = dataset(world, folder, "new" in told)
    vocabulary = data.vocabulary
    groups = (int(data.artist_of.max()), int(data.album_of.max())) if "artist" in told else (0, 0)
    rows = int((data.train.items <= vocabulary.n_known).sum())
    config, plan = recipe("best", vocabulary.n_known, *groups, rows)
    config = replace(config, n_items=vocabulary.n_items, n_new=vocabulary.n_new, dim=64, heads=2, max_len=50)
    columns = [*(["genre"] if "genre" in told else []), *(AUDIO if "audio" in told else [])]
    features = None
    if columns:
        features = track_features(folder / world / "raw" / "features.csv", data).only(columns)
        config = replace(config, categories=features.sizes, n_numbers=len(features.columns))
    if "title" in told:
        data, config = with_titles(data, load_titles(prepared)), replace(config, n_words=WORDS)
    known = slice(vocabulary.n_items + 1)
    model = SASRec(config, data.artist_of[known], data.album_of[known], seed=seed, features=features)
    return model, data, replace(plan, epochs=WORLDS[world][2], seed=seed)


def judge(scorer, test: Sequences, words: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Ranks for every length of the history, 0 = out of reach; an oracle is given `words` of the titles."""
    found = {}
    for length in LENGTHS:
        histories, targets = questions(test, length)
        if words is None:
            found[str(length)] = ranks(scorer, histories, targets)
        else:
            found[str(length)] = batch_ranks(scorer.score(histories, words), histories, targets.astype(np.int64), True)
    return found


def yardsticks(world: str, folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """Popularity, and on the small world the oracle without and with the title: they know every track."""
    data, made, prepared = dataset(world, folder, newcomers=True)
    found = {"popularity": judge(Popularity.fit(data.train, data.vocabulary.n_items), data.test)}
    uris = data.catalogue.tracks["track_uri"].iloc[data.vocabulary.to_catalogue[1:] - 1].tolist()
    oracle = Oracle.from_uris(made, uris, data.vocabulary.n_items)
    found["oracle"] = judge(oracle, data.test)
    words = title_words(load_titles(prepared))[data.split.test]
    found["oracle + title"] = judge(oracle, data.test, words)
    return found


def measure(folder: Path, seconds: float, worlds: list[str]) -> None:
    """Train and judge what is missing in these worlds, seed by seed."""
    began = time.perf_counter()
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    for world in worlds:
        if not list(folder.glob(f"runs/{world}~oracle*")):
            for name, found in yardsticks(world, folder).items():
                np.savez(folder / "runs" / f"{world}~{name}~0.npz", **found)
    for seed in SEEDS:
        for world in worlds:
            for name, told in MODELS[world].items():
                file = folder / "runs" / f"{world}~{name}~{seed}.npz"
                if file.exists():
                    continue
                if time.perf_counter() - began > seconds:
                    return
                model, data, plan = prepare_run(world, told, seed, folder)
                fit(model, data.train, data.valid, plan, progress=False)
                np.savez(file, **judge(model, data.test))
                print(f"{world}, {name}, seed {seed}", flush=True)


def groups_of(data: Dataset) -> dict[str, np.ndarray]:
    """bool [lengths, U] for each group of targets: by plays in training, and by length of the history."""
    plays = np.bincount(data.train.items, minlength=len(data.vocabulary) + 1)
    asked = [questions(data.test, length) for length in LENGTHS]
    targets = np.stack([target for _, target in asked])
    again = np.stack([[t in set(row) for row, t in zip(h, target, strict=True)] for h, target in asked])
    real = (targets > 0) & ~again  # a track that the playlist has already cannot be asked for
    times = plays[targets]
    found = {
        "all": real,
        "never in training": real & (times == 0),
        "1 to 5 times": real & (times >= 1) & (times <= 5),
        "more than 5 times": real & (times > 5),
    }
    for row, length in enumerate(LENGTHS):
        only = np.zeros_like(real)
        only[row] = real[row]
        found[f"history of {length}" if length is not None else "all but the last"] = only
    return found


def by_playlist(values: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the values of a group's targets and their number, both by playlist [U]."""
    return (values * group).sum(0), group.sum(0)


def interval(summed: np.ndarray, counts: np.ndarray) -> tuple[float, float, float]:
    """Mean over targets with its interval over playlists: whole playlists are drawn again (ratio, linearised)."""
    mean = summed.sum() / counts.sum()
    some = counts > 0
    around = (summed - mean * counts)[some] / counts[some].mean()
    _, low, high = paired_interval(around, 2_000, 0)
    return mean, mean + low, mean + high


def record(folder: Path) -> pd.DataFrame:
    """One row for each world, model, metric and group of targets."""
    rows = []
    for world in WORLDS:
        if not all(list(folder.glob(f"runs/{world}~{name}~*")) for name in REFERENCES):
            continue
        groups = groups_of(dataset(world, folder, newcomers=True)[0])
        found: dict[str, list[np.ndarray]] = {}
        for file in sorted(folder.glob(f"runs/{world}~*.npz")):
            run, name = np.load(file), file.stem.split("~")[1]
            found.setdefault(name, []).append(np.stack([run[str(length)] for length in LENGTHS]))
        for metric in ("recall@10", "ndcg@10"):
            values = {name: np.stack([_values(r, metric) for r in seeds]) for name, seeds in found.items()}
            for name, runs in values.items():
                for group, mask in groups.items():
                    if not mask.any():
                        continue
                    summed, counts = by_playlist(runs.mean(0), mask)
                    gap, more = (by_playlist(runs.mean(0) - values[other].mean(0), mask)[0] for other in REFERENCES)
                    rows.append({
                        "world": world, "model": name, "metric": metric, "group": group, "targets": int(mask.sum()),
                        **dict(zip(("mean", "low", "high"), interval(summed, counts), strict=True)),
                        **dict(zip(("gap", "gap_low", "gap_high"), interval(gap, counts), strict=True)),
                        **dict(zip(("more", "more_low", "more_high"), interval(more, counts), strict=True)),
                        "seeds": " ".join(f"{(run * mask).sum() / mask.sum():.4f}" for run in runs),
                    })  # fmt: skip
    return pd.DataFrame(rows).round(4)


def _values(rank: np.ndarray, metric: str) -> np.ndarray:
    hit = (rank > 0) & (rank <= 10)
    return hit * 1.0 if metric == "recall@10" else np.where(hit, 1 / np.log2(np.maximum(rank, 1) + 1), 0.0)


def speed(world: str, folder: Path, steps: int = 40) -> None:
    """CPU seconds of a training step (loss and gradients) beside those of the model with artists and albums: the models
    take turns, so that what else the machine does hits all alike."""
    runs, taken = {}, {}
    for name, told in MODELS[world].items():
        if name in (REFERENCES[1], "all of them", "all + title"):
            model, data, plan = prepare_run(world, told, 0, folder)
            known = data.train.keep(data.train.items <= model.config.n_known)
            if not model.config.n_words:
                known = replace(known, titles=None)
            found = batches(known, model.config.max_len, plan.batch_size, np.random.default_rng(0))
            parts = [tuple(map(torch.from_numpy, batch)) for _, batch in zip(range(steps), found, strict=False)]
            runs[name], taken[name] = (Objective(model, plan, known.items).train(), parts), []
    for step in range(steps):
        for name, (objective, parts) in runs.items():
            began = time.process_time()
            objective(*parts[step]).backward()
            objective.zero_grad()
            taken[name].append((time.process_time() - began) / int((parts[step][1] > 0).sum()))
    base = np.median(taken[REFERENCES[1]][5:])
    for name, each in taken.items():
        print(f"{world}, {name}: {np.median(each[5:]) * 1e6:.1f} µs a target, {np.median(each[5:]) / base:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "features-benchmark")
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--world", choices=tuple(WORLDS), help="only this one (default: both)")
    parser.add_argument("--speed", action="store_true", help="only compare the time of a step")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.speed:
        for world in [args.world] if args.world else WORLDS:
            speed(world, args.data)
        return
    measure(args.data, args.seconds, [args.world] if args.world else list(WORLDS))
    target = ROOT / "notebooks" / "data" / "features.csv"
    record(args.data).to_csv(target, index=False, lineterminator="\n")
    print(target.name, "written")


if __name__ == "__main__":
    main()
