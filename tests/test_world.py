"""The made-up world: its oracle is exact, its files look like the MPD's, and its statistics are the MPD's.

`naive_law` and `naive_oracle` say the law of the world once more, with dictionaries and loops and nothing from the
module but the tables of the world. Statistical tests run on fixed seeds; their bounds are given as the chance of a
false alarm that another seed would have.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import os
import re
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

import sasrec_utils.world.writing as writing
from sasrec_utils.baselines import Markov, Popularity
from sasrec_utils.evaluation import evaluate
from sasrec_utils.mpd import Catalogue, MPDError, prepare, read_slice
from sasrec_utils.sequences import Sequences, leave_last_out
from sasrec_utils.world import (
    ALBUM,
    ARTIST,
    CALLBACK,
    MECHANISMS,
    MOOD,
    MPD_LIKE,
    NEIGHBOUR,
    NOISE,
    REPEAT,
    STYLES,
    TEACHING,
    TITLE_WORDS,
    Oracle,
    World,
    WorldConfig,
    first_seen,
    load_world,
    slice_json,
    title_words,
    write_slices,
)

ALARM = 1e-6  # chance of a false alarm of one statistical check
TINY = WorldConfig(
    "tiny", seed=11, playlists=1500, tracks=64, artists=16, genres=3, moods=3, neighbours=3, artist_zipf=0.8,
    artist_shift=2.0, track_zipf=0.7, track_shift=1.0, size_spread=0.8, size_by_fame=0.0, album_tracks=3.0,
    two_uri_share=0.1, genre_floor=0.1, length_mu=2.2, length_sigma=0.5, length_min=1, length_max=14,
    style_mechanisms=(
        (0.10, 0.08, 0.06, 0.28, 0.43, 0.05),
        (0.45, 0.20, 0.05, 0.10, 0.15, 0.05),
        (0.04, 0.06, 0.50, 0.15, 0.20, 0.05),
        (0.06, 0.04, 0.45, 0.10, 0.30, 0.05),
    ),
    style_shares=(0.4, 0.2, 0.2, 0.2), callback_lags=(2, 3, 2, 4), careless_share=0.4, repeat_rates=(0.03, 0.25),
)  # fmt: skip


@pytest.fixture(scope="module")
def tiny() -> World:
    return World(TINY)


def everything(world: World) -> Oracle:
    """An oracle whose model id of a track is its world id + 1."""
    return Oracle(world, np.arange(-1, world.n_tracks), world.n_tracks)


def sequences(drawn, n: int | None = None) -> Sequences:
    """Drawn playlists (the first n) in the ids of `everything`."""
    seqs = Sequences(drawn.tracks + 1, drawn.offsets)
    return seqs if n is None else seqs.take(np.arange(n))


def lists(drawn) -> list[list[int]]:
    """Drawn playlists as lists of world ids."""
    return [part.tolist() for part in np.split(drawn.tracks, drawn.offsets[1:-1])]


def of_lists(histories: list[list[int]]) -> Sequences:
    return Sequences.from_lists([[x + 1 for x in h] for h in histories])


# --- the law once more, naively ---------------------------------------------------------------------------------------


Hidden = tuple[int, int, int]  # mood, style, careless


def naive_law(world: World, history: list[int]) -> dict[Hidden, np.ndarray]:
    """p(next track | history, hidden values), [T] for each of the hidden values."""
    c, tracks, used = world.config, range(world.n_tracks), set(history)
    artist, album = world.artist.tolist(), world.album.tolist()
    artist_of = [artist[x] for x in history]

    def unused(law: dict[int, float]) -> np.ndarray | None:
        free = {x: p for x, p in law.items() if x not in used}
        if not free:
            return None  # this mechanism cannot act
        out = np.zeros(world.n_tracks)
        out[list(free)] = np.array(list(free.values())) / math.fsum(free.values())
        return out

    def of_artist(a: int) -> dict[int, float]:
        return {x: float(world.within[x]) for x in tracks if artist[x] == a}

    noise = unused({x: 1.0 for x in tracks})
    run = same = near = None
    if history:
        on_album = [x for x in tracks if album[x] == album[history[-1]]]
        run = unused({x: 1.0 for x in on_album[on_album.index(history[-1]) + 1 :][:1]})
        same = unused(of_artist(artist_of[-1]))
        around: dict[int, float] = defaultdict(float)
        for j, a in enumerate(world.neighbour_ids[artist_of[-1]]):
            for x, p in of_artist(a).items():
                around[x] += world.neighbour_weights[artist_of[-1]][j] * p
        near = unused(around)
    out = {}
    for z in range(c.moods):
        theta = world.mood_genres[z]
        fame = world.artist_weight
        mood = unused({x: theta[world.genre_of[artist[x]]] * fame[artist[x]] * world.within[x] for x in tracks})
        for s in range(len(STYLES)):
            lag = c.callback_lags[s]
            call = unused(of_artist(artist_of[-lag])) if len(history) >= lag else None
            laws = {ALBUM: run, ARTIST: same, CALLBACK: call, NEIGHBOUR: near, MOOD: mood, NOISE: noise}
            fresh = sum(c.style_mechanisms[s][m] * (mood if law is None else law) for m, law in laws.items())
            again = np.isin(tracks, history) / max(1, len(used))
            for k in (0, 1):
                rate = c.repeat_rates[k] if history else 0.0
                out[z, s, k] = rate * again + (1 - rate) * fresh
    return out


def naive_oracle(
    world: World, history: list[int], word: int = -1
) -> tuple[np.ndarray, list[float], dict[Hidden, float]]:
    """(p(x | history) [T], log-likelihood of each row of the history, posterior of the hidden values)."""
    c = world.config
    hidden = {
        (z, s, k): c.style_shares[s] / c.moods * (c.careless_share if k else 1 - c.careless_share)
        * (world.mood_words[z][word] if word >= 0 else 1.0)
        for z in range(c.moods) for s in range(len(STYLES)) for k in (0, 1)
    }  # fmt: skip
    logs = []
    for t, x in enumerate(history):
        law, before = naive_law(world, history[:t]), math.fsum(hidden.values())
        hidden = {h: p * law[h][x] for h, p in hidden.items()}
        logs.append(math.log(math.fsum(hidden.values()) / before))
    total = math.fsum(hidden.values())
    hidden = {h: p / total for h, p in hidden.items()}
    law = naive_law(world, history)
    return sum(p * law[h] for h, p in hidden.items()), logs, hidden


def hard_histories(world: World) -> dict[str, list[int]]:
    """Histories in which some mechanism cannot act, or hardly."""
    size, first = world.artist_size, world.artist_first
    tracks = [list(range(first[a], first[a + 1])) for a in range(len(size))]
    many = int(np.argmax(size))  # the artist with the most tracks
    few = int(np.flatnonzero((size > 1) & (size < 4))[0])
    single = int(np.flatnonzero(size == 1)[0])
    run = next(x for x in range(world.n_tracks) if world.album_next[x] >= 0)
    end = next(x for x in tracks[many] if world.album_next[x] < 0)
    crowd = min(range(len(size)), key=lambda a: size[world.neighbour_ids[a]].sum())  # its neighbours have few tracks
    around = [x for a in world.neighbour_ids[crowd] for x in tracks[a]]
    other = tracks[(many + 1) % len(size)][0]
    return {
        "empty": [],
        "one track: no callback": [run],
        "three tracks: no callback of lag 4": [run, tracks[many][0], other],
        "the album goes on": [other, tracks[few][0], run],
        "the album ends": [run, end],
        "next on the album is used": [run + 1, run],
        "the only track of its artist": [tracks[many][1], tracks[single][0]],
        "an artist used up": tracks[few],
        "a callback to a used-up artist": [*tracks[few], tracks[many][1]],
        "all but one track of an artist used": tracks[many][1:],
        "neighbours used up": [*around, tracks[crowd][0]],
        "repeats": [run, other, run, run, tracks[many][0], other],
        "a repeat last": [tracks[many][0], other, tracks[many][1], other],
    }


def random_histories(world: World, n: int, seed: int) -> list[list[int]]:
    """n histories: half drawn by the law, half of tracks that have nothing to do with each other."""
    rng = np.random.default_rng(seed)
    return lists(world.playlists(n // 2)) + [
        rng.integers(world.n_tracks, size=rng.integers(1, 15)).tolist() for _ in range(n - n // 2)
    ]


def worst_difference(world: World, histories: list[list[int]], words: np.ndarray | None = None) -> float:
    """Largest relative difference of the oracle's predictions and log-likelihoods from the naive ones."""
    oracle, seqs = everything(world), of_lists(histories)
    scores = oracle._predict(*oracle._believe(oracle._pad(seqs, slice(None)), words))
    assert np.abs(oracle.score(seqs, words) - scores).max() < 1e-7  # float32 of the same
    logs = oracle.log_likelihood(seqs, words)
    worst = 0.0
    for u, history in enumerate(histories):
        p, expected, _ = naive_oracle(world, history, -1 if words is None else int(words[u]))
        assert scores[u, 0] == 0 and abs(p.sum() - 1) < 1e-12
        worst = max(worst, (np.abs(scores[u, 1:] - p) / (p + 1e-12)).max())
        if history:
            worst = max(worst, np.abs(logs[seqs.offsets[u] : seqs.offsets[u + 1]] - expected).max())
    return worst


# --- the oracle -------------------------------------------------------------------------------------------------------


def test_oracle_equals_the_naive_law(tiny):
    histories = [*hard_histories(tiny).values(), *random_histories(tiny, 60, 1)]
    assert worst_difference(tiny, histories) < 1e-9


def test_oracle_equals_the_naive_law_with_titles(tiny):
    histories = random_histories(tiny, 12, 2)
    words = np.random.default_rng(3).integers(-1, len(TITLE_WORDS), len(histories))
    assert worst_difference(tiny, histories, words) < 1e-9
    no_titles = everything(tiny).score(of_lists(histories), np.full(len(histories), -1))
    assert np.array_equal(no_titles, everything(tiny).score(of_lists(histories)))


def chi_square(counts: np.ndarray, p: np.ndarray) -> float:
    """P(a worse fit | the law is p), cells with less than 10 expected pooled into one."""
    expected = p * counts.sum()
    small = expected < 10
    counts, expected = (np.append(v[~small], v[small].sum()) for v in (counts, expected))
    keep = expected > 0
    assert counts[~keep].sum() == 0
    return stats.chisquare(counts[keep], expected[keep] * counts.sum() / expected.sum()).pvalue


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


@pytest.fixture(scope="module")
def many(tiny):
    """30,000 whole playlists of the tiny world."""
    return tiny.playlists(30_000)


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


def moved(config: WorldConfig, mechanism: int, share: float) -> WorldConfig:
    """The dials with this share of a mechanism (or, of mood, to noise) given to mood."""
    rows = np.array(config.style_mechanisms)
    to = NOISE if mechanism == MOOD else MOOD
    rows[:, to] += share * rows[:, mechanism]
    rows[:, mechanism] *= 1 - share
    return replace(config, style_mechanisms=tuple(map(tuple, rows)))


WRONG = {
    **{f"less of {name}": moved(TINY, m, 0.8 if m == NOISE else 0.5) for m, name in enumerate(MECHANISMS)},
    "style_shares": replace(TINY, style_shares=(0.25, 0.25, 0.25, 0.25)),
    "callback_lags": replace(TINY, callback_lags=(2, 3, 3, 4)),
    "careless_share": replace(TINY, careless_share=0.7),
    "repeat_rates": replace(TINY, repeat_rates=(0.05, 0.2)),
    "artist_zipf": replace(TINY, artist_zipf=1.0),
    "artist_shift": replace(TINY, artist_shift=0.5),
    "track_zipf": replace(TINY, track_zipf=0.9),
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
])  # fmt: skip
def test_other_dials_can_be_turned_and_the_oracle_follows(dials):
    world = World(replace(TINY, **dials))
    assert worst_difference(world, [[], *lists(world.playlists(15))]) < 1e-9


# --- the world --------------------------------------------------------------------------------------------------------


def test_tables_follow_their_laws(tiny):
    c = TINY
    for a in range(c.artists):
        own = tiny.within[tiny.artist_first[a] : tiny.artist_first[a + 1]]
        zipf = (np.arange(len(own)) + c.track_shift) ** -c.track_zipf
        assert np.allclose(np.sort(own)[::-1], zipf / zipf.sum())
    for g in range(c.genres):
        zipf = (np.arange((tiny.genre_of == g).sum()) + c.artist_shift) ** -c.artist_zipf
        assert np.allclose(tiny.artist_weight[tiny.genre_of == g], zipf / zipf.sum())
    assert np.allclose(tiny.mood_genres.sum(1), 1) and np.allclose(tiny.mood_words.sum(1), 1)
    assert np.allclose(tiny.neighbour_weights.sum(1), 1)
    for a, near in enumerate(tiny.neighbour_ids):
        assert a not in near and len(set(near)) == len(near) == c.neighbours
    for x in range(tiny.n_tracks):
        following = x + 1 < tiny.n_tracks and tiny.album[x + 1] == tiny.album[x]
        assert tiny.album_next[x] == (x + 1 if following else -1)
        assert tiny.twin[tiny.twin[x]] == tiny.twin[x] and tiny.artist[tiny.twin[x]] == tiny.artist[x]


def test_drawn_playlists_keep_the_rules(tiny, many):
    length = np.diff(many.offsets)
    assert length.min() >= TINY.length_min and length.max() <= TINY.length_max
    owner = np.repeat(np.arange(len(length)), length)
    once = set()
    again = np.array([(key in once) or once.add(key) is not None
                      for key in zip(owner.tolist(), many.tracks.tolist(), strict=True)])  # fmt: skip
    assert np.array_equal(again, many.mechanism == REPEAT)
    later = np.arange(len(owner)) > many.offsets[owner]
    for kind, rate in enumerate(TINY.repeat_rates):
        rows = later & (many.careless[owner] == kind)
        assert stats.binomtest(int(again[rows].sum()), int(rows.sum()), rate).pvalue > ALARM
    run = np.flatnonzero(many.mechanism == ALBUM)
    assert np.array_equal(many.tracks[run], tiny.album_next[many.tracks[run - 1]])
    same = np.flatnonzero(many.mechanism == ARTIST)
    assert np.array_equal(tiny.artist[many.tracks[same]], tiny.artist[many.tracks[same - 1]])
    calls = np.flatnonzero(many.mechanism == CALLBACK)
    back = calls - np.array(TINY.callback_lags)[many.style[owner[calls]]]
    assert np.array_equal(tiny.artist[many.tracks[calls]], tiny.artist[many.tracks[back]])


def test_callbacks_are_visible_at_their_lags():
    world = World(TEACHING)
    drawn = world.playlists(2000)
    artist, owner = world.artist[drawn.tracks], np.repeat(np.arange(2000), np.diff(drawn.offsets))
    same = {k: (artist[k:] == artist[:-k])[owner[k:] == owner[:-k]].mean() for k in range(1, 9)}
    assert min(same[2], same[4]) > 1.5 * max(same[3], same[5], same[7])


def test_first_seen():
    history = np.array([[3, 1, 3, 3, 1], [0, 1, 2, 3, 4], [7, 7, 7, 7, 7]])
    expected = [[1, 1, 0, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]]
    assert np.array_equal(first_seen(history), np.array(expected, dtype=bool))
    assert first_seen(np.zeros((2, 0), dtype=int)).shape == (2, 0)


def test_playlists_are_whole_slices_one_after_the_other(tiny):
    drawn, second = tiny.playlists(1500), tiny.draw_slice(1, 500)
    assert np.array_equal(drawn.tracks[drawn.offsets[1000] :], second.tracks)
    assert drawn.pids.tolist() == list(range(1500))
    short = tiny.playlists(700)
    assert np.array_equal(short.mood, drawn.mood[:700]) and np.array_equal(short.offsets, drawn.offsets[:701])
    assert len(tiny.playlists().pids) == TINY.playlists


@pytest.mark.parametrize("dials, words", [
    ({"tracks": 30}, "four times"),
    ({"style_mechanisms": ((0.5, 0.5, 0, 0, 0, 0.1),) * 4}, "sum to 1"),
    ({"genres": 17}, "16 artists"),
])  # fmt: skip
def test_impossible_dials_are_refused_in_one_sentence(dials, words):
    with pytest.raises(ValueError, match=words):
        World(replace(TINY, **dials))


# --- files ------------------------------------------------------------------------------------------------------------

PLAYLIST_KEYS = [
    "name", "collaborative", "pid", "description", "modified_at", "num_tracks", "num_albums", "num_followers", "tracks",
    "num_edits", "duration_ms", "num_artists",
]  # fmt: skip
TRACK_KEYS = [
    "pos", "artist_name", "track_uri", "artist_uri", "track_name", "album_uri", "duration_ms", "album_name",
]  # fmt: skip


@pytest.fixture(scope="module")
def raw(tmp_path_factory, tiny) -> Path:
    """Two slices of 1,000 and 500 playlists."""
    folder = tmp_path_factory.mktemp("raw")
    assert [p.name for p in write_slices(tiny, folder)] == ["mpd.slice.0-999.json", "mpd.slice.1000-1999.json"]
    return folder


def playlists_of(folder: Path) -> list[dict]:
    files = sorted(folder.glob("*.json"), key=lambda p: int(p.name.split(".")[2].split("-")[0]))
    return [p for file in files for p in json.loads(file.read_text())["playlists"]]


def test_slices_have_the_format_of_the_mpd(raw, tiny):
    slices = [json.loads(path.read_text(encoding="ascii")) for path in sorted(raw.glob("*.json"))]
    assert [list(s) for s in slices] == [["info", "playlists"]] * 2
    assert [list(s["info"]) for s in slices] == [["generated_on", "slice", "version"]] * 2
    assert [s["info"]["slice"] for s in slices] == ["0-999", "1000-1999"]
    playlists = [p for s in slices for p in s["playlists"]]
    assert [p["pid"] for p in playlists] == list(range(1500))
    for p in playlists:
        assert list(p) == [k for k in PLAYLIST_KEYS if k != "description" or k in p]
        assert p["collaborative"] in ("true", "false") and isinstance(p["name"], str)
        numbers = [p[k] for k in PLAYLIST_KEYS if k.startswith("num") or k in ("modified_at", "duration_ms", "pid")]
        assert all(type(v) is int for v in numbers)
        assert p["modified_at"] % 86_400 == 0 and p["num_followers"] >= 1 and p["num_edits"] >= 2
        rows = p["tracks"]
        assert [t["pos"] for t in rows] == list(range(len(rows)))
        assert p["num_tracks"] == len(rows)
        assert p["num_artists"] == len({t["artist_uri"] for t in rows})
        assert p["num_albums"] == len({t["album_uri"] for t in rows})
        assert p["duration_ms"] == sum(max(0, t["duration_ms"]) for t in rows)
        for t in rows:
            assert list(t) == TRACK_KEYS and type(t["duration_ms"]) is int
            for kind in ("track", "artist", "album"):
                assert re.fullmatch(rf"spotify:{kind}:[0-9A-Za-z]{{22}}", t[f"{kind}_uri"]) and t[f"{kind}_name"]
    drawn = tiny.playlists()
    assert [t["track_uri"] for p in playlists for t in p["tracks"]] == tiny.uris("track", drawn.tracks)


def test_compact_and_indented_are_the_same_json(tiny):
    drawn = tiny.draw_slice(0, 30)
    compact = slice_json(tiny, drawn, 0)
    indented = slice_json(World(replace(TINY, indent=True)), drawn, 0)
    assert indented == json.dumps(json.loads(compact), indent=4) and compact == json.dumps(json.loads(indented))


def test_what_surrounds_the_tracks_has_the_rates_of_the_mpd(tiny):
    parts = [json.loads(slice_json(tiny, tiny.draw_slice(i, 1000), i))["playlists"] for i in range(12)]
    playlists = [p for part in parts for p in part]

    def rate(flags: list[bool], expected: float) -> bool:
        return stats.binomtest(sum(flags), len(flags), expected).pvalue > ALARM

    described = [p["description"] for p in playlists if "description" in p]
    assert rate(["description" in p for p in playlists], 0.019)
    assert all(re.search(r"&(amp|lt|quot|#x27);", d) and not re.search(r"[<>'\"]", d) for d in described)
    assert rate([p["name"] != p["name"].strip() for p in playlists], 0.06)
    for followers, share in ((1, 0.754), (2, 0.150), (3, 0.047), (4, 0.020)):
        assert rate([p["num_followers"] == followers for p in playlists], share)
    law = stats.lognorm(s=1.30, scale=math.exp(2.13))
    for edits in (2, 3, 4, 10):  # as in the MPD: round(LogNormal(2.13, 1.30)), what falls below 2 is drawn anew
        share = (law.cdf(edits + 0.5) - law.cdf(edits - 0.5)) / law.sf(1.5)
        assert rate([p["num_edits"] == edits for p in playlists], share)
    names = [p["name"] for p in playlists]
    assert any(ord(ch) > 0x2000 for n in names for ch in n) and len({n.lower() for n in names}) > len(names) / 4
    assert any(n.isupper() for n in names) and any(n.islower() for n in names)


def test_the_oracle_reads_the_mood_word_out_of_the_title(raw, tiny):
    assert np.array_equal(title_words([p["name"] for p in playlists_of(raw)]), tiny.playlists().word)
    names = ["Road Trip 2014", "", None, "MY CHILL!!", "chiller", "sad songs", "untitled", "Songs, happy"]
    expected = ["road trip", None, None, "chill", None, "sad songs", None, "happy"]
    assert title_words(names).tolist() == [TITLE_WORDS.index(w) if w else -1 for w in expected]


def test_durations_have_the_mean_and_the_gaps_of_the_mpd():
    duration = writing._durations(2018, np.arange(400_000))
    gaps = duration == -1
    assert stats.binomtest(int(gaps.sum()), len(gaps), 1 / 5000).pvalue > ALARM
    assert abs(duration[~gaps].mean() / 60_000 - 3.9) < 0.01 and duration[~gaps].min() > 30_000


def test_a_few_songs_have_two_uris(raw, tiny):
    again = np.flatnonzero(tiny.twin != np.arange(tiny.n_tracks))
    assert len(again)
    uris = tiny.uris("track", np.arange(tiny.n_tracks))
    rows = {t["track_uri"]: t for p in playlists_of(raw) for t in p["tracks"]}
    for x in again:
        song, other = rows[uris[x]], rows[uris[tiny.twin[x]]]
        same = ("track_name", "artist_name", "duration_ms")
        assert [song[k] for k in same] == [other[k] for k in same] and song["track_uri"] != other["track_uri"]
    share = 1 - np.mean(World(TEACHING).twin == np.arange(World(TEACHING).n_tracks))
    assert 0.005 < share < 0.015


def test_the_same_bytes_in_every_process(raw, tmp_path):
    def digests(folder: Path) -> list[str]:
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())]

    program = (
        "import sys, json; from sasrec_utils.world import *\n"
        "config = json.loads(sys.argv[1]); load = lambda v: tuple(map(load, v)) if isinstance(v, list) else v\n"
        "write_slices(World(WorldConfig(**{k: load(v) for k, v in config.items()})), sys.argv[2])"
    )
    config = json.dumps(json.loads((raw / writing.SIDECAR).read_text())["config"])
    for seed in ("0", "4242"):
        here = dict(os.environ, PYTHONHASHSEED=seed, PYTHONPATH=str(Path(writing.__file__).parents[2]))
        subprocess.run([sys.executable, "-c", program, config, str(tmp_path / seed)], check=True, env=here)
        assert digests(tmp_path / seed) == digests(raw)


def test_another_seed_is_another_world(tiny):
    other = World(replace(TINY, seed=12))
    assert not set(other.uris("track", np.arange(other.n_tracks))) & set(tiny.uris("track", np.arange(tiny.n_tracks)))
    assert not np.array_equal(other.playlists(50).tracks[:100], tiny.playlists(50).tracks[:100])


def test_slices_are_never_written_over(raw, tiny):
    before = {p.name: p.read_bytes() for p in raw.iterdir()}
    with pytest.raises(MPDError, match="holds slices already"):
        write_slices(tiny, raw)
    assert {p.name: p.read_bytes() for p in raw.iterdir()} == before


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_nothing(tiny, tmp_path, monkeypatch, failure):
    calls = []

    def slice_json(*args):
        calls.append(1)
        if len(calls) == 2:
            raise failure
        return real_slice_json(*args)

    real_slice_json = writing.slice_json
    monkeypatch.setattr(writing, "slice_json", slice_json)
    with pytest.raises(MPDError if isinstance(failure, OSError) else KeyboardInterrupt) as caught:
        write_slices(tiny, tmp_path)
    assert list(tmp_path.iterdir()) == []
    if isinstance(failure, OSError):
        assert "No space left" in str(caught.value) and str(tmp_path) in str(caught.value)
    monkeypatch.undo()
    assert len(write_slices(tiny, tmp_path)) == 2


def test_user_errors_are_one_clear_sentence(tiny, tmp_path):
    with pytest.raises(MPDError, match="at least one"):
        write_slices(tiny, tmp_path, 0)
    (tmp_path / "file").write_text("")
    with pytest.raises(MPDError, match="file"):
        write_slices(tiny, tmp_path / "file", 10)


def test_load_world_finds_the_world_again(raw, tiny, tmp_path):
    again = load_world(raw)
    assert again is not None and again.config == TINY
    for table in ("artist", "album", "within", "neighbour_ids", "mood_genres", "mood_words", "twin"):
        assert np.array_equal(getattr(again, table), getattr(tiny, table))
    assert load_world(tmp_path) is None
    for damaged in ("{", "[]", '{"config": {"name": "x", "unheard": 1}}', '{"config": {"name": "x", "tracks": 3}}'):
        (tmp_path / writing.SIDECAR).write_text(damaged)
        with pytest.raises(MPDError, match="made-up world"):
            load_world(tmp_path)


def test_the_projects_reader_takes_the_slices(raw, tiny, tmp_path):
    drawn = tiny.playlists()
    first = read_slice(raw / "mpd.slice.0-999.json")
    assert len(first.playlists) == 1000 and first.rows["track_uri"].tolist() == tiny.uris(
        "track", drawn.tracks[: drawn.offsets[1000]]
    )
    assert not first.playlists["description"].dropna().str.contains("&amp;|&#x27;").any()
    folder = prepare(raw, tmp_path, progress=False)
    rows = pq.read_table(folder / "interactions.parquet").to_pandas()
    catalogue = Catalogue.load(folder)
    uris = catalogue.tracks["track_uri"].to_numpy()[rows["track_id"].to_numpy() - 1]
    assert uris.tolist() == tiny.uris("track", drawn.tracks)
    assert np.array_equal(rows["user_id"], np.repeat(drawn.pids, np.diff(drawn.offsets)))
    assert np.array_equal(rows["repeat"], drawn.mechanism == REPEAT)
    assert len(catalogue) == len(np.unique(drawn.tracks))


# --- the MPD's statistics ---------------------------------------------------------------------------------------------


def test_mpd_like_has_the_statistics_of_one_slice_of_the_mpd(tmp_path):
    path = Path(__file__).parents[1] / "benchmarks" / "calibration.py"
    spec = importlib.util.spec_from_file_location("calibration", path)
    calibration = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(calibration)
    world = World(MPD_LIKE)
    assert 2_000_000 < world.n_tracks < 2_500_000
    assert abs(len(world.artist_size) - 300_000) < 10_000 and abs(world.album[-1] + 1 - 735_000) < 40_000
    (path,) = write_slices(world, tmp_path / "raw", 1000)
    assert 440 < path.stat().st_size / path.read_text().count('"pos"') < 520  # bytes a row, indented as in the MPD
    folder = prepare(tmp_path / "raw", tmp_path, progress=False)
    assert 1 <= Catalogue.load(folder).tracks["duration_ms"].isna().sum() <= 20  # -1 in one of 5,000 of 34,000 tracks
    table = calibration.calibration_table(folder)
    one_slice = [name for name in calibration.TARGETS if not re.search(r"after \d+ slices", name)]
    assert list(table.index) == one_slice
    assert table.loc[(table["ratio"] - 1).abs() > 0.1].empty, table
    uris = world.uris("track", np.arange(0, world.n_tracks, 4))
    assert len(set(uris)) == len(uris)
