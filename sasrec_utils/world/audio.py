"""What the made-up world's tracks sound like: a genre and eight audio features by the names that people know.

The features are drawn from the genre (`SOUND`), the artist and the track, each with its own noise, and have the units
and ranges of the features that Spotify once published: seven from 0 to 1, tempo in beats per minute, loudness in
decibels (0 is the loudest). They tell of a track nothing that its id does not, so the oracle needs no change for them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import expit, logit, ndtri

from sasrec_utils.world.names import genre_base, mixed

if TYPE_CHECKING:
    from sasrec_utils.world.law import World

SHARES = ("danceability", "energy", "valence", "acousticness", "instrumentalness", "speechiness")  # each from 0 to 1
AUDIO = (*SHARES, "tempo", "loudness")
MISSING = 0.02  # share of tracks of which nothing but the genre is known
_CHUNK = 100_000  # tracks that are written at once

# The middle track of each genre. The order is that of AUDIO.
SOUND = {
    #                    dance energy valence acoust instr speech tempo loudness
    "dream pop":         (.46,  .42,  .34,  .38,  .32,  .04, 108,  -9.6),
    "desert rock":       (.47,  .76,  .48,  .06,  .14,  .05, 124,  -6.8),
    "deep house":        (.79,  .64,  .50,  .06,  .62,  .06, 122,  -8.8),
    "chamber folk":      (.43,  .24,  .34,  .84,  .16,  .04, 104, -13.2),
    "hip-hop":           (.77,  .66,  .52,  .15,  .01,  .25,  94,  -6.6),
    "jazz":              (.51,  .28,  .47,  .80,  .52,  .05, 112, -14.6),
    "synth-pop":         (.66,  .74,  .66,  .07,  .06,  .05, 119,  -6.9),
    "metal":             (.36,  .93,  .27,  .01,  .24,  .10, 134,  -5.0),
    "indie rock":        (.53,  .68,  .55,  .13,  .05,  .04, 125,  -6.9),
    "country":           (.58,  .60,  .58,  .32,  .01,  .04, 120,  -7.4),
    "soul":              (.60,  .50,  .67,  .45,  .02,  .05, 106,  -9.9),
    "R&B":               (.66,  .50,  .44,  .28,  .01,  .10,  98,  -7.6),
    "punk":              (.42,  .92,  .56,  .01,  .02,  .08, 158,  -4.8),
    "reggae":            (.75,  .55,  .76,  .18,  .03,  .11,  90,  -8.2),
    "ambient":           (.24,  .13,  .11,  .82,  .88,  .04,  90, -21.5),
    "classical":         (.29,  .14,  .22,  .95,  .85,  .04, 100, -20.5),
    "techno":            (.72,  .80,  .27,  .03,  .82,  .06, 131,  -8.4),
    "blues":             (.53,  .48,  .60,  .56,  .06,  .05, 108, -10.2),
    "bossa nova":        (.63,  .32,  .60,  .79,  .14,  .05, 118, -13.0),
    "lo-fi":             (.66,  .30,  .38,  .62,  .80,  .07,  82, -12.8),
    "disco":             (.75,  .75,  .82,  .12,  .05,  .05, 117,  -7.6),
    "surf rock":         (.51,  .79,  .76,  .10,  .46,  .04, 142,  -7.2),
    "post-rock":         (.29,  .48,  .17,  .22,  .84,  .04, 117, -10.8),
    "singer-songwriter": (.52,  .33,  .37,  .74,  .02,  .04, 110, -10.6),
}  # fmt: skip


def sound(world: World, tracks: np.ndarray) -> np.ndarray:
    """Audio features of tracks (world ids) [n], float64 [n, 8] in the order of `AUDIO`; a row of NaN is missing.

    A song sounds the same under both its URIs. Each feature moves away from its genre's value by the artist's and the
    track's own taste: on the log-odds scale for shares (standard deviations 0.4 and 0.5), by a factor for the tempo
    (0.08 and 0.12), in decibels for the loudness (1 and 1.5, and 4 for what the energy is off).
    """
    seed, songs = world.config.seed, world.twin[np.asarray(tracks)]
    artist = world.artist[songs]
    middle = np.array([SOUND[genre_base(name)] for name in world.genre_names])[world.genre_of[artist]]
    by_artist = np.stack([_normal(seed, 40 + j, artist) for j in range(len(AUDIO))], 1)
    by_track = np.stack([_normal(seed, 60 + j, songs) for j in range(len(AUDIO))], 1)
    out = np.empty(middle.shape)
    out[:, :6] = expit(logit(middle[:, :6]) + 0.4 * by_artist[:, :6] + 0.5 * by_track[:, :6])
    out[:, 6] = middle[:, 6] * np.exp(0.08 * by_artist[:, 6] + 0.12 * by_track[:, 6])
    energy = out[:, SHARES.index("energy")] - middle[:, SHARES.index("energy")]
    out[:, 7] = np.clip(middle[:, 7] + by_artist[:, 7] + 1.5 * by_track[:, 7] + 4 * energy, -60, 0)
    out[_uniform(seed, 80, songs) < MISSING] = np.nan
    return out


def features(world: World, tracks: np.ndarray) -> pd.DataFrame:
    """What is known of tracks (world ids) beyond their names: track_uri, genre, and the columns of `AUDIO`."""
    tracks = np.asarray(tracks)
    genre = np.array(world.genre_names)[world.genre_of[world.artist[tracks]]]
    table = pd.DataFrame({"track_uri": world.uris("track", tracks), "genre": genre})
    return table.join(pd.DataFrame(sound(world, tracks).round(3), columns=list(AUDIO)))


def write_features(world: World, tracks: np.ndarray, path: str | os.PathLike) -> None:
    """Write `features` of these tracks to a CSV file; an empty cell is missing. Memory does not grow with tracks."""
    with Path(path).open("w", encoding="utf-8", newline="\n") as file:
        for i in range(0, max(1, len(tracks)), _CHUNK):
            features(world, tracks[i : i + _CHUNK]).to_csv(file, index=False, header=i == 0, lineterminator="\n")


def _uniform(seed: int, salt: int, ids: np.ndarray) -> np.ndarray:
    """One number in (0, 1) for each id."""
    return ((mixed(seed, salt, ids) >> np.uint64(11)) + 0.5) / 2.0**53


def _normal(seed: int, salt: int, ids: np.ndarray) -> np.ndarray:
    return ndtri(_uniform(seed, salt, ids))
