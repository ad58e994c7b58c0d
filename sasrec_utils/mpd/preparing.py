"""From slices to Parquet tables with integer ids: `prepare`, and how it knows that its result is there already."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import warnings
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from tqdm import tqdm

from sasrec_utils.mpd.batches import Batch, Skipped, read_batches
from sasrec_utils.mpd.files import leftovers, lock, remove_leftovers, write_beside
from sasrec_utils.mpd.reading import PLAYLIST_SCHEMA, MPDError, slice_files, unreadable

CSV_NAME = "spotify_mpd_interactions.csv"
TABLES = ("interactions.parquet", "tracks.parquet", "playlists.parquet", "info.json")  # info.json comes last
# All that shapes the tables is part of the fingerprint: raise "format" when the code comes to write others.
SETTINGS = {"format": 2, "compression": "zstd", "playlists_per_group": 16_384, "tracks_per_group": 262_144}
READ_ALL_BYTES = 512 * 2**20
CHECK_ALL_BYTES = 64 * 2**20
EDGE_BYTES = 64 * 2**10
INTERACTION_SCHEMA = pa.schema(
    [("user_id", pa.int64()), ("track_id", pa.int32()), ("timestamp", pa.int64()), ("repeat", pa.bool_())]
)


def prepare(
    raw: str | os.PathLike | Iterable[str | os.PathLike],
    out: str | os.PathLike,
    *,
    csv: bool = False,
    processes: int = 2,
    progress: bool = True,
) -> Path:
    """Turn slices into tables with integer ids; return their folder, `out/<fingerprint>`.

    - `interactions.parquet`: a row per track in a playlist, playlists in slice order, tracks by position: `user_id`
      (the `pid`: the playlist is the user), `track_id`, `timestamp` (seconds, made up but ordered: the last track at
      `modified_at`, each one before it a second earlier; 0, 1, 2... without `modified_at`) and `repeat` (the playlist
      already had this track).
    - `tracks.parquet`: `track_id` 1..N by descending `plays`, ties by URI, so that ids depend neither on the order of
      files nor on the process; `artist_id` and `album_id` likewise (by URI, or by name where that is missing; 0 =
      unknown). Names and duration are those of the track's first row.
    - `playlists.parquet`: what the files state about each playlist, and `length`, the number of its rows.
    - `info.json`: counts, settings, files, versions, and what tells a damaged table from a whole one; with `csv` also
      `spotify_mpd_interactions.csv`.

    `raw` is what `slice_files` takes. A file without playlists, or whose playlists have tracks held out (as
    `challenge_set.json`), is skipped; one warning names all of them, and `info.json` keeps their names.

    The fingerprint covers the settings and each file's name, size and content. Above 512 MiB in all, the time of change
    and the first and last 64 KiB stand for the content, because reading 33 GB only to find the result there would take
    minutes. A result that is there is not made again, unless one of its files is missing or damaged (of a file above 64
    MiB, the size and the first and last 64 KiB are looked at). Tables are written beside and renamed when complete;
    what a killed run left behind is removed by the next one. With many files, `processes` of them are decoded at once.
    Raises MPDError for bad input, for a file that changes meanwhile, and when writing fails. Taught in notebook 01 §2.
    """
    files = slice_files(raw)
    out = Path(out)
    stamps = [_stamp(path) for path in files]
    result = out / _fingerprint(files)
    notes: list[str] = []
    with _writing(out):
        if _is_whole(result, (*TABLES, CSV_NAME) if csv else TABLES) and not leftovers(result):
            return result
        out.mkdir(parents=True, exist_ok=True)
        with lock(out / ".lock"):
            for stale in out.glob("." + "[0-9a-f]" * 16 + ".tmp"):
                shutil.rmtree(stale)
            remove_leftovers(result)
            if not _is_whole(result, TABLES):
                notes = _make(files, stamps, result, processes, progress)
            if csv and not _is_whole(result, [CSV_NAME]):
                with _writing(result / CSV_NAME):
                    _write_csv(result)
    for note in notes:  # last, so that whoever makes errors of warnings has the tables
        warnings.warn(note, stacklevel=2)
    return result


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn a failure of the system inside the block into an MPDError about writing `path`."""
    try:
        yield
    except OSError as error:
        what = "the table" if path.name == CSV_NAME else "the tables"
        raise MPDError(
            f"{path}: {what} cannot be written ({error.strerror or error}); free some space, check the permissions or "
            "choose another folder"
        ) from error


# --- Is the result there, and whole? ----------------------------------------------------------------------


def _fingerprint(files: list[Path]) -> str:
    """Make the name of the result: 16 hex digits from the settings and the files."""
    digest = hashlib.sha256(json.dumps(SETTINGS, sort_keys=True).encode())
    path = files[0]
    try:
        read_all = sum(path.stat().st_size for path in files) <= READ_ALL_BYTES
        for path in files:
            stat, checksum = path.stat(), _checksum(path, read_all)
            changed = 0 if read_all else stat.st_mtime_ns
            digest.update(json.dumps([path.name, stat.st_size, changed, checksum]).encode())
    except OSError as error:
        raise unreadable(path, error) from error
    return digest.hexdigest()[:16]


def _checksum(path: Path, read_all: bool) -> int:
    """CRC32 of a file, or of its first and last EDGE_BYTES.

    A forger is not expected, and a cryptographic sum would take twice the time.
    """
    checksum = 0
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        while part := file.read(EDGE_BYTES):
            checksum = zlib.crc32(part, checksum)
            if not read_all and file.tell() < size - EDGE_BYTES:
                file.seek(-EDGE_BYTES, os.SEEK_END)
    return checksum


def _stamp(path: Path) -> tuple[int, int]:
    """What changes when a file does: its size in bytes and its time of change."""
    try:
        stat = path.stat()
    except OSError as error:
        raise unreadable(path, error) from error
    return stat.st_size, stat.st_mtime_ns


def _seal(path: Path) -> dict[str, int]:
    """What `info.json` notes of a table, to know later that it is whole."""
    size = path.stat().st_size
    return {"bytes": size, "crc32": _checksum(path, size <= CHECK_ALL_BYTES)}


def _is_whole(folder: Path, names: Iterable[str]) -> bool:
    """Tell whether these files of a result are there as they were written."""
    try:
        seals = json.loads((folder / "info.json").read_text(encoding="utf-8"))["tables"]
        return all(seals[name] == _seal(folder / name) for name in names if name != "info.json")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


# --- Making it --------------------------------------------------------------------------------------------


def _make(files: list[Path], stamps: list[tuple[int, int]], result: Path, processes: int, progress: bool) -> list[str]:
    """Write all tables into a folder beside `result`, then put them in its place; return what the user should know."""
    temporary = result.with_name(f".{result.name}.tmp")
    temporary.mkdir()
    try:
        skipped = _write_tables(files, stamps, temporary, processes, progress)
        notes = []
        if skipped:
            notes.append(
                f"skipped {len(skipped)} of {len(files)} files, which hold nothing to learn from: {_named(skipped)}"
            )
        if result.exists():
            notes.append(f"{result}: tables were missing or damaged and have been made again")
            for name in TABLES:  # one by one: other files that lie there are not ours to remove
                (temporary / name).replace(result / name)
        else:
            temporary.rename(result)
        return notes
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _named(skipped: dict[Path, str]) -> str:
    return ", ".join(f"{path} ({why})" for path, why in skipped.items())


def _write_tables(
    files: list[Path], stamps: list[tuple[int, int]], folder: Path, processes: int, progress: bool
) -> dict[Path, str]:
    """Write the four tables: one pass over the slices, then numbering, then one pass over the rows.

    Returns the skipped files, with the reason for each.
    """
    codes = folder / "codes.tmp"  # one number per row, in order of first appearance
    batches = read_batches(files, processes)
    with contextlib.closing(batches), tqdm(total=len(files), unit="slice", disable=not progress) as bar:
        tracks, skipped = _merge(batches, files, stamps, folder / "playlists.parquet", codes, bar)
    tracks = tracks.combine_chunks()  # thousands of chunks would slow down what follows
    plays = _count(codes, len(tracks))
    ids = _ranks(plays, tracks["track_uri"])
    artists, albums = _write_tracks(tracks, plays, ids, folder / "tracks.parquet")
    del tracks
    playlists, repeats = _write_interactions(folder, codes, ids)
    codes.unlink()
    info = {
        "counts": {
            "slices": len(files) - len(skipped),
            "playlists": playlists,
            "rows": int(plays.sum()),
            "repeats": repeats,
            "tracks": len(ids),
            "artists": artists,
            "albums": albums,
        },
        "settings": SETTINGS,
        "files": [{"name": path.name, "bytes": size} for path, (size, _) in zip(files, stamps, strict=True)],
        "skipped": [{"name": path.name, "why": why} for path, why in skipped.items()],
        "versions": {
            "python": platform.python_version(),
            "msgspec": msgspec.__version__,
            "numpy": np.__version__,
            "pyarrow": pa.__version__,
        },
        "tables": {name: _seal(folder / name) for name in TABLES if name != "info.json"},
    }
    _write_info(info, folder / "info.json")
    return skipped


def _write_info(info: dict, path: Path) -> None:
    path.write_text(json.dumps(info, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _merge(
    batches: Iterable[Batch | Skipped],
    files: list[Path],
    stamps: list[tuple[int, int]],
    playlists: Path,
    codes: Path,
    bar: tqdm,
) -> tuple[pa.Table, dict[Path, str]]:
    """Write the playlists, and one code per row.

    Returns the tracks in the order of their codes, and the skipped files with the reason for each.
    """
    file_of: dict[int, Path] = {}
    skipped: dict[Path, str] = {}
    tracks, waiting = [], []
    with _writer(playlists, PLAYLIST_SCHEMA) as table, codes.open("wb") as code_file:
        for batch, path, stamp in zip(batches, files, stamps, strict=True):
            if _stamp(path) != stamp:
                raise MPDError(f"{path}: the file changed while it was read; try again when nothing writes to it")
            bar.update()
            if isinstance(batch, Skipped):
                skipped[path] = batch.why
                continue
            for pid in batch.playlists["user_id"].to_pylist():
                if pid in file_of:
                    raise MPDError(
                        f"{path}: pid {pid} occurs a second time, after {file_of[pid]}; remove one of the two"
                    )
                file_of[pid] = path
            tracks.append(batch.new)
            code_file.write(batch.codes.tobytes())
            waiting.append(batch.playlists)
            if sum(map(len, waiting)) >= SETTINGS["playlists_per_group"]:
                table.write_table(pa.Table.from_batches(waiting))
                waiting = []
        if waiting:
            table.write_table(pa.Table.from_batches(waiting))
    if not tracks:
        raise MPDError(
            f"{_named(skipped)}: nothing to learn from; put slices with playlists there (see data/README.md)"
        )
    return pa.concat_tables(tracks), skipped


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
            INTERACTION_SCHEMA,
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
    """Write the rows once more, as text, and note in `info.json` how to know that the file is whole."""
    columns = ["user_id", "track_id", "timestamp"]
    with (
        write_beside(result / CSV_NAME) as beside,
        pq.ParquetFile(result / "interactions.parquet") as rows,
        beside.open("wb") as file,
    ):
        file.write((",".join(columns) + "\n").encode())  # pyarrow would put the names in quotes
        for batch in rows.iter_batches(2**20, columns=columns):
            pa_csv.write_csv(batch, file, pa_csv.WriteOptions(include_header=False))
    info = json.loads((result / "info.json").read_text(encoding="utf-8"))
    info["tables"][CSV_NAME] = _seal(result / CSV_NAME)
    with write_beside(result / "info.json") as beside:
        _write_info(info, beside)
