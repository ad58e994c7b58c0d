"""A made-up world of playlists whose best possible prediction is known.

The Million Playlist Dataset can no longer be downloaded and may never be passed on, so the default data of this
project is generated. A `World` holds genres, artists, albums with ordered tracks, a graph of neighbouring artists and
a few moods. A playlist has a hidden mood z and a hidden style s; each next track is chosen by one of six mechanisms:

    album run          the next track on the album of the last track
    same artist        a track of the last track's artist
    callback           a track of the artist heard 2 (alternator) or 4 (rotation) steps ago
    neighbour artist   a track of an artist that neighbours the last one
    mood               a track of a genre that fits the mood
    noise              any track at all

Every mechanism draws among the tracks that the playlist does not have yet, in proportion to its own law; one that
cannot act (no next track on the album, all tracks of the artist used) hands over to *mood*. Apart from that, a row
repeats a track the playlist already has with a small probability that is higher in careless playlists.

Because the law is known, so is the best prediction: `Oracle` computes p(next track | history) exactly. A model's
Recall@10 can then be given as a share of the best attainable one, and the oracle's entropy is the floor under every
loss curve. Taught in notebooks 01 (the data) and 05 (the oracle as a yardstick).
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from sasrec_utils.mpd import MPDError, has_slices

MECHANISMS = ("album run", "same artist", "callback", "neighbour artist", "mood", "noise")
STYLES = ("mixtape", "collector", "alternator", "rotation")
ALBUM, ARTIST, CALLBACK, NEIGHBOUR, MOOD, NOISE = range(6)
REPEAT = 6  # not a mechanism of the style: a slip of the hand, see `WorldConfig.repeat_rates`
SIDECAR = "made-up-world.txt"  # lies beside the slices and says which world made them; the slices themselves do not
SLICE = 1000  # playlists in a slice, as in the MPD


@dataclass(frozen=True)
class WorldConfig:
    """The dials of a world. `TEACHING` and `MPD_LIKE` are the two presets; turn one dial with `dataclasses.replace`.

    `style_mechanisms[s][m]` is the probability with which a playlist of style s uses mechanism m (each row sums to
    1); `callback_lags[s]` is how far back its callback looks. Popularity follows Zipf-Mandelbrot laws: the artist of
    rank r within a genre has weight (r + artist_shift)^-artist_zipf, the track of rank r within an artist
    (r + track_shift)^-track_zipf.
    """

    name: str
    seed: int = 2018
    playlists: int = 15_000
    tracks: int = 1_400
    artists: int = 120
    genres: int = 8
    moods: int = 12
    neighbours: int = 5
    artist_zipf: float = 0.8
    artist_shift: float = 2.0
    track_zipf: float = 0.7
    track_shift: float = 1.0
    size_spread: float = 0.35  # spread (of the log) of the number of tracks of an artist
    size_by_fame: float = 0.0  # how much more tracks famous artists have: size ∝ weight^this
    album_tracks: float = 9.0  # mean number of tracks on an album
    two_uri_share: float = 0.01  # share of tracks that are an earlier song of the same artist under a second URI
    genre_floor: float = 0.02  # share of a mood that is spread over all genres
    length_mu: float = 3.6  # playlist lengths: log-normal, what falls outside length_min…length_max is drawn anew
    length_sigma: float = 0.55
    length_min: int = 8
    length_max: int = 100
    style_shares: tuple[float, ...] = (0.3, 0.12, 0.14, 0.44)
    callback_lags: tuple[int, ...] = (2, 2, 2, 4)
    style_mechanisms: tuple[tuple[float, ...], ...] = (
        (0.08, 0.06, 0.06, 0.30, 0.45, 0.05),
        (0.45, 0.20, 0.05, 0.10, 0.15, 0.05),
        (0.04, 0.04, 0.55, 0.12, 0.20, 0.05),
        (0.04, 0.04, 0.50, 0.12, 0.25, 0.05),
    )
    careless_share: float = 0.5  # share of playlists that repeat tracks at the second rate
    repeat_rates: tuple[float, float] = (0.0, 0.026)
    indent: bool = False  # True: four blanks a level as in the MPD (about 490 bytes a row instead of 300)


TEACHING = WorldConfig("teaching")
MPD_LIKE = WorldConfig(  # dials turned until `benchmarks/calibration.py` printed the MPD's own statistics
    "mpd-like", tracks=2_300_000, artists=300_000, genres=24, moods=60, neighbours=5, artist_zipf=1.43,
    artist_shift=11.0, track_zipf=1.1, track_shift=1.0, size_spread=0.95, size_by_fame=0.1, album_tracks=4.6,
    genre_floor=0.02, length_mu=3.96, length_sigma=1.01, length_min=5, length_max=250, careless_share=0.43,
    repeat_rates=(0.0, 0.031), indent=True, style_shares=(0.4, 0.2, 0.2, 0.2), callback_lags=(2, 2, 2, 4),
    style_mechanisms=(
        (0.12, 0.16, 0.05, 0.24, 0.41, 0.02),
        (0.28, 0.29, 0.04, 0.10, 0.27, 0.02),
        (0.06, 0.11, 0.27, 0.16, 0.38, 0.02),
        (0.06, 0.11, 0.26, 0.16, 0.39, 0.02),
    ),
)  # fmt: skip
PRESETS = {c.name: c for c in (TEACHING, MPD_LIKE)}


@dataclass(frozen=True)
class Playlists:
    """Made-up playlists with what is hidden in real ones.

    `tracks` int32 [R] world ids 0…T-1, `offsets` int64 [U+1]; `mood`, `style`, `careless`, `word` int [U]; `mechanism`
    int8 [R]: which mechanism really chose the row (`REPEAT` for a repeat; hand-overs are counted as *mood*).
    """

    pids: np.ndarray
    tracks: np.ndarray
    offsets: np.ndarray
    mood: np.ndarray
    style: np.ndarray
    careless: np.ndarray
    word: np.ndarray
    mechanism: np.ndarray


class World:
    """The tables of a made-up world, all drawn from `config.seed`. Tracks are ids 0…T-1, sorted by artist and album.

    Shapes: `artist`, `album`, `album_next`, `within` are [T]; `within[x]` = P(track x | its artist);
    `artist_first` [A+1] bounds each artist's tracks; `artist_weight` [A] = P(artist | its genre); `genre_of` [A];
    `artist_size` [A]; `neighbour_ids`, `neighbour_weights` [A, k]; `mood_genres` [K, G] = θ; `mood_words` [K, words] =
    P(title word | z); `twin`: the track itself, or the song that it is a second URI of.
    """

    def __init__(self, config: WorldConfig = TEACHING):
        self.config = c = config
        self.style_mechanisms = np.array(c.style_mechanisms)
        self.callback_lags = np.array(c.callback_lags)
        if self.style_mechanisms.shape != (len(STYLES), 6) or not np.allclose(self.style_mechanisms.sum(1), 1):
            raise ValueError("style_mechanisms needs four rows of six probabilities that sum to 1")
        if c.artists < c.genres:
            raise ValueError(f"{c.artists} artists cannot fill {c.genres} genres: every genre needs at least one")
        rng = np.random.default_rng([c.seed, 0])
        # artists: a genre each, Zipf within the genre; famous artists may have more tracks
        others = rng.integers(c.genres, size=c.artists - c.genres)
        self.genre_of = np.sort(np.concatenate([np.arange(c.genres), others]))
        genre_first = np.searchsorted(self.genre_of, np.arange(c.genres + 1))
        rank = np.arange(c.artists) - genre_first[self.genre_of]
        weight = (rank + c.artist_shift) ** -c.artist_zipf
        self.artist_weight = weight / np.add.reduceat(weight, genre_first[:-1])[self.genre_of]
        size = weight**c.size_by_fame * np.exp(rng.normal(0, c.size_spread, c.artists))
        size = np.maximum(1, np.round(size * c.tracks / size.sum())).astype(np.int64)
        self.artist_size, self.artist_first = size, np.concatenate([[0], np.cumsum(size)])
        self.n_tracks = T = int(size.sum())
        if T < 4 * c.length_max:
            raise ValueError(f"{T} tracks are too few for playlists of {c.length_max}: have four times as many")
        self.artist = np.repeat(np.arange(c.artists, dtype=np.int32), size)
        # tracks: albums are runs of an artist's tracks; fame within the artist is independent of the place on the album
        place = np.arange(T) - self.artist_first[self.artist]
        starts = (rng.random(T) < 1 / c.album_tracks) | (place == 0)
        self.album = (np.cumsum(starts) - 1).astype(np.int32)
        self.album_next = np.where(np.append(self.album[1:] == self.album[:-1], False), np.arange(T) + 1, -1)
        fame = np.lexsort((rng.random(T), self.artist))  # a random order of the tracks of each artist
        rank = np.empty(T)
        rank[fame] = place  # tracks are sorted by artist, so `place` counts 0, 1, … along each artist's shuffled tracks
        within = (rank + c.track_shift) ** -c.track_zipf
        self.within = within / np.add.reduceat(within, self.artist_first[:-1])[self.artist]
        self.cumulative = np.concatenate([[0.0], np.cumsum(self.within)])
        again = (place > 0) & (rng.random(T) < c.two_uri_share)
        again[1:] &= ~again[:-1]  # the song before it must be one of its own
        self.twin = np.arange(T) - again
        # neighbours: mostly of the same genre, famous ones more often
        self.neighbour_ids = self._draw_neighbours(rng, genre_first)
        self.neighbour_weights = np.broadcast_to(0.7 ** np.arange(c.neighbours), self.neighbour_ids.shape).copy()
        self.neighbour_weights /= self.neighbour_weights.sum(1, keepdims=True)
        # moods: two or three genres each, and a floor so that no mood ever runs out of tracks
        theta = np.full((c.moods, c.genres), c.genre_floor / c.genres)
        for z in range(c.moods):
            few = rng.permutation(c.genres)[: rng.integers(2, 4)]
            theta[z, few] += (1 - c.genre_floor) * rng.dirichlet(np.full(len(few), 3.0))
        self.mood_genres = theta
        self.track_weight = self.artist_weight[self.artist] * self.within  # P(track | genre), [T]
        self.genre_bounds = self.artist_first[genre_first]  # tracks of genre g: genre_bounds[g]…genre_bounds[g+1]
        self.cumulative_genre = np.concatenate([[0.0], np.cumsum(self.track_weight)])
        words = rng.dirichlet(np.full(len(TITLE_WORDS), 0.15), size=c.moods)
        self.mood_words = 0.98 * words + 0.02 / len(TITLE_WORDS)

    def _draw_neighbours(self, rng: np.random.Generator, genre_first: np.ndarray) -> np.ndarray:
        """[A, k] distinct artists other than oneself: 85 % of the own genre, drawn by fame."""
        c = self.config
        k = min(c.neighbours, c.artists - 1)
        fame = np.concatenate([[0.0], np.cumsum(self.artist_weight)])
        chosen = np.full((c.artists, k), -1)
        own = np.arange(c.artists)
        for j in range(k):
            todo = own
            for _ in range(1000):
                same = rng.random(len(todo)) < 0.85
                g = np.where(same, self.genre_of[todo], rng.integers(c.genres, size=len(todo)))
                pick = _inverse(fame, genre_first, g, rng.random(len(todo)))
                taken = (pick == todo) | (chosen[todo] == pick[:, None]).any(1)
                chosen[todo[~taken], j] = pick[~taken]
                todo = todo[taken]
                if not len(todo):
                    break
            for a in todo:  # a genre of very few artists: take any artist that is left
                chosen[a, j] = np.setdiff1d(own, np.append(chosen[a], a))[0]
        return chosen

    # --- the law: drawing playlists -------------------------------------------------------------------------------

    def playlists(self, n: int | None = None) -> Playlists:
        """Draw `n` playlists (default: the preset's number), pids 0…n-1. A full slice i depends on seed and i alone."""
        n = self.config.playlists if n is None else n
        if n < 1:
            raise ValueError("a world has at least one playlist: ask for n ≥ 1")
        parts = [self._draw_slice(i, min(SLICE, n - i * SLICE)) for i in range(-(-n // SLICE))]
        offsets = np.concatenate([[0], np.cumsum(np.concatenate([np.diff(p.offsets) for p in parts]))])
        fields = [f for f in Playlists.__dataclass_fields__ if f != "offsets"]
        return Playlists(offsets=offsets, **{f: np.concatenate([getattr(p, f) for p in parts]) for f in fields})

    def _draw_slice(self, index: int, n: int) -> Playlists:
        """The playlists of one slice, all of them one step at a time."""
        c, rng = self.config, np.random.default_rng([self.config.seed, 1, index])
        # always draw the hidden values of a whole slice, so that a shorter one begins with the same playlists' values
        style = rng.choice(len(STYLES), p=c.style_shares, size=SLICE)[:n]
        mood = rng.integers(c.moods, size=SLICE)[:n]
        careless = (rng.random(SLICE) < c.careless_share).astype(np.int64)[:n]
        length = _log_normal(rng, c.length_mu, c.length_sigma, c.length_min, c.length_max, SLICE)[:n]
        word = _choose(rng, self.mood_words[mood])
        tracks = np.full((n, length.max()), -1, dtype=np.int64)
        mechanism = np.zeros(tracks.shape, dtype=np.int8)
        for t in range(tracks.shape[1]):
            live = np.flatnonzero(length > t)
            first = mechanism[live, :t] != REPEAT
            tracks[live, t], mechanism[live, t] = self.next_tracks(
                rng, tracks[live, :t], mood[live], style[live], careless[live], first
            )
        real = np.arange(tracks.shape[1]) < length[:, None]
        offsets = np.concatenate([[0], np.cumsum(length)])
        pids = index * SLICE + np.arange(n)
        return Playlists(pids, tracks[real].astype(np.int32), offsets, mood, style, careless, word, mechanism[real])

    def next_tracks(
        self,
        rng: np.random.Generator,
        history: np.ndarray,
        mood: np.ndarray,
        style: np.ndarray,
        careless: np.ndarray,
        first: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw one next track for each of B histories of the same length t: (tracks [B], mechanisms [B]).

        `history` int [B, t] world ids, oldest first; `mood`, `style`, `careless` int [B] are the hidden values;
        `first` bool [B, t] as of `first_seen` (computed when it is not given).
        """
        B, t = history.shape
        first = first_seen(history) if first is None else first
        mechanism = _choose(rng, self.style_mechanisms[style])
        repeat = (rng.random(B) < np.array(self.config.repeat_rates)[careless]) & (t > 0)
        source = np.full(B, -1)  # the artist that the mechanism draws from, -1 if it is none or cannot act
        track = np.full(B, -1)
        if t > 0:
            last = history[:, -1]
            lag = np.where(mechanism == CALLBACK, self.callback_lags[style], 1)
            calls = np.flatnonzero(np.isin(mechanism, (ARTIST, CALLBACK)) & (lag <= t))
            heard = self.artist[history[calls, t - lag[calls]]]
            free = self.used(history[calls], first[calls], heard[:, None])[1][:, 0] < self.artist_size[heard]
            source[calls[free]] = heard[free]
            next_up = np.where(mechanism == ALBUM, self.album_next[last], -1)
            track = np.where((history == next_up[:, None]).any(1), -1, next_up)
            near = np.flatnonzero(mechanism == NEIGHBOUR)
            around = self.neighbour_ids[self.artist[last[near]]]
            left = (self.used(history[near], first[near], around)[1] < self.artist_size[around]).any(1)
            mechanism[near[~left]] = MOOD
        acts = (track >= 0) | (source >= 0) | np.isin(mechanism, (MOOD, NOISE)) | ((mechanism == NEIGHBOUR) & (t > 0))
        mechanism[~acts] = MOOD
        # draw and throw away what the playlist has: exactly the mechanism's law, renormalised over the unused tracks
        todo = np.flatnonzero(track < 0)
        for _ in range(10_000):
            m, u = mechanism[todo], rng.random(len(todo))
            drawn = (u * self.n_tracks).astype(np.int64)  # noise
            of_mood = np.flatnonzero(m == MOOD)
            genre = _choose(rng, self.mood_genres[mood[todo[of_mood]]])
            drawn[of_mood] = _inverse(self.cumulative_genre, self.genre_bounds, genre, u[of_mood])
            artist = source[todo]
            near = np.flatnonzero(m == NEIGHBOUR)
            if len(near):
                around = self.artist[history[todo[near], -1]]
                artist[near] = self.neighbour_ids[around, _choose(rng, self.neighbour_weights[around])]
            of_artist = np.flatnonzero(artist >= 0)
            drawn[of_artist] = _inverse(self.cumulative, self.artist_first, artist[of_artist], u[of_artist])
            fresh = ~(history[todo] == drawn[:, None]).any(1)
            track[todo[fresh]] = drawn[fresh]
            todo = todo[~fresh]
            if not len(todo):
                break
        else:
            raise RuntimeError("no unused track found in 10,000 draws: the world is too small for its playlists")
        again = np.flatnonzero(repeat)
        if len(again):  # every distinct track is equally likely: count a track at its first appearance only
            track[again] = history[again, _choose(rng, first[again])]
            mechanism[again] = REPEAT
        return track, mechanism

    def used(self, history: np.ndarray, first: np.ndarray, artists: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How much of each artist the histories have used: (mass Σ P(track | artist), number of tracks), both [B, j].

        `history` int [B, t] with -1 for padding, `first` bool [B, t] as of `first_seen`, `artists` int [B, j].
        """
        owner = np.where(first, self.artist[history], -1)
        same = owner[:, None, :] == artists[:, :, None]  # [B, j, t]
        return (same * self.within[history][:, None, :]).sum(2), same.sum(2)

    # --- names and URIs -------------------------------------------------------------------------------------------

    def uris(self, kind: str, ids: np.ndarray) -> list[str]:
        """URIs like the MPD's of tracks, albums or artists (`kind`), fixed by seed and id: 22 digits of base 62."""
        salt = {"track": 1, "album": 2, "artist": 3}[kind]
        digits = []
        for half in (0, 1):
            value = _mix(self.config.seed, 2 * salt + half, ids)
            for _ in range(11):
                digits.append((value % 62).astype(np.int64))
                value = value // 62
        digits[0] %= 8  # real ones are 128-bit numbers, so their first digit is at most 7
        return [f"spotify:{kind}:{code.decode()}" for code in _BASE62[np.stack(digits, 1)].view("S22").ravel()]

    def names(self, kind: str, ids: np.ndarray) -> list[str]:
        """Invented names of tracks, albums or artists (`kind`); a song has the same name under both its URIs."""
        salt, patterns = _PATTERNS[kind]
        unique, back = np.unique(self.twin[ids] if kind == "track" else ids, return_inverse=True)
        made = [_invented_name(bits, patterns) for bits in _mix(self.config.seed, salt, unique).tolist()]
        return [made[i] for i in back]

    @cached_property
    def track_ids(self) -> dict[str, int]:
        """World id of every track URI."""
        return {uri: x for x, uri in enumerate(self.uris("track", np.arange(self.n_tracks)))}

    def track_name(self, x: int) -> str:
        """The invented name of one track."""
        return self.names("track", np.array([x]))[0]

    def album_name(self, album: int) -> str:
        """The invented name of one album."""
        return self.names("album", np.array([album]))[0]

    def artist_name(self, artist: int) -> str:
        """The invented name of one artist."""
        return self.names("artist", np.array([artist]))[0]


class Oracle:
    """The best possible next-track prediction in a `World`: a scorer whose scores are p(next track | history), exactly.

    The mechanism of every step is summed out, so only mood z and style s stay hidden, with the belief
    b(z, s) ∝ P(z) P(s) P(title word | z) Π_t p(x_t | x_<t, z, s), one factor for each track of the history; the
    prediction is p(x | h) = Σ_zs b(z, s) p(x | h, z, s). One pass over the history. Taught in notebook 05.

    `world_ids` int [M+1] is the world id of each model id (entry 0 is padding and is not used); the first `n_items`
    of them are scored. Ids above `n_items` are not scored but do inform the prediction: the oracle knows every track.
    """

    name = "oracle"

    def __init__(self, world: World, world_ids: np.ndarray, n_items: int):
        self.world, self.world_ids, self.n_items = world, np.asarray(world_ids, dtype=np.int64), int(n_items)
        # columns sorted by world id: the columns of one artist are then a range; the last entry matches no track
        self._order = np.append(np.argsort(self.world_ids[1 : n_items + 1], kind="stable"), -1)
        self._sorted = np.append(self.world_ids[1 : n_items + 1][self._order[:-1]], world.n_tracks)
        self._bounds = np.searchsorted(self._sorted[:-1], world.artist_first)

    @classmethod
    def from_uris(cls, world: World, uris: list[str], n_items: int | None = None) -> Oracle:
        """The oracle for model ids 1…M that stand for these URIs; MPDError for one that the world does not know."""
        ids = np.fromiter((world.track_ids.get(uri, -1) for uri in uris), dtype=np.int64, count=len(uris))
        if (ids < 0).any():
            raise MPDError(
                f"track {uris[int(np.argmin(ids))]} does not come from the made-up world '{world.config.name}' (seed "
                f"{world.config.seed}), which is all this oracle knows; if the slices are others, delete {SIDECAR}."
            )
        return cls(world, np.concatenate([[-1], ids]), len(ids) if n_items is None else n_items)

    def score(self, histories, words: np.ndarray | None = None) -> np.ndarray:
        """p(next track | history), float32 [B, N+1], column 0 is 0. `words` [B]: see `title_words`; -1 = no title."""
        size = max(1, min(256, 2**24 // (self.n_items + 1)))  # a batch of scores stays below 128 MB
        out = np.zeros((len(histories.offsets) - 1, self.n_items + 1), np.float32)
        for i in range(0, len(out), size):
            b = slice(i, i + size)
            out[b] = self._predict(*self._believe(self._pad(histories, b), None if words is None else words[b]))
        return out

    def log_likelihood(self, sequences, words: np.ndarray | None = None, *, unseen_only: bool = False) -> np.ndarray:
        """log p(x_t | x_<t) in nats for every row of the sequences, float64 [R]; minus its mean is the entropy floor.

        With `unseen_only` among the tracks that the playlist does not have yet, and x_t itself: the floor under
        `losses.unseen_softmax_loss`. A row that this law cannot make (in playlists from elsewhere) has -inf, and
        changes no belief. Taught in notebook 04 §1.
        """
        out = np.empty(len(sequences.items))
        length = np.diff(sequences.offsets)
        order = np.argsort(length, kind="stable")  # batches of similar length
        for i in range(0, len(order), 256):
            rows = order[i : i + 256]
            history = self._pad(sequences, rows)
            surprise = np.zeros(history.shape)
            self._believe(history, None if words is None else words[rows], surprise, unseen_only)
            column = np.arange(-history.shape[1], 0) + sequences.offsets[1:][rows, None]  # rows are right-aligned
            out[column[history >= 0]] = surprise[history >= 0]
        return out

    def belief(self, histories, words: np.ndarray | None = None) -> np.ndarray:
        """P(mood, style | history) as [B, K, S]."""
        return self._believe(self._pad(histories, slice(None)), words)[2]

    def _pad(self, sequences, rows) -> np.ndarray:
        """World ids [B, T], right-aligned, -1 = padding."""
        start, stop = sequences.offsets[:-1][rows], sequences.offsets[1:][rows]
        T = int((stop - start).max(initial=0))
        place = stop[:, None] - T + np.arange(T)
        items = np.append(sequences.items, 0)  # a place to point at for sequences without any row
        return np.where(place >= start[:, None], self.world_ids[items[np.maximum(place, 0)]], -1)

    def _believe(
        self, history: np.ndarray, words: np.ndarray | None, surprise: np.ndarray | None = None, unseen_only=False
    ):
        """Walk through the histories: (history, first seen, belief [B, K, S], P(careless) [B]); fills `surprise`."""
        w = self.world
        B, T = history.shape
        first = first_seen(history) & (history >= 0)
        belief = np.tile(np.array(w.config.style_shares) / w.config.moods, (B, w.config.moods, 1))
        if words is not None:
            belief *= np.where(words[:, None] >= 0, w.mood_words[:, words].T, 1.0)[:, :, None]
            belief /= belief.sum((1, 2), keepdims=True)
        careless = np.full(B, w.config.careless_share)
        rates = np.array(w.config.repeat_rates)
        for t in range(T):
            live = np.flatnonzero(history[:, t] >= 0)
            if not len(live):
                continue
            past, known, x = history[live, :t], first[live, :t], history[live, t]
            kind = np.stack([1 - careless[live], careless[live]], 1)  # P(careful), P(careless)
            slip = kind * rates * known.any(1)[:, None]  # … and a repeat now
            again = ~first[live, t]
            kind = np.where(again[:, None], slip, kind - slip)
            p = _Step(w, past, known).of(x)  # [b, K, S], given that the row is no repeat
            p[again] = 1 / np.maximum(known.sum(1), 1)[again, None, None]
            joint = belief[live] * p
            total, chance = joint.sum((1, 2)), kind.sum(1)
            if surprise is not None:
                with np.errstate(divide="ignore"):
                    surprise[live, t] = np.log(total) + np.log(chance)
                    if unseen_only:  # what is left: for a new track all new ones, for a repeat those and itself
                        fresh = 1 - slip.sum(1)
                        left = fresh + np.where(again, total * chance, 0)
                        surprise[live, t] -= np.log(left)
            able = total > 0
            belief[live[able]] = joint[able] / total[able, None, None]
            able = chance > 0
            careless[live[able]] = kind[able, 1] / chance[able]
        return history, first, belief, careless

    def _predict(self, history: np.ndarray, first: np.ndarray, belief: np.ndarray, careless: np.ndarray) -> np.ndarray:
        """Σ_zs b(z, s) p(x | h, z, s) for every scored track: [B, N+1]."""
        w, B = self.world, len(history)
        law = _Step(w, history, first)
        artist, mood, noise, album = law.mix(belief)  # [B, j], [B, K], [B], [B]
        columns = self.world_ids[1 : self.n_items + 1]
        scores = (mood @ w.mood_genres)[:, w.genre_of[w.artist[columns]]]  # [B, N]
        scores *= w.track_weight[columns]
        scores += noise[:, None]
        for j in range(artist.shape[1]):  # last, two lags, k neighbours: a handful
            rows = np.flatnonzero(artist[:, j] > 0)
            low = self._bounds[law.artists[rows, j]]
            size = self._bounds[law.artists[rows, j] + 1] - low
            row = np.repeat(rows, size)
            column = self._order[np.arange(len(row)) + np.repeat(low - np.cumsum(size) + size, size)]
            scores[row, column] += artist[row, j] * w.within[columns[column]]
        column = self._column(law.next_up)
        hit = np.flatnonzero(column >= 0)
        scores[hit, column[hit]] += album[hit]
        # tracks that are there already come again only by a slip of the hand, each with the same probability
        slip = np.array(w.config.repeat_rates) @ np.stack([1 - careless, careless]) * first.any(1)
        scores *= (1 - slip)[:, None]
        row, t = np.nonzero(first)
        column = self._column(history[row, t])
        row, column = row[column >= 0], column[column >= 0]
        scores[row, column] = (slip / np.maximum(first.sum(1), 1))[row]
        return np.concatenate([np.zeros((B, 1)), scores], axis=1)

    def _column(self, tracks: np.ndarray) -> np.ndarray:
        """The scored column of each track (world ids; -1 is none), -1 if it is not scored."""
        where = np.searchsorted(self._sorted[:-1], tracks)
        return np.where(self._sorted[where] == tracks, self._order[where], -1)


class _Step:
    """What every mechanism would do after these histories: who can act, and what is left of each source's mass.

    `history` int [B, t] world ids, right-aligned with -1 for padding; `first` bool [B, t]. Artists of interest, in
    columns: the last one, those 2 and 4 steps back (one per distinct lag), then the neighbours of the last one.
    """

    def __init__(self, world: World, history: np.ndarray, first: np.ndarray):
        self.world, self.history = world, history
        B, t = history.shape
        self.lags = np.unique(world.callback_lags)
        last = history[:, -1] if t else np.full(B, -1)
        back = [np.where(last >= 0, world.artist[last], -1)]
        for lag in self.lags:
            item = history[:, -lag] if t >= lag else np.full(B, -1)
            back.append(np.where(item >= 0, world.artist[item], -1))
        near = np.where(last[:, None] >= 0, world.neighbour_ids[back[0]], -1)
        self.artists = np.concatenate([np.stack(back, 1), near], axis=1)  # [B, 1 + lags + k]
        mass, count = world.used(history, first, self.artists)
        self.open = (self.artists >= 0) & (count < world.artist_size[self.artists])
        self.left = np.where(self.open, 1 - mass, 0.0)  # unused share of P(track | artist)
        n = 1 + len(self.lags)
        self.near_left = (world.neighbour_weights[back[0]] * self.left[:, n:]).sum(1)
        next_up = np.where(last >= 0, world.album_next[last], -1)
        self.next_up = np.where((history == next_up[:, None]).any(1), -1, next_up)
        self.n_used = first.sum(1)
        genre = world.genre_of[world.artist[history]] + world.config.genres * np.arange(B)[:, None]
        heard = np.bincount(genre[first], world.track_weight[history[first]], minlength=B * world.config.genres)
        self.mood_left = 1 - heard.reshape(B, -1) @ world.mood_genres.T  # [B, K] unused share of the mood's tracks
        # [B, S, 6]: the probability with which each mechanism really acts, after hand-overs to mood
        acts = np.ones((B, len(STYLES), 6), dtype=bool)
        acts[:, :, ALBUM] = (self.next_up >= 0)[:, None]
        acts[:, :, ARTIST] = self.open[:, :1]
        self.lag_column = 1 + np.searchsorted(self.lags, world.callback_lags)  # [S] the style's callback artist
        acts[:, :, CALLBACK] = self.open[:, self.lag_column]
        acts[:, :, NEIGHBOUR] = self.open[:, n:].any(1)[:, None]
        self.weights = world.style_mechanisms * acts
        self.weights[:, :, MOOD] += 1 - self.weights.sum(2)

    def of(self, x: np.ndarray) -> np.ndarray:
        """p(x | h, z, s) [B, K, S] for one unused track x [B] of each history."""
        w, n = self.world, 1 + len(self.lags)
        owner = w.artist[x]
        from_artist = np.where(self.open & (self.artists == owner[:, None]), w.within[x][:, None], 0.0)  # [B, j]
        share = _ratio(from_artist, self.left)
        near = _ratio((w.neighbour_weights[self.artists[:, 0]] * from_artist[:, n:]).sum(1), self.near_left)
        p = self.weights[:, :, ALBUM] * (self.next_up == x)[:, None]
        p = p + self.weights[:, :, ARTIST] * share[:, :1] + self.weights[:, :, CALLBACK] * share[:, self.lag_column]
        p = p + self.weights[:, :, NEIGHBOUR] * near[:, None]
        p = p + self.weights[:, :, NOISE] / (w.n_tracks - self.n_used)[:, None]  # [B, S]
        mood = w.mood_genres[:, w.genre_of[owner]].T * w.track_weight[x][:, None] / self.mood_left  # [B, K]
        return p[:, None, :] + mood[:, :, None] * self.weights[:, None, :, MOOD]

    def mix(self, belief: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Coefficients of the mixture over tracks under belief [B, K, S].

        artist [B, j] (times P(track | artist)), mood [B, K] (times θ_z(genre) P(track | genre)), noise [B] (each
        track), album [B] (the next track on the album).
        """
        n = 1 + len(self.lags)
        style = belief.sum(1)  # [B, S]
        acting = np.einsum("bs,bsm->bm", style, self.weights)
        coefficient = np.zeros(self.artists.shape)
        coefficient[:, 0] = acting[:, ARTIST]
        for s, column in enumerate(self.lag_column):
            coefficient[:, column] += style[:, s] * self.weights[:, s, CALLBACK]
        coefficient[:, :n] = _ratio(coefficient[:, :n], self.left[:, :n])
        near = _ratio(acting[:, NEIGHBOUR], self.near_left)
        coefficient[:, n:] = near[:, None] * self.world.neighbour_weights[self.artists[:, 0]] * self.open[:, n:]
        mood = np.einsum("bks,bs->bk", belief, self.weights[:, :, MOOD]) / self.mood_left
        return coefficient, mood, acting[:, NOISE] / (self.world.n_tracks - self.n_used), acting[:, ALBUM]


def first_seen(history: np.ndarray) -> np.ndarray:
    """bool [B, t]: True where a value stands for the first time in its row."""
    order = np.argsort(history, axis=1, kind="stable")
    ordered = np.take_along_axis(history, order, 1)
    new = np.ones(history.shape, dtype=bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.empty_like(new)
    np.put_along_axis(first, order, new, 1)
    return first


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, 0 where b is 0."""
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def _inverse(cumulative: np.ndarray, bounds: np.ndarray, group: np.ndarray, u: np.ndarray) -> np.ndarray:
    """For each u in [0, 1) one index of its group's range bounds[g]…bounds[g+1], in proportion to the weights."""
    low, high = cumulative[bounds[group]], cumulative[bounds[group + 1]]
    x = np.searchsorted(cumulative, low + u * (high - low), side="right") - 1
    return np.clip(x, bounds[group], bounds[group + 1] - 1)


def _log_normal(rng: np.random.Generator, mu: float, sigma: float, low: int, high: int, n: int) -> np.ndarray:
    """n whole numbers from a log-normal law that is cut off outside low…high (nothing piles up at the ends)."""
    values = np.arange(low, high + 1)
    log_p = -0.5 * ((np.log(values) - mu) / sigma) ** 2 - np.log(values)
    p = np.exp(log_p - log_p.max())
    return rng.choice(values, p=p / p.sum(), size=n)


def _choose(rng: np.random.Generator, probabilities: np.ndarray) -> np.ndarray:
    """One column index for each row of `probabilities` [B, n], in proportion to its values."""
    edges = np.cumsum(probabilities, axis=1)
    return (rng.random((len(edges), 1)) * edges[:, -1:] >= edges).sum(1)


# --- writing slices in the MPD's format -------------------------------------------------------------------------------

# Titles: words that people really use, each mood with its own taste, dressed as people dress them.
TITLE_WORDS = (
    "chill", "workout", "summer", "sleep", "party", "throwback", "study", "road trip", "rainy days", "happy",
    "sad songs", "dinner", "running", "focus", "love", "beach", "morning", "night drive", "oldies", "dance",
    "acoustic", "angry", "shower", "christmas", "gaming", "coffee", "winter", "vibes", "feels", "roots",
)  # fmt: skip
_TITLE = re.compile(rf"\b({'|'.join(TITLE_WORDS)})\b")
_DRESS = (  # {0} the word, {1} an invented name, {2} a year
    "{0}", "{0}!!", "{0} mix", "my {0}", "{0} ✨", "{0} {2}", "♥ {0} {2}", "{1}'s {0}", "{0} for {1}", "{1} {0} 🎧",
    "{0} w/ {1}", "{0} - {1} {2}", "☀️ {0} @ {1}", "{1} ({0})",
)  # fmt: skip
_DESCRIPTIONS = (
    "for long days &amp; short nights",
    "don&#x27;t skip the third one",
    "songs I&#x27;d play at 7 &lt; t &lt; 9",
    "made for {} &quot;only&quot;",
    "{} &amp; nothing else",
)
_SYLLABLES = (
    "bra", "cul", "dren", "fo", "gli", "hoo", "jax", "ko", "lum", "mib", "nor", "plo", "quin", "rel", "sna", "tro",
    "ul", "vex", "wim", "yon", "zor", "ba", "dle", "fen", "gou", "kith", "mer", "nok", "pim", "rosk", "shel", "tov",
)  # fmt: skip
_PATTERNS = {  # what names are made of, and a number that keeps the three kinds apart
    "track": (11, ("{0}", "{0} {1}", "{1} of {0}", "{0} & {1}", "{0} {1} {2}")),
    "album": (12, ("{0}", "{0} {1}", "The {0} Tapes", "{0}: {1}", "{1} Season")),
    "artist": (13, ("{0} {1}", "{0}", "The {0}s", "DJ {0}", "{0} & the {1}s")),
}
_BASE62 = np.frombuffer(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", dtype=np.uint8)
_DAY = 86_400


def write_slices(
    world: World, directory: str | os.PathLike, playlists: int | None = None, progress: bool = False
) -> list[Path]:
    """Write made-up playlists as `mpd.slice.*.json` files in the MPD's format, 1,000 each; returns their paths.

    The same world gives the same bytes in every process. A file `made-up-world.txt` beside the slices names the
    world, so that `load_world` can rebuild it; in the slices themselves nothing but the invented names tells them
    from real ones. `playlists` (default: the preset's number) is how many to write. Slices get their names when all of
    them are complete. Raises MPDError if the folder holds slices already or cannot be written. Memory does not grow
    with the number of slices. Taught in notebook 01 §1.
    """
    n = world.config.playlists if playlists is None else playlists
    if n < 1:
        raise MPDError(f"cannot write {n} playlists: ask for at least one.")
    directory, parts = Path(directory), []
    about = json.dumps({"format": 1, "playlists": n, "config": asdict(world.config)}, indent=1) + "\n"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if has_slices(directory):
            raise MPDError(f"{directory} holds slices already: name another folder, or empty this one first.")
        _write_part(directory / SIDECAR, about, parts)  # first, so that no made-up slice ever stands without it
        for index in _progress(range(-(-n // SLICE)), "slices", progress):
            drawn = world._draw_slice(index, min(SLICE, n - index * SLICE))
            path = directory / f"mpd.slice.{index * SLICE}-{index * SLICE + SLICE - 1}.json"
            _write_part(path, slice_json(world, drawn, index), parts)
        return [part.replace(part.with_suffix("")) for part in parts][1:]
    except OSError as error:
        raise MPDError(
            f"{error.filename or directory}: cannot write the made-up slices ({error.strerror}); free space or name "
            "another folder."
        ) from error
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def load_world(directory: str | os.PathLike) -> World | None:
    """The world whose slices lie in `directory`, or None if they are not made up (no `made-up-world.txt` there)."""
    path = Path(directory) / SIDECAR
    if not path.exists():
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))["config"]
        tuples = {k: _tuples(v) for k, v in config.items()}
        return World(WorldConfig(**tuples))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MPDError(
            f"{path}: does not describe a made-up world ({error}); delete the folder and make the data again."
        ) from error


def slice_json(world: World, drawn: Playlists, index: int) -> str:
    """The JSON text of one slice, keys in the MPD's order; compact, or four blanks a level if `config.indent`."""
    c = world.config
    rng = np.random.default_rng([c.seed, 2, index])  # of its own: what surrounds the tracks never changes the tracks
    n = len(drawn.mood)
    # everything that is said of a track is the same in every row: make its text once, the row adds its position
    unique, row_track = np.unique(drawn.tracks, return_inverse=True)
    duration = _durations(c.seed, world.twin[unique])
    artist, album = world.artist[unique], world.album[unique]
    columns = zip(
        world.names("artist", artist), world.uris("track", unique), world.uris("artist", artist),
        world.names("track", unique), world.uris("album", album), duration.tolist(), world.names("album", album),
        strict=True,
    )  # fmt: skip
    keys = ("artist_name", "track_uri", "artist_uri", "track_name", "album_uri", "duration_ms", "album_name")
    line, gap = ("\n" + " " * 20, "\n" + " " * 16) if c.indent else ("", "")
    comma = "," + line if c.indent else ", "
    about = [comma.join(f'"{k}": {json.dumps(v)}' for k, v in zip(keys, values, strict=True)) for values in columns]
    position = np.arange(len(drawn.tracks)) - np.repeat(drawn.offsets[:-1], np.diff(drawn.offsets))
    places = zip(position.tolist(), row_track.tolist(), strict=True)
    rows = [f'{gap}{{{line}"pos": {p}{comma}{about[x]}{gap}}}' for p, x in places]
    # around the tracks: the MPD's own statistics
    edits = _log_normal(rng, 2.13, 1.30, 2, 2000, n)
    followers = _followers(rng, n)
    day = rng.integers(1_270_000_000 // _DAY, 1_509_500_000 // _DAY, n) * _DAY  # midnight, 2010 to 2017
    shared = rng.random(n) < 0.02
    described = rng.random(n) < 0.019
    dress, year = rng.integers(len(_DRESS), size=n), rng.integers(2009, 2018, size=n)
    friend = [_invented_name(bits, ("{0}",)) for bits in rng.integers(2**63, size=n).tolist()]
    case, blank, phrase = rng.integers(3, size=n), rng.random(n) < 0.06, rng.integers(len(_DESCRIPTIONS), size=n)
    separator = "," if c.indent else ", "
    texts = []
    for u in range(n):
        low, high = drawn.offsets[u], drawn.offsets[u + 1]
        ids = drawn.tracks[low:high]
        word = TITLE_WORDS[drawn.word[u]]
        title = _DRESS[dress[u]].format((str.lower, str.title, str.upper)[case[u]](word), friend[u], year[u])
        title += " " * int(blank[u])
        head = {"name": title, "collaborative": "true" if shared[u] else "false", "pid": int(drawn.pids[u])}
        if described[u]:
            head["description"] = _DESCRIPTIONS[phrase[u]].format(word)
        head |= {
            "modified_at": int(day[u]),
            "num_tracks": len(ids),
            "num_albums": len(np.unique(world.album[ids])),
            "num_followers": int(followers[u]),
        }
        tail = {
            "num_edits": int(edits[u]),
            "duration_ms": int(np.maximum(duration[row_track[low:high]], 0).sum()),
            "num_artists": len(np.unique(world.artist[ids])),
        }
        texts.append(_playlist_json(head, separator.join(rows[low:high]), tail, c.indent))
    first = index * SLICE
    info = {"generated_on": "2017-12-03 08:41:42.057563", "slice": f"{first}-{first + SLICE - 1}", "version": "v1"}
    if c.indent:
        about_slice = json.dumps({"info": info}, indent=4)[:-2]
        return about_slice + ',\n    "playlists": [\n' + ",\n".join(texts) + "\n    ]\n}"
    return f'{{"info": {json.dumps(info)}, "playlists": [{", ".join(texts)}]}}'


def title_words(names) -> np.ndarray:
    """Which of `TITLE_WORDS` stands in each playlist name, int [U], -1 for none: all the oracle knows of a title."""
    found = [_TITLE.search((name or "").lower()) for name in names]
    return np.array([TITLE_WORDS.index(f[1]) if f else -1 for f in found], dtype=np.int64)


def _playlist_json(head: dict, tracks: str, tail: dict, indent: bool) -> str:
    if not indent:
        return f'{json.dumps(head)[:-1]}, "tracks": [{tracks}], {json.dumps(tail)[1:]}'
    pad = "\n" + " " * 12
    pairs = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in head.items()]
    after = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in tail.items()]
    return " " * 8 + "{" + pad + ("," + pad).join([*pairs, f'"tracks": [{tracks}{pad}]', *after]) + "\n" + " " * 8 + "}"


def _followers(rng: np.random.Generator, n: int) -> np.ndarray:
    """1: 75.4 %, 2: 15.0 %, 3: 4.7 %, 4: 2.0 %, and a tail with slope -3 from 5 on."""
    tail = np.arange(5, 10_000, dtype=float) ** -3
    p = np.concatenate([[0.754, 0.150, 0.047, 0.020], 0.029 * tail / tail.sum()])
    return 1 + rng.choice(len(p), p=p / p.sum(), size=n)


def _durations(seed: int, tracks: np.ndarray) -> np.ndarray:
    """Track lengths in ms, int [n], mean 3.9 minutes; one in 5,000 is -1, as in the MPD."""
    u = [(_mix(seed, 20 + i, tracks) >> np.uint64(11)) / 2.0**53 for i in range(3)]
    normal = np.sqrt(-2 * np.log(1 - u[0])) * np.cos(2 * np.pi * u[1])
    return np.where(u[2] < 1 / 5000, -1, np.round(234_000 * np.exp(0.28 * normal - 0.28**2 / 2))).astype(np.int64)


def _mix(seed: int, salt: int, ids: np.ndarray) -> np.ndarray:
    """Well-spread uint64 values, a function of (seed, salt, id): SplitMix64's finaliser (Steele et al. 2014), twice."""
    with np.errstate(over="ignore"):
        start = np.uint64((seed * 1_000_003 + salt) % 2**32) * np.uint64(0x9E3779B97F4A7C15)
        x = np.asarray(ids).astype(np.uint64) + start
        for _ in range(2):
            x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            x = x ^ (x >> np.uint64(31))
    return x


def _invented_name(bits: int, patterns: tuple[str, ...]) -> str:
    """A name of made-up words; 64 bits fix it."""
    words = []
    for _ in range(3):
        parts = []
        for _ in range(2 + bits % 2):
            parts.append(_SYLLABLES[(bits >> 1) % len(_SYLLABLES)])
            bits //= 2 * len(_SYLLABLES)
        words.append("".join(parts).capitalize())
    return patterns[bits % len(patterns)].format(*words)


def _tuples(value):
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _write_part(path: Path, text: str, parts: list[Path]) -> None:
    """Write `path`.part, to be renamed when all are complete, and add it to `parts`."""
    parts.append(path.with_name(path.name + ".part"))
    parts[-1].write_text(text, encoding="utf-8", newline="\n")


def _progress(iterable, unit: str, on: bool):
    from tqdm import tqdm

    return tqdm(iterable, unit=unit, desc="made-up playlists", disable=not on)
