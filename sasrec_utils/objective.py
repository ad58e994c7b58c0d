"""The model and its loss in one module: what a step of training makes smaller."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sasrec_utils.losses import (
    bce_loss,
    draw_negatives,
    fast_bfloat16,
    gbce_beta,
    gbce_loss,
    sampled_softmax_loss,
    seen_tracks,
    softmax_loss,
    start_bias,
    unseen_softmax_loss,
)
from sasrec_utils.model import SASRec

__all__ = ["Objective", "half_scores"]

OWN_NUMBERS = 1 << 26  # numbers in the vectors of the negatives that exist at one time (256 MB)
HALF_SOFTMAX = 8_000  # tracks; from here on bfloat16 scores save time


class Objective(nn.Module):
    """The model with its loss: `forward(ids, targets)` is the mean loss over the real targets of a batch.

    One module, so that precision and data parallelism reach the loss too. `config`: a `training.TrainConfig`.
    `rows`: the tracks of the training playlists, int [R], by which the sampled softmax draws; without them it draws all
    tracks alike. Taught in notebook 05 §2 and §7.
    """

    def __init__(self, model: SASRec, config, rows: np.ndarray | None = None):
        super().__init__()
        self.model, self.config = model, config
        self.half = half_scores(config, model.n_items)
        if model.config.pointer and not (config.loss == "softmax" and config.unseen_only):
            raise ValueError("a model with a pointer learns by the softmax over unseen tracks: unseen_only=True")
        if config.loss == "sampled_softmax":
            rows = np.arange(1, model.config.n_known + 1, dtype=np.int32) if rows is None else rows
            plays = torch.from_numpy(np.bincount(rows, minlength=model.n_items + 1))
            # No buffers: torch.distributed would send them from process to process at every step.
            self.rows, self.log_q = torch.from_numpy(rows), (plays / len(rows)).log()

    def forward(self, ids: Tensor, targets: Tensor, titles: Tensor | None = None) -> Tensor:
        model, real = self.model, targets > 0
        hidden = model(ids, titles=titles)
        if self.config.loss == "softmax":
            half = self.half if hidden.device.type == "cpu" else self._autocast(hidden)
            if self.config.unseen_only:
                pointed = model.pointed(hidden, ids, targets)
                return unseen_softmax_loss(hidden, ids, targets, model.table(), half, pointed)
            return softmax_loss(hidden[real], targets[real], model.table(), half)
        # A few windows at a time, each part's vectors made again for the gradient, if all would take too much memory.
        rows = max(1, OWN_NUMBERS // (ids.shape[1] * self.config.own_negatives * model.config.dim))
        if rows >= len(ids):
            return self._drawn(hidden, ids, targets)
        summed = 0.0
        for part in zip(hidden.split(rows), ids.split(rows), targets.split(rows), strict=True):
            loss = checkpoint(self._drawn, *part, use_reentrant=False)
            summed = summed + loss * (part[2] > 0).sum()
        return summed / real.sum()

    def _autocast(self, hidden: Tensor) -> bool:
        """Whether the largest product, with the table, is bfloat16 because the others are."""
        kind = hidden.device.type
        bfloat16 = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.bfloat16
        return bfloat16 and self.config.scores != "float32"

    def _drawn(self, hidden: Tensor, ids: Tensor, targets: Tensor) -> Tensor:
        """The losses that draw negatives, some of its own for each position: [T, k] tracks."""
        N, k, real = self.model.config.n_known, self.config.own_negatives, targets > 0
        hidden, y = hidden[real], targets[real]  # [T, D], [T]: nothing below is computed for padding
        if self.config.loss == "sampled_softmax":
            # A random row of the training playlists: each track as often as it is played.
            self.rows, self.log_q = self.rows.to(y.device), self.log_q.to(y.device)
            drawn = self.rows[torch.randint(len(self.rows), (len(y), k), device=y.device)].long()
            out = seen_tracks(ids, targets) if self.config.unseen_only else None
            return sampled_softmax_loss(hidden, y, *self._vectors(y, drawn), drawn, self.log_q, out)
        drawn = draw_negatives(ids, targets, N, k)[real]
        if self.config.loss == "bce":
            return bce_loss(hidden, *self._vectors(y, drawn), bias=start_bias(1.0, k))
        beta = gbce_beta(N, k)
        return gbce_loss(hidden, *self._vectors(y, drawn), beta, bias=start_bias(beta, k))

    def _vectors(self, y: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """The scoring vectors of targets [T, D] and negatives [T, k, D].

        In one look-up: the gradient of each look-up is a whole table of its own.
        """
        ids = torch.cat([y, drawn.flatten()])
        if self.config.sparse(self.model.n_items):  # each track once: it is looked up in several tables
            ids, place = ids.unique(return_inverse=True)
            rows = F.embedding(place, self.model.score_embed(ids))
        else:
            rows = self.model.score_embed(ids)
        positive, negative = rows.split([y.numel(), drawn.numel()])
        return positive, negative.view(*drawn.shape, -1)


def half_scores(config, n_items: int) -> bool:
    """Whether the full softmax keeps its scores in bfloat16 on a CPU."""
    if config.scores == "auto":
        return n_items >= HALF_SOFTMAX and fast_bfloat16()
    return config.scores == "bfloat16"
