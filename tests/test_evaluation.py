"""Ranks, metrics, intervals and protocols: against brute force, an independent library, and known answers."""

from __future__ import annotations

import tracemalloc

import ir_measures
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sasrec_utils.baselines import Blend, tune_blend
from sasrec_utils.evaluation import (
    compare,
    continuation,
    evaluate,
    log_likelihood,
    metrics,
    ndcg_at,
    ranking,
    ranks,
    recall_at,
    reciprocal_rank,
    sampled_ranks,
    table,
    top_k,
)
from sasrec_utils.sequences import Sequences, Vocabulary, continuation_split, split_playlists

quick = settings(deadline=None, max_examples=60)


class Fixed:
    """Gives each playlist the row of scores that its first track, a mere tag, points to."""

    def __init__(self, scores, name="fixed"):
        self.scores, self.name = np.asarray(scores), name
        self.n_items = self.scores.shape[1] - 1
        self.batches = []

    def score(self, histories):
        self.batches.append(len(histories))
        return self.scores[histories.items[histories.offsets[:-1]] - self.n_items - 1]


def tagged(rows, n_items) -> Sequences:
    """Playlists whose first entry is an unknown id, N + 1 + u: which row of `Fixed` to give."""
    return Sequences.from_lists([[n_items + 1 + u, *row] for u, row in enumerate(rows)])


def random_case(seed, users=40, n_items=30, levels=5):
    """Histories, targets (some lost) and scores with many ties."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(1, n_items + 4, rng.integers(0, 12)).tolist() for _ in range(users)]
    targets = rng.integers(0, n_items + 3, users)
    scores = rng.integers(0, levels, (users, n_items + 1)).astype(np.float32)
    scores[:, 0] = np.nan  # padding: never read
    scores[rng.random(scores.shape) < 0.1] = -np.inf
    return rows, targets, scores


def rank_by_hand(scores, history, target, exclude_seen=True):
    n_items = len(scores) - 1
    if not 0 < target <= n_items or (exclude_seen and target in history):
        return 0
    others = [x for x in range(1, n_items + 1) if x != target and not (exclude_seen and x in history)]
    return 1 + sum(scores[x] >= scores[target] for x in others)


class RandomScorer:
    name = "random"

    def __init__(self, n_items, seed=0):
        self.n_items, self.rng = n_items, np.random.default_rng(seed)

    def score(self, histories):
        return self.rng.random((len(histories), self.n_items + 1), dtype=np.float32)


# Ranks


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


# Metrics


@quick
@given(st.lists(st.integers(0, 40), min_size=1, max_size=50), st.integers(1, 20))
def test_metrics_stay_in_their_bounds(found, k):
    found = np.array(found)
    recall, ndcg, mrr = recall_at(found, k), ndcg_at(found, k), reciprocal_rank(found)
    assert len(recall) == len(ndcg) == len(mrr) == (found > 0).sum()
    assert ((ndcg >= 0) & (ndcg <= recall) & (recall <= 1)).all() and ((mrr > 0) & (mrr <= 1)).all()
    assert ((ndcg == 1) == (found[found > 0] == 1)).all()


@pytest.mark.parametrize("k", [1, 10])
def test_metrics_are_those_of_an_independent_library(k):
    rng = np.random.default_rng(3)
    users, n_items = 200, 60
    scores = rng.permuted(np.tile(np.arange(n_items + 1, dtype=np.float32), (users, 1)), axis=1)  # no ties
    rows = [rng.choice(np.arange(1, 31), 8, replace=False).tolist() for _ in range(users)]
    targets = rng.integers(31, n_items + 1, users)
    report = evaluate(Fixed(scores), tagged(rows, n_items), targets, k=k)
    run = [
        ir_measures.ScoredDoc(str(u), str(x), float(scores[u, x]))
        for u in range(users)
        for x in range(1, n_items + 1)
        if x not in rows[u]
    ]
    truth = [ir_measures.Qrel(str(u), str(x), 1) for u, x in enumerate(targets)]
    theirs = {f"recall@{k}": ir_measures.R @ k, f"ndcg@{k}": ir_measures.nDCG @ k, "mrr": ir_measures.RR}
    mean = ir_measures.calc_aggregate(theirs.values(), truth, run)
    each = {(str(m.measure), m.query_id): m.value for m in ir_measures.iter_calc(theirs.values(), truth, run)}
    for name, measure in theirs.items():
        assert report.metrics[name].mean == pytest.approx(mean[measure], abs=1e-8)
        one_by_one = [each[str(measure), str(u)] for u in range(users)]
        assert report.values[name] == pytest.approx(one_by_one, abs=1e-8)


def test_a_perfect_scorer_scores_one():
    targets = np.arange(1, 16)
    scores = np.zeros((15, 21), np.float32)
    scores[np.arange(15), targets] = 1
    report = evaluate(Fixed(scores), tagged([[20]] * 15, 20), targets)
    assert all(interval.mean == interval.high == 1 for interval in report.metrics.values())
    assert all(interval.low == pytest.approx(0.025 ** (1 / 15)) for interval in report.metrics.values())
    assert (report.targets_kept, report.playlists) == (1, 15)


# Reports


def test_lost_targets_are_counted_and_empty_playlists_are_not():
    # known, unknown (21), already in the history (1), no target at all (0)
    scores = np.zeros((4, 21), np.float32)
    scores[:, 5] = 1
    report = evaluate(Fixed(scores), tagged([[1]] * 4, 20), [5, 21, 1, 0])
    assert report.ranks.tolist() == [1, 0, 0, 0]
    assert report.playlists == 3 and report.targets_kept == pytest.approx(1 / 3)
    assert report.metrics["recall@10"].mean == 1
    assert report.metrics["recall@10_all"].mean == pytest.approx(1 / 3)
    kept_repeat = evaluate(Fixed(scores), tagged([[1]] * 4, 20), [5, 21, 1, 0], exclude_seen=False)
    assert kept_repeat.ranks.tolist() == [1, 0, 20, 0]
    with pytest.raises(ValueError, match="no playlist has a target"):
        evaluate(Fixed(scores), tagged([[1]] * 4, 20), [0] * 4)
    with pytest.raises(ValueError, match="protocol"):
        evaluate(Fixed(scores), tagged([[1]] * 4, 20), [5] * 4, protocol="both")


def test_all_targets_lost_is_said_not_hidden():
    report = evaluate(Fixed(np.zeros((2, 21), np.float32)), tagged([[1]] * 2, 20), [1, 30])
    assert report.targets_kept == 0 and np.isnan(report.metrics["recall@10"].mean)
    assert report.metrics["recall@10_all"].mean == 0


def test_coverage_is_the_share_of_tracks_shown():
    scores = np.tile(np.arange(21, dtype=np.float32), (3, 1))
    scores[1:] = scores[1:, ::-1]
    report = evaluate(Fixed(scores), tagged([[20], [1, 2], []], 20), [5, 6, 7], k=3)
    assert report.coverage == 8 / 20  # 19, 18, 17; 3, 4, 5; 1, 2, 3: what the history holds is not shown
    report = evaluate(Fixed(scores), tagged([[20], [1, 2], []], 20), [5, 6, 7], k=3, exclude_seen=False)
    assert report.coverage == 6 / 20  # 20, 19, 18; 1, 2, 3; 1, 2, 3


def test_reports_are_the_same_whatever_the_batch():
    rows, targets, scores = random_case(5)
    one, many = (evaluate(Fixed(scores), tagged(rows, 30), targets, batch_size=b) for b in (256, 3))
    assert one.row() == many.row()
    assert one.row() == evaluate(Fixed(scores), tagged(rows, 30), targets).row()


def test_a_playlist_without_a_target_shows_nothing():
    scores = np.tile(np.arange(21, dtype=np.float32), (2, 1))
    scores[1] = scores[1, ::-1]
    report = evaluate(Fixed(scores), tagged([[], []], 20), [5, 0], k=3)
    assert report.coverage == 3 / 20  # 20, 19, 18
    report = continuation(Fixed(scores), tagged([[], []], 20), Sequences.from_lists([[5], []]), n=3)
    assert report.coverage == 3 / 20


def test_the_seed_draws_the_negatives_and_the_resamples():
    rng = np.random.default_rng(0)
    scores = rng.random((200, 501)).astype(np.float32)
    histories, targets = tagged([[]] * 200, 500), rng.integers(1, 501, 200)
    one, same, other = (evaluate(Fixed(scores), histories, targets, protocol="sampled", seed=s) for s in (1, 1, 2))
    assert np.array_equal(one.ranks, same.ranks) and one.row() == same.row()
    assert not np.array_equal(one.ranks, other.ranks)
    one, same, other = (evaluate(Fixed(scores), histories, targets, seed=s).metrics["mrr"] for s in (1, 1, 2))
    assert one == same and one.mean == other.mean and one[1:] != other[1:]
    drawn = [ranking._draw_negatives(histories, targets, 500, 100, seed) for seed in (1, 1, 2)]
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])


def test_the_table_says_what_is_behind_each_number():
    rows, targets, scores = random_case(5)
    reports = [
        evaluate(Fixed(scores, name), tagged(rows, 30), targets, protocol=protocol)
        for name, protocol in (("a", "full"), ("b", "sampled"))
    ]
    frame = table(reports)
    assert frame.index.tolist() == ["a", "b"] and frame["protocol"].tolist() == ["full", "sampled"]
    low, high = reports[0].metrics["recall@10"][1:]
    mean = reports[0].metrics["recall@10"].mean
    assert frame.loc["a", "recall@10"] == f"{mean:.3f} [{low:.3f}, {high:.3f}]"
    assert {"ndcg@10", "mrr", "coverage", "targets kept", "playlists"} < set(frame.columns)
    assert table([]).empty


# Intervals


def test_bootstrap_intervals_are_those_of_theory_for_many_playlists():
    values = np.random.default_rng(0).random((3000, 2)) ** [1, 4]
    for column, interval in zip(values.T, metrics._bootstrap(values, 2000, 1), strict=True):
        half = 1.96 * column.std() / np.sqrt(len(column))
        assert interval.mean == pytest.approx(column.mean())
        assert interval.low == pytest.approx(column.mean() - half, abs=0.15 * half)
        assert interval.high == pytest.approx(column.mean() + half, abs=0.15 * half)


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        # R: binom.test(hits, n)$conf.int
        (0, 10, 0.0, 0.3084971),
        (1, 10, 0.002528579, 0.4450161),
        (5, 10, 0.1870860, 0.8129140),
        (10, 10, 0.6915029, 1.0),
        (73, 73, 0.9507220, 1.0),
        (1, 1, 0.025, 1.0),
    ],
)
def test_a_share_has_the_exact_interval(hits, n, low, high):
    column = np.concatenate((np.repeat([1.0, 0.0], [hits, n - hits]), [np.nan, np.nan]))
    interval = metrics.intervals({"recall@10": column}, 50, 0)["recall@10"]
    assert interval == pytest.approx((hits / n, low, high), abs=1e-6)


def test_the_exact_interval_is_where_one_case_in_forty_begins():
    for hits, n in ((3, 40), (700, 1000), (1, 500)):
        _, low, high = metrics._share(hits, n)
        assert stats.binom.sf(hits - 1, n, low) == pytest.approx(0.025)
        assert stats.binom.cdf(hits, n, high) == pytest.approx(0.025)
    assert metrics._share(1, 500)[1:] == pytest.approx((0.00005, 0.0111), abs=1e-4)  # a bootstrap says [0, .006]


def test_only_shares_are_exact_and_only_shares():
    rng = np.random.default_rng(0)
    hits = (rng.random(200) < 0.1).astype(float)
    columns = {"recall@10": hits, "ndcg@10": hits * 0.5, "clicks": hits, "recall@500": rng.random(200)}
    found = metrics.intervals(columns, 500, 0)
    assert found["recall@10"] == metrics._share(int(hits.sum()), 200)
    bootstrapped = [name for name in columns if name != "recall@10"]
    together = np.stack([columns[name] for name in bootstrapped], axis=1)
    assert [found[name] for name in bootstrapped] == metrics._bootstrap(together, 500, 0)
    assert list(found) == list(columns)
    # Nothing found is not "nothing can be found", whatever the metric: .0 [.0, .018] and not .0 [.0, .0].
    assert metrics.intervals({"ndcg@10": np.zeros(200)}, 500, 0)["ndcg@10"].high == pytest.approx(0.0183, abs=1e-4)
    assert all(np.isnan(metrics.intervals({"mrr": np.full(3, np.nan)}, 50, 0)["mrr"]))


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng, covered = np.random.default_rng(0), 0
    for trial in range(400):
        hits = (rng.random((250, 1)) < 0.2).astype(float)
        interval = metrics._bootstrap(hits, 200, trial)[0]
        covered += interval.low <= 0.2 <= interval.high
    assert 0.91 < covered / 400 < 0.98  # 95 % is meant; 3.3 standard errors either way


def test_blocks_of_resamples_do_not_change_the_interval_much(monkeypatch):
    values = np.random.default_rng(0).random((500, 1))
    whole = metrics._bootstrap(values, 1000, 0)[0]
    several = metrics._bootstrap(np.tile(values, (20, 1)), 1000, 0)[0]  # 10,000 playlists: three blocks
    assert (several.high - several.low) == pytest.approx((whole.high - whole.low) / np.sqrt(20), rel=0.15)


def test_paired_differences_see_what_separate_intervals_cannot():
    rng = np.random.default_rng(0)
    users, n_items = 600, 40
    base = rng.random((users, n_items + 1)).astype(np.float32)
    targets = rng.integers(1, n_items + 1, users)
    better = base.copy()
    better[np.arange(users), targets] += 0.03
    histories = tagged([[]] * users, n_items)
    a, b = (evaluate(Fixed(s), histories, targets) for s in (better, base))
    assert a.metrics["recall@10"].low < b.metrics["recall@10"].high  # separate intervals overlap
    difference = compare(a, b)
    assert difference.low > 0
    assert difference.mean == pytest.approx(a.metrics["recall@10"].mean - b.metrics["recall@10"].mean)
    assert compare(b, a).high == pytest.approx(-difference.low)
    assert compare(a, a, "ndcg@10") == (0, 0, 0)


def test_only_like_is_compared_with_like():
    rows, targets, scores = random_case(5)
    histories = tagged(rows, 30)
    report = evaluate(Fixed(scores), histories, targets)
    other = evaluate(Fixed(scores), histories, np.roll(targets, 1))
    sampled = evaluate(Fixed(scores), histories, targets, protocol="sampled")
    for wrong in (other, sampled):
        with pytest.raises(ValueError, match="same playlists"):
            compare(report, wrong)
    with pytest.raises(ValueError, match="recall@5"):
        compare(report, report, "recall@5")
    few = Fixed(scores[:, :21])  # a smaller vocabulary loses more targets
    few.score = lambda histories: scores[histories.items[histories.offsets[:-1]] - 31][:, :21]
    smaller = evaluate(few, histories, targets)
    with pytest.raises(ValueError, match="kept different targets"):
        compare(report, smaller)
    assert compare(report, smaller, "recall@10_all").mean > -1


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


# Continuation


def test_continuation_by_hand():
    # tracks 1…20, artist = (track + 1) // 2; ranking: 1, 2, 3, …
    scores = np.tile(-np.arange(21, dtype=np.float32), (4, 1))
    artist_of = np.append((np.arange(41) + 1) // 2, [99])
    seeds = tagged([[1], [1], [1], [1]], 20)
    # 1 is a seed, so it is not asked for and the list is 2, 3, 4, …; hits are 2 and 9, at places 1 and 8;
    # 40 and 41 are unknown
    held_out = Sequences.from_lists([[9, 2, 2, 40, 1], [19, 17], [], [41]])
    report = continuation(Fixed(scores), seeds, held_out, artist_of, n=12)
    values = {name: column.tolist() for name, column in report.values.items()}
    assert values["r_precision"][:2] == [1 / 3, 0]
    # first 3 places: tracks 2, 3, 4 of artists 1, 2, 2; held out: 2, 9, 40 of artists 1, 5, 20
    assert values["r_precision_artist"][:2] == [(1 + 0.25) / 3, 0]
    log2 = np.log2
    assert values["ndcg"][0] == pytest.approx((1 + 1 / log2(9)) / (1 + 1 / log2(3) + 1 / log2(4)))
    assert values["ndcg_challenge"][0] == pytest.approx((1 + 1 / log2(8)) / (1 + 1 / log2(2)))
    assert values["clicks"][:2] == [0, 51]
    assert values["recall@12"][:2] == [2 / 3, 0]
    assert all(np.isnan(column[2]) for column in values.values())  # nothing held out: does not count
    assert values["r_precision"][3] == 0 and values["clicks"][3] == 51  # unknown tracks are misses
    assert report.playlists == 3
    assert report.targets_kept == pytest.approx(4 / 6)  # of 9, 2, 40 / 19, 17 / 41
    longer = continuation(Fixed(scores), seeds, held_out, artist_of, n=19)
    assert longer.values["clicks"][1] == 1  # 17 is at place 16
    assert report.coverage == 12 / 20


def test_a_list_shorter_than_what_is_held_out_can_still_be_ideal():
    scores = -np.arange(21, dtype=np.float32)[None]
    held_out = Sequences.from_lists([[1, 2, 3, 4, 5, 6]])
    report = continuation(Fixed(scores), tagged([[]], 20), held_out, n=4)
    assert report.metrics["ndcg"].mean == report.metrics["ndcg_challenge"].mean == 1
    missed = continuation(Fixed(scores), tagged([[]], 20), Sequences.from_lists([[1, 2, 3, 14, 15, 16]]), n=4)
    log2 = np.log2
    assert missed.metrics["ndcg"].mean == pytest.approx(1 - (1 / log2(5)) / (1 + 1 / log2(3) + 1 / 2 + 1 / log2(5)))


def test_artist_credit_counts_distinct_artists_of_the_first_places():
    scores = -np.arange(21, dtype=np.float32)[None]
    artist_of = np.array([0, 7, 7, 8, 8, 0, 0] + [1] * 30)
    held_out = Sequences.from_lists([[11, 6, 31, 32]])  # artists 1, 0 (unknown), 1, 1
    report = continuation(Fixed(scores), tagged([[]], 20), held_out, artist_of, n=15)
    assert report.values["r_precision_artist"][0] == 0  # first 4: artists 7, 7, 8, 8; unknown never matches
    artist_of[[11, 31]] = 7
    report = continuation(Fixed(scores), tagged([[]], 20), held_out, artist_of, n=15)
    assert report.values["r_precision_artist"][0] == 0.25 / 4  # 7 counts once
    with pytest.raises(ValueError, match="artist_of covers 9"):
        continuation(Fixed(scores), tagged([[]], 20), held_out, artist_of[:10], n=15)


def test_a_perfect_continuation():
    scores = np.zeros((1, 21), np.float32)
    scores[0, [4, 8, 15]] = [3, 2, 1]
    report = continuation(Fixed(scores), tagged([[1]], 20), Sequences.from_lists([[15, 4, 8]]), n=10)
    assert {name: interval.mean for name, interval in report.metrics.items()} == {
        "r_precision": 1,
        "ndcg": 1,
        "ndcg_challenge": 1,
        "clicks": 0,
        "recall@10": 1,
    }


@quick
@given(st.integers(0, 10_000))
def test_continuation_metrics_stay_in_their_bounds_and_agree_with_a_loop(seed):
    rows, _, scores = random_case(seed, levels=1000)
    rng = np.random.default_rng(seed)
    held = [rng.choice([*range(1, 31), 100, 101, 102], rng.integers(0, 9)).tolist() for _ in rows]
    artist_of = rng.integers(0, 6, 103)
    seeds, held_out = tagged(rows, 30), Sequences.from_lists(held)
    report = continuation(Fixed(scores), seeds, held_out, artist_of, n=12, n_boot=5, batch_size=16)
    assert report.values["r_precision"].shape == (len(rows),)
    listed = top_k(scores, 12, exclude=Sequences.from_lists(rows))
    for u, (row, rest, ids) in enumerate(zip(rows, held, listed, strict=True)):
        wanted = set(rest) - set(row)
        if not wanted:
            assert np.isnan(report.values["ndcg"][u])
            continue
        head = set(ids[: len(wanted)]) - {0}
        artists = {artist_of[x] for x in head} & {artist_of[x] for x in wanted} - {0}
        assert report.values["r_precision"][u] == pytest.approx(len(head & wanted) / len(wanted))
        assert report.values["r_precision_artist"][u] == pytest.approx(
            (len(head & wanted) + 0.25 * len(artists)) / len(wanted)
        )
        hits = [i for i, x in enumerate(ids) if x in wanted]
        assert report.values["clicks"][u] == (hits[0] // 10 if hits else 51)
        assert report.values["recall@12"][u] == pytest.approx(len(hits) / len(wanted))
        assert 0 <= report.values["ndcg"][u] <= 1 + 1e-12
        assert 0 <= report.values["ndcg_challenge"][u] <= 1 + 1e-12
        assert (report.values["ndcg"][u] > 0) == (report.values["ndcg_challenge"][u] > 0) == bool(hits)


def test_continuation_agrees_with_an_independent_library():
    rng = np.random.default_rng(1)
    users, n_items = 100, 80
    scores = rng.permuted(np.tile(np.arange(n_items + 1, dtype=np.float32), (users, 1)), axis=1)
    rows = [rng.choice(np.arange(1, 41), 5, replace=False).tolist() for _ in range(users)]
    held = [rng.choice(np.arange(41, n_items + 1), 12, replace=False).tolist() for _ in range(users)]
    report = continuation(Fixed(scores), tagged(rows, n_items), Sequences.from_lists(held), n=50)
    run = [
        ir_measures.ScoredDoc(str(u), str(x), float(scores[u, x]))
        for u in range(users)
        for x in range(1, n_items + 1)
        if x not in rows[u]
    ]
    truth = [ir_measures.Qrel(str(u), str(x), 1) for u in range(users) for x in held[u]]
    theirs = {"r_precision": ir_measures.Rprec, "ndcg": ir_measures.nDCG @ 50, "recall@50": ir_measures.R @ 50}
    mean = ir_measures.calc_aggregate(theirs.values(), truth, run)
    for name, measure in theirs.items():
        assert report.metrics[name].mean == pytest.approx(mean[measure], abs=1e-8)


# --- log-likelihood ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_log_likelihood_is_a_softmax_over_the_candidates(exclude_seen):
    class Last:
        """Scores that depend on the last track."""

        name, n_items = "last", 6
        table = np.random.default_rng(0).normal(0, 2, (9, 7))

        def score(self, histories):
            return self.table[histories.items[histories.offsets[1:] - 1]]

    playlists = [[1, 2, 3], [4], [5, 5, 8, 5], [2, 6, 2, 1], []]
    found = log_likelihood(Last(), Sequences.from_lists(playlists), exclude_seen=exclude_seen, batch_size=2)
    row = 0
    for playlist in playlists:
        for t, track in enumerate(playlist):
            if t == 0 or track > 6:
                assert np.isnan(found[row])
            else:
                left = [x for x in range(1, 7) if not exclude_seen or x not in playlist[:t] or x == track]
                scores = Last.table[playlist[t - 1]]
                wanted = scores[track] - np.log(np.exp(scores[left]).sum())
                assert np.isclose(found[row], wanted)
            row += 1


def test_log_likelihood_stays_within_the_memory_that_ranks_take(monkeypatch):
    seqs = Sequences.from_lists([np.random.default_rng(u).integers(1, 23, 9).tolist() for u in range(12)])
    whole = log_likelihood(Hashed(), seqs)
    for setting, value in (("MAX_SCORES", 21 * 5), ("BLOCK", 21 * 2)):
        for module in (ranking, metrics):
            if hasattr(module, setting):
                monkeypatch.setattr(module, setting, value)
    scorer = Hashed()
    assert np.allclose(log_likelihood(scorer, seqs), whole, equal_nan=True)
    assert max(scorer.batches) == 5
    with pytest.raises(ValueError, match="broken gave NaN"):
        log_likelihood(Fixed(np.full((1, 21), np.nan), "broken"), tagged([[3, 4]], 20))


class Hashed:
    """Scores that depend on the last track."""

    name, n_items = "hashed", 20

    def __init__(self):
        self.batches = []

    def score(self, histories):
        self.batches.append(len(histories))
        last = histories.items[histories.offsets[1:] - 1]
        return np.stack([np.random.default_rng(int(x)).normal(size=21) for x in last]).astype(np.float32)


def test_log_likelihood_of_a_model_is_its_validation_loss():
    from sasrec_utils.model import SASRec, SASRecConfig
    from sasrec_utils.sequences import leave_last_out
    from sasrec_utils.training import validate

    rng = np.random.default_rng(0)
    playlists = Sequences.from_lists([rng.integers(1, 21, rng.integers(2, 12)).tolist() for _ in range(30)])
    model = SASRec(SASRecConfig(20, dim=16, max_len=12))
    histories, targets = leave_last_out(playlists)
    for unseen_only in (True, False):
        loss = validate(model, playlists, histories, targets, unseen_only)["valid_loss"]
        assert np.isclose(-np.nanmean(log_likelihood(model, playlists, exclude_seen=unseen_only)), loss, atol=1e-4)
