"""The training loop in plain sight, and its history.

`fit` trains a SASRec on playlists, watches NDCG@10 on validation playlists after every epoch, keeps the best weights
and stops when nothing improves any more. Lightning Fabric chooses device and precision and, under `torchrun`, spreads
the same loop over several processes. What it leaves on disk is in `checkpoints`. Taught in notebook 05.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from scipy.optimize import brentq
from scipy.special import expit
from torch import Tensor, nn
from tqdm.auto import tqdm

from sasrec_utils.checkpoints import (
    CheckpointError,
    RunState,
    load,
    load_weights,
    read_run,
    save,
    write_bytes,
    write_run,
    writing,
)
from sasrec_utils.evaluation import ndcg_at, ranks, recall_at
from sasrec_utils.evaluation.ranking import score_batches, seen_pairs
from sasrec_utils.losses import softmax_loss, unseen_softmax_loss
from sasrec_utils.model import SASRec, SASRecConfig
from sasrec_utils.objective import Objective, half_scores
from sasrec_utils.optimizer import make_optimizer, set_sparse
from sasrec_utils.sequences import Batch, Sequences, batches, leave_last_out, windows
from sasrec_utils.vectors import count_vectors

__all__ = ["CheckpointError", "Objective", "TrainConfig", "fit", "load", "recipe", "save"]

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it would tell the precision, as our headline does

# How many negatives each position gets: none needed by the softmax, the paper's one, and as many as were measured to
# come near the softmax (notebook 05 §7).
NEGATIVES = {"softmax": 0, "sampled_softmax": 16, "bce": 1, "gbce": 16}
LOSSES = tuple(NEGATIVES)
FULL_SOFTMAX = 100_000  # tracks; beyond it a step over all of them takes longer than the rest together
DENSE_TABLES = 100_000  # tracks; beyond it most of a step would be spent on rows that it has not used
FEW_ROWS = 600_000  # that a run with few plays should see: on LastFM NDCG@10 .034 after 3 epochs, .048 after 12
FEW_PLAYS = 150  # of a track, on average: below, tables over-fit. On 4,000 teaching playlists (110 plays a track) the
# recipe for few plays has a validation NDCG@10 of .202 after 22 s, the one for many .182 after 65 s.
VALID_PLAYLISTS = 10_000  # at most that many judge an epoch: enough for NDCG@10 to a few thousandths
LIFT_PLAYLISTS = 2_000  # at most that many say how often a newcomer is next
VALID_SCORES = 1 << 32  # at most that many scores for their loss, and as many for their ranks: a minute at any size


@dataclass(frozen=True)
class TrainConfig:
    """How to train. `epochs` is the length of the learning-rate schedule: warm-up, then a cosine down to `final_lr`.

    `negatives`: how many tracks a loss other than the softmax draws for each position, None for as many as it needs
    (`NEGATIVES`). `unseen_only`: in the two softmax losses, tracks that the playlist has shown are no candidates (BCE
    and gBCE do not draw them anyway). `patience`: epochs without a better validation NDCG@10 before it stops.
    `precision`: as Fabric names it; "auto" is bf16-mixed on CUDA and 32-true elsewhere. `scores`: what the full softmax
    keeps its scores in on a CPU, "float32", "bfloat16", or "auto": bfloat16 if the CPU has it and the catalogue is
    large enough to gain. Raises ValueError for settings that cannot be.

    `warmup_steps` are at most a tenth of the run. `table_decay`: how much of itself a table loses at each step, times
    its learning rate (AdamW). `tables`: "dense", where each step passes over all rows of all tables, or "sparse", over
    those that it has used (`optimizer.RowAdamW`; not with the full softmax, which uses all), or "auto": sparse above
    `DENSE_TABLES` tracks. `start`: what the track tables start from, "noise" or "counts" (`vectors.count_vectors`).
    """

    loss: str = "softmax"
    epochs: int = 20
    batch_size: int = 128
    lr: float = 3e-3
    table_lr: float = 8.0  # times lr, for embedding tables
    distance_lr: float = 10.0  # times lr, for the weights of distances (relative positions)
    final_lr: float = 0.02  # of lr
    warmup_steps: int = 100
    table_decay: float = 0.0
    tables: str = "auto"
    start: str = "noise"
    patience: int = 5
    negatives: int | None = None
    unseen_only: bool = False
    seed: int = 0
    accelerator: str = "auto"
    precision: str = "auto"
    scores: str = "auto"

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {self.loss!r}")
        if self.scores not in ("auto", "float32", "bfloat16"):
            raise ValueError(f"scores must be auto, float32 or bfloat16, got {self.scores!r}")
        if self.tables not in ("auto", "dense", "sparse"):
            raise ValueError(f"tables must be auto, dense or sparse, got {self.tables!r}")
        if self.tables == "sparse" and self.loss == "softmax":
            raise ValueError("tables cannot be sparse with the full softmax, which uses every row at every step")
        for name in ("epochs", "batch_size", "negatives", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name in ("lr", "table_lr", "distance_lr"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")
        if not 0 <= self.final_lr <= 1:
            raise ValueError(f"final_lr is a share of lr, from 0 to 1, got {self.final_lr}")
        if not 0 <= self.table_decay < math.inf:
            raise ValueError(f"table_decay must not be negative, got {self.table_decay}")
        if self.start not in ("noise", "counts"):
            raise ValueError(f"start must be noise or counts, got {self.start!r}")
        if not 0 <= self.warmup_steps < math.inf:
            raise ValueError(f"warmup_steps must not be negative, got {self.warmup_steps}")
        if not 0 <= self.seed < 1 << 32:
            raise ValueError(f"seed must be from 0 to {(1 << 32) - 1}, got {self.seed}")

    @property
    def own_negatives(self) -> int:
        """How many tracks are drawn for each position: `negatives`, or what the loss needs."""
        return NEGATIVES[self.loss] if self.negatives is None else self.negatives

    def sparse(self, n_items: int) -> bool:
        """Whether the tables of a model of so many tracks get sparse gradients."""
        if self.tables == "auto":
            return self.loss != "softmax" and n_items > DENSE_TABLES
        return self.tables == "sparse"


def recipe(
    shape: str, n_items: int, n_artists: int = 0, n_albums: int = 0, n_rows: int | None = None
) -> tuple[SASRecConfig, TrainConfig]:
    """Settings that were measured to work, by name: "paper" (absolute positions, track ids only) or "best".

    `n_rows`: known tracks in all training playlists together. With few plays for each track (`FEW_PLAYS`) tables learn
    by heart what does not come again: "best" is then narrower, its tables start from counts and learn slowly, with more
    dropout, and with artists or albums it has a pointer to those of the history. With many plays a pointer learns
    faster, but ends no better, and each step takes half as long again. Without `n_rows` plays are taken to be many.

    Above `FULL_SOFTMAX` tracks the loss is the sampled softmax, with 16 negatives of its own for each position. The
    full softmax compares every position with every track, and Adam passes over all tables; here a step takes the same
    time at any number of tracks. One table serves input and output, which takes half the memory and, with a few plays
    for each track, learned more (`benchmarks/sparse_tables.py`).
    """
    if shape not in ("paper", "best"):
        raise ValueError(f"shape must be best or paper, got {shape!r}")
    large = n_items > FULL_SOFTMAX
    model = SASRecConfig(n_items, dim=128, heads=4, max_len=100, dropout=0.2)
    plan = TrainConfig(epochs=8, batch_size=64, lr=5e-3, table_lr=5.0, unseen_only=True)
    if shape == "best":
        features = {"n_artists": n_artists, "n_albums": n_albums}
        model = replace(model, dropout=0.25, positions="relative", tied=large, **features)
        plan = replace(plan, epochs=6)
        if n_rows is not None and n_rows < FEW_PLAYS * n_items and not large:
            model = replace(model, dim=64, heads=2, max_len=50, dropout=0.5, pointer=bool(n_artists or n_albums))
            # As many steps whatever there is to learn from: three epochs of 1,000 playlists are 40, too few to get off.
            epochs = min(max(round(FEW_ROWS / max(1, n_rows)), 3), 12)
            plan = replace(plan, epochs=epochs, lr=3e-3, table_lr=0.5, start="counts")
    if large:
        plan = replace(plan, loss="sampled_softmax", batch_size=128)
    return model, plan


def fit(
    model: SASRec,
    train: Sequences,
    valid: Sequences,
    config: TrainConfig = TrainConfig(),
    directory: str | os.PathLike | None = None,
    resume: bool = False,
    progress: bool = True,
    extra: dict | None = None,
    after_epoch: Callable[[pd.DataFrame], None] | None = None,
) -> pd.DataFrame:
    """Train `model` in place and return its history, one row per epoch; the model ends with its best weights.

    `train`, `valid`: whole playlists in model ids. Tracks that the model does not know (ids above N) are left out of
    the training inputs; `validate` says what the validation playlists are used for. With `directory` the best weights
    are saved there as they appear (`save`), with `history.csv` and, after every epoch, all that a later call with
    `resume=True` needs to go on: it ends with the same weights as a run that was never stopped. `extra` goes into
    `config.json`. `after_epoch` is called with the history so far when an epoch is over and saved, for instance to
    draw it. Raises ValueError if there is nothing to train on or to validate with, CheckpointError if the run in
    `directory` cannot be continued or another process trains into it.
    """
    run = _set_up(model, train, valid, config)
    keeper = _Keeper(run, directory, extra or {})
    loud = progress and run.fabric.is_global_zero
    if loud:
        print(_headline(run, len(valid)), file=sys.stderr)
    with keeper.lock():
        state = keeper.start(resume)
        done = len(state.history)
        total = config.epochs * run.n_batches
        with tqdm(total=total, initial=done * run.n_batches, unit="batch", disable=not loud) as bar:
            for epoch in range(done + 1, config.epochs + 1):
                if epoch - 1 - state.best_epoch >= config.patience:
                    break
                row = _epoch(run, epoch, bar)
                lift_newcomers(model, run.histories, run.targets)
                row |= validate(model, run.valid, run.histories, run.targets, config.unseen_only)
                state.history.append(row)
                bar.set_postfix_str(f"loss {row['train_loss']:.3f}, valid NDCG@10 {row['valid_ndcg@10']:.4f}")
                if row["valid_ndcg@10"] > state.best:
                    state.best, state.best_epoch = row["valid_ndcg@10"], epoch
                keeper.keep(state)
                if after_epoch is not None and run.fabric.is_global_zero:
                    after_epoch(pd.DataFrame(state.history))
                run.fabric.barrier()
        keeper.restore()
    set_sparse(model, False)  # as it came
    model.eval()
    return pd.DataFrame(state.history)


@dataclass
class _Run:
    """What the steps of one call of `fit` work with."""

    model: SASRec
    config: TrainConfig
    fabric: Fabric
    objective: nn.Module  # as Fabric wraps it
    optimizer: torch.optim.Optimizer
    known: Sequences  # the training playlists without unknown tracks
    n_batches: int  # of an epoch
    valid: Sequences  # the playlists that judge an epoch
    histories: Sequences  # of these
    targets: np.ndarray


def _set_up(model: SASRec, train: Sequences, valid: Sequences, config: TrainConfig) -> _Run:
    train, valid = (_titled_for(model, seqs) for seqs in (train, valid))
    known = train.keep(train.items <= model.config.n_known)
    n_batches = -(-len(windows(known, model.window)[0]) // config.batch_size)
    if n_batches == 0:
        raise ValueError("nothing to train on: no training playlist holds two known tracks")
    valid = _judges(valid, model.n_items)
    histories, targets = leave_last_out(valid)
    if not ((targets > 0) & (targets <= model.n_items)).any():
        raise ValueError("nothing to choose the best epoch by: no validation playlist ends with a known track")
    model.count(torch.from_numpy(np.bincount(known.items, minlength=model.n_items + 1)))
    if config.start == "counts":
        model.start_from(count_vectors(known, model.config.n_known, model.config.dim))
    fabric = _fabric(config)
    torch.manual_seed(config.seed)
    objective = Objective(model, config, known.items)
    objective, optimizer = fabric.setup(objective, make_optimizer(objective, config))
    return _Run(model, config, fabric, objective, optimizer, known, n_batches, valid, histories, targets)


def _titled_for(model: SASRec, seqs: Sequences) -> Sequences:
    """The playlists with titles, none where there are none, for a model that reads titles, else without."""
    if not model.config.n_words:
        return replace(seqs, titles=None)
    return replace(seqs, titles=seqs.titles or Sequences.from_lists([[]] * len(seqs)))


def _judges(valid: Sequences, n_items: int) -> Sequences:
    """The playlists that judge an epoch: all, or as many, drawn once and for all, as the catalogue leaves time for."""
    most = max(1, min(VALID_PLAYLISTS, VALID_SCORES // (n_items + 1)))
    if len(valid) <= most:
        return valid
    return valid.take(np.sort(np.random.default_rng(0).choice(len(valid), most, replace=False)))


def _epoch(run: _Run, epoch: int, bar: tqdm) -> dict[str, float]:
    """One pass over the training playlists; what it did, as the first part of a row of the history."""
    config, fabric = run.config, run.fabric
    total = config.epochs * run.n_batches
    begin, seen, summed = time.perf_counter(), 0, 0.0
    # Every epoch starts from its own seeds: the order of batches and the dropout of epoch 7 do not depend on whether
    # epochs 1 to 6 ran in this process, so a resumed run repeats the uninterrupted one.
    torch.manual_seed((config.seed << 16) + epoch * fabric.world_size + fabric.global_rank)
    rng = np.random.default_rng([config.seed, epoch])
    run.objective.train()
    for index, batch in enumerate(batches(run.known, run.model.config.max_len, config.batch_size, rng)):
        rate = config.lr * _schedule((epoch - 1) * run.n_batches + index, total, config)
        loss = _step(run, batch, rate)
        if not math.isfinite(loss):
            raise ValueError(f"the loss became {loss} in epoch {epoch}: use a learning rate below {config.lr:g}")
        count = np.count_nonzero(batch.targets)
        seen, summed = seen + count, summed + loss * count
        bar.update()
    seconds = time.perf_counter() - begin
    if fabric.world_size > 1:
        summed = fabric.all_reduce(torch.tensor(summed, dtype=torch.float64), reduce_op="mean").item()
    return {
        "epoch": epoch,
        "step": epoch * run.n_batches,
        "seconds": round(seconds, 3),
        "targets_per_second": round(seen / seconds),
        "lr": config.lr * _schedule(epoch * run.n_batches - 1, total, config),
        "train_loss": summed / seen,
    }


def _step(run: _Run, batch: Batch, rate: float) -> float:
    """One step of the optimiser at learning rate `rate`; the loss of the batch. No step is made if it is not finite."""
    fabric = run.fabric
    for group in run.optimizer.param_groups:
        group["lr"] = rate * group["times"]
    # A last batch with fewer windows than processes: the others take its first window and give it no weight.
    first = fabric.global_rank if fabric.global_rank < len(batch.ids) else 0
    parts = [torch.from_numpy(part[first :: fabric.world_size]) for part in batch]
    if fabric.device.type == "cuda":  # from other memory a copy makes the host wait, whatever `non_blocking` says
        parts = [part.pin_memory() for part in parts]
    parts = [part.to(fabric.device, non_blocking=True) for part in parts]  # ids, targets and, where read, titles
    # Each process weighs its share of the batch by the real targets in it: together that is the batch's mean.
    own = np.count_nonzero(batch.targets[fabric.global_rank :: fabric.world_size])
    loss = run.objective(*parts) * (own / np.count_nonzero(batch.targets) * fabric.world_size)
    value = loss.item()
    if math.isfinite(value):
        run.optimizer.zero_grad()
        fabric.backward(loss)
        run.optimizer.step()
    return value


class _Keeper:
    """Keeps the best weights, and what a run needs to go on: in a folder, or, without one, the weights in memory."""

    def __init__(self, run: _Run, directory: str | os.PathLike | None, extra: dict):
        self.run = run
        self.directory = None if directory is None else Path(directory)
        self.extra = {**extra, "training": asdict(run.config)}
        self.weights: dict[str, Tensor] = {}

    def lock(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext() if self.directory is None else writing(self.directory)

    def start(self, resume: bool) -> RunState:
        """Where the run in the folder stands, loaded if it is to go on; else a new one."""
        new = RunState(history=[], best=-math.inf, best_epoch=0)
        if self.directory is None:
            return new
        self.settings = {**asdict(self.run.config), "playlists": _fingerprint(self.run)}
        file = self.directory / "resume.safetensors"
        if resume and file.exists():
            return read_run(self.directory, self.run.model, self.run.optimizer, self.settings, self.extra)
        if self.run.fabric.is_global_zero:
            file.unlink(missing_ok=True)  # of another run
        return new

    def keep(self, state: RunState) -> None:
        """Called after every epoch."""
        is_best = state.best_epoch == len(state.history)
        if self.directory is None:
            if is_best:
                self.weights = {name: value.clone() for name, value in self.run.model.state_dict().items()}
        elif self.run.fabric.is_global_zero:
            # The state comes last: after a kill in between, this epoch is repeated and writes the same files again.
            if is_best:
                save(self.directory, self.run.model, {**self.extra, "best_epoch": state.best_epoch})
            history = pd.DataFrame(state.history).to_csv(index=False, lineterminator="\n")
            write_bytes(self.directory / "history.csv", history.encode())
            write_run(self.directory, self.run.model, self.run.optimizer, self.settings, state)

    def restore(self) -> None:
        """Give the model its best weights; the folder's go from process 0 to the others."""
        if self.directory is None:
            self.run.model.load_state_dict(self.weights)
            return
        if self.run.fabric.is_global_zero:
            load_weights(self.directory, self.run.model)
        if self.run.fabric.world_size > 1:
            for value in self.run.model.state_dict().values():
                torch.distributed.broadcast(value, src=0)


def _fingerprint(run: _Run) -> str:
    """Of all that a run learns from: playlists and artists. A run that goes on must have the same."""
    digest = hashlib.blake2b(digest_size=8)
    for seqs in (run.known, run.valid):
        digest.update(np.ascontiguousarray(seqs.items).data)
        digest.update(np.ascontiguousarray(seqs.offsets).data)
        if seqs.titles is not None:
            digest.update(np.ascontiguousarray(seqs.titles.items).data)
    for name, ids in run.model.named_buffers():
        if name != "lift":  # which is learned
            digest.update(ids.cpu().numpy().data)
    return digest.hexdigest()


@torch.inference_mode()
def validate(
    model: SASRec, valid: Sequences, histories: Sequences, targets: np.ndarray, unseen_only: bool = False
) -> dict[str, float]:
    """Softmax loss over the known tracks of the playlists `valid` (nats), and metrics of each one's last track.

    With `unseen_only` the loss is that of `unseen_softmax_loss`, for models that were trained with it. Where a score of
    all tracks at all positions would be more than `VALID_SCORES`, the loss is that of a sample of the positions, always
    the same ones.
    """
    model.eval()
    valid = _titled_for(model, valid)
    known = valid.keep(valid.items <= model.config.n_known)
    device = model.item_emb.weight.device
    share = VALID_SCORES / (model.n_items + 1) / max(1, int(np.maximum(known.lengths - 1, 0).sum()))
    rng = np.random.default_rng(0)
    summed, count = 0.0, 0
    with _one_table(model) as table:
        for batch in batches(known, model.config.max_len, 256):
            ids, y, *titles = (torch.from_numpy(part).to(device) for part in batch)
            if share < 1:
                y[torch.from_numpy(rng.random(y.shape) >= share).to(device)] = 0
            real = y > 0
            if not real.any():
                continue
            hidden = model(ids, titles=titles[0] if titles else None)
            if unseen_only:
                loss = unseen_softmax_loss(
                    hidden, ids, y, table[: model.config.n_known + 1], pointed=model.pointed(hidden, ids, y)
                )
            else:
                loss = softmax_loss(hidden[real], y[real], table[: model.config.n_known + 1])
            summed, count = summed + loss.item() * int(real.sum()), count + int(real.sum())
        found = ranks(model, histories, targets)
    return {
        "valid_loss": summed / max(count, 1),
        "valid_recall@10": float(recall_at(found, 10).mean()) if (found > 0).any() else 0.0,
        "valid_ndcg@10": float(ndcg_at(found, 10).mean()) if (found > 0).any() else 0.0,
    }


@torch.inference_mode()
def lift_newcomers(model: SASRec, histories: Sequences, targets: np.ndarray) -> None:
    """Set by how much newcomers are lifted, so that they are next as often as they are on these validation playlists.

    Training has nothing to say on that: what it does not know is never next there. How much all newcomers together
    should get is one number, and the validation playlists tell it: `lift` is that for which the mean probability of
    "a newcomer" over these playlists is the share of newcomers among their targets, which is where the likelihood of
    "a newcomer or not" is highest. Without newcomers nothing happens.
    """
    if not model.config.n_new:
        return
    model.eval()
    model.lift.zero_()
    some = np.flatnonzero((targets > 0) & (targets <= model.n_items))[:LIFT_PLAYLISTS]
    histories, new = histories.take(some), targets[some] > model.config.n_known
    share = (new.sum() + 0.5) / (len(new) + 1)  # never quite none of them, never all
    for _ in range(4 if model.config.pointer else 1):  # what points at newcomers is not lifted: step by step then
        odds = _newcomer_odds(model, histories)
        model.lift += brentq(lambda more, odds=odds: expit(odds + more).mean() - share, -60.0, 60.0)
        model.lift.clamp_(-20.0, 20.0)


def _newcomer_odds(model: SASRec, histories: Sequences) -> np.ndarray:
    """log P(a newcomer is next) / P(a known track is), float64 [U]."""
    first, odds = model.config.n_known + 1, []
    with model.unchanged():
        for _, part, scores in score_batches(model, histories, 256):
            scores[:, 0] = -np.inf
            scores[seen_pairs(part, model.n_items)] = -np.inf
            scores = torch.from_numpy(scores)
            odds.append(scores[:, first:].logsumexp(1) - scores[:, :first].logsumexp(1))
    return torch.cat(odds).double().clamp(-50, 50).numpy()


@contextlib.contextmanager
def _one_table(model: SASRec) -> Iterator[Tensor]:
    """Let all that the model scores meanwhile share one `table()`: at a million tracks it takes seconds to make."""
    before = model._kept_table
    model._kept_table = model.table()
    try:
        yield model._kept_table
    finally:
        model._kept_table = before


def _schedule(step: int, total: int, config: TrainConfig) -> float:
    """Share of the learning rate at this step: a straight climb, then a cosine down to `final_lr`."""
    climb = min(1.0, (step + 1) / max(1, min(config.warmup_steps, total // 10)))
    fall = config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * step / total))
    return climb * fall


def _fabric(config: TrainConfig) -> Fabric:
    """Device and precision. Under `torchrun` one process per device, else a single device."""
    accelerator, precision = config.accelerator, config.precision
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if precision == "auto":
        precision = "bf16-mixed" if accelerator == "cuda" else "32-true"
    world = int(os.environ.get("WORLD_SIZE", 1))
    nodes = max(1, world // int(os.environ.get("LOCAL_WORLD_SIZE", world)))
    # All buffers stay as they are: sent at every step, as is the default, artists of 2.3 million tracks are 18 MB.
    strategy = DDPStrategy(broadcast_buffers=False) if world > 1 else "auto"
    try:
        fabric = Fabric(
            accelerator=accelerator,
            precision=precision,
            strategy=strategy,
            devices=world // nodes,
            num_nodes=nodes,
        )
    except (RuntimeError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ValueError(
            f"accelerator {accelerator!r} cannot be used on this machine with precision {precision!r} ({reason})"
        ) from error
    fabric.launch()
    if world > 1:
        # Fabric leaves NCCL's group at exit, but not gloo's: its threads then end a process with SIGABRT now and then.
        atexit.register(_leave_group)
    return fabric


def _leave_group() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _headline(run: _Run, n_valid: int) -> str:
    """What is trained, on what and how: one or two lines."""
    model, config, fabric = run.model, run.config, run.fabric
    precision = str(fabric._precision.precision)
    if config.loss == "softmax" and fabric.device.type == "cpu" and half_scores(config, model.n_items):
        precision += ", scores in bfloat16"
    lines = [
        f"training on {fabric.device} x {fabric.world_size} in {precision}: "
        f"{sum(p.numel() for p in model.parameters()):,} parameters, "
        f"{int(np.maximum(run.known.lengths - 1, 0).sum()):,} targets an epoch, "
        f"{config.loss} loss over {model.n_items:,} tracks"
    ]
    if len(run.valid) < n_valid:
        lines.append(f"each epoch is judged on {len(run.valid):,} of the {n_valid:,} validation playlists")
    return "\n".join(lines)
