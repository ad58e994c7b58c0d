"""The model that is being served, and how another one takes its place while requests are under way."""

from __future__ import annotations

import json
import os
import threading
import zlib
from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from sasrec_utils.evaluation import kept_reports
from sasrec_utils.model import SASRec
from sasrec_utils.playlist_text import PlaylistTextError, read_entries, recognise
from sasrec_utils.recommender import Recommender
from sasrec_utils.reranking import Reranker
from sasrec_utils.sequences import Sequences, load_sequences
from sasrec_utils.serving.messages import MAX_HISTORY, Track, Unknown
from sasrec_utils.serving.scoring import Batcher
from sasrec_utils.track_names import not_a_track

__all__ = ["Model", "Playlists"]

SUGGESTED = 10  # unknown tracks of a request that get suggestions: each costs 15 ms among 34,000
SUGGESTIONS = 3
LONGEST_LINE = 1_000  # letters of a pasted track: a dozen artists fit, and looking it up takes bounded time


class Model:
    """A model folder, loaded and ready: names can be looked up, and the first request is as fast as the second.

    `data_dir`: holds models/ and, if playlists are to be asked for by their number, prepared/. `name`: of the folder in
    models/. `thread`: where scores are computed. Raises CheckpointError when the folder cannot be used.
    """

    def __init__(self, data_dir: str | os.PathLike, name: str, thread: Executor, rerank: bool = True):
        self.name, self._data_dir = name, Path(data_dir)
        self.folder = self._data_dir / "models" / name
        self.recommender = Recommender.load(self.folder, rerank=rerank)
        self.about = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        self.metrics = kept_reports(self.folder, self.about)
        self.version = f"{name}-{fingerprint(self.recommender.scorer):08x}"
        self.batcher = Batcher(self.recommender, thread)
        self._lock = threading.Lock()
        names = self.recommender.names
        # What look-ups need is made now and not while somebody waits.
        names.find("a name")
        names.nearest("a name")
        names.search("a name")
        self.recommender.recommend([], 1)

    @property
    def second_stage(self) -> bool:
        """Whether the second stage orders the candidates."""
        return isinstance(self.recommender.scorer, Reranker)

    def playlists(self) -> Playlists | None:
        """The playlists that the model was made from, opened at the first call; None if they are not here."""
        with self._lock:
            return self._playlists

    @cached_property
    def _playlists(self) -> Playlists | None:
        data = self.about.get("data")
        prepared = data.get("prepared") if isinstance(data, dict) else None
        if not isinstance(prepared, str):
            return None
        try:
            return Playlists.load(self._data_dir / "prepared" / Path(prepared).name, self.uris)
        except (OSError, ValueError, KeyError, pa.ArrowException):
            return None

    @property
    def uris(self) -> np.ndarray:
        """URI of each model id 1…N, at id - 1."""
        return self.recommender.names.columns["track_uri"]

    def tracks(self, ids: Iterable[int]) -> list[Track]:
        """The names of model ids 1…N."""
        columns = self.recommender.names.columns
        return [Track(**{name: column[i - 1] for name, column in columns.items()}) for i in ids]

    def recognise(self, texts: Iterable[str]) -> tuple[list[int], list[str]]:
        """Model ids of the tracks that are known, and the other texts as they are."""
        ids, unknown = [], []
        for text in texts:
            found = self.recommender.names.find(text)
            if found:
                ids.append(found)
            else:
                unknown.append(text)
        return ids, unknown

    def unknown(self, texts: list[str], reasons: list[str] | None = None) -> list[Unknown]:
        """What to say of tracks that are not known; the first `SUGGESTED` of them get suggestions."""
        said = []
        for i, text in enumerate(texts):
            near = self.recommender.names.nearest(text, SUGGESTIONS) if i < SUGGESTED else []
            reason = reasons[i] if reasons else not_a_track(text) or "not known"
            said.append(Unknown(text=text, reason=reason, suggestions=self.tracks(near)))
        return said

    def read(self, text: str) -> tuple[list[int], int, list[Unknown]]:
        """A pasted playlist: ids of the recognised tracks, how many it names, and the others.

        Raises PlaylistTextError. Given as bytes, because a text of one line could be the name of a file of this server.
        """
        entries = read_entries(text.encode())
        if len(entries) > MAX_HISTORY:
            raise PlaylistTextError(f"the text names {len(entries):,} tracks: give {MAX_HISTORY:,} at most.")
        for entry in entries:
            if len(entry.text) > LONGEST_LINE:
                raise PlaylistTextError(f"line {entry.line} has more than {LONGEST_LINE:,} letters: that is no track.")
        read = recognise(entries, self.recommender.names, suggestions=0)
        texts = [one.entry.text for one in read.missing]
        return read.ids, len(read.entries), self.unknown(texts, [one.reason for one in read.missing])


@dataclass(frozen=True)
class Playlists:
    """Prepared playlists by their number (`pid`), told in the model's ids.

    `row_of`: from a pid to its row. `sequences`: in catalogue ids. `to_model`: from a catalogue id to the model's, 0
    where the model does not know it. `names`: of the playlists.
    """

    row_of: dict[int, int]
    sequences: Sequences
    to_model: np.ndarray
    names: pa.ChunkedArray

    @classmethod
    def load(cls, prepared: Path, uris: np.ndarray) -> Playlists:
        """The playlists of a prepared folder for a model whose id i + 1 has `uris[i]`."""
        about = pq.read_table(prepared / "playlists.parquet", columns=["user_id", "name"])
        known = pq.read_table(prepared / "tracks.parquet", columns=["track_uri"])["track_uri"]
        place = pc.index_in(known, value_set=pa.array(uris, known.type)).combine_chunks()
        to_model = np.append(0, pc.fill_null(pc.add(place, 1), 0).to_numpy(zero_copy_only=False))
        row_of = {pid: row for row, pid in enumerate(about["user_id"].to_pylist())}
        return cls(row_of, load_sequences(prepared), to_model, about["name"])

    def __len__(self) -> int:
        return len(self.row_of)

    def find(self, pid: int) -> tuple[list[int], str | None] | None:
        """The tracks of a playlist that the model knows, as model ids, and its name; None if there is no such pid."""
        row = self.row_of.get(pid)
        if row is None:
            return None
        ids = self.to_model[self.sequences[row]]
        return ids[ids > 0].tolist(), self.names[row].as_py()


def fingerprint(scorer) -> int:
    """A number that other weights change: a checksum over all of them."""
    model = scorer.first.blend.scorers[0] if isinstance(scorer, Reranker) else scorer
    if not isinstance(model, SASRec):
        return 0
    checksum = 0
    for name, tensor in model.state_dict().items():
        checksum = zlib.crc32(name.encode(), checksum)
        checksum = zlib.crc32(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy(), checksum)
    return checksum
