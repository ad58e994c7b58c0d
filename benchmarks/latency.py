"""How long one playlist waits for its ten named next tracks: `Recommender.recommend`, names included.

    python benchmarks/latency.py [--tracks 34000] [--requests 500]

An untrained model of the given size is as fast as a trained one. The history has 50 tracks, given as URIs.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd
import torch

from sasrec_utils.model import SASRec, SASRecConfig
from sasrec_utils.recommender import Recommender


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tracks", type=int, default=34_000)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    n, rng = args.tracks, np.random.default_rng(0)
    text = {c: [f"{c} {i}" for i in range(n)] for c in ("track_uri", "track_name", "artist_name", "album_name")}
    feature = np.append(0, rng.integers(1, n // 8, n))
    shapes = {
        "paper": SASRecConfig(n, dim=64, heads=2, max_len=50),
        "best": SASRecConfig(
            n, dim=128, heads=4, max_len=100, positions="relative", tied=False, n_artists=n // 8, n_albums=n // 8
        ),
    }
    print("| shape | width | p50 | p95 |\n|---|---|---|---|")
    for name, shape in shapes.items():
        model = SASRec(shape, feature, feature).eval()
        model.keep_table()
        recommender = Recommender(model, pd.DataFrame(text))
        seconds = []
        for i in range(args.requests + 20):
            tracks = [f"track_uri {x}" for x in rng.integers(0, n, 50)]
            began = time.perf_counter()
            len(recommender.recommend(tracks, 10).table)  # the table has the names
            if i >= 20:
                seconds.append(time.perf_counter() - began)
        p50, p95 = np.percentile(seconds, [50, 95]) * 1000
        print(f"| {name} | {shape.dim} | {p50:.2f} ms | {p95:.2f} ms |")


if __name__ == "__main__":
    main()
