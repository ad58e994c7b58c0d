"""What to minimise: four ways to say that the next track should score higher than the others.

All take the hidden states and targets of real positions only, `hidden` [T, D] and `targets` int64 [T] in 1…N, and
return the mean over them, in nats (softmax) or in the loss's own unit. None of them ever holds T × N numbers, so memory
stays bounded at any catalogue size (a batch of 128 × 50 positions over 2.26 million tracks would need 58 GB).

| loss | sees | source |
|---|---|---|
| `softmax_loss` | every track | Hidasi & Karatzoglou 2018; "Turning Dross Into Gold Loss", RecSys 2023 |
| `sampled_softmax_loss` | negatives shared by the batch | Bengio & Senécal 2008 (logQ correction) |
| `bce_loss` | own negatives of each position | Kang & McAuley 2018, section 3.5 |
| `gbce_loss` | own or shared negatives | gSASRec, Petrov & Macdonald, RecSys 2023, equation 12 |

Taught in notebook 04 §3.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "bce_loss",
    "draw_negatives",
    "gbce_beta",
    "gbce_loss",
    "sampled_softmax_loss",
    "softmax_loss",
    "unseen_softmax_loss",
]

CHUNK_SCORES = 1 << 21  # scores of all tracks that exist at one time (8 MB in float32: they stay in the cache)


def softmax_loss(hidden: Tensor, targets: Tensor, table: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy of the target against all N tracks: -log softmax(table · h)[target], mean or ("none") one each.

    `table` [N+1, D], row 0 is padding and takes no part. Positions are taken a few at a time and their gradients made on
    the way: at least 64, else as many as give `CHUNK_SCORES` scores. Same value and gradients as `F.cross_entropy(hidden @ table[1:].T,
    targets - 1)`.
    """
    chunk = max(64, CHUNK_SCORES // len(table))
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=chunk)
    return F.linear_cross_entropy(hidden, table[1:], targets - 1, reduction=reduction, options=options)


def unseen_softmax_loss(hidden: Tensor, ids: Tensor, targets: Tensor, table: Tensor) -> Tensor:
    """Mean cross-entropy of the target against the tracks that the window has not shown up to its position.

    `hidden` [B, L, D], `ids` and `targets` int64 [B, L] (0 = padding), `table` [N+1, D]. Evaluation takes tracks that a
    playlist has already out of the candidates; here training does the same, so the model need not learn to push them
    down. It is the full softmax with the seen tracks' share removed from the denominator:
    log(Z - Σ_seen e^s) = log Z + log(1 - Σ_seen p), at the cost of one [B, L, L] product.
    """
    real = targets > 0
    full = softmax_loss(hidden[real], targets[real], table, reduction="none")  # log Z - own score, [T]
    own = (hidden[real] * table[targets[real]]).sum(-1)
    scores = hidden @ table[ids].transpose(1, 2)  # [B, L, L]: position t against the track at place j
    L = ids.shape[1]
    same = ids[:, :, None] == ids[:, None, :]
    first = ~(same & torch.ones(L, L, dtype=torch.bool, device=ids.device).tril(-1)).any(2)  # a repeat counts once
    seen = torch.ones(L, L, dtype=torch.bool, device=ids.device).tril() & (first & (ids > 0))[:, None, :]
    seen = (seen & (ids[:, None, :] != targets[:, :, None]))[real]  # [T, L]; a repeated target stays a candidate
    share = torch.where(seen, scores[real] - (full + own)[:, None], -torch.inf).exp().sum(1)
    return (full + torch.log1p(-share.clamp(max=1 - 1e-6))).mean()


def draw_negatives(
    ids: Tensor, targets: Tensor, n_items: int, k: int, generator: torch.Generator | None = None, rounds: int = 10
) -> Tensor:
    """`k` negatives for each position, int64 [B, L, k], uniform over the tracks that the window does not hold.

    `ids`, `targets` int64 [B, L], 0 = padding. A negative that stands in the window (as input or target) is drawn again,
    at most `rounds` times, so this ends even where a window holds nearly every track; a negative that equals its own
    target is impossible whatever happens, unless there is but one track (ValueError). Negatives are drawn anew at
    each call, not once for all epochs.
    """
    if n_items < 2:
        raise ValueError("negatives need a catalogue of at least two tracks")
    B, L = ids.shape
    window = torch.cat([ids, targets[:, -1:]], 1)
    window[:, -1] = targets.gather(1, (targets > 0).sum(1, keepdim=True).sub(1).clamp(min=0)).squeeze(
        1
    )  # the last target

    def draw() -> Tensor:
        # target + 1…N-1 steps around the circle 1…N: uniform over the others
        step = torch.randint(1, n_items, (B, L, k), generator=generator, device=ids.device)
        return (targets.clamp(min=1).unsqueeze(-1) - 1 + step) % n_items + 1

    held = torch.zeros(B, n_items + 1, dtype=torch.bool, device=ids.device) if B * n_items <= 1 << 26 else None
    if held is not None:
        held.scatter_(1, window, True)
    negatives = draw()
    for _ in range(rounds):
        flat = negatives.view(B, -1)
        if held is not None:
            taken = held.gather(1, flat).view(negatives.shape)
        else:  # a catalogue so large that a table would be larger than the comparison
            taken = (
                torch.stack([(flat == column.unsqueeze(1)) for column in window.unbind(1)]).any(0).view(negatives.shape)
            )
        if not taken.any():
            break
        negatives = torch.where(taken, draw(), negatives)
    return negatives


def sampled_softmax_loss(
    hidden: Tensor, targets: Tensor, positive: Tensor, negative: Tensor, negatives: Tensor, log_q: Tensor
) -> Tensor:
    """Cross-entropy of the target against K negatives that the whole batch shares, with the logQ correction.

    `positive` [T, D] are the targets' embeddings, `negative` [K, D] those of `negatives` int64 [K], `log_q` [N+1] the
    log of the probability with which each track is drawn. Scores of negatives are lowered by log(K q): the loss then
    estimates the full softmax (Bengio & Senécal 2008, equation 5). A negative that is a position's own target does not
    count there.
    """
    own = (hidden * positive).sum(-1, keepdim=True)  # [T, 1]
    scores = hidden @ negative.T - (log_q[negatives] + math.log(len(negatives)))
    scores = scores.masked_fill(targets[:, None] == negatives, -torch.inf)
    return (torch.logsumexp(torch.cat([own, scores], 1), 1) - own.squeeze(1)).mean()


def bce_loss(hidden: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """The paper's loss: -log σ(target) - Σ log(1 - σ(negative)), mean over positions (equation in section 3.5).

    `positive` [T, D], `negative` [T, k, D]; k = 1 in the paper.
    """
    return gbce_loss(hidden, positive, negative, beta=1.0)


def gbce_loss(hidden: Tensor, positive: Tensor, negative: Tensor, beta: float, same: Tensor | None = None) -> Tensor:
    """Generalised BCE: -β log σ(target) - Σ log(1 - σ(negative)), mean over positions; β = 1 is `bce_loss`.

    `positive` [T, D]; `negative` [T, k, D], or [K, D] if the batch shares them; then `same` bool [T, K] says which of
    them are a position's own target and do not count there. β undoes the over-confidence that few
    negatives bring (gSASRec, equations 11–12); see `gbce_beta`.
    """
    own = (hidden * positive).sum(-1)
    others = hidden @ negative.T if negative.ndim == 2 else torch.einsum("td,tkd->tk", hidden, negative)
    if same is not None:
        others = others.masked_fill(same, -torch.inf)  # log(1 - σ(-∞)) = 0
    return (F.softplus(-own) * beta + F.softplus(others).sum(-1)).mean()


def gbce_beta(n_items: int, k: int, calibration: float = 0.75) -> float:
    """β of `gbce_loss` for k negatives out of N tracks: α (t (1 - 1/α) + 1/α), α = k / (N - 1) (gSASRec, equation 11).

    `calibration` t in [0, 1]: 0 is plain BCE, 1 makes the scores' probabilities those of the full softmax.
    """
    alpha = min(1.0, k / (n_items - 1))
    return alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)
