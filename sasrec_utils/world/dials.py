"""The dials of a made-up world, and its two presets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real

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
    (r + track_shift)^-track_zipf. A dial that cannot be raises ValueError, in one sentence that names it.
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

    def __post_init__(self) -> None:
        for dial, (low, high) in _WHOLE.items():
            value = getattr(self, dial)
            if not isinstance(value, Integral) or isinstance(value, bool) or not low <= value <= high:
                raise ValueError(f"{dial} must be a whole number from {low:,} to {high:,}, got {value!r}")
        for dial, (low, high) in _REAL.items():
            value = getattr(self, dial)
            if dial == "staying_zipf" and value is None:
                continue
            if not _is_number(value) or not low <= value <= high:
                raise ValueError(f"{dial} must be a number from {low:g} to {high:g}, got {value!r}")
        if not isinstance(self.name, str) or not isinstance(self.indent, bool):
            raise ValueError(f"name must be text and indent True or False, got {self.name!r} and {self.indent!r}")
        if self.artists < self.genres:
            raise ValueError(
                f"artists: {self.artists} cannot fill {self.genres} genres, every genre needs at least one"
            )
        if self.neighbours >= self.artists:
            raise ValueError(f"neighbours: an artist has at most {self.artists - 1} of them, got {self.neighbours}")
        if self.length_min > self.length_max:
            raise ValueError(f"length_min is {self.length_min}, above length_max, which is {self.length_max}")
        _check_probabilities("style_shares", self.style_shares, len(STYLES), total=True)
        _check_probabilities("repeat_rates", self.repeat_rates, 2, total=False)
        lags = self.callback_lags
        if len(lags) != len(STYLES) or not all(isinstance(lag, Integral) and 1 <= lag <= 1000 for lag in lags):
            raise ValueError(f"callback_lags must be {len(STYLES)} whole numbers from 1 to 1,000, got {lags}")
        if len(self.style_mechanisms) != len(STYLES):
            rows = len(self.style_mechanisms)
            raise ValueError(f"style_mechanisms must be {len(STYLES)} rows of {len(MECHANISMS)}, got {rows} rows")
        for row in self.style_mechanisms:
            _check_probabilities("style_mechanisms", row, len(MECHANISMS), total=True)


# What each dial may be, ends included. Not 0 where a division or an endless search would follow.
_WHOLE = {
    "seed": (0, 2**63 - 1),
    "playlists": (1, 2**31 - 1),
    "tracks": (1, 2**31 - 1),
    "artists": (2, 2**31 - 1),
    "genres": (1, 10_000),
    "moods": (1, 100_000),
    "neighbours": (1, 1_000),
    "length_min": (1, 100_000),
    "length_max": (1, 100_000),
    "release": (0, 2**31 - 1),
}
_REAL = {
    "artist_zipf": (0, 10),
    "artist_shift": (0.01, 1e6),
    "track_zipf": (0, 10),
    "track_shift": (0.01, 1e6),
    "staying_zipf": (-10, 10),
    "size_spread": (0, 5),
    "size_by_fame": (0, 2),
    "album_tracks": (1, 1e6),
    "album_order": (0, 1),
    "two_uri_share": (0, 1),
    "genre_floor": (0.001, 1),
    "length_mu": (-10, 20),
    "length_sigma": (0.01, 100),
    "careless_share": (0, 1),
    "cold_share": (0, 0.9),
}


def _is_number(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _check_probabilities(dial: str, values, n: int, total: bool) -> None:
    """Raise ValueError unless these are `n` probabilities; with `total`, ones that sum to 1."""
    if len(values) != n or not all(_is_number(value) and 0 <= value <= 1 for value in values):
        raise ValueError(f"{dial} needs {n} probabilities from 0 to 1, got {tuple(values)}")
    if total and not math.isclose(sum(values), 1, abs_tol=1e-6):
        raise ValueError(f"{dial} must sum to 1, {tuple(values)} sum to {sum(values):g}")


TEACHING = WorldConfig("teaching")
MPD_LIKE = WorldConfig(  # dials turned until `benchmarks/calibration.py` printed the MPD's figures, in both its tables
    "mpd-like", tracks=2_300_000, artists=300_000, genres=24, moods=240, neighbours=5, artist_zipf=1.56,
    artist_shift=5.1, track_zipf=2.6, track_shift=13.0, staying_zipf=-1.3, size_spread=1.5, size_by_fame=0.33,
    album_tracks=5.6, album_order=0.15, genre_floor=0.6, length_mu=3.96, length_sigma=1.01, length_min=5,
    length_max=250, careless_share=0.405, repeat_rates=(0.0, 0.0322), indent=True, style_shares=(0.4, 0.2, 0.2, 0.2),
    callback_lags=(2, 2, 2, 4),
    style_mechanisms=(
        (0.055, 0.110, 0.050, 0.050, 0.711, 0.024),
        (0.430, 0.190, 0.040, 0.030, 0.286, 0.024),
        (0.045, 0.085, 0.190, 0.050, 0.606, 0.024),
        (0.045, 0.085, 0.190, 0.050, 0.606, 0.024),
    ),
)  # fmt: skip
PRESETS = {c.name: c for c in (TEACHING, MPD_LIKE)}
