"""Do bfloat16 scores in the softmax cost quality? The same trainings with both, on made-up `mpd-like` playlists.

    python benchmarks/score_precision.py [--playlists 3000] [--seeds 3]

For each seed the two trainings start from the same weights and see the same batches; what differs in the end is what
the scores' precision does. The spread over seeds is the yardstick. Minutes; needs a CPU with bfloat16 instructions to
be of use.
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
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_slices(World(PRESETS["mpd-like"]), f"{folder}/raw", args.playlists)
        data = load_dataset(prepare(f"{folder}/raw", f"{folder}/prepared", progress=False), min_count=2)
    shape, plan = recipe("paper", data.vocabulary.n_items)
    shape = replace(shape, dim=64, heads=2)
    print(
        f"{data.vocabulary.n_items:,} tracks, {int(np.maximum(data.train.lengths - 1, 0).sum()):,} targets an epoch\n"
    )
    print("| seed | scores | validation loss | Recall@10 | NDCG@10 | seconds |\n|---|---|---|---|---|---|")
    found = []
    for seed in range(args.seeds):
        for scores in ("float32", "bfloat16"):
            history = fit(
                SASRec(shape, seed=seed), data.train, data.valid,
                replace(plan, scores=scores, seed=seed, epochs=args.epochs), progress=False
            )  # fmt: skip
            best = history.loc[history["valid_ndcg@10"].idxmax()]
            row = [best["valid_loss"], best["valid_recall@10"], best["valid_ndcg@10"]]
            print(
                f"| {seed} | {scores} | {row[0]:.4f} | {row[1]:.4f} | {row[2]:.4f} | {history['seconds'].sum():.0f} |",
                flush=True,
            )
            found.append(row)
    gap = np.array(found[1::2]) - np.array(found[::2])
    print(
        "\nbfloat16 - float32, mean over seeds: loss {:+.4f}, Recall@10 {:+.4f}, NDCG@10 {:+.4f}".format(*gap.mean(0))
    )


if __name__ == "__main__":
    main()
