"""A small SASRec with a switch for its causal mask, for notebook 06's anatomy of an inflated number (§11)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sasrec_utils.model import Attention, SASRec, SASRecConfig
from sasrec_utils.sequences import Sequences, batches
from sasrec_utils.training import Objective, TrainConfig

__all__ = ["Switched", "recall_at_every_position", "train_plainly"]

MAX_LEN, BATCH = 20, 128  # as in the project that the notebook reads


class Unmasked(Attention):
    """Attention without the causal mask: every position sees the whole window, its own target included."""

    real: Tensor  # bool [B, 1, 1, L], True = may attend: padding is left out all the same

    def forward(self, x: Tensor, return_attention: bool = False) -> tuple[Tensor, None]:
        """[B, L, D] → [B, L, D]; no weights are returned."""
        B, L, D = x.shape
        q, k, v = self.qkv(x).view(B, L, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.real)
        return self.out(y.transpose(1, 2).reshape(B, L, D)), None


class Switched(SASRec):
    """A small SASRec of the paper's kind, with or without its causal mask. Taught in notebook 06 §11."""

    def __init__(self, n_items: int, causal: bool):
        super().__init__(SASRecConfig(n_items, dim=64, heads=2, blocks=1, max_len=MAX_LEN, dropout=0.0))
        if not causal:
            for block in self.blocks:
                block.attention = Unmasked(self.config)

    def forward(self, ids: Tensor, *args, **options) -> Tensor:
        """Ids [B, L] → hidden states [B, L, D]; what else `SASRec.forward` takes goes on to it."""
        for block in self.blocks:
            block.attention.real = (ids > 0)[:, None, None, :]
        return super().forward(ids, *args, **options)


def train_plainly(model: SASRec, playlists: Sequences, epochs: int) -> None:
    """Train in place on the newest tracks of each playlist, with nothing but the sampled softmax and Adam."""
    objective = Objective(model, TrainConfig(loss="sampled_softmax"), playlists.items)
    adam = torch.optim.Adam(model.parameters(), lr=5e-3, fused=True)
    for epoch in range(epochs):
        for batch in batches(playlists.last(MAX_LEN + 1), MAX_LEN, BATCH, np.random.default_rng(epoch)):
            loss = objective(torch.from_numpy(batch.ids), torch.from_numpy(batch.targets))
            adam.zero_grad()
            loss.backward()
            adam.step()


@torch.inference_mode()
def recall_at_every_position(model: SASRec, playlists: Sequences) -> float:
    """Recall@10 over all positions of the windows that training sees, as a training loop would count it."""
    model.eval()
    hits = []
    for batch in batches(playlists.keep(playlists.items <= model.n_items).last(MAX_LEN + 1), MAX_LEN, BATCH):
        ids, y = torch.from_numpy(batch.ids), torch.from_numpy(batch.targets)
        scores = model(ids)[y > 0] @ model.table()[1:].T
        own = scores.gather(1, y[y > 0][:, None] - 1)
        hits.append((scores >= own).sum(1) <= 10)
    return round(torch.cat(hits).float().mean().item(), 3)
