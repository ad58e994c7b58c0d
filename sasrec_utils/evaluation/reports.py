"""The protocols and what they report: one scorer on one set of test playlists, and two of them compared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sasrec_utils.evaluation.metrics import Interval, intervals, ndcg_at, paired_interval, recall_at, reciprocal_rank
from sasrec_utils.evaluation.ranking import (
    batch_ranks,
    checked_targets,
    sampled_ranks,
    score_batches,
    top_k,
    unchanged,
)
from sasrec_utils.sequences import Sequences

__all__ = ["Report", "compare", "continuation", "evaluate", "table"]


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """What one scorer did on one set of test playlists.

    `ranks`: int64 [U], 0 = lost (for a continuation: rank of the first hit, 0 = none). `playlists`: how many of the U
    had something to predict; all of them are counted. `targets_kept`: share of their targets that a scorer can rank at
    all. `values`: per playlist, float64 [U] per metric, NaN where the playlist does not count. `metrics`: their means
    with 95 % intervals over playlists, exact where a metric is a share of playlists and bootstrapped elsewhere
    (`metrics.intervals`). `recall@k` and the like are over the targets kept; `recall@k_all` is over all targets, a lost
    one being a miss. `coverage`: share of the N tracks that are among the best k of some playlist that counts.
    `targets` tells whether two reports are about the same playlists. Taught in notebook 06 §3.
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

    `histories`, `targets`: U playlists and the track that follows each, in model ids. `protocol`: "full" ranks among
    all tracks (`ranks`), "sampled" among 100 random ones drawn with `seed` (`sampled_ranks`). Playlists without a
    target (0) do not count; every other one does. Raises ValueError for an unknown protocol and when no playlist has a
    target. Taught in notebook 06 §3.
    """
    targets = checked_targets(histories, targets)
    counted = targets > 0
    if not counted.any():
        raise ValueError("no playlist has a target: nothing to evaluate")
    coverage = np.nan  # of the whole catalogue: nothing that a hundred sampled tracks could show
    if protocol == "full":
        found = np.zeros(len(histories), dtype=np.int64)
        shown = np.zeros(scorer.n_items + 1, dtype=bool)
        with unchanged(scorer):
            for rows, part, scores in score_batches(scorer, histories, batch_size):
                found[rows] = batch_ranks(scores, part, targets[rows], exclude_seen)
                listed = top_k(scores, k, part if exclude_seen else None)
                shown[listed[counted[rows]]] = True
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
        metrics=intervals(values, n_boot, seed),
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

    `seeds`, `held_out`: U playlists each, in model ids (`continuation_split`). G is the set of held-out tracks that are
    not seeds: a repeat cannot be recommended, so it is not asked for. Unknown tracks stay in G and are misses;
    `targets_kept` is the share of G that is known. Playlists with an empty G do not count. `artist_of`: artist of each
    model id, int [C + 1], 0 = unknown. R is the list of recommended tracks. Metrics:

    - `r_precision`: share of G found in the first |G| tracks of R.
    - `r_precision_artist` (only with `artist_of`): the challenge's own, (|S_T ∩ G_T| + 0.25 |S_A ∩ G_A|) / |G_T| with
      the distinct tracks S_T and artists S_A of the first |G| tracks of R (Chen, Lamere, Schedl and Zamani, RecSys
      2018, doi 10.1145/3240323.3240342). Artists of hits count too: it can exceed 1.
    - `ndcg`: sum of 1 / log2(i + 1) over hits at place i, over that of the first min(|G|, n) places.
    - `ndcg_challenge`: as the challenge's rules print it, with 1 for place 1 and 1 / log2(i) after it, over an ideal of
      only as many places as there are hits. Finding little makes the ideal small, so it mostly is the higher one (0.10
      against 0.01 for a random scorer): only for the challenge's own numbers.
    - `clicks`: floor((place of the first hit - 1) / 10), 51 when there is none. Fewer is better.
    - `recall@n`: share of G found anywhere in R.

    Raises ValueError when no playlist has anything held out. Taught in notebook 06 §8.
    """
    if len(seeds) != len(held_out):
        raise ValueError(f"{len(seeds)} seed playlists need as many held-out parts, got {len(held_out)}")
    if artist_of is not None and len(artist_of) <= max(scorer.n_items, held_out.items.max(initial=0)):
        raise ValueError(f"artist_of covers {len(artist_of) - 1} tracks, but there are ids above that")
    values: dict[str, np.ndarray] = {}
    first_hit = np.zeros(len(seeds), dtype=np.int64)
    shown = np.zeros(scorer.n_items + 1, dtype=bool)
    wanted = known = 0
    with unchanged(scorer):
        for rows, part, scores in score_batches(scorer, seeds, batch_size):
            listed = top_k(scores, n, exclude=part)
            owner, tracks, size = _wanted(part, held_out.take(np.arange(rows.start, rows.stop)))
            wanted, known = wanted + len(tracks), known + int((tracks <= scorer.n_items).sum())
            shown[listed[size > 0]] = True
            found, first_hit[rows] = _continuation_values(listed, owner, tracks, size, artist_of)
            for name, column in found.items():
                values.setdefault(name, np.full(len(seeds), np.nan))[rows] = np.where(size > 0, column, np.nan)
    if wanted == 0:
        raise ValueError("no playlist has held-out tracks: nothing to evaluate")
    counted = ~np.isnan(values["r_precision"])
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
        metrics=intervals(values, n_boot, seed),
        coverage=float(shown[1:].mean()),
    )


def _continuation_values(
    listed: np.ndarray, owner: np.ndarray, tracks: np.ndarray, size: np.ndarray, artist_of: np.ndarray | None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The metrics of `continuation` for each row of `listed` [B, n], and the place of its first hit (0 = none), [B].

    `owner`, `tracks`, `size`: G of every row, as `_wanted` gives it. Where G is empty the values mean nothing.
    """
    n = listed.shape[1]
    place = np.arange(1, n + 1)
    gain, rules_gain = 1 / np.log2(place + 1), 1 / np.log2(np.maximum(place, 2))
    ideal, rules_ideal = (np.concatenate(([np.inf], np.cumsum(each))) for each in (gain, rules_gain))
    hit = _contains(owner, tracks, listed)
    hits = hit.sum(axis=1)
    head = place <= size[:, None]  # the first |G| places
    whole = np.maximum(size, 1)
    first = np.where(hits > 0, hit.argmax(axis=1) + 1, 0)
    found = {"r_precision": (hit & head).sum(axis=1) / whole}
    if artist_of is not None:
        artists = np.asarray(artist_of)
        match = _distinct_matches(owner, artists[tracks], np.where(head, artists[listed], 0))
        found["r_precision_artist"] = ((hit & head).sum(axis=1) + 0.25 * match) / whole
    found["ndcg"] = hit @ gain / ideal[np.minimum(whole, n)]
    found["ndcg_challenge"] = hit @ rules_gain / rules_ideal[hits]
    found["clicks"] = np.where(first > 0, (first - 1) // 10, 51)
    found[f"recall@{n}"] = hits / whole
    return found, first


def compare(a: Report, b: Report, metric: str = "recall@10", *, n_boot: int = 1000, seed: int = 0) -> Interval:
    """Mean difference a - b of a metric on the same playlists, with its 95 % paired bootstrap interval.

    Differences are taken playlist by playlist and resampled together, which is far sharper than holding two separate
    intervals side by side. An interval that contains 0 says that these playlists cannot tell the two apart. Raises
    ValueError when the reports are not about the same playlists. Taught in notebook 06 §3.
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
    return paired_interval(difference[counted], n_boot, seed)


def table(reports: Iterable[Report]) -> pd.DataFrame:
    """Reports side by side, ready to print: one row per scorer, `mean [low, high]` per metric.

    The last columns say what is behind each row: coverage, share of targets kept, number of playlists. Taught in
    notebook 06 §3.
    """
    rows = []
    for report in reports:
        row = {"model": report.name, "protocol": report.protocol}
        row |= {metric: str(interval) for metric, interval in report.metrics.items()}
        row["coverage"] = "" if np.isnan(report.coverage) else f"{report.coverage:.3f}"
        rows.append(row | {"targets kept": f"{report.targets_kept:.1%}", "playlists": f"{report.playlists:,}"})
    frame = pd.DataFrame(rows).fillna("")
    return frame if frame.empty else frame.set_index("model")


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
