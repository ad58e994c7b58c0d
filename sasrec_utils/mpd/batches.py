"""Slices as batches of arrays, read here or in several processes at once: what `prepare` makes its tables from."""

from __future__ import annotations

import contextlib
import itertools
import pickle
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import numpy as np
import pyarrow as pa

from sasrec_utils.mpd.reading import (
    MPDError,
    PlaylistRecord,
    SliceDecoder,
    TrackRecord,
    playlist_table,
    sort_tracks,
    track_table,
)

FILES_PER_PROCESS = 8
TRACKS_PER_PART = 1_000


@dataclass(frozen=True)
class Batch:
    """One slice as arrays.

    `codes` (int32) numbers the track of each row in order of first appearance in this and all slices read before;
    `new` describes the tracks that appeared for the first time, in that order.
    """

    playlists: pa.RecordBatch
    codes: np.ndarray
    new: pa.Table


@dataclass(frozen=True)
class Skipped:
    """Stands for a file that is well-formed but has nothing to learn from; `why` says so in a few words."""

    why: str


def read_batches(files: list[Path], processes: int) -> Iterator[Batch | Skipped]:
    """Read slices in this order, one Batch or Skipped for each; MPDError at the first that is no slice.

    `processes` of them are decoded at once when there are many files: with few, no time would be gained.
    """
    readers = max(1, min(processes, len(files) // FILES_PER_PROCESS))
    return _read(files) if readers == 1 else _read_in_processes(files, readers)


def _read(files: Iterable[Path]) -> Iterator[Batch | Skipped]:
    code_of: dict[str, int] = defaultdict()  # a new URI gets the next number
    known = 0  # how many URIs the files before this one had
    uri = attrgetter("track_uri")
    codes: list[int] = []
    lengths: list[int] = []
    new: list[TrackRecord] = []
    parts: list[pa.RecordBatch] = []
    holding_out: list[int] = []

    def begin() -> None:
        for state in (codes, lengths, new, parts, holding_out):
            state.clear()
        while len(code_of) > known:
            code_of.popitem()
        code_of.default_factory = itertools.count(known).__next__

    def take(playlist: PlaylistRecord) -> None:
        if playlist.holds_out():
            holding_out.append(playlist.pid)
        tracks, playlist.tracks = playlist.tracks, []
        sort_tracks(tracks)
        expected = len(code_of)
        here = list(map(code_of.__getitem__, map(uri, tracks)))
        codes.extend(here)
        lengths.append(len(here))
        if len(code_of) > expected:
            for code, track in zip(here, tracks, strict=True):
                if code == expected:  # numbers are given in order, so this is the first row of a new track
                    new.append(track)
                    expected += 1
            if len(new) >= TRACKS_PER_PART:
                parts.append(track_table(new))
                new.clear()

    decoder = SliceDecoder(take, begin)
    for path in files:
        playlists = decoder.read(path).playlists
        if not playlists:
            yield Skipped("no playlists")
        elif holding_out:
            yield Skipped("playlists with tracks held out, like challenge_set.json")
        else:
            known = len(code_of)
            parts.append(track_table(new))
            yield Batch(playlist_table(playlists, lengths), np.array(codes, np.int32), pa.Table.from_batches(parts))


def _serve() -> None:
    """Be a reader process: file names from standard input, batches (or the error) to standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent ends its readers
    with contextlib.suppress(BrokenPipeError):
        try:
            for batch in _read(pickle.load(sys.stdin.buffer)):
                pickle.dump(batch, sys.stdout.buffer, protocol=5)
                sys.stdout.buffer.flush()
        except MPDError as error:
            pickle.dump(error, sys.stdout.buffer)
            sys.stdout.buffer.flush()


def _read_in_processes(files: list[Path], readers: int) -> Iterator[Batch | Skipped]:
    """Decode file i in reader process i % readers; yield in the order of the files.

    Plain processes and pipes rather than multiprocessing, whose "spawn" imports the caller's script again (so that it
    needs a __main__ guard) and whose "fork" is unsafe next to the threads of torch and Jupyter. A full pipe makes a
    reader wait, so no more than a slice or two per reader is under way. Every reader has its own codes, which are
    translated here.
    """
    code = f"import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); from {__name__} import _serve; _serve()"
    with contextlib.ExitStack() as stack:
        processes = []
        for reader in range(readers):
            job = stack.enter_context(tempfile.TemporaryFile())
            pickle.dump(sys.path, job)
            pickle.dump(files[reader::readers], job)
            job.seek(0)
            process = subprocess.Popen([sys.executable, "-c", code], stdin=job, stdout=subprocess.PIPE)
            processes.append(stack.enter_context(process))
            stack.callback(process.kill)
        code_of: dict[str, int] = defaultdict(itertools.count().__next__)
        translation = [np.empty(0, np.int32)] * readers  # a reader's code -> ours
        for index, path in enumerate(files):
            reader, known = index % readers, len(code_of)
            try:
                batch = pickle.load(processes[reader].stdout)
            except (EOFError, pickle.UnpicklingError) as error:
                raise MPDError(
                    f"{path}: the process that read it ended unexpectedly, perhaps for lack of memory; try again with "
                    "processes=1"
                ) from error
            if isinstance(batch, MPDError):
                raise batch
            if isinstance(batch, Skipped):
                yield batch
                continue
            uris = batch.new["track_uri"].to_pylist()
            new = np.fromiter(map(code_of.__getitem__, uris), np.int32, len(uris))
            translation[reader] = np.concatenate([translation[reader], new])
            yield Batch(batch.playlists, translation[reader][batch.codes], batch.new.filter(pa.array(new >= known)))
