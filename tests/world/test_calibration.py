"""The `mpd-like` world looks like the Million Playlist Dataset, and is as hard to predict."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np

from sasrec_utils.mpd import Catalogue, prepare
from sasrec_utils.world import MPD_LIKE, World, write_slices


def test_mpd_like_has_the_statistics_of_one_slice_of_the_mpd(tmp_path):
    path = Path(__file__).parents[2] / "benchmarks" / "calibration.py"
    spec = importlib.util.spec_from_file_location("calibration", path)
    calibration = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(calibration)
    world = World(MPD_LIKE)
    assert 2_000_000 < world.n_tracks < 2_500_000
    assert abs(len(world.artist_size) - 300_000) < 10_000 and abs(world.album[-1] + 1 - 735_000) < 40_000
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
