"""What things are called in the made-up world: URIs, names of tracks, albums and artists, titles of playlists.

Everything is a function of the world's seed and an id, so it is the same in every process, and no other draw of the
world depends on it. The words and the patterns they are put in lie in `words.toml`, genre by genre.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment

if TYPE_CHECKING:
    from sasrec_utils.world.law import Playlists, World

# Words that people really put in titles; each mood has its own taste for them. A mood knows them by their place, and
# this order is the one in which the moods of the teaching world have words and genres that go together.
TITLE_WORDS = (
    "sad songs", "workout", "road trip", "happy", "angry", "summer", "christmas", "sleep", "feels", "acoustic",
    "chill", "rainy days", "love", "morning", "shower", "throwback", "party", "running", "gaming", "study",
    "focus", "night drive", "roots", "dinner", "beach", "winter", "coffee", "vibes", "dance", "oldies",
)  # fmt: skip
_TITLE = re.compile(rf"\b({'|'.join(TITLE_WORDS)})\b")
_BASE62 = np.frombuffer(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", dtype=np.uint8)


def uris(seed: int, kind: str, ids: np.ndarray) -> list[str]:
    """URIs like the MPD's of tracks, albums or artists (`kind`): 22 digits of base 62."""
    salt = {"track": 1, "album": 2, "artist": 3}[kind]
    digits = []
    for half in (0, 1):
        value = mixed(seed, 2 * salt + half, ids)
        for _ in range(11):
            digits.append((value % 62).astype(np.int64))
            value = value // 62
    digits[0] %= 8  # real ones are 128-bit numbers, so their first digit is at most 7
    return [f"spotify:{kind}:{code.decode()}" for code in _BASE62[np.stack(digits, 1)].view("S22").ravel()]


def mixed(seed: int, salt: int, ids: np.ndarray) -> np.ndarray:
    """Well-spread uint64 values, a function of (seed, salt, id): SplitMix64's finaliser (Steele et al. 2014), twice."""
    with np.errstate(over="ignore"):
        start = np.uint64((seed * 1_000_003 + salt) % 2**32) * np.uint64(0x9E3779B97F4A7C15)
        x = np.asarray(ids).astype(np.uint64) + start
        for _ in range(2):
            x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            x = x ^ (x >> np.uint64(31))
    return x


_PLENTY = 400  # names of a kind that the words of a genre are enough for
_MOSTLY = 0.42  # share of what is played under a title word that makes a genre its own: "metal workout"

# --- names of tracks, albums and artists ------------------------------------------------------------------------------


@cache
def words() -> dict:
    """`words.toml` as it is: texts whose entries are parted by " / ", see `entries`."""
    return tomllib.loads(Path(__file__).with_name("words.toml").read_text(encoding="utf-8"))


def entries(text: str) -> list[str]:
    """The entries of one text of `words.toml`: "3 x {word} / {word} mix" gives {word} three times, {word} mix once."""
    out = []
    for entry in re.split(r"\s+/\s+", " ".join(text.split())):
        times = re.match(r"(\d+) x ", entry)
        out += [entry[times.end() :]] * int(times[1]) if times else [entry]
    return out


def genre_names(world: World) -> list[str]:
    """The name of each of the world's genres, in the order of its ids.

    A world of G genres has the first G of `words.toml`; which genre gets which of them is chosen so that they fit the
    moods: the most of the title words that a genre's playlists have should be among those that the name fits.
    """
    c, names = world.config, list(words()["genre"])
    rounds = -(-c.genres // len(names))
    names = [name if i == 0 else f"{name} {i + 1}" for i in range(rounds) for name in names][: c.genres]
    fits = np.array(
        [[w in entries(words()["genre"][genre_base(name)]["fits"]) for name in names] for w in TITLE_WORDS], dtype=float
    )
    heard = world.mood_genres.T @ world.mood_words  # [G, title words] how often they meet
    genre, name = linear_sum_assignment(-(heard @ fits))
    return [names[j] for j in name[np.argsort(genre)]]


def genre_base(name: str) -> str:
    """The genre as `words.toml` has it: jazz for "jazz 2", which only a world of very many genres has."""
    return name if name in words()["genre"] else name.rsplit(" ", 1)[0]


class Names:
    """Invents the names of one world, only those that are asked for.

    Artists, albums and tracks are numbered 0, 1, … within their genre, and each name takes the next cards from the
    genre's decks (`Decks`): so neighbours never share a word, and nothing has to be remembered.
    """

    def __init__(self, world: World):
        self.world, self.genres = world, genre_names(world)
        c, everyone = world.config, {name: entries(text) for name, text in words()["everyone"].items()}
        self.first_artist = np.searchsorted(world.genre_of, np.arange(c.genres))
        self.first_track = world.artist_first[self.first_artist]
        self.first_album = world.album[self.first_track]
        self.decks, self.oddities = {}, {}
        self.endings = {
            kind: _filled(everyone.get(f"{kind}_ending", []), everyone) for kind in ("artist", "album", "track")
        }
        for g, genre in enumerate(self.genres):
            about = words()["genre"][genre_base(genre)]
            lists = everyone | {name: entries(text) for name, text in about.items()}
            for i, kind in enumerate(("artist", "album", "track")):
                self.decks[kind, g] = Decks(entries(about[f"{kind}s"]), lists, np.random.default_rng([c.seed, 3, g, i]))
                odd = words()["oddities"].get(f"{kind}s", {}).get(genre)
                self.oddities[kind, g] = entries(odd) if odd else []

    def of(self, kind: str, ids: np.ndarray) -> list[str]:
        """Names of tracks, albums or artists (`kind`), one for each of `ids` int [n]."""
        unique, back = np.unique(ids, return_inverse=True)
        artist = unique
        if kind == "track":
            artist = self.world.artist[unique]
        if kind == "album":
            artist = self.world.artist[np.searchsorted(self.world.album, unique)]
        genre = self.world.genre_of[artist]
        first = {"track": self.first_track, "album": self.first_album, "artist": self.first_artist}[kind]
        made = np.empty(len(unique), dtype=object)
        for g in np.unique(genre):
            rows = np.flatnonzero(genre == g)
            number = unique[rows] - first[g]
            made[rows] = self.decks[kind, g].deal(number)
            self._put_endings(made, unique, rows[number >= _PLENTY], kind)
            self._put_oddities(made, rows, number, kind, g)
        if kind == "album":
            self._put_title_tracks(made, unique)
        return made[back].tolist()

    def _put_endings(self, made: np.ndarray, ids: np.ndarray, rows: np.ndarray, kind: str) -> None:
        """Half of these names get an ending: "Two Moons (Live in Ghent)"."""
        endings = self.endings[kind]
        pick = mixed(self.world.config.seed, 13, ids[rows]) % np.uint64(max(1, 2 * len(endings)))
        for row, i in zip(rows.tolist(), pick.tolist(), strict=True):
            if i < len(endings):
                made[row] = f"{made[row]} {endings[i]}"

    def _put_oddities(self, made: np.ndarray, rows: np.ndarray, number: np.ndarray, kind: str, g: int) -> None:
        """One artist in nine and one track in 37 has a name from the list of oddities, as long as the list lasts."""
        every, start = {"artist": (9, 4), "album": (1, 0), "track": (37, 11)}[kind]
        for i, name in enumerate(self.oddities[kind, g]):
            made[rows[number == start + i * every]] = name

    def _put_title_tracks(self, made: np.ndarray, albums: np.ndarray) -> None:
        """Albums named {track} get the name of one of their tracks."""
        named = np.flatnonzero(made == "{track}")
        low, high = np.searchsorted(self.world.album, [albums[named], albums[named] + 1])
        pick = low + (mixed(self.world.config.seed, 12, albums[named]) % (high - low).astype(np.uint64)).astype(int)
        made[named] = self.of("track", self.world.twin[pick])


class Decks:
    """Patterns such as "{soft} {thing}" and, for each list in braces, its words as a shuffled deck of cards.

    Name number i has the pattern that its place in a shuffled schedule says, and takes the next card of each deck that
    the pattern needs. A deck that is used up starts again a few cards further on, each deck by another number, so that
    the same pairs do not come again. Since the schedule is fixed, what all earlier names took is counted, not dealt.
    """

    def __init__(self, patterns: list[str], lists: dict[str, list[str]], rng: np.random.Generator):
        self.slots = [[name for name in re.findall(r"\{(\w+)\}", p) if name in lists] for p in patterns]
        names = list(dict.fromkeys(name for slots in self.slots for name in slots))
        self.forms = [p.replace("%", "%%") for p in patterns]
        for name in names:
            self.forms = [form.replace(f"{{{name}}}", "%s") for form in self.forms]
        self.schedule = rng.permutation(np.tile(np.arange(len(patterns)), -(-24 // len(patterns))))
        self.cards = {name: rng.permutation(np.array(lists[name], dtype=object)) for name in names}
        self.step = {name: i for i, name in enumerate(names)}
        takes = {name: np.array([name in self.slots[p] for p in self.schedule]) for name in names}
        self.taken = {name: np.concatenate([[0], np.cumsum(t)]) for name, t in takes.items()}

    def deal(self, number: np.ndarray) -> np.ndarray:
        """The names of these numbers, object [n]."""
        pattern = self.schedule[number % len(self.schedule)]
        made = np.empty(len(number), dtype=object)
        for p in np.unique(pattern):
            rows = np.flatnonzero(pattern == p)
            columns = [self._card(name, number[rows]) for name in self.slots[p]]
            made[rows] = [self.forms[p] % texts for texts in zip(*columns, strict=True)] if columns else self.forms[p]
        return made

    def _card(self, name: str, number: np.ndarray) -> np.ndarray:
        """The card of one deck that these names take, or would take."""
        lap, place = np.divmod(number, len(self.schedule))
        lap, place = np.divmod(lap * self.taken[name][-1] + self.taken[name][place], len(self.cards[name]))
        return self.cards[name][(place + self.step[name] * lap) % len(self.cards[name])]


def _filled(patterns: list[str], lists: dict[str, list[str]]) -> list[str]:
    """Each pattern with every word of its list, if it has one."""
    out = []
    for pattern in patterns:
        name = next(iter(re.findall(r"\{(\w+)\}", pattern)), None)
        out += [pattern.replace(f"{{{name}}}", word) for word in lists[name]] if name else [pattern]
    return out


# --- titles of playlists ----------------------------------------------------------------------------------------------


def titles(world: World, drawn: Playlists, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """(titles, descriptions) of drawn playlists, made around their mood word; a description for each, used or not.

    A title depends on the hidden mood through its word alone: who knows the word knows all that the title can tell.
    So {genre} is not the playlist's own genre but the one that goes with the word most often, if one mostly does.
    """
    text = words()["playlists"]
    general, friends, phrases = (entries(text[name]) for name in ("general", "friend", "descriptions"))
    own = [entries(text["words"][w]) for w in TITLE_WORDS]
    share = (world.mood_words / world.mood_words.sum(0)).T @ world.mood_genres  # P(genre | word), [words, G]
    genres = world.genre_names
    n = len(drawn.word)
    choice, kind, case, year = rng.random((n, 3)), rng.random(n), rng.random(n), rng.integers(2009, 2018, size=n)
    blank = rng.random(n) < 0.06
    made, described = [], []
    for u, w in enumerate(drawn.word):
        patterns = own[w] if kind[u] < 0.45 else general
        if share[w].max() < _MOSTLY:
            patterns = [p for p in patterns if "{genre}" not in p]
        pattern, friend, phrase = (
            some[int(x * len(some))] for some, x in zip((patterns, friends, phrases), choice[u], strict=True)
        )
        title = pattern.format(word=TITLE_WORDS[w], genre=genres[share[w].argmax()], friend=friend, year=year[u])
        if case[u] < 0.12:
            title = title.upper()
        elif case[u] < 0.4:
            title = " ".join(part[:1].upper() + part[1:] for part in title.split(" "))
        made.append(title + " " * int(blank[u]))
        described.append(phrase.format(word=TITLE_WORDS[w]))
    return made, described


def title_words(names) -> np.ndarray:
    """Which of `TITLE_WORDS` stands in each playlist name, int [U], -1 for none: all the oracle knows of a title."""
    found = [_TITLE.search((name or "").lower()) for name in names]
    return np.array([TITLE_WORDS.index(f[1]) if f else -1 for f in found], dtype=np.int64)
