"""A made-up world of playlists whose best possible prediction is known.

The Million Playlist Dataset can no longer be downloaded and may never be passed on, so the default data of this
project is generated. Because the law that made the playlists is known, so is the best prediction. Read in this order:

    dials     what can be turned, and the two presets
    names     what tracks, artists and playlists are called (the words are in words.toml)
    law       how a playlist is drawn
    oracle    p(next track | history), exactly
    audio     genre and sound of the tracks
    writing   slices in the MPD's format

Taught in notebooks 01 (the data) and 06 (the oracle as a yardstick).
"""

from sasrec_utils.world.audio import AUDIO, features
from sasrec_utils.world.dials import (
    ALBUM,
    ARTIST,
    CALLBACK,
    FEATURES,
    MECHANISMS,
    MOOD,
    MPD_LIKE,
    NEIGHBOUR,
    NOISE,
    PRESETS,
    REPEAT,
    SIDECAR,
    SLICE,
    STYLES,
    TEACHING,
    WorldConfig,
)
from sasrec_utils.world.law import Playlists, World, first_seen, release_split
from sasrec_utils.world.names import TITLE_WORDS, title_words
from sasrec_utils.world.oracle import Oracle
from sasrec_utils.world.writing import load_world, sample, slice_json, write_slices

__all__ = [
    "ALBUM",
    "ARTIST",
    "AUDIO",
    "CALLBACK",
    "FEATURES",
    "MECHANISMS",
    "MOOD",
    "MPD_LIKE",
    "NEIGHBOUR",
    "NOISE",
    "PRESETS",
    "REPEAT",
    "SIDECAR",
    "SLICE",
    "STYLES",
    "TEACHING",
    "TITLE_WORDS",
    "Oracle",
    "Playlists",
    "World",
    "WorldConfig",
    "features",
    "first_seen",
    "load_world",
    "release_split",
    "sample",
    "slice_json",
    "title_words",
    "write_slices",
]
