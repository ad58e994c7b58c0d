"""Worlds, playlists and slices that the tests of the world share."""

from __future__ import annotations

from pathlib import Path

import pytest
from naive import TINY

from sasrec_utils.world import World, write_slices


@pytest.fixture(scope="session")
def tiny() -> World:
    return World(TINY)


@pytest.fixture(scope="session")
def many(tiny):
    """30,000 whole playlists of the tiny world."""
    return tiny.playlists(30_000)


@pytest.fixture(scope="session")
def raw(tmp_path_factory, tiny) -> Path:
    """Two slices of 1,000 and 500 playlists."""
    folder = tmp_path_factory.mktemp("raw")
    assert [p.name for p in write_slices(tiny, folder)] == ["mpd.slice.0-999.json", "mpd.slice.1000-1999.json"]
    return folder
