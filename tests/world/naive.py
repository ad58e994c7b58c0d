"""The law of the made-up world said once more, with dictionaries and loops, and what the tests of the world share.

Nothing here comes from the package but the tables of the world.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace

import numpy as np
from scipy import stats

from sasrec_utils.sequences import Sequences
from sasrec_utils.world import (
    ALBUM,
    ARTIST,
    CALLBACK,
    MOOD,
    NEIGHBOUR,
    NOISE,
    STYLES,
    Oracle,
    World,
    WorldConfig,
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


def everything(world: World, released: bool = True) -> Oracle:
    """An oracle whose model id of a track is its world id + 1."""
    return Oracle(world, np.arange(-1, world.n_tracks), world.n_tracks, released)


def sequences(drawn, n: int | None = None) -> Sequences:
    """Drawn playlists (the first n) in the ids of `everything`."""
    seqs = Sequences(drawn.tracks + 1, drawn.offsets)
    return seqs if n is None else seqs.take(np.arange(n))


def lists(drawn) -> list[list[int]]:
    """Drawn playlists as lists of world ids."""
    return [part.tolist() for part in np.split(drawn.tracks, drawn.offsets[1:-1])]


def of_lists(histories: list[list[int]]) -> Sequences:
    return Sequences.from_lists([[x + 1 for x in h] for h in histories])


Hidden = tuple[int, int, int]  # mood, style, careless


def naive_law(world: World, history: list[int], released: bool = True) -> dict[Hidden, np.ndarray]:
    """p(next track | history, hidden values), [T] for each of the hidden values."""
    c, tracks, used = world.config, range(world.n_tracks), set(history)
    artist, album = world.artist.tolist(), world.album.tolist()
    artist_of = [artist[x] for x in history]

    def unused(law: dict[int, float]) -> np.ndarray | None:
        free = {x: p for x, p in law.items() if x not in used and (released or not world.cold[x])}
        if not free:
            return None  # this mechanism cannot act
        out = np.zeros(world.n_tracks)
        out[list(free)] = np.array(list(free.values())) / math.fsum(free.values())
        return out

    def of_artist(a: int) -> dict[int, float]:
        return {x: float(world.within[x]) for x in tracks if artist[x] == a}

    def staying(a: int) -> dict[int, float]:
        return {x: float(world.staying[x]) for x in tracks if artist[x] == a}

    noise = unused({x: 1.0 for x in tracks})
    run = any_order = same = near = None
    if history:
        on_album = [x for x in tracks if album[x] == album[history[-1]]]
        run = unused({x: 1.0 for x in on_album[on_album.index(history[-1]) + 1 :][:1]})
        any_order = unused({x: float(world.staying[x]) for x in on_album})
        same = unused(staying(artist_of[-1]))
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
            call = unused(staying(artist_of[-lag])) if len(history) >= lag else None
            laws = {ALBUM: run, ARTIST: same, CALLBACK: call, NEIGHBOUR: near, MOOD: mood, NOISE: noise}
            shares = dict(enumerate(c.style_mechanisms[s]))
            laws["any order"], shares["any order"] = any_order, (1 - c.album_order) * shares[ALBUM]
            shares[ALBUM] *= c.album_order
            fresh = sum(shares[m] * (mood if law is None else law) for m, law in laws.items())
            again = np.isin(tracks, history) / max(1, len(used))
            for k in (0, 1):
                rate = c.repeat_rates[k] if history else 0.0
                out[z, s, k] = rate * again + (1 - rate) * fresh
    return out


def naive_oracle(
    world: World, history: list[int], word: int = -1, released: bool = True
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
        law, before = naive_law(world, history[:t], released), math.fsum(hidden.values())
        hidden = {h: p * law[h][x] for h, p in hidden.items()}
        logs.append(math.log(math.fsum(hidden.values()) / before))
    total = math.fsum(hidden.values())
    hidden = {h: p / total for h, p in hidden.items()}
    law = naive_law(world, history, released)
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


def worst_difference(
    world: World, histories: list[list[int]], words: np.ndarray | None = None, released: bool = True
) -> float:
    """Largest relative difference of the oracle's predictions and log-likelihoods from the naive ones."""
    oracle, seqs = everything(world, released), of_lists(histories)
    scores = oracle._predict(*oracle._believe(oracle._pad(seqs, slice(None)), words))
    assert np.abs(oracle.score(seqs, words) - scores).max() < 1e-7  # float32 of the same
    logs = oracle.log_likelihood(seqs, words)
    worst = 0.0
    for u, history in enumerate(histories):
        p, expected, _ = naive_oracle(world, history, -1 if words is None else int(words[u]), released)
        assert scores[u, 0] == 0 and abs(p.sum() - 1) < 1e-12
        worst = max(worst, (np.abs(scores[u, 1:] - p) / (p + 1e-12)).max())
        if history:
            worst = max(worst, np.abs(logs[seqs.offsets[u] : seqs.offsets[u + 1]] - expected).max())
    return worst


def chi_square(counts: np.ndarray, p: np.ndarray) -> float:
    """P(a worse fit | the law is p), cells with less than 10 expected pooled into one."""
    expected = p * counts.sum()
    small = expected < 10
    counts, expected = (np.append(v[~small], v[small].sum()) for v in (counts, expected))
    keep = expected > 0
    assert counts[~keep].sum() == 0
    return stats.chisquare(counts[keep], expected[keep] * counts.sum() / expected.sum()).pvalue


def moved(config: WorldConfig, mechanism: int, share: float) -> WorldConfig:
    """The dials with this share of a mechanism (or, of mood, to noise) given to mood."""
    rows = np.array(config.style_mechanisms)
    to = NOISE if mechanism == MOOD else MOOD
    rows[:, to] += share * rows[:, mechanism]
    rows[:, mechanism] *= 1 - share
    return replace(config, style_mechanisms=tuple(map(tuple, rows)))
