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

Taught in notebook 04 §7.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "HalfLogZ",
    "bce_loss",
    "draw_negatives",
    "fast_bfloat16",
    "gbce_beta",
    "gbce_loss",
    "sampled_softmax_loss",
    "softmax_loss",
    "unseen_softmax_loss",
]

CHUNK_SCORES = 1 << 21  # scores of all tracks that exist at one time (8 MB in float32: they stay in the cache)


def softmax_loss(hidden: Tensor, targets: Tensor, table: Tensor, half: bool = False) -> Tensor:
    """Mean cross-entropy of the target against all N tracks: -log softmax(table · h)[target].

    `table` [N+1, D], row 0 is padding and takes no part. Positions are taken a few at a time, at least 64, else as many
    as give `CHUNK_SCORES` scores, and their gradients made on the way. Same value and gradients as
    `F.cross_entropy(hidden @ table[1:].T, targets - 1)`; with `half`, scores and probabilities in between are bfloat16
    (see `HalfLogZ`) and the target's own score float32.
    """
    if half:
        return HalfLogZ.apply(hidden, table, targets, None) - _own(hidden, targets, table).mean()
    return _full_softmax(hidden, targets, table, "mean")


def _own(hidden: Tensor, targets: Tensor, table: Tensor) -> Tensor:
    """The targets' scores, [T]. By F.embedding: two threads add up the gradient of table[targets] in no fixed order."""
    return (hidden * F.embedding(targets, table)).sum(-1)


def _full_softmax(hidden: Tensor, targets: Tensor, table: Tensor, reduction: str) -> Tensor:
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=max(64, CHUNK_SCORES // len(table)))
    return F.linear_cross_entropy(hidden, table[1:], targets - 1, reduction=reduction, options=options)


class HalfLogZ(torch.autograd.Function):
    """log Σ exp(scores) of each position, averaged, by bfloat16 scores and probabilities: half the bytes and, where the
    CPU has bfloat16 instructions, 1.5 times the speed of float32.

    `apply(hidden, table, targets, seen)`: shapes as in `softmax_loss`; `seen` int64 [T, S] names tracks that are no
    candidates at a position (0 = none), or is None. All sums are float32; a score near 10 is off by at most 0.03, as
    often up as down.
    """

    @staticmethod
    def forward(ctx, hidden: Tensor, table: Tensor, targets: Tensor, seen: Tensor | None) -> Tensor:
        T, chunk = len(hidden), max(64, 2 * CHUNK_SCORES // len(table) // 32 * 32)
        # Rows of zeros up to a multiple of 32: few different shapes, for each of which a kernel is made and kept.
        h, E = F.pad(hidden.bfloat16(), (0, 0, 0, -T % 32)), table.bfloat16()
        y = F.pad(targets, (0, -T % 32), value=1)[:, None]
        log_z, d_hidden, d_table = torch.empty(len(h)), torch.empty(h.shape), torch.zeros(E.shape)
        for first in range(0, len(h), chunk):
            part = slice(first, first + chunk)
            scores = h[part] @ E.T  # [chunk, N+1]
            scores[:, 0] = -torch.inf
            if seen is not None:
                scores.scatter_(1, seen[part], -torch.inf)
            p = scores.softmax(1)
            # Any track gives log Z = score - log p: the target, which is at hand, unless its p is too small a number.
            s_own, p_own = scores.gather(1, y[part]), p.gather(1, y[part])
            if not p_own.all():
                s_own, p_own = scores.amax(1, keepdim=True), p.amax(1, keepdim=True)
            log_z[part] = (s_own.float() - p_own.float().log()).squeeze(1)
            d_hidden[part] = p @ E
            d_table += p.T @ h[part]
        ctx.save_for_backward(d_hidden[:T], d_table)
        return log_z[:T].mean()

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        d_hidden, d_table = ctx.saved_tensors
        grad = grad / len(d_hidden)
        return d_hidden * grad, d_table * grad, None, None


def fast_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16 products; without them they are much slower than float32."""
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def unseen_softmax_loss(hidden: Tensor, ids: Tensor, targets: Tensor, table: Tensor, half: bool = False) -> Tensor:
    """Mean cross-entropy of the target against the tracks that the window has not shown up to its position.

    `hidden` [B, L, D], `ids` and `targets` int64 [B, L] (0 = padding), `table` [N+1, D]; `half` as in `softmax_loss`.
    Evaluation takes tracks that a playlist has already out of the candidates; here training does the same, so the model
    need not learn to push them down. It is the full softmax with the seen tracks' share removed from the denominator:
    log(Z - Σ_seen e^s) = log Z + log(1 - Σ_seen p), at the cost of one [B, L, L] product.
    """
    L, real = ids.shape[1], targets > 0
    past = torch.ones(L, L, dtype=torch.bool, device=ids.device).tril()
    seen = past & (ids[:, None, :] != targets[:, :, None])  # [B, L, L]; a repeated target stays a candidate
    if half:
        log_z = HalfLogZ.apply(hidden[real], table, targets[real], (ids[:, None, :] * seen)[real])
        return log_z - _own(hidden[real], targets[real], table).mean()
    full = _full_softmax(hidden[real], targets[real], table, "none")  # log Z - own score, [T]
    own = _own(hidden[real], targets[real], table)
    scores = hidden @ F.embedding(ids, table).transpose(1, 2)  # [B, L, L]: position t against the track at place j
    repeat = ((ids[:, :, None] == ids[:, None, :]) & past.tril(-1)).any(2)  # counts once
    seen = (seen & (~repeat & (ids > 0))[:, None, :])[real]  # [T, L]
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
    last = (targets > 0).sum(1, keepdim=True).sub(1).clamp(min=0)
    window[:, -1] = targets.gather(1, last).squeeze(1)

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
            taken = torch.stack([flat == column.unsqueeze(1) for column in window.unbind(1)]).any(0)
            taken = taken.view(negatives.shape)
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
