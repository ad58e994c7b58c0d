"""One table for whoever has a GPU: targets a second, memory, and how often a training step makes the host wait for it.

    python benchmarks/gpu.py                      # on the GPU
    python benchmarks/gpu.py --accelerator cpu    # the same on the CPU, to see that it runs

The shape that `recipe` gives big catalogues, batches of 128 windows of 100 tracks, 20 steps after 5 that do not count;
then requests for the best 10 of all tracks, for 1 and for 256 histories at once. This project has been run on CPUs
only: nothing is claimed for a GPU, and whatever this prints is news.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
import torch

from sasrec_utils import training
from sasrec_utils.evaluation import top_k
from sasrec_utils.model import SASRec, SASRecConfig
from sasrec_utils.sequences import Batch, Sequences

BATCH, LENGTH, WARM, STEPS = 128, 100, 5, 20
LOSSES = {"softmax": 100_000, "sampled_softmax": 10_000_000, "bce": 10_000_000}  # and the most tracks for each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accelerator", default="cuda")
    parser.add_argument("--tracks", type=int, nargs="+", default=[10_000, 100_000, 2_262_292])
    parser.add_argument("--precision", nargs="+", default=["32-true", "bf16-mixed"])
    parser.add_argument("--steps", type=int, default=STEPS)
    args = parser.parse_args()
    if args.accelerator == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; --accelerator cpu shows that the script runs")
    print("| tracks | loss | precision | ms a step | targets/s | memory | waits a step | ms for 1 | ms for 256 |")
    print("|---|---|---|---|---|---|---|---|---|")
    for tracks in args.tracks:
        for loss, most in LOSSES.items():
            for precision in args.precision:
                if tracks <= most:
                    row = measure(tracks, loss, precision, args.accelerator, args.steps)
                    print(f"| {tracks:,} | {loss} | {precision} | " + " | ".join(row) + " |", flush=True)


def measure(tracks: int, loss: str, precision: str, accelerator: str, steps: int) -> list[str]:
    rng = np.random.default_rng(0)
    model = SASRec(SASRecConfig(tracks, 128, heads=4, max_len=LENGTH, positions="relative"))
    plan = training.TrainConfig(
        loss, batch_size=BATCH, unseen_only="softmax" in loss, accelerator=accelerator, precision=precision
    )
    items = rng.integers(1, tracks + 1, 500_000).astype(np.int32)
    seqs = Sequences(items, np.arange(0, 500_001, 100))
    run = training._set_up(model, seqs, seqs.take(np.arange(10)), plan)
    run.objective.train()
    on_gpu = accelerator == "cuda"

    def step() -> None:
        window = items[rng.integers(0, len(items) - LENGTH - 1, BATCH)[:, None] + np.arange(LENGTH + 1)]
        training._step(run, Batch(window[:, :-1].astype(np.int64), window[:, 1:].astype(np.int64)), 1e-3)

    for _ in range(min(WARM, steps)):
        step()
    waits = float("nan")
    if on_gpu:  # torch warns of each operation that waits for the device
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
        waits = sum("synchroniz" in str(warning.message) for warning in caught)
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.reset_peak_memory_stats()
    began = now(on_gpu)
    for _ in range(steps):
        step()
    seconds = (now(on_gpu) - began) / steps
    memory = f"{torch.cuda.max_memory_allocated() / 2**30:.2f} GB" if on_gpu else ""
    model.eval()
    model.keep_table()
    asked = [request(model, seqs.take(np.arange(rows)), on_gpu) for rows in (1, 256)]
    speed = f"{BATCH * LENGTH / seconds:,.0f}"
    return [f"{1000 * seconds:.1f}", speed, memory, f"{waits:.0f}", *(f"{1000 * s:.1f}" for s in asked)]


def request(model: SASRec, histories: Sequences, on_gpu: bool) -> float:
    times = []
    for _ in range(5):
        began = now(on_gpu)
        top_k(model.score(histories), 10, histories)
        times.append(now(on_gpu) - began)
    return float(np.median(times))


def now(on_gpu: bool) -> float:
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
