"""The tracks of a prepared folder by URI, by id and by name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from sasrec_utils.mpd.reading import MPDError


@dataclass(frozen=True, eq=False)
class Catalogue:
    """The tracks of a prepared folder: URIs to ids, ids to names.

    `tracks` is `tracks.parquet` as a DataFrame, row i for track id i + 1. Taught in notebook 01 §3.
    """

    tracks: pd.DataFrame

    @classmethod
    def load(cls, prepared: str | os.PathLike) -> Catalogue:
        """Load the tracks of a folder that `prepare` returned; MPDError when it has none that can be read."""
        path = Path(prepared) / "tracks.parquet"
        try:
            return cls(pd.read_parquet(path))
        except (OSError, pa.ArrowException) as error:
            raise MPDError(
                f"{path}: the tracks cannot be read ({error}); give the folder that `prepare` returned, and prepare "
                "again if it is damaged"
            ) from error

    def __len__(self) -> int:
        """Return the number N of tracks."""
        return len(self.tracks)

    @cached_property
    def _uris(self) -> pd.Index:
        return pd.Index(self.tracks["track_uri"])

    @cached_property
    def _texts(self) -> tuple[pd.Series, pd.Series]:
        return tuple(self.tracks[name].fillna("").str.casefold() for name in ("track_name", "artist_name"))

    @cached_property
    def artist_of(self) -> np.ndarray:
        """Artist id of each track id, int32 [N + 1]; 0 = unknown and at index 0."""
        return np.append(np.int32(0), self.tracks["artist_id"].to_numpy(np.int32))

    @cached_property
    def album_of(self) -> np.ndarray:
        """Album id of each track id, int32 [N + 1]; 0 = unknown and at index 0."""
        return np.append(np.int32(0), self.tracks["album_id"].to_numpy(np.int32))

    def ids(self, uris: Iterable[str]) -> np.ndarray:
        """Return the int32 id of each URI, 0 where the catalogue lacks it."""
        wanted = pd.Index([uris] if isinstance(uris, str) else list(uris), dtype=object)
        return (self._uris.get_indexer(wanted) + 1).astype(np.int32)

    def find(self, text: str, k: int = 10) -> pd.DataFrame:
        """Find up to `k` tracks whose name contains `text`, in any case; "artist - track" narrows by artist.

        Tracks whose whole name is `text` come first, then the most played. Columns as in `table`.
        """
        text = text.strip().casefold()
        names, artists = self._texts
        match, exact = names.str.contains(text, regex=False), names.str.strip() == text
        artist, dash, name = (part.strip() for part in text.partition(" - "))
        if dash:  # a track's own name may hold " - " too, so both readings count
            by_artist = artists.str.contains(artist, regex=False)
            match |= by_artist & names.str.contains(name, regex=False)
            exact |= by_artist & (names.str.strip() == name)
        found = np.concatenate([np.flatnonzero(exact), np.flatnonzero(match & ~exact)])
        return self.table(found[:k] + 1)

    def table(self, ids: Sequence[int] | np.ndarray) -> pd.DataFrame:
        """Show tracks in the order of `ids`; an id outside 1..N has null names."""
        ids = np.asarray(ids, dtype=np.int64)
        shown = self.tracks[["track_uri", "track_name", "artist_name", "album_name"]].reindex(ids - 1)
        shown.insert(0, "track_id", ids)
        return shown.reset_index(drop=True)
