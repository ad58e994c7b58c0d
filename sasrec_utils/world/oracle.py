"""The oracle of the made-up world: because the law is known, so is the best possible prediction.

`Oracle` computes p(next track | history) exactly. A model's Recall@10 can then be given as a share of the best
attainable one, and the oracle's entropy is the floor under every loss curve.
"""

from __future__ import annotations

import numpy as np

from sasrec_utils.mpd import MPDError
from sasrec_utils.world.dials import ALBUM, ARTIST, CALLBACK, MOOD, NEIGHBOUR, NOISE, SIDECAR
from sasrec_utils.world.law import World, first_seen

_ANY_ORDER = 6  # album steps that take any track of the album, see `WorldConfig.album_order`


class Oracle:
    """The best possible next-track prediction in a `World`: a scorer whose scores are p(next track | history), exactly.

    The mechanism of every step is summed out, so only mood z and style s stay hidden, with the belief
    b(z, s) ∝ P(z) P(s) P(title word | z) Π_t p(x_t | x_<t, z, s), one factor for each track of the history; the
    prediction is p(x | h) = Σ_zs b(z, s) p(x | h, z, s). One pass over the history. Taught in notebook 06.

    `world_ids` int [M+1] is the world id of each model id (entry 0 is padding and is not used); the first `n_items`
    of them are scored. Ids above `n_items` are not scored but do inform the prediction: the oracle knows every track.
    `released`: are the histories from playlists that may have cold tracks? Say False for playlists before the release.
    """

    name = "oracle"

    def __init__(self, world: World, world_ids: np.ndarray, n_items: int, released: bool = True):
        self.world, self.world_ids, self.n_items = world, np.asarray(world_ids, dtype=np.int64), int(n_items)
        self.released = released
        # columns sorted by world id: the columns of one artist are then a range; the last entry matches no track
        self._order = np.append(np.argsort(self.world_ids[1 : n_items + 1], kind="stable"), -1)
        self._sorted = np.append(self.world_ids[1 : n_items + 1][self._order[:-1]], world.n_tracks)
        self._bounds = np.searchsorted(self._sorted[:-1], world.artist_first)
        self._album_bounds = np.searchsorted(self._sorted[:-1], world.album_first)

    @classmethod
    def from_uris(cls, world: World, uris: list[str], n_items: int | None = None, released: bool = True) -> Oracle:
        """The oracle for model ids 1…M that stand for these URIs; MPDError for one that the world does not know."""
        ids = np.fromiter((world.track_ids.get(uri, -1) for uri in uris), dtype=np.int64, count=len(uris))
        if (ids < 0).any():
            raise MPDError(
                f"track {uris[int(np.argmin(ids))]} does not come from the made-up world '{world.config.name}' (seed "
                f"{world.config.seed}), which is all this oracle knows; if the slices are others, delete {SIDECAR}."
            )
        return cls(world, np.concatenate([[-1], ids]), len(ids) if n_items is None else n_items, released)

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
        changes no belief. Taught in notebook 05 §1.
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
            p = _Step(w, past, known, self.released).of(x)  # [b, K, S], given that the row is no repeat
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
        law = _Step(w, history, first, self.released)
        artist, mood, noise, next_up, album = law.mix(belief)  # [B, j], [B, K], [B], [B], [B]
        columns = self.world_ids[1 : self.n_items + 1]
        scores = (mood @ w.mood_genres)[:, w.genre_of[w.artist[columns]]]  # [B, N]
        scores *= w.track_weight[columns]
        scores += noise[:, None]
        for j in range(artist.shape[1]):  # last, two lags, k neighbours: a handful
            rows = np.flatnonzero(artist[:, j] > 0)
            row, column = self._columns_of(self._bounds, rows, law.artists[rows, j])
            within = w.staying if j < law.n_back else w.within
            scores[row, column] += artist[row, j] * within[columns[column]]
        rows = np.flatnonzero(album > 0)
        row, column = self._columns_of(self._album_bounds, rows, law.album[rows])
        scores[row, column] += album[row] * w.staying[columns[column]]
        column = self._column(law.next_up)
        hit = np.flatnonzero(column >= 0)
        scores[hit, column[hit]] += next_up[hit]
        if not self.released:
            scores[:, w.cold[columns]] = 0
        # tracks that are there already come again only by a slip of the hand, each with the same probability
        slip = np.array(w.config.repeat_rates) @ np.stack([1 - careless, careless]) * first.any(1)
        scores *= (1 - slip)[:, None]
        row, t = np.nonzero(first)
        column = self._column(history[row, t])
        row, column = row[column >= 0], column[column >= 0]
        scores[row, column] = (slip / np.maximum(first.sum(1), 1))[row]
        return np.concatenate([np.zeros((B, 1)), scores], axis=1)

    def _columns_of(self, bounds: np.ndarray, rows: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All (row, scored column) pairs of the tracks of one artist or album (`groups`) for each of `rows`."""
        low = bounds[groups]
        size = bounds[groups + 1] - low
        row = np.repeat(rows, size)
        return row, self._order[np.arange(len(row)) + np.repeat(low - np.cumsum(size) + size, size)]

    def _column(self, tracks: np.ndarray) -> np.ndarray:
        """The scored column of each track (world ids; -1 is none), -1 if it is not scored."""
        where = np.searchsorted(self._sorted[:-1], tracks)
        return np.where(self._sorted[where] == tracks, self._order[where], -1)


class _Step:
    """What every mechanism would do after these histories: who can act, and what is left of each source's mass.

    `history` int [B, t] world ids, right-aligned with -1 for padding; `first` bool [B, t]; `released`: may these
    playlists have cold tracks? Artists of interest, in columns: the last one, those 2 and 4 steps back (one per
    distinct lag), then the neighbours of the last one.
    """

    def __init__(self, world: World, history: np.ndarray, first: np.ndarray, released: bool):
        self.world, self.history, self.released = world, history, released
        B, t = history.shape
        out = np.full(B, released)
        gone = world.gone(history, first, out)
        self.lags = np.unique(world.callback_lags)
        last = history[:, -1] if t else np.full(B, -1)
        some = last >= 0
        back = [np.where(some, world.artist[last], -1)]
        for lag in self.lags:
            item = history[:, -lag] if t >= lag else np.full(B, -1)
            back.append(np.where(item >= 0, world.artist[item], -1))
        near = np.where(some[:, None], world.neighbour_ids[back[0]], -1)
        back = np.stack(back, 1)
        self.n_back = back.shape[1]
        self.artists = np.concatenate([back, near], axis=1)  # [B, 1 + lags + k]
        used = (
            world.used_of_artists(history, gone, back, out, True),
            world.used_of_artists(history, gone, near, out, False),
        )
        mass, count = (np.concatenate(both, axis=1) for both in zip(*used, strict=True))
        self.open = (self.artists >= 0) & (count < world.artist_size[self.artists])
        self.left = np.where(self.open, 1 - mass, 0.0)  # unused share of P(track | artist)
        self.near_left = (world.neighbour_weights[back[:, 0]] * self.left[:, self.n_back :]).sum(1)
        # the album of the last track: its next track, and its tracks in any order
        next_up = np.where(some, world.album_next[last], -1)
        missing = (history == next_up[:, None]).any(1) | (world.cold[next_up] & ~out)
        self.next_up = np.where(missing, -1, next_up)
        self.album = np.where(some, world.album[last], -1)
        mass, count = world.used_of_album(history, gone, self.album, out)
        album_open = some & (count < world.album_size[self.album])
        self.album_left = np.where(album_open, world.album_mass[self.album] - mass, 0.0)
        early = 0 if released else 1
        self.n_left = world.n_tracks - gone.sum(1) - early * world.n_cold
        genre = world.genre_of[world.artist[history]] + world.config.genres * np.arange(B)[:, None]
        heard = np.bincount(genre[gone], world.track_weight[history[gone]], minlength=B * world.config.genres)
        heard = heard.reshape(B, -1) + early * world.cold_genre_mass
        self.mood_left = 1 - heard @ world.mood_genres.T  # [B, K] unused share of the mood's tracks
        self.lag_column = 1 + np.searchsorted(self.lags, world.callback_lags)  # [S] the style's callback artist
        self.weights = self._weights(album_open)

    def _weights(self, album_open: np.ndarray) -> np.ndarray:
        """With what probability each mechanism really acts, after hand-overs to mood, [B, S, 7].

        Album runs stand in two places: those that take the next track, and, last, those that take any (`album_open`
        bool [B]: there is one left).
        """
        world, B = self.world, len(self.history)
        order = world.config.album_order
        chosen = np.concatenate([world.style_mechanisms, (1 - order) * world.style_mechanisms[:, [ALBUM]]], axis=1)
        chosen[:, ALBUM] *= order
        acts = np.ones((B, *chosen.shape), dtype=bool)
        acts[:, :, ALBUM] = (self.next_up >= 0)[:, None]
        acts[:, :, _ANY_ORDER] = album_open[:, None]
        acts[:, :, ARTIST] = self.open[:, :1]
        acts[:, :, CALLBACK] = self.open[:, self.lag_column]
        acts[:, :, NEIGHBOUR] = self.open[:, self.n_back :].any(1)[:, None]
        weights = chosen * acts
        weights[:, :, MOOD] += 1 - weights.sum(2)
        return weights

    def of(self, x: np.ndarray) -> np.ndarray:
        """p(x | h, z, s) [B, K, S] for one unused track x [B] of each history."""
        w, n = self.world, self.n_back
        owner = w.artist[x]
        from_artist = self.open & (self.artists == owner[:, None])  # [B, j]
        from_artist = from_artist * np.where(np.arange(from_artist.shape[1]) < n, w.staying[x, None], w.within[x, None])
        share = _ratio(from_artist, self.left)
        near = _ratio((w.neighbour_weights[self.artists[:, 0]] * from_artist[:, n:]).sum(1), self.near_left)
        p = self.weights[:, :, ALBUM] * (self.next_up == x)[:, None]
        p = p + self.weights[:, :, ARTIST] * share[:, :1] + self.weights[:, :, CALLBACK] * share[:, self.lag_column]
        p = p + self.weights[:, :, NEIGHBOUR] * near[:, None]
        p = p + self.weights[:, :, NOISE] / self.n_left[:, None]
        on_album = _ratio(np.where(w.album[x] == self.album, w.staying[x], 0.0), self.album_left)
        p = p + self.weights[:, :, _ANY_ORDER] * on_album[:, None]  # [B, S]
        mood = w.mood_genres[:, w.genre_of[owner]].T * w.track_weight[x][:, None] / self.mood_left  # [B, K]
        p = p[:, None, :] + mood[:, :, None] * self.weights[:, None, :, MOOD]
        if not self.released:
            p[w.cold[x]] = 0
        return p

    def mix(self, belief: np.ndarray) -> tuple[np.ndarray, ...]:
        """Coefficients of the mixture over tracks under belief [B, K, S].

        artist [B, j] (times P(track | artist)), mood [B, K] (times θ_z(genre) P(track | genre)), noise [B] (each
        track), next [B] (the next track on the album), album [B] (times P(track | artist), any track on the album).
        """
        n = self.n_back
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
        album = _ratio(acting[:, _ANY_ORDER], self.album_left)
        return coefficient, mood, acting[:, NOISE] / self.n_left, acting[:, ALBUM], album


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, 0 where b is 0."""
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)
