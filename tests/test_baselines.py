"""Popularity, Markov, item-kNN and blends: known answers, dense references, what every scorer must keep."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sasrec_utils import baselines
from sasrec_utils.baselines import (
    Blend,
    ItemKNN,
    Markov,
    Popularity,
    blend_of_all,
    fit_baselines,
    tune,
    tune_blend,
)
from sasrec_utils.evaluation import evaluate, ndcg_at, ranks, top_k
from sasrec_utils.sequences import Sequences, Vocabulary, leave_last_out, split_playlists

quick = settings(deadline=None, max_examples=25)
N = 12


def playlists(seed, users=60, n_items=N, unknown=3) -> Sequences:
    """Random playlists with repeats, unknown tracks and empty ones; popular tracks first."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 9, users)
    items = np.minimum(rng.geometric(0.15, lengths.sum()), n_items + unknown)
    return Sequences(items, np.concatenate(([0], np.cumsum(lengths))))


class Given:
    """A scorer that gives one row of scores to everyone."""

    def __init__(self, row, name="given"):
        self.row, self.name, self.n_items = np.asarray(row, np.float32), name, len(row) - 1

    def score(self, histories):
        return np.tile(self.row, (len(histories), 1))


def all_of(train, n_items=N):
    knn, markov = ItemKNN.fit(train, n_items), Markov.fit(train, n_items, n_last=3)
    return [Popularity.fit(train, n_items), Markov.fit(train, n_items), markov, knn, Blend((knn, markov), (0.7, 0.3))]


# What every scorer must keep


@quick
@given(st.integers(0, 10_000))
def test_a_batch_is_its_playlists_one_by_one(seed):
    train, histories = playlists(seed), playlists(seed + 1, users=8)
    for scorer in all_of(train):
        scores = scorer.score(histories)
        assert scores.shape == (8, N + 1) and scores.dtype == np.float32 and np.isfinite(scores).all()
        alone = [scorer.score(histories.take([u])) for u in range(8)]
        assert np.allclose(scores, np.concatenate(alone), rtol=1e-5, atol=1e-6), scorer.name
        assert scorer.score(histories.take([])).shape == (0, N + 1)


@quick
@given(st.integers(0, 10_000))
def test_unknown_tracks_are_as_if_not_there(seed):
    train, histories = playlists(seed), playlists(seed + 1, users=15, unknown=4)
    known = histories.keep(histories.items <= N)
    far = Sequences(np.where(histories.items > N, 2_000_000, histories.items), histories.offsets)
    for scorer in all_of(train):
        assert np.array_equal(scorer.score(histories), scorer.score(known)), scorer.name
        assert np.array_equal(scorer.score(far), scorer.score(known)), scorer.name


def test_unknown_tracks_do_not_train():
    with_unknown = Sequences.from_lists([[1, 2, 3, 99], [99, 2, 3], [98, 99]])
    without = Sequences.from_lists([[1, 2, 3], [2, 3]])
    histories = Sequences.from_lists([[2], [1, 3], []])
    for a, b in zip(all_of(with_unknown, 4), all_of(without, 4), strict=True):
        assert np.allclose(a.score(histories), b.score(histories)), a.name


def test_nothing_known_means_popularity():
    train = playlists(3)
    popular = top_k(Popularity.fit(train, N).score(Sequences.from_lists([[]])), N)
    for scorer in all_of(train):
        for history in ([], [N + 1, N + 2]):
            found = top_k(scorer.score(Sequences.from_lists([history])), N)
            assert np.array_equal(found, popular), scorer.name


def test_no_ranking_is_left_to_ties():
    train = playlists(0, users=400, n_items=500, unknown=0)
    histories = playlists(1, users=20, n_items=500, unknown=0)
    for scorer in all_of(train, 500):
        scores = scorer.score(histories)[:, 1:]
        distinct = [len(np.unique(row)) for row in scores]
        assert min(distinct) > 0.97 * 500, scorer.name


def test_seen_tracks_are_never_recommended():
    train = playlists(0)
    histories = playlists(1, users=30)
    for scorer in all_of(train):
        for seen, ids in zip(histories, top_k(scorer.score(histories), N, exclude=histories), strict=True):
            assert not set(seen) & set(ids) and set(ids) - {0} == set(range(1, N + 1)) - set(seen)


# Popularity


@quick
@given(st.integers(0, 10_000))
def test_popularity_is_the_order_of_training_plays(seed):
    train = playlists(seed)
    scorer = Popularity.fit(train, N)
    plays = np.bincount(train.items, minlength=N + 4)[: N + 1]
    assert np.array_equal(np.floor(scorer.plays), np.where(np.arange(N + 1) > 0, plays, 0))
    assert scorer.plays[0] == 0


def test_ties_are_not_parted_by_id():
    # ids of equally played tracks follow their plays in the whole data set: using them would leak test plays
    scorer = Popularity.fit(Sequences.from_lists([list(range(1, 1001))]), 1000)
    order = top_k(scorer.score(Sequences.from_lists([[]])), 1000)[0]
    assert abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.1
    assert np.array_equal(
        order,
        top_k(
            Popularity.fit(Sequences.from_lists([list(range(1, 1001))]), 1000).score(Sequences.from_lists([[]])), 1000
        )[0],
    )


# Markov


def test_a_chain_is_learned_to_the_last_link():
    rng = np.random.default_rng(0)
    after = np.roll(np.arange(1, 21), -1)  # 1 → 2 → … → 20 → 1
    rows = []
    for start in rng.integers(1, 21, 200):
        row = [int(start)]
        while len(row) < 8:
            row.append(int(after[row[-1] - 1]))
        rows.append(row)
    histories, targets = leave_last_out(Sequences.from_lists(rows))
    markov = Markov.fit(histories.take(np.arange(150)), 20)
    test = np.arange(150, 200)
    assert (ranks(markov, histories.take(test), targets[test]) == 1).all()
    # the newest track decides: turned round, the history's oldest one would
    turned = Sequences.from_lists([row[::-1] for row in histories.take(test)])
    assert (ranks(markov, turned, targets[test], exclude_seen=False) > 1).all()


def test_playlists_are_not_joined_at_their_ends():
    markov = Markov.fit(Sequences.from_lists([[1, 2], [3, 4], [], [5]]), 5)
    assert sorted(zip(*markov.counts.nonzero(), strict=True)) == [(1, 2), (3, 4)]
    # nor across an unknown track
    assert Markov.fit(Sequences.from_lists([[1, 9, 2]]), 5).counts.nnz == 0


def test_markov_is_its_formula():
    train = Sequences.from_lists([[1, 2], [1, 2], [1, 3], [2, 3]])
    plays = Popularity.fit(train, 4).plays
    prior = plays / plays.sum()
    after = {1: np.array([0, 0, 2, 1, 0]), 2: np.array([0, 0, 0, 1, 0]), 3: np.zeros(5), 4: np.zeros(5)}

    def p(i, damping):
        return (after[i] + damping * prior) / (after[i].sum() + damping)

    markov = Markov.fit(train, 4, n_last=3, decay=0.5, damping=2.0)
    expected = (p(3, 2) + 0.5 * p(1, 2) + 0.25 * p(2, 2)) / 1.75
    assert np.allclose(markov.score(Sequences.from_lists([[4, 2, 1, 3]]))[0], expected, atol=1e-6)
    plain = Markov.fit(train, 4)
    assert np.allclose(plain.score(Sequences.from_lists([[3, 2, 1]]))[0], p(1, 1), atol=1e-6)
    with pytest.raises(ValueError, match="damping"):
        replace(plain, damping=0.0)


@quick
@given(st.integers(0, 10_000), st.integers(1, 5))
def test_markov_scores_are_probabilities(seed, n_last):
    markov = Markov.fit(playlists(seed), N, n_last=n_last, decay=0.7)
    scores = markov.score(playlists(seed + 1, users=15))
    assert (scores[:, 0] == 0).all() and (scores >= 0).all()
    assert np.allclose(scores.sum(axis=1), 1, atol=1e-5)


# Item-kNN


def dense_similarity(train, n_items, shrink):
    held = np.zeros((len(train), n_items + 1))
    for u, row in enumerate(train):
        held[u, [x for x in row if x <= n_items]] = 1
    together = held.T @ held
    size = np.diag(together)
    similarity = together / np.maximum(np.sqrt(np.outer(size, size)) + shrink, 1e-9)
    np.fill_diagonal(similarity, 0)
    return similarity


@quick
@given(st.integers(0, 10_000), st.sampled_from([0.0, 1.0, 7.0]), st.sampled_from([1, 50, 1 << 22]))
def test_similarity_is_the_shrunk_cosine(seed, shrink, block):
    train = playlists(seed)
    was, baselines._BLOCK_WORK = baselines._BLOCK_WORK, block
    try:
        knn = ItemKNN.fit(train, N, shrink=shrink)
    finally:
        baselines._BLOCK_WORK = was
    assert np.allclose(knn.similarity.toarray(), dense_similarity(train, N, shrink), atol=1e-6)
    history = Sequences.from_lists([[3, 1, 2, 3]])
    weights = np.zeros(N + 1)
    for age, track in enumerate([3, 2, 1]):
        weights[track] += 0.8**age
    cut = replace(knn, n_last=3).score(history)[0]
    assert np.allclose(cut, weights @ dense_similarity(train, N, shrink), atol=2e-4)  # popularity: a hair


def test_each_track_keeps_its_most_similar_ones():
    train = playlists(5, users=300)
    full = dense_similarity(train, N, 1.0)
    kept = ItemKNN.fit(train, N, neighbours=3).similarity
    assert kept.nnz <= 3 * N
    for i in range(1, N + 1):
        row = kept[[i]].toarray()[0]
        assert np.allclose(np.sort(row)[-3:], np.sort(full[i])[-3:], atol=1e-6)


def test_equally_similar_neighbours_are_not_kept_by_id():
    knn = ItemKNN.fit(Sequences.from_lists([list(range(1, 401))]), 400, neighbours=40)
    kept = np.concatenate([knn.similarity[[i]].indices for i in range(1, 401)])
    assert knn.similarity.nnz == 400 * 40
    assert 150 < kept.mean() < 250  # 200 is the middle; by id it would be 20 or 380


def test_hundreds_of_neighbours_are_kept():
    """With 200 the tail of a list of 500 is left to popularity."""
    knn = ItemKNN.fit(Sequences.from_lists([list(range(1, 801))]), 800)
    assert knn.similarity.nnz == 800 * 799


def test_a_knn_needs_neighbours_and_four_bytes_for_each():
    for neighbours in (0, -1):
        with pytest.raises(ValueError, match=f"neighbours must be at least 1, got {neighbours}"):
            ItemKNN.fit(playlists(0), N, neighbours=neighbours)
    similarity = ItemKNN.fit(playlists(0), N).similarity
    assert similarity.indices.dtype == similarity.indptr.dtype == np.int32 and similarity.data.dtype == np.float32
    assert Markov.fit(playlists(0), N).counts.indices.dtype == np.int32


def test_a_checkerboard_is_told_apart():
    rng = np.random.default_rng(0)
    even, odd = np.arange(2, 41, 2), np.arange(1, 41, 2)
    rows = [rng.permutation(even if u % 2 else odd)[:8] for u in range(400)]
    knn = ItemKNN.fit(Sequences.from_lists(rows), 40)
    for side, other in ((even, odd), (odd, even)):
        history = rng.permutation(side)[:3]
        scores = knn.score(Sequences.from_lists([history]))[0]
        assert scores[np.setdiff1d(side, history)].min() > scores[other].max()


def test_the_order_of_the_history_only_matters_by_age():
    knn = ItemKNN.fit(playlists(0, users=300), N)
    a, b = Sequences.from_lists([[1, 2, 3]]), Sequences.from_lists([[3, 1, 2]])
    assert np.allclose(replace(knn, decay=1.0).score(a), replace(knn, decay=1.0).score(b))
    assert not np.allclose(knn.score(a), knn.score(b))
    newest = replace(knn, n_last=1)
    assert np.array_equal(newest.score(a), newest.score(Sequences.from_lists([[3]])))


def test_the_rare_are_trusted_less():
    # 1 and 2 together once and never apart; 3 and 4 together nine times of ten
    train = Sequences.from_lists([[1, 2]] + [[3, 4]] * 9 + [[3], [4]])
    for shrink, surer in ((0.0, (1, 2)), (5.0, (3, 4))):
        similarity = ItemKNN.fit(train, 4, shrink=shrink).similarity
        pairs = {(1, 2): similarity[1, 2], (3, 4): similarity[3, 4]}
        assert max(pairs, key=pairs.get) == surer


# Blend


@quick
@given(st.integers(0, 10_000), st.floats(0.01, 100), st.floats(-50, 50))
def test_a_blend_does_not_depend_on_the_scale_of_its_parts(seed, factor, offset):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, N + 1))
    histories = Sequences.from_lists([[1], []])
    one = Blend((Given(a), Given(b)), (0.3, 0.7)).score(histories)
    other = Blend((Given(a * factor + offset), Given(b)), (0.3, 0.7)).score(histories)
    assert np.allclose(one[:, 1:], other[:, 1:], atol=2e-3)
    moved = Blend((Given(a + offset), Given(b)), (0.3, 0.7), (True, False)).score(histories)
    same = Blend((Given(a), Given(b)), (0.3, 0.7), (True, False)).score(histories)
    assert np.allclose(moved[:, 1:], same[:, 1:], atol=2e-3)  # logits: only differences mean anything


def test_a_blend_of_one_part_is_that_part():
    train, histories = playlists(0), playlists(1, users=30)
    knn, markov = ItemKNN.fit(train, N), Markov.fit(train, N)
    for weights, part in (((1.0, 0.0), knn), ((0.0, 1.0), markov)):
        assert np.array_equal(top_k(Blend((knn, markov), weights).score(histories), N), top_k(part.score(histories), N))
    logits = Given(np.log(np.arange(1, N + 2)))
    assert np.array_equal(
        top_k(Blend((logits,), (1.0,), (True,)).score(histories), N), top_k(logits.score(histories), N)
    )


def test_a_blend_is_its_formula():
    a, b = np.array([np.nan, 1, 2, 3, 6]), np.array([0, 0, -1, np.log(3), 0])
    p = np.exp(b[1:]) / np.exp(b[1:]).sum()
    expected = 0.25 * (a[1:] - a[1:].mean()) / a[1:].std() + 0.75 * (p - p.mean()) / p.std()
    blend = Blend((Given(a), Given(b)), (0.25, 0.75), (False, True))
    scores = blend.score(Sequences.from_lists([[1]]))
    assert scores[0, 1:] == pytest.approx(expected, abs=1e-5) and scores.dtype == np.float32


def test_what_a_part_rules_out_stays_out():
    out = np.array([0, 1, -np.inf, 2, 5])
    other = np.array([0, 1, 50, 2, 3])
    for logits in (False, True):
        blend = Blend((Given(out), Given(other)), (0.1, 0.9), (logits, False))
        scores = blend.score(Sequences.from_lists([[]]))
        assert scores[0, 2] == -np.inf and np.isfinite(scores[0, [1, 3, 4]]).all()
        rest = Blend((Given(out[[0, 1, 3, 4]]),), (1.0,), (logits,)).score(Sequences.from_lists([[]]))
        alone = Blend((Given(out),), (1.0,), (logits,)).score(Sequences.from_lists([[]]))
        assert alone[0, [1, 3, 4]] == pytest.approx(rest[0, 1:], abs=1e-5)
    zero = Blend((Given(out), Given(other)), (0.0, 1.0)).score(Sequences.from_lists([[]]))
    assert np.isfinite(zero).all()


def test_a_negative_weight_does_not_bring_back_what_is_ruled_out():
    out, other = np.array([0, 1, -np.inf, 2, 5]), np.array([0, 1, 50, 2, -np.inf])
    scores = Blend((Given(out), Given(other)), (1.0, -0.5)).score(Sequences.from_lists([[]]))
    assert np.isneginf(scores[0]).tolist() == [False, False, True, False, True]
    a, b = np.array([0, 1, 2, 3]), np.array([0, 5, 1, 1])
    turned = Blend((Given(a), Given(b)), (0.0, -1.0)).score(Sequences.from_lists([[]]))
    assert top_k(turned, 3)[0, 2] == 1  # the best of b is the worst of minus b
    for weight in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match="finite"):
            Blend((Given(a), Given(b)), (1.0, weight))


def test_a_part_without_an_opinion_adds_nothing():
    flat, other = Given(np.full(5, 3.3)), Given(np.array([0, 1, 5, 2, 3]))
    blend = Blend((flat, other), (0.9, 0.1)).score(Sequences.from_lists([[]]))
    assert np.isfinite(blend).all() and top_k(blend, 4)[0].tolist() == [2, 4, 3, 1]


def test_parts_must_fit():
    a, b = Given(np.zeros(5), "five"), Given(np.zeros(6), "six")
    with pytest.raises(ValueError, match="five: 4, six: 5"):
        Blend((a, b), (0.5, 0.5))
    for weights, logits in (((1.0,), ()), ((0.5, 0.5), (True,))):
        with pytest.raises(ValueError, match="2 scorers"):
            Blend((a, a), weights, logits)
    with pytest.raises(ValueError, match="0 scorers"):
        Blend((), ())
    assert Blend((a, a), (1, 1)).name == "five + five"


# Choosing


def world(seed=0, users=600, n_items=40):
    """Half the steps follow a chain, half stay in the playlist's corner: Markov and kNN know one each."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(users):
        corner, row = rng.integers(4), [int(rng.integers(1, n_items + 1))]
        while len(row) < 10:
            step = row[-1] % n_items + 1 if rng.random() < 0.5 else int(corner * 10 + rng.integers(1, 11))
            if step not in row:
                row.append(step)
            elif rng.random() < 0.1:
                break
        rows.append(row)
    split = split_playlists(users, 0, 0.2, 0.2)
    seqs = Sequences.from_lists(rows)
    vocabulary = Vocabulary.fit(seqs.take(split.train), n_items)
    seqs = vocabulary.encode(seqs)
    return (
        vocabulary.n_items,
        seqs.take(split.train),
        *leave_last_out(seqs.take(split.valid)),
        *leave_last_out(seqs.take(split.test)),
    )


def test_tune_takes_the_best_on_validation():
    n_items, train, histories, targets, *_ = world()
    markov = Markov.fit(train, n_items)
    candidates = [replace(markov, n_last=n, decay=d) for n in (1, 5) for d in (0.3, 0.9)]
    best, tried = tune(candidates, histories, targets)
    assert len(tried) == 4
    assert {"model", "n_last", "decay", "damping", "recall@10", "ndcg@10"} <= set(tried.columns)
    assert best is candidates[int(tried["ndcg@10"].argmax())]
    for candidate, ndcg in zip(candidates, tried["ndcg@10"], strict=True):
        assert ndcg == ndcg_at(ranks(candidate, histories, targets), 10).mean()
    with pytest.raises(ValueError, match="no candidates"):
        tune([], histories, targets)
    with pytest.raises(ValueError, match="none of the validation targets"):
        tune(candidates, histories, np.full(len(targets), n_items + 1))
    with pytest.raises(ValueError, match="none of the validation targets"):
        tune_blend(candidates[:2], histories, np.full(len(targets), n_items + 1))


def test_tune_listens_to_k_and_takes_the_earlier_of_equals():
    histories, targets = Sequences.from_lists([[5]] * 4), np.array([1, 2, 2, 2])
    seldom_first = Given([0, 9, 6, 8, 7, 0], "first once")  # ranks 1, 4, 4, 4
    often_second = Given([0, 7, 8, 9, 1, 0], "second mostly")  # ranks 3, 2, 2, 2
    for candidates in ([seldom_first, often_second], [often_second, seldom_first]):
        best, tried = tune(candidates, histories, targets, k=1)
        assert best is seldom_first and {"recall@1", "ndcg@1"} < set(tried.columns)
        assert tune(candidates, histories, targets, k=10)[0] is often_second
        _, tried = tune_blend(candidates, histories, targets, k=1)
        assert tried["ndcg@1"].max() == 0.25
    twin = Given([0, 9, 6, 8, 7, 0], "twin")
    for candidates in ([seldom_first, twin], [twin, seldom_first]):
        assert tune(candidates, histories, targets)[0] is candidates[0]


def test_the_order_of_playlists_decides_nothing():
    """Negative scores that only the last of three batches shows make logits of the part all the same."""
    rng = np.random.default_rng(0)
    rows = np.abs(rng.normal(size=(600, N + 1))).astype(np.float32)
    rows[550] -= 5

    class Tagged:
        name, n_items = "tagged", N

        def score(self, histories):
            return rows[histories.items[histories.offsets[:-1]] - 1000]

    histories = Sequences.from_lists([[1000 + u] for u in range(600)])
    targets = rng.integers(1, N + 1, 600)
    parts = Tagged(), Given(rng.normal(size=N + 1))
    found = []
    for order in (np.arange(600), np.arange(600)[::-1], rng.permutation(600)):
        blend, tried = tune_blend(parts, histories.take(order), targets[order])
        found.append((blend.weights, blend.logits, tried["ndcg@10"].tolist()))
    assert found[0] == found[1] == found[2] and len(found[0][2]) == 84


@quick
@given(st.integers(0, 10_000))
def test_what_is_tried_is_the_blend_that_comes_out(seed):
    rng = np.random.default_rng(seed)
    histories, targets = playlists(seed, users=30), rng.integers(0, N + 3, 30)
    targets[0] = 0 if N in set(histories[0]) else N  # at least one to choose by
    rows = rng.integers(-2, 4, (3, N + 1)).astype(np.float32)  # with ties
    rows[1, rng.integers(1, N + 1, 2)] = -np.inf
    parts = Given(rows[0], "a"), Given(rows[1], "b"), Given(np.abs(rows[2]) + rng.random(N + 1), "c")
    if not ranks(parts[0], histories, targets).any():
        return
    best, tried = tune_blend(parts, histories, targets, k=3, step=0.25)
    for _, row in tried.iterrows():
        logits = tuple(part.name in row["logits"].split(", ") for part in parts)
        blend = Blend(parts, tuple(row[["a", "b", "c"]]), logits)
        found = ranks(blend, histories, targets)
        # Equal in every part is equal in the blend, in whatever order it is summed; near is only near.
        assert row["ndcg@3"] == pytest.approx(ndcg_at(found, 3).mean(), abs=1e-9)
    assert ndcg_at(ranks(best, histories, targets), 3).mean() == pytest.approx(tried["ndcg@3"].max())


def test_a_tuned_blend_is_no_worse_than_its_parts_and_reports_what_it_is():
    n_items, train, histories, targets, *_ = world()
    parts = ItemKNN.fit(train, n_items), Markov.fit(train, n_items)
    blend, tried = tune_blend(parts, histories, targets, k=5)
    assert len(tried) == 21 and np.allclose(tried[["item-kNN", "Markov"]].sum(axis=1), 1)
    own = [ndcg_at(ranks(part, histories, targets), 5).mean() for part in parts]
    best = ndcg_at(ranks(blend, histories, targets), 5).mean()
    assert best == pytest.approx(tried["ndcg@5"].max()) and best > max(own)
    assert tried["ndcg@5"].iloc[[0, -1]].tolist() == pytest.approx(own)
    assert evaluate(blend, histories, targets, k=5).metrics["ndcg@5"].mean == pytest.approx(best)


def test_logits_blend_as_well_as_the_probabilities_they_stand_for():
    n_items, train, histories, targets, *_ = world()
    knn, markov = ItemKNN.fit(train, n_items), Markov.fit(train, n_items)

    class Logits:
        name, n_items = "logits", markov.n_items

        def score(self, histories):
            scores = markov.score(histories)
            return np.log(scores, out=np.full_like(scores, -np.inf), where=scores > 0) + 3

    best, _ = tune_blend((knn, markov), histories, targets)
    blend, tried = tune_blend((knn, Logits()), histories, targets)
    assert len(tried) == 42 and set(tried["logits"]) == {"", "logits"}
    ndcg = [ndcg_at(ranks(b, histories, targets), 10).mean() for b in (best, blend)]
    assert ndcg[1] >= ndcg[0] - 1e-9


def test_three_parts_and_blends_of_blends():
    n_items, train, histories, targets, *_ = world()
    knn, markov, popular = (kind.fit(train, n_items) for kind in (ItemKNN, Markov, Popularity))
    three, tried = tune_blend((knn, markov, popular), histories, targets, step=0.25)
    assert len(tried) == 15 and np.allclose(tried.iloc[:, :3].sum(axis=1), 1)
    assert len(tried.iloc[:, :3].drop_duplicates()) == 15
    nested, _ = tune_blend((Blend((knn, markov), (0.5, 0.5)), popular), histories, targets)
    assert ranks(nested, histories, targets).all() and ranks(three, histories, targets).all()
    twins, tried = tune_blend((markov, markov), histories, targets, step=0.5, name="twins")
    assert twins.name == "twins" and {"Markov #1", "Markov #2"} < set(tried.columns)


def test_the_baselines_beat_popularity_on_playlists_never_seen():
    n_items, train, histories, targets, test, test_targets = world()
    fitted = fit_baselines(train, n_items, histories, targets, k=5)
    assert [s.name for s in fitted] == ["popularity", "Markov", "item-kNN", "item-kNN + Markov"]
    ndcg = [evaluate(s, test, test_targets, k=5).metrics["ndcg@5"].mean for s in fitted]
    assert min(ndcg[1:]) > 2 * ndcg[0] and ndcg[3] > ndcg[2]
    again = fit_baselines(train, n_items, histories, targets, k=5)
    assert again[3].weights == fitted[3].weights
    assert np.array_equal(again[3].score(test), fitted[3].score(test))


@pytest.mark.parametrize("sure", [False, True])
def test_how_much_the_rare_are_trusted_is_chosen_on_validation(sure):
    """Pairs that were seen once and never apart are right in one world and chance in the other."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(300):  # tracks 1 to 10: together often, in no order
        rows.append(rng.permutation(10)[:6] + 1)
    rare = [[2 * i + 11, 2 * i + 12] for i in range(40)]  # 11 to 90: each pair once
    rows += [[int(rng.integers(1, 11)), *pair] for pair in rare]
    histories = Sequences.from_lists([[1 + u % 10, pair[0]] for u, pair in enumerate(rare)])
    targets = np.array([pair[1] if sure else 1 + (u + 3) % 10 for u, pair in enumerate(rare)])
    train = Sequences.from_lists(rows)
    knn = fit_baselines(train, 90, histories, targets, k=3)[2]
    fitted = {shrink: ItemKNN.fit(train, 90, shrink=shrink).similarity for shrink in (1.0, 10.0, 30.0)}
    same = [shrink for shrink, matrix in fitted.items() if np.allclose(matrix.toarray(), knn.similarity.toarray())]
    assert same == ([1.0] if sure else [30.0])


def test_a_blend_of_all_weighs_each_part_on_its_own():
    n_items, train, histories, targets, *_ = world()
    fitted = fit_baselines(train, n_items, histories, targets, k=5)
    popular = fitted[0]
    blend, tried = blend_of_all(popular, fitted, histories, targets, k=5, name="all")
    assert blend.name == "all" and blend.scorers == (popular, *fitted[-1].scorers) and len(tried) == 231
    nested, _ = tune_blend((popular, fitted[-1]), histories, targets, k=5)
    ndcg = [ndcg_at(ranks(b, histories, targets), 5).mean() for b in (blend, fitted[-1], nested)]
    assert ndcg[0] >= ndcg[1] - 1e-9 and ndcg[0] >= ndcg[2] - 0.005
