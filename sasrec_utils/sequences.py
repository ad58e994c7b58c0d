"""Playlists as ragged id sequences: two arrays, a vocabulary, and honest splits.

A set of playlists is one long array of track ids and one array of offsets into it. Sixty-six million rows fit into 270
MB, and taking some playlists, the newest tracks of each, or all but the last track is one gather.

Two numberings of tracks appear in this package. *Catalogue ids* (1..C, from `mpd.prepare`) name every track of the
files. *Model ids* (from `Vocabulary`) put the tracks that the training playlists know at 1..N and everything else above
N. Id 0 is padding in both and never occurs inside a playlist.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
import pyarrow.parquet as pq

from sasrec_utils.mpd import Catalogue

__all__ = [
    "Batch",
    "Dataset",
    "Sequences",
    "Split",
    "TitledBatch",
    "Vocabulary",
    "batches",
    "continuation_split",
    "leave_last_out",
    "load_dataset",
    "load_sequences",
    "pad",
    "split_playlists",
    "windows",
]


_LARGEST_ID = np.iinfo(np.int32).max
MOST_WORDS = 64  # ids of a title that are read, see `features.read_titles`


@dataclass(frozen=True, eq=False, repr=False)
class Sequences:
    """Playlists, each an ordered run of track ids, held in two flat arrays.

    `items`: int32 [R], all tracks of all playlists in order, every id from 1 to 2^31 - 1. `offsets`: int64 [U + 1];
    playlist `u` is `items[offsets[u]:offsets[u + 1]]`, oldest track first. Empty playlists are allowed. Raises
    ValueError when the arrays do not fit each other. Methods return new objects and leave this one as it is; indexing
    gives a view. Taught in notebook 02 §1.

    `titles`: what is known of each playlist beside its tracks, as ids of words (`features.read_titles`), U rows of
    them; None where nobody asks. It stays with its playlists through every method.
    """

    items: np.ndarray
    offsets: np.ndarray
    titles: Sequences | None = None

    def __post_init__(self) -> None:
        items, offsets = np.asarray(self.items), np.asarray(self.offsets)
        if items.ndim != 1 or offsets.ndim != 1 or len(offsets) == 0:
            raise ValueError("Sequences needs a flat array of items and a flat, non-empty array of offsets")
        if (items.size and items.dtype.kind not in "iu") or offsets.dtype.kind not in "iu":
            raise ValueError(f"Sequences needs whole numbers, got {items.dtype} and {offsets.dtype}")
        if offsets[0] != 0 or offsets[-1] != len(items) or (offsets[1:] < offsets[:-1]).any():
            raise ValueError(f"offsets must start at 0, never fall, and end at the {len(items)} items")
        if items.size and items.min() < 1:
            raise ValueError(f"track ids start at 1 (0 is padding), but the smallest here is {items.min()}")
        if items.size and items.max() > _LARGEST_ID:
            raise ValueError(f"track ids go up to {_LARGEST_ID}, but the largest here is {items.max()}")
        if self.titles is not None and len(self.titles) != len(offsets) - 1:
            raise ValueError(f"{len(offsets) - 1} playlists need as many titles, got {len(self.titles)}")
        # A frozen dataclass can only be completed this way; both casts are free when the types already fit.
        object.__setattr__(self, "items", items.astype(np.int32, copy=False))
        object.__setattr__(self, "offsets", offsets.astype(np.int64, copy=False))

    @classmethod
    def from_lists(cls, lists: Iterable[Iterable[int]]) -> Sequences:
        """Sequences from a list of lists of track ids.

        Meant for small hands-on examples and single requests. Empty inner lists stay empty playlists.
        """
        rows = [np.asarray(row if isinstance(row, np.ndarray) else list(row)) for row in lists]
        offsets = np.concatenate(([0], np.cumsum([len(row) for row in rows], dtype=np.int64)))
        full = [row for row in rows if len(row)]
        return cls(np.concatenate(full) if full else np.zeros(0, np.int32), offsets.astype(np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, u: int) -> np.ndarray:
        size = len(self)
        if not -size <= u < size:
            raise IndexError(f"playlist {u} of {size}")
        u = u % size
        return self.items[self.offsets[u] : self.offsets[u + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[u] for u in range(len(self)))

    def __repr__(self) -> str:
        return f"Sequences({len(self):,} playlists, {len(self.items):,} tracks)"

    @property
    def lengths(self) -> np.ndarray:
        """Number of tracks of each playlist, int64 [U]."""
        return np.diff(self.offsets)

    @property
    def owner(self) -> np.ndarray:
        """Index of the playlist that each row belongs to, int32 [R]."""
        return np.repeat(np.arange(len(self), dtype=np.int32), self.lengths)

    def take(self, indices: np.ndarray) -> Sequences:
        """The playlists at `indices`, in that order.

        `indices`: whole numbers (repeats allowed), or a boolean mask over the U playlists. Raises IndexError beyond the
        last playlist.
        """
        indices = np.asarray(indices)
        if indices.dtype.kind == "b":
            if len(indices) != len(self):
                raise IndexError(f"the mask covers {len(indices)} playlists, there are {len(self)}")
            indices = np.flatnonzero(indices)
        indices = indices.astype(np.int64)  # an empty list arrives as float64
        if indices.size and not (indices.min() >= 0 and indices.max() < len(self)):
            raise IndexError(f"playlists {indices.min()} to {indices.max()} of {len(self)}")
        titles = None if self.titles is None else self.titles.take(indices)
        return self._spans(self.offsets[indices], self.offsets[indices + 1], titles)

    def last(self, n: int) -> Sequences:
        """The newest `n` tracks of each playlist (all of it when it is shorter). Raises ValueError for n < 0."""
        _at_least(0, "n", n)
        starts, ends = self.offsets[:-1], self.offsets[1:]
        return self._spans(np.maximum(starts, ends - n), ends, self.titles)

    def first(self, n: int) -> Sequences:
        """The first `n` tracks of each playlist (all of it when it is shorter). Raises ValueError for n < 0."""
        _at_least(0, "n", n)
        starts, ends = self.offsets[:-1], self.offsets[1:]
        return self._spans(starts, np.minimum(starts + n, ends), self.titles)

    def keep(self, mask: np.ndarray) -> Sequences:
        """Only the rows where `mask` (bool [R]) is true; playlists that lose every row stay, empty.

        Drops, for instance, tracks outside the vocabulary: `seqs.keep(seqs.items <= n_items)`.
        """
        mask = np.asarray(mask, dtype=bool)
        if mask.shape != self.items.shape:
            raise ValueError(f"the mask has shape {mask.shape}, there are {len(self.items)} rows")
        return Sequences(self.items[mask], np.concatenate(([0], np.cumsum(mask)))[self.offsets], self.titles)

    def _spans(self, starts: np.ndarray, ends: np.ndarray, titles: Sequences | None = None) -> Sequences:
        """One gather of `items[start:end]` for every pair: what take, last and first have in common."""
        lengths = ends - starts
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        rows = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        return Sequences(self.items[rows], offsets, titles)


def _at_least(least: int, name: str, value: int) -> None:
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def load_sequences(prepared_dir: str | Path) -> Sequences:
    """The playlists of a directory written by `mpd.prepare`, in catalogue ids.

    Playlist `u` is row `u` of `playlists.parquet`, so playlists without tracks are kept, empty. Raises
    FileNotFoundError when the directory holds no prepared playlists and ValueError when its two tables disagree. Taught
    in notebook 02 §1.
    """
    prepared_dir = Path(prepared_dir)
    for name in ("interactions.parquet", "playlists.parquet"):
        if not (prepared_dir / name).is_file():
            raise FileNotFoundError(f"{prepared_dir} has no {name}: make it with sasrec_utils.mpd.prepare")
    items = pq.read_table(prepared_dir / "interactions.parquet", columns=["track_id"])["track_id"].to_numpy()
    lengths = pq.read_table(prepared_dir / "playlists.parquet", columns=["length"])["length"].to_numpy()
    offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
    if offsets[-1] != len(items):
        raise ValueError(
            f"{prepared_dir}: playlists.parquet counts {offsets[-1]:,} tracks and "
            f"interactions.parquet holds {len(items):,}; delete it and prepare again"
        )
    return Sequences(items, offsets)


@dataclass(frozen=True, eq=False, repr=False)
class Vocabulary:
    """A renumbering of the catalogue that puts the tracks known from training at 1..N, popular ones first.

    `to_catalogue`: int32 [C + 1], the catalogue id of each model id (entry 0 is 0). `n_items`: N. The map is a
    bijection on 0..C, so nothing is thrown away: a track that the training playlists do not know has a model id above
    N, and scorers treat it as unknown. Tracks are ordered by training plays, equal plays by a fixed shuffle: the same
    numbering in every process. Taught in notebook 02 §2.

    `n_new`: how many of the N are newcomers, which training does not know: the last ids. A model that reads what is
    known of tracks beside their ids can recommend them (notebook 08).
    """

    to_catalogue: np.ndarray
    n_items: int
    n_new: int = 0

    def __post_init__(self) -> None:
        table = np.asarray(self.to_catalogue).astype(np.int32, copy=False)
        if table.ndim != 1 or not 0 <= self.n_items < len(table):
            raise ValueError(f"a vocabulary of {self.n_items} tracks needs a flat table of more ids")
        if not 0 <= self.n_new <= self.n_items:
            raise ValueError(f"{self.n_new} of {self.n_items} tracks cannot be newcomers")
        seen = np.zeros(len(table), dtype=bool)
        inside = (table >= 0) & (table < len(table))
        seen[table[inside]] = True
        if table[0] != 0 or not seen.all():
            raise ValueError("to_catalogue must hold every id from 0 to C once, with 0 in front")
        object.__setattr__(self, "to_catalogue", table)

    @classmethod
    def fit(cls, train: Sequences, n_catalogue: int, min_count: int = 1, newcomers: bool = False) -> Vocabulary:
        """The vocabulary of the training playlists.

        `train`: training playlists only, in catalogue ids; anything counted from validation or test playlists would
        leak. `n_catalogue`: C, the number of tracks of the catalogue (`len(catalogue)`). `min_count`: plays that a
        track needs in `train` to be known. `newcomers`: all other tracks of the catalogue are in it too, behind the
        known ones. Raises ValueError when no track has that many plays.
        """
        _at_least(1, "min_count", min_count)
        if train.items.size and train.items.max() > n_catalogue:
            raise ValueError(f"track {train.items.max()} is outside a catalogue of {n_catalogue} tracks")
        plays = np.bincount(train.items, minlength=n_catalogue + 1)[1:]
        n_items = int((plays >= min_count).sum())
        if n_items == 0:
            raise ValueError(f"no track has {min_count} plays in the {len(train)} training playlists")
        # Known tracks have the most plays: they come first. Equal plays are parted by a fixed shuffle, not by catalogue
        # id: that follows the plays in all playlists, those of test included, and would tell a ranking the future.
        order = np.lexsort((np.random.default_rng(0).permutation(n_catalogue), -plays)) + 1
        n_new = n_catalogue - n_items if newcomers else 0
        return cls(np.concatenate(([0], order)), n_items + n_new, n_new)

    def __len__(self) -> int:
        return len(self.to_catalogue) - 1

    def __repr__(self) -> str:
        new = f", {self.n_new:,} of them new" if self.n_new else ""
        return f"Vocabulary({self.n_items:,} known of {len(self):,} tracks{new})"

    @property
    def n_known(self) -> int:
        """How many tracks training knows: N without the newcomers."""
        return self.n_items - self.n_new

    @cached_property
    def to_model(self) -> np.ndarray:
        """The model id of each catalogue id, int32 [C + 1] (entry 0 is 0)."""
        table = np.empty_like(self.to_catalogue)
        table[self.to_catalogue] = np.arange(len(table), dtype=np.int32)
        return table

    @overload
    def encode(self, ids: Sequences) -> Sequences: ...
    @overload
    def encode(self, ids: np.ndarray) -> np.ndarray: ...
    def encode(self, ids):
        """Catalogue ids to model ids: a Sequences gives a Sequences, an array (any shape) an int32 array.

        0 stays 0. Raises ValueError for ids outside the catalogue.
        """
        return _relabel(self.to_model, ids)

    @overload
    def decode(self, ids: Sequences) -> Sequences: ...
    @overload
    def decode(self, ids: np.ndarray) -> np.ndarray: ...
    def decode(self, ids):
        """Model ids back to catalogue ids, the inverse of `encode`."""
        return _relabel(self.to_catalogue, ids)


def _relabel(table: np.ndarray, ids):
    if isinstance(ids, Sequences):
        return Sequences(_relabel(table, ids.items), ids.offsets, ids.titles)
    ids = np.asarray(ids)
    if ids.size and not (ids.min() >= 0 and ids.max() < len(table)):
        raise ValueError(f"ids {ids.min()} to {ids.max()} in a catalogue of {len(table) - 1} tracks")
    return table[ids.astype(np.int64, copy=False)]


class Split(NamedTuple):
    """Indices of the training, validation and test playlists, each int64 and ascending.

    Together they hold every playlist once. Taught in notebook 02 §3.
    """

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


def split_playlists(n: int, seed: int = 0, valid: float | int = 0.1, test: float | int = 0.1) -> Split:
    """Deal `n` playlists at random into training, validation and test.

    `valid`, `test`: a float below 1 is a share of `n` (rounded), an int is a number of playlists. The same `n`, `seed`
    and sizes give the same split in every process. Whole playlists are dealt because a playlist carries no time of day:
    a cut by time is impossible, and a cut inside playlists would let a model train on the start of the playlists that
    judge it. Raises ValueError when nothing is left to train on. Taught in notebook 02 §3.
    """
    sizes = []
    for name, part in (("valid", valid), ("test", test)):
        share = isinstance(part, float | np.floating)
        if not (0 <= part < 1 if share else part >= 0):
            raise ValueError(f"{name} must be a share below 1 or a whole number of playlists, got {part}")
        sizes.append(round(n * float(part)) if share else int(part))
    n_valid, n_test = sizes
    if n_valid + n_test >= n:
        raise ValueError(f"{n_valid} validation and {n_test} test playlists leave none of {n} for training")
    order = np.random.default_rng(seed).permutation(n)
    # The test part comes first: another size of the validation part does not change it.
    parts = np.split(order, [n_test, n_test + n_valid])
    return Split(train=np.sort(parts[2]), valid=np.sort(parts[1]), test=np.sort(parts[0]))


def leave_last_out(seqs: Sequences) -> tuple[Sequences, np.ndarray]:
    """Each playlist without its last track, and that track as the target.

    Returns (histories with U playlists, targets int32 [U]). No playlist is dropped, so index `u` keeps its meaning: a
    playlist of one track has an empty history, and one without tracks has target 0 (no target), which evaluation does
    not count. Applied twice to whole sequences it is the leave-one-out split of the SASRec paper (section 4.1): last
    track for test, the one before for validation, the rest for training. Taught in notebook 02 §3.
    """
    starts, ends = seqs.offsets[:-1], seqs.offsets[1:]
    targets = np.zeros(len(seqs), dtype=np.int32)
    some = ends > starts
    targets[some] = seqs.items[ends[some] - 1]
    return seqs._spans(starts, np.maximum(starts, ends - 1), seqs.titles), targets


def continuation_split(seqs: Sequences, n_seeds: int, random_seed: int | None = None) -> tuple[Sequences, Sequences]:
    """Each playlist cut into `n_seeds` seed tracks and the held-out rest: the RecSys Challenge 2018 task.

    The seeds are the first tracks, or, with `random_seed`, tracks drawn at random and left in playlist order. Both
    results have U playlists: a playlist with no more than `n_seeds` tracks has nothing held out, and evaluation does
    not count it. The challenge uses 0, 1, 5, 10, 25 and 100 seeds. Taught in notebook 06 §8.
    """
    _at_least(0, "n_seeds", n_seeds)
    owner = seqs.owner
    if random_seed is None:
        key = np.arange(len(seqs.items))
    else:
        key = np.random.default_rng(random_seed).random(len(seqs.items))
    place = np.empty(len(seqs.items), dtype=np.int64)  # place of each row among its playlist's rows, by key
    place[np.lexsort((key, owner))] = np.arange(len(seqs.items)) - np.repeat(seqs.offsets[:-1], seqs.lengths)
    return seqs.keep(place < n_seeds), seqs.keep(place >= n_seeds)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A prepared folder, split and numbered: what training, evaluation and the notebooks start from.

    `train`, `valid`, `test`: Sequences in model ids. `split`: which rows of `playlists.parquet` they are. `vocabulary`:
    model ids from training playlists only. `artist_of`, `album_of`: int32 [C + 1], of every model id, 0 = unknown.
    Taught in notebook 02 §3.
    """

    catalogue: Catalogue
    vocabulary: Vocabulary
    split: Split
    train: Sequences
    valid: Sequences
    test: Sequences
    artist_of: np.ndarray
    album_of: np.ndarray


def load_dataset(
    prepared_dir: str | Path,
    min_count: int = 2,
    seed: int = 0,
    valid: float | int = 0.1,
    test: float | int = 0.1,
    *,
    newcomers: bool = False,
    split: Split | None = None,
) -> Dataset:
    """Split the playlists of a prepared folder (`split_playlists`) and number its tracks (`Vocabulary`).

    `newcomers`: tracks that training does not know get ids up to N too. `split`: one of your own, for instance by date.

    Raises what `load_sequences`, `Catalogue.load`, `split_playlists` and `Vocabulary.fit` raise. Notebook 02 §3.
    """
    catalogue, seqs = Catalogue.load(prepared_dir), load_sequences(prepared_dir)
    split = split_playlists(len(seqs), seed, valid, test) if split is None else split
    vocabulary = Vocabulary.fit(seqs.take(split.train), len(catalogue), min_count, newcomers)
    parts = (vocabulary.encode(seqs.take(rows)) for rows in split)
    return Dataset(
        catalogue,
        vocabulary,
        split,
        *parts,
        catalogue.artist_of[vocabulary.to_catalogue],
        catalogue.album_of[vocabulary.to_catalogue],
    )


class Batch(NamedTuple):
    """One training batch, padded on the right: `ids` and `targets`, both int64 [B, L], 0 = padding.

    `targets[b, t]` is the track that follows `ids[b, t]`: the playlist moved by one. Taught in notebook 02 §4.
    """

    ids: np.ndarray
    targets: np.ndarray


class TitledBatch(NamedTuple):
    """A batch of playlists with titles: one place more in front, 0 in `ids`, for the title; `targets` there is the
    first track of the window. `titles`: int64 [B, T], the ids of the title's words, 0 = padding.
    """

    ids: np.ndarray
    targets: np.ndarray
    titles: np.ndarray


def windows(seqs: Sequences, max_len: int) -> tuple[np.ndarray, np.ndarray]:
    """Start rows and lengths (both int64 [W]) of the windows of at most `max_len` inputs that cover every target.

    A playlist of n tracks has n - 1 targets. Windows are cut from its end, so the newest one is full and holds what the
    model sees when it serves; the paper (section 3.1) trains on that one only, here the older ones count too. Raises
    ValueError for max_len < 1. Taught in notebook 02 §4.
    """
    _at_least(1, "max_len", max_len)
    targets = np.maximum(seqs.lengths - 1, 0)
    count = -(-targets // max_len)
    owner = np.repeat(np.arange(len(seqs)), count)
    index = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)  # 0 = newest
    end = targets[owner] - index * max_len
    start = np.maximum(end - max_len, 0)
    return seqs.offsets[owner] + start, end - start


def batches(
    seqs: Sequences, max_len: int, batch_size: int, rng: np.random.Generator | None = None
) -> Iterator[Batch | TitledBatch]:
    """Training batches of `batch_size` windows that compute next to nothing for padding.

    `seqs` in model ids, all known (ids 1..N). With `rng` windows are shuffled, then sorted by length within pools of 32
    batches, and the batches shuffled again: windows of one batch are about equally long, which window meets which still
    changes from epoch to epoch. Without `rng` they come sorted by length. One gather a batch, no Python loop over
    playlists or tracks. Taught in notebook 02 §4, where the share of padding is measured.

    Playlists with titles come as `TitledBatch`; the title takes one of the `max_len` places.
    """
    _at_least(1, "batch_size", batch_size)
    titled = seqs.titles is not None
    start, length = windows(seqs, max_len - titled)
    order = np.arange(len(start)) if rng is None else rng.permutation(len(start))
    pool = np.arange(len(order)) // (32 * batch_size) if rng is not None else np.zeros(len(order), dtype=np.int64)
    order = order[np.lexsort((length[order], pool))]
    starts = np.arange(0, len(order), batch_size)
    for first in starts if rng is None else rng.permutation(starts):
        rows = order[first : first + batch_size]
        place = np.arange(length[rows].max())
        real = place < length[rows, None]
        # Beyond its end a window points at its own first row, which always exists, and is then blanked.
        index = start[rows, None] + np.where(real, place, 0)
        ids = np.where(real, seqs.items[index], 0).astype(np.int64)
        targets = np.where(real, seqs.items[index + 1], 0).astype(np.int64)
        if titled:
            owner = np.searchsorted(seqs.offsets, start[rows], side="right") - 1
            words = pad(seqs.titles.take(owner), MOST_WORDS)
            yield TitledBatch(np.pad(ids, ((0, 0), (1, 0))), np.hstack([ids[:, :1], targets]), words)
        else:
            yield Batch(ids, targets)


def pad(seqs: Sequences, max_len: int) -> np.ndarray:
    """The newest `max_len` tracks of each playlist, padded on the right: int64 [U, L], L = the longest of them, ≥ 1.

    Raises ValueError for max_len < 1. Taught in notebook 02 §4.
    """
    _at_least(1, "max_len", max_len)
    newest = seqs.last(max_len)
    place = np.arange(max(1, newest.lengths.max(initial=0)))
    real = place < newest.lengths[:, None]
    index = newest.offsets[:-1, None] + np.where(real, place, 0)
    return np.where(real, np.append(newest.items, 0)[np.minimum(index, len(newest.items))], 0).astype(np.int64)
