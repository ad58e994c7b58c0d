"""What each setting of `recipe("best")` is worth: the recipe, and with one of them changed, on validation targets.

    python benchmarks/levers.py LastFM.txt              # a line of the file is: user item item ...
    python benchmarks/levers.py --prepared data/prepared/0123456789abcdef
    python benchmarks/levers.py LastFM.txt --only "start from noise" --seeds 3

A text file is judged as in the SASRec paper (the last item but one of each user is the validation target, the last the
test target), a prepared folder by playlists. Recall@10 and NDCG@10, full ranking, seen items excluded; the test columns
are of the epoch that validation chose, and no setting was chosen by them.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import fields, replace

import numpy as np
import pandas as pd

from sasrec_utils.baselines import fit_baselines
from sasrec_utils.evaluation import ndcg_at, ranks, recall_at
from sasrec_utils.model import SASRec, SASRecConfig
from sasrec_utils.sequences import Sequences, Vocabulary, leave_last_out, load_dataset
from sasrec_utils.training import fit, recipe

LEVERS = {
    "the recipe": {},
    "no pointer": {"pointer": False},
    "no artists and albums": {"pointer": False, "n_artists": 0, "n_albums": 0},
    "start from noise": {"start": "noise"},
    "start from counts": {"start": "counts"},
    "table_lr 5": {"table_lr": 5.0},
    "table_lr 1": {"table_lr": 1.0},
    "table_lr 0.3": {"table_lr": 0.3},
    "table_decay 0.1": {"table_decay": 0.1},
    "dropout 0.2": {"dropout": 0.2},
    "dropout 0.5": {"dropout": 0.5},
    "batches of 128": {"batch_size": 128},
    "batches of 32": {"batch_size": 32},
    "absolute positions, tied": {"positions": "absolute", "tied": True},
    "width 64": {"dim": 64, "heads": 2},
    "half the epochs": {"epochs": 0.5},
    "twice the epochs": {"epochs": 2.0},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", help="user item item ... on each line")
    parser.add_argument("--prepared", help="a folder made by `prepare`")
    parser.add_argument("--only", nargs="*", default=list(LEVERS), choices=LEVERS)
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    if (args.file is None) == (args.prepared is None):
        parser.error("give either a file or --prepared")
    train, valid, test, n_items, groups = _from_file(args.file) if args.file else _from_folder(args.prepared)

    parts = [leave_last_out(valid), leave_last_out(test)]
    rows = [_row(scorer.name, scorer, parts) for scorer in fit_baselines(train, n_items, *parts[0])]
    print(pd.DataFrame(rows).to_string(index=False), flush=True)
    sizes = [int(group.max()) if group is not None else 0 for group in groups]
    for lever in args.only:
        for seed in range(args.seeds):
            shape, plan = recipe("best", n_items, *sizes, int((train.items <= n_items).sum()))
            changes = {**LEVERS[lever], "seed": seed}
            if "epochs" in changes:
                changes["epochs"] = round(plan.epochs * changes["epochs"])
            shape = replace(shape, **{k: v for k, v in changes.items() if k in _names(SASRecConfig)})
            plan = replace(plan, **{k: v for k, v in changes.items() if k in _names(type(plan))})
            model = SASRec(shape, *groups, seed=seed)
            began = time.perf_counter()
            history = fit(model, train, valid, plan, progress=False)
            row = {"epoch": int(history["valid_ndcg@10"].idxmax()) + 1, "seconds": round(time.perf_counter() - began)}
            rows.append({**_row(lever, model, parts), **row, "loss": history["valid_loss"].min()})
            print(pd.DataFrame(rows[-1:]).round(4).to_string(index=False, header=False), flush=True)
    print(pd.DataFrame(rows).round(4).to_string(index=False))


def _names(config: type) -> set[str]:
    return {field.name for field in fields(config)}


def _row(name: str, scorer, parts: list) -> dict:
    row = {"model": name}
    for part, (histories, targets) in zip(("valid", "test"), parts, strict=True):
        found = ranks(scorer, histories, targets)
        row |= {f"{part} recall": recall_at(found, 10).mean(), f"{part} ndcg": ndcg_at(found, 10).mean()}
    return row


def _from_file(path: str) -> tuple:
    with open(path, encoding="utf-8") as file:
        whole = Sequences.from_lists([[int(item) for item in line.split()[1:]] for line in file])
    until_test, _ = leave_last_out(whole)
    train, _ = leave_last_out(until_test)
    vocabulary = Vocabulary.fit(train, int(whole.items.max()))
    parts = (vocabulary.encode(part) for part in (train, until_test, whole))
    return *parts, vocabulary.n_items, (None, None)


def _from_folder(path: str) -> tuple:
    data = load_dataset(path)
    known = np.arange(data.vocabulary.n_items + 1)
    groups = data.artist_of[known], data.album_of[known]
    return data.train, data.valid, data.test, data.vocabulary.n_items, groups


if __name__ == "__main__":
    main()
