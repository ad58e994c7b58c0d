"""Metrics, intervals and log-likelihoods: against an independent library, theory, and known answers."""

from __future__ import annotations

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scorers import Fixed, random_case, tagged

from sasrec_utils.evaluation import (
    compare,
    evaluate,
    log_likelihood,
    metrics,
    ndcg_at,
    ranking,
    recall_at,
    reciprocal_rank,
)
from sasrec_utils.sequences import Sequences

quick = settings(deadline=None, max_examples=60)


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


# log-likelihood


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
