"""Million Playlist Dataset (MPD) slices in, tables out.

`read_slice` shows one slice as two tables. `prepare` turns any number of slices into Parquet tables with
small integer ids, slice by slice: its memory holds the vocabulary of tracks but never all rows. `Catalogue`
translates between Spotify URIs, ids and names. Taught in notebook 01.
"""

from __future__ import annotations

import contextlib
import hashlib
import html
import itertools
import json
import os
import pickle
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from tqdm import tqdm

from sasrec_utils.mpd.files import lock, write_beside

CSV_NAME = "spotify_mpd_interactions.csv"
TABLES = ("interactions.parquet", "tracks.parquet", "playlists.parquet", "info.json")
# All that shapes the tables is part of the fingerprint: raise "format" when the code comes to write others.
SETTINGS = {"format": 1, "compression": "zstd", "playlists_per_group": 16_384, "tracks_per_group": 262_144}
READ_ALL_BYTES = 512 * 2**20
EDGE_BYTES = 64 * 2**10
FILES_PER_PROCESS = 8
TRACKS_PER_PART = 1_000


class MPDError(ValueError):
    """Input that is no MPD slice, or an output that cannot be written.

    The message is one sentence that names the file, the place in it and what to do.
    Taught in notebook 01 §1.
    """


# The classes below are the file format. Keys are declared in file order, which the decoder reads fastest,
# and unknown keys are skipped. The bound on integers leaves room for sums in int64 and keeps them exact as
# floats.
Integer = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]


class _Track(msgspec.Struct, kw_only=True, gc=False):
    pos: Integer | None = None
    artist_name: str | None = None
    track_uri: Annotated[str, msgspec.Meta(min_length=1)]
    artist_uri: str | None = None
    track_name: str | None = None
    album_uri: str | None = None
    duration_ms: Integer | None = None
    album_name: str | None = None


class _Playlist(msgspec.Struct, kw_only=True, gc=False):
    name: str | None = None
    collaborative: Literal["true", "false"] | bool | None = None
    pid: Integer
    modified_at: Integer | None = None
    num_tracks: Integer | None = None
    num_albums: Integer | None = None
    num_followers: Integer | None = None
    tracks: list[_Track]
    num_edits: Integer | None = None
    duration_ms: Integer | None = None
    num_artists: Integer | None = None
    description: str | None = None


P = TypeVar("P", bound=_Playlist)


class _File(msgspec.Struct, Generic[P], kw_only=True, gc=False):
    info: Any = None
    playlists: list[P]


_COUNTS = ("num_tracks", "num_albums", "num_followers", "num_edits", "duration_ms", "num_artists")
_TEXTS = ("track_uri", "track_name", "artist_name", "artist_uri", "album_name", "album_uri")
_PLAYLIST_SCHEMA = pa.schema(
    [
        ("user_id", pa.int64()),
        ("name", pa.string()),
        ("collaborative", pa.bool_()),
        ("description", pa.string()),
        ("modified_at", pa.int64()),
        *((name, pa.int64()) for name in _COUNTS),
        ("length", pa.int32()),
    ]
)
_TRACK_SCHEMA = pa.schema([*((name, pa.string()) for name in _TEXTS), ("duration_ms", pa.int64())])
_INTERACTION_SCHEMA = pa.schema(
    [("user_id", pa.int64()), ("track_id", pa.int32()), ("timestamp", pa.int64()), ("repeat", pa.bool_())]
)


# --- Reading slices ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Slice:
    """One slice as tables, for exploring.

    `playlists` has one row per playlist and `rows` one per track in it, with the keys of the file as
    columns (`rows` begins with the playlist's `pid`) and null where a key is missing; `info` is the head of
    the file. Taught in notebook 01 §1.
    """

    playlists: pd.DataFrame
    rows: pd.DataFrame
    info: dict


def slice_files(raw: str | os.PathLike | Iterable[str | os.PathLike]) -> list[Path]:
    """List slices in numeric order.

    `raw` is a folder (all its `*.json`), one file, or several files. `mpd.slice.A-B.json` are ordered by A
    as a number (as text, 10000 would come before 2000); any other file comes after them, by name. A file
    given twice counts once. Raises MPDError when there is no file. Taught in notebook 01 §1.
    """
    if isinstance(raw, (str, os.PathLike)):
        folder = Path(raw)
        # Names that begin with a dot are left behind by file managers and archives.
        found = [p for p in folder.glob("*.json") if p.name[0] != "."] if folder.is_dir() else [folder]
    else:
        found = [Path(path) for path in raw]
    if not found:
        raise MPDError(f"{raw}: there is no slice; put mpd.slice.*.json files there (see data/README.md)")

    def order(path: Path) -> tuple:
        number = re.fullmatch(r"mpd\.slice\.(\d{1,18})-\d+\.json", path.name, re.ASCII)
        return number is None, int(number[1]) if number else 0, path.name, str(path)

    return sorted({path.absolute(): path for path in found}.values(), key=order)


def _unreadable(path: Path, error: OSError) -> MPDError:
    return MPDError(
        f"{path}: the file cannot be read ({error.strerror or error}); check that it exists, is "
        "a file and may be read by you"
    )


def _decoder(condense: Callable[[_Playlist], None]) -> msgspec.json.Decoder:
    """Make a decoder that hands over each playlist as soon as it is decoded.

    Tracks that are used and dropped while they are in the processor's cache cost half the time and little
    memory; all 66,000 of a slice have long left the cache when a second loop walks them.
    """

    class Playlist(_Playlist):
        def __post_init__(self) -> None:
            condense(self)

    return msgspec.json.Decoder(_File[Playlist])


def _decode(path: Path, decoder: msgspec.json.Decoder) -> _File:
    """Decode and check one slice; every fault becomes an MPDError with file, place and remedy."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        decoded = decoder.decode(content)
    except msgspec.ValidationError as error:
        raise MPDError(
            f"{path}: {error}; correct this place or copy the file again (a slice needs "
            "`playlists`, a playlist `pid` and `tracks`, a track `track_uri`)"
        ) from error
    except UnicodeDecodeError as error:
        raise MPDError(f"{path}: {_utf8_place(content)} is no UTF-8 text; copy the file again") from error
    except RecursionError as error:
        raise MPDError(f"{path}: its brackets nest too deeply for a slice; copy the file again") from error
    except msgspec.DecodeError as error:
        place = f"it is cut off after byte {len(content)}" if "truncated" in str(error) else str(error)
        raise MPDError(f"{path}: {place}; copy the file again, complete and unchanged") from error
    if not decoded.playlists:
        raise MPDError(f"{path}: `$.playlists` is empty; remove this file or copy it again")
    return decoded


def _utf8_place(content: bytes) -> str:
    """Name the first byte that is not UTF-8 (the decoder's own error counts from the start of one string)."""
    try:
        content.decode()
    except UnicodeDecodeError as error:
        return f"byte {error.start}"
    return "a string"


def _sort(tracks: list[_Track]) -> None:
    """Put a playlist's tracks in order of `pos`; where any lacks it, the order of the file stands."""
    position = attrgetter("pos")
    if None not in map(position, tracks):
        tracks.sort(key=position)


def _playlist_table(playlists: list[_Playlist], lengths: list[int]) -> pa.RecordBatch:
    columns = {name: list(map(attrgetter(name), playlists)) for name in ("name", "modified_at", *_COUNTS)}
    columns["user_id"] = [playlist.pid for playlist in playlists]
    as_bool = {"true": True, "false": False}
    columns["collaborative"] = [as_bool.get(p.collaborative, p.collaborative) for p in playlists]
    columns["description"] = [p.description and html.unescape(p.description) for p in playlists]
    columns["length"] = lengths
    return pa.RecordBatch.from_pydict(columns, schema=_PLAYLIST_SCHEMA)


def _track_table(tracks: list[_Track]) -> pa.RecordBatch:
    columns = {name: list(map(attrgetter(name), tracks)) for name in _TRACK_SCHEMA.names}
    # The files write an unknown duration as -1.
    columns["duration_ms"] = [None if ms is None or ms < 0 else ms for ms in columns["duration_ms"]]
    return pa.RecordBatch.from_pydict(columns, schema=_TRACK_SCHEMA)


def read_slice(path: str | os.PathLike) -> Slice:
    """Read one slice into tables.

    Like `prepare`, it turns `collaborative` into a boolean and track durations of -1 ms into null, undoes
    the HTML escapes of descriptions, leaves names exactly as they are, and orders rows by `pos` where all
    rows of a playlist have one. Raises MPDError when the file is no slice. Taught in notebook 01 §1.
    """
    decoded = _decode(Path(path), _decoder(lambda playlist: _sort(playlist.tracks)))
    rows = [track for playlist in decoded.playlists for track in playlist.tracks]
    lengths = [len(playlist.tracks) for playlist in decoded.playlists]
    playlists, tracks = _playlist_table(decoded.playlists, lengths), _track_table(rows)
    others = [name for name in _Track.__struct_fields__ if name != "pos"]
    table = pa.table(
        {
            "pid": np.repeat(playlists["user_id"].to_numpy(), lengths),
            "pos": pa.array([row.pos for row in rows], pa.int64()),
            **{name: tracks[name] for name in others},
        }
    )
    playlists = playlists.rename_columns(["pid", *playlists.schema.names[1:]]).drop_columns(["length"])
    # Nullable types: a column of counts with one null would otherwise become floats.
    nullable = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}.get
    frames = [part.to_pandas(types_mapper=nullable).astype({"pid": "int64"}) for part in (playlists, table)]
    return Slice(*frames, info=decoded.info if isinstance(decoded.info, dict) else {})


# --- Preparing tables -------------------------------------------------------------------------------------


def prepare(
    raw: str | os.PathLike | Iterable[str | os.PathLike],
    out: str | os.PathLike,
    *,
    csv: bool = False,
    processes: int = 2,
    progress: bool = True,
) -> Path:
    """Turn slices into tables with integer ids; return their folder, `out/<fingerprint>`.

    - `interactions.parquet`: a row per track in a playlist, playlists in slice order, tracks by position:
      `user_id` (the `pid`: the playlist is the user), `track_id`, `timestamp` (seconds, made up but
      ordered: the last track at `modified_at`, each one before it a second earlier; 0, 1, 2... without
      `modified_at`) and `repeat` (the playlist already had this track).
    - `tracks.parquet`: `track_id` 1..N by descending `plays`, ties by URI, so that ids depend neither on
      the order of files nor on the process; `artist_id` and `album_id` likewise (by URI, or by name where
      that is missing; 0 = unknown). Names and duration are those of the track's first row.
    - `playlists.parquet`: what the files state about each playlist, and `length`, the number of its rows.
    - `info.json`: counts, settings, files, versions; with `csv` also `spotify_mpd_interactions.csv`.

    The fingerprint covers the settings and each file's name, size and content. Above 512 MiB in all, the
    time of change and the first and last 64 KiB stand for the content, because reading 33 GB only to find
    the result there would take minutes. A result that is there is not made again. Tables are written beside
    and renamed when complete; what a killed run left behind is removed by the next. With many files,
    `processes` of them are decoded at once. Raises MPDError for bad input and when writing fails.
    Taught in notebook 01 §2.
    """
    files = slice_files(raw)
    out = Path(out)
    result = out / _fingerprint(files)

    def complete(names: Iterable[str] = TABLES) -> bool:
        return all((result / name).exists() for name in names)

    try:
        if complete((*TABLES, CSV_NAME) if csv else TABLES):
            return result
        out.mkdir(parents=True, exist_ok=True)
        with lock(out / ".lock"):
            for stale in out.glob("." + "[0-9a-f]" * 16 + ".tmp"):
                shutil.rmtree(stale)
            if not complete():
                temporary = out / f".{result.name}.tmp"
                temporary.mkdir()
                try:
                    _write_tables(files, temporary, processes, progress)
                    shutil.rmtree(result, ignore_errors=True)  # there only if one of its tables is not
                    temporary.rename(result)
                finally:
                    shutil.rmtree(temporary, ignore_errors=True)
            if csv and not complete([CSV_NAME]):
                _write_csv(result)
    except OSError as error:
        raise MPDError(
            f"{out}: the tables cannot be written ({error.strerror or error}); free some space, "
            "check the permissions or choose another folder"
        ) from error
    return result


def _fingerprint(files: list[Path]) -> str:
    digest = hashlib.sha256(json.dumps(SETTINGS, sort_keys=True).encode())
    path = files[0]
    try:
        read_all = sum(path.stat().st_size for path in files) <= READ_ALL_BYTES
        for path in files:
            stat, checksum = path.stat(), 0
            with path.open("rb") as file:
                # CRC32: a forger is not expected, and it takes half the time of a cryptographic sum.
                while part := file.read(EDGE_BYTES):
                    checksum = zlib.crc32(part, checksum)
                    if not read_all and file.tell() < stat.st_size - EDGE_BYTES:
                        file.seek(-EDGE_BYTES, os.SEEK_END)
            changed = 0 if read_all else stat.st_mtime_ns
            digest.update(json.dumps([path.name, stat.st_size, changed, checksum]).encode())
    except OSError as error:
        raise _unreadable(path, error) from error
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class _Batch:
    """One slice as a reader passes it on.

    `codes` numbers the track of each row in order of first appearance in this and all slices read before;
    `new` describes the tracks that appeared for the first time, in that order.
    """

    playlists: pa.RecordBatch
    codes: np.ndarray
    new: pa.Table


def _read(files: Iterable[Path]) -> Iterator[_Batch]:
    code_of: dict[str, int] = defaultdict(itertools.count().__next__)  # a new URI gets the next number
    uri = attrgetter("track_uri")
    codes: list[int] = []
    lengths: list[int] = []
    new: list[_Track] = []
    parts: list[pa.RecordBatch] = []

    def condense(playlist: _Playlist) -> None:
        tracks, playlist.tracks = playlist.tracks, []
        _sort(tracks)
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
                parts.append(_track_table(new))
                new.clear()

    decoder = _decoder(condense)
    for path in files:
        for state in (codes, lengths, new, parts):
            state.clear()
        playlists = _decode(path, decoder).playlists
        parts.append(_track_table(new))
        yield _Batch(_playlist_table(playlists, lengths), np.array(codes, np.int32), pa.Table.from_batches(parts))


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


def _read_in_processes(files: list[Path], readers: int) -> Iterator[_Batch]:
    """Decode file i in reader process i % readers; yield in the order of the files.

    Plain processes and pipes rather than multiprocessing, whose "spawn" imports the caller's script again
    (so that it needs a __main__ guard) and whose "fork" is unsafe next to the threads of torch and Jupyter.
    A full pipe makes a reader wait, so no more than a slice or two per reader is under way. Every reader
    has its own codes, which are translated here.
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
                    f"{path}: the process that read it ended unexpectedly, perhaps for lack of "
                    "memory; try again with processes=1"
                ) from error
            if isinstance(batch, MPDError):
                raise batch
            uris = batch.new["track_uri"].to_pylist()
            new = np.fromiter(map(code_of.__getitem__, uris), np.int32, len(uris))
            translation[reader] = np.concatenate([translation[reader], new])
            yield _Batch(batch.playlists, translation[reader][batch.codes], batch.new.filter(pa.array(new >= known)))


def _write_tables(files: list[Path], folder: Path, processes: int, progress: bool) -> None:
    """Write the four tables: one pass over the slices, then numbering, then one pass over the rows."""
    readers = max(1, min(processes, len(files) // FILES_PER_PROCESS))  # few files: no time to gain
    batches = _read(files) if readers == 1 else _read_in_processes(files, readers)
    codes = folder / "codes.tmp"  # one number per row, in order of first appearance
    with contextlib.closing(batches), tqdm(total=len(files), unit="slice", disable=not progress) as bar:
        tracks = _merge(batches, files, folder / "playlists.parquet", codes, bar)
    tracks = tracks.combine_chunks()  # thousands of chunks would slow down what follows
    plays = _count(codes, len(tracks))
    ids = _ranks(plays, tracks["track_uri"])
    artists, albums = _write_tracks(tracks, plays, ids, folder / "tracks.parquet")
    del tracks
    playlists, repeats = _write_interactions(folder, codes, ids)
    codes.unlink()
    info = {
        "counts": {
            "slices": len(files),
            "playlists": playlists,
            "rows": int(plays.sum()),
            "repeats": repeats,
            "tracks": len(ids),
            "artists": artists,
            "albums": albums,
        },
        "settings": SETTINGS,
        "files": [{"name": path.name, "bytes": path.stat().st_size} for path in files],
        "versions": {
            "python": platform.python_version(),
            "msgspec": msgspec.__version__,
            "numpy": np.__version__,
            "pyarrow": pa.__version__,
        },
    }
    (folder / "info.json").write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")


def _merge(batches: Iterable[_Batch], files: list[Path], playlists: Path, codes: Path, bar: tqdm) -> pa.Table:
    """Write the playlists, and one code per row; return the tracks in the order of their codes."""
    file_of: dict[int, Path] = {}
    tracks, waiting = [], []
    with _writer(playlists, _PLAYLIST_SCHEMA) as table, codes.open("wb") as code_file:
        for batch, path in zip(batches, files, strict=True):
            for pid in batch.playlists["user_id"].to_pylist():
                if pid in file_of:
                    raise MPDError(
                        f"{path}: pid {pid} occurs a second time, after {file_of[pid]}; remove one of the two"
                    )
                file_of[pid] = path
            tracks.append(batch.new)
            code_file.write(batch.codes.tobytes())
            waiting.append(batch.playlists)
            if sum(map(len, waiting)) >= SETTINGS["playlists_per_group"] or path is files[-1]:
                table.write_table(pa.Table.from_batches(waiting))
                waiting = []
            bar.update()
    return pa.concat_tables(tracks)


def _writer(path: Path, schema: pa.Schema, **options: Any) -> pq.ParquetWriter:
    return pq.ParquetWriter(path, schema, compression=SETTINGS["compression"], **options)


def _count(codes: Path, size: int) -> np.ndarray:
    """Count how often each code occurs, sixteen million rows at a time."""
    plays = np.zeros(size, np.int64)
    with codes.open("rb") as file:
        while part := file.read(2**26):
            plays += np.bincount(np.frombuffer(part, np.int32), minlength=size)
    return plays


def _ranks(plays: np.ndarray, keys: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Rank by descending plays, ties by key; 1 is the most played."""
    order = pc.sort_indices(
        pa.table({"plays": plays, "key": keys}), [("plays", "descending"), ("key", "ascending")]
    ).to_numpy()
    ranks = np.empty(len(order), np.int32)
    ranks[order] = np.arange(1, len(order) + 1)
    return ranks


def _group_ids(uris: pa.ChunkedArray, names: pa.ChunkedArray, plays: np.ndarray) -> np.ndarray:
    """Number the artists (or albums) of tracks by descending plays; 0 where neither URI nor name is known."""
    keys = pc.coalesce(uris, names).combine_chunks().dictionary_encode()
    codes = pc.fill_null(keys.indices, len(keys.dictionary)).to_numpy()
    totals = np.bincount(codes, plays, minlength=len(keys.dictionary) + 1).astype(np.int64)
    return np.append(_ranks(totals[:-1], keys.dictionary), np.int32(0))[codes]


def _write_tracks(tracks: pa.Table, plays: np.ndarray, ids: np.ndarray, path: Path) -> tuple[int, int]:
    """Write the tracks in the order of their ids; return the numbers of artists and albums."""
    artists = _group_ids(tracks["artist_uri"], tracks["artist_name"], plays)
    albums = _group_ids(tracks["album_uri"], tracks["album_name"], plays)
    numbers = {"track_id": ids, "artist_id": artists, "album_id": albums, "plays": plays.astype(np.int32)}
    columns = (
        "track_id",
        "track_uri",
        "track_name",
        "artist_id",
        "artist_name",
        "artist_uri",
        "album_id",
        "album_name",
        "album_uri",
        "duration_ms",
        "plays",
    )
    table = pa.table({name: numbers[name] if name in numbers else tracks[name] for name in columns})
    order = np.argsort(ids)
    with _writer(path, table.schema, use_dictionary=False) as writer:  # hardly any text repeats
        # A part at a time: a sorted copy of all names would double the memory.
        for start in range(0, len(ids), SETTINGS["tracks_per_group"]):
            writer.write_table(table.take(order[start : start + SETTINGS["tracks_per_group"]]))
    return int(artists.max(initial=0)), int(albums.max(initial=0))


def _write_interactions(folder: Path, codes: Path, ids: np.ndarray) -> tuple[int, int]:
    """Write the rows, one group of playlists after the other; return the numbers of playlists and repeats."""
    repeats = 0
    with (
        pq.ParquetFile(folder / "playlists.parquet") as playlists,
        codes.open("rb") as file,
        _writer(
            folder / "interactions.parquet",
            _INTERACTION_SCHEMA,
            use_dictionary=["user_id"],
            column_encoding={"track_id": "PLAIN", "timestamp": "DELTA_BINARY_PACKED"},
        ) as writer,
    ):
        for group in range(playlists.num_row_groups):
            part = playlists.read_row_group(group, columns=["user_id", "modified_at", "length"])
            length = part["length"].to_numpy().astype(np.int64)
            first = pc.fill_null(pc.add(pc.subtract(part["modified_at"], length), 1), 0).to_numpy()
            playlist = np.repeat(np.arange(len(length)), length)
            place = np.arange(len(playlist)) - np.repeat(np.cumsum(length) - length, length)
            track = ids[np.frombuffer(file.read(4 * len(playlist)), np.int32)]
            repeat = pd.Series(playlist * (len(ids) + 1) + track).duplicated().to_numpy()
            repeats += int(repeat.sum())
            writer.write_table(
                pa.table(
                    {
                        "user_id": part["user_id"].to_numpy()[playlist],
                        "track_id": track,
                        "timestamp": first[playlist] + place,
                        "repeat": repeat,
                    }
                )
            )
        return playlists.metadata.num_rows, repeats


def _write_csv(result: Path) -> None:
    columns = ["user_id", "track_id", "timestamp"]
    with (
        write_beside(result / CSV_NAME) as beside,
        pq.ParquetFile(result / "interactions.parquet") as rows,
        beside.open("wb") as file,
    ):
        file.write((",".join(columns) + "\n").encode())  # pyarrow would put the names in quotes
        for batch in rows.iter_batches(2**20, columns=columns):
            pa_csv.write_csv(batch, file, pa_csv.WriteOptions(include_header=False))


# --- Using the tables -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Catalogue:
    """The tracks of a prepared folder: URIs to ids, ids to names.

    `tracks` is `tracks.parquet` as a DataFrame, row i for track id i + 1. Taught in notebook 01 §3.
    """

    tracks: pd.DataFrame

    @classmethod
    def load(cls, prepared: str | os.PathLike) -> Catalogue:
        """Load the tracks of a folder that `prepare` returned; MPDError when it has none. Notebook 01 §3."""
        path = Path(prepared) / "tracks.parquet"
        try:
            return cls(pd.read_parquet(path))
        except (OSError, pa.ArrowException) as error:
            raise MPDError(
                f"{path}: the tracks cannot be read ({error}); give the folder that `prepare` "
                "returned, or delete it and prepare again"
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
        """Artist id of each track id, int32 [N + 1]; 0 = unknown and at index 0. Notebook 01 §3."""
        return np.append(np.int32(0), self.tracks["artist_id"].to_numpy(np.int32))

    @cached_property
    def album_of(self) -> np.ndarray:
        """Album id of each track id, int32 [N + 1]; 0 = unknown and at index 0. Notebook 01 §3."""
        return np.append(np.int32(0), self.tracks["album_id"].to_numpy(np.int32))

    def ids(self, uris: Iterable[str]) -> np.ndarray:
        """Return the int32 id of each URI, 0 where the catalogue lacks it. Taught in notebook 01 §3."""
        wanted = pd.Index([uris] if isinstance(uris, str) else list(uris), dtype=object)
        return (self._uris.get_indexer(wanted) + 1).astype(np.int32)

    def find(self, text: str, k: int = 10) -> pd.DataFrame:
        """Find up to `k` tracks whose name contains `text`, in any case; "artist - track" narrows by artist.

        Tracks whose whole name is `text` come first, then the most played. Columns as in `table`. Taught in
        notebook 01 §3.
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
        """Show tracks in the order of `ids`; an id outside 1..N has null names. Taught in notebook 01 §3."""
        ids = np.asarray(ids, dtype=np.int64)
        shown = self.tracks[["track_uri", "track_name", "artist_name", "album_name"]].reindex(ids - 1)
        shown.insert(0, "track_id", ids)
        return shown.reset_index(drop=True)
