"""Scores into ranks and lists: batches of bounded size, ties that favour nobody, negatives drawn fairly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import numpy as np
import torch

from sasrec_utils.sequences import Sequences

__all__ = [
    "alive_targets",
    "batch_ranks",
    "checked_targets",
    "ranks",
    "sampled_ranks",
    "score_batches",
    "top_k",
    "unchanged",
]

# Scores of one batch never take more than this many entries (256 MB of float32), however large the catalogue.
MAX_SCORES = 1 << 26
# What needs a copy of the scores makes it of this many entries at a time (32 MB of float64).
BLOCK = 1 << 22


def ranks(
    scorer, histories: Sequences, targets: np.ndarray, *, exclude_seen: bool = True, batch_size: int = 256
) -> np.ndarray:
    """Rank of each playlist's target among all N tracks, int64 [U], 1 = best.

    `histories`: U playlists in model ids. `targets`: int [U]. Candidates are the tracks 1..N, without those already in
    the history when `exclude_seen`. Ties count against the target, rank = 1 + #{other candidates with a score at least
    as high}: a scorer that gives every track the same score comes out last, never better than chance. Rank 0 means
    *lost*: the target is unknown (above N), already in the history (when `exclude_seen`), or there is none (0). Raises
    ValueError naming the scorer when a score is NaN or the scores have the wrong shape; -inf is allowed. Taught in
    notebook 06 §1.
    """
    targets = checked_targets(histories, targets)
    found = np.zeros(len(histories), dtype=np.int64)
    with unchanged(scorer):
        for rows, part, scores in score_batches(scorer, histories, batch_size):
            found[rows] = batch_ranks(scores, part, targets[rows], exclude_seen)
    return found


def sampled_ranks(
    scorer,
    histories: Sequences,
    targets: np.ndarray,
    *,
    n_negatives: int = 100,
    seed: int = 0,
    negatives: np.ndarray | None = None,
    batch_size: int = 256,
) -> np.ndarray:
    """Rank of each target among itself and some random tracks, int64 [U]: the SASRec paper's protocol.

    Negatives are distinct, uniform over the tracks that are neither in the history nor the target (arXiv 1808.09781,
    "Evaluation Metrics"); a playlist with fewer such tracks gets all of them. Fixed `negatives` (int [U, n], ids 1..N,
    0 = none) may be given instead. Ties and rank 0 as in `ranks`. Raises ValueError for negatives of another shape or
    beyond N. Taught in notebook 06 §7.
    """
    targets = checked_targets(histories, targets)
    if negatives is None:
        negatives = _draw_negatives(histories, targets, scorer.n_items, n_negatives, seed)
    else:
        negatives = _checked_negatives(negatives, len(histories), scorer.n_items)
    found = np.zeros(len(histories), dtype=np.int64)
    with unchanged(scorer):
        for rows, part, scores in score_batches(scorer, histories, batch_size):
            alive = alive_targets(part, targets[rows], scores.shape[1] - 1, exclude_seen=True)
            drawn = negatives[rows]
            index = np.arange(len(part))
            own = scores[index, np.where(alive, targets[rows], 0)]
            beaten_by = (scores[index[:, None], drawn] >= own[:, None]) & (drawn > 0)
            found[rows] = np.where(alive, 1 + beaten_by.sum(axis=1), 0)
    return found


def _checked_negatives(negatives: np.ndarray, n_users: int, n_items: int) -> np.ndarray:
    negatives = np.asarray(negatives)
    if negatives.ndim != 2 or len(negatives) != n_users or negatives.dtype.kind not in "iu":
        raise ValueError(
            f"{n_users} histories need as many rows of negatives, whole numbers [{n_users}, n], "
            f"got {negatives.dtype} of shape {negatives.shape}"
        )
    if negatives.size and not (negatives.min() >= 0 and negatives.max() <= n_items):
        raise ValueError(
            f"negatives must be ids from 1 to {n_items} (0 = none), got {negatives.min()} to {negatives.max()}"
        )
    return negatives


def top_k(scores: np.ndarray, k: int, exclude: Sequences | None = None) -> np.ndarray:
    """Ids of the `k` best tracks of each row, best first, int64 [B, k].

    `scores`: [B, N + 1]; left unchanged. `exclude`: one playlist per row whose tracks are left out (ids above N in it
    are ignored). Equal scores are parted by a fixed shuffle of the ids, at the cut too. By id would not do: ids follow
    the plays, so a scorer that tells all tracks alike would list the popular ones, and score well. Tracks with a score
    of -inf are never returned: where fewer than `k` are left, the rest is 0. Raises ValueError when `exclude` has
    another number of rows and when a score is NaN. Taught in notebook 06 §1.
    """
    scores = np.asarray(scores)
    if exclude is not None and len(exclude) != len(scores):
        raise ValueError(f"{len(scores)} rows of scores need as many playlists to exclude, got {len(exclude)}")
    n_items = scores.shape[1] - 1
    shown = min(k, n_items)
    out = np.zeros((len(scores), k), dtype=np.int64)
    if shown == 0:
        return out
    # In float64 if they come so: in float32 near scores would be equal here and different in `ranks`.
    dtype = scores.dtype if scores.dtype in (np.float32, np.float64) else np.float64
    step = max(1, BLOCK // (n_items + 1))
    for first in range(0, len(scores), step):
        part = np.array(scores[first : first + step], dtype=dtype)
        part[:, 0] = -np.inf
        if exclude is not None:
            seen = exclude.take(np.arange(first, first + len(part)))
            known = seen.items <= n_items
            part[seen.owner[known], seen.items[known]] = -np.inf
        out[first : first + len(part), :shown] = _best(part, shown)
    return out


def _best(scores: np.ndarray, k: int) -> np.ndarray:
    """Ids of the `k` best of each row, 1 <= k <= N; -inf gives 0. `scores` [B, N + 1], column 0 -inf."""
    place = _shuffled(scores.shape[1])
    # One more than asked for: where it is as good as the last one in, the cut goes through equals.
    best, ids = (x.numpy() for x in torch.topk(torch.from_numpy(scores), min(k + 1, scores.shape[1]), dim=1))
    if np.isnan(best[:, 0]).any():
        raise ValueError("a score is NaN: the best tracks would mean nothing")
    for row in np.flatnonzero((best[:, k - 1] == best[:, k]) & (best[:, k] > -np.inf)):
        better = np.count_nonzero(best[row] > best[row, k])
        equal = np.flatnonzero(scores[row] == best[row, k])
        ids[row, better:k] = equal[np.argpartition(place[equal], k - better - 1)[: k - better]]
    best, ids = best[:, :k], ids[:, :k]
    order = np.lexsort((place[ids], -best), axis=1)
    best, ids = np.take_along_axis(best, order, 1), np.take_along_axis(ids, order, 1)
    return np.where(best > -np.inf, ids, 0)


@lru_cache(maxsize=4)
def _shuffled(size: int) -> np.ndarray:
    """Place of each id in a shuffle that is the same in every process, int64 [size]."""
    return np.random.default_rng(0).permutation(size)


def unchanged(scorer) -> AbstractContextManager:
    """A context in which the scorer is called many times with the same weights: its own `unchanged()` if it has one.

    SASRec makes its table of N scoring vectors for every call, which takes seconds for a million tracks. Within this
    context it makes the table once.
    """
    own = getattr(scorer, "unchanged", None)
    return nullcontext() if own is None else own()


def checked_targets(histories: Sequences, targets: np.ndarray) -> np.ndarray:
    """The targets as int64 [U]; raises ValueError when there are not as many as histories."""
    targets = np.asarray(targets)
    if targets.shape != (len(histories),):
        raise ValueError(f"{len(histories)} histories need as many targets, got shape {targets.shape}")
    return targets.astype(np.int64, copy=False)


def rows_at_once(scorer, batch_size: int) -> int:
    """How many histories to score at once: `batch_size`, or as many as MAX_SCORES allows."""
    return max(1, min(batch_size, MAX_SCORES // (scorer.n_items + 1)))


def checked_scores(scorer, histories: Sequences) -> np.ndarray:
    """The scorer's scores [B, N + 1]; raises ValueError naming it when their shape is wrong or one is NaN."""
    scores = np.asarray(scorer.score(histories))
    if scores.shape != (len(histories), scorer.n_items + 1):
        raise ValueError(
            f"{scorer.name} gave scores of shape {scores.shape} for {len(histories)} histories "
            f"and {scorer.n_items} tracks, not {(len(histories), scorer.n_items + 1)}"
        )
    if np.isnan(scores[:, 1:]).any():
        raise ValueError(f"{scorer.name} gave NaN as a score: its ranking would mean nothing")
    return scores


def score_batches(scorer, histories: Sequences, batch_size: int) -> Iterator[tuple[slice, Sequences, np.ndarray]]:
    """Checked scores, a batch of playlists at a time: (rows, their histories, scores [B, N + 1])."""
    size = rows_at_once(scorer, batch_size)
    for start in range(0, len(histories), size):
        rows = slice(start, min(start + size, len(histories)))
        part = histories.take(np.arange(rows.start, rows.stop))
        yield rows, part, checked_scores(scorer, part)


def seen_pairs(histories: Sequences, n_items: int) -> tuple[np.ndarray, np.ndarray]:
    """(playlist, track) of every known track in the histories, each pair once, sorted."""
    known = histories.items <= n_items
    pairs = np.unique(histories.owner[known] * np.int64(n_items + 1) + histories.items[known])
    return np.divmod(pairs, n_items + 1)


def alive_targets(histories: Sequences, targets: np.ndarray, n_items: int, exclude_seen: bool) -> np.ndarray:
    """Which targets can be ranked at all, bool [B]."""
    alive = (targets > 0) & (targets <= n_items)
    if exclude_seen:
        owner = histories.owner
        alive[owner[histories.items == targets[owner]]] = False
    return alive


def batch_ranks(scores: np.ndarray, histories: Sequences, targets: np.ndarray, exclude_seen: bool) -> np.ndarray:
    """`ranks` of one batch whose scores [B, N + 1] are there already."""
    n_items = scores.shape[1] - 1
    alive = alive_targets(histories, targets, n_items, exclude_seen)
    own = scores[np.arange(len(targets)), np.where(alive, targets, 0)]
    # Counting the target itself among the tracks at least as good stands for the 1 of "rank = 1 + others".
    found = np.count_nonzero(scores[:, 1:] >= own[:, None], axis=1)
    if exclude_seen:
        # Seen tracks are counted back out: cheaper than masking them in a copy of the scores.
        rows, tracks = seen_pairs(histories, n_items)
        found -= np.bincount(rows[scores[rows, tracks] >= own[rows]], minlength=len(targets))
    return np.where(alive, found, 0)


def _draw_negatives(histories: Sequences, targets: np.ndarray, n_items: int, n: int, seed: int) -> np.ndarray:
    """`n` distinct tracks per playlist, neither in its history nor its target; int64 [U, n], 0 = none left.

    Numbers are drawn among the m tracks that are allowed and then shifted past those that are not, so nothing is ever
    drawn again and a playlist that holds nearly every track costs no more than another.
    """
    n_users = len(histories)
    # Excluded (playlist, track) pairs: history and target together, each once, sorted.
    rows, tracks = seen_pairs(histories, n_items)
    own = np.flatnonzero((targets > 0) & (targets <= n_items))
    pairs = np.unique(np.concatenate((rows * (n_items + 1) + tracks, own * (n_items + 1) + targets[own])))
    rows, tracks = np.divmod(pairs, n_items + 1)
    n_excluded = np.bincount(rows, minlength=n_users)
    first = np.concatenate(([0], np.cumsum(n_excluded)))[:-1]
    allowed = n_items - n_excluded

    # Floyd's sampling (Communications of the ACM 30, 1987), all playlists at once: step i draws from 0..top
    # and takes top itself when the number drawn is there already. Distinct and uniform in n steps.
    rng = np.random.default_rng(seed)
    size = np.minimum(n, allowed)
    drawn = np.full((n_users, n), -1, dtype=np.int64)
    for i in range(n):
        top = allowed - size + i  # beyond its size a playlist's draws are thrown away below
        number = rng.integers(0, np.maximum(top, 0) + 1)
        there = (drawn[:, :i] == number[:, None]).any(axis=1)
        drawn[:, i] = np.where(i < size, np.where(there, top, number), -1)

    # Allowed track number j (from 0) is 1 + j + the number of excluded tracks before it. An excluded track
    # has `track - 1 - (excluded before it)` allowed ones before it; one sorted array serves all playlists.
    before = tracks - 1 - (np.arange(len(tracks)) - first[rows])
    found = np.searchsorted(
        rows * (n_items + 1) + before, np.arange(n_users)[:, None] * (n_items + 1) + drawn, side="right"
    )
    return np.where(drawn >= 0, 1 + drawn + found - first[:, None], 0)
