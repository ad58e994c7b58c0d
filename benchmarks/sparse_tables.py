"""Do sparse tables cost quality? The same trainings with dense and with sparse gradients, on made-up playlists.

    python benchmarks/sparse_tables.py [--playlists 3000] [--seeds 2] [--epochs 4] [--two-tables]

The sampled softmax, as above 100,000 tracks. For each seed the trainings start from the same weights and see the same
batches and negatives. The spread over seeds is the yardstick.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace

import numpy as np

from sasrec_utils.model import SASRec
from sasrec_utils.mpd import prepare
from sasrec_utils.sequences import load_dataset
from sasrec_utils.training import fit, recipe
from sasrec_utils.world import PRESETS, World, write_slices


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--playlists", type=int, default=3_000)
    parser.add_argument("--preset", choices=PRESETS, default="mpd-like")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--two-tables", action="store_true", help="also with a second table for the output")
    parser.add_argument("--table-lr", type=float, nargs="+", default=[5.0], help="times lr, for the sparse tables")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_slices(World(PRESETS[args.preset]), f"{folder}/raw", args.playlists)
        data = load_dataset(prepare(f"{folder}/raw", f"{folder}/prepared", progress=False), min_count=2)
    N = data.vocabulary.n_items
    groups = data.artist_of[: N + 1], data.album_of[: N + 1]
    shape, plan = recipe("best", N, *(int(group.max()) for group in groups))
    shape = replace(shape, dim=64, heads=2)
    plan = replace(plan, loss="sampled_softmax", epochs=args.epochs, batch_size=64)
    print(f"{N:,} tracks, {int(np.maximum(data.train.lengths - 1, 0).sum()):,} targets an epoch\n")
    print("| seed | tables | validation loss | Recall@10 | NDCG@10 | seconds |\n|---|---|---|---|---|---|")
    for seed in range(args.seeds):
        for tied in (True, False)[: 1 + args.two_tables]:
            for tables, rate in [("dense", plan.table_lr), *(("sparse", rate) for rate in args.table_lr)]:
                model = SASRec(replace(shape, tied=tied), *groups, seed=seed)
                changed = replace(plan, tables=tables, table_lr=rate, seed=seed)
                history = fit(model, data.train, data.valid, changed, progress=False)
                best = history.loc[history["valid_ndcg@10"].idxmax()]
                print(
                    f"| {seed} | {tables}, table_lr {rate:g}, {'one' if tied else 'two'} | {best['valid_loss']:.4f} | "
                    f"{best['valid_recall@10']:.4f} | {best['valid_ndcg@10']:.4f} | {history['seconds'].sum():.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
