"""Training windows and batches: every target once, nothing else, little padding, and the same by the same seed."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sasrec_utils.mpd import prepare
from sasrec_utils.sequences import (
    Sequences,
    batches,
    leave_last_out,
    load_dataset,
    load_sequences,
    pad,
    split_playlists,
    windows,
)
from sasrec_utils.world import TEACHING, World, write_slices

playlists = st.lists(st.lists(st.integers(1, 30), max_size=25), max_size=12)
quick = settings(deadline=None, max_examples=60)


def numbered(rows) -> Sequences:
    """Playlists of the same lengths whose tracks are all different: 1, 2, 3… tells each row apart from all others."""
    counts = np.cumsum([0, *map(len, rows)])
    return Sequences.from_lists([list(range(a + 1, b + 1)) for a, b in itertools.pairwise(counts)])


def in_order(seqs, max_len, size, seed):
    return list(batches(seqs, max_len, size, None if seed is None else np.random.default_rng(seed)))


# Windows and batches


@quick
@given(playlists, st.integers(1, 9), st.integers(1, 7), st.none() | st.integers(0, 9))
def test_every_target_comes_exactly_once_with_what_precedes_it(rows, max_len, size, seed):
    seqs = numbered(rows)
    firsts = {int(row[0]) for row in seqs if len(row)}
    targets, made = Counter(), in_order(seqs, max_len, size, seed)
    for batch in made:
        assert batch.ids.shape == batch.targets.shape and batch.ids.dtype == batch.targets.dtype == np.int64
        assert batch.ids.shape[0] <= size and batch.ids.shape[1] <= max_len
        real = batch.ids > 0
        assert np.array_equal(real, batch.targets > 0)
        assert real[:, 0].all() and (real[:, :-1] >= real[:, 1:]).all()  # at least one target, then padding only
        assert real.any(axis=0).all()  # no column of nothing but padding
        assert (batch.targets == batch.ids + 1)[real].all()  # the next row of the same playlist,
        assert (np.diff(batch.ids, axis=1) == 1)[real[:, 1:]].all()  # and no gap inside a window
        targets.update(batch.targets[real].tolist())
    assert targets == Counter(int(x) for row in seqs for x in row if int(x) not in firsts)
    n_windows = sum(-(-max(len(row) - 1, 0) // max_len) for row in rows)
    assert sum(len(batch.ids) for batch in made) == n_windows
    assert len(made) == -(-n_windows // size)


@quick
@given(playlists, st.integers(1, 9))
def test_windows_are_cut_from_the_end(rows, max_len):
    """The newest window is full and ends with the newest track; what is cut short is the oldest one."""
    seqs = numbered(rows)
    start, length = windows(seqs, max_len)
    assert ((length >= 1) & (length <= max_len)).all()
    for u, row in enumerate(seqs):
        mine = (start >= seqs.offsets[u]) & (start < seqs.offsets[u + 1])
        spans = sorted(zip(start[mine], length[mine], strict=True))
        if len(row) < 2:
            assert not spans
            continue
        assert spans[0][0] == seqs.offsets[u]  # the oldest track is an input too
        assert spans[-1][0] + spans[-1][1] == seqs.offsets[u + 1] - 1  # the last input is the track before the last
        assert [n for _, n in spans[1:]] == [max_len] * (len(spans) - 1)
        assert all(a + n == b for (a, n), (b, _) in itertools.pairwise(spans))
        newest = row[start[mine][0] - seqs.offsets[u] :]
        assert newest.tolist() == row[-len(newest) :].tolist() and len(newest) == min(len(row), max_len + 1)


def ragged(seed=0, users=3000) -> Sequences:
    rng = np.random.default_rng(seed)
    lengths = np.clip(np.exp(rng.normal(3.4, 0.8, users)), 1, 250).astype(int)
    return Sequences(rng.integers(1, 500, lengths.sum()), np.concatenate(([0], np.cumsum(lengths))))


@pytest.mark.parametrize("seed", [None, 0])
def test_hardly_anything_is_computed_for_padding(seed):
    seqs = ragged()
    made = in_order(seqs, 50, 64, seed)
    share = sum((batch.ids == 0).sum() for batch in made) / sum(batch.ids.size for batch in made)
    by_chance = windows(seqs, 50)[1]
    assert share < 0.05 < 0.25 < 1 - by_chance.mean() / by_chance.max()  # without sorting it would be a quarter


def test_the_seed_decides_the_order():
    seqs = ragged(users=400)
    one, same, other = (in_order(seqs, 20, 16, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a.ids, b.ids) for a, b in zip(one, same, strict=True))
    assert not all(np.array_equal(a.ids, b.ids) for a, b in zip(one, other, strict=True))
    rng = np.random.default_rng(1)
    first, second = list(batches(seqs, 20, 16, rng)), list(batches(seqs, 20, 16, rng))
    assert not all(np.array_equal(a.ids, b.ids) for a, b in zip(first, second, strict=True))  # each epoch anew


def test_a_window_meets_other_windows_in_other_epochs():
    seqs = ragged(users=2000)
    seqs = numbered([list(row) for row in seqs])
    company = []
    for seed in (1, 2):
        together = [frozenset(batch.ids[:, 0].tolist()) for batch in in_order(seqs, 20, 16, seed)]
        company.append({first: rest for rest in together for first in rest})
    shared = [len(company[0][first] & company[1][first]) - 1 for first in company[0]]
    assert np.mean(shared) < 2


def test_long_and_short_windows_are_mixed_over_an_epoch():
    """Sorted batches would make an epoch begin with the short playlists and end with the long ones."""
    lengths = np.array([batch.ids.shape[1] for batch in in_order(ragged(), 50, 16, 3)])
    half = len(lengths) // 2
    assert abs(lengths[:half].mean() - lengths[half:].mean()) < 3


def test_windows_and_batches_hold_at_least_one():
    seqs = ragged(users=10)
    with pytest.raises(ValueError, match="max_len must be at least 1, got 0"):
        windows(seqs, 0)
    with pytest.raises(ValueError, match="max_len must be at least 1, got -3"):
        pad(seqs, -3)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        in_order(seqs, 5, 0, 0)


def test_nothing_to_train_on_gives_no_batch():
    for rows in ([], [[]], [[4], [7], []]):
        assert in_order(Sequences.from_lists(rows), 5, 4, None) == in_order(Sequences.from_lists(rows), 5, 4, 0) == []


# Padding of histories


@quick
@given(playlists, st.integers(1, 30))
def test_pad_keeps_the_newest_and_pads_on_the_right(rows, max_len):
    seqs = Sequences.from_lists(rows)
    padded = pad(seqs, max_len)
    width = max([1, *(min(len(row), max_len) for row in rows)])
    assert padded.shape == (len(rows), width) and padded.dtype == np.int64
    expected = [row[-max_len:] + [0] * (width - len(row[-max_len:])) for row in rows]
    assert padded.tolist() == expected


@quick
@given(playlists, st.integers(1, 9))
def test_the_newest_window_is_what_serving_pads(rows, max_len):
    seqs = numbered(rows)
    histories, _ = leave_last_out(seqs.take(seqs.lengths >= 2))
    served = {tuple(row[row > 0].tolist()) for row in pad(histories, max_len)}
    trained = {tuple(row[row > 0].tolist()) for batch in in_order(seqs, max_len, 4, 0) for row in batch.ids}
    assert served <= trained


# A prepared folder, split and numbered


def test_a_dataset_is_the_prepared_playlists_split_and_renumbered(tmp_path):
    write_slices(World(TEACHING), tmp_path / "raw", 200)
    prepared = prepare(tmp_path / "raw", tmp_path / "out", progress=False)
    data = load_dataset(prepared, min_count=3, seed=5, valid=20, test=0.2)
    seqs = load_sequences(prepared)
    assert [len(part) for part in data.split] == [140, 20, 40]
    for part, rows in zip((data.train, data.valid, data.test), data.split, strict=True):
        back = data.vocabulary.decode(part)
        assert np.array_equal(back.items, seqs.take(rows).items) and len(part) == len(rows)
    assert all(np.array_equal(a, b) for a, b in zip(data.split, split_playlists(200, 5, 20, 0.2), strict=True))
    # Known are the tracks with three plays in training playlists, and only those.
    plays = np.bincount(seqs.take(data.split.train).items, minlength=len(data.catalogue) + 1)
    known = data.vocabulary.to_catalogue[1 : data.vocabulary.n_items + 1]
    assert set(known.tolist()) == set(np.flatnonzero(plays >= 3).tolist())
    assert (np.diff(plays[known]) <= 0).all()
    # Without a word two plays are needed.
    usual = load_dataset(prepared)
    plays = np.bincount(seqs.take(usual.split.train).items, minlength=len(data.catalogue) + 1)
    assert usual.vocabulary.n_items == (plays >= 2).sum() < (plays >= 1).sum()
    # Artists and albums follow their tracks into the new numbers.
    tracks = pd.read_parquet(prepared / "tracks.parquet").set_index("track_id")
    for column, of in (("artist_id", data.artist_of), ("album_id", data.album_of)):
        assert of[0] == 0 and len(of) == len(data.catalogue) + 1
        assert np.array_equal(of[1:], tracks[column].loc[data.vocabulary.to_catalogue[1:]])
