"""Checks of notebook 02: shift, cut, split and pad."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from sasrec_utils.course.checks.trying import Violated, call, check, expect, plain, same


@check("each target is the track that comes next, and the last input's target is the playlist's last track")
def next_targets(answer: list[int]) -> None:
    """Exercise 02.1, by hand: the targets of the playlist 7 3 9 4, whose inputs are 7 3 9."""
    answer = plain(answer)
    if answer == [7, 3, 9]:
        raise Violated("the target is the next track, not the input itself: the first input is 7, what follows it is 3")
    if answer == [3, 9, 4, 7]:
        raise Violated("a playlist does not wrap around: nothing is known to follow 4")
    if answer != [3, 9, 4]:
        raise Violated(f"the targets of 7 3 9 4 are what follows each of 7, 3 and 9, so {answer!r} cannot be")


@check("inputs and targets are the playlist without its last and without its first track")
def shift(function: Callable[[list[int]], tuple[list[int], list[int]]]) -> None:
    """Exercise 02.2: inputs and targets of one playlist."""
    expect(function, ([5, 6],), ([5], [6]), "the target of an input is the track after it")
    expect(function, ([5, 6, 7],), ([5, 6], [6, 7]), "inputs lack the last track, targets the first")
    expect(function, ([5],), ([], []), "one track alone has no next one to learn from")
    expect(function, ([],), ([], []), "an empty playlist teaches nothing")
    expect(function, ([5, 5, 6],), ([5, 5], [5, 6]), "a repeated track is a target like any other")


@check("the newest tracks are kept, in their order, and all of them when there are few")
def keep_newest(function: Callable[[list[int], int], list[int]]) -> None:
    """Exercise 02.3, find the bug: the newest `n` tracks of a playlist."""
    expect(function, ([1, 2], 1), [2], "the newest track is the last one")
    expect(function, ([1, 2, 3], 2), [2, 3], "the newest are kept, oldest first among them")
    expect(function, ([1, 2], 3), [1, 2], "a playlist shorter than n stays whole")
    expect(function, ([1, 2], 5), [1, 2], "a playlist shorter than n stays whole")
    expect(function, ([], 3), [], "an empty playlist stays empty")
    expect(function, ([1, 2], 0), [], "n = 0 keeps nothing (and [-0:] is [0:], which keeps all)")


# The three splits that exercise 02.4 asks about, on six playlists of the toy kind.
SPLITS = {
    "A": "whole playlists are dealt at random; the vocabulary is counted on the training ones",
    "B": "rows are dealt at random; the vocabulary is counted on the training ones",
    "C": "whole playlists are dealt at random; the vocabulary is counted on all of them",
}


_LEAKS = {"A": "nothing", "B": "playlists", "C": "vocabulary"}


@check("A is clean, B trains on parts of the playlists that judge it, C knows tracks from the test playlists")
def leaks(answer: Mapping[str, str]) -> None:
    """Exercise 02.4, spot the leaking split: what leaks in A, B and C ("nothing", "playlists" or "vocabulary")."""
    if not isinstance(answer, Mapping) or set(answer) != set(_LEAKS):
        raise Violated('the answer names what leaks for each of "A", "B" and "C"')
    if all(value in (None, "", Ellipsis) for value in answer.values()):
        raise NotImplementedError
    why = {
        "A": "no test playlist has a row in training, and a track that only a test playlist holds stays unknown",
        "B": "playlist 7 8 9 can have its 8 in training and its 9 in the test: the model has seen its neighbours",
        "C": "a track that stands in one test playlist only gets an id, so its target is kept and looks answerable",
    }
    for name, wanted in _LEAKS.items():
        if answer[name] not in ("nothing", "playlists", "vocabulary"):
            raise Violated(f'{name}: say "nothing", "playlists" or "vocabulary", not {answer[name]!r}')
        if answer[name] != wanted:
            raise Violated(f"{name} leaks {wanted}, not {answer[name]}: {why[name]}")


@check("every playlist is dealt to one side, at random, and again the same way with the same seed")
def honest_split(function: Callable[[int, int], tuple[list[int], list[int]]]) -> None:
    """Exercise 02.5: deal n playlists into training and test, a tenth for the test."""
    for n in (10, 50):
        got = call(function, n, 0)
        if not isinstance(got, tuple | list) or len(got) != 2:
            raise Violated(f"it returns training and test playlists: {function.__name__}({n}, 0) gives {got!r}")
        train, test = (sorted(plain(np.asarray(part)).copy()) for part in got)
        both = sorted(set(train) & set(test))
        if both:
            raise Violated(f"no playlist is on both sides: of {n} playlists, number {both[0]} is in both")
        lost = sorted(set(range(n)) - set(train) - set(test))
        if lost:
            raise Violated(f"no playlist is lost: of {n} playlists, number {lost[0]} is on neither side")
        if len(train) + len(test) != n:
            raise Violated(f"each playlist is dealt once: {len(train) + len(test)} playlists came out of {n}")
        if len(test) != n // 10:
            raise Violated(f"a tenth is for the test: of {n} playlists, {len(test)} are in it")
        again = call(function, n, 0)
        if not same(list(map(sorted, map(plain, map(np.asarray, again)))), [train, test]):
            raise Violated(f"the same seed deals the same way: two calls with ({n}, 0) differ")
    tests = [tuple(sorted(plain(np.asarray(call(function, 50, seed)[1])))) for seed in range(5)]
    if len(set(tests)) == 1:
        raise Violated("another seed deals another way: seeds 0 to 4 give the same test playlists")
    if all(test in (tuple(range(5)), tuple(range(45, 50))) for test in tests):
        raise Violated("playlists are dealt at random: the test part is the start or the end of the file")


@check("padding is what fills each row up to the longest of its own batch")
def padding_share(function: Callable[[list[int], int], float]) -> None:
    """Exercise 02.6, stretch: share of padding when windows of these lengths are batched in the given order."""
    expect(function, ([3], 1), 0.0, "a window alone needs no padding")
    expect(function, ([1, 3], 2), 2 / 6, "a batch is as wide as its longest window")
    expect(function, ([1, 3], 1), 0.0, "each batch has its own width")
    expect(function, ([1, 1, 3, 3], 2), 0.0, "equally long windows need no padding")
    expect(function, ([1, 3, 1], 2), 2 / 7, "the last batch may be smaller, and shares are of all positions")
