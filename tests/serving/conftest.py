"""Two tiny trained models over the same tracks, and a server in a process of its own that serves the first."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from calling import Client

from sasrec_utils.mpd import prepare
from sasrec_utils.recommender import Recommender, train_recommender
from sasrec_utils.sequences import load_dataset
from sasrec_utils.world import TEACHING, World, write_slices


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> Path:
    """A data directory as `run` leaves it, with the models `default` and `other`, which differ in their seed."""
    root = tmp_path_factory.mktemp("served")
    write_slices(World(TEACHING), root / "raw", 300)
    prepared = prepare(root / "raw", root / "prepared", progress=False)
    data = load_dataset(prepared)
    for name, seed in (("default", 0), ("other", 1)):
        folder = root / "models" / name
        train_recommender(folder, data, prepared.name, "paper", seed=seed, progress=False, epochs=1, accelerator="cpu")
    return root


@pytest.fixture(scope="session")
def recommender(data_dir) -> Recommender:
    """What the server has loaded, in this process."""
    return Recommender.load(data_dir / "models" / "default")


@pytest.fixture(scope="session")
def server(data_dir):
    """A server for all tests that leave it as it is."""
    serving = pytest.importorskip("sasrec_utils.serving", reason="the extra `serve` is not installed")
    with serving.running_server(data_dir) as running:
        yield running


@pytest.fixture
def copy(data_dir, tmp_path) -> Path:
    """A copy of the data directory, to be changed."""
    shutil.copytree(data_dir, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture(scope="session")
def client(server) -> Client:
    return Client(server.url)


@pytest.fixture(scope="session")
def uris(recommender) -> list[str]:
    return recommender.table(np.arange(1, len(recommender) + 1))["track_uri"].tolist()


@pytest.fixture(scope="session")
def asks(uris) -> list[dict]:
    rng = np.random.default_rng(2)
    return [{"tracks": [uris[i] for i in rng.integers(0, len(uris), n % 60)], "k": 1 + n % 25} for n in range(150)]
