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
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any

import numpy as np

__all__ = [
    "Result",
    "bucket",
    "collision",
    "difference_interval",
    "honest_rank",
    "honest_split",
    "impossible",
    "keep_newest",
    "leaks",
    "next_targets",
    "next_tracks",
    "padding_share",
    "rank_of",
    "same_artist",
    "sampled_hit",
    "share_of_best",
    "shared_playlists",
    "shift",
    "slice_order",
    "three_metrics",
    "unique_tracks",
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
