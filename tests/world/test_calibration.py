"""The `mpd-like` world looks like the Million Playlist Dataset, and is as hard to predict."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from sasrec_utils.mpd import Catalogue, prepare
from sasrec_utils.sequences import Sequences
from sasrec_utils.world import MPD_LIKE, World, write_slices


@pytest.fixture(scope="module")
def calibration():
    path = Path(__file__).parents[2] / "benchmarks" / "calibration.py"
    spec = importlib.util.spec_from_file_location("calibration", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def world() -> World:
    return World(MPD_LIKE)


def test_mpd_like_has_the_statistics_of_one_slice_of_the_mpd(calibration, world, tmp_path):
    assert 2_000_000 < world.n_tracks < 2_500_000
    assert abs(len(world.artist_size) / 300_000 - 1) < 0.1 and abs(len(world.album_size) / 735_000 - 1) < 0.1
    (path,) = write_slices(world, tmp_path / "raw", 1000)
    assert 440 < path.stat().st_size / path.read_text().count('"pos"') < 520  # bytes a row, indented as in the MPD
    folder = prepare(tmp_path / "raw", tmp_path, progress=False)
    assert 1 <= Catalogue.load(folder).tracks["duration_ms"].isna().sum() <= 20  # -1 in one of 5,000 of 34,000 tracks
    table = calibration.calibration_table(folder)
    one_slice = [name for name in calibration.TARGETS if not re.search(r"after \d+ slices", name)]
    assert list(table.index) == one_slice
    assert table.loc[(table["ratio"] - 1).abs() > 0.1].empty, table
    uris = world.uris("track", np.arange(0, world.n_tracks, 4))
    assert len(set(uris)) == len(uris)


def test_mpd_like_is_as_hard_to_predict_as_real_playlists(calibration, world):
    drawn = world.playlists(calibration.PLAYLISTS)
    table = calibration.predictability_table(calibration.predictability(drawn.tracks, drawn.offsets))
    rows = [f"{name}, Recall@10" for name in ("Markov, last track", "item-kNN", "item-kNN + Markov")]
    rows.append("split by playlist, last tracks unknown")
    assert (table.loc[rows, "ratio"] - 1).abs().max() < 0.25, table


def test_the_core_keeps_what_holds_five_times(calibration):
    """Track 9 is in four playlists; without it playlist 5 is too short, so track 8 is in four, and so on."""
    lists = [[1, 2, 3, 4, 5, 6, 8]] * 4 + [[1, 2, 3, 4, 5, 6, 1], [1, 2, 3, 8, 9]] + [[9, 7]] * 3
    core = calibration._core(Sequences.from_lists(lists))
    assert core.lengths.tolist() == [6] * 4 + [7]
    assert len(np.unique(core.items)) == core.items.max() == 6
    assert core[4][0] == core[4][-1] and len(set(core[4].tolist())) == 6
