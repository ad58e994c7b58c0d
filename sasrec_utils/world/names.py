"""What things are called in the made-up world: URIs, names of tracks, albums and artists, titles of playlists.

Everything is a function of the world's seed and an id, so it is the same in every process, and no other draw of the
world depends on it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sasrec_utils.world.law import Playlists, World

# Titles: words that people really use, each mood with its own taste, dressed as people dress them.
TITLE_WORDS = (
    "chill", "workout", "summer", "sleep", "party", "throwback", "study", "road trip", "rainy days", "happy",
    "sad songs", "dinner", "running", "focus", "love", "beach", "morning", "night drive", "oldies", "dance",
    "acoustic", "angry", "shower", "christmas", "gaming", "coffee", "winter", "vibes", "feels", "roots",
)  # fmt: skip
_TITLE = re.compile(rf"\b({'|'.join(TITLE_WORDS)})\b")
_DRESS = (  # {0} the word, {1} an invented name, {2} a year
    "{0}", "{0}!!", "{0} mix", "my {0}", "{0} ✨", "{0} {2}", "♥ {0} {2}", "{1}'s {0}", "{0} for {1}", "{1} {0} 🎧",
    "{0} w/ {1}", "{0} - {1} {2}", "☀️ {0} @ {1}", "{1} ({0})",
)  # fmt: skip
_DESCRIPTIONS = (
    "for long days &amp; short nights",
    "don&#x27;t skip the third one",
    "songs I&#x27;d play at 7 &lt; t &lt; 9",
    "made for {} &quot;only&quot;",
    "{} &amp; nothing else",
)
_SYLLABLES = (
    "bra", "cul", "dren", "fo", "gli", "hoo", "jax", "ko", "lum", "mib", "nor", "plo", "quin", "rel", "sna", "tro",
    "ul", "vex", "wim", "yon", "zor", "ba", "dle", "fen", "gou", "kith", "mer", "nok", "pim", "rosk", "shel", "tov",
)  # fmt: skip
_PATTERNS = {  # what names are made of, and a number that keeps the three kinds apart
    "track": (11, ("{0}", "{0} {1}", "{1} of {0}", "{0} & {1}", "{0} {1} {2}")),
    "album": (12, ("{0}", "{0} {1}", "The {0} Tapes", "{0}: {1}", "{1} Season")),
    "artist": (13, ("{0} {1}", "{0}", "The {0}s", "DJ {0}", "{0} & the {1}s")),
}
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


def invented_names(world: World, kind: str, ids: np.ndarray) -> list[str]:
    """Names of tracks, albums or artists (`kind`), one for each of `ids` int [n]."""
    salt, patterns = _PATTERNS[kind]
    unique, back = np.unique(ids, return_inverse=True)
    made = [_invented_name(bits, patterns) for bits in mixed(world.config.seed, salt, unique).tolist()]
    return [made[i] for i in back]


def titles(world: World, drawn: Playlists, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """(titles, descriptions) of drawn playlists, made around their mood word; a description for each, used or not."""
    n = len(drawn.word)
    dress, year = rng.integers(len(_DRESS), size=n), rng.integers(2009, 2018, size=n)
    friend = [_invented_name(bits, ("{0}",)) for bits in rng.integers(2**63, size=n).tolist()]
    case, blank, phrase = rng.integers(3, size=n), rng.random(n) < 0.06, rng.integers(len(_DESCRIPTIONS), size=n)
    made, described = [], []
    for u in range(n):
        word = TITLE_WORDS[drawn.word[u]]
        title = _DRESS[dress[u]].format((str.lower, str.title, str.upper)[case[u]](word), friend[u], year[u])
        made.append(title + " " * int(blank[u]))
        described.append(_DESCRIPTIONS[phrase[u]].format(word))
    return made, described


def title_words(names) -> np.ndarray:
    """Which of `TITLE_WORDS` stands in each playlist name, int [U], -1 for none: all the oracle knows of a title."""
    found = [_TITLE.search((name or "").lower()) for name in names]
    return np.array([TITLE_WORDS.index(f[1]) if f else -1 for f in found], dtype=np.int64)


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


def _invented_name(bits: int, patterns: tuple[str, ...]) -> str:
    """A name of made-up words; 64 bits fix it."""
    words = []
    for _ in range(3):
        parts = []
        for _ in range(2 + bits % 2):
            parts.append(_SYLLABLES[(bits >> 1) % len(_SYLLABLES)])
            bits //= 2 * len(_SYLLABLES)
        words.append("".join(parts).capitalize())
    return patterns[bits % len(patterns)].format(*words)
