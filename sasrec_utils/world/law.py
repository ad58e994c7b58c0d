"""The law of the made-up world: its tables, and how a playlist is drawn from them.

A `World` holds genres, artists, albums with ordered tracks, a graph of neighbouring artists and a few moods. A
playlist has a hidden mood z and a hidden style s; each next track is chosen by one of six mechanisms:

    album run          the next track on the album of the last track, or any other of that album (`album_order`)
    same artist        a track of the last track's artist
    callback           a track of the artist heard 2 (alternator) or 4 (rotation) steps ago
    neighbour artist   a track of an artist that neighbours the last one
    mood               a track of a genre that fits the mood
    noise              any track at all

Every mechanism draws among the tracks that the playlist does not have yet, in proportion to its own law; one that
cannot act (no next track on the album, all tracks of the artist used) hands over to *mood*. Apart from that, a row
repeats a track the playlist already has with a small probability that is higher in careless playlists.

Steps that stay with an artist (album run in any order, same artist, callback) may prefer other tracks than the rest:
who stays digs for what is less known (`staying_zipf`). A share of the tracks may be *cold* (`cold_share`): they come
out at the release, and for a playlist before it the law is the same without them, renormalised over what is left.
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

    Shapes: `artist`, `album`, `album_next`, `within`, `staying`, `cold` are [T]; `within[x]` = P(track x | its
    artist), `staying[x]` the same for steps that stay with an artist; `artist_first` [A+1] and `album_first` bound the
    tracks of each artist and album; `artist_weight` [A] = P(artist | its genre); `genre_of`, `artist_size` [A];
    `neighbour_ids`, `neighbour_weights` [A, k]; `mood_genres` [K, G] = θ; `mood_words` [K, words] = P(title word | z);
    `twin`: the track itself, or the song that it is a second URI of.
    """

    def __init__(self, config: WorldConfig = TEACHING):
        self.config = config
        self.style_mechanisms = np.array(config.style_mechanisms)
        self.callback_lags = np.array(config.callback_lags)
        rng = np.random.default_rng([config.seed, 0])  # the order of the draws is part of what a seed means
        genre_first = self._make_artists(rng)
        self._make_tracks(rng)
        self.neighbour_ids = self._draw_neighbours(rng, genre_first)
        weights = np.tile(0.7 ** np.arange(config.neighbours), (config.artists, 1))
        self.neighbour_weights = weights / weights.sum(1, keepdims=True)
        self._make_moods(rng)
        self.track_weight = self.artist_weight[self.artist] * self.within  # P(track | genre), [T]
        self.genre_bounds = self.artist_first[genre_first]  # tracks of genre g: genre_bounds[g]…genre_bounds[g+1]
        self.cumulative_genre = np.concatenate([[0.0], np.cumsum(self.track_weight)])
        self._choose_cold_tracks()

    def _make_artists(self, rng: np.random.Generator) -> np.ndarray:
        """A genre each, Zipf within the genre; famous ones may have more tracks. Returns each genre's first artist."""
        c = self.config
        others = rng.integers(c.genres, size=c.artists - c.genres)
        self.genre_of = np.sort(np.concatenate([np.arange(c.genres), others]))
        genre_first = np.searchsorted(self.genre_of, np.arange(c.genres + 1))
        rank = np.arange(c.artists) - genre_first[self.genre_of]
        weight = (rank + c.artist_shift) ** -c.artist_zipf
        self.artist_weight = weight / np.add.reduceat(weight, genre_first[:-1])[self.genre_of]
        size = weight**c.size_by_fame * np.exp(rng.normal(0, c.size_spread, c.artists))
        size = np.maximum(1, np.round(size * c.tracks / size.sum())).astype(np.int64)
        self.artist_size, self.artist_first = size, np.concatenate([[0], np.cumsum(size)])
        self.n_tracks = int(size.sum())
        self.n_cold = round(c.cold_share * self.n_tracks)
        left = self.n_tracks - self.n_cold
        if left < 4 * c.length_max:
            raise ValueError(
                f"tracks: {left} are too few for playlists of up to {c.length_max} (length_max): have four times as "
                "many, besides cold ones"
            )
        return genre_first

    def _make_tracks(self, rng: np.random.Generator) -> None:
        """Albums are runs of an artist's tracks; fame within the artist is independent of the place on the album."""
        c, T = self.config, self.n_tracks
        self.artist = np.repeat(np.arange(c.artists, dtype=np.int32), self.artist_size)
        place = np.arange(T) - self.artist_first[self.artist]
        starts = (rng.random(T) < 1 / c.album_tracks) | (place == 0)
        self.album = (np.cumsum(starts) - 1).astype(np.int32)
        self.album_first = np.append(np.flatnonzero(starts), T)
        self.album_size = np.diff(self.album_first)
        self.album_next = np.where(np.append(self.album[1:] == self.album[:-1], False), np.arange(T) + 1, -1)
        fame = np.lexsort((rng.random(T), self.artist))  # a random order of the tracks of each artist
        rank = np.empty(T)
        rank[fame] = place  # tracks are sorted by artist, so `place` counts 0, 1, … along each artist's shuffled tracks
        self.within = self._within(rank, c.track_zipf)
        self.cumulative = np.concatenate([[0.0], np.cumsum(self.within)])
        self.staying, self.cumulative_staying = self.within, self.cumulative
        if c.staying_zipf is not None:
            self.staying = self._within(rank, c.staying_zipf)
            self.cumulative_staying = np.concatenate([[0.0], np.cumsum(self.staying)])
        self.album_mass = np.add.reduceat(self.staying, self.album_first[:-1])
        again = (place > 0) & (rng.random(T) < c.two_uri_share)
        again[1:] &= ~again[:-1]  # the song before it must be one of its own
        self.twin = np.arange(T) - again

    def _make_moods(self, rng: np.random.Generator) -> None:
        """Two or three genres each, a floor so that no mood ever runs out of tracks, and a taste in title words."""
        c = self.config
        theta = np.full((c.moods, c.genres), c.genre_floor / c.genres)
        for z in range(c.moods):
            few = rng.permutation(c.genres)[: rng.integers(2, 4)]
            theta[z, few] += (1 - c.genre_floor) * rng.dirichlet(np.full(len(few), 3.0))
        self.mood_genres = theta
        words = rng.dirichlet(np.full(len(TITLE_WORDS), 0.15), size=c.moods)
        self.mood_words = 0.98 * words + 0.02 / len(TITLE_WORDS)

    def _choose_cold_tracks(self) -> None:
        """Choose the tracks that come out at the release, and sum up what playlists before it lack."""
        c = self.config
        self.cold = np.zeros(self.n_tracks, dtype=bool)
        if self.n_cold:
            rng = np.random.default_rng([c.seed, 3])  # of its own: a world with cold tracks is else the same world
            self.cold[rng.permutation(self.n_tracks)[: self.n_cold]] = True
        cold = np.flatnonzero(self.cold)
        artist, album = self.artist[cold], self.album[cold]
        self.cold_within = np.bincount(artist, self.within[cold], minlength=c.artists)
        self.cold_staying = np.bincount(artist, self.staying[cold], minlength=c.artists)
        self.cold_count = np.bincount(artist, minlength=c.artists)
        self.cold_album_mass = np.bincount(album, self.staying[cold], minlength=len(self.album_size))
        self.cold_album_count = np.bincount(album, minlength=len(self.album_size))
        self.cold_genre_mass = np.bincount(self.genre_of[artist], self.track_weight[cold], minlength=c.genres)

    def _within(self, rank: np.ndarray, zipf: float) -> np.ndarray:
        """P(track | its artist) [T] for each track's rank within its artist."""
        weight = (rank + self.config.track_shift) ** -zipf
        return weight / np.add.reduceat(weight, self.artist_first[:-1])[self.artist]

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
        pids = index * SLICE + np.arange(n)
        released = pids >= c.release
        for t in range(tracks.shape[1]):
            live = np.flatnonzero(length > t)
            first = mechanism[live, :t] != REPEAT
            tracks[live, t], mechanism[live, t] = self.next_tracks(
                rng, tracks[live, :t], mood[live], style[live], careless[live], first, released[live]
            )
        real = np.arange(tracks.shape[1]) < length[:, None]
        offsets = np.concatenate([[0], np.cumsum(length)])
        return Playlists(pids, tracks[real].astype(np.int32), offsets, mood, style, careless, word, mechanism[real])

    def next_tracks(
        self,
        rng: np.random.Generator,
        history: np.ndarray,
        mood: np.ndarray,
        style: np.ndarray,
        careless: np.ndarray,
        first: np.ndarray | None = None,
        released: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw one next track for each of B histories of the same length t: (tracks [B], mechanisms [B]).

        `history` int [B, t] world ids, oldest first; `mood`, `style`, `careless` int [B] are the hidden values;
        `first` bool [B, t] as of `first_seen` (computed when it is not given); `released` bool [B]: may the playlist
        have cold tracks (default: yes)?
        """
        B, t = history.shape
        first = first_seen(history) if first is None else first
        released = np.ones(B, dtype=bool) if released is None else released
        gone = self.gone(history, first, released)
        mechanism = _choose(rng, self.style_mechanisms[style])
        repeat = (rng.random(B) < np.array(self.config.repeat_rates)[careless]) & (t > 0)
        source = np.full(B, -1)  # the artist that the mechanism draws from, -1 if it is none or cannot act
        album = np.full(B, -1)  # the album that it draws from in any order
        track = np.full(B, -1)
        if t > 0:
            last = history[:, -1]
            lag = np.where(mechanism == CALLBACK, self.callback_lags[style], 1)
            calls = np.flatnonzero(np.isin(mechanism, (ARTIST, CALLBACK)) & (lag <= t))
            heard = self.artist[history[calls, t - lag[calls]]]
            used = self.used_of_artists(history[calls], gone[calls], heard[:, None], released[calls], True)[1][:, 0]
            free = used < self.artist_size[heard]
            source[calls[free]] = heard[free]
            on_album = np.flatnonzero(mechanism == ALBUM)
            if self.config.album_order < 1:
                loose = rng.random(len(on_album)) >= self.config.album_order
                shuffled, on_album = on_album[loose], on_album[~loose]
                playing = self.album[last[shuffled]]
                used = self.used_of_album(history[shuffled], gone[shuffled], playing, released[shuffled])[1]
                free = used < self.album_size[playing]
                album[shuffled[free]] = playing[free]
            next_up = self.album_next[last[on_album]]
            missing = (history[on_album] == next_up[:, None]).any(1) | (self.cold[next_up] & ~released[on_album])
            track[on_album] = np.where(missing, -1, next_up)
            near = np.flatnonzero(mechanism == NEIGHBOUR)
            around = self.neighbour_ids[self.artist[last[near]]]
            used = self.used_of_artists(history[near], gone[near], around, released[near], False)[1]
            left = (used < self.artist_size[around]).any(1)
            mechanism[near[~left]] = MOOD
        acts = (
            (track >= 0)
            | (album >= 0)
            | (source >= 0)
            | np.isin(mechanism, (MOOD, NOISE))
            | ((mechanism == NEIGHBOUR) & (t > 0))
        )
        mechanism[~acts] = MOOD
        # draw and throw away what the playlist has: exactly the mechanism's law, renormalised over the unused tracks
        todo = np.flatnonzero(track < 0)
        for _ in range(10_000):
            m, u = mechanism[todo], rng.random(len(todo))
            drawn = (u * self.n_tracks).astype(np.int64)  # noise
            of_mood = np.flatnonzero(m == MOOD)
            genre = _choose(rng, self.mood_genres[mood[todo[of_mood]]])
            drawn[of_mood] = _inverse(self.cumulative_genre, self.genre_bounds, genre, u[of_mood])
            of_source = np.flatnonzero(source[todo] >= 0)
            drawn[of_source] = _inverse(
                self.cumulative_staying, self.artist_first, source[todo[of_source]], u[of_source]
            )
            near = np.flatnonzero(m == NEIGHBOUR)
            if len(near):
                around = self.artist[history[todo[near], -1]]
                artist = self.neighbour_ids[around, _choose(rng, self.neighbour_weights[around])]
                drawn[near] = _inverse(self.cumulative, self.artist_first, artist, u[near])
            of_album = np.flatnonzero(album[todo] >= 0)
            drawn[of_album] = _inverse(self.cumulative_staying, self.album_first, album[todo[of_album]], u[of_album])
            fresh = ~(history[todo] == drawn[:, None]).any(1) & (released[todo] | ~self.cold[drawn])
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

    def gone(self, history: np.ndarray, first: np.ndarray, released: np.ndarray) -> np.ndarray:
        """bool [B, t]: rows that take a track away from what may still be drawn, each track once.

        A track that is not released yet (`released` bool [B] False) is none of them: it is missing anyway.
        """
        return first & (released[:, None] | ~self.cold[history]) if self.n_cold else first

    def used_of_artists(
        self, history: np.ndarray, gone: np.ndarray, artists: np.ndarray, released: np.ndarray, staying: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """How much of each artist cannot be drawn any more, or not yet: (mass, number of tracks), both [B, j].

        The mass is Σ P(track | artist), by the law of steps that stay with an artist if `staying`. `history` int
        [B, t] with -1 for padding, `gone` bool [B, t] as of `gone`, `artists` int [B, j], `released` bool [B].
        """
        law, cold = (self.staying, self.cold_staying) if staying else (self.within, self.cold_within)
        owner = np.where(gone, self.artist[history], -1)
        same = owner[:, None, :] == artists[:, :, None]  # [B, j, t]
        mass, count = (same * law[history][:, None, :]).sum(2), same.sum(2)
        if self.n_cold:
            mass = mass + np.where(released[:, None], 0, cold[artists])
            count = count + np.where(released[:, None], 0, self.cold_count[artists])
        return mass, count

    def used_of_album(
        self, history: np.ndarray, gone: np.ndarray, album: np.ndarray, released: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same of one album for each history, `album` int [B], by the law of steps that stay: both [B]."""
        same = gone & (self.album[history] == album[:, None])
        mass, count = (same * self.staying[history]).sum(1), same.sum(1)
        if self.n_cold:
            mass = mass + np.where(released, 0, self.cold_album_mass[album])
            count = count + np.where(released, 0, self.cold_album_count[album])
        return mass, count

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


def release_split(world: World, pids: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(training, validation, test) indices into `pids` [U]: training before the release, the rest dealt in halves.

    Training playlists hold no cold track, so what share of the validation and test targets was never seen in
    training is known from the law, and so is the best prediction: `Oracle(…, released=False)` for training
    playlists, the default for the others. Raises ValueError when a part would be empty.
    """
    release = world.config.release
    train, late = np.flatnonzero(pids < release), np.flatnonzero(pids >= release)
    if not len(train) or len(late) < 2:
        raise ValueError(
            f"release: {len(train)} playlists before pid {release} and {len(late)} from there on cannot be split; "
            "training needs one at least, validation and test two"
        )
    order = np.random.default_rng(seed).permutation(late)
    return train, np.sort(order[: len(late) // 2]), np.sort(order[len(late) // 2 :])


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
