"""Ranks into numbers, and numbers into intervals."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import betaincinv

from sasrec_utils.evaluation.ranking import BLOCK, checked_scores, rows_at_once, seen_pairs, unchanged
from sasrec_utils.sequences import Sequences

__all__ = ["Interval", "intervals", "log_likelihood", "ndcg_at", "paired_interval", "recall_at", "reciprocal_rank"]


def recall_at(ranks: np.ndarray, k: int) -> np.ndarray:
    """1 where the target is among the best `k`, else 0; float64 over the targets not lost (rank > 0).

    With one target per playlist this is also called the hit rate. Taught in notebook 06 §2.
    """
    kept = ranks[ranks > 0]
    return (kept <= k).astype(np.float64)


def ndcg_at(ranks: np.ndarray, k: int) -> np.ndarray:
    """1 / log2(rank + 1) where the target is among the best `k`, else 0; float64 over the targets not lost.

    The ideal is the target at rank 1, which gives 1, so 0 <= ndcg <= recall <= 1 (Järvelin and Kekäläinen 2002). Taught
    in notebook 06 §2.
    """
    kept = ranks[ranks > 0]
    return np.where(kept <= k, 1.0 / np.log2(kept + 1.0), 0.0)


def reciprocal_rank(ranks: np.ndarray) -> np.ndarray:
    """1 / rank, with no cut-off; float64 over the targets not lost. Taught in notebook 06 §2."""
    return 1.0 / ranks[ranks > 0]


def log_likelihood(scorer, seqs: Sequences, *, exclude_seen: bool = True, batch_size: int = 256) -> np.ndarray:
    """log p(x_t | x_<t) in nats of every row of `seqs`, float64 [R], by a scorer whose scores are logits.

    SASRec's are: a softmax over the candidates makes them probabilities. Candidates are the known tracks, with
    `exclude_seen` without those earlier in the playlist (a repeat itself stays one), as in `ranks` and in
    `losses.unseen_softmax_loss`. NaN for what there is no answer to: the first row of a playlist, and unknown tracks.
    Minus the mean is comparable to the oracle's, row by row. Each row is a history of its own, so this costs as much as
    ranking R playlists: give a sample of them where the catalogue is large. Taught in notebook 05 §8.
    """
    owner = seqs.owner
    place = np.arange(len(seqs.items)) - seqs.offsets[owner]
    rows = np.flatnonzero((place > 0) & (seqs.items <= scorer.n_items))
    rows = rows[np.argsort(place[rows], kind="stable")]  # histories of one batch are about equally long
    found = np.full(len(seqs.items), np.nan)
    size, step = rows_at_once(scorer, batch_size), max(1, BLOCK // (scorer.n_items + 1))
    with unchanged(scorer):
        for first in range(0, len(rows), size):
            batch = rows[first : first + size]
            histories = seqs._spans(seqs.offsets[owner[batch]], batch)
            scores = checked_scores(scorer, histories)
            for begin in range(0, len(batch), step):  # the sums are in float64, in copies of bounded size
                part = batch[begin : begin + step]
                seen = histories.take(np.arange(begin, begin + len(part))) if exclude_seen else None
                found[part] = _log_softmax_at(scores[begin : begin + step], seqs.items[part], seen)
    return found


def _log_softmax_at(scores: np.ndarray, targets: np.ndarray, seen: Sequences | None) -> np.ndarray:
    """Logarithm of the target's share in a softmax over the tracks not `seen`, float64 [B]."""
    index = np.arange(len(targets))
    scores = np.array(scores, dtype=np.float64)
    own = scores[index, targets]
    scores[:, 0] = -np.inf
    if seen is not None:
        scores[seen_pairs(seen, scores.shape[1] - 1)] = -np.inf
        scores[index, targets] = own
    top = scores.max(axis=1, keepdims=True)
    scores -= top
    np.exp(scores, out=scores)
    return own - top[:, 0] - np.log(scores.sum(axis=1))


# Intervals -------------------------------------------------------------------------------------------


class Interval(NamedTuple):
    """A mean and the ends of its 95 % interval. Taught in notebook 06 §3."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def intervals(values: dict[str, np.ndarray], n_boot: int, seed: int) -> dict[str, Interval]:
    """Interval of the mean of each metric over playlists; `values`: float64 [U] each, NaN = does not count.

    Where every value is 0 or 1, as for Recall with one target, the mean is a share and gets the exact interval of one
    (`_share`); all others get a bootstrap (`_bootstrap`), and those that count the same playlists share its resamples.
    Metrics that can exceed 1 (`UNBOUNDED`) are never taken for shares.
    """
    found: dict[str, Interval] = {}
    groups: dict[bytes, list[str]] = {}
    for name, column in values.items():
        counted = column[~np.isnan(column)]
        if name not in UNBOUNDED and ((counted == 0) | (counted == 1)).all():
            found[name] = _share(int(counted.sum()), len(counted))
        else:
            groups.setdefault(np.isnan(column).tobytes(), []).append(name)
    for names in groups.values():
        columns = np.stack([values[name] for name in names], axis=1)
        counted = ~np.isnan(columns[:, 0])
        found |= dict(zip(names, _bootstrap(columns[counted], n_boot, seed), strict=True))
    return {name: found[name] for name in values}


UNBOUNDED = ("clicks", "r_precision_artist")


def paired_interval(differences: np.ndarray, n_boot: int, seed: int) -> Interval:
    """Bootstrap interval of the mean of differences taken playlist by playlist, float64 [U]."""
    return _bootstrap(differences[:, None], n_boot, seed)[0]


def _share(hits: int, n: int) -> Interval:
    """Exact 95 % interval of a share, `hits` of `n` (Clopper and Pearson, Biometrika 26, 1934).

    Its ends are the shares under which as many hits, or as few, would still come in one case of forty. A bootstrap
    cannot know that what it has never seen is possible: 73 hits of 73 are [1, 1] to it and [0.951, 1] here.
    """
    if n == 0:
        return Interval(np.nan, np.nan, np.nan)
    low = 0.0 if hits == 0 else float(betaincinv(hits, n - hits + 1, 0.025))
    high = 1.0 if hits == n else float(betaincinv(hits + 1, n - hits, 0.975))
    return Interval(hits / n, low, high)


def _bootstrap(values: np.ndarray, n_boot: int, seed: int) -> list[Interval]:
    """95 % percentile bootstrap interval of the mean of each column of `values` [U, M] (Efron 1979)."""
    n = len(values)
    if n == 0:
        return [Interval(np.nan, np.nan, np.nan)] * values.shape[1]
    rng = np.random.default_rng(seed)
    means = []
    block = max(1, (1 << 22) // n)  # resamples at a time: bounds the index matrix to 4 M entries
    for start in range(0, n_boot, block):
        index = rng.integers(0, n, size=(min(block, n_boot - start), n), dtype=np.int32)
        means.append(np.stack([column[index].mean(axis=1) for column in values.T], axis=1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5], axis=0)
    return [Interval(*map(float, ends)) for ends in zip(values.mean(axis=0), low, high, strict=True)]
