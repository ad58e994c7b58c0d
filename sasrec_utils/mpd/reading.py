"""The format of the slices: which files count, what is in them, and one sentence for each that is none."""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa


class MPDError(ValueError):
    """Input that is no MPD slice, or an output that cannot be written.

    The message is one sentence that names the file, the place in it and what to do.
    """


# --- The format -------------------------------------------------------------------------------------------

# Keys are declared in file order, which the decoder reads fastest, and unknown keys are skipped. The bound on
# integers leaves room for sums in int64 and keeps them exact as floats.
Integer = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]


class TrackRecord(msgspec.Struct, kw_only=True, gc=False):
    """A track in a playlist, as the file has it."""

    pos: Integer | None = None
    artist_name: str | None = None
    track_uri: Annotated[str, msgspec.Meta(min_length=1)]
    artist_uri: str | None = None
    track_name: str | None = None
    album_uri: str | None = None
    duration_ms: Integer | None = None
    album_name: str | None = None


class PlaylistRecord(msgspec.Struct, kw_only=True, gc=False):
    """A playlist as the file has it; the last two keys are those of the challenge set, not of a slice."""

    name: str | None = None
    collaborative: Literal["true", "false"] | bool | None = None
    pid: Integer
    modified_at: Integer | None = None
    num_tracks: Integer | None = None
    num_albums: Integer | None = None
    num_followers: Integer | None = None
    tracks: list[TrackRecord]
    num_edits: Integer | None = None
    duration_ms: Integer | None = None
    num_artists: Integer | None = None
    description: str | None = None
    num_holdouts: Any = None
    num_samples: Any = None

    def holds_out(self) -> bool:
        """Whether tracks of this playlist were held out, to be guessed."""
        return self.num_holdouts is not None or self.num_samples is not None


P = TypeVar("P", bound=PlaylistRecord)


class _File(msgspec.Struct, Generic[P], kw_only=True, gc=False):
    info: Any = None
    playlists: list[P]


_COUNTS = ("num_tracks", "num_albums", "num_followers", "num_edits", "duration_ms", "num_artists")
_TEXTS = ("track_uri", "track_name", "artist_name", "artist_uri", "album_name", "album_uri")
PLAYLIST_SCHEMA = pa.schema(
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
TRACK_SCHEMA = pa.schema([*((name, pa.string()) for name in _TEXTS), ("duration_ms", pa.int64())])


def sort_tracks(tracks: list[TrackRecord]) -> None:
    """Put a playlist's tracks in order of `pos`; where any lacks it, the order of the file stands."""
    position = attrgetter("pos")
    if None not in map(position, tracks):
        tracks.sort(key=position)


def playlist_table(playlists: list[PlaylistRecord], lengths: list[int]) -> pa.RecordBatch:
    """Turn playlists into columns; `lengths` are their numbers of tracks."""
    columns = {name: list(map(attrgetter(name), playlists)) for name in ("name", "modified_at", *_COUNTS)}
    columns["user_id"] = [playlist.pid for playlist in playlists]
    as_bool = {"true": True, "false": False}
    columns["collaborative"] = [as_bool.get(p.collaborative, p.collaborative) for p in playlists]
    columns["description"] = [p.description and html.unescape(p.description) for p in playlists]
    columns["length"] = lengths
    return pa.RecordBatch.from_pydict(columns, schema=PLAYLIST_SCHEMA)


def track_table(tracks: list[TrackRecord]) -> pa.RecordBatch:
    """Turn tracks into columns; a duration of -1, which the files write for an unknown one, becomes null."""
    columns = {name: list(map(attrgetter(name), tracks)) for name in TRACK_SCHEMA.names}
    columns["duration_ms"] = [None if ms is None or ms < 0 else ms for ms in columns["duration_ms"]]
    return pa.RecordBatch.from_pydict(columns, schema=TRACK_SCHEMA)


# --- Which files ------------------------------------------------------------------------------------------


def slice_files(raw: str | os.PathLike | Iterable[str | os.PathLike]) -> list[Path]:
    """List slices in numeric order.

    `raw` is a folder, one file, or several files. This is the one rule for what counts as a slice in a folder: each
    file in it, not in folders inside it, whose name ends in `.json` and does not begin with a dot; a file that you
    name yourself counts whatever its name. `mpd.slice.A-B.json` are ordered by A as a number (as text, 10000 would
    come before 2000); any other file comes after them, by name. A file given twice counts once. Raises MPDError when
    there is none. Taught in notebook 01 §1.
    """
    if isinstance(raw, (str, os.PathLike)):
        folder = Path(raw)
        found = _in_folder(folder) if folder.is_dir() else [folder]
    else:
        found = [Path(path) for path in raw]
    if not found:
        raise MPDError(f"{raw}: there is no slice; put mpd.slice.*.json files there, unpacked (see data/README.md)")

    def order(path: Path) -> tuple:
        number = re.fullmatch(r"mpd\.slice\.(\d{1,18})-\d+\.json", path.name, re.ASCII)
        return number is None, int(number[1]) if number else 0, path.name, str(path)

    return sorted({path.absolute(): path for path in found}.values(), key=order)


def has_slices(folder: str | os.PathLike) -> bool:
    """Tell whether `slice_files` finds any in a folder; one that does not exist has none."""
    return Path(folder).is_dir() and len(_in_folder(Path(folder))) > 0


def _in_folder(folder: Path) -> list[Path]:
    # Names that begin with a dot are left behind by file managers, archives and interrupted writers.
    try:
        return [
            path
            for path in folder.iterdir()
            if path.suffix.lower() == ".json" and not path.name.startswith(".") and not path.is_dir()
        ]
    except OSError as error:
        raise MPDError(
            f"{folder}: the folder cannot be read ({error.strerror or error}); check that you may read it"
        ) from error


def unreadable(path: Path, error: OSError) -> MPDError:
    """Make the error for a file that the system does not let us read."""
    return MPDError(
        f"{path}: the file cannot be read ({error.strerror or error}); check that it exists, is a file and may be "
        "read by you"
    )


# --- Reading one file -------------------------------------------------------------------------------------


class SliceDecoder:
    """Decodes slices, and hands each playlist to `take` as soon as it is decoded.

    Tracks that are used and dropped while they are in the processor's cache cost half the time and little memory; all
    66,000 of a slice have long left the cache when a second loop walks them. `begin` is called before each attempt at
    a file: a second attempt may follow the first, so it forgets all that this file has handed over so far.
    """

    def __init__(self, take: Callable[[PlaylistRecord], None], begin: Callable[[], None] = lambda: None) -> None:
        decoder = self

        class Playlist(PlaylistRecord):
            def __post_init__(self) -> None:
                decoder._taken += 1
                take(self)

        self._json = msgspec.json.Decoder(_File[Playlist])
        self._begin = begin
        self._taken = 0

    def read(self, path: Path) -> _File:
        """Decode and check one file; MPDError with file, place and remedy when it is no slice.

        What is not quite JSON, or not quite the format, but has only one meaning is read as that, at a third of the
        speed: see `_as_meant`.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise unreadable(path, error) from error
        try:
            return self._decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            first = error
        try:
            return self._decode(_as_meant(content))
        except msgspec.ValidationError as error:  # JSON it is, so the fault is in what it says
            raise _no_slice(path, content, error) from error
        except (msgspec.DecodeError, ValueError, RecursionError):
            raise _no_slice(path, content, first) from first

    def _decode(self, content: bytes) -> _File:
        self._begin()
        self._taken = 0
        decoded = self._json.decode(content)
        if self._taken != len(decoded.playlists):
            raise msgspec.ValidationError(_TWICE)
        return decoded


_TWICE = "the key `playlists` occurs more than once - at `$`"


def _as_meant(content: bytes) -> bytes:
    """Rewrite what other programs write for JSON: UTF-16 or a byte order mark, `NaN` for null, `1000.0` for 1000.

    pandas makes floats of whole numbers, and NaN of what is missing, as soon as one value of a column is missing.
    Raises ValueError for anything that is no JSON beyond that.
    """

    def whole(text: str) -> int | float:
        number = float(text)
        return int(number) if number.is_integer() and abs(number) <= 2**53 else number

    def constant(text: str) -> None:
        if text != "NaN":
            raise ValueError(f"{text} is no number")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if keys.count("playlists") > 1:
            raise ValueError(_TWICE)
        return dict(pairs)

    # `loads` finds out about UTF-8, -16 and -32, with and without a mark, by itself.
    meant = json.loads(content, parse_float=whole, parse_constant=constant, object_pairs_hook=once)
    return json.dumps(meant).encode()


def _no_slice(path: Path, content: bytes, error: Exception) -> MPDError:
    """Say in one sentence what is wrong with a file, where, and what helps."""
    if content.startswith((b"\x1f\x8b", b"PK\x03\x04")):
        return MPDError(f"{path}: the file is compressed; unpack it and give what was in it")
    if isinstance(error, msgspec.ValidationError):
        return MPDError(
            f"{path}: {error}; correct this place or copy the file again (a slice needs `playlists`, a playlist "
            "`pid` and `tracks`, a track `track_uri`)"
        )
    if isinstance(error, UnicodeDecodeError):
        return MPDError(f"{path}: {_utf8_place(content)} is no UTF-8 text; copy the file again")
    if isinstance(error, RecursionError):
        return MPDError(f"{path}: its brackets nest too deeply for a slice; copy the file again")
    place = f"it is cut off after byte {len(content)}" if "truncated" in str(error) else str(error)
    return MPDError(f"{path}: {place}; copy the file again, complete and unchanged")


def _utf8_place(content: bytes) -> str:
    """Name the first byte that is not UTF-8 (the decoder's own error counts from the start of one string)."""
    try:
        content.decode()
    except UnicodeDecodeError as error:
        return f"byte {error.start}"
    return "a string"


# --- For exploring ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Slice:
    """One slice as tables, for exploring.

    `playlists` has one row per playlist and `rows` one per track in it, with the keys of the file as columns (`rows`
    begins with the playlist's `pid`) and null where a key is missing; `info` is the head of the file.
    """

    playlists: pd.DataFrame
    rows: pd.DataFrame
    info: dict


def read_slice(path: str | os.PathLike) -> Slice:
    """Read one slice into tables.

    Like `prepare`, it turns `collaborative` into a boolean and track durations of -1 ms into null, undoes the HTML
    escapes of descriptions, leaves names exactly as they are, and orders rows by `pos` where all rows of a playlist
    have one. Raises MPDError when the file is no slice or has no playlists. Taught in notebook 01 §1.
    """
    path = Path(path)
    decoded = SliceDecoder(lambda playlist: sort_tracks(playlist.tracks)).read(path)
    if not decoded.playlists:
        raise MPDError(f"{path}: `$.playlists` is empty; take another slice or copy this one again")
    rows = [track for playlist in decoded.playlists for track in playlist.tracks]
    lengths = [len(playlist.tracks) for playlist in decoded.playlists]
    playlists, tracks = playlist_table(decoded.playlists, lengths), track_table(rows)
    others = [name for name in TrackRecord.__struct_fields__ if name != "pos"]
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
