"""A pointer back into the history: the next track is one more of an artist, or album, that stands there.

A part of `model.SASRec` for catalogues with few plays for each track, see `training.recipe`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["Pointed", "Pointer"]

MOSTLY_GONE = 1e-4  # an artist of whom the playlist has all but this is not pointed at: the rest is mostly rounding


class Pointed(NamedTuple):
    """Where positions point: the shares, as logarithms, of "generate" [...] and of the places [..., K, L].

    K kinds of group (artists, albums); the shares of a position sum to 1. `left` [..., K, L] is how much of P(track |
    group of that place) belongs to tracks that the playlist does not have yet at that position.
    """

    generate: Tensor
    places: Tensor
    left: Tensor


class Pointer(nn.Module):
    """Points back into the history: the next track is one more of an artist (or album) that stands there.

    P(track) = p(generate) · softmax(track) + Σ_j p(j) · P(track | artist of place j), over tracks that the history does
    not have. One softmax shares p among "generate" and the places up to the present: q · k_j / √D, plus a weight for
    the distance back to j that the position chooses itself ("two back", says a playlist that alternates). P(track |
    artist) is the artist's plays in training, among the tracks that are left; an artist without any is not pointed at.
    Copying by attention: See et al. 2017 and, for repeats in sessions, RepeatNet (Ren et al. 2019); "generate" as one
    more place of the same softmax: Merity et al. 2017.

    `groups`, in all that follows: K tensors int64 [N+1], the group of each track, 0 = unknown, which nothing points at.
    """

    def __init__(self, n_items: int, dim: int, max_len: int, sizes: list[int]):
        super().__init__()
        self.sizes = sizes  # how many groups of each kind
        self.K = len(sizes)
        self.query = nn.Linear(dim, self.K * dim, bias=False)
        self.key = nn.Linear(dim, self.K * dim, bias=False)
        self.distance = nn.Linear(dim, self.K * max_len)
        self.generate = nn.Linear(dim, 1)
        self.register_buffer("share", torch.zeros(self.K, n_items + 1))  # P(track | its group)

    def count(self, plays: Tensor, groups: list[Tensor]) -> None:
        """Set P(track | group) to the plays of the tracks in training, [N+1], and half a play more for each."""
        for share, group_of, size in zip(self.share, groups, self.sizes, strict=True):
            weight = (plays.to(share) + 0.5) * (group_of > 0)
            total = share.new_zeros(size + 1).index_add_(0, group_of, weight)
            share.copy_(weight / total[group_of].clamp(min=0.5))

    def forward(self, hidden: Tensor, ids: Tensor, groups: list[Tensor]) -> Pointed:
        """Where each position of `ids` int64 [B, L] (0 = padding) points, by its state in `hidden` [B, L, D]."""
        with torch.autocast(hidden.device.type, enabled=False):  # what is left of an artist is a small difference
            return self._forward(hidden.float(), ids, groups)

    def _forward(self, hidden: Tensor, ids: Tensor, groups: list[Tensor]) -> Pointed:
        B, L, D = hidden.shape
        place = torch.arange(L, device=ids.device)
        back = place[:, None] - place[None, :]  # [L, L], row = position, column = place; below 0 lies the future
        again = ((ids[:, :, None] == ids[:, None, :]) & (back > 0)).any(2)  # a repeat takes nothing more
        left, may = [], []
        for share, group_of in zip(self.share, groups, strict=True):
            group = group_of[ids]
            same = (group[:, :, None] == group[:, None, :]).to(share)
            had = (share[ids] * ~again)[:, None, :] * (back >= 0)  # [B, L, L]: position t has the track at place j
            left.append(1 - had @ same)
            may.append((back >= 0) & (group > 0)[:, None, :] & (left[-1] > MOSTLY_GONE))
        left, may = torch.stack(left, 2), torch.stack(may, 2)  # [B, L, K, L]
        q, k = (layer(hidden).view(B, L, self.K, D).transpose(1, 2) for layer in (self.query, self.key))
        scores = (q @ k.transpose(2, 3)).transpose(1, 2) / math.sqrt(D)  # [B, L, K, L]
        weights = self.distance(hidden).view(B, L, self.K, -1)
        scores = scores + weights.gather(3, back.clamp(min=0)[:, None, :].expand(B, L, self.K, L))
        scores = scores.masked_fill(~may, -torch.inf).flatten(2)
        shares = torch.cat([self.generate(hidden), scores], 2).log_softmax(2)
        return Pointed(shares[..., 0], shares[..., 1:].unflatten(2, (self.K, L)), left)

    def of_targets(self, pointed: Pointed, ids: Tensor, targets: Tensor, groups: list[Tensor]) -> Tensor:
        """Σ_j p(j) P(target | group of place j) at each position, [B, L]; 0 for a repeat. `targets` int64 [B, L]."""
        past = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool, device=ids.device).tril()
        repeat = ((targets[:, :, None] == ids[:, None, :]) & past).any(2)
        found = torch.zeros_like(pointed.generate)
        for kind, (share, group_of) in enumerate(zip(self.share, groups, strict=True)):
            same = group_of[targets][:, :, None] == group_of[ids][:, None, :]
            found = found + (self._of_what_is_left(pointed, kind) * same).sum(2) * share[targets]
        return found * ~repeat

    def of_all(self, pointed: Pointed, ids: Tensor, groups: list[Tensor]) -> Tensor:
        """The same for every track, [B, N+1], at one position of each playlist: `pointed` [B, ...]. Seen ones are 0."""
        found = self.share.new_zeros(len(ids), self.share.shape[1])
        for kind, (share, group_of, size) in enumerate(zip(self.share, groups, self.sizes, strict=True)):
            mass = self.share.new_zeros(len(ids), size + 1)
            mass.scatter_add_(1, group_of[ids], self._of_what_is_left(pointed, kind))
            found += mass[:, group_of] * share
        return found.scatter(1, ids, 0.0)

    def _of_what_is_left(self, pointed: Pointed, kind: int) -> Tensor:
        """p(j) over what is left of j's group: P(track | group) times this is the track's part of p(j)."""
        return pointed.places[..., kind, :].exp() / pointed.left[..., kind, :].clamp(min=MOSTLY_GONE)
