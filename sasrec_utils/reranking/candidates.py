"""The first stage as the second sees it: a few hundred candidates for each playlist, and what is known of each.

All of it is arrays over all candidates of a batch of playlists at once: M candidates, in two arrays that say whose they
are (`rows`) and which track (`tracks`). No loop goes over playlists or candidates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse

from sasrec_utils.baselines import Blend, ItemKNN, Markov, _standardise, _weighted
from sasrec_utils.evaluation import MAX_SCORES, top_k
from sasrec_utils.sequences import Sequences

__all__ = ["FEATURES", "Candidates", "FirstStage", "cut"]

# What the trees know of a candidate: the name of each feature, and one line that says what it is.
FEATURES = {
    "model": "log-probability by the model (SASRec), of all tracks that the playlist does not have",
    "model_rank": "place among the candidates by the model, 0 = first",
    "knn": "item-kNN's score",
    "knn_rank": "place among the candidates by item-kNN",
    "markov": "logarithm of the Markov chain's probability, over the newest tracks",
    "markov_rank": "place among the candidates by the Markov chain",
    "blend": "score by the blend of all three",
    "blend_rank": "place among the candidates by the blend",
    "follows_last": "share of the last track's plays in training that it directly followed",
    "near_last": "similarity (item-kNN) to the last track",
    "near_second": "similarity to the last track but one",
    "near_third": "similarity to the last track but two",
    "artist_count": "tracks of its artist in the playlist",
    "artist_share": "their share of the playlist",
    "artist_recent": "tracks of its artist, each counted 0.8 to the power of its age (the last track: age 0)",
    "artist_age": "age of the newest track by its artist, 100 = none",
    "artist_in_5": "tracks of its artist among the last five",
    "artist_last": "1 if the last track is by its artist",
    "artist_second": "1 if the last track but one is",
    "artist_third": "1 if the last track but two is",
    "artist_fourth": "1 if the last track but three is",
    "artist_habit": "how often this playlist came back to an artist after as many steps as it now would",
    "artist_follows": "log-probability of its artist after the last track's artist, in training",
    "album_count": "tracks of its album in the playlist",
    "album_last": "1 if the last track is on its album",
    "artist_plays": "logarithm of its artist's plays in training",
    "track_plays": "logarithm of its own plays in training",
    "track_of_artist": "its share of the plays of those of its artist's tracks that the playlist does not have",
    "returns": "artist_habit times track_of_artist: the chance that the playlist comes back to this very track",
    "plays_apart": "logarithm of its plays, less the mean over the playlist",
    "length": "tracks in the playlist",
    "artists": "different artists in the playlist, as a share of its tracks",
    "habit_1": "how often the playlist plays an artist twice in a row",
    "habit_2": "how often it comes back to an artist after two steps",
    "habit_4": "how often it comes back to an artist after four steps",
    "mean_plays": "mean over the playlist of the logarithm of plays",
}
LAGS = 8  # steps after which a playlist may come back to an artist
NEWEST = 100  # tracks of a history that are looked at
FADING = 0.8  # weight of a track in `artist_recent`, to the power of its age


class Candidates(NamedTuple):
    """Candidates of a batch of B playlists: `rows`, `tracks` int64 [M], sorted by playlist, each pair once.

    `scores`: of all tracks, by the three scorers and by their blend, each float32 [B, N + 1].
    """

    rows: np.ndarray
    tracks: np.ndarray
    scores: list[np.ndarray]


@dataclass(frozen=True, eq=False, repr=False)
class FirstStage:
    """A blend of three scorers, what is known of tracks, and what both say of candidates.

    `blend`: of a model whose scores are logarithms of probabilities up to a constant, an ItemKNN and a Markov chain, in
    this order. `artist_of`, `album_of`: int [N + 1], 0 = unknown. `take`: how many candidates each of the three and the
    blend name. Raises ValueError if these do not fit each other.
    """

    blend: Blend
    artist_of: np.ndarray
    album_of: np.ndarray
    take: tuple[int, int, int, int] = (150, 50, 50, 150)

    def __post_init__(self) -> None:
        kinds = [type(scorer) for scorer in self.blend.scorers]
        if kinds[1:] != [ItemKNN, Markov]:
            named = ", ".join(kind.__name__ for kind in kinds)
            raise ValueError(f"the first stage is a blend of a model, an ItemKNN and a Markov chain, got {named}")
        for name in ("artist_of", "album_of"):
            ids = np.asarray(getattr(self, name), dtype=np.int32)[: self.n_items + 1]
            if len(ids) != self.n_items + 1:
                raise ValueError(f"{name} covers {len(ids) - 1} tracks, the first stage knows {self.n_items}")
            object.__setattr__(self, name, ids)

    @property
    def n_items(self) -> int:
        """N, the number of known tracks."""
        return self.blend.n_items

    def batches(self, histories: Sequences) -> Iterator[tuple[slice, Sequences]]:
        """Parts of the histories that are small enough for four lists of scores in memory, with their places."""
        size = max(1, min(128, MAX_SCORES // (4 * (self.n_items + 1))))
        for start in range(0, len(histories), size):
            rows = slice(start, min(start + size, len(histories)))
            yield rows, histories.take(np.arange(rows.start, rows.stop))

    def find(self, histories: Sequences) -> Candidates:
        """The best tracks of each list that are not in the history, all lists together."""
        parts = [scorer.score(histories) for scorer in self.blend.scorers]
        ready = (_standardise(part, flag) for part, flag in zip(parts, self.blend.logits, strict=True))
        scores = [*parts, _weighted(ready, self.blend.weights)]
        best = [top_k(part, size, histories) for part, size in zip(scores, self.take, strict=True)]
        size = self.n_items + 1
        pairs = np.concatenate([(np.arange(len(ids))[:, None] * size + ids)[ids > 0] for ids in best])
        return Candidates(*np.divmod(np.unique(pairs), size), scores)

    def features(self, histories: Sequences, found: Candidates) -> np.ndarray:
        """What is known of each candidate, float32 [M, len(FEATURES)], in the order of FEATURES."""
        rows, tracks, scores = found
        known = histories.keep(histories.items <= self.n_items)
        columns = self._by_scores(known, rows, tracks, scores)
        columns |= self._by_history(known, rows, tracks)
        columns |= self._by_artist(known, rows, tracks)
        columns["returns"] = columns["artist_habit"] * columns["track_of_artist"]
        return np.stack([columns[name] for name in FEATURES], axis=1, dtype=np.float32, casting="same_kind")

    def _by_scores(self, known: Sequences, rows: np.ndarray, tracks: np.ndarray, scores: list[np.ndarray]) -> dict:
        """What the scorers say of each candidate, each on a scale of its own and as a place."""
        model, knn, markov, blend = (part[rows, tracks] for part in scores)
        whole = torch.from_numpy(np.array(scores[0], dtype=np.float32))
        whole[:, 0] = -torch.inf
        whole[known.owner, known.items] = -torch.inf
        model = model - whole.logsumexp(1).numpy()[rows]
        columns = {"model": model, "knn": knn, "markov": np.log(np.maximum(markov, 1e-12)), "blend": blend}
        columns |= {f"{name}_rank": _places(rows, values) for name, values in columns.items()}
        newest = _by_age(known, 3)
        _, similar, chain = self.blend.scorers
        after = chain.counts[newest[:, 0]]
        columns["follows_last"] = after.toarray()[rows, tracks] / (after.sum(axis=1)[rows] + 1)
        for age, name in enumerate(("near_last", "near_second", "near_third")):
            columns[name] = similar.similarity[newest[:, age]].toarray()[rows, tracks]
        return columns

    def _by_history(self, known: Sequences, rows: np.ndarray, tracks: np.ndarray) -> dict:
        """How often and how lately the playlist has each candidate's artist and album."""
        newest = _by_age(known, max(LAGS + 1, min(NEWEST, int(known.lengths.max(initial=0)))))  # [B, L]
        artists, albums = self.artist_of[newest], self.album_of[newest]
        artist, album = self.artist_of[tracks, None], self.album_of[tracks, None]
        same = (artists[rows] == artist) & (artist > 0)  # [M, L]: the candidate's artist, at each age
        album_same = (albums[rows] == album) & (album > 0)
        count, length = same.sum(1), np.minimum(known.lengths, NEWEST)
        habit = _habits(artists)  # [B, LAGS]
        return {
            "artist_count": count,
            "artist_share": count / np.maximum(length, 1)[rows],
            "artist_recent": same @ (FADING ** np.arange(same.shape[1])),
            "artist_age": np.where(count > 0, same.argmax(1), NEWEST),
            "artist_in_5": same[:, :5].sum(1),
            "artist_last": same[:, 0],
            "artist_second": same[:, 1],
            "artist_third": same[:, 2],
            "artist_fourth": same[:, 3],
            "artist_habit": (habit[rows] * same[:, :LAGS]).max(1, initial=0),
            "album_count": album_same.sum(1),
            "album_last": album_same[:, 0],
            "length": known.lengths[rows],
            "artists": (_distinct(artists) / np.maximum(length, 1))[rows],
            "habit_1": habit[rows, 0],
            "habit_2": habit[rows, 1],
            "habit_4": habit[rows, 3],
        }

    def _by_artist(self, known: Sequences, rows: np.ndarray, tracks: np.ndarray) -> dict:
        """How well known each candidate and its artist are, and whether the artist fits the last one."""
        count = self.blend.scorers[1].plays
        plays = np.log1p(count)
        by_artist, follows = self._artist_counts
        artist = self.artist_of[tracks]
        # Plays of those of the artist's tracks that the playlist has, looked up among (playlist, artist) pairs.
        owner, item = np.divmod(np.unique(known.owner * np.int64(len(count)) + known.items), len(count))
        pairs, index = np.unique(owner * len(by_artist) + self.artist_of[item], return_inverse=True)
        held = _look_up(pairs, np.bincount(index, count[item]), rows * len(by_artist) + artist)
        mean = np.bincount(known.owner, plays[known.items], len(known)) / np.maximum(known.lengths, 1)
        last = self.artist_of[_by_age(known, 1)[:, 0]]
        after = follows[last].toarray()  # [B, A + 1]
        share = by_artist / max(by_artist.sum(), 1)
        chance = (after[rows, artist] + share[artist]) / (after.sum(1)[rows] + 1)  # a prior of one play, as Markov's
        return {
            "artist_plays": np.log1p(by_artist[artist]),
            "track_plays": plays[tracks],
            "track_of_artist": count[tracks] / np.maximum(by_artist[artist] - held, 1),
            "plays_apart": plays[tracks] - mean[rows],
            "mean_plays": mean[rows],
            "artist_follows": np.log(np.maximum(chance, 1e-9)),
        }

    @cached_property
    def _artist_counts(self) -> tuple[np.ndarray, sparse.csr_array]:
        """Plays of each artist [A + 1], and how often artist b directly followed artist a, sparse [A + 1, A + 1]."""
        size = self.n_items + 1
        ones = (np.ones(size, np.float32), (np.arange(size), self.artist_of))
        of = sparse.csr_array(ones, shape=(size, int(self.artist_of.max()) + 1))
        return of.T @ self.blend.scorers[1].plays, (of.T @ self.blend.scorers[2].counts @ of).tocsr()


def _places(rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Place of each value among those of its row, 0 = highest; `rows` ascending."""
    order = np.lexsort((-values, rows))
    places = np.empty(len(rows), np.int64)
    places[order] = np.arange(len(rows)) - np.searchsorted(rows, rows)
    return places


def _by_age(seqs: Sequences, n: int) -> np.ndarray:
    """The newest `n` tracks of each playlist, the newest first, int64 [U, n]; 0 where there is none."""
    index = seqs.offsets[1:, None] - 1 - np.arange(n)
    real = index >= seqs.offsets[:-1, None]
    return np.where(real, np.append(seqs.items, 0)[np.maximum(index, 0)], 0).astype(np.int64)


def _habits(artists: np.ndarray) -> np.ndarray:
    """How often a playlist's track is by the artist of k steps before, k = 1…LAGS; float [B, LAGS].

    `artists`: int [B, L] by age, 0 = unknown or none. A short playlist says little, so two steps of a tenth are added.
    """
    habits = np.empty((len(artists), LAGS))
    for k in range(1, LAGS + 1):
        here, before = artists[:, :-k], artists[:, k:]
        habits[:, k - 1] = (((here == before) & (before > 0)).sum(1) + 0.2) / ((before > 0).sum(1) + 2)
    return habits


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The value of each wanted key, 0 where there is no such key; `keys` ascending."""
    place = np.searchsorted(keys, wanted)
    there = np.append(keys, -1)[place] == wanted
    return np.where(there, np.append(values, 0)[place], 0)


def _distinct(ids: np.ndarray) -> np.ndarray:
    """Number of different ids above 0 in each row."""
    ids = np.sort(ids, axis=1)
    return ((ids[:, 1:] != ids[:, :-1]) & (ids[:, 1:] > 0)).sum(1) + (ids[:, 0] > 0)


def cut(playlists: Sequences, each: int = 1, seed: int = 0) -> tuple[Sequences, np.ndarray, np.ndarray]:
    """Several questions from each playlist: its last track after all before it, and up to `each` - 1 earlier ones.

    The earlier ones are drawn at random; the history of each ends before it. For playlists that the first stage has not
    seen at all. Returns (histories, targets int32 [Q], the playlist of each question int64 [Q]); a playlist of n tracks
    gives at most n - 1 questions.
    """
    rng = np.random.default_rng(seed)
    owner = playlists.owner
    place = np.arange(len(owner)) - playlists.offsets[owner]
    key = rng.random(len(owner))
    key[place == playlists.lengths[owner] - 1] = -1  # the last track comes first
    key[place == 0] = 2  # nothing comes before a first track
    turn = np.empty_like(place)
    turn[np.lexsort((key, owner))] = place  # rows of a playlist stay together: the same numbers, dealt anew
    rows = np.flatnonzero((turn < each) & (place > 0))
    return playlists._spans(playlists.offsets[owner[rows]], rows), playlists.items[rows], owner[rows].astype(np.int64)
