"""Checks for the exercises: each tries a learner's answer and says what holds, or which property is violated and where.

A check takes what the learner wrote and returns a `Result`, which shows itself as one or two lines:

    · not attempted yet        the stub is untouched (so that a notebook runs from top to bottom)
    ✘ property: smallest counter-example that was found
    ✔ property that holds

Every check is tested against the stub, the solution and the broken variants that people really write. The exercises are
in notebooks 00–06, their solutions in `notebooks/solutions`.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sasrec_utils.model import SASRec, SASRecConfig
from sasrec_utils.sequences import Sequences

__all__ = [
    "Result",
    "allowed_mask",
    "at_most",
    "attention_row",
    "bucket",
    "collision",
    "diagnoses",
    "difference_interval",
    "distance_bias",
    "early_stop",
    "honest_rank",
    "honest_split",
    "impossible",
    "keep_newest",
    "leaks",
    "loss_in_nats",
    "masked_attention",
    "masked_loss",
    "negatives",
    "next_share",
    "next_targets",
    "next_tracks",
    "padded_attention",
    "padding_share",
    "pick",
    "rank_of",
    "same_artist",
    "sampled_hit",
    "score_newest",
    "share_of_best",
    "shared_playlists",
    "shift",
    "slice_order",
    "three_metrics",
    "training_step",
    "unique_tracks",
    "weights_say",
    "without",
]


@dataclass(frozen=True)
class Result:
    """What a check found. True in a condition if the answer passed."""

    passed: bool
    text: str

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        return self.text


NOT_ATTEMPTED = Result(False, "· not attempted yet")


class _Violated(Exception):
    """A property that does not hold, with the smallest input that shows it."""


def _check(holds: str) -> Callable[[Callable], Callable[[Any], Result]]:
    """Turn a function that raises `_Violated` into a check that returns a `Result`."""

    def decorate(function: Callable[[Any], None]) -> Callable[[Any], Result]:
        @wraps(function)
        def check(answer: Any) -> Result:
            if answer is None or answer is Ellipsis:
                return NOT_ATTEMPTED
            try:
                function(answer)
            except NotImplementedError:
                return NOT_ATTEMPTED
            except _Violated as violated:
                return Result(False, f"✘ {violated}")
            return Result(True, f"✔ {holds}")

        return check

    return decorate


def _call(function: Callable, *args: Any) -> Any:
    """The answer of the learner's function; an error of its own becomes a violated property."""
    try:
        return function(*args)
    except NotImplementedError:
        raise
    except Exception as error:
        shown = ", ".join(map(repr, args))
        raise _Violated(
            f"it must not fail: {function.__name__}({shown}) raises {type(error).__name__}: {error}"
        ) from None


def _expect(function: Callable, args: tuple, wanted: Any, rule: str) -> None:
    """`function(*args)` must equal `wanted` (numbers, lists, arrays); `rule` is the property this shows."""
    got = _call(function, *args)
    shown = f"{function.__name__}({', '.join(map(repr, args))})"
    if got is None:
        raise _Violated(f"{rule}: {shown} returns nothing, wanted {wanted}")
    if not _same(got, wanted):
        raise _Violated(f"{rule}: {shown} gives {_plain(got)}, wanted {wanted}")


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    return value


def _same(a: Any, b: Any) -> bool:
    a, b = _plain(a), _plain(b)
    if isinstance(a, float) or isinstance(b, float):
        return isinstance(a, int | float) and isinstance(b, int | float) and abs(a - b) < 1e-9
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return a == b


# --- notebook 00 ------------------------------------------------------------------------------------------------------


@_check("the target's rank counts the candidates that score at least as high, and leaves out what was heard")
def rank_of(answer: int) -> None:
    """Exercise 00.1, by hand: scores A .1, B .4, C .3, D .2; heard B; the next track was D. Its rank is 2."""
    if answer == 3:
        raise _Violated(
            "tracks already heard are no candidates: B (.4) must not be counted, so only C (.3) beats D (.2)"
        )
    if answer == 1:
        raise _Violated("the rank counts every better candidate: C (.3) scores higher than D (.2)")
    if answer != 2:
        raise _Violated(f"ranks start at 1 and count better candidates: C alone beats D, so {answer!r} cannot be")


@_check("model / best, and a model that is as good as the best possible one has 1.0 of it")
def share_of_best(function: Callable[[list[int], list[int], int], float]) -> None:
    """Exercise 00.2: Recall@k of a model as a share of the oracle's, from the ranks of both."""
    _expect(function, ([1], [1], 10), 1.0, "the best possible model has all of it")
    _expect(function, ([11], [1], 10), 0.0, "a target at rank 11 is no hit among the best 10")
    _expect(function, ([10], [1], 10), 1.0, "a target at rank 10 is a hit among the best 10")
    _expect(function, ([1, 99], [1, 2], 10), 0.5, "it is the ratio of two Recalls")
    _expect(function, ([1, 99, 99, 99], [1, 99, 2, 99], 10), 0.5, "it is the ratio of two Recalls, not the model's own")
    _expect(function, ([2, 99], [1, 1], 1), 0.0, "k must be respected")


@_check("the best tracks that were not heard, best first")
def next_tracks(function: Callable[[dict[str, float], list[str], int], list[str]]) -> None:
    """Exercise 00.3: the k best candidates from a table of scores."""
    scores = {"a": 0.1, "b": 0.4, "c": 0.3}
    _expect(function, ({"a": 0.1}, [], 1), ["a"], "the only candidate comes first")
    _expect(function, ({"a": 0.1, "b": 0.4}, [], 1), ["b"], "a higher score is better")
    _expect(function, (scores, [], 2), ["b", "c"], "the k best come out, best first")
    _expect(function, (scores, ["b"], 2), ["c", "a"], "tracks that were heard are no candidates")
    _expect(function, (scores, ["a", "b", "c"], 2), [], "with nothing left the answer is empty")


# --- notebook 01 ------------------------------------------------------------------------------------------------------


@_check("an empty list, repeats within a playlist and tracks shared by playlists are all counted right")
def unique_tracks(function: Callable[[list[dict]], int]) -> None:
    """Exercise 01.1: number of different tracks in raw playlists."""

    def playlists(*lists: str) -> list[dict]:
        return [{"tracks": [{"track_uri": uri} for uri in uris]} for uris in lists]

    _expect(function, (playlists(),), 0, "no playlists hold no tracks")
    _expect(function, (playlists("a"),), 1, "one track is one track")
    _expect(function, (playlists("aa"),), 1, "a repeat within a playlist counts once")
    _expect(function, (playlists("a", "a"),), 1, "a track in two playlists counts once")
    _expect(function, (playlists("ab", "bc"),), 3, "tracks of all playlists count")


@_check('only "true" means true, whatever else the playlist says')
def shared_playlists(function: Callable[[list[dict]], int]) -> None:
    """Exercise 01.2, find the bug: count collaborative playlists; the file says "true" and "false", as strings."""
    _expect(function, ([],), 0, "no playlist is no collaborative one")
    _expect(
        function, ([{"collaborative": "false"}],), 0, 'the string "false" is not empty, so Python takes it for true'
    )
    _expect(function, ([{"collaborative": "true"}],), 1, 'the string "true" means true')
    _expect(function, ([{}],), 0, "reduced copies have no such key")
    mixed = [{"collaborative": "true"}, {"collaborative": "false"}, {"collaborative": "true"}]
    _expect(function, (mixed,), 2, "every playlist is looked at")


@_check("slices come in the order of their numbers")
def slice_order(function: Callable[[list[str]], list[str]]) -> None:
    """Exercise 01.3: sort slice names by number."""
    a, b, c = "mpd.slice.0-999.json", "mpd.slice.2000-2999.json", "mpd.slice.10000-10999.json"
    _expect(function, ([a],), [a], "one file stays")
    _expect(function, ([b, a],), [a, b], "smaller numbers come first")
    _expect(function, ([b, c],), [b, c], "numbers are compared as numbers: as text, 10000 would come before 2000")
    _expect(function, ([c, b],), [b, c], "the order of the input does not matter")
    _expect(function, ([c, a, b],), [a, b, c], "all files are kept")


def bucket(uri: str, size: int) -> int:
    """A hash that is the same in every process: CRC32, folded to 0…size-1."""
    return zlib.crc32(uri.encode()) % size


@_check("two different tracks with one id; nothing when there are none")
def collision(function: Callable[[list[str], int], tuple[str, str] | None]) -> None:
    """Exercise 01.4: find two different URIs that `bucket` gives the same id."""

    def verify(uris: list[str], size: int) -> None:
        found = _call(function, list(uris), size)
        by_id: dict[int, set[str]] = {}
        for uri in uris:
            by_id.setdefault(bucket(uri, size), set()).add(uri)
        exists = next((sorted(group) for group in by_id.values() if len(group) > 1), None)
        shown = (
            f"{function.__name__}({uris!r}, {size})"
            if len(uris) <= 6
            else f"{function.__name__}({len(uris)} uris, {size})"
        )
        if found is None:
            if exists:
                raise _Violated(
                    f"a collision that is there must be found: {shown} gives None, but {exists[0]!r} and {exists[1]!r} "
                    f"both get {bucket(exists[0], size)}"
                )
            return
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise _Violated(f"the answer is a pair of URIs or None: {shown} gives {found!r}")
        first, second = found
        if first == second:
            raise _Violated(f"a track does not collide with itself: {shown} gives {found!r}")
        if first not in uris or second not in uris:
            raise _Violated(f"both URIs must be among the given ones: {shown} gives {found!r}")
        if bucket(first, size) != bucket(second, size):
            raise _Violated(
                f"both must have one id: {first!r} has {bucket(first, size)}, {second!r} has {bucket(second, size)}"
            )

    _call(function, ["a", "b"], 1)  # a stub says so here
    verify(["a", "b"], 1)
    verify(["a"], 10)
    verify(["a", "a"], 10)
    apart = next([x, y] for x, y in itertools.combinations("abcdefgh", 2) if bucket(x, 10) != bucket(y, 10))
    verify(apart, 10)
    outer = next([x, y] for x, y in itertools.combinations("abcdefghijklmnop", 2) if bucket(x, 10) == bucket(y, 10))
    middle = next(x for x in "abcdefghijklmnop" if bucket(x, 10) != bucket(outer[0], 10))
    verify([outer[0], middle, outer[1]], 10)
    verify([f"spotify:track:{i}" for i in range(2_000)], 100_000)


@_check("neighbours k apart are compared within each playlist, never across the border of two")
def same_artist(function: Callable[[list[list[str]], int], float]) -> None:
    """Exercise 01.5: share of tracks whose artist is that of the track k steps before, in the same playlist."""
    _expect(function, ([["a", "a"]], 1), 1.0, "two tracks of one artist are one pair, and it matches")
    _expect(function, ([["a", "b"]], 1), 0.0, "two tracks of different artists do not match")
    _expect(function, ([["a", "b"], ["b", "a"]], 1), 0.0, "the end of a playlist is not followed by the next playlist")
    _expect(function, ([["a", "b", "c", "a"]], 1), 0.0, "the end of a playlist is not followed by its start")
    _expect(function, ([["a", "b", "a"]], 2), 1.0, "k = 2 compares each track with the one two before it")
    _expect(
        function, ([["a", "a", "a"], ["a", "b"]], 1), 2 / 3, "every pair weighs the same, however long its playlist"
    )
    _expect(function, ([["a"], ["b", "b"]], 1), 1.0, "a playlist that is too short has no pairs")


# --- notebook 02 ------------------------------------------------------------------------------------------------------


@_check("each target is the track that comes next, and the last input's target is the playlist's last track")
def next_targets(answer: list[int]) -> None:
    """Exercise 02.1, by hand: the targets of the playlist 7 3 9 4, whose inputs are 7 3 9."""
    answer = _plain(answer)
    if answer == [7, 3, 9]:
        raise _Violated(
            "the target is the next track, not the input itself: the first input is 7, what follows it is 3"
        )
    if answer == [3, 9, 4, 7]:
        raise _Violated("a playlist does not wrap around: nothing is known to follow 4")
    if answer != [3, 9, 4]:
        raise _Violated(f"the targets of 7 3 9 4 are what follows each of 7, 3 and 9, so {answer!r} cannot be")


@_check("inputs and targets are the playlist without its last and without its first track")
def shift(function: Callable[[list[int]], tuple[list[int], list[int]]]) -> None:
    """Exercise 02.2: inputs and targets of one playlist."""
    _expect(function, ([5, 6],), ([5], [6]), "the target of an input is the track after it")
    _expect(function, ([5, 6, 7],), ([5, 6], [6, 7]), "inputs lack the last track, targets the first")
    _expect(function, ([5],), ([], []), "one track alone has no next one to learn from")
    _expect(function, ([],), ([], []), "an empty playlist teaches nothing")
    _expect(function, ([5, 5, 6],), ([5, 5], [5, 6]), "a repeated track is a target like any other")


@_check("the newest tracks are kept, in their order, and all of them when there are few")
def keep_newest(function: Callable[[list[int], int], list[int]]) -> None:
    """Exercise 02.3, find the bug: the newest `n` tracks of a playlist."""
    _expect(function, ([1, 2], 1), [2], "the newest track is the last one")
    _expect(function, ([1, 2, 3], 2), [2, 3], "the newest are kept, oldest first among them")
    _expect(function, ([1, 2], 3), [1, 2], "a playlist shorter than n stays whole")
    _expect(function, ([1, 2], 5), [1, 2], "a playlist shorter than n stays whole")
    _expect(function, ([], 3), [], "an empty playlist stays empty")
    _expect(function, ([1, 2], 0), [], "n = 0 keeps nothing (and [-0:] is [0:], which keeps all)")


# The three splits that exercise 02.4 asks about, on six playlists of the toy kind.
SPLITS = {
    "A": "whole playlists are dealt at random; the vocabulary is counted on the training ones",
    "B": "rows are dealt at random; the vocabulary is counted on the training ones",
    "C": "whole playlists are dealt at random; the vocabulary is counted on all of them",
}
_LEAKS = {"A": "nothing", "B": "playlists", "C": "vocabulary"}


@_check("A is clean, B trains on parts of the playlists that judge it, C knows tracks from the test playlists")
def leaks(answer: Mapping[str, str]) -> None:
    """Exercise 02.4, spot the leaking split: what leaks in A, B and C ("nothing", "playlists" or "vocabulary")."""
    if not isinstance(answer, Mapping) or set(answer) != set(_LEAKS):
        raise _Violated('the answer names what leaks for each of "A", "B" and "C"')
    if all(value in (None, "", Ellipsis) for value in answer.values()):
        raise NotImplementedError
    why = {
        "A": "no test playlist has a row in training, and a track that only a test playlist holds stays unknown",
        "B": "playlist 7 8 9 can have its 8 in training and its 9 in the test: the model has seen its neighbours",
        "C": "a track that stands in one test playlist only gets an id, so its target is kept and looks answerable",
    }
    for name, wanted in _LEAKS.items():
        if answer[name] not in ("nothing", "playlists", "vocabulary"):
            raise _Violated(f'{name}: say "nothing", "playlists" or "vocabulary", not {answer[name]!r}')
        if answer[name] != wanted:
            raise _Violated(f"{name} leaks {wanted}, not {answer[name]}: {why[name]}")


@_check("every playlist is dealt to one side, at random, and again the same way with the same seed")
def honest_split(function: Callable[[int, int], tuple[list[int], list[int]]]) -> None:
    """Exercise 02.5: deal n playlists into training and test, a tenth for the test."""
    for n in (10, 50):
        got = _call(function, n, 0)
        if not isinstance(got, tuple | list) or len(got) != 2:
            raise _Violated(f"it returns training and test playlists: {function.__name__}({n}, 0) gives {got!r}")
        train, test = (sorted(_plain(np.asarray(part)).copy()) for part in got)
        both = sorted(set(train) & set(test))
        if both:
            raise _Violated(f"no playlist is on both sides: of {n} playlists, number {both[0]} is in both")
        lost = sorted(set(range(n)) - set(train) - set(test))
        if lost:
            raise _Violated(f"no playlist is lost: of {n} playlists, number {lost[0]} is on neither side")
        if len(train) + len(test) != n:
            raise _Violated(f"each playlist is dealt once: {len(train) + len(test)} playlists came out of {n}")
        if len(test) != n // 10:
            raise _Violated(f"a tenth is for the test: of {n} playlists, {len(test)} are in it")
        again = _call(function, n, 0)
        if not _same(list(map(sorted, map(_plain, map(np.asarray, again)))), [train, test]):
            raise _Violated(f"the same seed deals the same way: two calls with ({n}, 0) differ")
    tests = [tuple(sorted(_plain(np.asarray(_call(function, 50, seed)[1])))) for seed in range(5)]
    if len(set(tests)) == 1:
        raise _Violated("another seed deals another way: seeds 0 to 4 give the same test playlists")
    if all(test in (tuple(range(5)), tuple(range(45, 50))) for test in tests):
        raise _Violated("playlists are dealt at random: the test part is the start or the end of the file")


@_check("padding is what fills each row up to the longest of its own batch")
def padding_share(function: Callable[[list[int], int], float]) -> None:
    """Exercise 02.6, stretch: share of padding when windows of these lengths are batched in the given order."""
    _expect(function, ([3], 1), 0.0, "a window alone needs no padding")
    _expect(function, ([1, 3], 2), 2 / 6, "a batch is as wide as its longest window")
    _expect(function, ([1, 3], 1), 0.0, "each batch has its own width")
    _expect(function, ([1, 1, 3, 3], 2), 0.0, "equally long windows need no padding")
    _expect(function, ([1, 3, 1], 2), 2 / 7, "the last batch may be smaller, and shares are of all positions")


# --- notebook 06 ------------------------------------------------------------------------------------------------------


@_check("what was heard is no candidate, and the others share its probability in proportion")
def next_share(answer: float) -> None:
    """Exercise 06.1, by hand: A .4, B .3, C .2, D .1; the playlist has A. B's probability among the candidates is .5."""
    if not isinstance(answer, int | float):
        raise _Violated(f"the answer is a number, not {answer!r}")
    if abs(answer - 0.3) < 1e-9:
        raise _Violated("probabilities of the candidates sum to 1: without A, .3 + .2 + .1 is only .6")
    if abs(answer - 0.7) < 1e-9 or abs(answer - 0.4) < 1e-9:
        raise _Violated("A's share goes to all candidates in proportion, not to B alone and not to A")
    if abs(answer - 0.5) > 1e-9:
        raise _Violated(f"B has .3 of the .6 that are left, so {answer!r} cannot be")


@_check("draws follow softmax(scores / temperature) among the tracks not heard, and temperature 0 takes the best")
def pick(function: Callable[[dict[str, float], list[str], float, float], str]) -> None:
    """Exercise 06.2: draw a next track with a temperature, from a number u in [0, 1)."""
    equal, two = {"a": 0.0, "b": 0.0}, {"a": 0.0, "b": float(np.log(3))}
    _expect(function, ({"a": 1.0}, [], 1.0, 0.5), "a", "the only candidate is drawn")
    _expect(function, (equal, [], 1.0, 0.2), "a", "candidates take their share of 0…1 in order: a up to .5")
    _expect(function, (equal, [], 1.0, 0.7), "b", "candidates take their share of 0…1 in order: b from .5 on")
    _expect(function, (two, [], 0.0, 0.1), "b", "temperature 0 takes the best, whatever u is")
    _expect(function, (two, [], 1.0, 0.24), "a", "at temperature 1 a has 1/4: softmax of 0 and log 3")
    _expect(function, (two, [], 1.0, 0.26), "b", "at temperature 1 b has 3/4: softmax of 0 and log 3")
    _expect(function, (two, [], 0.5, 0.15), "b", "at temperature 1/2 scores double: b has 9/10")
    _expect(function, (two, [], 1.0, 0.999), "b", "u up to 1 finds a track")
    _expect(function, (two, ["b"], 1.0, 0.9), "a", "tracks that were heard are no candidates")
    _expect(function, (two, ["b"], 0.0, 0.9), "a", "tracks that were heard are no candidates, at temperature 0 either")
    _expect(function, ({"a": 1e4, "b": 1e4}, [], 1.0, 0.7), "b", "large scores must not overflow: subtract the largest")


@_check("one place is taken out, whatever else is equal to it, and the playlist that was given stays as it was")
def without(function: Callable[[list[int], int], list[int]]) -> None:
    """Exercise 06.3, find the bug: the playlist without the track at one place."""
    _expect(function, ([1, 2], 0), [2], "the track at the place goes")
    _expect(function, ([1, 2], 1), [1], "the track at the place goes")
    _expect(function, ([1, 2, 1], 2), [1, 2], "a repeat is another place: the first 1 stays")
    _expect(function, ([1, 2, 1], 0), [2, 1], "a repeat is another place: the last 1 stays")
    _expect(function, ([1], 0), [], "a playlist of one track becomes empty")
    given = [1, 2, 3]
    _call(function, given, 1)
    if given != [1, 2, 3]:
        raise _Violated(f"the playlist that was given must not change: [1, 2, 3] has become {given!r}")


# The three readings that exercise 06.4 asks about.
READINGS = {
    "A": "A head gives a track 60 %; without that track, the prediction would lose 60 %.",
    "B": "With the earlier tracks shuffled a weight stays as it was: it belongs to the place.",
    "C": "Removing a track changes nothing, so the model did not look at it.",
}


@_check("a weight says where a head looks, the control what belongs to the place, and a removal what it changes")
def weights_say(answer: Mapping[str, bool]) -> None:
    """Exercise 06.4, interpret: which of three readings of attention hold (True) and which do not (False)."""
    if not isinstance(answer, Mapping) or set(answer) != set(READINGS):
        raise _Violated('the answer says True or False for each of "A", "B" and "C"')
    if all(value in (None, "", Ellipsis) for value in answer.values()):
        raise NotImplementedError
    right = {"A": False, "B": True, "C": False}
    why = {
        "A": "what is looked at passes through values, other heads and other blocks before it reaches the scores",
        "B": "whatever track stands there gets the weight, so it cannot be for the track's sake",
        "C": "a head may look at a track and make nothing of it, or other tracks may tell the same",
    }
    for name, wanted in right.items():
        if answer[name] is not wanted:
            raise _Violated(f"{name} is {wanted}: {why[name]}")


@_check("the best come first, no artist more than m times, and k of them if there are so many")
def at_most(function: Callable[[list[tuple[str, str]], int, int], list[str]]) -> None:
    """Exercise 06.5, stretch: the k best tracks with at most m of one artist, from (track, artist) pairs, best first."""
    ranked = [("a1", "A"), ("a2", "A"), ("a3", "A"), ("b1", "B"), ("a4", "A"), ("b2", "B")]
    _expect(function, ([("a1", "A")], 1, 1), ["a1"], "one track alone is fine")
    _expect(function, (ranked, 1, 2), ["a1", "b1"], "an artist comes at most m times, and the list is filled up to k")
    _expect(function, (ranked, 2, 4), ["a1", "a2", "b1", "b2"], "the order stays that of the ranking")
    _expect(function, (ranked, 9, 3), ["a1", "a2", "a3"], "a limit that is never met changes nothing")
    _expect(function, (ranked, 1, 5), ["a1", "b1"], "where artists run out, the list stays short")
    _expect(function, (ranked, 2, 1), ["a1"], "k is respected")
    _expect(function, ([], 1, 3), [], "from nothing comes nothing")


# --- notebook 03 ------------------------------------------------------------------------------------------------------


@_check("masked, scaled, normalised: weights 1/4, 3/4 and nothing for the future")
def attention_row(answer: list[float]) -> None:
    """Exercise 03.1, by hand: D = 4, products 0, 2.2 and 1.4 (the future), e^0 = 1, e^1.1 ≈ 3, e^0.7 ≈ 2."""
    answer = _plain(answer)
    if not isinstance(answer, list | tuple) or len(answer) != 3:
        raise _Violated("a row has one weight for each of the three keys")
    if all(value is None for value in answer):
        raise NotImplementedError
    if not all(isinstance(value, int | float) for value in answer):
        raise _Violated(f"weights are three numbers, not {answer!r}")

    def near(*wanted: float) -> bool:
        return all(abs(a - w) < 0.02 for a, w in zip(answer, wanted, strict=True))

    if near(1 / 6, 3 / 6, 2 / 6):
        raise _Violated("the third key is the future: it gets weight 0, and the others share the whole row")
    if near(1 / 6, 3 / 6, 0):
        raise _Violated("a row sums to 1: leave the future out before you divide, not after")
    if near(0.1, 0.9, 0):
        raise _Violated("products are divided by √4 = 2 before the exponential: 2.2 becomes 1.1")
    if abs(sum(answer) - 1) > 0.02:
        raise _Violated(f"a row sums to 1, yours to {sum(answer):.2f}")
    if abs(answer[2]) > 0.02:
        raise _Violated("the third key is the future: its weight is 0")
    if not near(1 / 4, 3 / 4, 0):
        raise _Violated("the weights stand to each other as e^0 = 1 and e^1.1 ≈ 3")


def _tensor(function: Callable, args: tuple, shape: tuple[int, ...], shown: str) -> torch.Tensor:
    """The tensor that the learner's function returns, of the right shape; `shown` is the call as a reader knows it."""
    try:
        got = function(*args)
    except NotImplementedError:
        raise
    except Exception as error:
        raise _Violated(f"it must not fail: {shown} raises {type(error).__name__}: {error}") from None
    if not isinstance(got, torch.Tensor):
        raise _Violated(f"it returns a tensor: {shown} gives {type(got).__name__}")
    if tuple(got.shape) != shape:
        raise _Violated(f"the shape is {list(shape)}: {shown} gives {list(got.shape)}")
    return got


@_check("real positions see real tracks up to themselves, True = may attend, and no row is empty")
def allowed_mask(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Exercise 03.2: the mask [B, 1, L, L] of a batch of ids [B, L], padded on either side."""
    for rows in (
        [[7]],
        [[7, 8]],
        [[7, 8, 9]],
        [[7, 0]],
        [[0, 7]],
        [[0, 0]],
        [[7, 8, 0], [0, 0, 9]],
        [[0, 0, 0], [7, 8, 9]],
    ):
        ids = torch.tensor(rows)
        B, L = ids.shape
        shown = f"{function.__name__}({rows})"
        got = _tensor(function, (ids,), (B, 1, L, L), shown)
        if got.dtype != torch.bool:
            raise _Violated(f"a mask is made of True and False: {shown} is {str(got.dtype).removeprefix('torch.')}")
        for b, i, j in itertools.product(range(B), range(L), range(L)):
            may, where = bool(got[b, 0, i, j]), f"{shown}, query {i}, key {j}"
            if ids[b, i] == 0:
                continue  # what a padded position sees means nothing, if it sees something
            if j > i and may:
                raise _Violated(f"nobody sees the future, and True = may attend: {where} is True")
            if j <= i and ids[b, j] == 0 and may:
                raise _Violated(f"padding is no track to look at: {where} is True")
            if j <= i and ids[b, j] > 0 and not may:
                raise _Violated(f"itself and earlier tracks are seen, True = may attend: {where} is False")
        if not got.any(-1).all():
            b, _, i = (~got.any(-1)).nonzero()[0].tolist()
            raise _Violated(f"an empty row makes softmax divide 0 by 0: {shown}, row {b}, query {i} sees nothing")


def _reference_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    scores = (q @ k.T / q.shape[-1] ** 0.5).masked_fill(~allowed, -torch.inf)
    return scores.softmax(-1) @ v


@_check("each row is a weighted mean of the past, and the future changes nothing")
def masked_attention(function: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
    """Exercise 03.3, find the bug: causal attention, q, k, v [L, d] → [L, d]."""
    name = function.__name__
    zero = torch.zeros(1, 1)
    got = _tensor(function, (zero, zero, torch.ones(1, 1)), (1, 1), f"{name}(q, k, v) of one track")
    if not got.isfinite().all():
        raise _Violated("a track alone sees itself: with one track the result is not a number")
    if abs(float(got) - 1) > 1e-5:
        raise _Violated(f"weights sum to 1: one track whose value is 1 gives {float(got):.3g}")
    generator = torch.Generator().manual_seed(0)
    for L, d in ((2, 1), (3, 4), (6, 3)):
        q, k, v = torch.randn(3, L, d, generator=generator)
        shown = f"{name}(q, k, v) of {L} tracks"
        got = _tensor(function, (q, k, v), (L, d), shown)
        if not got.isfinite().all():
            raise _Violated(f"every row sees at least itself: {shown} holds a NaN")
        k2, v2 = k.clone(), v.clone()
        k2[-1], v2[-1] = 9.0, 9.0
        again = _tensor(function, (q, k2, v2), (L, d), shown)
        if not torch.allclose(again[:-1], got[:-1], atol=1e-6):
            t = int((again[:-1] - got[:-1]).abs().amax(1).argmax())
            raise _Violated(f"the future leaks: of {L} tracks, another last one changes the result at place {t}")
        ones = _tensor(function, (q, k, torch.ones(L, d)), (L, d), shown)
        if not torch.allclose(ones, torch.ones(L, d), atol=1e-5):
            t = int((ones - 1).abs().amax(1).argmax())
            raise _Violated(f"weights sum to 1: with all values 1 place {t} of {L} gets {float(ones[t, 0]):.3f}")
        wanted = _reference_attention(q, k, v, torch.ones(L, L).tril().bool())
        if not torch.allclose(got, wanted, atol=1e-5):
            raise _Violated(
                "the weights are those of equation 5: is every product divided by √d, and the past all seen?"
            )


@_check("what stands at padding changes nothing, and nothing is ever NaN, in gradients either")
def padded_attention(function: Callable[..., torch.Tensor]) -> None:
    """Exercise 03.4, find the bug: causal attention with padding anywhere, q, k, v [L, d] and ids [L] → [L, d]."""
    generator = torch.Generator().manual_seed(1)
    for row in ([7], [7, 8], [0, 7], [7, 0], [0, 0], [0, 0, 7, 8], [7, 0, 8]):
        ids = torch.tensor(row)
        L, real = len(row), ids > 0
        q, k, v = (part.requires_grad_() for part in torch.randn(3, L, 2, generator=generator))
        shown = f"{function.__name__}(q, k, v, {row})"
        got = _tensor(function, (q, k, v, ids), (L, 2), shown)
        if not got[real].isfinite().all():
            raise _Violated(
                f"real tracks get numbers: {shown} has a NaN at place {int((~got.isfinite()).any(1).nonzero()[0])}"
            )
        if real.any():
            allowed = torch.ones(L, L).tril().bool()[real][:, real]
            wanted = _reference_attention(q[real], k[real], v[real], allowed)
            if not torch.allclose(got[real], wanted, atol=1e-5):
                raise _Violated(f"the result is that of the playlist without its padding: {shown} differs")
        if not got.isfinite().all():
            raise _Violated(f"a row that sees nothing is 0 / 0: {shown} has a NaN at a padded place, and it spreads")
        got[real].sum().backward()
        for name, part in (("q", q), ("k", k), ("v", v)):
            if part.grad is not None and not part.grad.isfinite().all():
                raise _Violated(f"gradients are finite too: after {shown} that of {name} holds a NaN")


@_check("the newest tracks count, the last real one decides, and neighbours in the batch change nothing")
def score_newest(function: Callable[[SASRec, list[list[int]]], torch.Tensor]) -> None:
    """Exercise 03.5, find the bugs: scores [B, N+1] after each playlist (lists of model ids), L positions."""
    N, L = 9, 4
    model = SASRec(SASRecConfig(N, dim=8, heads=2, blocks=1, max_len=L, dropout=0.0)).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.5)
        model.item_emb.weight[0] = 0
    cases = (
        ([[1, 2, 3, 4]], "a playlist of L tracks"),
        ([[5, 6]], "the last real track decides, not what stands at the last place"),
        ([[1, 2, 3, 4, 5, 6]], f"of a playlist longer than L = {L} the newest tracks are kept"),
        ([[5, 6], [1, 2, 3]], "rows of a batch have nothing to do with each other"),
        ([[7], [1, 2, 3, 4, 5], [8, 9]], "short and long playlists share a batch"),
    )
    for playlists, rule in cases:
        shown = f"{function.__name__}(model, {playlists})"
        with torch.no_grad():
            got = _tensor(function, (model, playlists), (len(playlists), N + 1), shown)
        wanted = torch.from_numpy(model.score(Sequences.from_lists(playlists)))
        if not torch.allclose(got[:, 1:], wanted[:, 1:], atol=1e-4):
            row = int((got - wanted)[:, 1:].abs().amax(1).argmax())
            raise _Violated(f"{rule}: {shown} has other scores in row {row}")


@_check("one weight for each head and distance, whatever the place, and -inf in the future")
def distance_bias(function: Callable[[torch.Tensor, int], torch.Tensor]) -> None:
    """Exercise 03.6: weights [H, M] of the distances 0…M-1 → what is added to the scores, [H, L, L]."""
    for H, M, L in ((1, 1, 1), (1, 2, 2), (2, 3, 3), (2, 5, 3)):
        weight = torch.arange(1.0, H * M + 1).view(H, M)
        shown = f"{function.__name__}({weight.tolist()}, {L})"
        got = _tensor(function, (weight, L), (H, L, L), shown)
        for h, i, j in itertools.product(range(H), range(L), range(L)):
            value, where = float(got[h, i, j]), f"{shown}, head {h}, query {i}, key {j}"
            if j > i and value != -np.inf:
                raise _Violated(f"the future gets -inf: {where} is {value:g}")
            if j <= i and value != weight[h, i - j]:
                raise _Violated(f"the weight of distance i - j: {where} is {value:g}, wanted {weight[h, i - j]:g}")


# --- notebook 05 ------------------------------------------------------------------------------------------------------


@_check("a hit counts 1 in Recall, 1 / log2(rank + 1) in NDCG, and MRR has no cut-off")
def three_metrics(answer: Mapping[str, float]) -> None:
    """Exercise 05.1, by hand: Recall@10, NDCG@10 and MRR of three targets at the ranks 1, 3 and 12."""
    if not isinstance(answer, Mapping) or set(answer) != {"recall", "ndcg", "mrr"}:
        raise _Violated('the answer has a number for each of "recall", "ndcg" and "mrr"')
    if all(value in (None, Ellipsis) for value in answer.values()):
        raise NotImplementedError
    wanted = {
        "recall": (2 / 3, "ranks 1 and 3 are hits, rank 12 is none: 2 of 3"),
        "ndcg": (1 / 2, "rank 1 gives 1 / log2(2) = 1, rank 3 gives 1 / log2(4) = 1/2, rank 12 gives 0, over 3"),
        "mrr": ((1 + 1 / 3 + 1 / 12) / 3, "1/1, 1/3 and, with no cut-off, 1/12, over 3"),
    }
    for name, (value, why) in wanted.items():
        got = answer[name]
        if not isinstance(got, int | float) or abs(got - value) > 0.006:  # two digits are enough
            raise _Violated(f"{name} is not {got!r}: {why}")


@_check("ties count against the target, and a score that is no number is an error")
def honest_rank(function: Callable[[float, list[float]], int]) -> None:
    """Exercise 05.2, find the bug: the rank of a target among other candidates."""
    _expect(function, (0.5, []), 1, "a target without rivals has rank 1")
    _expect(function, (0.5, [0.9]), 2, "a better rival stands before it")
    _expect(function, (0.5, [0.1]), 1, "a worse rival stands behind it")
    _expect(function, (0.5, [0.5]), 2, "a tie counts against the target: else a constant scorer is always right")
    _expect(function, (0.5, [0.5, 0.9, 0.1, 0.5]), 4, "better rivals and ties are all counted")
    _expect(function, (0.5, [float("-inf")]), 1, "a rival that is ruled out (-inf) stands behind")
    for args in ((float("nan"), [0.1]), (0.5, [float("nan")])):
        shown = f"{getattr(function, '__name__', 'it')}({', '.join(map(repr, args))})"
        try:
            got = function(*args)
        except ValueError:
            continue
        except Exception as error:
            raise _Violated(f"NaN raises ValueError: {shown} raises {type(error).__name__}") from None
        raise _Violated(f"every comparison with NaN is false, so its rank means nothing: {shown} gives {got!r}")


@_check("playlists are resampled in pairs: what both models find hard cancels")
def difference_interval(function: Callable[[list[float], list[float], int], tuple[float, float, float]]) -> None:
    """Exercise 05.3: mean of a - b and its 95 % bootstrap interval over playlists, from a seed."""

    def call(a: list[float], b: list[float], seed: int, shown: str) -> list[float]:
        got = _plain(_call(function, a, b, seed))
        if not isinstance(got, tuple | list) or len(got) != 3:
            raise _Violated(f"it returns (mean, low, high): {shown} gives {got!r}")
        return [float(value) for value in map(_plain, got)]

    mean, low, high = call([1.0, 1.0], [1.0, 1.0], 0, "([1, 1], [1, 1], 0)")
    if (mean, low, high) != (0, 0, 0):
        raise _Violated(f"two equal models differ by 0, surely: ([1, 1], [1, 1], 0) gives {(mean, low, high)}")
    mean, low, high = call([1.0, 0.0], [0.0, 0.0], 0, "([1, 0], [0, 0], 0)")
    if abs(mean - 0.5) > 1e-9:
        raise _Violated(f"the mean is that of a - b on the playlists as they are: ([1, 0], [0, 0], 0) gives {mean}")
    if max(abs(low), abs(high - 1)) > 1e-9:
        raise _Violated(f"two playlists tell little, the interval is [0, 1]: ([1, 0], [0, 0], 0) gives {[low, high]}")
    rng = np.random.default_rng(0)
    hard = rng.random(400)
    got = call((hard + 0.25).tolist(), hard.tolist(), 0, "(b + 0.25, b, 0)")
    if max(abs(value - 0.25) for value in got) > 1e-9:
        raise _Violated(
            f"the same playlists are drawn for both models: where a is b + 0.25 on each of 400 playlists the interval "
            f"is [0.25, 0.25], not [{got[1]:.3f}, {got[2]:.3f}]"
        )
    a, b = rng.normal(size=400).tolist(), [0.0] * 400
    got = call(a, b, 0, "(400 draws, zeros, 0)")
    width = got[2] - got[1]
    expected = 2 * 1.96 * float(np.std(a)) / 20
    if not 0.8 * expected < width < 1.2 * expected:
        raise _Violated(
            f"as many playlists are drawn as there are, and 95 % of the means lie inside: for 400 differences with a "
            f"spread of {np.std(a):.2f} the interval is about {expected:.2f} wide, not {width:.2f}"
        )
    if call(a, b, 0, "(400 draws, zeros, 0)") != got:
        raise _Violated("the same seed gives the same interval: two calls with seed 0 differ")


@_check("0 ≤ NDCG ≤ Recall ≤ share of known targets, and a hit is worth at least 1 / log2(k + 1)")
def impossible(function: Callable[[float, float, int, float], bool]) -> None:
    """Exercise 05.4: whether Recall@k and NDCG@k over all targets (one each) can be, with this share of them known."""
    cases = [
        ((0.0, 0.0, 10, 0.5), False, "finding nothing is always possible"),
        ((1.0, 1.0, 10, 1.0), False, "all targets at rank 1 are possible"),
        ((0.5, 0.5, 10, 0.5), False, "all known targets at rank 1 are possible"),
        ((0.5, 1.6, 10, 1.0), True, "NDCG cannot pass 1"),
        ((0.3, 0.4, 10, 1.0), True, "a hit is worth at most 1, so NDCG cannot pass Recall"),
        ((0.7, 0.5, 10, 0.6), True, "a target that is not known cannot be found, so Recall cannot pass that share"),
        ((0.5, 0.1, 10, 1.0), True, "at rank 10 a hit is still worth 1 / log2(11) = 0.289, so NDCG ≥ 0.289 · Recall"),
        ((0.5, 0.2, 10, 1.0), False, "0.2 lies between 0.289 · 0.5 and 0.5"),
        ((0.5, 0.3, 1, 1.0), True, "at k = 1 every hit is worth 1, so NDCG and Recall are equal"),
        ((-0.1, -0.2, 10, 1.0), True, "a share is never negative"),
    ]
    for args, wanted, why in cases:
        got = _call(function, *args)
        if bool(got) != wanted or got is None:
            shown = f"{getattr(function, '__name__', 'it')}{args}"
            raise _Violated(f"{why}: {shown} gives {got!r}, wanted {wanted}")


@_check("the sampled hit is a lottery over which rivals are drawn, and far kinder than the full one")
def sampled_hit(function: Callable[[int, int, int, int], float]) -> None:
    """Exercise 05.5, stretch: P(target among the best k of itself and m random others | its full rank among n)."""

    def near(args: tuple[int, int, int, int], wanted: float, why: str) -> None:
        got = _plain(_call(function, *args))
        if not isinstance(got, int | float) or not abs(got - wanted) < 1e-6:
            shown = f"{getattr(function, '__name__', 'it')}{args}"
            raise _Violated(f"{why}: {shown} gives {got!r}, wanted {wanted:.6g}")

    near((1, 10, 5, 1), 1.0, "nothing beats the first, whoever is drawn")
    near((10, 10, 5, 1), 0.0, "everything beats the last, so none of the drawn may")
    near((2, 3, 1, 1), 0.5, "of two others one is better: the draw decides")
    near((3, 5, 2, 1), 1 / 6, "negatives are drawn without putting back: both of the two worse ones, 1 of 6 pairs")
    near((3, 5, 2, 2), 5 / 6, "all but the pair of the two better ones, 5 of 6 pairs")
    near((4, 5, 4, 3), 0.0, "with all others drawn the sampled rank is the full rank")
    near((100, 1000, 100, 10), 0.4574895, "k - 1 better ones may be drawn, not k")


# --- notebook 04 ------------------------------------------------------------------------------------------------------


@_check("the mean of -ln p over the targets, in nats: ln 4, as good as a fair choice among four")
def loss_in_nats(answer: float) -> None:
    """Exercise 04.1, by hand: the targets got the probabilities 1/2, 1/4 and 1/8; the loss is ln 4 = 1.386 nats."""
    wrong = {
        2.0: "these are bits: a nat uses the natural logarithm, so 1/2 costs ln 2 = 0.693, not 1",
        6.0: "these are bits, and not their mean: nats use the natural logarithm",
        math.log(64): "the loss is the mean over the targets, not the sum",
        -math.log(7 / 24): "take the logarithm of each target first, then the mean; not the other way round",
        -math.log(4): "the loss is minus the logarithm, so it is never negative",
    }
    for value, why in wrong.items():
        if abs(answer - value) < 0.006:
            raise _Violated(why)
    if abs(answer - math.log(4)) > 0.006:
        raise _Violated(f"the mean of -ln(1/2), -ln(1/4) and -ln(1/8) is not {answer:g}")


@_check("cross-entropy over the tracks 1…N, averaged over the real targets alone")
def masked_loss(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Exercise 04.2: the loss of scores [B, L, N+1] for targets [B, L], 0 = padding."""

    def verify(scores: list, targets: list, wanted: float, rule: str) -> None:
        got = _call(function, torch.tensor(scores), torch.tensor(targets))
        shown = f"{function.__name__}({scores}, {targets})"
        if got is None:
            raise _Violated(f"{rule}: {shown} returns nothing, wanted {wanted:.4f}")
        got = float(got)
        if not abs(got - wanted) < 1e-4:  # NaN is not, either
            raise _Violated(f"{rule}: {shown} gives {got:.4f}, wanted {wanted:.4f}")

    even, sure = [0.0, 0.0, 0.0], [0.0, 2.0, 0.0]  # two tracks, and the column of padding
    two = math.log(2)
    cost = math.log(1 + math.exp(-2))
    verify([[even]], [[1]], two, "two equal scores cost ln 2: padding (column 0) is no candidate")
    verify([[[9.0, 0.0, 0.0]]], [[2]], two, "padding (column 0) is no candidate, whatever its score")
    verify([[sure]], [[1]], cost, "a higher score of the target costs less")
    verify([[even, sure]], [[1, 0]], two, "a position whose target is 0 is padding and must not count")
    verify([[even, even, even], [sure, sure, sure]], [[1, 0, 0], [1, 1, 1]], (two + 3 * cost) / 4,
           "every target weighs the same, however long its row")  # fmt: skip
    verify([[even, even], [even, even]], [[2, 0], [1, 2]], two, "padding counts neither above nor below the line")


class _Scale(nn.Module):
    """A loss with one weight: (weight · ids - targets)², and a note of the mode it was computed in."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.0))
        self.modes: list[bool] = []

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        self.modes.append(self.training)
        return ((self.weight * ids - targets) ** 2).mean()


@_check("each step clears the old gradients, learns from its own batch, in training mode, and hands back a number")
def training_step(function: Callable) -> None:
    """Exercise 04.3, find the bug: one step of training; `objective(ids, targets)` is the loss."""
    objective = _Scale()
    objective.eval()
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.25)
    ids, targets = torch.tensor([1.0]), torch.tensor([1.0])
    first = _call(function, objective, optimizer, ids, targets)
    if objective.weight.item() == 0:
        raise _Violated(
            "a step must change the weights: zero_grad, then backward, then step; clearing between the last two leaves "
            "nothing to learn from"
        )
    if not math.isclose(objective.weight.item(), 0.5):
        raise _Violated(
            f"one step changes a weight once: with rate 0.25 and gradient -2 it goes from 0 to 0.5, not to "
            f"{objective.weight.item():g}"
        )
    _call(function, objective, optimizer, ids, targets)
    if not math.isclose(objective.weight.item(), 0.75):
        raise _Violated(
            "the last step's gradients must be cleared: after two steps from 0 with rate 0.25 the weight should be 0.75, "
            f"and it is {objective.weight.item():g}"
        )
    if not all(objective.modes):
        raise _Violated("dropout works in training mode only: call objective.train(), validation has left eval mode on")
    if isinstance(first, Tensor):
        raise _Violated("return loss.item(): a tensor would keep all it was computed from in memory")
    if not isinstance(first, float) or not math.isclose(first, 1.0):
        raise _Violated(f"it returns the loss of the batch before the step, here 1.0, not {first!r}")


@_check("the best epoch is the first of the best, and the run ends `patience` epochs after it at the latest")
def early_stop(function: Callable[[list[float], int], tuple[int, int]]) -> None:
    """Exercise 04.4: (best epoch, last epoch trained) from the NDCG of each epoch and the patience."""
    _expect(function, ([0.1], 1), (1, 1), "epochs count from 1, and one epoch is its own best")
    _expect(function, ([0.1, 0.2], 1), (2, 2), "while it gets better it goes on, to the end")
    _expect(function, ([0.3, 0.2, 0.4], 1), (1, 2), "with patience 1 the first worse epoch is the last")
    _expect(function, ([0.3, 0.2, 0.4], 2), (3, 3), "with patience 2 one worse epoch is endured")
    _expect(function, ([0.3, 0.1, 0.2, 0.4], 2), (1, 3), "what counts is the best so far, not the epoch before")
    _expect(function, ([0.3, 0.3, 0.3], 2), (1, 3), "as good is not better: the first of equals is the best")
    _expect(function, ([0.1, 0.3, 0.2, 0.2, 0.9], 2), (2, 4), "what comes after the stop was never trained")


# The four runs that exercise 04.5 asks about: (training loss, validation loss) of four epochs. Popularity has 5.06.
RUNS = {
    "A": ((4.6, 3.9, 3.1, 2.2), (4.5, 4.6, 5.2, 6.3)),
    "B": ((5.28, 5.26, 5.24, 5.22), (5.27, 5.25, 5.23, 5.21)),
    "C": ((4.9, 4.5, 4.3, 4.2), (4.6, 4.4, 4.3, 4.3)),
    "D": ((5.9, 5.6, 5.8, 5.7), (5.6, 5.8, 5.5, 5.9)),
}
_DIAGNOSES = {"A": "over-fitting", "B": "rate too low", "C": "healthy", "D": "rate too high"}


@_check("A knows its playlists by heart, B crawls, C learns, D jumps about above popularity")
def diagnoses(answer: Mapping[str, str]) -> None:
    """Exercise 04.5, interpret: what is the matter with runs A to D?"""
    if not isinstance(answer, Mapping) or set(answer) != set(_DIAGNOSES):
        raise _Violated('the answer names a diagnosis for each of "A", "B", "C" and "D"')
    if all(value in (None, "", Ellipsis) for value in answer.values()):
        raise NotImplementedError
    why = {
        "A": "the training loss falls and falls while the validation loss climbs",
        "B": "both losses fall, together, by almost nothing an epoch",
        "C": "both losses fall and flatten out close to each other, below popularity's",
        "D": "both losses go up and down and stay above popularity's",
    }
    for name, wanted in _DIAGNOSES.items():
        if answer[name] not in _DIAGNOSES.values():
            raise _Violated(f"{name}: choose among {', '.join(sorted(_DIAGNOSES.values()))}, not {answer[name]!r}")
        if answer[name] != wanted:
            raise _Violated(f"{name} is not {answer[name]}: {why[name]}")


class _Counting(np.random.Generator):
    """A generator that gives up after many calls, so that an endless loop ends."""

    calls = 0

    def _count(self) -> None:
        self.calls += 1
        if self.calls > 20_000:
            raise _Violated("it must end: nearly every track is in the playlist, and it draws again for ever")

    def integers(self, *args, **kwargs):
        self._count()
        return super().integers(*args, **kwargs)

    def choice(self, *args, **kwargs):
        self._count()
        return super().choice(*args, **kwargs)

    def random(self, *args, **kwargs):
        self._count()
        return super().random(*args, **kwargs)

    def permutation(self, *args, **kwargs):
        self._count()
        return super().permutation(*args, **kwargs)


@_check("fresh, uniform, never a track of the playlist, never the target, and it always ends")
def negatives(function: Callable[[list[int], int, int, int, np.random.Generator], list[int]]) -> None:
    """Exercise 04.6: k negatives among the tracks 1…n_items for one position."""

    def draw(history: list[int], target: int, n_items: int, k: int, rng: np.random.Generator) -> list[int]:
        try:
            got = function(list(history), target, n_items, k, rng)
        except (NotImplementedError, _Violated):
            raise
        except Exception as error:
            raise _Violated(
                f"it must not fail: with history {history}, target {target}, {n_items} tracks and k = {k} it raises "
                f"{type(error).__name__}: {error}"
            ) from None
        if got is None:
            raise _Violated("it returns nothing, wanted a list of tracks")
        got = [int(track) for track in np.asarray(got).ravel()]
        shown = f"history {history}, target {target}, {n_items} tracks, k = {k} gives {got}"
        if len(got) != k:
            raise _Violated(f"k negatives come out, repeats allowed: {shown}")
        if not all(1 <= track <= n_items for track in got):
            raise _Violated(f"negatives are tracks 1…N, never 0 (padding) or N + 1: {shown}")
        if target in got:
            raise _Violated(f"the target is no negative: {shown}")
        return got

    def generator(seed: int) -> np.random.Generator:
        return _Counting(np.random.PCG64(seed))

    for seed in range(20):
        got = draw([1], 2, 4, 3, generator(seed))
        if 1 in got:
            raise _Violated(f"a track of the playlist is no negative: history [1], target 2, 4 tracks gives {got}")
    got = draw([1, 2, 3], 4, 5, 2, generator(0))
    if got != [5, 5]:
        raise _Violated(f"only track 5 is left: history [1, 2, 3], target 4, 5 tracks gives {got}, wanted [5, 5]")
    draw([1, 3], 2, 3, 2, generator(0))  # nothing is left: anything but the target, as long as it ends
    rng = generator(0)
    if draw([1], 2, 1000, 20, rng) == draw([1], 2, 1000, 20, rng):
        raise _Violated("negatives are drawn anew at each call: two calls gave the same twenty of 998 tracks")
    share = np.mean(np.array(draw([1], 2, 5, 3000, generator(1))) == 3)
    if not 0.28 < share < 0.39:
        raise _Violated(
            f"each allowed track is equally likely: of tracks 3, 4 and 5, 3 came up in {share:.0%} of draws"
        )
