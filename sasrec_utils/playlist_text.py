"""Playlists as text: a reader's own playlist in, from whatever they can copy or export, and CSV and M3U out.

`read_playlist` understands a CSV as Exportify writes it, an M3U, Spotify links and URIs, and lines such as "Artist -
Title". What it writes, it reads back; other programs open it without harm.
"""

from __future__ import annotations

import csv
import io
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, unquote_plus

import pandas as pd

from sasrec_utils.track_names import COLUMNS, TrackNames, fold, not_a_track, plain, track_uri

__all__ = [
    "Entry",
    "Missing",
    "PlaylistText",
    "PlaylistTextError",
    "as_csv",
    "as_m3u",
    "read_entries",
    "read_playlist",
    "recognise",
]

LARGEST = 10_000_000  # bytes; the longest playlists of Spotify (10,000 tracks) are a third of this as CSV
SUGGESTED = 50  # tracks that were not recognised and get suggestions: a list without a single hit must not take minutes
SUFFIXES = (".csv", ".m3u", ".m3u8", ".txt", ".tsv")

# How exporters name their columns, folded: Exportify, Soundiiz, TuneMyMusic, and what `as_csv` writes.
_URI = ("track uri", "spotify uri", "uri", "spotify track uri", "url", "spotify url", "link", "spotify id", "track id")
_TITLE = ("track name", "name", "title", "song", "song name", "track", "track title")
_ARTIST = ("artist name s", "artist name", "artist names", "artist", "artists", "artist s")
_FORMULA = ("=", "+", "-", "@")  # what a spreadsheet takes for the beginning of a formula


class PlaylistTextError(ValueError):
    """Text or a file that holds no playlist: one sentence that says what is wrong and what to do."""


@dataclass(frozen=True)
class Entry:
    """One track as somebody wrote it. `line`: where, from 1, or 0 if it comes from no text with lines. `text`: all of
    it, to show. `uri`, `title`, `artist`: what was told apart, else ""."""

    line: int
    text: str
    uri: str = ""
    title: str = ""
    artist: str = ""


@dataclass(frozen=True)
class Missing:
    """A track that was not recognised. `reason`: half a sentence. `suggestions`: ids that may be meant, best first."""

    entry: Entry
    reason: str
    suggestions: list[int]


@dataclass(frozen=True)
class PlaylistText:
    """What was read. `ids`: the recognised tracks, in order. `entries`: all that was written. `missing`: the others.

    As text, it says "31 of 40 tracks recognised." and of each other one what was probably meant.
    """

    ids: list[int]
    entries: list[Entry]
    missing: list[Missing]
    names: TrackNames = field(repr=False)

    def __str__(self) -> str:
        tracks = "track" if len(self.entries) == 1 else "tracks"
        lines = [f"{len(self.ids):,} of {len(self.entries):,} {tracks} recognised."]
        for one in self.missing:
            labels = [self.names.label(i) for i in one.suggestions]
            meant = f"; perhaps {' / '.join(labels)}?" if labels else "."
            place = f"line {one.entry.line}: " if one.entry.line else ""
            lines.append(f"  {place}{plain(one.entry.text)[:100]!r} is {one.reason}{meant}")
        return "\n".join(lines)


def read_playlist(source: str | bytes | os.PathLike, names: TrackNames, suggestions: int = 3) -> PlaylistText:
    """The tracks of a playlist that somebody pasted or exported, as ids of `names`.

    `source`: the text itself, its bytes, or a file (a path, or one line that is the name of an existing .csv, .m3u or
    .txt). A track is recognised by its URI, else by title and artist (`TrackNames.find`); a repeat stays one. The first
    `SUGGESTED` others get up to `suggestions` nearest names. Raises PlaylistTextError if there is no track in it.
    """
    return recognise(read_entries(source), names, suggestions)


def recognise(entries: list[Entry], names: TrackNames, suggestions: int = 3) -> PlaylistText:
    """Which tracks are meant by entries that somebody wrote; see `read_playlist`."""
    ids, missing = [], []
    for entry in entries:
        found = _find(entry, names)
        if found:
            ids.append(found)
            continue
        reason = not_a_track(entry.text) or "not known"
        asked = suggestions > 0 and len(missing) < SUGGESTED
        missing.append(Missing(entry, reason, names.nearest(entry.text, suggestions) if asked else []))
    return PlaylistText(ids, entries, missing, names)


def _find(entry: Entry, names: TrackNames) -> int:
    found = names.find(entry.uri) if entry.uri else 0
    if not found and entry.title:
        found = names.find_named(entry.title, entry.artist)
    return found or names.find(entry.text)


def read_entries(source: str | bytes | os.PathLike) -> list[Entry]:
    """What is written in a playlist, one entry a track, before anybody looks for it. `source` as in `read_playlist`."""
    text, where = _text(source)
    if not text.strip():
        raise PlaylistTextError(f"{where} is empty: give a CSV or M3U export, links, or lines 'Artist - Title'.")
    if "\0" in text:
        raise PlaylistTextError(f"{where} is not text: give a CSV or M3U export, links, or lines 'Artist - Title'.")
    lines = text.splitlines()
    if any(line.startswith(("#EXTM3U", "#EXTINF")) for line in lines):
        entries = _read_m3u(lines)
    else:
        entries = _read_csv(text, where)
        if entries is None:
            entries = [Entry(n, line.strip(), track_uri(line)) for n, line in enumerate(lines, 1) if line.strip()]
    if not entries:
        raise PlaylistTextError(f"{where} names no track: give a CSV or M3U export, links, or lines 'Artist - Title'.")
    return entries


def _text(source: str | bytes | os.PathLike) -> tuple[str, str]:
    """The text, and what to call it in a sentence."""
    if isinstance(source, str) and not _names_a_file(source):
        if len(source) > LARGEST:
            raise PlaylistTextError(f"the text is longer than {LARGEST:,} characters: that is no playlist.")
        return source.removeprefix("\ufeff"), "the text"
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        try:
            with open(path, "rb") as file:
                source = file.read(LARGEST + 1)
        except OSError as error:
            raise PlaylistTextError(f"{path}: cannot be read ({error.strerror or error}).") from error
        where = str(path)
    else:
        source, where = bytes(source), "the file"
    if len(source) > LARGEST:
        raise PlaylistTextError(f"{where} is larger than {LARGEST:,} bytes: that is no playlist.")
    for encoding in ("utf-8-sig", "utf-16") if not source.startswith((b"\xff\xfe", b"\xfe\xff")) else ("utf-16",):
        try:
            return source.decode(encoding), where
        except UnicodeDecodeError:
            if encoding == "utf-8-sig":
                return source.decode("cp1252", errors="replace"), where  # as older players write M3U
    raise PlaylistTextError(f"{where} is not text: give a CSV or M3U export, links, or lines 'Artist - Title'.")


def _names_a_file(text: str) -> bool:
    one_line = "\n" not in text and len(text) < 4096 and "\0" not in text
    return one_line and text.lower().endswith(SUFFIXES) and Path(text).is_file()


# --- the formats ------------------------------------------------------------------------------------------------------


def _read_m3u(lines: list[str]) -> list[Entry]:
    """Each place with the name that `#EXTINF` gave it; a file without one is called what its name says."""
    entries, said = [], None
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if line.startswith("#EXTINF"):
            if said:
                entries.append(Entry(*said))  # a name whose place is missing is still a track
            said = (number, line.partition(",")[2].strip())
        elif line and not line.startswith("#"):
            named = said[1] if said and said[1] else ""
            entries.append(Entry(number, named or _place_name(line), track_uri(line) or _local_uri(line)))
            said = None
    if said:
        entries.append(Entry(*said))
    return [entry for entry in entries if entry.text or entry.uri]


def _place_name(place: str) -> str:
    """What a path or an address says about the track: the name of its file; a Spotify link stays itself."""
    if track_uri(place) or not_a_track(place) or place.startswith("spotify:"):
        return place
    name = re.split(r"[/\\]", unquote(place))[-1]
    return re.sub(r"\.\w{2,5}$", "", name)


def _local_uri(text: str) -> str:
    return text if text.startswith("spotify:local:") else ""


def _read_csv(text: str, where: str) -> list[Entry] | None:
    """The rows of a table whose head names a URI, or a title and an artist; None if this is no such table."""
    head = text.lstrip().splitlines()[0]
    delimiter = max(",;\t", key=head.count)
    columns = [fold(name) for name in next(csv.reader([head], delimiter=delimiter))]
    uri, title, artist = (_column(columns, names) for names in (_URI, _TITLE, _ARTIST))
    if uri is None and (title is None or artist is None):
        return None
    try:
        rows = csv.reader(io.StringIO(text.lstrip(), newline=""), delimiter=delimiter, strict=True)
        next(rows)
        entries = []
        for row in rows:
            entry = _csv_entry(rows.line_num, *(_cell(row, column) for column in (uri, title, artist)))
            if entry is not None:
                entries.append(entry)
        return entries
    except csv.Error as error:
        raise PlaylistTextError(f"{where}: is no valid CSV ({error}); export the playlist again.") from error


def _column(columns: list[str], names: tuple[str, ...]) -> int | None:
    return next((columns.index(name) for name in names if name in columns), None)


def _cell(row: list[str], column: int | None) -> str:
    cell = row[column].strip() if column is not None and column < len(row) else ""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell  # as `as_csv` wrote it


def _csv_entry(line: int, uri: str, title: str, artist: str) -> Entry | None:
    if re.fullmatch(r"[0-9A-Za-z]{22}", uri):
        uri = f"spotify:track:{uri}"
    if uri.startswith("spotify:local:") and not title:  # spotify:local:Artist:Album:Title:seconds
        parts = [unquote_plus(part) for part in uri.split(":")] + [""] * 5
        artist, title = parts[2], parts[4]
    text = " - ".join(part for part in (artist, title) if part) or uri
    return Entry(line, text, track_uri(uri) or uri, title, artist) if text else None


# --- and back ---------------------------------------------------------------------------------------------------------


def as_csv(tracks: pd.DataFrame) -> str:
    """A table of tracks (the four columns of `TrackNames`) as CSV: position and names, one line a track.

    A name that a spreadsheet would run as a formula gets an apostrophe in front; missing names stay empty.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["position", *COLUMNS])
    for position, row in enumerate(tracks[list(COLUMNS)].itertuples(index=False), 1):
        cells = [plain(cell) for cell in row]
        writer.writerow([position, *(f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in cells)])
    return text.getvalue()


def as_m3u(tracks: pd.DataFrame) -> str:
    """A table of tracks as M3U: `#EXTINF:-1,Artist - Title` above each URI. No name can begin a line of its own."""
    lines = ["#EXTM3U"]
    for uri, title, artist, _ in tracks[list(COLUMNS)].itertuples(index=False):
        named = " - ".join(part for part in (plain(artist), plain(title)) if part)
        lines += [f"#EXTINF:-1,{named}", plain(uri).lstrip("#")]
    return "\n".join(lines) + "\n"
