"""Sequences, vocabulary and splits: every operation against plain Python lists."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sasrec_utils.sequences import (
    Sequences,
    Vocabulary,
    continuation_split,
    leave_last_out,
    load_sequences,
    split_playlists,
)

playlists = st.lists(st.lists(st.integers(1, 12), max_size=7), max_size=9)
quick = settings(deadline=None, max_examples=80)


def lists(seqs: Sequences) -> list[list[int]]:
    return [row.tolist() for row in seqs]


# Sequences


@quick
@given(playlists)
def test_lists_come_back_as_they_went_in(rows):
    seqs = Sequences.from_lists(rows)
    assert lists(seqs) == rows
    assert len(seqs) == len(rows)
    assert seqs.lengths.tolist() == [len(row) for row in rows]
    assert seqs.owner.tolist() == [u for u, row in enumerate(rows) for _ in row]
    assert seqs.items.dtype == np.int32 and seqs.offsets.dtype == np.int64


@quick
@given(playlists, st.integers(0, 9), st.data())
def test_take_last_first_keep_are_what_lists_would_give(rows, n, data):
    seqs = Sequences.from_lists(rows)
    before = lists(seqs)
    indices = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=12)) if rows else []
    assert lists(seqs.take(indices)) == [rows[i] for i in indices]
    chosen = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))), dtype=bool)
    assert lists(seqs.take(chosen)) == [row for row, yes in zip(rows, chosen, strict=True) if yes]
    assert lists(seqs.last(n)) == [row[len(row) - min(n, len(row)) :] for row in rows]
    assert lists(seqs.first(n)) == [row[:n] for row in rows]
    assert lists(seqs.keep(seqs.items <= n)) == [[x for x in row if x <= n] for row in rows]
    assert lists(seqs) == before


def test_last_keeps_the_newest_not_the_oldest():
    assert lists(Sequences.from_lists([[1, 2, 3, 4]]).last(2)) == [[3, 4]]


def test_indexing_ends_at_the_last_playlist():
    seqs = Sequences.from_lists([[1], [2, 3]])
    assert seqs[-1].tolist() == [2, 3]
    assert np.shares_memory(seqs[1], seqs.items)
    for beyond in (2, -3):
        with pytest.raises(IndexError):
            seqs[beyond]
    for beyond in ([2], [-1], [True]):
        with pytest.raises(IndexError):
            seqs.take(beyond)


@pytest.mark.parametrize(
    ("items", "offsets"),
    [
        ([1, 2], [0, 1]),  # a row that belongs to nobody
        ([1, 2], [0, 3]),
        ([1, 2], [1, 2]),
        ([1, 2], [0, 2, 1, 2]),
        ([1, 2], []),
        ([0, 2], [0, 2]),  # padding inside a playlist
        ([-1, 2], [0, 2]),
        ([1.0, 2.0], [0, 2]),
        ([[1, 2]], [0, 2]),
    ],
)
def test_arrays_that_do_not_fit_are_refused(items, offsets):
    with pytest.raises(ValueError):
        Sequences(np.array(items), np.array(offsets, dtype=np.int64))


def test_ids_that_four_bytes_cannot_hold_are_refused():
    largest = 2**31 - 1
    assert Sequences.from_lists([[largest]])[0].tolist() == [largest]
    for too_large in (2**31, 2**32 + 5, 2**62):  # the second would have become track 5
        with pytest.raises(ValueError, match=f"{too_large}"):
            Sequences.from_lists([[1, too_large]])


def test_a_negative_number_of_tracks_is_refused():
    seqs = Sequences.from_lists([[1, 2, 3], [4]])
    for part in (seqs.last, seqs.first):
        with pytest.raises(ValueError, match="-1"):
            part(-1)


def test_a_row_costs_four_bytes():
    seqs = Sequences(np.ones(100_000, np.int64), np.arange(0, 100_001, 100))
    assert seqs.items.nbytes + seqs.offsets.nbytes < 4.1 * 100_000


# Prepared directory


def prepared(folder, tracks, lengths):
    rows = pa.table({"user_id": np.zeros(len(tracks), np.int64), "track_id": np.array(tracks, np.int32)})
    pq.write_table(rows, folder / "interactions.parquet", row_group_size=2)
    pq.write_table(
        pa.table({"user_id": np.arange(len(lengths)), "length": np.array(lengths, np.int32)}),
        folder / "playlists.parquet",
    )
    return folder


def test_prepared_playlists_keep_their_order_and_their_empty_ones(tmp_path):
    seqs = load_sequences(prepared(tmp_path, [5, 3, 9, 5, 1], [0, 2, 0, 3, 0]))
    assert lists(seqs) == [[], [5, 3], [], [9, 5, 1], []]


def test_a_directory_that_is_not_prepared_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"interactions\.parquet"):
        load_sequences(tmp_path)
    prepared(tmp_path, [5, 3, 9], [2])
    with pytest.raises(ValueError, match=r"counts 2 tracks .* holds 3"):
        load_sequences(tmp_path)


# Vocabulary


@quick
@given(playlists.filter(lambda rows: any(rows)), st.integers(1, 3))
def test_vocabulary_is_a_bijection_with_known_tracks_first(rows, min_count):
    train = Sequences.from_lists(rows)
    plays = np.bincount(train.items, minlength=16)
    if plays.max() < min_count:
        with pytest.raises(ValueError, match="no track has"):
            Vocabulary.fit(train, 15, min_count)
        return
    vocabulary = Vocabulary.fit(train, 15, min_count)
    everything = np.arange(16)
    assert sorted(vocabulary.encode(everything)) == everything.tolist()
    assert vocabulary.encode(everything)[0] == 0
    assert (vocabulary.decode(vocabulary.encode(everything)) == everything).all()
    known = vocabulary.encode(everything) <= vocabulary.n_items
    assert (known[1:] == (plays[1:] >= min_count)).all()
    in_order = vocabulary.to_catalogue[1 : vocabulary.n_items + 1]
    assert (np.diff(plays[in_order]) <= 0).all()  # popular first
    encoded = vocabulary.encode(train)
    assert encoded.offsets is train.offsets
    assert lists(vocabulary.decode(encoded)) == rows


def test_equal_plays_are_not_parted_by_catalogue_id():
    """Catalogue ids follow the plays in all playlists, test ones too: a tie broken by them would tell the future."""
    once = Sequences.from_lists([list(range(1, 1001))])
    vocabulary = Vocabulary.fit(once, 2000)
    for part in (slice(1, 1001), slice(1001, None)):  # known and unknown ones
        order = vocabulary.to_catalogue[part]
        assert abs(np.corrcoef(order, np.arange(len(order)))[0, 1]) < 0.1  # three standard errors
    assert np.array_equal(vocabulary.to_catalogue, Vocabulary.fit(once, 2000).to_catalogue)


def test_one_play_makes_a_track_known_unless_more_are_asked_for():
    train = Sequences.from_lists([[1, 2], [2]])
    assert Vocabulary.fit(train, 3).n_items == 2
    assert Vocabulary.fit(train, 3, min_count=2).n_items == 1


def test_only_the_playlists_given_count():
    everything = Sequences.from_lists([[1, 2], [1, 2], [3, 3, 3, 3]])
    vocabulary = Vocabulary.fit(everything.take([0, 1]), 4)
    assert vocabulary.n_items == 2
    assert vocabulary.encode(np.array([3]))[0] > 2  # in the test playlist only: never seen in training


def test_ids_outside_the_catalogue_are_refused():
    vocabulary = Vocabulary.fit(Sequences.from_lists([[1, 2]]), 3)
    for ids in ([4], [-1]):
        with pytest.raises(ValueError, match="catalogue of 3"):
            vocabulary.encode(np.array(ids))
    with pytest.raises(ValueError, match="outside a catalogue of 1"):
        Vocabulary.fit(Sequences.from_lists([[1, 2]]), 1)
    with pytest.raises(ValueError, match="min_count"):
        Vocabulary.fit(Sequences.from_lists([[1, 2]]), 3, min_count=0)
    for table in ([0, 1, 1], [1, 0, 2], [0, 1, 3], [0, -1, 2]):
        with pytest.raises(ValueError, match="every id"):
            Vocabulary(np.array(table), 1)
    with pytest.raises(ValueError, match="vocabulary of 3"):
        Vocabulary(np.arange(3), 3)


def test_ids_and_splits_are_the_same_in_every_process():
    code = (
        "import numpy as np, zlib; from sasrec_utils.sequences import *;"
        "s = Sequences(np.random.default_rng(1).integers(1, 50, 500), np.arange(0, 501, 5));"
        "v = Vocabulary.fit(s, 60); p = split_playlists(100, 7);"
        "print(zlib.crc32(v.to_catalogue.tobytes()), zlib.crc32(np.concatenate(p).tobytes()))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "1")
    }
    assert len(outputs) == 1 and outputs.pop().strip()


# Splits


@quick
@given(st.integers(6, 300), st.integers(0, 5), st.floats(0, 0.4), st.floats(0, 0.4))
def test_a_split_deals_every_playlist_once(n, seed, valid, test):
    split = split_playlists(n, seed, valid, test)
    assert np.array_equal(np.sort(np.concatenate(split)), np.arange(n))
    assert len(split.valid) == round(n * valid) and len(split.test) == round(n * test)
    assert all((np.diff(part) > 0).all() for part in split)
    again = split_playlists(n, seed, valid, test)
    assert all(np.array_equal(a, b) for a, b in zip(split, again, strict=True))


def test_a_split_is_random_and_its_test_part_stays():
    split = split_playlists(1000, 0, valid=100, test=200)
    assert [len(part) for part in split] == [700, 100, 200]
    other = split_playlists(1000, 1, valid=100, test=200)
    assert 20 < len(np.intersect1d(split.test, other.test)) < 60  # 40 expected of two independent draws
    resized = split_playlists(1000, 0, valid=300, test=200)
    assert np.array_equal(split.test, resized.test)


@pytest.mark.parametrize(("valid", "test"), [(0.5, 0.5), (60, 40), (-1, 10), (0.1, -0.1), (1.5, 1)])
def test_impossible_splits_are_refused(valid, test):
    with pytest.raises(ValueError):
        split_playlists(100, 0, valid, test)


@pytest.mark.parametrize("all_of_it", [1.0, 2.0, np.float32(1), float("nan")])
def test_a_share_of_one_is_not_one_playlist(all_of_it):
    with pytest.raises(ValueError, match="share below 1"):
        split_playlists(100, valid=all_of_it)
    with pytest.raises(ValueError, match="share below 1"):
        split_playlists(100, test=all_of_it)
    assert len(split_playlists(100, valid=np.int64(1)).valid) == 1


@quick
@given(playlists)
def test_leave_last_out_keeps_every_playlist_in_its_place(rows):
    seqs = Sequences.from_lists(rows)
    histories, targets = leave_last_out(seqs)
    assert lists(histories) == [row[:-1] for row in rows]
    assert targets.tolist() == [row[-1] if row else 0 for row in rows]
    assert targets.dtype == np.int32


def test_twice_is_the_leave_one_out_of_the_paper():
    histories, test = leave_last_out(Sequences.from_lists([[1, 2, 3, 4], [5, 6, 7]]))
    train, valid = leave_last_out(histories)
    assert (test.tolist(), valid.tolist(), lists(train)) == ([4, 7], [3, 6], [[1, 2], [5]])


@quick
@given(playlists, st.integers(0, 8), st.one_of(st.none(), st.integers(0, 3)))
def test_continuation_split_cuts_every_playlist_in_two(rows, n_seeds, random_seed):
    seeds, held_out = continuation_split(Sequences.from_lists(rows), n_seeds, random_seed)
    assert len(seeds) == len(held_out) == len(rows)
    for row, seed, rest in zip(rows, seeds, held_out, strict=True):
        assert len(seed) == min(n_seeds, len(row))
        assert sorted([*seed, *rest]) == sorted(row)
        if random_seed is None:
            assert [*seed, *rest] == row


def test_random_seeds_are_random_places_in_playlist_order():
    rows = [list(range(1, 21))] * 2000
    seeds, held_out = continuation_split(Sequences.from_lists(rows), 5, random_seed=0)
    assert all((np.diff(row) > 0).all() for row in (*seeds, *held_out))
    share = np.bincount(seeds.items, minlength=21)[1:] / 2000
    assert abs(share - 0.25).max() < 0.05  # every place alike; 5 standard errors
