"""Ranks, sampled ranks and lists of the best: against brute force, known answers, and chance."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scorers import Fixed, RandomScorer, random_case, tagged

from sasrec_utils.baselines import Blend, tune_blend
from sasrec_utils.evaluation import (
    continuation,
    evaluate,
    log_likelihood,
    ranking,
    ranks,
    recall_at,
    sampled_ranks,
    table,
    top_k,
)
from sasrec_utils.sequences import Sequences, Vocabulary, continuation_split, split_playlists

quick = settings(deadline=None, max_examples=60)


# Ranks


def rank_by_hand(scores, history, target, exclude_seen=True):
    n_items = len(scores) - 1
    if not 0 < target <= n_items or (exclude_seen and target in history):
        return 0
    others = [x for x in range(1, n_items + 1) if x != target and not (exclude_seen and x in history)]
    return 1 + sum(scores[x] >= scores[target] for x in others)


@quick
@given(st.integers(0, 10_000), st.booleans(), st.sampled_from([1, 7, 256]))
def test_ranks_are_those_of_counting_by_hand(seed, exclude_seen, batch_size):
    rows, targets, scores = random_case(seed)
    found = ranks(Fixed(scores), tagged(rows, 30), targets, exclude_seen=exclude_seen, batch_size=batch_size)
    assert found.tolist() == [rank_by_hand(*case, exclude_seen) for case in zip(scores, rows, targets, strict=True)]


def test_a_scorer_that_cannot_tell_tracks_apart_comes_last():
    rows, targets = [[1, 2, 2], [], [3]], [5, 1, 4]
    found = ranks(Fixed(np.zeros((3, 21), np.float32)), tagged(rows, 20), targets)
    assert found.tolist() == [18, 20, 19]  # = the number of candidates
    report = evaluate(Fixed(np.full((3, 21), -np.inf, np.float32)), tagged(rows, 20), targets)
    assert report.metrics["recall@10"].mean == 0 and report.metrics["ndcg@10"].mean == 0


def test_a_random_scorer_scores_chance():
    users, n_items = 4000, 50
    histories = Sequences.from_lists([[1, 2, 3, 4, 5]] * users)
    targets = np.random.default_rng(1).integers(6, n_items + 1, users)
    found = ranks(RandomScorer(n_items), histories, targets)
    chance = 10 / 45
    assert abs(recall_at(found, 10).mean() - chance) < 4 * np.sqrt(chance * (1 - chance) / users)
    found = sampled_ranks(RandomScorer(500), histories, targets)
    chance = 10 / 101
    assert abs(recall_at(found, 10).mean() - chance) < 4 * np.sqrt(chance * (1 - chance) / users)


def test_nan_and_wrong_shapes_are_refused_by_name():
    histories = tagged([[1]], 20)
    scores = np.zeros((1, 21), np.float32)
    scores[0, 7] = np.nan
    for protocol in ("full", "sampled"):
        with pytest.raises(ValueError, match="broken gave NaN"):
            evaluate(Fixed(scores, "broken"), histories, [5], protocol=protocol)
    thin = Fixed(np.zeros((1, 21), np.float32), "thin")
    thin.score = lambda histories: np.zeros((1, 20), np.float32)
    with pytest.raises(ValueError, match=r"thin gave scores of shape \(1, 20\)"):
        ranks(thin, histories, [5])
    with pytest.raises(ValueError, match="as many targets"):
        ranks(thin, histories, [5, 6])


def test_every_playlist_is_counted():
    users, n_items = 10_500, 12
    scorer = RandomScorer(n_items)
    targets = np.full(users, 5)
    report = evaluate(scorer, Sequences.from_lists([[1]] * users), targets, n_boot=10)
    assert report.playlists == users and (report.ranks > 0).all()
    assert f"{users:,}" in repr(report) and table([report])["playlists"].item() == f"{users:,}"


def test_memory_is_bounded_whatever_the_catalogue(monkeypatch):
    monkeypatch.setattr(ranking, "MAX_SCORES", 210)
    scorer = Fixed(np.zeros((50, 21), np.float32))
    ranks(scorer, tagged([[1]] * 50, 20), np.full(50, 2))
    assert max(scorer.batches) == 10 and sum(scorer.batches) == 50


def small_model():
    from sasrec_utils.model import SASRec, SASRecConfig

    return SASRec(SASRecConfig(20, dim=8, heads=2, max_len=6, n_artists=3), artist_of=np.arange(21) % 4)


def test_the_table_of_a_model_is_made_once_for_all_batches(monkeypatch):
    model, made = small_model(), []
    add = model._add_features
    monkeypatch.setattr(model, "_add_features", lambda x, f, ids: made.append(isinstance(ids, slice)) or add(x, f, ids))
    histories, targets = Sequences.from_lists([[1 + u % 20] for u in range(40)]), (np.arange(40) + 7) % 20 + 1
    seeds, held_out = Sequences.from_lists([[1]] * 40), Sequences.from_lists([[2]] * 40)
    blend = Blend((model, Blend((model, RandomScorer(20)), (1, 1))), (1, 1))
    for call in (
        lambda: ranks(model, histories, targets, batch_size=8),
        lambda: evaluate(model, histories, targets, batch_size=8, n_boot=1),
        lambda: sampled_ranks(model, histories, targets, batch_size=8),
        lambda: continuation(model, seeds, held_out, n=5, batch_size=8, n_boot=1),
        lambda: log_likelihood(model, Sequences.from_lists([[1, 2]] * 40), batch_size=8),
        lambda: ranks(blend, histories, targets, batch_size=8),  # the same model twice, once within a part
        lambda: tune_blend((model, RandomScorer(20)), histories.take(np.arange(9)), targets[:9]),
    ):
        made.clear()
        call()
        assert made.count(True) == 1


def test_a_kept_table_does_not_outlive_the_call():
    model = small_model()
    histories, targets = Sequences.from_lists([[1], [2], [3]]), np.array([4, 5, 6])
    before = ranks(model, histories, targets)
    broken = Sequences.from_lists([[1], [2]])
    with pytest.raises(ValueError, match="as many targets"), ranking.unchanged(model):
        ranks(model, broken, targets)
    with torch.no_grad():
        model.item_emb.weight[1:] = model.item_emb.weight[1:].flip(0)
    flipped = small_model()
    flipped.load_state_dict(model.state_dict())
    assert np.array_equal(ranks(model, histories, targets), ranks(flipped, histories, targets))
    assert not np.array_equal(model.score(histories), small_model().score(histories)) and before.all()
    model.keep_table()  # one that was kept before stays
    kept = model.table()
    ranks(model, histories, targets)
    assert model.table() is kept


# One and a hundred


@quick
@given(st.integers(0, 10_000), st.sampled_from([1, 5, 100]))
def test_negatives_are_distinct_and_never_seen_or_the_target(seed, n):
    rows, targets, _ = random_case(seed)
    drawn = ranking._draw_negatives(Sequences.from_lists(rows), targets.astype(np.int64), 30, n, seed)
    for row, target, negatives in zip(rows, targets, drawn, strict=True):
        taken = negatives[negatives > 0]
        allowed = set(range(1, 31)) - set(row) - {int(target)}
        assert len(taken) == len(set(taken)) == min(n, len(allowed)) and set(taken) <= allowed


def test_negatives_are_uniform():
    histories = Sequences.from_lists([[2, 3, 9]] * 20_000)
    drawn = ranking._draw_negatives(histories, np.full(20_000, 5), 10, 2, 0)
    share = np.bincount(drawn.ravel(), minlength=11) / 20_000
    assert (share[[0, 2, 3, 5, 9]] == 0).all()
    assert abs(share[[1, 4, 6, 7, 8, 10]] - 1 / 3).max() < 0.02  # 2 of 6; six standard errors
    assert (drawn[:, 0] < drawn[:, 1]).mean() > 0.2 and (drawn[:, 0] > drawn[:, 1]).mean() > 0.2


def test_a_playlist_that_holds_nearly_every_track_ends():
    histories = Sequences.from_lists([list(range(1, 999)), list(range(1, 1000)), list(range(1, 1001))])
    drawn = ranking._draw_negatives(histories, np.array([999, 1000, 1001]), 1000, 100, 0)
    assert drawn[0, drawn[0] > 0].tolist() == [1000]
    assert (drawn[1:] == 0).all()
    report = evaluate(RandomScorer(1000), histories, [999, 1000, 1001], protocol="sampled")
    assert report.ranks[1:].tolist() == [1, 0]


@quick
@given(st.integers(0, 10_000))
def test_sampled_ranks_flatter(seed):
    rows, targets, scores = random_case(seed)
    histories = tagged(rows, 30)
    full = ranks(Fixed(scores), histories, targets)
    sampled = sampled_ranks(Fixed(scores), histories, targets, n_negatives=10, seed=seed)
    assert ((sampled > 0) == (full > 0)).all() and (sampled <= full).all()
    assert np.array_equal(
        sampled, sampled_ranks(Fixed(scores), histories, targets, n_negatives=10, seed=seed, batch_size=7)
    )
    # with every track among the negatives the two protocols are one
    assert np.array_equal(full, sampled_ranks(Fixed(scores), histories, targets, n_negatives=30))


def test_fixed_negatives_are_used_as_they_are():
    scores = np.arange(21, dtype=np.float32)[None]
    found = sampled_ranks(Fixed(scores), tagged([[1]], 20), [10], negatives=np.array([[9, 10, 11, 0]]))
    assert found.tolist() == [3]


@pytest.mark.parametrize(
    ("negatives", "message"),
    [
        ([[1, 2]], "2 histories need as many rows"),  # would have been used for both
        ([1, 2], "2 histories need as many rows"),
        ([[1.0, 2.0], [3.0, 4.0]], "whole numbers"),
        ([[1, 2], [3, 21]], "ids from 1 to 20"),
        ([[1, 2], [3, -1]], "ids from 1 to 20"),  # would have been the last track
    ],
)
def test_negatives_that_do_not_fit_are_refused(negatives, message):
    with pytest.raises(ValueError, match=message):
        sampled_ranks(Fixed(np.zeros((2, 21))), tagged([[1], [2]], 20), [5, 6], negatives=np.array(negatives))


# Best tracks


@quick
@given(st.integers(0, 10_000), st.integers(1, 35))
def test_top_k_is_a_sorted_list_cut_off(seed, k):
    rows, _, scores = random_case(seed)
    before = scores.copy()
    found = top_k(scores, k, exclude=Sequences.from_lists(rows))
    place = ranking._shuffled(31)
    assert np.array_equal(scores, before, equal_nan=True) and found.shape == (40, k)
    for row, seen, ids in zip(scores, rows, found, strict=True):
        allowed = [x for x in range(1, 31) if x not in seen and row[x] > -np.inf]
        expected = sorted(allowed, key=lambda x: (-row[x], place[x]))[:k]
        assert ids.tolist() == expected + [0] * (k - len(expected))


def test_equals_are_not_listed_by_id_and_always_alike():
    flat = np.ones((1, 1001), np.float32)
    order = top_k(flat, 1000)[0]
    assert sorted(order) == list(range(1, 1001))
    assert abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.1  # three standard errors
    for k in (1, 10, 999):
        assert np.array_equal(top_k(flat, k)[0], order[:k])  # the cut goes through the same order


def test_a_scorer_that_only_says_was_played_scores_chance():
    """Ids follow the plays in all playlists, as `mpd.prepare` gives them: parted by id is parted by the answers."""
    rng = np.random.default_rng(0)
    tracks = np.minimum(rng.zipf(1.4, 60_000), 20_000)
    by_plays = np.argsort(-np.bincount(tracks, minlength=20_001)[1:], kind="stable")
    numbers = np.empty(20_000, dtype=np.int64)
    numbers[by_plays] = np.arange(1, 20_001)
    everything = Sequences(numbers[tracks - 1], np.arange(0, 60_001, 20))
    split = split_playlists(len(everything), 0, valid=0, test=0.3)
    vocabulary = Vocabulary.fit(everything.take(split.train), 20_000)
    seeds, held_out = continuation_split(vocabulary.encode(everything.take(split.test)), 5)
    played = RandomScorer(vocabulary.n_items)
    played.score = lambda histories: np.ones((len(histories), vocabulary.n_items + 1), np.float32)
    assert continuation(played, seeds, held_out, n=20).metrics["recall@20"].mean < 0.02
    by_id = RandomScorer(vocabulary.n_items)
    by_id.score = lambda histories: np.tile(-np.arange(vocabulary.n_items + 1.0), (len(histories), 1))
    assert continuation(by_id, seeds, held_out, n=20).metrics["recall@20"].mean > 0.5


def test_the_list_and_the_rank_tell_near_scores_apart_alike():
    scores = np.full((1, 21), 1.0)
    scores[0, [7, 3, 12]] += [3e-12, 2e-12, 1e-12]  # the same number in float32
    assert top_k(scores, 3)[0].tolist() == [7, 3, 12]
    assert [ranks(Fixed(scores), tagged([[]], 20), [x])[0] for x in (7, 3, 12)] == [1, 2, 3]
    assert top_k(np.arange(5)[None], 2).tolist() == [[4, 3]]  # whole numbers


def test_a_list_of_nan_and_too_few_playlists_to_exclude_are_refused():
    scores = np.zeros((2, 21), np.float32)
    with pytest.raises(ValueError, match="2 rows of scores"):
        top_k(scores, 3, exclude=Sequences.from_lists([[1]]))
    scores[1, 5] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        top_k(scores, 3)
    assert top_k(scores, 3, exclude=Sequences.from_lists([[], [5]])).shape == (2, 3)


def test_a_list_is_made_in_blocks_of_bounded_size(monkeypatch):
    scores = np.random.default_rng(0).random((64, 20_001)).astype(np.float32)
    seen = Sequences.from_lists([[u + 1, 7] for u in range(64)])
    whole = top_k(scores, 10, exclude=seen)
    monkeypatch.setattr(ranking, "BLOCK", 40_002)
    tracemalloc.start()
    blocks = top_k(scores, 10, exclude=seen)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(whole, blocks)
    assert peak < scores.nbytes / 5  # two rows of 64 at a time
