"""How many real targets a second one training step gets through, against peers at the same architecture and loss.

    python benchmarks/training_speed.py                     # this project and the plain loop
    python benchmarks/training_speed.py --case huge         # the losses at 300,000 tracks
    python benchmarks/training_speed.py --rectools PYTHON   # and RecTools (a Python with benchmarks/requirements.txt)

Every line is a process of its own (its peak memory is its own, too). All of them: width 64, 2 blocks, 2 heads, dropout
0.2, batches of 128, the same made-up sequences: the lengths of a shop's customers ("short", 12 % of the padded
positions are real) or of playlists ("playlists", and "large" and "huge" with more tracks, this project only). Timings
depend on the machine, the ratios less so: compare the lines of one run. The plain loop is written as tutorials write
it: left padding to L, `nn.TransformerEncoder` with a causal and a padding mask, scores of all tracks at every
position, `F.cross_entropy(ignore_index=0)`. The lines after it switch on one change after the other until it is this
project's loop. Each loss has as many negatives as it takes by itself.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Case:
    """Made-up sequences: `mean` length of a LogNormal law with the given spread, cut to 3…L + 1."""

    tracks: int
    max_len: int
    mean: float
    spread: float
    users: int


CASES = {
    "short": Case(23_715, 50, 6.5, 0.75, 12_000),
    "playlists": Case(23_340, 100, 66.0, 0.85, 3_000),
    "large": Case(100_000, 100, 66.0, 0.85, 3_000),
    "huge": Case(300_000, 100, 66.0, 0.85, 8_000),
}
BATCH, DIM, BLOCKS, HEADS, DROPOUT = 128, 64, 2, 2, 0.2
LADDER = ("plain", "+ loss at real targets only", "+ batches of similar length", "+ fused Adam", "+ chunked softmax")


def sequences(case: Case):
    from sasrec_utils.sequences import Sequences

    rng = np.random.default_rng(0)
    length = np.round(rng.lognormal(np.log(case.mean) - case.spread**2 / 2, case.spread, case.users))
    length = np.clip(length, 3, case.max_len + 1).astype(np.int64)
    items = 1 + np.minimum(rng.zipf(1.3, length.sum()) - 1, rng.integers(0, case.tracks, length.sum()))
    items[rng.permutation(len(items))[: case.tracks]] = np.arange(1, case.tracks + 1)  # each occurs: peers count them
    return Sequences(items.astype(np.int32), np.concatenate([[0], np.cumsum(length)]))


# --- the plain loop, and the way from it to ours ----------------------------------------------------------------------


def left_padded(seqs, max_len: int, rng):
    """Batches as tutorials make them: shuffled, padded on the left to max_len."""
    order = rng.permutation(len(seqs))
    for first in range(0, len(order), BATCH):
        rows = order[first : first + BATCH]
        ids, targets = np.zeros((2, len(rows), max_len), dtype=np.int64)
        for b, u in enumerate(rows):
            s = seqs[u][-(max_len + 1) :]
            ids[b, max_len - len(s) + 1 :], targets[b, max_len - len(s) + 1 :] = s[:-1], s[1:]
        yield ids, targets


def plain_model(case: Case):
    import torch
    from torch import nn

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.item_emb = nn.Embedding(case.tracks + 1, DIM, padding_idx=0)
            self.pos_emb = nn.Embedding(case.max_len, DIM)
            layer = nn.TransformerEncoderLayer(DIM, HEADS, DIM, DROPOUT, batch_first=True, norm_first=True)
            self.encoder = nn.TransformerEncoder(layer, BLOCKS, norm=nn.LayerNorm(DIM), enable_nested_tensor=False)

        def forward(self, ids):
            L = ids.shape[1]
            x = self.item_emb(ids) + self.pos_emb.weight[:L]
            causal = torch.ones(L, L, dtype=torch.bool).triu(1)
            # a padded query must see something, or its softmax is NaN: it may see itself
            mask = (causal | (ids == 0)[:, None, :]) & ~torch.eye(L, dtype=torch.bool)
            return self.encoder(x, mask=mask.repeat_interleave(HEADS, 0))

    return Plain()


def steps(case: Case, variant: str, loss_name: str):
    """A generator of training steps: yields the number of real targets of each."""
    import torch
    import torch.nn.functional as F

    from sasrec_utils.losses import softmax_loss
    from sasrec_utils.model import SASRec, SASRecConfig
    from sasrec_utils.sequences import batches
    from sasrec_utils.training import Objective, TrainConfig

    torch.manual_seed(0)
    ours = variant.startswith("ours")
    seqs, rung = sequences(case), 9 if ours else LADDER.index(variant)
    shape = SASRecConfig(case.tracks, DIM, BLOCKS, HEADS, case.max_len, DROPOUT)
    model = SASRec(shape) if rung >= 2 else plain_model(case)
    scores = "float32" if "float32" in variant else "auto"
    objective = Objective(model, TrainConfig(loss=loss_name, scores=scores), seqs.items) if ours else None
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.98), fused=rung >= 3)
    rng = np.random.default_rng(1)
    while True:
        source = batches(seqs, case.max_len, BATCH, rng) if rung >= 2 else left_padded(seqs, case.max_len, rng)
        for ids, targets in source:
            ids, targets = torch.from_numpy(ids), torch.from_numpy(targets)
            real = targets > 0
            if ours:
                loss = objective(ids, targets)
            else:
                hidden, table = model(ids), model.item_emb.weight
                if loss_name == "bce":
                    drawn = torch.randint(1, case.tracks + 1, ids.shape)
                    own, other = (hidden * table[targets]).sum(-1), (hidden * table[drawn]).sum(-1)
                    loss = (F.softplus(-own) + F.softplus(other))[real].mean()
                elif rung >= 4:
                    loss = softmax_loss(hidden[real], targets[real], table)
                elif rung >= 1:
                    loss = F.cross_entropy(hidden[real] @ table.T, targets[real])
                else:
                    loss = F.cross_entropy((hidden @ table.T).flatten(0, 1), targets.flatten(), ignore_index=0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield int(real.sum())


def measure(case: Case, variant: str, loss_name: str, seconds: float) -> dict:
    run = steps(case, variant, loss_name)
    for _ in range(3):
        next(run)
    seen, count, began = 0, 0, time.perf_counter()
    while time.perf_counter() - began < seconds or count < 3:
        seen, count = seen + next(run), count + 1
    return {"targets_per_second": seen / (time.perf_counter() - began), "steps": count}


# --- RecTools, in a Python of its own ---------------------------------------------------------------------------------

RECTOOLS = """
import json, resource, sys, time, warnings
warnings.filterwarnings("ignore")
import numpy as np, pandas as pd, torch
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.item_net import IdEmbeddingsItemNet
from pytorch_lightning import Callback, Trainer
path, max_len, batch, dim, blocks, heads, dropout, loss, seconds, threads = json.loads(sys.argv[1])
torch.set_num_threads(threads)
z = np.load(path)
length = np.diff(z["offsets"])
user = np.repeat(np.arange(len(length)), length)
when = pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(len(user)), unit="s")
frame = pd.DataFrame({Columns.User: user, Columns.Item: z["items"], Columns.Weight: 1.0, Columns.Datetime: when})

class Clock(Callback):  # RecTools copies its trainer, so the figures belong to the class
    seen = steps = 0
    began = None
    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        Clock.steps += 1
        if Clock.steps == 3:
            Clock.began = time.perf_counter()
        elif Clock.steps > 3:
            Clock.seen += int((batch["y"] > 0).sum())
            if time.perf_counter() - Clock.began > seconds and Clock.steps >= 6:
                Clock.spent = time.perf_counter() - Clock.began
                trainer.should_stop = True
                trainer.limit_train_batches = 0
                raise KeyboardInterrupt

def trainer():
    return Trainer(max_epochs=100, accelerator="cpu", devices=1, enable_progress_bar=False, enable_model_summary=False,
                   logger=False, enable_checkpointing=False, callbacks=[Clock()])
model = SASRecModel(n_factors=dim, n_blocks=blocks, n_heads=heads, dropout_rate=dropout, session_max_len=max_len,
                    loss=loss, n_negatives=1, batch_size=batch, get_trainer_func=trainer, dataloader_num_workers=0,
                    train_min_user_interactions=2, item_net_block_types=(IdEmbeddingsItemNet,))
try:
    model.fit(Dataset.construct(frame))
except (KeyboardInterrupt, SystemExit):
    pass
print(json.dumps({"targets_per_second": Clock.seen / Clock.spent, "steps": Clock.steps - 3,
                  "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--rectools", metavar="PYTHON", help="a Python with benchmarks/requirements.txt installed")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        import torch

        torch.set_num_threads(args.threads)
        case, variant, loss = json.loads(args.one)
        result = measure(CASES[case], variant, loss, args.seconds)
        result["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps(result))
        return
    for case in args.case or ("short", "playlists"):
        c = CASES[case]
        seqs = sequences(c)
        real = np.minimum(seqs.lengths - 1, c.max_len).mean() / c.max_len
        print(f"\n{case}: {c.tracks:,} tracks, L = {c.max_len}, {real:.0%} of padded positions are real, ", end="")
        print(f"{args.threads} threads\n")
        print("| who | loss | targets/s | ratio | memory |\n|---|---|---|---|---|", flush=True)
        lines = [(variant, "softmax") for variant in (*LADDER, "ours, float32 scores", "ours")]
        lines += [("plain", "bce"), ("ours", "bce"), ("ours", "sampled_softmax"), ("ours", "gbce")]
        if case in ("large", "huge"):
            lines = [("ours", loss) for loss in ("softmax", "sampled_softmax", "gbce", "bce")]
        base = {}
        for variant, loss in lines:
            command = [sys.executable, __file__, "--one", json.dumps([case, variant, loss])]
            command += ["--seconds", str(args.seconds), "--threads", str(args.threads)]
            show(variant, loss, subprocess.run(command, capture_output=True, text=True), base)
        if args.rectools:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "s.npz"
                np.savez(path, items=seqs.items, offsets=seqs.offsets)
                shape = [str(path), c.max_len, BATCH, DIM, BLOCKS, HEADS, DROPOUT]
                for loss in ("softmax", "BCE"):
                    command = [args.rectools, "-c", RECTOOLS, json.dumps([*shape, loss, args.seconds, args.threads])]
                    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
                    show("RecTools", loss.lower(), done, base)


def show(who: str, loss: str, done: subprocess.CompletedProcess, base: dict) -> None:
    if done.returncode:
        print(f"| {who} | {loss} | failed: {done.stderr.strip().splitlines()[-1]} | | |", flush=True)
        return
    r = json.loads(done.stdout.strip().splitlines()[-1])
    base.setdefault(loss, r["targets_per_second"])
    speed = r["targets_per_second"]
    print(f"| {who} | {loss} | {speed:,.0f} | {speed / base[loss]:.1f} | {r['memory']:.2f} GB |", flush=True)


if __name__ == "__main__":
    main()
