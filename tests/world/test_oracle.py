"""The oracle is exact: it is the naive law, it matches what is drawn, and nothing explains playlists better.

Statistical tests run on fixed seeds; their bounds are given as the chance of a false alarm that another seed has.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from naive import (
    ALARM,
    TINY,
    chi_square,
    everything,
    hard_histories,
    lists,
    moved,
    naive_oracle,
    of_lists,
    random_histories,
    sequences,
    worst_difference,
)
from scipy import stats

from sasrec_utils.baselines import Markov, Popularity
from sasrec_utils.evaluation import evaluate
from sasrec_utils.mpd import MPDError
from sasrec_utils.sequences import Sequences, leave_last_out
from sasrec_utils.world import (
    ALBUM,
    ARTIST,
    CALLBACK,
    MECHANISMS,
    NEIGHBOUR,
    NOISE,
    STYLES,
    TEACHING,
    TITLE_WORDS,
    Oracle,
    World,
)


def test_oracle_equals_the_naive_law(tiny):
    histories = [*hard_histories(tiny).values(), *random_histories(tiny, 60, 1)]
    assert worst_difference(tiny, histories) < 1e-9


def test_oracle_equals_the_naive_law_with_titles(tiny):
    histories = random_histories(tiny, 12, 2)
    words = np.random.default_rng(3).integers(-1, len(TITLE_WORDS), len(histories))
    assert worst_difference(tiny, histories, words) < 1e-9
    no_titles = everything(tiny).score(of_lists(histories), np.full(len(histories), -1))
    assert np.array_equal(no_titles, everything(tiny).score(of_lists(histories)))


@pytest.mark.parametrize("case", list(hard_histories(World(TINY))))
def test_oracle_matches_simulated_continuations(tiny, case):
    """100,000 continuations of each of the histories: 1.3 million in all."""
    history, n = hard_histories(tiny)[case], 100_000
    hidden = naive_oracle(tiny, history)[2]  # the hidden values, given the history
    rng = np.random.default_rng(5)
    z, s, k = np.array(list(hidden))[rng.choice(len(hidden), p=list(hidden.values()), size=n)].T
    tracks, _ = tiny.next_tracks(rng, np.tile(np.array(history, dtype=np.int64), (n, 1)), z, s, k)
    p = everything(tiny).score(of_lists([history]))[0, 1:].astype(float)
    assert chi_square(np.bincount(tracks, minlength=tiny.n_tracks), p) > ALARM


def test_first_tracks_of_whole_playlists_follow_the_oracle(tiny, many):
    T = tiny.n_tracks
    start = many.offsets[:-1][np.diff(many.offsets) > 1]
    oracle = everything(tiny)
    one = oracle.score(of_lists([[]]))[0, 1:].astype(float)
    two = one[:, None] * oracle.score(of_lists([[x] for x in range(T)]))[:, 1:]
    assert chi_square(np.bincount(many.tracks[many.offsets[:-1]], minlength=T), one) > ALARM
    pairs = np.bincount(many.tracks[start] * T + many.tracks[start + 1], minlength=T * T)
    assert chi_square(pairs, two.ravel()) > ALARM


def test_last_tracks_and_hidden_values_of_whole_playlists_follow_the_oracle(tiny, many):
    """The rank of what really came next, in units of probability, is uniform; the belief is right on average."""
    histories, targets = leave_last_out(sequences(many, 12_000))
    oracle = everything(tiny)
    scores = oracle.score(histories).astype(float)
    rows, rng = np.arange(len(targets)), np.random.default_rng(7)
    p = scores[rows, targets]
    above = (scores * (scores > p[:, None])).sum(1) + rng.random(len(p)) * (scores * (scores == p[:, None])).sum(1)
    assert chi_square(np.histogram(above, np.linspace(0, 1 + 1e-6, 51))[0], np.full(50, 1 / 50)) > ALARM
    belief = oracle.belief(histories).reshape(len(p), -1)
    truth = np.zeros_like(belief)
    truth[rows, many.mood[rows] * len(STYLES) + many.style[rows]] = 1
    for sure in (belief >= 0, belief > 0.3, belief > 0.6):
        error, spread = ((truth - belief) * sure).sum(0), np.sqrt((belief * (1 - belief) * sure).sum(0))
        assert (np.abs(error) < stats.norm.isf(ALARM) * spread + 1e-9).all()


def test_probabilities_sum_to_one_in_the_teaching_world():
    world = World(TEACHING)
    drawn = world.playlists(60)
    histories = Sequences(drawn.tracks + 1, drawn.offsets)
    scores = everything(world).score(Sequences.from_lists([*histories, [], [5], [5, 5, 5]]))
    assert scores.dtype == np.float32 and scores.shape == (63, world.n_tracks + 1)
    assert np.abs(scores.sum(1, dtype=np.float64) - 1).max() < 1e-6 and (scores[:, 0] == 0).all()
    fresh = ~np.isin(np.arange(1, world.n_tracks + 1), histories[0])
    assert (scores[0, 1:][fresh] > 0).all()


def test_log_likelihood_is_the_log_of_the_score(tiny):
    seqs = sequences(tiny.playlists(300))
    oracle = everything(tiny)
    histories, targets = leave_last_out(seqs)
    p = oracle.score(histories)[np.arange(len(seqs)), targets]
    assert np.allclose(np.log(p), oracle.log_likelihood(seqs)[seqs.offsets[1:] - 1], atol=1e-5)


def test_log_likelihood_among_unseen_tracks_is_a_share_of_what_is_left(tiny):
    histories = random_histories(tiny, 12, seed=4)
    oracle = everything(tiny)
    alone = oracle.log_likelihood(of_lists(histories), unseen_only=True)
    assert np.isfinite(alone).all()
    row = repeats = 0
    for history in histories:
        for t, track in enumerate(history):
            scores = oracle.score(of_lists([history[:t]]))[0].astype(float)
            candidates = [x for x in range(tiny.n_tracks) if x not in history[:t] or x == track]
            share = scores[track + 1] / scores[[x + 1 for x in candidates]].sum()
            assert np.isclose(np.exp(alone[row]), share, rtol=1e-4)
            repeats += track in history[:t]
            row += 1
    assert repeats > 0


def test_scores_do_not_depend_on_the_batch_or_the_numbering(tiny):
    seqs = sequences(tiny.playlists(300))
    oracle, rng = everything(tiny), np.random.default_rng(1)
    whole = oracle.score(seqs)
    assert np.allclose(whole[[3, 270]], np.concatenate([oracle.score(seqs.take([u])) for u in (3, 270)]), rtol=1e-6)
    ids = np.append(-1, rng.permutation(tiny.n_tracks))  # model id -> world id
    model = np.argsort(ids)  # world id + 1 -> model id
    N = 40
    part = Oracle(tiny, ids, N).score(Sequences(model[seqs.items], seqs.offsets))  # ids above N still inform it
    assert part.shape == (300, N + 1)
    assert np.allclose(part[:, 1:], whole[:, ids[1 : N + 1] + 1], rtol=1e-6)
    by_uri = Oracle.from_uris(tiny, tiny.uris("track", ids[1:]), N).score(Sequences(model[seqs.items], seqs.offsets))
    assert np.array_equal(by_uri, part)


def test_oracle_refuses_tracks_of_another_world(tiny):
    foreign = World(replace(TINY, seed=12)).uris("track", np.arange(3))
    with pytest.raises(MPDError, match=re.escape(foreign[0])):
        Oracle.from_uris(tiny, foreign)


def test_playlists_that_the_law_cannot_make_stay_finite():
    world = World(replace(TINY, repeat_rates=(0.0, 0.0)))
    oracle = everything(world)
    scores = oracle.score(of_lists([[4, 4, 4, 9]]))
    assert np.isfinite(scores).all() and scores[0, [5, 10]].tolist() == [0, 0] and abs(scores.sum() - 1) < 1e-6
    logs = oracle.log_likelihood(of_lists([[4, 4, 4, 9]]))
    assert np.isneginf(logs[1:3]).all() and np.isfinite(logs[[0, 3]]).all()


WRONG = {
    **{f"less of {name}": moved(TINY, m, 0.8 if m == NOISE else 0.5) for m, name in enumerate(MECHANISMS)},
    "style_shares": replace(TINY, style_shares=(0.25, 0.25, 0.25, 0.25)),
    "callback_lags": replace(TINY, callback_lags=(2, 3, 3, 4)),
    "careless_share": replace(TINY, careless_share=0.7),
    "repeat_rates": replace(TINY, repeat_rates=(0.05, 0.2)),
    "artist_zipf": replace(TINY, artist_zipf=1.0),
    "artist_shift": replace(TINY, artist_shift=0.5),
    "track_zipf": replace(TINY, track_zipf=0.9),
    "staying_zipf": replace(TINY, staying_zipf=0.2),
    "album_order": replace(TINY, album_order=0.5),
    "track_shift": replace(TINY, track_shift=0.5),
    "genre_floor": replace(TINY, genre_floor=0.3),
}


def test_no_wrong_dial_and_no_other_model_explains_playlists_better(tiny, many):
    """Gibbs: the law's own log-likelihood is the highest that any model can have, up to chance."""
    test, train = sequences(many, 6000), sequences(many).take(np.arange(6000, 30_000))
    best = everything(tiny).log_likelihood(test)
    lead = {}
    for name, config in WRONG.items():
        other = World(config)
        assert other.n_tracks == tiny.n_tracks
        lead[name] = best - everything(other).log_likelihood(test)
    T = tiny.n_tracks
    plays = np.bincount(train.items - 1, minlength=T) + 0.5
    lead["popularity"] = best - np.log(plays / plays.sum())[test.items - 1]
    stay = np.flatnonzero(train.owner[1:] == train.owner[:-1])
    steps = np.bincount((train.items[stay] - 1) * T + train.items[stay + 1] - 1, minlength=T * T).reshape(T, T)
    inner = np.flatnonzero(test.owner[1:] == test.owner[:-1])
    for smoothing in (1, 10, 100):
        p = steps + smoothing * plays / plays.sum()
        p = p / p.sum(1, keepdims=True)
        markov = np.log(p)[test.items[inner] - 1, test.items[inner + 1] - 1]
        lead[f"Markov, smoothed by {smoothing}"] = best[inner + 1] - markov
    score = {name: d.mean() / (d.std() / math.sqrt(len(d))) for name, d in lead.items()}
    assert min(score.values()) > 3, score


def test_no_scorer_ranks_better_in_the_teaching_world():
    world = World(TEACHING)
    seqs = sequences(world.playlists(3000))
    train, test = seqs.take(np.arange(2600)), seqs.take(np.arange(2600, 3000))
    histories, targets = leave_last_out(test)
    N = world.n_tracks
    recall = {
        s.name: evaluate(s, histories, targets, n_boot=10).metrics["recall@10"].mean
        for s in (everything(world), Markov.fit(train, N), Popularity.fit(train, N))
    }
    assert recall.pop("oracle") > 1.5 * max(recall.values())


@pytest.mark.parametrize("mechanism", [ALBUM, ARTIST, CALLBACK, NEIGHBOUR, NOISE])
def test_a_mechanism_can_be_turned_off(mechanism):
    world = World(moved(TINY, mechanism, 1.0))
    drawn = world.playlists(400)
    assert mechanism not in drawn.mechanism and mechanism in World(TINY).playlists(400).mechanism
    assert worst_difference(world, [*hard_histories(world).values(), *random_histories(world, 6, 4)][::2]) < 1e-9


@pytest.mark.parametrize("dials", [
    {"repeat_rates": (0.0, 0.0)},
    {"careless_share": 1.0},
    {"style_shares": (0.0, 0.0, 1.0, 0.0)},
    {"moods": 1, "genres": 1},
    {"neighbours": 1},
    {"callback_lags": (1, 1, 5, 5)},
    {"album_order": 0.4},
    {"album_order": 0.0, "two_uri_share": 0.0},
    {"staying_zipf": 0.0},
    {"staying_zipf": -0.5, "album_order": 0.3},
])  # fmt: skip
def test_other_dials_can_be_turned_and_the_oracle_follows(dials):
    world = World(replace(TINY, **dials))
    assert worst_difference(world, [[], *lists(world.playlists(15))]) < 1e-9


# --- tracks that come out late ----------------------------------------------------------------------------------------

LATE = replace(TINY, cold_share=0.12, release=700, album_order=0.5, staying_zipf=-0.3)


@pytest.fixture(scope="module")
def late() -> World:
    return World(LATE)


@pytest.mark.parametrize("released", [False, True])
def test_the_oracle_is_exact_before_and_after_the_release(late, released):
    histories = [*hard_histories(late).values(), *random_histories(late, 30, 1)]
    if not released:  # playlists that the law can make, and some that it cannot
        histories = [[x for x in h if not late.cold[x]] for h in histories] + [[int(np.flatnonzero(late.cold)[0]), 3]]
    if released:
        assert worst_difference(late, histories) < 1e-9
    else:
        assert worst_difference(late, histories[:-1], released=False) < 1e-9
    scores = everything(late, released).score(of_lists(histories))
    assert np.abs(scores.sum(1, dtype=np.float64) - 1).max() < 1e-6
    assert (scores[:-1, 1:][:, late.cold] > 0).any() == released


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("case", ["empty", "the album goes on", "a callback to a used-up artist", "neighbours used up"])
def test_continuations_follow_the_oracle_before_and_after_the_release(late, case, released):
    history, n = [x for x in hard_histories(late)[case] if not late.cold[x]], 50_000
    hidden = naive_oracle(late, history, released=released)[2]
    rng = np.random.default_rng(5)
    z, s, k = np.array(list(hidden))[rng.choice(len(hidden), p=list(hidden.values()), size=n)].T
    tile = np.tile(np.array(history, dtype=np.int64), (n, 1))
    tracks, _ = late.next_tracks(rng, tile, z, s, k, released=np.full(n, released))
    p = everything(late, released).score(of_lists([history]))[0, 1:].astype(float)
    assert chi_square(np.bincount(tracks, minlength=late.n_tracks), p) > ALARM


def test_whole_playlists_follow_the_oracle_of_their_phase(late):
    drawn = late.playlists(1400)
    early, after = (sequences(drawn).take(part) for part in (np.arange(700), np.arange(700, 1400)))
    for playlists, released in ((early, False), (after, True)):
        right, wrong = (everything(late, phase).log_likelihood(playlists) for phase in (released, not released))
        assert np.isfinite(right).all() and right.mean() > np.where(np.isfinite(wrong), wrong, -50).mean()


def test_titles_are_read_in_every_batch_of_histories(tiny):
    """Scores are made in batches of at most 256 histories: a title belongs to its own history in each of them."""
    drawn = tiny.playlists(600)
    words = np.random.default_rng(0).integers(len(TITLE_WORDS), size=600)
    oracle, seqs = everything(tiny), sequences(drawn)
    whole = oracle.score(seqs, words)
    for u in (0, 255, 256, 300, 511, 512, 599):
        assert np.allclose(whole[u], oracle.score(seqs.take([u]), words[[u]])[0], rtol=1e-5, atol=1e-9), u
