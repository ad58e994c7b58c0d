"""The model whose heads notebook 04 reads, and small ones that try a reader's own relative positions.

The model is the package's best one as it is without a pointer.

A pointer (where the default model has one) looks up the artists of the history itself, and the heads then have nothing
left to do there. Without it they have to find what stood some steps before, and that is what the notebook shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sasrec_utils.course import lab
from sasrec_utils.evaluation import evaluate
from sasrec_utils.model import Attention, SASRec, SASRecConfig
from sasrec_utils.mpd.files import lock
from sasrec_utils.sequences import Dataset, Sequences, leave_last_out
from sasrec_utils.training import CheckpointError, TrainConfig, fit, load, recipe, save
from sasrec_utils.world import TEACHING, Oracle, World

__all__ = ["open_heads", "who_profits"]

FOLDERS = ("heads", "second")  # data/models/…, by seed


def open_heads(data: lab.Data, dataset: Dataset, seed: int = 0, progress: bool = True) -> Path:
    """The folder of the trained model of this seed (0 or 1); trained now, within some minutes, if it is not there.

    Seed 0 is the default model itself where that has no pointer. Taught in notebook 04.
    """
    models = lab.data_dir() / "models"
    if seed == 0 and _fits(models / "default", data):
        return models / "default"
    models.mkdir(parents=True, exist_ok=True)
    folder = models / FOLDERS[seed]
    with lock(models / ".reading.lock"):
        if not _fits(folder, data):
            n_items = dataset.vocabulary.n_items
            shape, plan = recipe("best", n_items, int(dataset.artist_of.max()), int(dataset.album_of.max()))
            if getattr(shape, "pointer", False):
                shape = replace(shape, pointer=False)
            known = slice(n_items + 1)
            model = SASRec(shape, dataset.artist_of[known], dataset.album_of[known], seed=seed)
            history = fit(model, dataset.train, dataset.valid, replace(plan, seed=seed), folder, progress=progress)
            seconds = round(float(history["seconds"].sum()), 1)
            save(folder, model, {"data": {"prepared": data.prepared.name}, "train_seconds": seconds})
    return folder


def _fits(folder: Path, data: lab.Data) -> bool:
    try:
        model, about = load(folder)
    except CheckpointError:
        return False
    trained = "train_seconds" in about and about.get("data", {}).get("prepared") == data.prepared.name
    return trained and model.config.positions == "relative" and not getattr(model.config, "pointer", False)


class _Yours(Attention):
    """Attention without positions of its own, and a reader's term added to its scores: no "nothing" to look at."""

    def __init__(self, config: SASRecConfig, distance_bias: Callable[[Tensor, int], Tensor]):
        super().__init__(config)
        self.term = distance_bias
        self.distance = nn.Parameter(torch.zeros(config.heads, config.max_len))  # by this name it learns fast enough

    def forward(self, x: Tensor, return_attention: bool = False) -> tuple[Tensor, None]:
        B, L, D = x.shape
        q, k, v = self.qkv(x).view(B, L, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.term(self.distance, L))
        return self.out(y.transpose(1, 2).reshape(B, L, D)), None


def who_profits(distance_bias: Callable[[Tensor, int], Tensor], seeds: int = 3) -> pd.DataFrame:
    """Recall@10, as a share of the oracle's, of one-block models with absolute positions and with the reader's term.

    Three small worlds of one mechanism each; a row for each world and kind of positions, a column for each seed.
    `distance_bias`: weights [H, M] and L → what is added to the scores, [H, L, L]. Taught in notebook 04, exercise 1.
    """
    found = {}
    for name, dial in {
        "album run": (0.9, 0, 0, 0, 0.1, 0),
        "callback": (0, 0, 0.9, 0, 0.1, 0),
        "mood": (0, 0, 0, 0, 1.0, 0),
    }.items():
        dials = {"style_mechanisms": (dial,) * 4, "callback_lags": (4,) * 4, "repeat_rates": (0.0, 0.0)}
        size = {"tracks": 240, "artists": 24, "genres": 4, "moods": 6, "length_mu": 3.0, "length_max": 40}
        world = World(replace(TEACHING, **dials, **size))
        drawn, tracks = world.playlists(1_600), world.n_tracks
        playlists = Sequences(drawn.tracks + 1, drawn.offsets)
        train, valid, test = (playlists.take(np.arange(*part)) for part in ((0, 1_000), (1_000, 1_100), (1_100, 1_600)))
        given, wanted = leave_last_out(test)
        best = evaluate(Oracle(world, np.arange(-1, tracks), tracks), given, wanted).metrics["recall@10"].mean
        for seed in range(seeds):
            for kind in ("absolute", "relative"):
                shape = SASRecConfig(tracks, 32, blocks=1, heads=2, max_len=40, dropout=0.1)
                model = SASRec(shape, seed=seed)
                if kind == "relative":
                    model.pos_emb.weight.data.zero_()
                    model.pos_emb.requires_grad_(False)
                    model.blocks[0].attention = _Yours(shape, distance_bias)
                plan = TrainConfig(epochs=3, batch_size=64, lr=5e-3, warmup_steps=20, unseen_only=True, seed=seed)
                fit(model, train, valid, plan, progress=False)
                found[name, kind, seed] = evaluate(model, given, wanted).metrics["recall@10"].mean / best
    return pd.Series(found, name="share of the best possible").unstack(2)
