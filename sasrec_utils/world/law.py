"""The law of the made-up world: its tables, and how a playlist is drawn from them.

A `World` holds genres, artists, albums with ordered tracks, a graph of neighbouring artists and a few moods. A
playlist has a hidden mood z and a hidden style s; each next track is chosen by one of six mechanisms:

    album run          the next track on the album of the last track
    same artist        a track of the last track's artist
    callback           a track of the artist heard 2 (alternator) or 4 (rotation) steps ago
    neighbour artist   a track of an artist that neighbours the last one
    mood               a track of a genre that fits the mood
    noise              any track at all

Every mechanism draws among the tracks that the playlist does not have yet, in proportion to its own law; one that
cannot act (no next track on the album, all tracks of the artist used) hands over to *mood*. Apart from that, a row
repeats a track the playlist already has with a small probability that is higher in careless playlists.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sasrec_utils.world.dials import (
    ALBUM,
    ARTIST,
    CALLBACK,
    MOOD,
    NEIGHBOUR,
    NOISE,
    REPEAT,
    SLICE,
    STYLES,
    TEACHING,
    WorldConfig,
)
from sasrec_utils.world.names import TITLE_WORDS, Names, uris


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
        parts = [self.draw_slice(i, min(SLICE, n - i * SLICE)) for i in range(-(-n // SLICE))]
        offsets = np.concatenate([[0], np.cumsum(np.concatenate([np.diff(p.offsets) for p in parts]))])
        fields = [f for f in Playlists.__dataclass_fields__ if f != "offsets"]
        return Playlists(offsets=offsets, **{f: np.concatenate([getattr(p, f) for p in parts]) for f in fields})

    def draw_slice(self, index: int, n: int) -> Playlists:
        """The playlists of one slice, all of them one step at a time."""
        c, rng = self.config, np.random.default_rng([self.config.seed, 1, index])
        # always draw the hidden values of a whole slice, so that a shorter one begins with the same playlists' values
        style = rng.choice(len(STYLES), p=c.style_shares, size=SLICE)[:n]
        mood = rng.integers(c.moods, size=SLICE)[:n]
        careless = (rng.random(SLICE) < c.careless_share).astype(np.int64)[:n]
        length = log_normal(rng, c.length_mu, c.length_sigma, c.length_min, c.length_max, SLICE)[:n]
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
        """URIs like the MPD's of tracks, albums or artists (`kind`), fixed by seed and id."""
        return uris(self.config.seed, kind, ids)

    def names(self, kind: str, ids: np.ndarray) -> list[str]:
        """Invented names of tracks, albums or artists (`kind`); a song has the same name under both its URIs."""
        return self._invented.of(kind, self.twin[ids] if kind == "track" else np.asarray(ids))

    @property
    def genre_names(self) -> list[str]:
        """The name of each genre, in the order of the ids in `genre_of`."""
        return self._invented.genres

    @cached_property
    def _invented(self) -> Names:
        return Names(self)

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


def first_seen(history: np.ndarray) -> np.ndarray:
    """bool [B, t]: True where a value stands for the first time in its row."""
    order = np.argsort(history, axis=1, kind="stable")
    ordered = np.take_along_axis(history, order, 1)
    new = np.ones(history.shape, dtype=bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.empty_like(new)
    np.put_along_axis(first, order, new, 1)
    return first


def _inverse(cumulative: np.ndarray, bounds: np.ndarray, group: np.ndarray, u: np.ndarray) -> np.ndarray:
    """For each u in [0, 1) one index of its group's range bounds[g]…bounds[g+1], in proportion to the weights."""
    low, high = cumulative[bounds[group]], cumulative[bounds[group + 1]]
    x = np.searchsorted(cumulative, low + u * (high - low), side="right") - 1
    return np.clip(x, bounds[group], bounds[group + 1] - 1)


def log_normal(rng: np.random.Generator, mu: float, sigma: float, low: int, high: int, n: int) -> np.ndarray:
    """n whole numbers from a log-normal law that is cut off outside low…high (nothing piles up at the ends)."""
    values = np.arange(low, high + 1)
    log_p = -0.5 * ((np.log(values) - mu) / sigma) ** 2 - np.log(values)
    p = np.exp(log_p - log_p.max())
    return rng.choice(values, p=p / p.sum(), size=n)


def _choose(rng: np.random.Generator, probabilities: np.ndarray) -> np.ndarray:
    """One column index for each row of `probabilities` [B, n], in proportion to its values."""
    edges = np.cumsum(probabilities, axis=1)
    return (rng.random((len(edges), 1)) * edges[:, -1:] >= edges).sum(1)
