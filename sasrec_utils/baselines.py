"""What SASRec has to beat: popularity, Markov chains, nearest neighbours, and their blend.

Each is a scorer (see `evaluation`), fitted on training playlists in model ids and scored without any training loop. All
of them ignore unknown tracks (ids above N), in training and in histories, as if those were not there, and all fall back
on popularity: where a method has nothing to say, the more popular track wins by a hair, so that no ranking is left to
chance and an empty history gets the popular tracks.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import sparse

from sasrec_utils.evaluation import ndcg_at, ranks, recall_at
from sasrec_utils.evaluation.ranking import alive_targets, checked_targets, score_batches, unchanged
from sasrec_utils.sequences import Sequences

__all__ = ["Blend", "ItemKNN", "Markov", "Popularity", "blend_of_all", "fit_baselines", "tune", "tune_blend"]


def _known(seqs: Sequences, n_items: int) -> Sequences:
    return seqs.keep(seqs.items <= n_items)


def _popularity(train: Sequences, n_items: int) -> np.ndarray:
    """Training plays of each known track, plus less than one half to part ties; float32 [N + 1].

    Equal plays are parted by a fixed pseudo-random number. Parting them by id would leak: among tracks with the same
    number of training plays, ids follow the plays in the whole data set, test playlists included.
    """
    plays = np.bincount(_known(train, n_items).items, minlength=n_items + 1).astype(np.float32)
    plays[1:] += np.random.default_rng(0).permutation(n_items).astype(np.float32) / (2 * n_items)
    return plays


def _weights(histories: Sequences, n_items: int, n_last: int, decay: float) -> sparse.csr_array:
    """Weight of each of the newest known tracks, decay^age with the newest at age 0; sparse [B, N + 1]."""
    newest = _known(histories, n_items).last(n_last)
    age = np.repeat(newest.offsets[1:], newest.lengths) - 1 - np.arange(len(newest.items))
    weights = (decay**age).astype(np.float32)
    return sparse.csr_array((weights, newest.items, newest.offsets), shape=(len(histories), n_items + 1))


@dataclass(frozen=True, eq=False, repr=False)
class Popularity:
    """The same ranking for everyone: number of plays in the training playlists.

    Scores are plays, plus less than one half to part ties. Taught in notebook 06 §3.
    """

    plays: np.ndarray
    name: str = "popularity"

    @classmethod
    def fit(cls, train: Sequences, n_items: int) -> Popularity:
        """Count the plays of tracks 1..`n_items` in the training playlists."""
        return cls(_popularity(train, n_items))

    @property
    def n_items(self) -> int:
        """N, the number of known tracks."""
        return len(self.plays) - 1

    def score(self, histories: Sequences) -> np.ndarray:
        """Plays of every track, the same for each history; float32 [B, N + 1]."""
        return np.tile(self.plays, (len(histories), 1))


@dataclass(frozen=True, eq=False, repr=False)
class Markov:
    """What came directly after the last track in the training playlists.

    P(j | i) = (n_ij + damping · p_j) / (n_i + damping), with n_ij how often j directly followed i, n_i its sum over j
    and p the popularity: a Dirichlet prior, which trusts a track the more the oftener it was played (MacKay and Peto
    1995). The score is the mean of P(· | i) over the `n_last` newest tracks with weights `decay`^age. `n_last=1` is the
    plain chain. Taught in notebook 06 §3.
    """

    counts: sparse.csr_array
    plays: np.ndarray
    n_last: int = 1
    decay: float = 0.5
    damping: float = 1.0
    name: str = "Markov"

    def __post_init__(self) -> None:
        if self.damping <= 0:
            raise ValueError(f"damping must be above 0, got {self.damping}")

    @classmethod
    def fit(
        cls,
        train: Sequences,
        n_items: int,
        *,
        n_last: int = 1,
        decay: float = 0.5,
        damping: float = 1.0,
        name: str = "Markov",
    ) -> Markov:
        """Count direct successions of known tracks in the training playlists."""
        items, owner = train.items, train.owner
        pairs = (owner[1:] == owner[:-1]) & (items[1:] <= n_items) & (items[:-1] <= n_items)
        before, after = items[:-1][pairs], items[1:][pairs]
        counts = sparse.csr_array((np.ones(len(before), np.float32), (before, after)), shape=(n_items + 1, n_items + 1))
        counts.sum_duplicates()
        return cls(_narrow(counts), _popularity(train, n_items), n_last, decay, damping, name)

    @property
    def n_items(self) -> int:
        """N, the number of known tracks."""
        return len(self.plays) - 1

    def score(self, histories: Sequences) -> np.ndarray:
        """Probability of each next track, float32 [B, N + 1]; popularity after an empty history."""
        weights = _weights(histories, self.n_items, self.n_last, self.decay)
        empty = np.diff(weights.indptr) == 0
        weights.data /= np.repeat(weights.sum(axis=1), np.diff(weights.indptr))
        weights.data /= self._totals[weights.indices] + np.float32(self.damping)
        # The prior's share of each history: sum of w_i · damping / (n_i + damping), all of an empty one.
        prior = np.where(empty, np.float32(1), np.float32(self.damping) * weights.sum(axis=1))
        return (weights @ self.counts).toarray() + prior[:, None] * (self.plays / self.plays.sum())

    @cached_property
    def _totals(self) -> np.ndarray:
        return self.counts.sum(axis=1)


@dataclass(frozen=True, eq=False, repr=False)
class ItemKNN:
    """Tracks that share playlists with the tracks of the history, order of co-occurrence ignored.

    Similarity of two tracks: s_ij = c_ij / (sqrt(n_i n_j) + shrink), with c_ij the playlists that hold both and n_i
    those that hold i: the cosine of their playlist vectors (Sarwar et al., WWW 2001), pulled to 0 where the evidence is
    thin. Each track keeps its `neighbours` most similar ones. The score is the sum of s_ij over the `n_last` newest
    tracks i of the history with weights `decay`^age. Taught in notebook 06 §3.
    """

    similarity: sparse.csr_array
    plays: np.ndarray
    n_last: int = 20
    decay: float = 0.8
    name: str = "item-kNN"

    @classmethod
    def fit(
        cls,
        train: Sequences,
        n_items: int,
        *,
        n_last: int = 20,
        decay: float = 0.8,
        shrink: float = 1.0,
        neighbours: int = 1000,
        name: str = "item-kNN",
    ) -> ItemKNN:
        """Similarities of tracks over the training playlists.

        Rows of the track × track matrix are made in blocks and cut to `neighbours` at once, so memory stays at N ×
        `neighbours` entries of 8 bytes however large the catalogue. A thousand are nearly as good as all of them:
        with shrink 1 and decay .8, Recall@500 of the next track on 3,000 made-up `mpd-like` playlists was .505 with
        200, .551 with 1,000 and .561 with all (Recall@10 .148, .161, .161).
        """
        if neighbours < 1:
            raise ValueError(f"neighbours must be at least 1, got {neighbours}")
        known = _known(train, n_items)
        held = sparse.csr_array(
            (np.ones(len(known.items), np.float32), known.items, known.offsets), shape=(len(known), n_items + 1)
        )
        held = _narrow(held)
        held.sum_duplicates()
        held.data[:] = 1  # a repeat of a track within a playlist counts once
        size = held.sum(axis=0)
        root = np.sqrt(size, dtype=np.float32)
        holders = held.T.tocsr()
        # Work of a block: how many (track, playlist, other track) triples it goes through.
        work = np.cumsum(holders @ held.sum(axis=1))
        block_of = (work // _BLOCK_WORK).astype(np.int64)
        edges = np.concatenate(([0], np.flatnonzero(np.diff(block_of)) + 1, [n_items + 1]))
        blocks = []
        for start, stop in itertools.pairwise(edges):
            block = (holders[start:stop] @ held).tocsr()
            rows = np.repeat(np.arange(start, stop), np.diff(block.indptr))
            block.data /= root[rows] * root[block.indices] + np.float32(shrink)
            block.data[rows == block.indices] = 0
            blocks.append(_keep_largest(block, neighbours))
        return cls(_narrow(sparse.vstack(blocks, format="csr")), _popularity(train, n_items), n_last, decay, name)

    @property
    def n_items(self) -> int:
        """N, the number of known tracks."""
        return len(self.plays) - 1

    def score(self, histories: Sequences) -> np.ndarray:
        """Weighted sum of similarities to the newest tracks, float32 [B, N + 1]."""
        weights = _weights(histories, self.n_items, self.n_last, self.decay)
        return (weights @ self.similarity).toarray() + self.plays * (_HAIR / self.plays.sum())


_BLOCK_WORK = 1 << 22  # triples gone through per block of ItemKNN.fit: bounds its working memory to 200 MB
_HAIR = np.float32(1e-4)  # popularity's say in ItemKNN: below any similarity that counts


def _narrow(matrix: sparse.csr_array) -> sparse.csr_array:
    """The matrix with its places in four bytes instead of eight, where they fit: two thirds of the memory."""
    if matrix.nnz <= np.iinfo(np.int32).max:
        matrix.indices = matrix.indices.astype(np.int32, copy=False)
        matrix.indptr = matrix.indptr.astype(np.int32, copy=False)
    return matrix


def _keep_largest(matrix: sparse.csr_array, n: int) -> sparse.csr_array:
    """The `n` largest positive entries of each row, equal ones parted by a fixed shuffle of the columns."""
    place = np.random.default_rng(0).permutation(matrix.shape[1])
    keep = matrix.data > 0
    for row in np.flatnonzero(np.diff(matrix.indptr) > n):
        span = slice(matrix.indptr[row], matrix.indptr[row + 1])
        values = matrix.data[span]
        level = np.partition(values, len(values) - n)[len(values) - n]
        kept = values > level
        equal = np.flatnonzero(values == level)
        room = n - np.count_nonzero(kept)
        kept[equal[np.argpartition(place[matrix.indices[span][equal]], room - 1)[:room]]] = True
        keep[span] &= kept
    kept = np.concatenate(([0], np.cumsum(keep)))[matrix.indptr]
    return sparse.csr_array((matrix.data[keep], matrix.indices[keep], kept), shape=matrix.shape)


@dataclass(frozen=True, eq=False, repr=False)
class Blend:
    """A weighted sum of the scores of several scorers, each brought to the same scale first.

    Per history and part, scores become z-scores over the N tracks (mean 0, standard deviation 1); a part marked in
    `logits` goes through a softmax before that, as SASRec should: its scores are log-probabilities up to a constant. A
    track that any part rules out (-inf) stays ruled out. A blend is a scorer, so it can be part of another. For
    item-kNN + Markov, z-scores gave the best NDCG@10 on two public data sets and two made-up worlds, against scaling by
    the largest score, sums of probabilities or logarithms, and reciprocal ranks. Taught in notebook 06 §3.
    """

    scorers: tuple
    weights: tuple[float, ...]
    logits: tuple[bool, ...] = ()
    name: str = ""

    def __post_init__(self) -> None:
        logits = tuple(self.logits) or (False,) * len(self.scorers)
        if not self.scorers or len(self.scorers) != len(self.weights) or len(self.scorers) != len(logits):
            raise ValueError(
                f"{len(self.scorers)} scorers need as many weights (and logits), got "
                f"{len(self.weights)} (and {len(logits)})"
            )
        if not np.isfinite(self.weights).all():
            raise ValueError(f"the weights of a blend must be finite numbers, got {self.weights}")
        if len({scorer.n_items for scorer in self.scorers}) > 1:
            sizes = ", ".join(f"{scorer.name}: {scorer.n_items}" for scorer in self.scorers)
            raise ValueError(f"a blend needs scorers of one vocabulary, these differ in tracks ({sizes})")
        object.__setattr__(self, "logits", logits)
        object.__setattr__(self, "name", self.name or " + ".join(scorer.name for scorer in self.scorers))

    @property
    def n_items(self) -> int:
        """N, the number of known tracks."""
        return self.scorers[0].n_items

    def score(self, histories: Sequences) -> np.ndarray:
        """Weighted sum of standardised scores, float32 [B, N + 1]."""
        parts = (
            _standardise(scorer.score(histories), logits)
            for scorer, logits in zip(self.scorers, self.logits, strict=True)
        )
        return _weighted(parts, self.weights)

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """A context in which no part changes its weights (`evaluation.ranking.unchanged`)."""
        with ExitStack() as stack:
            for scorer in self.scorers:
                stack.enter_context(unchanged(scorer))
            yield


def _standardise(scores: np.ndarray, logits: bool) -> np.ndarray:
    """z-scores of each row over columns 1..N, float32; -inf stays -inf, a row without spread becomes 0."""
    scores = np.array(scores, dtype=np.float32)
    inner = scores[:, 1:]
    scores[:, 0] = 0
    out = np.isneginf(inner)
    ruled_out = out.any()
    if logits:
        inner -= inner.max(axis=1, keepdims=True)
        np.exp(inner, out=inner)
    elif ruled_out:
        inner[out] = 0
    count = inner.shape[1] - out.sum(axis=1, keepdims=True) if ruled_out else inner.shape[1]
    inner -= inner.sum(axis=1, keepdims=True) / count
    if ruled_out:
        inner[out] = 0
    spread = np.sqrt(np.einsum("bn,bn->b", inner, inner)[:, None] / count)
    inner /= np.where(spread > 0, spread, 1)
    if ruled_out:
        inner[out] = -np.inf
    return scores


def _weighted(parts: Iterable[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """Weighted sum of standardised scores, in which what any part with a weight rules out (-inf) stays ruled out."""
    total = None
    for part, weight in zip(parts, weights, strict=True):
        # A weight of 0 takes a part out altogether: 0 times -inf would be NaN. A negative one turns scores round, but
        # must not turn -inf into the best score of all.
        term = part * np.float32(weight) if weight else np.zeros_like(part)
        if weight < 0:
            term[np.isneginf(part)] = -np.inf
        total = term if total is None else np.add(total, term, out=total)
    return total


# Choosing on validation playlists ----------------------------------------------------------------------


def tune(candidates: Iterable, histories: Sequences, targets: np.ndarray, *, k: int = 10) -> tuple:
    """The candidate with the best NDCG@k on validation playlists, and the whole comparison.

    `candidates`: scorers, most simply one fitted scorer with changed settings (`dataclasses.replace(knn, decay=0.9)`).
    `histories`, `targets`: of *validation* playlists, never of the test ones: a setting chosen on the test set has seen
    the answers. Returns (scorer, DataFrame with a row per candidate: name, settings, recall, ndcg). The earlier of
    equals wins. Raises ValueError when no target is known. Taught in notebook 06 §3.
    """
    best, best_ndcg, rows = None, -1.0, []
    for candidate in candidates:
        found = ranks(candidate, histories, targets)
        if not found.any():
            raise ValueError("none of the validation targets is a known track: nothing to choose by")
        recall, ndcg = _means(found, k)
        settings = {name: value for name, value in vars(candidate).items() if isinstance(value, int | float)}
        rows.append({"model": candidate.name} | settings | {f"recall@{k}": recall, f"ndcg@{k}": ndcg})
        if ndcg > best_ndcg:
            best, best_ndcg = candidate, ndcg
    if best is None:
        raise ValueError("there are no candidates to choose from")
    return best, pd.DataFrame(rows)


def _means(found: np.ndarray, k: int) -> tuple[float, float]:
    """Recall@k and NDCG@k of these ranks; sorted before they are summed, so the order of playlists decides nothing."""
    found = np.sort(found)
    return float(recall_at(found, k).mean()), float(ndcg_at(found, k).mean())


def tune_blend(
    scorers: Sequence, histories: Sequences, targets: np.ndarray, *, k: int = 10, step: float = 0.05, name: str = ""
) -> tuple[Blend, pd.DataFrame]:
    """The blend of `scorers` with the best NDCG@k on validation playlists, and the whole comparison.

    Tries all weights that are multiples of `step` and sum to 1, so one part alone is among them; each part with a
    negative score is tried as it is and as logits. Every part is scored once. Two parts are 21 blends, three are 231
    (or blend a blend). `histories`, `targets` as in `tune`. The earlier of equals wins. Taught in notebook 06 §3.
    """
    parts = tuple(scorers)
    whole = Blend(parts, (1.0,) * len(parts))  # refuses parts that do not fit before anything is scored
    targets = checked_targets(histories, targets)
    grid = _simplex(round(1 / step), len(parts)) / round(1 / step)
    negative, found = [False] * len(parts), None
    with whole.unchanged():
        while found is None:
            variants = list(itertools.product(*((False, True) if below else (False,) for below in negative)))
            found = _ranks_of_blends(parts, variants, grid, histories, targets, negative)
    if not found.any():
        raise ValueError("none of the validation targets is a known track: nothing to choose by")
    names = [scorer.name for scorer in parts]
    labels = [part if names.count(part) == 1 else f"{part} #{i}" for i, part in enumerate(names, 1)]
    rows, tried = [], list(itertools.product(variants, grid))
    for (logits, weights), ranked in zip(tried, found.reshape(len(tried), -1), strict=True):
        recall, ndcg = _means(ranked, k)
        row = dict(zip(labels, weights, strict=True)) | {"logits": ", ".join(itertools.compress(labels, logits))}
        rows.append(row | {f"recall@{k}": recall, f"ndcg@{k}": ndcg})
    table = pd.DataFrame(rows)
    logits, weights = tried[int(table[f"ndcg@{k}"].argmax())]
    return Blend(parts, tuple(map(float, weights)), logits, name), table


def _ranks_of_blends(
    parts: tuple, variants: list, grid: np.ndarray, histories: Sequences, targets: np.ndarray, negative: list[bool]
) -> np.ndarray | None:
    """Ranks of the targets in each blend, int32 [variants, weights, U]: as `ranks` of it would give, in one go.

    None as soon as a part that was thought to have no negative score shows one, noted in `negative`: there are more
    variants then. Mostly the first batch shows it.
    """
    found = np.zeros((len(variants), len(grid), len(histories)), dtype=np.int32)
    for batch in zip(*(score_batches(scorer, histories, 256) for scorer in parts), strict=True):
        rows, part, _ = batch[0]
        raw = [scores for _, _, scores in batch]
        below = [(scores[:, 1:] < 0).any() for scores in raw]
        if any(new and not known for new, known in zip(below, negative, strict=True)):
            negative[:] = [new or known for new, known in zip(below, negative, strict=True)]
            return None
        alive = np.flatnonzero(alive_targets(part, targets[rows], parts[0].n_items, exclude_seen=True))
        for variant, logits in zip(found, variants, strict=True):
            ready = np.stack([_standardise(scores, flag) for scores, flag in zip(raw, logits, strict=True)])
            for u in alive:
                variant[:, rows.start + u] = _ranks_by_weights(ready[:, u], part[u], targets[rows.start + u], grid)
    return found


def _ranks_by_weights(scores: np.ndarray, history: np.ndarray, target: int, grid: np.ndarray) -> np.ndarray:
    """Rank of one target under each row of weights, int [weights]; `scores`: standardised, [parts, N + 1].

    How far each track is ahead of the target, part by part, is weighed instead of its score: a track that is behind in
    every part is behind in every blend and need not be weighed at all. -inf counts as far behind, so that a weight of 0
    takes it out.
    """
    ahead = np.maximum(scores, np.float32(-1e9))
    ahead -= ahead[:, [target]]
    candidate = (ahead >= 0).any(axis=0)
    candidate[0] = False
    candidate[history[history < len(candidate)]] = False
    return np.count_nonzero(grid.astype(np.float32) @ ahead[:, candidate] >= 0, axis=1)


def _simplex(steps: int, parts: int) -> np.ndarray:
    """All ways to deal `steps` equal shares to `parts`, int [ways, parts]."""
    ways = [way for way in itertools.product(range(steps, -1, -1), repeat=parts - 1) if sum(way) <= steps]
    return np.array([(*way, steps - sum(way)) for way in ways])


def fit_baselines(train: Sequences, n_items: int, histories: Sequences, targets: np.ndarray, *, k: int = 10) -> list:
    """Everything that SASRec has to beat, tuned: popularity, Markov, item-kNN, and the blend of the last two.

    `train`: training playlists in model ids; `histories`, `targets`: of validation playlists, on which settings and
    weights are chosen by NDCG@k. The Markov chain in the list is the plain one (last track only); the blend has one
    over the ten newest tracks. Taught in notebook 06 §3.
    """
    markov = Markov.fit(train, n_items)
    longer, _ = tune(
        (
            replace(markov, n_last=10, decay=decay, damping=damping, name="Markov over 10 tracks")
            for decay in (0.3, 0.5, 0.8)
            for damping in (1.0, 20.0)
        ),
        histories,
        targets,
        k=k,
    )
    # One similarity matrix per amount of shrinking; how the history is weighted costs no fitting.
    knn, _ = tune(
        (
            replace(fitted, decay=decay)
            for fitted in (ItemKNN.fit(train, n_items, shrink=shrink) for shrink in (1.0, 10.0, 30.0))
            for decay in (0.4, 0.6, 0.8, 0.9, 1.0)
        ),
        histories,
        targets,
        k=k,
    )
    blend, _ = tune_blend((knn, longer), histories, targets, k=k, name="item-kNN + Markov")
    return [Popularity.fit(train, n_items), markov, knn, blend]


def blend_of_all(
    model, baselines: Sequence, histories: Sequences, targets: np.ndarray, *, k: int = 10, name: str = ""
) -> tuple[Blend, pd.DataFrame]:
    """The blend of a trained model with item-kNN and Markov, each with a weight of its own, and the whole comparison.

    `baselines`: what `fit_baselines` returns; the parts are those of its blend. `histories`, `targets`: of validation
    playlists, as in `tune_blend`. Taught in notebook 06 §3.
    """
    return tune_blend((model, *baselines[-1].scorers), histories, targets, k=k, name=name)
