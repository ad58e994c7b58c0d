"""What is known of tracks and playlists beside their ids: genre, sound, anything in a table of one's own; titles.

A table of features (CSV or Parquet) has a column `track_uri` and others of two kinds. *Categories*, such as a genre,
get ids. *Numbers*, such as the tempo, are standardised: 0 is the mean of the training tracks, 1 is one standard
deviation more. What is missing is never guessed: a category is 0 then, a number is 0 and its flag is 1. The title of a
playlist becomes ids of its words and of parts of its words. Taught in notebook 08.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sasrec_utils.sequences import MOST_WORDS, Dataset, Sequences

__all__ = [
    "WORDS",
    "TrackFeatures",
    "load_features",
    "load_titles",
    "read_titles",
    "title_parts",
    "track_features",
    "with_titles",
]

WORDS = 1 << 13  # ids for words and parts of words; what is hashed to the same id shares a vector

# What the audio features of Spotify may be; what is outside is in another unit, or not what the column says.
RANGES = {
    **dict.fromkeys(
        ("danceability", "energy", "valence", "acousticness", "instrumentalness", "speechiness", "liveness"), (0, 1)
    ),
    "tempo": (0, 400),
    "loudness": (-60, 10),
}
UNITS = {"tempo": "in beats per minute", "loudness": "in decibels"}
_URI = re.compile(r"(?:spotify:track:|https://open\.spotify\.com/(?:intl-\w+/)?track/)?([0-9A-Za-z]{22})(?:\?.*)?$")
_NAMES = ("track_name", "artist_name", "album_name", "artist_uri", "album_uri")  # known from the playlists themselves
_NOTHING = {"", "na", "n/a", "nan", "null", "none", "-"}
_FAR = 5.0  # standard deviations; a number that is further out counts as this far


@dataclass(frozen=True, eq=False, repr=False)
class TrackFeatures:
    """What is known of N tracks, in the order of their ids; entry 0 of every array is 0, for padding.

    `categories`: int64 [N+1] for each name, 0 = unknown; `labels[name][i - 1]` is what id i is called. `numbers`:
    float32 [N+1, 2F], first the F standardised numbers (0 where missing), then F flags (1 = missing); `columns` names
    the F, `mean` and `spread` are those of the training tracks. `notes`: a sentence on everything that was left out.
    """

    categories: dict[str, np.ndarray]
    numbers: np.ndarray
    labels: dict[str, list[str]] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    mean: np.ndarray = field(default_factory=lambda: np.zeros(0))
    spread: np.ndarray = field(default_factory=lambda: np.ones(0))
    notes: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        kinds = [f"{name} ({len(labels):,})" for name, labels in self.labels.items()] + self.columns
        return f"TrackFeatures({len(self.numbers) - 1:,} tracks: {', '.join(kinds)})"

    @property
    def sizes(self) -> dict[str, int]:
        """How many values each category has."""
        return {name: int(ids.max(initial=0)) for name, ids in self.categories.items()}

    def about(self) -> dict:
        """What a model's `config.json` says of its features: names and scales, no values of tracks."""
        scales = zip(self.columns, self.mean, self.spread, strict=True)
        return {
            "categories": self.labels,
            "numbers": {name: {"mean": float(mean), "spread": float(spread)} for name, mean, spread in scales},
        }

    def only(self, names: Iterable[str]) -> TrackFeatures:
        """The same with these columns only, for an ablation. Raises ValueError for a name that it does not have."""
        names = list(names)
        for name in names:
            if name not in self.categories and name not in self.columns:
                raise ValueError(f"there is no {name} here: {', '.join([*self.categories, *self.columns])}")
        kept = [i for i, name in enumerate(self.columns) if name in names]
        return replace(
            self,
            categories={name: ids for name, ids in self.categories.items() if name in names},
            labels={name: labels for name, labels in self.labels.items() if name in names},
            numbers=self.numbers[:, kept + [len(self.columns) + i for i in kept]],
            columns=[self.columns[i] for i in kept],
            mean=self.mean[kept],
            spread=self.spread[kept],
        )


# --- tracks -----------------------------------------------------------------------------------------------------------


def track_features(path: str | Path, data: Dataset) -> TrackFeatures:
    """The features of all tracks that a model of `data` will have, 1…N; see `load_features`."""
    vocabulary = data.vocabulary
    uris = data.catalogue.tracks["track_uri"].to_numpy()[vocabulary.to_catalogue[1 : vocabulary.n_items + 1] - 1]
    return load_features(path, uris, vocabulary.n_known)


def load_features(path: str | Path, uris: Sequence[str], n_known: int | None = None) -> TrackFeatures:
    """Read a table of features and put it in the order of `uris`, those of tracks 1…N.

    `path`: CSV or Parquet, one row a track, with a column `track_uri` (URI, link or the 22 letters alone). A column of
    nothing but numbers is one of numbers, another is a category. Means and spreads are those of the first `n_known`
    tracks (default: all), which training knows: nothing is learned from the others. Tracks without a row are missing in
    every column. Left out, and said in `notes`: rows of other tracks, a row that stands there twice, a column without
    any value, or with as good as another one for each track. Raises ValueError, in one sentence with file and line, if
    there is nothing to use, for text in a column of numbers, for a number that cannot be (`RANGES`), and for two rows
    that say different things of one track. Taught in notebook 08.
    """
    path, uris = Path(path), list(uris)
    n_known = len(uris) if n_known is None else n_known
    table = _read(path)
    names = [_name(path, column) for column in table.columns]
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise ValueError(f"{path}: two columns are called {twice}; rename one of them.")
    table.columns = names
    if "track_uri" not in names:
        raise ValueError(f"{path}: has no column track_uri, by which its rows are found; it has {', '.join(names)}.")
    notes: list[str] = []
    table = _rows_of(path, table, uris, notes)
    categories, labels, numbers, columns = {}, {}, [], []
    for name in names:
        if name == "track_uri" or name in _NAMES:
            continue
        said = ~table[name].str.casefold().isin(_NOTHING).to_numpy()
        if not said.any():
            notes.append(f"{name} has no value for any track of these playlists and is left out.")
            continue
        values = pd.to_numeric(table[name].where(said), errors="coerce").to_numpy(np.float64)
        if name in RANGES or np.isfinite(values[said]).mean() > 0.5:
            numbers.append(_checked(path, name, table[name], values, said))
            columns.append(name)
        else:
            ids, found = pd.factorize(table[name].where(said).str.strip(), sort=True)
            if len(found) > max(20, said.sum() / 2):  # almost a name
                values = f"{len(found):,} values for {said.sum():,} tracks"
                notes.append(f"{name} has {values}, says too little and is left out.")
                continue
            categories[name], labels[name] = ids + 1, list(map(str, found))
    if not categories and not columns:
        raise ValueError(f"{path}: no column says anything of these tracks; {' '.join(notes) or 'it only names them.'}")
    place = table["place"].to_numpy()
    by_track = {name: np.zeros(len(uris) + 1, np.int64) for name in categories}
    for name, ids in categories.items():
        by_track[name][place] = ids
    raw = np.full((len(uris) + 1, len(columns)), np.nan)
    if columns:
        raw[place] = np.stack(numbers, 1)
    standard, mean, spread = _standardised(raw, n_known)
    return TrackFeatures(by_track, standard, labels, columns, mean, spread, notes)


def _standardised(raw: np.ndarray, n_known: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(numbers and flags [N+1, 2F], mean [F], spread [F]) of numbers [N+1, F], NaN = missing."""
    known = np.ma.masked_invalid(raw[1 : n_known + 1])
    mean, spread = (np.ma.filled(part, 0.0) for part in (known.mean(0), known.std(0)))
    spread = np.where(spread > 1e-9, spread, 1.0)  # all tracks alike: nothing to scale
    missing = np.isnan(raw)
    out = np.where(missing, 0.0, np.clip((raw - mean) / spread, -_FAR, _FAR))
    out = np.concatenate([out, missing], axis=1).astype(np.float32)
    out[0] = 0
    return out, np.atleast_1d(mean), np.atleast_1d(spread)


def _read(path: Path) -> pd.DataFrame:
    """The table, every cell as text; `line` is where a row stands in the file."""
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            table, first = pq.read_table(path).to_pandas(), 1
            table = table.astype(object).where(table.notna(), "").astype(str)
        else:
            table, first = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig"), 2
    except FileNotFoundError as error:
        raise ValueError(f"{path}: there is no such file; give a CSV or Parquet file of features.") from error
    except (OSError, ValueError, pa.ArrowException) as error:  # pandas' own errors are ValueErrors
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: cannot be read as a table ({reason}); give CSV or Parquet.") from error
    if not len(table):
        raise ValueError(f"{path}: has no rows; give one for each track.")
    table.index = np.arange(first, first + len(table))  # of the file, for sentences about it
    return table


def _name(path: Path, column) -> str:
    """A column's name as the model keeps it: "Audio Energy " is audio_energy."""
    name = re.sub(r"\W+", "_", str(column).strip().casefold()).strip("_")
    if not name or name in ("place", "artist", "album"):
        raise ValueError(f"{path}: a column cannot be called {str(column)!r} here; rename it.")
    return "track_uri" if name in ("uri", "spotify_uri") else name


def _rows_of(path: Path, table: pd.DataFrame, uris: list[str], notes: list[str]) -> pd.DataFrame:
    """The rows of these tracks, each once; `place` is the track's id."""
    found = table["track_uri"].str.strip().str.extract(_URI, expand=False)
    ids = pd.Series(np.arange(1, len(uris) + 1), index=[uri.rsplit(":", 1)[-1] for uri in uris])
    place = found.map(ids[~ids.index.duplicated()])
    if not place.notna().any():
        raise ValueError(
            f"{path}: none of its {len(table):,} rows is of a track in these playlists; its first track_uri is "
            f"{table['track_uri'].iloc[0]!r}, theirs look like {uris[0]!r}."
        )
    other = int(place.isna().sum())
    if other:
        rows = "1 row is of a track" if other == 1 else f"{other:,} rows are of tracks"
        notes.append(f"{rows} that these playlists do not have, and left out.")
    table = table.assign(place=place)[place.notna()].astype({"place": int})
    same = table.drop(columns="track_uri").duplicated()
    clash = table[~same]["place"].duplicated(keep=False)
    if clash.any():
        lines = clash.index[clash]
        first = table.loc[lines, "place"].iloc[0]
        pair = [line for line in lines if table.loc[line, "place"] == first]
        raise ValueError(
            f"{path}, lines {pair[0]} and {pair[1]}: say different things of {table.loc[pair[0], 'track_uri']}; "
            "keep one of them."
        )
    if same.any():
        rows = "1 row stands" if same.sum() == 1 else f"{same.sum():,} rows stand"
        notes.append(f"{rows} there twice, and count once.")
    lacking = len(uris) - int((~same).sum())
    if lacking:
        notes.append(f"{lacking:,} of {len(uris):,} tracks have no row: nothing is known of them but their ids.")
    return table[~same]


def _checked(path: Path, name: str, text: pd.Series, values: np.ndarray, said: np.ndarray) -> np.ndarray:
    """The numbers of a column, NaN = missing; ValueError for text among them and for what cannot be."""
    values = values.copy()
    wrong = np.flatnonzero(said & ~np.isfinite(values))
    if len(wrong):
        line = text.index[wrong[0]]
        raise ValueError(
            f"{path}, line {line}: {text.iloc[wrong[0]]!r} in {name} is no number, as the others there are; "
            "leave the cell empty if it is not known."
        )
    if name in RANGES:
        if name == "tempo":
            values[values == 0] = np.nan  # how Spotify wrote that it heard no beat
        low, high = RANGES[name]
        wrong = np.flatnonzero((values < low) | (values > high))
        if len(wrong):
            unit = UNITS.get(name, "a share")
            raise ValueError(
                f"{path}, line {text.index[wrong[0]]}: {name} is {values[wrong[0]]:g}, but it is {unit} and goes from "
                f"{low} to {high}; convert the column."
            )
    return values


# --- titles -----------------------------------------------------------------------------------------------------------


def load_titles(prepared_dir: str | Path) -> list[str]:
    """The titles of a prepared folder's playlists, in their order; "" where there is none."""
    names = pq.read_table(Path(prepared_dir) / "playlists.parquet", columns=["name"])["name"].to_pylist()
    return [name or "" for name in names]


def title_parts(title: str) -> list[str]:
    """What of a title gets a vector: its words, the runs of 3 and 4 letters in them, its emoji, each once.

    Case, accents and what stands between words do not count: "Rainy DAYS!! ☔" is `rainy`, `days`, ☔ and <ra, rai,
    ain, …, where < and > are a word's ends. A word that was never seen still shares runs with its relatives (Bojanowski
    et al. 2017, "Enriching word vectors with subword information"). Taught in notebook 08.
    """
    text = unicodedata.normalize("NFKD", title.casefold())
    text = "".join(c for c in text if not unicodedata.combining(c))
    words = re.findall(r"[^\W_]+", text)
    signs = [c for c in text if unicodedata.category(c) in ("So", "Sk") or c in "♥♡<>+&$#@"]
    parts = words + signs
    for word in words:
        marked = f"<{word}>"
        parts += [marked[i : i + n] for n in (3, 4) for i in range(len(marked) - n + 1)]
    return list(dict.fromkeys(parts))


def read_titles(titles: Iterable[str | None], users: Iterable | None = None, buckets: int = WORDS) -> Sequences:
    """Titles as ids from 1 to `buckets`, a playlist of parts each (`title_parts`); no parts where there is no title.

    A part's id is its checksum: the same in every process, and no list of words to keep. `users`: who made each
    playlist, where the same people return: a user is one more part, and so has a learned vector. At most `MOST_WORDS`
    ids, the user's first. Taught in notebook 08.
    """
    titles = list(titles)
    users = [None] * len(titles) if users is None else list(users)
    if len(users) != len(titles):
        raise ValueError(f"{len(titles)} titles need as many users, got {len(users)}")
    rows = []
    for title, user in zip(titles, users, strict=True):
        parts = [] if user is None else [f"\0user {user}"]
        parts += title_parts(title or "")
        rows.append([1 + zlib.crc32(part.encode("utf-8", "replace")) % buckets for part in parts[:MOST_WORDS]])
    return Sequences.from_lists(rows)


def with_titles(data: Dataset, titles: Sequence[str | None], users: Sequence | None = None) -> Dataset:
    """The same data, each playlist with its title: `titles` of all playlists of the prepared folder, in its order."""
    words = read_titles(titles, users)
    if len(words) != sum(map(len, data.split)):
        raise ValueError(f"{sum(map(len, data.split)):,} playlists need as many titles, got {len(words):,}")
    parts = {
        name: replace(getattr(data, name), titles=words.take(getattr(data.split, name)))
        for name in ("train", "valid", "test")
    }
    return replace(data, **parts)
