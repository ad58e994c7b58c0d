"""What grows with the data, and what does not: seconds and memory at many sizes, as a table and as a CSV.

    python benchmarks/scale.py                                  everything up to 10 slices; some 10 minutes
    python benchmarks/scale.py --slices 1 10 100                and 100 slices; 20 GB of memory, some 10 minutes more
    python benchmarks/scale.py --only step --tracks 10000 100000

Each line is a process of its own, so its peak memory is its own, too. Lines already in the CSV are replaced, others
stay: parts can be measured one by one. Notebook 10 draws the CSV of this project, `notebooks/data/scale.csv`.

- step: one training step of the shape that `recipe` gives a big catalogue (width 128, 2 blocks, artists and albums), a
  batch of 128 windows of 64 tracks each; the median of some steps, with the full softmax, and with 16 negatives of each
  position's own with dense and with sparse tables. CPU seconds of one thread.
- topk: the 10 best of all tracks for one history and for 32, milliseconds: scores of all and one `topk`, or block by
  block.
- make-data, prepare, counting: made-up `mpd-like` slices, compact JSON; item-kNN and Markov fitted on their playlists.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

CSV = Path(__file__).parents[1] / "notebooks" / "data" / "scale.csv"
TRACKS = (10_000, 30_000, 100_000, 300_000, 1_000_000, 2_262_292)
WAYS = ("softmax", "dense", "sparse")
# Beyond these a step takes more than about 10 seconds or 12 GB.
MOST_TRACKS = {"softmax": 100_000, "dense": 1_000_000, "sparse": 10_000_000}
COLUMNS = ("part", "way", "size", "seconds", "gigabytes")


def step(way: str, tracks: int) -> float:
    """CPU seconds of one training step at this catalogue size, the median of a few."""
    import torch

    from sasrec_utils import training
    from sasrec_utils.model import SASRec, SASRecConfig
    from sasrec_utils.sequences import Batch, Sequences

    rng = np.random.default_rng(0)
    artists, albums = tracks // 8, tracks // 3
    shape = SASRecConfig(tracks, 128, heads=4, max_len=100, positions="relative", n_artists=artists, n_albums=albums)
    model = SASRec(shape, rng.integers(0, artists + 1, tracks + 1), rng.integers(0, albums + 1, tracks + 1))
    loss, tables = ("softmax", "dense") if way == "softmax" else ("sampled_softmax", way)
    plan = training.TrainConfig(loss, batch_size=128, unseen_only=True, tables=tables, accelerator="cpu")
    # Plays as in a catalogue with a long tail: a few tracks in every batch, most of them in none.
    items = 1 + np.minimum(rng.zipf(1.3, 1_000_000) - 1, rng.integers(0, tracks, 1_000_000))
    seqs = Sequences(items.astype(np.int32), np.arange(0, 1_000_001, 100))
    run = training._set_up(model, seqs, seqs.take(np.arange(10)), plan)
    run.objective.train()
    times = []
    for _ in range(9):
        rows = rng.integers(0, len(items) - 65, 128)[:, None] + np.arange(65)
        window = items[rows]
        began = time.process_time()  # of the one thread: what else the machine does counts little
        training._step(run, Batch(window[:, :-1], window[:, 1:]), 1e-3)
        times.append(time.process_time() - began)
        if sum(times) > 20 and len(times) > 2:
            break
    assert torch.get_num_threads() == 1
    return float(np.median(times[1:]))


def topk(way: str, tracks: int) -> float:
    """Seconds that the 10 best tracks take, from hidden states: `way` is "exact" or "blocks", and for how many."""
    import torch

    way, histories = way.split(", ")
    torch.manual_seed(0)
    table, hidden = torch.randn(tracks + 1, 128), torch.randn(int(histories), 128)
    times = []
    for _ in range(12):
        began = time.perf_counter()
        if way == "exact":
            (hidden @ table.T).topk(10)
        else:
            best = [(hidden @ part.T).topk(10) for part in table.split(1 << 16)]
            ids = torch.cat([found.indices + (i << 16) for i, found in enumerate(best)], 1)
            ids.gather(1, torch.cat([found.values for found in best], 1).topk(10).indices)
        times.append(time.perf_counter() - began)
    return float(np.median(times[2:]))


def make_data(folder: Path, slices: int) -> float:
    from dataclasses import replace

    from sasrec_utils.world import PRESETS, World, write_slices

    began = time.perf_counter()
    write_slices(World(replace(PRESETS["mpd-like"], indent=False)), folder / "raw", 1_000 * slices)
    return time.perf_counter() - began


def prepared(folder: Path, slices: int) -> float:
    from sasrec_utils.mpd import prepare

    began = time.perf_counter()
    prepare(folder / "raw", folder / "prepared", progress=False)
    return time.perf_counter() - began


def counting(folder: Path, slices: int) -> float:
    from sasrec_utils.baselines import ItemKNN, Markov
    from sasrec_utils.sequences import load_dataset

    data = load_dataset(next((folder / "prepared").glob("[0-9a-f]*")), valid=100, test=100)
    began = time.perf_counter()
    Markov.fit(data.train, data.vocabulary.n_items)
    ItemKNN.fit(data.train, data.vocabulary.n_items)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=("step", "topk", "data"), default=["step", "topk", "data"])
    parser.add_argument("--tracks", type=int, nargs="+", default=TRACKS)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--slices", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--csv", type=Path, default=CSV)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        run_one(*json.loads(args.one))
        return
    print("| what | way | size | seconds | memory |\n|---|---|---|---|---|")
    if "step" in args.only:
        for way in args.ways:
            for tracks in args.tracks:
                if tracks <= MOST_TRACKS[way]:
                    measure(args.csv, "step", way, tracks)
    if "topk" in args.only:
        for way in ("exact, 1", "blocks, 1", "exact, 32", "blocks, 32"):
            measure(args.csv, "topk", way, TRACKS[-1])
    for slices in args.slices if "data" in args.only else ():
        with tempfile.TemporaryDirectory() as folder:
            for part in ("make-data", "prepare", "counting"):
                measure(args.csv, part, "", slices, folder)


def run_one(part: str, way: str, size: int, folder: str) -> None:
    """Measure in this process, and print it."""
    if part in ("step", "topk"):
        seconds = (step if part == "step" else topk)(way, size)
    else:
        work = {"make-data": make_data, "prepare": prepared, "counting": counting}[part]
        seconds = work(Path(folder), size)
    # Of this process and, for `prepare`, of the largest of those that it starts.
    peak = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(json.dumps([seconds, peak / (2**30 if sys.platform == "darwin" else 2**20)]))


def measure(path: Path, part: str, way: str, size: int, folder: str = "") -> None:
    command = [sys.executable, __file__, "--one", json.dumps([part, way, size, folder])]
    environment = os.environ | ({"OMP_NUM_THREADS": "1"} if part == "step" else {})
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        print(f"| {part} | {way} | {size:,} | failed: {(done.stderr.strip().splitlines() or ['killed'])[-1]} | |")
        return
    seconds, memory = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"| {part} | {way} | {size:,} | {seconds:.3f} | {memory:.2f} GB |", flush=True)
    row = pd.DataFrame([[part, way, size, round(seconds, 4), round(memory, 3)]], columns=COLUMNS)
    if path.exists():
        old = pd.read_csv(path, keep_default_na=False)
        same = (old["part"] == part) & (old["way"] == way) & (old["size"] == size)
        row = pd.concat([old[~same], row]).sort_values(["part", "way", "size"], kind="stable")
    path.parent.mkdir(parents=True, exist_ok=True)
    row.to_csv(path, index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
