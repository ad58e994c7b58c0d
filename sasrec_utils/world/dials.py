"""The dials of a made-up world, and its two presets."""

from __future__ import annotations

from dataclasses import dataclass

MECHANISMS = ("album run", "same artist", "callback", "neighbour artist", "mood", "noise")
STYLES = ("mixtape", "collector", "alternator", "rotation")
ALBUM, ARTIST, CALLBACK, NEIGHBOUR, MOOD, NOISE = range(6)
REPEAT = 6  # not a mechanism of the style: a slip of the hand, see `WorldConfig.repeat_rates`
SIDECAR = "made-up-world.txt"  # lies beside the slices and says which world made them; the slices themselves do not
FEATURES = "features.csv"  # lies beside the slices too: genre and sound of the tracks in them
SLICE = 1000  # playlists in a slice, as in the MPD


@dataclass(frozen=True)
class WorldConfig:
    """The dials of a world. `TEACHING` and `MPD_LIKE` are the two presets; turn one dial with `dataclasses.replace`.

    `style_mechanisms[s][m]` is the probability with which a playlist of style s uses mechanism m (each row sums to
    1); `callback_lags[s]` is how far back its callback looks. Popularity follows Zipf-Mandelbrot laws: the artist of
    rank r within a genre has weight (r + artist_shift)^-artist_zipf, the track of rank r within an artist
    (r + track_shift)^-track_zipf.
    """

    name: str
    seed: int = 2018
    playlists: int = 15_000
    tracks: int = 1_400
    artists: int = 120
    genres: int = 8
    moods: int = 12
    neighbours: int = 5
    artist_zipf: float = 0.8
    artist_shift: float = 2.0
    track_zipf: float = 0.7
    track_shift: float = 1.0
    staying_zipf: float | None = None  # track_zipf of a step that stays with an artist or album; None: the same
    size_spread: float = 0.35  # spread (of the log) of the number of tracks of an artist
    size_by_fame: float = 0.0  # how much more tracks famous artists have: size ∝ weight^this
    album_tracks: float = 9.0  # mean number of tracks on an album
    album_order: float = 1.0  # how often an album run takes the next track; else any track of the album
    two_uri_share: float = 0.01  # share of tracks that are an earlier song of the same artist under a second URI
    genre_floor: float = 0.02  # share of a mood that is spread over all genres
    length_mu: float = 3.6  # playlist lengths: log-normal, what falls outside length_min…length_max is drawn anew
    length_sigma: float = 0.55
    length_min: int = 8
    length_max: int = 100
    style_shares: tuple[float, ...] = (0.3, 0.12, 0.14, 0.44)
    callback_lags: tuple[int, ...] = (2, 2, 2, 4)
    style_mechanisms: tuple[tuple[float, ...], ...] = (
        (0.08, 0.06, 0.06, 0.30, 0.45, 0.05),
        (0.45, 0.20, 0.05, 0.10, 0.15, 0.05),
        (0.04, 0.04, 0.55, 0.12, 0.20, 0.05),
        (0.04, 0.04, 0.50, 0.12, 0.25, 0.05),
    )
    careless_share: float = 0.5  # share of playlists that repeat tracks at the second rate
    repeat_rates: tuple[float, float] = (0.0, 0.026)
    cold_share: float = 0.0  # share of tracks that no playlist before the release has
    release: int = 12_000  # pid of the first playlist that may have them
    indent: bool = False  # True: four blanks a level as in the MPD (about 490 bytes a row instead of 300)


TEACHING = WorldConfig("teaching")
MPD_LIKE = WorldConfig(  # dials turned until `benchmarks/calibration.py` printed the MPD's own statistics
    "mpd-like", tracks=2_300_000, artists=300_000, genres=24, moods=60, neighbours=5, artist_zipf=1.43,
    artist_shift=11.0, track_zipf=1.1, track_shift=1.0, size_spread=0.95, size_by_fame=0.1, album_tracks=4.6,
    genre_floor=0.02, length_mu=3.96, length_sigma=1.01, length_min=5, length_max=250, careless_share=0.43,
    repeat_rates=(0.0, 0.031), indent=True, style_shares=(0.4, 0.2, 0.2, 0.2), callback_lags=(2, 2, 2, 4),
    style_mechanisms=(
        (0.12, 0.16, 0.05, 0.24, 0.41, 0.02),
        (0.28, 0.29, 0.04, 0.10, 0.27, 0.02),
        (0.06, 0.11, 0.27, 0.16, 0.38, 0.02),
        (0.06, 0.11, 0.26, 0.16, 0.39, 0.02),
    ),
)  # fmt: skip
PRESETS = {c.name: c for c in (TEACHING, MPD_LIKE)}
