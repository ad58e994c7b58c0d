"""Genre and sound of the made-up tracks: true units and ranges, told by the genre, the same in every process."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sasrec_utils.mpd import slice_files
from sasrec_utils.world import AUDIO, FEATURES, MPD_LIKE, TEACHING, World, features, write_slices, writing
from sasrec_utils.world.audio import MISSING, SOUND, sound

SMALL = replace(MPD_LIKE, name="small", tracks=20_000, artists=2_000, moods=6, length_max=60, indent=False)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    world = World(SMALL)
    return features(world, np.arange(world.n_tracks))


def test_columns_units_and_ranges(table):
    assert list(table) == ["track_uri", "genre", *AUDIO]
    assert table["track_uri"].is_unique and set(table["genre"]) == set(SOUND)
    for name in AUDIO[:6]:
        assert table[name].min() >= 0 and table[name].max() <= 1
    assert table["tempo"].between(40, 260).sum() == table["tempo"].notna().sum()
    assert table["loudness"].min() >= -60 and table["loudness"].max() <= 0


def test_two_percent_of_the_tracks_have_a_genre_and_nothing_else(table):
    missing = table[list(AUDIO)].isna()
    assert (missing.any(axis=1) == missing.all(axis=1)).all() and table["genre"].notna().all()
    assert stats.binomtest(int(missing.all(axis=1).sum()), len(table), MISSING).pvalue > 1e-6


def test_a_genre_has_its_sound(table):
    middle = table.groupby("genre")[list(AUDIO)].median()
    for genre, values in SOUND.items():
        for name, value in zip(AUDIO, values, strict=True):
            near = {"tempo": 8, "loudness": 1}.get(name, 0.08)
            assert abs(middle.loc[genre, name] - value) < near, (genre, name)
    assert middle.loc["chamber folk", "acousticness"] > 0.7 > 0.1 > middle.loc["metal", "acousticness"]
    assert middle.loc["hip-hop", "speechiness"] == middle["speechiness"].max()
    assert middle["energy"].corr(middle["loudness"]) > 0.8


def test_genre_artist_and_track_each_explain_a_part():
    world = World(SMALL)
    values = pd.DataFrame(sound(world, np.arange(world.n_tracks)), columns=list(AUDIO))
    for name in AUDIO:
        known = values[name].notna() & (world.twin == np.arange(world.n_tracks))
        x, artist = values.loc[known, name], world.artist[known]
        by_genre = x.groupby(world.genre_of[artist]).transform("mean").var() / x.var()
        by_artist = x.groupby(artist).transform("mean").var() / x.var()
        assert 0.3 < by_genre < by_artist < 0.99, (name, by_genre, by_artist)


def test_a_song_sounds_the_same_under_both_its_uris():
    world = World(TEACHING)
    again = np.flatnonzero(world.twin != np.arange(world.n_tracks))
    assert len(again) and np.array_equal(sound(world, again), sound(world, world.twin[again]), equal_nan=True)


def test_the_file_lies_beside_the_slices_and_holds_their_tracks(tmp_path):
    world = World(SMALL)
    paths = write_slices(world, tmp_path / "a", 1200)
    assert [p.name for p in slice_files(tmp_path / "a")] == [p.name for p in paths]  # a reader of slices sees no more
    read = pd.read_csv(tmp_path / "a" / FEATURES)
    heard = np.unique(world.playlists(1200).tracks)
    assert len(heard) < world.n_tracks and read["track_uri"].tolist() == world.uris("track", heard)
    pd.testing.assert_frame_equal(read, features(world, heard))
    write_slices(world, tmp_path / "b", 1200)
    digests = {hashlib.sha256((tmp_path / d / FEATURES).read_bytes()).hexdigest() for d in "ab"}
    assert len(digests) == 1


def test_a_failed_write_of_the_features_leaves_nothing(tmp_path, monkeypatch):
    def write_features(world, tracks, path):
        path.write_text("track_uri,gen")
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "write_features", write_features)
    with pytest.raises(KeyboardInterrupt):
        write_slices(World(SMALL), tmp_path, 10)
    assert list(tmp_path.iterdir()) == []
