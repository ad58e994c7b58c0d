"""Reports of the protocols: what they count, what they say, and continuations by hand."""

from __future__ import annotations

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scorers import Fixed, random_case, tagged

from sasrec_utils.evaluation import (
    continuation,
    evaluate,
    ranking,
    table,
    top_k,
)
from sasrec_utils.sequences import Sequences

quick = settings(deadline=None, max_examples=60)


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
