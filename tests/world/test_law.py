"""The law of the made-up world: its tables, its dials, and the rules that every drawn playlist keeps."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import ALARM, TINY, everything, sequences
from scipy import stats

from sasrec_utils.world import (
    ALBUM,
    ARTIST,
    CALLBACK,
    REPEAT,
    TEACHING,
    World,
    WorldConfig,
    dials,
    first_seen,
    release_split,
)


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


NOT_NUMBERS = ("4", None, math.nan, math.inf, -math.inf, [1], True)
IMPOSSIBLE = {
    **{dial: (*NOT_NUMBERS, 0.5, low - 1, high + 1) for dial, (low, high) in dials._WHOLE.items()},
    **{dial: (*NOT_NUMBERS, low - 0.001, high + 0.001) for dial, (low, high) in dials._REAL.items()},
    "staying_zipf": ("flat", math.nan, math.inf, True, -10.1, 10.1),
    "name": (None, 3),
    "indent": (None, "yes", 2),
    "style_shares": ((), (1.0,), (0.5, 0.5, 0.5, 0.5), (1.5, -0.5, 0, 0), (math.nan, 0, 0, 1)),
    "repeat_rates": ((0.1,), (0.1, 1.1), (-0.1, 0), (0, math.nan)),
    "callback_lags": ((1, 2), (1, 2, 0, 4), (1, 2, 2.5, 4)),
    "style_mechanisms": (((0.5, 0.5, 0, 0, 0, 0.1),) * 4, ((1.0,),) * 4, ((1.0, 0, 0, 0, 0, 0),) * 3),
}


@pytest.mark.parametrize("dial", [field.name for field in fields(WorldConfig)])
def test_a_dial_that_cannot_be_is_refused_in_one_sentence_that_names_it(dial):
    for value in IMPOSSIBLE[dial]:
        with pytest.raises(ValueError) as caught:
            replace(TINY, **{dial: value})
        said = str(caught.value)
        assert dial in said and "\n" not in said and 20 < len(said) < 160, (value, said)


@pytest.mark.parametrize("changed, words", [
    ({"tracks": 30}, "four times"),
    ({"cold_share": 0.8}, "four times"),
    ({"genres": 17}, "artists: 16 cannot fill"),
    ({"neighbours": 16}, "neighbours"),
    ({"length_min": 15}, "length_min is 15"),
])  # fmt: skip
def test_dials_that_do_not_go_together_are_refused(changed, words):
    with pytest.raises(ValueError, match=words):
        World(replace(TINY, **changed))


@settings(max_examples=25, deadline=None, database=None, derandomize=True)
@given(st.fixed_dictionaries({
    "seed": st.integers(0, 2**63 - 1), "tracks": st.integers(90, 200), "artists": st.integers(6, 30),
    "genres": st.integers(1, 6), "moods": st.integers(1, 8), "neighbours": st.integers(1, 5),
    "artist_zipf": st.floats(0, 3), "artist_shift": st.floats(0.01, 20), "track_zipf": st.floats(0, 3),
    "staying_zipf": st.none() | st.floats(-2, 3), "size_spread": st.floats(0, 1.5), "size_by_fame": st.floats(0, 1),
    "album_tracks": st.floats(1, 20), "album_order": st.floats(0, 1), "two_uri_share": st.floats(0, 1),
    "genre_floor": st.floats(0.05, 1), "length_mu": st.floats(-10, 20), "length_sigma": st.floats(0.01, 100),
    "careless_share": st.floats(0, 1), "cold_share": st.floats(0, 0.3), "release": st.integers(0, 20),
}))  # fmt: skip
def test_every_dial_within_its_range_makes_playlists_that_the_oracle_understands(changed):
    world = World(replace(TINY, **changed))
    drawn = world.playlists(20)
    for playlists, released in (
        (np.flatnonzero(drawn.pids < world.config.release), False),
        (np.flatnonzero(drawn.pids >= world.config.release), True),
    ):
        some, oracle = sequences(drawn).take(playlists), everything(world, released)
        assert np.abs(oracle.score(some).sum(1, dtype=np.float64) - 1).max(initial=0) < 1e-5
        assert np.isfinite(oracle.log_likelihood(some)).all()


# --- tracks that come out late ----------------------------------------------------------------------------------------


def test_cold_tracks_are_in_no_playlist_before_the_release():
    world = World(replace(TINY, cold_share=0.12, release=1200))
    assert world.cold.sum() == round(0.12 * world.n_tracks)
    drawn = world.playlists(3000)
    owner = np.repeat(drawn.pids, np.diff(drawn.offsets))
    cold = world.cold[drawn.tracks]
    assert not cold[owner < 1200].any()
    assert len(np.unique(drawn.tracks[cold])) == world.cold.sum() and cold[owner >= 1200].mean() > 0.04
    train, valid, test = release_split(world, drawn.pids)
    assert np.array_equal(np.sort(np.concatenate([train, valid, test])), np.arange(3000))
    assert np.array_equal(train, np.arange(1200)) and len(valid) == len(test) == 900
    again = release_split(world, drawn.pids)
    assert np.array_equal(again[1], valid) and not np.array_equal(release_split(world, drawn.pids, seed=1)[1], valid)
    shuffled = release_split(world, drawn.pids[::-1])  # by pid, not by place
    assert (drawn.pids[::-1][shuffled[0]] < 1200).all()


def test_a_split_needs_playlists_on_both_sides_of_the_release():
    world = World(replace(TINY, cold_share=0.12, release=1200))
    for n in (1200, 1201):
        with pytest.raises(ValueError, match="release"):
            release_split(world, np.arange(n))
    with pytest.raises(ValueError, match="release"):
        release_split(world, np.arange(1200, 1400))


def test_without_cold_tracks_the_release_changes_nothing(tiny):
    other = World(replace(TINY, release=0))
    assert not tiny.cold.any()
    assert np.array_equal(tiny.playlists(1200).tracks, other.playlists(1200).tracks)
