"""Track names as people write them: which track is surely meant, which ones probably, and names that are safe to show.

People write any case, leave accents out, put the artist before or after the title, copy "(feat. …)" or "- Remastered
2011" along, or paste a Spotify link. `TrackNames.find` answers what is certain, `nearest` what is probable, `search`
what holds some words. Names come from other people's data: `plain` makes them safe for a line of text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cached_property, lru_cache
from itertools import islice

import numpy as np
import pandas as pd
from rapidfuzz import fuzz, process

__all__ = ["TrackNames", "fold", "fold_title", "not_a_track", "plain", "track_uri"]

COLUMNS = ("track_uri", "track_name", "artist_name", "album_name")
SUGGESTED_FROM = 100_000  # most played tracks: what is probably meant is sought among them, in bounded time
DASHES = 6  # in a text, between which an artist and a title are told apart: a look-up takes bounded time
LIKENESS = 60  # of 100, below which nobody would recognise what they meant

# Letters that Unicode does not take apart into a plain one and a mark, and signs that stand for a word or for nothing.
_LETTERS = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i", "&": " and "}
    | dict.fromkeys("'’‘`´")
)
_MARKS = re.compile("[\u0300-\u036f]+")  # accents of Latin, Greek and Cyrillic; the vowels of other scripts stay
_NO_WORD = re.compile(r"[^a-z0-9]+")

# What services add to the title of one and the same recording. A live version or a remix is another one: it stays.
# Guests take 150 letters at most: without a bound, brackets that never close would take the square of their number.
_FEATURED = re.compile(
    r"\s*[(\[]\s*(?:feat|ft|featuring|with)\b[^)\]]{0,150}[)\]]|\s+(?:feat\.?|ft\.?|featuring)\s.*?(?=\s[-–—]\s|[(\[]|$)"
)
_EDITION = (
    r"(?:(?:mono|stereo)\s*/\s*)?(?:\d{4}\s+)?(?:digital(?:ly)?\s+)?remaster(?:ed)?(?:\s+(?:version|edition))?(?:\s+\d{4})?"
    r"|(?:album|single|original|radio|mono|stereo|lp|explicit)\s+(?:version|edit|mix)|bonus track"
)
_VERSION = re.compile(rf"\s+[-–—]\s+(?:{_EDITION})\s*$|\s*[(\[]\s*(?:{_EDITION})\s*[)\]]")
_ADDED = re.compile(r"feat|ft\b|with|remaster|version|edit|mix|bonus")  # a title without one of these is as it is

_DASH = re.compile(r"\s+[-–—−―]\s+|\s*[—―]\s*|\t+")  # a hyphen and an en dash need blanks: they are parts of names too
_NUMBERING = re.compile(r"^\s*(?:\d{1,4}\s*[.)]|[-*•])\s+|^\s*\d{1,3}\s+-\s+")
_ARTISTS = re.compile(r"\s*[,;/]\s*|\s+(?:&|\+|and|x|×|feat\.?|ft\.?|featuring|with|vs\.?)\s+", re.IGNORECASE)
_LINK = re.compile(
    r"(?:(?:https?://)?(?:open|play)\.spotify\.com/(?:intl-[a-z-]+/)?(?:embed/)?(?:user/[^/]+/)?|spotify:(?:user:[^:]+:)?)"
    r"(track|album|artist|playlist|episode|show|user)[/:]([^/?#:\s]+)",
    re.IGNORECASE,
)
_UNSEEN = re.compile("[\u200b\u200e\u200f\u061c\u202a-\u202e\u2060\u2066-\u2069\ufeff]")  # among them what turns text


def plain(text: str | None) -> str:
    """One line without control characters (a terminal obeys them) and without those that turn the text around them."""
    if not isinstance(text, str):
        return ""
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    text = " ".join(
        _UNSEEN.sub("", text).split()
    )  # line ends and tabs are blanks, all other control characters nothing
    return " ".join("".join(c for c in text if unicodedata.category(c) not in ("Cc", "Cs")).split())


def fold(text: str) -> str:
    """Text without what people write differently: case, accents, punctuation, "&" for "and".

    Text without a letter or a digit, such as "???", stays as it is, in lower case.
    """
    folded = lower = " ".join(text.casefold().split())
    if lower.isascii() and lower.replace(" ", "").isalnum():  # most names: nothing to do, and there may be millions
        return lower
    if not lower.isascii():
        folded = _MARKS.sub("", unicodedata.normalize("NFKD", lower)).casefold()
    folded = folded.translate(_LETTERS)
    if folded.isascii():
        folded = _NO_WORD.sub(" ", folded)
    else:
        folded = "".join(c if unicodedata.category(c)[0] in "LNM" else " " for c in folded)
    return " ".join(folded.split()) or lower


def fold_title(title: str) -> str:
    """`fold` of a title, without guests and editions: "Song (feat. X) - Remastered 2011" is "song"."""
    lower = title.casefold()
    if _ADDED.search(lower):
        bare = _FEATURED.sub(" ", _VERSION.sub(" ", lower))
        return fold(bare) or fold(lower)
    return fold(lower)


@lru_cache(maxsize=100_000)
def _fold_artist(artist: str) -> str:
    return fold(artist).removeprefix("the ")


def track_uri(text: str) -> str:
    """The URI `spotify:track:…` of a Spotify track's link or URI; "" if it is none."""
    link = _LINK.match(text.strip())
    return f"spotify:track:{link[2]}" if link and link[1].lower() == "track" else ""


def not_a_track(text: str) -> str:
    """What to say about a link that leads to no single track (half a sentence); "" if it is no such link."""
    link = _LINK.match(text.strip())
    if link and link[1].lower() != "track":
        return f"a link to {_article(link[1].lower())}, not to a track: export its tracks as CSV and give that file"
    if re.match(r"(?:https?://)?spotify\.(?:link|app\.link)/", text.strip(), re.IGNORECASE):
        return "a short link, which only Spotify can open: open it and copy the long one"
    return ""


def _article(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


class TrackNames:
    """The names of N tracks, and which of them a text means. Ids are 1…N, 0 is none.

    `tracks`: a table whose row i names id i + 1, with `track_uri`, `track_name`, `artist_name`, `album_name`, the most
    played track first: of several tracks of one name the first is meant. What a look-up needs is made at the first one
    (a tenth of a second for 34,000 tracks).
    """

    def __init__(self, tracks: pd.DataFrame):
        # Object arrays: picking ten entries takes microseconds, from a pandas column it would take most of a request.
        self.columns = {c: tracks[c].to_numpy(dtype=object, na_value=None) for c in COLUMNS}
        self._uris, self._titles, self._artists = (self.columns[c] for c in COLUMNS[:3])

    def __len__(self) -> int:
        return len(self._uris)

    def table(self, ids: Sequence[int] | np.ndarray) -> pd.DataFrame:
        """The tracks of ids 1…N, one row each: track_id and the four names."""
        rows = np.asarray(ids, dtype=np.int64) - 1
        return pd.DataFrame({"track_id": rows + 1, **{c: column[rows] for c, column in self.columns.items()}})

    def label(self, track_id: int) -> str:
        """ "Artist - Title" of a track, safe to show; what is not known is left out."""
        artist, title = plain(self._artists[track_id - 1]), plain(self._titles[track_id - 1])
        return " - ".join(part for part in (artist, title) if part) or plain(self._uris[track_id - 1])

    # --- what is certain ----------------------------------------------------------------------------------------------

    def find(self, text: str) -> int:
        """The id of the track that `text` surely means, else 0: a URI or link, a title, or a title and an artist.

        "Artist - Title", "Title — Artist", any dash, case and accents; several artists, of whom one has to be the
        track's; a number in front. A title as it is written goes before one without its guests and edition.
        """
        text = text.strip()
        found = self._id_of_uri.get(text, 0) or self._id_of_uri.get(track_uri(text), 0)
        if found or track_uri(text) or not_a_track(text):
            return found
        return self._find_words(text) or self._find_words(_NUMBERING.sub("", text, count=1))

    def find_named(self, title: str, artist: str = "") -> int:
        """The id of the track with this title by one of these artists (any artist, if none is given), else 0."""
        wanted = _artists(artist)
        fits = [i for i in self._ids_of_title.get(fold_title(title), ()) if not wanted or wanted & self._artists_of(i)]
        written = [i for i in fits if _same(self._titles[i - 1], title)]
        return (written or fits or [0])[0]

    def _find_words(self, text: str) -> int:
        for i in self._ids_of_title.get(fold_title(text), ()):
            if _same(self._titles[i - 1], text):
                return i
        dashes = islice(_DASH.finditer(text), DASHES)
        pairs = [(text[: dash.start()], text[dash.end() :]) for dash in dashes]
        pairs = [(left, right) for left, right in pairs if fold(left) and fold(right)]
        for artist, title in pairs:
            if found := self.find_named(title, artist):
                return found
        if found := self.find_named(text):
            return found
        for title, artist in pairs:
            if found := self.find_named(title, artist):
                return found
        return 0

    def _artists_of(self, track_id: int) -> frozenset[str]:
        return _artists(self._artists[track_id - 1] or "")

    @cached_property
    def _id_of_uri(self) -> dict[str, int]:
        return {uri: i + 1 for i, uri in enumerate(self._uris) if uri}

    @cached_property
    def _ids_of_title(self) -> dict[str, list[int]]:
        ids: dict[str, list[int]] = {}
        for i, title in enumerate(self._titles, 1):
            if title and (folded := fold_title(title)):
                ids.setdefault(folded, []).append(i)
        return ids

    # --- what is probable ---------------------------------------------------------------------------------------------

    def nearest(self, text: str, k: int = 3) -> list[int]:
        """Up to `k` ids whose names are most like `text`, the most alike first; none for a link, which has no name.

        Alike is what takes few insertions and deletions: the title alone, or title and artist in any order of words.
        Sought among the `SUGGESTED_FROM` most played tracks, so that the time is bounded: 10 to 20 ms for 34,000.
        """
        if track_uri(text) or not_a_track(text):
            return []
        text = _NUMBERING.sub("", text, count=1)
        whole = fold_title(text)
        titles = {whole, *(fold_title(part) for part in _DASH.split(text)[:DASHES])}
        likeness: dict[int, float] = {}
        asked = [(title, self._near_titles) for title in titles] + [(_sorted_words(whole), self._near_words)]
        for query, names in asked:
            # A part of a line that is the artist's name must not outdo the whole line: it counts a little less.
            weight = 1.0 if query == whole or names is self._near_words else 0.9
            if len(query) < 2:
                continue
            for _, score, row in process.extract(query, names, scorer=fuzz.ratio, limit=k, score_cutoff=LIKENESS):
                likeness[row + 1] = max(likeness.get(row + 1, 0.0), weight * score)
        return sorted(likeness, key=lambda i: (-likeness[i], i))[:k]

    @cached_property
    def _near_titles(self) -> list[str]:
        return [fold_title(title) if title else "" for title in self._titles[:SUGGESTED_FROM]]

    @cached_property
    def _near_words(self) -> list[str]:
        artists = [_fold_artist(artist) if artist else "" for artist in self._artists[:SUGGESTED_FROM]]
        return [_sorted_words(f"{a} {t}") for a, t in zip(artists, self._near_titles, strict=True)]

    def search(self, text: str, k: int = 10) -> list[int]:
        """Up to `k` ids whose title and artist hold every word of `text`, also as a part of a word; most played first.

        A track whose whole title is `text` comes before the others.
        """
        words = fold(text).split()
        if not words:
            return []
        whole = self._ids_of_title.get(fold_title(text), [])[:k]
        found = list(whole)
        for i, name in enumerate(self._searched, 1):
            if len(found) == k:
                break
            if all(word in name for word in words) and i not in whole:
                found.append(i)
        return found

    @cached_property
    def _searched(self) -> list[str]:
        pairs = zip(self._artists, self._titles, strict=True)
        return [f"{fold(artist) if artist else ''} {fold(title) if title else ''}" for artist, title in pairs]


@lru_cache(maxsize=100_000)
def _artists(text: str) -> frozenset[str]:
    """The folded artists of a text: as one name and, where it lists several, each."""
    return frozenset(_fold_artist(part) for part in (text, *_ARTISTS.split(text)) if part.strip())


def _same(a: str | None, b: str) -> bool:
    return a is not None and " ".join(a.casefold().split()) == " ".join(b.casefold().split())


def _sorted_words(text: str) -> str:
    return " ".join(sorted(text.split()))
