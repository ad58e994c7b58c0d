"""Ranks, metrics, intervals and protocols: how good a scorer is, and how sure we can be of it.

A *scorer* is any object with a `name`, a number of tracks `n_items` (N) and a method
`score(histories: Sequences) -> array [B, N + 1]`: one score per history and track, higher is better, column 0
is padding and is never read. Popularity, Markov, nearest neighbours, SASRec, their blend and the oracle of
the made-up world all are scorers, and nothing here knows which one it is judging.

Three protocols, always named in the report:

- `full`: the next track is ranked among all N tracks that the playlist does not hold yet. The headline.
- `sampled`: it is ranked among 100 random tracks only, as in the SASRec paper. The numbers are many times
  higher and can order models differently (Krichene and Rendle, KDD 2020): never compare the two.
- `continuation`: the RecSys Challenge 2018 task, 500 tracks for a playlist given its first few.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from sasrec_utils.sequences import Sequences

__all__ = [
    "Interval",
    "Report",
    "compare",
    "continuation",
    "evaluate",
    "log_likelihood",
    "ndcg_at",
    "ranks",
    "recall_at",
    "reciprocal_rank",
    "sampled_ranks",
    "table",
    "top_k",
]

# Scores of one batch never take more than this many entries (256 MB of float32), however large the catalogue.
MAX_SCORES = 1 << 26


# Ranks -----------------------------------------------------------------------------------------------


def ranks(
    scorer, histories: Sequences, targets: np.ndarray, *, exclude_seen: bool = True, batch_size: int = 256
) -> np.ndarray:
    """Rank of each playlist's target among all N tracks, int64 [U], 1 = best.

    `histories`: U playlists in model ids. `targets`: int [U]. Candidates are the tracks 1..N, without those
    already in the history when `exclude_seen`. Ties count against the target, rank = 1 + #{other candidates
    with a score at least as high}: a scorer that gives every track the same score comes out last, never
    better than chance. Rank 0 means *lost*: the target is unknown (above N), already in the history (when
    `exclude_seen`), or there is none (0). Raises ValueError naming the scorer when a score is NaN or the
    scores have the wrong shape; -inf is allowed. Taught in notebook 05 §1.
    """
    targets = _checked_targets(histories, targets)
    found = np.zeros(len(histories), dtype=np.int64)
    for rows, part, scores in _score_batches(scorer, histories, batch_size):
        found[rows] = _batch_ranks(scores, part, targets[rows], exclude_seen)
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

    Negatives are distinct, uniform over the tracks that are neither in the history nor the target (arXiv
    1808.09781, section 4.1); a playlist with fewer such tracks gets all of them. Fixed `negatives` (int [U,
    n], 0 = none) may be given instead. Ties and rank 0 as in `ranks`. Taught in notebook 05 §7.
    """
    targets = _checked_targets(histories, targets)
    if negatives is None:
        negatives = _draw_negatives(histories, targets, scorer.n_items, n_negatives, seed)
    found = np.zeros(len(histories), dtype=np.int64)
    for rows, part, scores in _score_batches(scorer, histories, batch_size):
        alive = _alive(part, targets[rows], scores.shape[1] - 1, exclude_seen=True)
        drawn = negatives[rows]
        index = np.arange(len(part))
        own = scores[index, np.where(alive, targets[rows], 0)]
        beaten = (scores[index[:, None], drawn] >= own[:, None]) & (drawn > 0)
        found[rows] = np.where(alive, 1 + beaten.sum(axis=1), 0)
    return found


def top_k(scores: np.ndarray, k: int, exclude: Sequences | None = None) -> np.ndarray:
    """Ids of the `k` best tracks of each row, best first, int64 [B, k].

    `scores`: [B, N + 1]; left unchanged. `exclude`: one playlist per row whose tracks are left out (ids
    above N in it are ignored). Equal scores come out in order of id; which of them get in at the cut is
    open. Tracks with a score of -inf are never returned: where fewer than `k` are left, the rest is 0.
    Taught in notebook 05 §1.
    """
    scores = np.array(scores, dtype=np.float32)
    scores[:, 0] = -np.inf
    n_items = scores.shape[1] - 1
    if exclude is not None:
        known = exclude.items <= n_items
        scores[exclude.owner[known], exclude.items[known]] = -np.inf
    best, ids = (part.numpy() for part in torch.topk(torch.from_numpy(scores), min(k, n_items), dim=1))
    order = np.lexsort((ids, -best), axis=1)
    best, ids = np.take_along_axis(best, order, 1), np.take_along_axis(ids, order, 1)
    out = np.zeros((len(scores), k), dtype=np.int64)
    out[:, : ids.shape[1]] = np.where(best > -np.inf, ids, 0)
    return out


def _checked_targets(histories: Sequences, targets: np.ndarray) -> np.ndarray:
    targets = np.asarray(targets)
    if targets.shape != (len(histories),):
        raise ValueError(f"{len(histories)} histories need as many targets, got shape {targets.shape}")
    return targets.astype(np.int64, copy=False)


def _score_batches(scorer, histories: Sequences, batch_size: int) -> Iterator[tuple[slice, Sequences, np.ndarray]]:
    """Checked scores, a batch of playlists at a time: (rows, their histories, scores [B, N + 1])."""
    batch_size = max(1, min(batch_size, MAX_SCORES // (scorer.n_items + 1)))
    for start in range(0, len(histories), batch_size):
        rows = slice(start, min(start + batch_size, len(histories)))
        part = histories.take(np.arange(rows.start, rows.stop))
        scores = np.asarray(scorer.score(part))
        if scores.shape != (len(part), scorer.n_items + 1):
            raise ValueError(
                f"{scorer.name} gave scores of shape {scores.shape} for {len(part)} histories "
                f"and {scorer.n_items} tracks, not {(len(part), scorer.n_items + 1)}"
            )
        if np.isnan(scores[:, 1:]).any():
            raise ValueError(f"{scorer.name} gave NaN as a score: its ranking would mean nothing")
        yield rows, part, scores


def _seen(histories: Sequences, n_items: int) -> tuple[np.ndarray, np.ndarray]:
    """(playlist, track) of every known track in the histories, each pair once, sorted."""
    known = histories.items <= n_items
    pairs = np.unique(histories.owner[known] * np.int64(n_items + 1) + histories.items[known])
    return np.divmod(pairs, n_items + 1)


def _alive(histories: Sequences, targets: np.ndarray, n_items: int, exclude_seen: bool) -> np.ndarray:
    """Which targets can be ranked at all, bool [B]."""
    alive = (targets > 0) & (targets <= n_items)
    if exclude_seen:
        owner = histories.owner
        alive[owner[histories.items == targets[owner]]] = False
    return alive


def _batch_ranks(scores: np.ndarray, histories: Sequences, targets: np.ndarray, exclude_seen: bool) -> np.ndarray:
    n_items = scores.shape[1] - 1
    alive = _alive(histories, targets, n_items, exclude_seen)
    own = scores[np.arange(len(targets)), np.where(alive, targets, 0)]
    # Counting the target itself among the tracks at least as good stands for the 1 of "rank = 1 + others".
    found = np.count_nonzero(scores[:, 1:] >= own[:, None], axis=1)
    if exclude_seen:
        # Seen tracks are counted back out: cheaper than masking them in a copy of the scores.
        rows, tracks = _seen(histories, n_items)
        found -= np.bincount(rows[scores[rows, tracks] >= own[rows]], minlength=len(targets))
    return np.where(alive, found, 0)


def _draw_negatives(histories: Sequences, targets: np.ndarray, n_items: int, n: int, seed: int) -> np.ndarray:
    """`n` distinct tracks per playlist, neither in its history nor its target; int64 [U, n], 0 = none left.

    Numbers are drawn among the m tracks that are allowed and then shifted past those that are not, so
    nothing is ever drawn again and a playlist that holds nearly every track costs no more than another.
    """
    n_users = len(histories)
    # Excluded (playlist, track) pairs: history and target together, each once, sorted.
    rows, tracks = _seen(histories, n_items)
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


# Metrics ---------------------------------------------------------------------------------------------


def recall_at(ranks: np.ndarray, k: int) -> np.ndarray:
    """1 where the target is among the best `k`, else 0; float64 over the targets not lost (rank > 0).

    With one target per playlist this is also called the hit rate. Taught in notebook 05 §2.
    """
    kept = ranks[ranks > 0]
    return (kept <= k).astype(np.float64)


def ndcg_at(ranks: np.ndarray, k: int) -> np.ndarray:
    """1 / log2(rank + 1) where the target is among the best `k`, else 0; float64 over the targets not lost.

    The ideal is the target at rank 1, which gives 1, so 0 <= ndcg <= recall <= 1 (Järvelin and Kekäläinen
    2002). Taught in notebook 05 §2.
    """
    kept = ranks[ranks > 0]
    return np.where(kept <= k, 1.0 / np.log2(kept + 1.0), 0.0)


def reciprocal_rank(ranks: np.ndarray) -> np.ndarray:
    """1 / rank, with no cut-off; float64 over the targets not lost. Taught in notebook 05 §2."""
    return 1.0 / ranks[ranks > 0]


def log_likelihood(scorer, seqs: Sequences, *, exclude_seen: bool = True, batch_size: int = 256) -> np.ndarray:
    """log p(x_t | x_<t) in nats of every row of `seqs`, float64 [R], by a scorer whose scores are logits.

    SASRec's are: a softmax over the candidates makes them probabilities. Candidates are the known tracks, with
    `exclude_seen` without those earlier in the playlist (a repeat itself stays one), as in `ranks` and in
    `losses.unseen_softmax_loss`. NaN for what there is no answer to: the first row of a playlist, and unknown tracks.
    Minus the mean is comparable to the oracle's, row by row. Taught in notebook 04 §8.
    """
    owner = seqs.owner
    place = np.arange(len(seqs.items)) - seqs.offsets[owner]
    rows = np.flatnonzero((place > 0) & (seqs.items <= scorer.n_items))
    rows = rows[np.argsort(place[rows], kind="stable")]  # histories of one batch are about equally long
    found = np.full(len(seqs.items), np.nan)
    for first in range(0, len(rows), batch_size):
        part = rows[first : first + batch_size]
        history = seqs._spans(seqs.offsets[owner[part]], part)
        scores = np.array(scorer.score(history), dtype=np.float64)
        own = scores[np.arange(len(part)), seqs.items[part]]
        scores[:, 0] = -np.inf
        if exclude_seen:
            scores[_seen(history, scorer.n_items)] = -np.inf
            scores[np.arange(len(part)), seqs.items[part]] = own
        top = scores.max(axis=1)
        found[part] = own - top - np.log(np.exp(scores - top[:, None]).sum(axis=1))
    return found


class Interval(NamedTuple):
    """A mean and the ends of its 95 % interval. Taught in notebook 05 §3."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


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


# Reports ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """What one scorer did on one set of test playlists.

    `ranks`: int64 [U], 0 = lost (for a continuation: rank of the first hit, 0 = none). `playlists`: how
    many of the U had something to predict; all of them are counted. `targets_kept`: share of their targets
    that a scorer can rank at all. `values`: per playlist, float64 [U] per metric, NaN where the playlist
    does not count. `metrics`: their means with 95 % bootstrap intervals over playlists. `recall@k` and the
    like are over the targets kept; `recall@k_all` is over all targets, a lost one being a miss. `coverage`:
    share of the N tracks that are among the best k of some playlist. `targets` tells whether two reports
    are about the same playlists. Taught in notebook 05 §3.
    """

    name: str
    protocol: str
    k: int
    n_items: int
    ranks: np.ndarray
    targets: np.ndarray
    playlists: int
    targets_kept: float
    values: dict[str, np.ndarray]
    metrics: dict[str, Interval]
    coverage: float

    def row(self) -> dict[str, str | int | float]:
        """The report as one flat row of numbers: each metric with `_low` and `_high`, coverage, counts."""
        row: dict[str, str | int | float] = {"model": self.name, "protocol": self.protocol}
        for metric, interval in self.metrics.items():
            row |= {metric: interval.mean, f"{metric}_low": interval.low, f"{metric}_high": interval.high}
        return row | {"coverage": self.coverage, "targets_kept": self.targets_kept, "playlists": self.playlists}

    def __repr__(self) -> str:
        parts = [f"{metric} {interval}" for metric, interval in self.metrics.items()]
        return (
            f"{self.name}, {self.protocol}: {', '.join(parts)}, coverage {self.coverage:.3f}; "
            f"{self.targets_kept:.1%} of targets kept, {self.playlists:,} playlists"
        )


def evaluate(
    scorer,
    histories: Sequences,
    targets: np.ndarray,
    *,
    k: int = 10,
    protocol: str = "full",
    exclude_seen: bool = True,
    n_boot: int = 1000,
    seed: int = 0,
    batch_size: int = 256,
) -> Report:
    """Judge a scorer on next-track prediction.

    `histories`, `targets`: U playlists and the track that follows each, in model ids. `protocol`: "full"
    ranks among all tracks (`ranks`), "sampled" among 100 random ones drawn with `seed` (`sampled_ranks`).
    Playlists without a target (0) do not count; every other one does. Raises ValueError for an unknown
    protocol and when no playlist has a target. Taught in notebook 05 §3.
    """
    targets = _checked_targets(histories, targets)
    counted = targets > 0
    if not counted.any():
        raise ValueError("no playlist has a target: nothing to evaluate")
    coverage = np.nan  # of the whole catalogue: nothing that a hundred sampled tracks could show
    if protocol == "full":
        found = np.zeros(len(histories), dtype=np.int64)
        shown = np.zeros(scorer.n_items + 1, dtype=bool)
        for rows, part, scores in _score_batches(scorer, histories, batch_size):
            found[rows] = _batch_ranks(scores, part, targets[rows], exclude_seen)
            shown[top_k(scores, k, part if exclude_seen else None)] = True
        coverage = float(shown[1:].mean())
    elif protocol == "sampled":
        found = sampled_ranks(scorer, histories, targets, seed=seed, batch_size=batch_size)
    else:
        raise ValueError(f'protocol must be "full" or "sampled", got {protocol!r}')

    kept = found > 0
    values = {
        f"recall@{k}": np.where(kept, 0.0, np.nan),
        f"ndcg@{k}": np.where(kept, 0.0, np.nan),
        "mrr": np.where(kept, 0.0, np.nan),
        f"recall@{k}_all": np.where(counted, 0.0, np.nan),
    }
    values[f"recall@{k}"][kept] = values[f"recall@{k}_all"][kept] = recall_at(found, k)
    values[f"ndcg@{k}"][kept] = ndcg_at(found, k)
    values["mrr"][kept] = reciprocal_rank(found)
    return Report(
        name=scorer.name,
        protocol=protocol,
        k=k,
        n_items=scorer.n_items,
        ranks=found,
        targets=targets,
        playlists=int(counted.sum()),
        targets_kept=float(kept.sum() / counted.sum()),
        values=values,
        metrics=_intervals(values, n_boot, seed),
        coverage=coverage,
    )


def continuation(
    scorer,
    seeds: Sequences,
    held_out: Sequences,
    artist_of: np.ndarray | None = None,
    *,
    n: int = 500,
    n_boot: int = 1000,
    seed: int = 0,
    batch_size: int = 256,
) -> Report:
    """Judge a scorer on the RecSys Challenge 2018 task: `n` tracks to continue a playlist, seeds excluded.

    `seeds`, `held_out`: U playlists each, in model ids (`continuation_split`). G is the set of held-out
    tracks that are not seeds: a repeat cannot be recommended, so it is not asked for. Unknown tracks stay
    in G and are misses; `targets_kept` is the share of G that is known. Playlists with an empty G do not
    count. `artist_of`: artist of each model id, int [C + 1], 0 = unknown. R is the list of recommended
    tracks. Metrics:

    - `r_precision`: share of G found in the first |G| tracks of R.
    - `r_precision_artist` (only with `artist_of`): the challenge's own, (|S_T ∩ G_T| + 0.25 |S_A ∩ G_A|) /
      |G_T| with the distinct tracks S_T and artists S_A of the first |G| tracks of R (Chen, Lamere, Schedl
      and Zamani, RecSys 2018, doi 10.1145/3240323.3240342). Artists of hits count too: it can exceed 1.
    - `ndcg`: sum of 1 / log2(i + 1) over hits at place i, over that of the first min(|G|, n) places.
    - `ndcg_challenge`: as the challenge's rules print it, with 1 for place 1 and 1 / log2(i) after it, over
      an ideal of only as many places as there are hits. Finding little makes the ideal small, so it mostly
      is the higher one (0.10 against 0.01 for a random scorer): only for the challenge's own numbers.
    - `clicks`: floor((place of the first hit - 1) / 10), 51 when there is none. Fewer is better.
    - `recall@n`: share of G found anywhere in R.

    Raises ValueError when no playlist has anything held out. Taught in notebook 05 §8.
    """
    if len(seeds) != len(held_out):
        raise ValueError(f"{len(seeds)} seed playlists need as many held-out parts, got {len(held_out)}")
    if artist_of is not None and len(artist_of) <= max(scorer.n_items, held_out.items.max(initial=0)):
        raise ValueError(f"artist_of covers {len(artist_of) - 1} tracks, but there are ids above that")
    names = ["r_precision", "r_precision_artist", "ndcg", "ndcg_challenge", "clicks", f"recall@{n}"]
    if artist_of is None:
        names.remove("r_precision_artist")
    values = {name: np.full(len(seeds), np.nan) for name in names}
    first_hit = np.zeros(len(seeds), dtype=np.int64)
    shown = np.zeros(scorer.n_items + 1, dtype=bool)
    wanted = known = 0
    place = np.arange(1, n + 1)
    gain, rules_gain = 1 / np.log2(place + 1), 1 / np.log2(np.maximum(place, 2))
    ideal, rules_ideal = (np.concatenate(([np.inf], np.cumsum(g))) for g in (gain, rules_gain))
    for rows, part, scores in _score_batches(scorer, seeds, batch_size):
        listed = top_k(scores, n, exclude=part)
        shown[listed] = True
        owner, tracks, size = _wanted(part, held_out.take(np.arange(rows.start, rows.stop)))
        wanted, known = wanted + len(tracks), known + int((tracks <= scorer.n_items).sum())
        hit = _contains(owner, tracks, listed)
        head = place <= size[:, None]  # the first |G| places
        some = size > 0
        whole = np.maximum(size, 1)

        def put(name, result, rows=rows, some=some):
            values[name][rows] = np.where(some, result, np.nan)

        put("r_precision", (hit & head).sum(axis=1) / whole)
        if artist_of is not None:
            artists = np.asarray(artist_of)
            match = _distinct_matches(owner, artists[tracks], np.where(head, artists[listed], 0))
            put("r_precision_artist", ((hit & head).sum(axis=1) + 0.25 * match) / whole)
        put("ndcg", hit @ gain / ideal[np.minimum(whole, n)])
        put("ndcg_challenge", hit @ rules_gain / rules_ideal[hit.sum(axis=1)])
        first = np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, 0)
        put("clicks", np.where(first > 0, (first - 1) // 10, 51))
        put(f"recall@{n}", hit.sum(axis=1) / whole)
        first_hit[rows] = first
    counted = ~np.isnan(values["r_precision"])
    if not counted.any():
        raise ValueError("no playlist has held-out tracks: nothing to evaluate")
    return Report(
        name=scorer.name,
        protocol=f"continuation, {n} tracks",
        k=n,
        n_items=scorer.n_items,
        ranks=first_hit,
        targets=held_out.items,
        playlists=int(counted.sum()),
        targets_kept=known / wanted,
        values=values,
        metrics=_intervals(values, n_boot, seed),
        coverage=float(shown[1:].mean()),
    )


def compare(a: Report, b: Report, metric: str = "recall@10", *, n_boot: int = 1000, seed: int = 0) -> Interval:
    """Mean difference a - b of a metric on the same playlists, with its 95 % paired bootstrap interval.

    Differences are taken playlist by playlist and resampled together, which is far sharper than holding two
    separate intervals side by side. An interval that contains 0 says that these playlists cannot tell the
    two apart. Raises ValueError when the reports are not about the same playlists. Taught in notebook 05
    §3.
    """
    for report in (a, b):
        if metric not in report.values:
            raise ValueError(f"the report of {report.name} has {', '.join(report.values)}, but no {metric}")
    if a.protocol != b.protocol or not np.array_equal(a.targets, b.targets):
        raise ValueError(f"{a.name} and {b.name} were not judged on the same playlists by the same protocol")
    difference = a.values[metric] - b.values[metric]
    counted = ~np.isnan(difference)
    if (np.isnan(a.values[metric]) != np.isnan(b.values[metric])).any():
        raise ValueError(f"{a.name} and {b.name} kept different targets: compare recall over all targets")
    return _bootstrap(difference[counted, None], n_boot, seed)[0]


def table(reports: Iterable[Report]) -> pd.DataFrame:
    """Reports side by side, ready to print: one row per scorer, `mean [low, high]` per metric.

    The last columns say what is behind each row: coverage, share of targets kept, number of playlists.
    Taught in notebook 05 §3.
    """
    rows = []
    for report in reports:
        row = {"model": report.name, "protocol": report.protocol}
        row |= {metric: str(interval) for metric, interval in report.metrics.items()}
        row["coverage"] = "" if np.isnan(report.coverage) else f"{report.coverage:.3f}"
        rows.append(row | {"targets kept": f"{report.targets_kept:.1%}", "playlists": f"{report.playlists:,}"})
    frame = pd.DataFrame(rows).fillna("")
    return frame if frame.empty else frame.set_index("model")


def _intervals(values: dict[str, np.ndarray], n_boot: int, seed: int) -> dict[str, Interval]:
    """Intervals of all metrics; those that count the same playlists share their resamples."""
    groups: dict[bytes, list[str]] = {}
    for name, column in values.items():
        groups.setdefault(np.isnan(column).tobytes(), []).append(name)
    intervals = {}
    for names in groups.values():
        columns = np.stack([values[name] for name in names], axis=1)
        counted = ~np.isnan(columns[:, 0])
        intervals |= dict(zip(names, _bootstrap(columns[counted], n_boot, seed), strict=True))
    return {name: intervals[name] for name in values}


def _wanted(seeds: Sequences, held_out: Sequences) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct held-out tracks that are not seeds: (playlist of each, track, number per playlist [B])."""
    top = 1 + max(seeds.items.max(initial=0), held_out.items.max(initial=0)).astype(np.int64)
    pairs = np.setdiff1d(held_out.owner * top + held_out.items, seeds.owner * top + seeds.items)
    owner, tracks = np.divmod(pairs, top)
    return owner, tracks, np.bincount(owner, minlength=len(seeds))


def _contains(owner: np.ndarray, ids: np.ndarray, listed: np.ndarray) -> np.ndarray:
    """Which entries of `listed` [B, n] are among their row's (owner, id) pairs, bool [B, n]; 0 never is."""
    top = 1 + max(ids.max(initial=0), listed.max(initial=0)).astype(np.int64)
    found = np.isin(np.arange(len(listed))[:, None] * top + listed, owner * top + ids)
    return found & (listed > 0)


def _distinct_matches(owner: np.ndarray, ids: np.ndarray, listed: np.ndarray) -> np.ndarray:
    """Number of distinct non-zero ids of each row of `listed` that are among the row's own, int [B]."""
    listed = np.sort(listed, axis=1)
    repeat = np.zeros(listed.shape, dtype=bool)
    repeat[:, 1:] = listed[:, 1:] == listed[:, :-1]
    return (_contains(owner, ids, listed) & ~repeat).sum(axis=1)
