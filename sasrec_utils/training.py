"""The training loop in plain sight, its history, and checkpoints that run no code.

`fit` trains a SASRec on playlists, watches NDCG@10 on validation playlists after every epoch, keeps the best weights and
stops when nothing improves any more. Lightning Fabric chooses device and precision and, under `torchrun`, spreads the
same loop over several processes. Taught in notebook 04.
"""

from __future__ import annotations

import csv
import json
import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from tqdm.auto import tqdm

from sasrec_utils.evaluation import ndcg_at, ranks, recall_at
from sasrec_utils.losses import (
    bce_loss,
    draw_negatives,
    fast_bfloat16,
    gbce_beta,
    gbce_loss,
    sampled_softmax_loss,
    softmax_loss,
    unseen_softmax_loss,
)
from sasrec_utils.model import SASRec, SASRecConfig
from sasrec_utils.sequences import Sequences, batches, leave_last_out, windows

__all__ = ["CheckpointError", "Objective", "TrainConfig", "fit", "load", "recipe", "save"]

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it would tell the precision, as our headline does

LOSSES = ("softmax", "sampled_softmax", "bce", "gbce")
FORMAT = 1  # of a checkpoint
HALF_SOFTMAX = 8_000  # tracks; from here on bfloat16 scores save time
FULL_SOFTMAX = 100_000  # tracks; beyond it a step over all of them takes longer than the rest together


class CheckpointError(ValueError):
    """A model directory that cannot be used: what is wrong, in which file, and what to do."""


@dataclass(frozen=True)
class TrainConfig:
    """How to train. `epochs` is the length of the learning-rate schedule: warm-up, then a cosine down to `final_lr`.

    `negatives`: how many each loss draws (of its own for each position in bce, shared by the batch in gbce and
    sampled_softmax). `patience`: epochs without a better validation NDCG@10 before it stops. `precision`: as Fabric
    names it; "auto" is bf16-mixed on CUDA and 32-true elsewhere. `scores`: what the full softmax keeps its scores in on
    a CPU, "float32", "bfloat16", or "auto": bfloat16 if the CPU has it and the catalogue is large enough to gain. Raises ValueError for settings that cannot be.
    """

    loss: str = "softmax"
    epochs: int = 20
    batch_size: int = 128
    lr: float = 3e-3
    table_lr: float = 8.0  # times lr, for embedding tables
    distance_lr: float = 10.0  # times lr, for the weights of distances (relative positions)
    final_lr: float = 0.02  # of lr
    warmup_steps: int = 100
    patience: int = 5
    negatives: int = 1
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
        for name in ("epochs", "batch_size", "negatives", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.lr > 0:
            raise ValueError(f"lr must be positive, got {self.lr}")
        if not 0 <= self.seed < 1 << 32:
            raise ValueError(f"seed must be from 0 to {(1 << 32) - 1}, got {self.seed}")


def recipe(shape: str, n_items: int, n_artists: int = 0, n_albums: int = 0) -> tuple[SASRecConfig, TrainConfig]:
    """Settings that were measured to work, by name: "paper" (absolute positions, track ids only) or "best".

    Above `FULL_SOFTMAX` tracks the loss is the sampled softmax, whose cost does not grow with the catalogue.
    """
    if shape not in ("paper", "best"):
        raise ValueError(f"shape must be best or paper, got {shape!r}")
    model = SASRecConfig(n_items, dim=128, heads=4, max_len=100, dropout=0.2)
    plan = TrainConfig(epochs=8, batch_size=64, lr=5e-3, table_lr=5.0, unseen_only=True)
    if shape == "best":
        features = {"n_artists": n_artists, "n_albums": n_albums}
        model = replace(model, dropout=0.25, positions="relative", tied=False, **features)
        plan = replace(plan, epochs=6)
    if n_items > FULL_SOFTMAX:
        plan = replace(plan, loss="sampled_softmax", negatives=4096, batch_size=128)
    return model, plan


class Objective(nn.Module):
    """The model with its loss: `forward(ids, targets)` is the mean loss over the real targets of a batch.

    One module, so that precision and data parallelism reach the loss too. Taught in notebook 04 §2 and §7.
    """

    def __init__(self, model: SASRec, config: TrainConfig):
        super().__init__()
        self.model, self.config = model, config
        self.half = config.scores == "bfloat16"
        if config.scores == "auto":
            self.half = model.n_items >= HALF_SOFTMAX and fast_bfloat16()
        if config.loss == "sampled_softmax":
            # Model ids are in order of popularity, so the log-uniform law is close to how often tracks are played.
            ids = torch.arange(1, model.n_items + 1, dtype=torch.float64)
            q = torch.log1p(1 / ids) / math.log(model.n_items + 1)
            self.register_buffer("log_q", torch.cat([torch.zeros(1), q.log().float()]), persistent=False)

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        model, c = self.model, self.config
        real = targets > 0
        hidden = model(ids)
        half = self.half and hidden.device.type == "cpu"
        if c.loss == "softmax" and c.unseen_only:
            return unseen_softmax_loss(hidden, ids, targets, model.table(), half)
        hidden, y = hidden[real], targets[real]  # [T, D], [T]: nothing below is computed for padding
        if c.loss == "softmax":
            return softmax_loss(hidden, y, model.table(), half)
        if c.loss == "sampled_softmax":
            # float64, so on the CPU: the 24 random bits of a float32 never reach a seventh of two million tracks.
            u = torch.rand(c.negatives, dtype=torch.float64)
            drawn = ((model.n_items + 1.0) ** u).long().clamp(1, model.n_items).to(ids.device)
            return sampled_softmax_loss(hidden, y, *self._vectors(y, drawn), drawn, self.log_q)
        if c.loss == "bce":
            drawn = draw_negatives(ids, targets, model.n_items, c.negatives)[real]  # [T, k]
            return bce_loss(hidden, *self._vectors(y, drawn))
        drawn = torch.randint(1, model.n_items + 1, (c.negatives,), device=ids.device)
        beta = gbce_beta(model.n_items, c.negatives)
        return gbce_loss(hidden, *self._vectors(y, drawn), beta, same=y[:, None] == drawn)

    def _vectors(self, y: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """The scoring vectors of targets and negatives, [*y.shape, D] and [*drawn.shape, D].

        In one look-up: the gradient of each look-up is a whole table of its own.
        """
        rows = self.model.score_embed(torch.cat([y, drawn.flatten()]))
        positive, negative = rows.split([y.numel(), drawn.numel()])
        return positive, negative.view(*drawn.shape, -1)


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

    `train`, `valid`: whole playlists in model ids. Tracks that the model does not know (ids above N) are left out of the
    training inputs; of the validation playlists the last track is the target for NDCG@10 and Recall@10, and all known
    tracks give the validation loss (full softmax, in nats). With `directory` the best weights are saved there as they
    appear (`save`), with `history.csv` and, after every epoch, all that a later call with `resume=True` needs to go on:
    it ends with the same weights as a run that was never stopped. `extra` goes into `config.json`. `after_epoch`
    is called with the history so far when an epoch is over and saved, for instance to draw it. Raises ValueError if there
    is nothing to train on or to validate with, CheckpointError if the run in `directory` cannot be continued.
    """
    known = train.keep(train.items <= model.n_items)
    n_batches = -(-len(windows(known, model.config.max_len)[0]) // config.batch_size)
    if n_batches == 0:
        raise ValueError("nothing to train on: no training playlist holds two known tracks")
    histories, targets = leave_last_out(valid)
    if not ((targets > 0) & (targets <= model.n_items)).any():
        raise ValueError("nothing to choose the best epoch by: no validation playlist ends with a known track")
    fabric = _fabric(config)
    torch.manual_seed(config.seed)
    objective = Objective(model, config)
    groups = _parameter_groups(model, config)
    optimizer = torch.optim.Adam(groups, lr=config.lr, betas=(0.9, 0.98), fused=True)  # β₂ as the paper
    objective, optimizer = fabric.setup(objective, optimizer)
    state = _State(history=[], best=-math.inf, best_epoch=0, best_weights=_weights(model))
    run = None if directory is None else Path(directory) / "resume.safetensors"
    if resume and run is not None and run.exists():
        state = _read_state(run, model, optimizer, config)
    elif run is not None and fabric.is_global_zero:
        run.unlink(missing_ok=True)  # of another run
    total = config.epochs * n_batches
    fabric.print(_headline(fabric, model, config, known), file=_stderr()) if progress else None

    with tqdm(
        total=total,
        initial=len(state.history) * n_batches,
        unit="batch",
        disable=not (progress and fabric.is_global_zero),
    ) as bar:
        for epoch in range(len(state.history) + 1, config.epochs + 1):
            if epoch - 1 - state.best_epoch >= config.patience:
                break
            begin, seen, summed = time.perf_counter(), 0, 0.0
            # Every epoch starts from its own seeds: the order of batches and the dropout of epoch 7 do not depend on
            # whether epochs 1 to 6 ran in this process, so a resumed run repeats the uninterrupted one.
            torch.manual_seed((config.seed << 16) + epoch * fabric.world_size + fabric.global_rank)
            rng = np.random.default_rng([config.seed, epoch])
            objective.train()
            for index, batch in enumerate(batches(known, model.config.max_len, config.batch_size, rng)):
                step = (epoch - 1) * n_batches + index
                for group in optimizer.param_groups:
                    group["lr"] = config.lr * group["times"] * _schedule(step, total, config)
                # A last batch with fewer windows than processes: the others take its first window and give it no weight.
                first = fabric.global_rank if fabric.global_rank < len(batch.ids) else 0
                ids, y = (torch.from_numpy(part[first :: fabric.world_size]) for part in batch)
                ids, y = ids.to(fabric.device, non_blocking=True), y.to(fabric.device, non_blocking=True)
                # Each process weighs its share of the batch by the real targets in it: together that is the batch's mean.
                count = np.count_nonzero(batch.targets)
                share = np.count_nonzero(batch.targets[fabric.global_rank :: fabric.world_size]) / count
                loss = objective(ids, y) * (share * fabric.world_size)
                optimizer.zero_grad()
                fabric.backward(loss)
                optimizer.step()
                if not math.isfinite(value := loss.item()):
                    raise ValueError(
                        f"the loss became {value} in epoch {epoch}: use a learning rate below {config.lr:g}"
                    )
                seen, summed = seen + count, summed + value * count
                bar.update()
            seconds = time.perf_counter() - begin
            if fabric.world_size > 1:
                summed = fabric.all_reduce(torch.tensor(summed, dtype=torch.float64), reduce_op="mean").item()
            row = {
                "epoch": epoch,
                "step": epoch * n_batches,
                "seconds": round(seconds, 3),
                "targets_per_second": round(seen / seconds),
                "lr": config.lr * _schedule(epoch * n_batches - 1, total, config),
                "train_loss": summed / seen,
                **validate(model, valid, histories, targets, config.unseen_only),
            }
            state.history.append(row)
            bar.set_postfix_str(f"loss {row['train_loss']:.3f}, valid NDCG@10 {row['valid_ndcg@10']:.4f}")
            if row["valid_ndcg@10"] > state.best:
                state.best, state.best_epoch, state.best_weights = row["valid_ndcg@10"], epoch, _weights(model)
            if run is not None and fabric.is_global_zero:
                # The state comes last: after a kill in between, this epoch is repeated and writes the same files again.
                if state.best_epoch == epoch:
                    save(run.parent, model, {**(extra or {}), "training": asdict(config), "best_epoch": epoch})
                _write(run.parent / "history.csv", _csv(state.history))
                _write_state(run, model, optimizer, config, state)
            if after_epoch is not None and fabric.is_global_zero:
                after_epoch(pd.DataFrame(state.history))
            fabric.barrier()
    model.load_state_dict(state.best_weights)
    model.eval()
    return pd.DataFrame(state.history)


@torch.inference_mode()
def validate(
    model: SASRec, valid: Sequences, histories: Sequences, targets: np.ndarray, unseen_only: bool = False
) -> dict[str, float]:
    """Softmax loss over all known tracks of the playlists `valid` (nats), and metrics of each one's last track.

    With `unseen_only` the loss is that of `unseen_softmax_loss`, for models that were trained with it.
    """
    model.eval()
    known = valid.keep(valid.items <= model.n_items)
    table, device = model.table(), model.item_emb.weight.device
    summed, count = 0.0, 0
    for batch in batches(known, model.config.max_len, 256):
        ids, y = (torch.from_numpy(part).to(device) for part in batch)
        real, hidden = y > 0, model(ids)
        loss = unseen_softmax_loss(hidden, ids, y, table) if unseen_only else softmax_loss(hidden[real], y[real], table)
        summed, count = summed + loss.item() * int(real.sum()), count + int(real.sum())
    found = ranks(model, histories, targets)
    return {
        "valid_loss": summed / max(count, 1),
        "valid_recall@10": float(recall_at(found, 10).mean()) if (found > 0).any() else 0.0,
        "valid_ndcg@10": float(ndcg_at(found, 10).mean()) if (found > 0).any() else 0.0,
    }


def _parameter_groups(model: SASRec, config: TrainConfig) -> list[dict]:
    """Parameters by how fast they learn.

    Adam moves every weight by about one learning rate a step, whatever it is for. Tables start near zero and have to
    grow to the size of the scores; a distance has to differ from the others by several units to stand out in a softmax.
    Both would be far behind the dense layers at the same rate.
    """
    rates = {"distance": config.distance_lr, "emb": config.table_lr, "dense": 1.0}
    members: dict[str, list] = {kind: [] for kind in rates}
    for name, parameter in model.named_parameters():
        table = name.startswith(("item_emb", "pos_emb", "features", "output"))
        members["emb" if table else "distance" if name.endswith("distance") else "dense"].append(parameter)
    return [{"params": members[kind], "times": times} for kind, times in rates.items() if members[kind]]


def _schedule(step: int, total: int, config: TrainConfig) -> float:
    """Share of the learning rate at this step: a straight climb, then a cosine down to `final_lr`."""
    climb = min(1.0, (step + 1) / max(1, config.warmup_steps))
    fall = config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * step / total))
    return climb * fall


def _fabric(config: TrainConfig) -> Fabric:
    """Device and precision. Under `torchrun` one process per device, else a single device."""
    accelerator = config.accelerator
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    precision = config.precision
    if precision == "auto":
        precision = "bf16-mixed" if accelerator == "cuda" else "32-true"
    world = int(os.environ.get("WORLD_SIZE", 1))
    nodes = max(1, world // int(os.environ.get("LOCAL_WORLD_SIZE", world)))
    try:
        fabric = Fabric(
            accelerator=accelerator, precision=precision, devices=world // nodes, num_nodes=nodes,
            strategy="ddp" if world > 1 else "auto",
        )  # fmt: skip
    except RuntimeError as error:
        raise ValueError(f"accelerator {accelerator!r} cannot be used on this machine ({error})") from error
    fabric.launch()
    return fabric


def _headline(fabric: Fabric, model: SASRec, config: TrainConfig, known: Sequences) -> str:
    parameters = sum(p.numel() for p in model.parameters())
    return (
        f"training on {fabric.device} x {fabric.world_size} in {fabric._precision.precision}: {parameters:,} parameters, "
        f"{int(np.maximum(known.lengths - 1, 0).sum()):,} targets an epoch, {config.loss} loss over {model.n_items:,} tracks"
    )


def _stderr():
    import sys

    return sys.stderr


# --- checkpoints: weights in safetensors, settings in JSON ------------------------------------------------------------


def save(directory: str | os.PathLike, model: SASRec, extra: dict | None = None) -> None:
    """Write `model.safetensors` (weights) and `config.json` (shape and `extra`) into `directory`.

    Each file is written beside and then renamed, so a kill leaves the old one or the new one. Neither can run code when
    it is loaded.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    about = {"format": FORMAT, "kind": "sasrec", "model": asdict(model.config), **(extra or {})}
    # The shape goes into the weights' own header too: a config.json of another run beside it is then found out.
    _write(
        directory / "model.safetensors", to_safetensors(_weights(model), {"model": json.dumps(asdict(model.config))})
    )
    _write(directory / "config.json", (json.dumps(about, indent=1) + "\n").encode())


def load(directory: str | os.PathLike) -> tuple[SASRec, dict]:
    """The model saved in `directory`, on the CPU, and its `config.json`. Raises CheckpointError, see there."""
    directory = Path(directory)
    about = _read_json(directory / "config.json")
    if about.get("kind") != "sasrec" or "model" not in about:
        raise CheckpointError(
            f"{directory / 'config.json'}: is not the settings of a SASRec of this project; train one with `train`."
        )
    if about.get("format") != FORMAT:
        raise CheckpointError(
            f"{directory / 'config.json'}: has format {about.get('format')}, this version reads {FORMAT}; train the model again."
        )
    tensors, header = _read_tensors(directory / "model.safetensors")
    try:
        if json.loads(header["model"]) != about["model"]:
            raise CheckpointError(
                f"{directory}: config.json and model.safetensors come from different runs; train the model again."
            )
        config = SASRecConfig(**about["model"])
        model = SASRec(config, *(_ids(tensors.get(f"{name}_of"), config.n_items) for name in ("artist", "album")))
        model.load_state_dict(tensors)
    except CheckpointError:
        raise
    except (RuntimeError, TypeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{directory}: the weights do not fit the settings ({reason}); train the model again."
        ) from error
    model.eval()
    return model, about


@dataclass
class _State:
    """Where a run stands after an epoch."""

    history: list[dict]
    best: float
    best_epoch: int
    best_weights: dict[str, Tensor]


def _write_state(path: Path, model: SASRec, optimizer, config: TrainConfig, state: _State) -> None:
    """Weights now, weights at their best and the optimiser's moments, in one file: one rename makes them all valid."""
    tensors = {f"now.{k}": v for k, v in _weights(model).items()}
    tensors |= {f"best.{k}": v for k, v in state.best_weights.items()}
    for i, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{i}.{k}": v.detach().cpu().contiguous() for k, v in moments.items()}
    about = {
        "config": asdict(config),
        "model": asdict(model.config),
        "history": state.history,
        "best": state.best,
        "best_epoch": state.best_epoch,
    }
    _write(path, to_safetensors(tensors, {"run": json.dumps(about)}))


def _read_state(path: Path, model: SASRec, optimizer, config: TrainConfig) -> _State:
    tensors, header = _read_tensors(path)
    try:
        about = json.loads(header["run"])
        for mine, its in ((asdict(config), about["config"]), (asdict(model.config), about["model"])):
            changed = [k for k in mine if mine[k] != its.get(k)]
            if changed:
                raise CheckpointError(
                    f"{path}: was trained with {changed[0]} = {its.get(changed[0])}, not {mine[changed[0]]}; "
                    "use the same settings, or start anew without resuming."
                )
        part = lambda prefix: {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}  # noqa: E731
        best = part("best.")
        model.load_state_dict(best)  # only to see now, and not after the last epoch, that it fits
        model.load_state_dict(part("now."))
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in part("adam.").items():
            index, name = key.split(".", 1)
            moments.setdefault(int(index), {})[name] = value
        for index, parameter in enumerate(p for group in optimizer.param_groups for p in group["params"]):
            shapes = {moments[index][name].shape for name in ("exp_avg", "exp_avg_sq")}
            if shapes != {parameter.shape} or moments[index]["step"].numel() != 1:
                raise ValueError(f"moments of parameter {index} do not fit it")
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
        return _State(list(about["history"]), float(about["best"]), int(about["best_epoch"]), best)
    except CheckpointError:
        raise
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: is not a run that can be continued; start anew without resuming.") from error


def _weights(model: SASRec) -> dict[str, Tensor]:
    return {k: v.detach().cpu().clone().contiguous() for k, v in model.state_dict().items()}


def _ids(tensor: Tensor | None, n_items: int) -> np.ndarray | None:
    return None if tensor is None else tensor.numpy()


def _read_json(path: Path) -> dict:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: there is no such file; train a model there first.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error}); train the model again.") from error
    if not isinstance(about, dict):
        raise CheckpointError(f"{path}: holds no settings; train the model again.")
    return about


def _read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {k: file.get_tensor(k) for k in file.keys()}, file.metadata() or {}
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: there is no such file; train a model there first.") from error
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: is damaged or no safetensors file ({error}); train the model again.") from error


def _csv(rows: list[dict]) -> bytes:
    return pd.DataFrame(rows).to_csv(index=False, quoting=csv.QUOTE_MINIMAL, lineterminator="\n").encode()


def _write(path: Path, content: bytes) -> None:
    """Write beside, then rename: nothing is ever half-written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    beside.write_bytes(content)
    os.replace(beside, path)
