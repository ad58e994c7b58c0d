"""Long runs whose results notebooks 05 and 06 show: too long for a lesson, so they are recorded in small tables.

    python benchmarks/experiments.py contest                 # four losses, 30 epochs, a rate of their own (05 §7)
    python benchmarks/experiments.py ablation                # one change at a time, three seeds each (05 §8)
    python benchmarks/experiments.py wins                    # SASRec against counting, 500 to 12,000 playlists (06 §3)
    python benchmarks/experiments.py order                   # SASRec trained on shuffled playlists (06 §6)
    python benchmarks/experiments.py real LastFM.txt         # a public set: a line is `user item item …` (06 §10)

Each adds rows (seed, seconds, numbers) to notebooks/data/experiments_<name>.csv and leaves out the runs whose rows are
there: stop it whenever you like and start it again. `--minutes` starts no new run when so many have passed. Training is
on one thread, so `seconds` are those of one core. benchmarks/README.md says where the public sets are to be had.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import torch

from sasrec_utils.baselines import fit_baselines, tune_blend
from sasrec_utils.course import lab
from sasrec_utils.evaluation import compare, evaluate, log_likelihood
from sasrec_utils.model import SASRec
from sasrec_utils.sequences import Sequences, Vocabulary, leave_last_out, load_dataset
from sasrec_utils.training import fit, load, recipe
from sasrec_utils.world import CALLBACK, MECHANISMS, Oracle, load_world

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
LABORATORY = ("few_tracks =", "shape = SASRecConfig", "plan = TrainConfig")  # the cells of notebook 05 that define it

Run = tuple[dict, Callable[[], list[dict]]]  # what names a run, and the run itself, which returns its rows


# The laboratory of notebook 05


def laboratory(playlists: int) -> dict:
    """The names that the notebook's own cells give the laboratory, with so many playlists drawn in it."""
    scope: dict = {}
    cells = [c.source for c in nbformat.read(NOTEBOOKS / "05_train.ipynb", as_version=4).cells if c.cell_type == "code"]
    wanted = [cells[0], *(next(source for source in cells if name in source) for name in LABORATORY)]
    with contextlib.redirect_stdout(io.StringIO()):
        for source in wanted:
            exec(source.replace("playlists(3_000)", f"playlists({playlists})").replace("share_of_rate", "_"), scope)
    return scope


def contest() -> Iterator[Run]:
    """Four losses. Each tries three rates with a seed of its own; then the best of them, three seeds, 30 epochs.

    Rates are chosen on the notebook's 600 validation playlists; the curves are those of 600 more, which chose nothing.
    """
    of = laboratory(3_600)
    judges = of["vocabulary"].encode(of["everything"].take(np.arange(3_000, 3_600)))

    def train(loss: str, rate: float, seed: int, playlists: Sequences) -> pd.DataFrame:
        plan = replace(of["plan"], epochs=30, patience=30, lr=rate, loss=loss, seed=seed, unseen_only=False)
        return fit(SASRec(of["shape"], seed=seed), of["train"], playlists, plan, progress=False)

    def try_rate(loss: str, rate: float) -> list[dict]:
        history = train(loss, rate, 100, of["valid"])
        last = {"epoch": 30, "ndcg@10": history["valid_ndcg@10"].iloc[-1], "seconds": history["seconds"].sum()}
        return [last]

    def compete(loss: str, rate: float, seed: int) -> list[dict]:
        history = train(loss, rate, seed, judges)
        history["seconds"] = history["seconds"].cumsum()
        history["ndcg@10"] = history["valid_ndcg@10"]
        return history[["epoch", "ndcg@10", "seconds"]].to_dict("records")

    losses = ("softmax", "sampled_softmax", "gbce", "bce")
    for loss in losses:
        for rate in (3e-3, 1e-2, 3e-2):
            yield {"part": "trial", "loss": loss, "lr": rate, "seed": 100}, partial(try_rate, loss, rate)
    for loss in losses:
        trials = recorded("contest").query("part == 'trial' and loss == @loss")
        rate = float(trials.loc[trials["ndcg@10"].idxmax(), "lr"])
        for seed in range(3):
            named = {"part": "contest", "loss": loss, "lr": rate, "seed": seed}
            yield named, partial(compete, loss, rate, seed)


VARIANTS = {
    "base: absolute, width 32": {},
    "context of 3 tracks": {"max_len": 3},
    "relative positions": {"positions": "relative"},
    "width 64": {"dim": 64},
    "two blocks": {"blocks": 2},
    "no dropout": {"dropout": 0.0},
    "own output vectors": {"tied": False},
    "relative, 64, own output": {"positions": "relative", "dim": 64, "tied": False},
    "base, 18 epochs": {"epochs": 18},
    "own output, 18 epochs": {"tied": False, "epochs": 18},
}


def ablation() -> Iterator[Run]:
    """Nats short of the oracle by what made the step: 100 validation playlists choose the epoch, 500 others judge."""
    of = laboratory(3_000)
    drawn, valid, world = of["drawn"], of["valid"], of["world"]
    best = Oracle(world, of["vocabulary"].to_catalogue - 1, of["N"]).log_likelihood(valid)
    rows = slice(drawn.offsets[2_400], None)
    kind = np.array(MECHANISMS, dtype=object)[drawn.mechanism[rows]]
    style = np.repeat(drawn.style, np.diff(drawn.offsets))[rows]
    called = drawn.mechanism[rows] == CALLBACK
    kind[called] = [f"callback at {lag}" for lag in world.callback_lags[style[called]]]
    judged = valid.owner >= 100
    judged[valid.offsets[:-1]] = False

    def measure(change: dict, seed: int) -> list[dict]:
        change = dict(change)
        plan = replace(of["plan"], seed=seed, epochs=change.pop("epochs", of["plan"].epochs))
        shape = replace(of["shape"], **change)
        if shape.max_len == 3:
            plan = replace(plan, batch_size=8 * plan.batch_size)  # as many targets in a batch
        model = SASRec(shape, seed=seed)
        history = fit(model, of["train"], valid.take(np.arange(100)), plan, progress=False)
        gap = best - log_likelihood(model, valid)
        by_kind = {k: gap[judged & (kind == k)].mean() for k in sorted(set(kind)) if k != "noise"}
        weights = sum(p.numel() for p in model.parameters())
        return [{"weights": weights, "seconds": history["seconds"].sum(), "all steps": gap[judged].mean(), **by_kind}]

    for name, change in VARIANTS.items():
        for seed in range(3):
            yield {"variant": name, "seed": seed}, partial(measure, change, seed)


# The default (teaching) world of notebook 06


def _default_data():
    data = lab.open_data(progress=False)
    dataset = load_dataset(data.prepared)
    return load_world(data.raw), dataset, dataset.vocabulary.n_items


def _train(dataset, train: Sequences, kind: str, epochs: int, seed: int) -> tuple[SASRec, pd.DataFrame]:
    """A SASRec by one of the package's recipes: "best" for few plays or for many, or "paper", which knows ids only."""
    N, known = dataset.vocabulary.n_items, slice(dataset.vocabulary.n_items + 1)
    artists, albums = dataset.artist_of[known], dataset.album_of[known]
    if kind == "paper":
        shape, plan = recipe("paper", N)
        model = SASRec(shape, seed=seed)
    else:
        shape, plan = recipe("best", N, int(artists.max()), int(albums.max()), 0 if kind == "few plays" else None)
        model = SASRec(shape, artists, albums, seed=seed)
    history = fit(model, train, dataset.valid, replace(plan, seed=seed, epochs=epochs), progress=False)
    return model, history


def wins() -> Iterator[Run]:
    """SASRec and the blend of kNN and Markov on more and more playlists; the oracle knows the law all along.

    Two kinds of SASRec: the package's best, which knows artists and albums, and the paper's, which knows track ids
    only, as the counting does. Up to 1,000 playlists the best one has four trials (recipe, epochs) with a seed of their
    own, and the best by validation NDCG@10 is judged; beyond that it has the recipe that `sasrec train` takes. Test
    playlists and vocabulary are the notebook's at all sizes; kNN and Markov are tuned on its validation playlists each
    time. At 12,000 playlists seed 0 is the default model (`make run`), which has the same recipe.
    """
    world, dataset, N = _default_data()
    asked, wanted = leave_last_out(dataset.test)
    by_blend = {}

    def playlists(size: int) -> Sequences:
        return dataset.train.take(np.arange(size))

    def blend_of(size: int):
        if size not in by_blend:
            counting = fit_baselines(playlists(size), N, *leave_last_out(dataset.valid))
            by_blend[size] = evaluate(counting[-1], asked, wanted)
        return by_blend[size]

    def count(size: int) -> list[dict]:
        began = time.perf_counter()
        report = blend_of(size)
        return [{"seconds": time.perf_counter() - began, **_numbers(report)}]

    def know() -> list[dict]:
        uris = dataset.catalogue.tracks["track_uri"].iloc[dataset.vocabulary.to_catalogue[1:] - 1].tolist()
        return [_numbers(evaluate(Oracle.from_uris(world, uris, N), asked, wanted))]

    def attempt(size: int, kind: str, epochs: int, seed: int, judge: bool = True) -> list[dict]:
        if size == 12_000 and kind == "many plays" and seed == 0:
            folder = lab.open_model(lab.open_data(progress=False), dataset, full=True)[0]
            model, history = load(folder)[0], pd.read_csv(folder / "history.csv")
        else:
            model, history = _train(dataset, playlists(size), kind, epochs, seed)
        row = {"seconds": history["seconds"].sum(), "valid ndcg": history["valid_ndcg@10"].max()}
        if judge:
            report = evaluate(model, asked, wanted)
            row |= _numbers(report)
            for name, metric in (("recall", "recall@10"), ("ndcg", "ndcg@10")):
                row |= _ends(f"{name} gap", compare(report, blend_of(size), metric))
        return [row]

    def named(model: str, size: int, kind: str = "", epochs: int | str = "", seed: int = 0) -> dict:
        return {"model": model, "playlists": size, "recipe": kind, "epochs": epochs, "seed": seed}

    yield named("oracle", 0), know
    for size in SIZES:
        yield named("item-kNN + Markov", size), partial(count, size)
    chosen = {}
    for size, (trials, _, of_ids) in SIZES.items():
        of = named("SASRec, ids only", size, "paper", of_ids)
        yield of, partial(attempt, size, "paper", of_ids, 0)
        for kind, epochs in trials[: len(trials) if len(trials) > 1 else 0]:
            of = named("SASRec, trial", size, kind, epochs, 100)
            yield of, partial(attempt, size, kind, epochs, 100, judge=False)
        chosen[size] = trials[0]
        if len(trials) > 1:
            done = recorded("wins").query("model == 'SASRec, trial' and playlists == @size")
            chosen[size] = done.loc[done["valid ndcg"].idxmax(), ["recipe", "epochs"]]
    for seed in range(3):  # the first seed of all sizes first: it gives the whole curve
        for size, (kind, epochs) in chosen.items():
            if seed < SIZES[size][1]:
                of = named("SASRec", size, kind, int(epochs), seed)
                yield of, partial(attempt, size, kind, int(epochs), seed)


# Playlists to train on: (recipe, epochs) of each trial, seeds of the chosen one, epochs of the one with ids only.
SIZES = {
    500: ((("few plays", 6), ("few plays", 24), ("many plays", 12), ("many plays", 36)), 3, 24),
    1_000: ((("few plays", 6), ("few plays", 12), ("many plays", 12), ("many plays", 24)), 3, 16),
    2_000: ((("few plays", 8),), 1, 12),
    4_000: ((("few plays", 4),), 1, 10),
    12_000: ((("many plays", 6),), 3, 8),
}
ENDS = {"": "mean", " low": "low", " high": "high"}


def _ends(name: str, interval) -> dict:
    return {f"{name}{end}": getattr(interval, of) for end, of in ENDS.items()}


def _numbers(report, recall: str = "recall@10") -> dict:
    return _ends("recall", report.metrics[recall]) | _ends("ndcg", report.metrics["ndcg@10"])


def order() -> Iterator[Run]:
    """The control of 06 §6: SASRec trained on shuffled playlists, and one on those in order, both on 2,000."""
    _, dataset, _ = _default_data()
    rng = np.random.default_rng(0)
    asked, wanted = leave_last_out(dataset.valid)
    few = dataset.train.take(np.arange(2_000))

    def shuffled(seqs: Sequences) -> Sequences:
        return Sequences(seqs.items[np.lexsort((rng.random(len(seqs.items)), seqs.owner))], seqs.offsets)

    kinds = {"in order": few, "shuffled": shuffled(few)}
    questions = {"in order": asked, "shuffled": shuffled(asked)}

    def measure(kind: str) -> list[dict]:
        model, history = _train(dataset, kinds[kind], "few plays", 8, seed=0)
        rows = []
        for question, histories in questions.items():
            found = evaluate(model, histories, wanted).metrics["recall@10"]
            row = {"asked": question, "playlists": len(few), "seconds": history["seconds"].sum()}
            rows.append(row | _ends("recall", found))
        return rows

    for kind in kinds:
        yield {"trained": kind, "seed": 0}, partial(measure, kind)


# Public sets


def real(file: str) -> Iterator[Run]:
    """A public set, as it is usually judged: the last item of each user is the test target, the one before validation.

    All items are candidates but those that the user has had. kNN and Markov are tuned on the validation targets; SASRec
    is what `recipe` gives for so many plays, untuned. All learn from the training part only.
    """
    name = Path(file).stem
    with open(file, encoding="utf-8") as lines:
        whole = Sequences.from_lists([[int(item) for item in line.split()[1:]] for line in lines])
    until_test, _ = leave_last_out(whole)
    train, _ = leave_last_out(until_test)
    vocabulary = Vocabulary.fit(train, int(whole.items.max()))
    train, valid, test = (vocabulary.encode(part) for part in (train, until_test, whole))
    N, asked, wanted = vocabulary.n_items, *leave_last_out(test)
    kept: dict = {}

    def counting() -> dict:
        if not kept:
            kept["scorers"] = fit_baselines(train, N, *leave_last_out(valid))
            kept["reports"] = [evaluate(scorer, asked, wanted) for scorer in kept["scorers"]]
        return kept

    def numbers(report) -> dict:
        return {"users": len(wanted), "items": N} | _numbers(report, "recall@10_all")

    def count(which: int) -> list[dict]:
        began = time.perf_counter()
        report = counting()["reports"][which]
        return [{"seconds": time.perf_counter() - began, **numbers(report)}]

    def train_one(seed: int) -> list[dict]:
        shape, plan = recipe("best", N, n_rows=int((train.items <= N).sum()))
        model = SASRec(shape, seed=seed)
        history = fit(model, train, valid, replace(plan, seed=seed), progress=False)
        report, blend = evaluate(model, asked, wanted), counting()["reports"][-1]
        row = {"seconds": history["seconds"].sum(), **numbers(report)}
        row |= _ends("recall gap", compare(report, blend, "recall@10_all"))
        both, _ = tune_blend((model, *counting()["scorers"][-1].scorers), *leave_last_out(valid))
        return [row | _ends("with blend gap", compare(evaluate(both, asked, wanted), blend, "recall@10_all"))]

    for which, model in enumerate(("popularity", "Markov", "item-kNN", "item-kNN + Markov")):
        yield {"data": name, "model": model, "seed": 0}, partial(count, which)
    for seed in range(3 if len(whole) < 5_000 else 1):
        yield {"data": name, "model": "SASRec", "seed": seed}, partial(train_one, seed)


# Rows: read, find, add


def recorded(name: str) -> pd.DataFrame:
    """The rows that are there; an empty table without a file."""
    file = NOTEBOOKS / "data" / f"experiments_{name}.csv"
    return pd.read_csv(file, keep_default_na=False, na_values=["nan"]) if file.exists() else pd.DataFrame()


def _rows_of(table: pd.DataFrame, named: dict) -> pd.DataFrame:
    """The rows of the run with this name."""
    for column, value in named.items():
        table = table[table[column].astype(str) == str(value)] if column in table else table[:0]
    return table


def record(name: str, runs: Iterator[Run], minutes: float) -> int:
    """Make the runs whose rows are missing, one after the other; how many were left when the time was over."""
    file, began, left = NOTEBOOKS / "data" / f"experiments_{name}.csv", time.monotonic(), 0
    for named, make in runs:
        table = recorded(name)
        if len(_rows_of(table, named)):
            continue
        if time.monotonic() - began > 60 * minutes:
            return left + 1
        rows = pd.DataFrame([named | row for row in make()])
        table = rows if table.empty else pd.concat([table, rows], ignore_index=True)
        table.to_csv(file, index=False, float_format="%.5g", na_rep="nan", lineterminator="\n")
        print(" ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in rows.iloc[-1].items()),
              flush=True)  # fmt: skip
    return left


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=("contest", "ablation", "wins", "order", "real"))
    parser.add_argument("file", nargs="?", help="of `real`: user item item … on each line")
    parser.add_argument("--minutes", type=float, default=1e9)
    args = parser.parse_args()
    if (args.experiment == "real") != (args.file is not None):
        parser.error("`real`, and only it, takes a file")
    torch.set_num_threads(1)
    runs = {"contest": contest, "ablation": ablation, "wins": wins, "order": order}
    made = real(args.file) if args.file else runs[args.experiment]()
    left = record(args.experiment, made, args.minutes)
    print("runs are left: start it again" if left else "complete")


if __name__ == "__main__":
    main()
