"""One tiny trained model for all tests of the command line, and copies of it to be spoilt."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest
from command_line import SMALL, sasrec


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """The whole way once: (data directory, outcome)."""
    data = tmp_path_factory.mktemp("data")
    outcome = sasrec("run", "--playlists", 300, *SMALL, "--data-dir", data, "--json")
    assert outcome.code == 0, outcome.err
    return data, outcome


@pytest.fixture
def copy(made, tmp_path):
    """A copy of its data directory, to be spoilt."""
    shutil.copytree(made[0], tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def strange(made, tmp_path):
    """A model whose tracks have the names that people give them: other letters, escapes, nothing."""
    folder = tmp_path / "data" / "models" / "default"
    shutil.copytree(made[0] / "models" / "default", folder)
    tracks = pd.read_parquet(folder / "tracks.parquet")
    names = ["Тихий океан", "\x1b[31mRed\x1b[0m\r\nline", "夜", None]
    tracks["track_name"] = [names[i % 4] for i in range(len(tracks))]
    tracks["album_name"] = None
    tracks.to_parquet(folder / "tracks.parquet")
    return tmp_path / "data", tracks["track_uri"][0]
