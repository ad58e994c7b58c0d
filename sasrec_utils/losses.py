"""What to minimise: four ways to say that the next track should score higher than the others.

All take the hidden states and targets of real positions only, `hidden` [T, D] and `targets` int64 [T] in 1…N, and
return the mean over them, in nats (softmax) or in the loss's own unit. None of them ever holds T × N numbers, so memory
stays bounded at any catalogue size (a batch of 128 × 50 positions over 2.26 million tracks would need 58 GB).

| loss | sees | source |
|---|---|---|
| `softmax_loss` | every track | Hidasi & Karatzoglou 2018; Klenitskiy & Vasilev, RecSys 2023 |
| `sampled_softmax_loss` | some negatives of each position | Bengio & Senécal 2008 (logQ correction) |
| `bce_loss` | one negative of each position | Kang & McAuley 2018, section 3.5 |
| `gbce_loss` | some negatives of each position | gSASRec, Petrov & Macdonald, RecSys 2023, equation 12 |

Taught in notebook 05 §7.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "LogZ",
    "bce_loss",
    "draw_negatives",
    "fast_bfloat16",
    "gbce_beta",
    "gbce_loss",
    "sampled_softmax_loss",
    "seen_tracks",
    "softmax_loss",
    "start_bias",
    "unseen_softmax_loss",
]

CHUNK_SCORES = 1 << 21  # scores of all tracks that exist at one time (8 MB in float32: they stay in the cache)


def softmax_loss(hidden: Tensor, targets: Tensor, table: Tensor, half: bool = False) -> Tensor:
    """Mean cross-entropy of the target against all N tracks: -log softmax(table · h)[target].

    `table` [N+1, D], row 0 is padding and takes no part. Positions are taken a few at a time, at least 64, else as many
    as give `CHUNK_SCORES` scores, and their gradients made on the way. Same value and gradients as
    `F.cross_entropy(hidden @ table[1:].T, targets - 1)`; with `half`, scores and probabilities in between are bfloat16
    (see `LogZ`) and the target's own score float32.
    """
    if half:
        return (LogZ.apply(hidden, table, targets, None, True, None) - _own(hidden, targets, table)).mean()
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=max(64, CHUNK_SCORES // len(table)))
    return F.linear_cross_entropy(hidden, table[1:], targets - 1, options=options)


def unseen_softmax_loss(
    hidden: Tensor,
    ids: Tensor,
    targets: Tensor,
    table: Tensor,
    half: bool = False,
    pointed: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Mean cross-entropy of the target against the tracks that the window has not shown up to its position.

    `hidden` [B, L, D], `ids` and `targets` int64 [B, L] (0 = padding), `table` [N+1, D]; `half` as in `softmax_loss`.
    Evaluation takes tracks that a playlist has already out of the candidates; here training does the same, so the model
    need not learn to push them down. A repeated target stays a candidate. Under autocast it is float32 all the same,
    or bfloat16 with `half`.

    `pointed`: log p(generate) and the target's probability by the pointer, both [B, L], of a model that has one. The
    loss is then that of the mixture, -log(p(generate) softmax(target) + pointer(target)) (`pointer.Pointer`).
    """
    real, out = targets > 0, seen_tracks(ids, targets)
    with torch.autocast(hidden.device.type, enabled=False):
        hidden, y = hidden[real].float(), targets[real]
        own = _own(hidden, y, table)
        if pointed is None:
            return (LogZ.apply(hidden, table, y, out, half, None) - own).mean()
        generate, pointer = (part[real] for part in pointed)
        other = pointer.clamp(min=torch.finfo(pointer.dtype).tiny).log() - generate
        log_z = LogZ.apply(hidden, table, y, out, half, (own - other).detach())
        return -(generate + torch.logaddexp(own - log_z, other)).mean()


def seen_tracks(ids: Tensor, targets: Tensor) -> Tensor:
    """What the window has shown up to each real position, without the position's target: track ids [T, L], 0 = none."""
    L = ids.shape[1]
    past = torch.ones(L, L, dtype=torch.bool, device=ids.device).tril()
    shown = past & (ids[:, None, :] != targets[:, :, None])  # [B, L, L]: at position t, is the track at place j out?
    return (ids[:, None, :] * shown)[targets > 0]


def _own(hidden: Tensor, targets: Tensor, table: Tensor) -> Tensor:
    """The targets' scores, [T]. By F.embedding: two threads add up the gradient of table[targets] in no fixed order."""
    return (hidden * F.embedding(targets, table)).sum(-1)


class LogZ(torch.autograd.Function):
    """log Σ exp(scores) of each position over its candidates, [T].

    `apply(hidden, table, targets, out, half, level)`: shapes as in `softmax_loss`; `out` int64 [T, S] names tracks that
    are no candidates at a position (0 = none), or is None. Gradients are made on the way, while a chunk's scores are at
    hand, so how much each position weighs in the loss must be known by then: all the same, or, with `level` [T], as
    σ(level - log Z), which is how much of a target's probability in a mixture comes from the softmax.

    With `half` scores and probabilities are bfloat16: half the bytes and, where the CPU has bfloat16 instructions, 1.5
    times the speed of float32. All sums are float32; a score near 10 is off by at most 0.03, as often up as down.
    """

    @staticmethod
    def forward(
        ctx,
        hidden: Tensor,
        table: Tensor,
        targets: Tensor,
        out: Tensor | None,
        half: bool,
        level: Tensor | None,
    ) -> Tensor:
        T, chunk = len(hidden), max(64, (2 if half else 1) * CHUNK_SCORES // len(table) // 32 * 32)
        # Rows of zeros up to a multiple of 32: few different shapes, for each of which a kernel is made and kept.
        h, E = F.pad(hidden, (0, 0, 0, -T % 32)), table
        if half:
            h, E = h.bfloat16(), E.bfloat16()
        y = F.pad(targets, (0, -T % 32), value=1)[:, None]
        log_z, weight = torch.empty(len(h), device=h.device), torch.ones(len(h), device=h.device)
        wanted = any(ctx.needs_input_grad)
        if wanted:
            d_hidden, d_table = torch.empty(h.shape, device=h.device), torch.zeros(E.shape, device=h.device)
        for first in range(0, len(h), chunk):
            part = slice(first, first + chunk)
            scores = h[part] @ E.T  # [chunk, N+1]
            scores[:, 0] = -torch.inf
            if out is not None:
                scores[: T - first].scatter_(1, out[part], -torch.inf)
            p = scores.softmax(1)
            log_z[part] = _log_z(scores, p, y[part])
            if level is not None:
                weight[first:T][:chunk] = torch.sigmoid(level[part] - log_z[first:T][:chunk])
            if wanted:
                d_hidden[part] = p @ E
                d_table += p.T @ (h[part] * weight[part, None].to(h.dtype))
        if wanted:
            ctx.save_for_backward(d_hidden[:T], d_table, weight[:T].sum())
        return log_z[:T]

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_table, weights = ctx.saved_tensors
        d_table = d_table * (grad.sum() / weights.clamp(min=torch.finfo(weights.dtype).tiny))
        return d_hidden * grad[:, None], d_table, None, None, None, None


def _log_z(scores: Tensor, p: Tensor, targets: Tensor) -> Tensor:
    """log Z [T] from scores and their softmax, both [T, N+1], without a sum over all tracks.

    Any track gives it: log Z = score - log p. The target's is at hand, unless its p is too small a number to have all
    its digits; then the best track's is taken. `targets` [T, 1].
    """
    s, share = scores.gather(1, targets), p.gather(1, targets)
    if (share < torch.finfo(p.dtype).tiny).any():
        s, share = scores.amax(1, keepdim=True), p.amax(1, keepdim=True)
    return (s.float() - share.float().log()).squeeze(1)


def fast_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16 products; without them they are much slower than float32."""
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def draw_negatives(
    ids: Tensor, targets: Tensor, n_items: int, k: int, generator: torch.Generator | None = None, rounds: int = 10
) -> Tensor:
    """`k` negatives for each position, int64 [B, L, k], uniform over the tracks that the window does not hold.

    `ids`, `targets` int64 [B, L], 0 = padding. A negative that stands in the window (as input or target) is drawn
    again, at most `rounds` times, so this ends even where a window holds nearly every track; a negative that equals
    its own target is impossible whatever happens, unless there is but one track (ValueError). Negatives are drawn anew
    at each call, not once for all epochs.
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
    hidden: Tensor,
    targets: Tensor,
    positive: Tensor,
    negative: Tensor,
    negatives: Tensor,
    log_q: Tensor,
    out: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of the target against k drawn tracks, with the logQ correction.

    `positive` [T, D] are the vectors of the targets; `negatives` int64 [T, k] the tracks drawn for each position and
    `negative` [T, k, D] their vectors, or [k] and [k, D] if all positions share one draw. `log_q` [N+1]: the log of
    the probability with which each track is drawn. Scores of negatives are lowered by log(k q): the loss then
    estimates the full softmax (Bengio & Senécal 2008, equation 5). A negative that is a position's own target does not
    count there, nor one that is among the tracks `out` [T, S] of its position (0 = none): with `seen_tracks` the loss
    estimates `unseen_softmax_loss`.
    """
    own = (hidden * positive).sum(-1, keepdim=True)  # [T, 1]
    scores = _products(hidden, negative) - (log_q[negatives] + math.log(negatives.shape[-1]))
    void = targets[:, None] == negatives
    if out is not None:
        void = void | (negatives.expand(len(out), -1)[:, :, None] == out[:, None, :]).any(2)
    scores = scores.masked_fill(void, -torch.inf)
    return (torch.logsumexp(torch.cat([own, scores], 1), 1) - own.squeeze(1)).mean()


def _products(hidden: Tensor, vectors: Tensor) -> Tensor:
    """[T, k]: of each hidden state with its own vectors [T, k, D], or with those that all share [k, D]."""
    if vectors.ndim == 2:
        return hidden @ vectors.T
    return (vectors @ hidden.unsqueeze(-1)).squeeze(-1)


def bce_loss(hidden: Tensor, positive: Tensor, negative: Tensor, bias: float = 0.0) -> Tensor:
    """The paper's loss: -log σ(target) - Σ log(1 - σ(negative)), mean over positions (equation in section 3.5).

    `positive` [T, D], `negative` [T, k, D]; k = 1 in the paper. `bias` is added to every score.
    """
    return gbce_loss(hidden, positive, negative, beta=1.0, bias=bias)


def gbce_loss(
    hidden: Tensor,
    positive: Tensor,
    negative: Tensor,
    beta: float,
    same: Tensor | None = None,
    bias: float = 0.0,
) -> Tensor:
    """Generalised BCE: -β log σ(target) - Σ log(1 - σ(negative)), mean over positions; β = 1 is `bce_loss`.

    `positive` [T, D]; `negative` [T, k, D], or [k, D] if the batch shares them; then `same` bool [T, k] says which of
    them are a position's own target and do not count there. β undoes the over-confidence that few negatives bring
    (gSASRec, equations 11–12); see `gbce_beta`. `bias` is added to every score: `start_bias` says where to start. The
    paper divides by k + 1; here nothing does, so that with one negative this is the SASRec paper's own loss, and Adam's
    steps are the same whatever a loss is multiplied by.
    """
    own = (hidden * positive).sum(-1) + bias
    others = _products(hidden, negative) + bias
    if same is not None:
        others = others.masked_fill(same, -torch.inf)  # log(1 - σ(-∞)) = 0
    return (F.softplus(-own) * beta + F.softplus(others).sum(-1)).mean()


def start_bias(beta: float, k: int) -> float:
    """The `bias` of `gbce_loss` that makes an untrained model's scores, which are all near 0, the best constant ones.

    With k negatives drawn from N tracks alike, the loss of a track that has share p of the targets is smallest where
    σ / (1 - σ) = β p N / k; for p = 1 / N that is a score of ln(β / k). Without it the first steps, all of them, push
    every score down instead of telling tracks apart.
    """
    return math.log(beta / k)


def gbce_beta(n_items: int, k: int, calibration: float = 0.75) -> float:
    """β of `gbce_loss` for k negatives out of N tracks: α (t (1 - 1/α) + 1/α), α = k / (N - 1) (gSASRec, equation 11).

    `calibration` t in [0, 1]: 0 is plain BCE, 1 makes the scores' probabilities those of the full softmax. Raises
    ValueError for a catalogue of one track, which has no negatives.
    """
    if n_items < 2:
        raise ValueError("negatives need a catalogue of at least two tracks")
    alpha = min(1.0, k / (n_items - 1))
    return alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)
