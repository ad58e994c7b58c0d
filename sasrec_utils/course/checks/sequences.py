"""Checks of notebook 02: shift, cut, shuffle and split."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from sasrec_utils.course.checks.trying import Violated, call, check, expect, plain, same


@check("inputs and targets are the playlist without its last and without its first track")
def shift(function: Callable[[list[int]], tuple[list[int], list[int]]]) -> None:
    """Exercise 02.1: inputs and targets of one playlist."""
    expect(function, ([5, 6],), ([5], [6]), "the target of an input is the track after it")
    expect(function, ([5, 6, 7],), ([5, 6], [6, 7]), "inputs lack the last track, targets the first")
    expect(function, ([5],), ([], []), "one track alone has no next one to learn from")
    expect(function, ([],), ([], []), "an empty playlist teaches nothing")
    expect(function, ([5, 5, 6],), ([5, 5], [5, 6]), "a repeated track is a target like any other")


@check("the newest tracks are kept, in their order, and all of them when there are few")
def keep_newest(function: Callable[[list[int], int], list[int]]) -> None:
    """Exercise 02.2, find the bug: the newest `n` tracks of a playlist."""
    expect(function, ([1, 2], 1), [2], "the newest track is the last one")
    expect(function, ([1, 2, 3], 2), [2, 3], "the newest are kept, oldest first among them")
    expect(function, ([1, 2], 3), [1, 2], "a playlist shorter than n stays whole")
    expect(function, ([1, 2], 5), [1, 2], "a playlist shorter than n stays whole")
    expect(function, ([], 3), [], "an empty playlist stays empty")
    expect(function, ([1, 2], 0), [], "n = 0 keeps nothing (and [-0:] is [0:], which keeps all)")


# What the labels of an answer may be, and which belongs where.
_LEAKS = {"A": "nothing", "B": "playlists", "C": "vocabulary"}
_SHUFFLED = {"popularity": "stays", "item-kNN": "stays", "Markov chain": "falls"}


def _labels(answer: Mapping[str, str], key: Mapping[str, str], ask: str) -> None:
    """All labels must be right. A wrong answer is told how many are, never which, and what to ask of each."""
    if not isinstance(answer, Mapping) or set(answer) != set(key):
        raise Violated(f"the answer says something for each of {', '.join(key)}")
    if all(value in (None, "", Ellipsis) for value in answer.values()):
        raise NotImplementedError
    words = sorted(set(key.values()))
    for name in key:
        if answer[name] not in words:
            raise Violated(f"{name}: say one of {', '.join(words)}, not {answer[name]!r}")
    right = sum(answer[name] == wanted for name, wanted in key.items())
    if right < len(key):
        raise Violated(f"{right} of {len(key)} are right. {ask}")


@check("popularity and item-kNN never look at the order; the Markov chain knows nothing else")
def after_shuffling(answer: Mapping[str, str]) -> None:
    """Exercise 02.3, predict: whose Recall "stays" and whose "falls" when the training playlists are shuffled?"""
    _labels(answer, _SHUFFLED, "Ask of each: does what it counts change when a playlist's tracks change places?")


@check("A is clean, B trains on parts of the playlists that judge it, C knows tracks from the test playlists")
def leaks(answer: Mapping[str, str]) -> None:
    """Exercise 02.4, spot the leaking split: what leaks in A, B and C ("nothing", "playlists" or "vocabulary")."""
    _labels(
        answer,
        _LEAKS,
        "Ask of each: can a row of a test playlist be trained on? Does anything that training uses count its plays?",
    )


@check("every playlist is dealt to one side, at random, and again the same way with the same seed")
def honest_split(function: Callable[[int, int], tuple[list[int], list[int]]]) -> None:
    """Exercise 02.5: deal n playlists into training and test, a tenth for the test."""
    for n in (10, 19, 50, 1000):
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
        if len(test) != len(set(test)) or len(train) != len(set(train)):
            side, part = ("test", test) if len(test) != len(set(test)) else ("training", train)
            twice = next(u for u in part if part.count(u) > 1)
            raise Violated(f"each playlist is dealt once: of {n} playlists, number {twice} is in the {side} part twice")
        if len(train) + len(test) != n:
            raise Violated(f"each playlist is dealt once: {len(train) + len(test)} playlists came out of {n}")
        if len(test) != n // 10:
            raise Violated(f"a tenth, rounded down, is for the test: of {n} playlists, {len(test)} are in it")
        again = call(function, n, 0)
        if not same(list(map(sorted, map(plain, map(np.asarray, again)))), [train, test]):
            raise Violated(f"the same seed deals the same way: two calls with ({n}, 0) differ")
    tests = [tuple(sorted(plain(np.asarray(call(function, 50, seed)[1])))) for seed in range(5)]
    if len(set(tests)) == 1:
        raise Violated("another seed deals another way: seeds 0 to 4 give the same test playlists")
    neighbours = [tuple(sorted((start + i) % 50 for i in range(5))) for start in range(50)]
    if all(test in neighbours for test in tests):
        raise Violated("playlists are dealt at random: the test part is always five neighbours in the file")


@check("dealt honestly, and still the test is answered by heart: a split by playlist cannot see copies")
def hidden_leak(function: Callable[[], tuple[list[list[int]], list[list[int]]]]) -> None:
    """Exercise 02.6, stretch: playlists, no row of them dealt twice, that someone who learns by heart aces."""
    got = call(function)
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise Violated(f"it returns training and test playlists: {function.__name__}() gives {got!r}")
    train, test = ([plain(np.asarray(playlist)) for playlist in part] for part in got)
    if not train or not test:
        raise Violated("both parts need at least one playlist")
    short = [playlist for playlist in test if len(playlist) < 4]
    if short:
        raise Violated(
            f"a test playlist has four tracks or more, or one pair decides it: {short[0]} has {len(short[0])}"
        )
    for playlist in test:
        *history, target = playlist
        found = {
            other[i + len(history)]
            for other in train
            for i in range(len(other) - len(history))
            if other[i : i + len(history)] == history
        }
        if found != {target}:
            says = f"answers {sorted(found)}" if found else "finds it nowhere"
            raise Violated(f"looking {history} up in the training playlists must answer {target}: it {says}")
