"""Checks of notebook 09: candidates, habits, what is held out, and plans that leak."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from sasrec_utils.course.checks.sequences import _labels
from sasrec_utils.course.checks.trying import Violated, call, check, expect, plain


@check("the best tracks of each row, without its history and without padding, however few are left")
def candidates(function: Callable[[np.ndarray, int, list[list[int]]], list[set[int]]]) -> None:
    """Exercise 09.1, implement: the best `take` tracks of each row that are not in its history."""
    scores = np.array([[9.0, 0.1, 0.5, 0.3], [9.0, 0.4, 0.2, 0.6]])
    below = np.array([[0.0, -3.0, -1.0, -2.0]])
    for given, take, histories, wanted, rule in (
        (scores, 1, [[], []], [{2}, {3}], "the best track of each row; column 0 is padding, no track"),
        (scores, 2, [[], []], [{2, 3}, {1, 3}], "the best two of each row"),
        (scores, 1, [[2], [3]], [{3}, {1}], "tracks of the history are no candidates, the next best are"),
        (scores, 2, [[2, 2], [3]], [{1, 3}, {1, 2}], "a track that stands in the history twice is one track"),
        (scores, 2, [[2, 3], []], [{1}, {1, 3}], "with one track left there is one candidate"),
        (scores, 3, [[1, 2, 3], [1]], [set(), {2, 3}], "with no track left there is no candidate"),
        (below, 1, [[2]], [{3}], "scores may be below 0, and 0 is still padding"),
    ):
        before = given.copy()
        answer = call(function, given, take, histories)
        try:
            got = [{int(track) for track in row} for row in answer]
        except (TypeError, ValueError):
            raise Violated(f"it returns a list with one set of tracks for each history, not {answer!r}") from None
        if got != wanted:
            raise Violated(f"{rule}: the best {take} of {before.tolist()} after {histories} are {wanted}, not {got}")
        if not np.array_equal(given, before):
            raise Violated("the scores that it is given must not change: work on a copy")


@check("the strongest habit among the numbers of steps after which the artist would come back")
def artist_habit(function: Callable[[list[str], str], float]) -> None:
    """Exercise 09.2, implement: how often this playlist came back to an artist after as many steps as it would now."""

    def after(count: int, pairs: int) -> float:
        return (count + 0.2) / (pairs + 2)

    a, b = "Ann", "Bob"
    expect(function, ([], a), 0.0, "an empty playlist has no habit")
    expect(function, ([b], a), 0.0, "an artist that the playlist has never had cannot come back")
    expect(function, ([a], a), after(0, 0), "no pair yet: only the two imaginary steps count")
    expect(
        function, ([a, a, b], b), after(1, 2), "Bob would come back after 1 step, as this playlist did with Ann once"
    )
    expect(
        function, ([b, b, a, b], a), after(1, 2), "Ann was last heard at age 1, so she would come back after 2 steps"
    )
    expect(function, ([a, b, a, b], b), after(0, 1), "Bob has ages 0 and 2: of the habits of 1 and 3 steps the larger")
    expect(function, ([a, b, b, a], a), after(1, 3), "of several ages the one with the largest habit")
    expect(function, ([a] + [b] * 7, a), after(0, 0), "an age of 7 still counts")
    expect(function, ([a] + [b] * 8, a), 0.0, "ages from 8 on do not count")


@check("whole playlists are held out, about every fifth")
def held_out(function: Callable[[np.ndarray], np.ndarray]) -> None:
    """Exercise 09.3, find the bug: questions of one playlist stay on one side."""
    sizes = np.arange(40) % 5 + 1
    for owner in (np.repeat(np.arange(10), 2), np.repeat(np.arange(40), sizes), np.repeat(np.arange(3, 53), 5)[::-1]):
        got = np.asarray(call(function, owner.copy()))
        if got.shape != owner.shape or got.dtype != bool:
            raise Violated(f"it says True or False for each of the {len(owner)} questions, not {plain(got)}")
        playlists = np.unique(owner)
        for playlist in playlists:
            sides = got[owner == playlist]
            if sides.any() and not sides.all():
                raise Violated(f"the questions of one playlist stay together: those of playlist {playlist} are parted")
        share = len(np.unique(owner[got])) / len(playlists)
        if not 0.1 <= share <= 0.3:
            raise Violated(f"about every fifth playlist is held out: of {len(playlists)} playlists {share:.0%} are")


_PLANS = {"A": "clean", "B": "leaks", "C": "leaks", "D": "clean", "E": "leaks"}


@check("a plan leaks if any scorer has seen a target that the trees learn from, or one that judges them")
def leaky_plans(answer: Mapping[str, str | None]) -> None:
    """Exercise 09.4, interpret: which of five plans for two stages leak ("leaks" or "clean")."""
    _labels(
        answer,
        _PLANS,
        "Write down for each plan what every scorer has seen. Are targets of the trees, or of the exam, among them?",
    )
