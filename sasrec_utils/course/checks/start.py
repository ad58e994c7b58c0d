"""Checks of notebook 00: ranks, shares of the best, the first recommendations."""

from __future__ import annotations

from collections.abc import Callable

from sasrec_utils.course.checks.trying import Violated, call, check, expect


@check("the target's rank counts the candidates that score at least as high, and leaves out what was heard")
def rank_of(answer: int) -> None:
    """Exercise 00.1, by hand: scores A .1, B .4, C .3, D .2; heard B; the next track was D. Its rank is 2."""
    if answer == 3:
        raise Violated(
            "tracks already heard are no candidates: B (.4) must not be counted, so only C (.3) beats D (.2)"
        )
    if answer == 1:
        raise Violated("the rank counts every better candidate: C (.3) scores higher than D (.2)")
    if answer != 2:
        raise Violated(f"ranks start at 1 and count better candidates: C alone beats D, so {answer!r} cannot be")


@check("model / best, and a model that is as good as the best possible one has 1.0 of it")
def share_of_best(function: Callable[[list[int], list[int], int], float]) -> None:
    """Exercise 00.2: Recall@k of a model as a share of the oracle's, from the ranks of both."""
    expect(function, ([1], [1], 10), 1.0, "the best possible model has all of it")
    expect(function, ([11], [1], 10), 0.0, "a target at rank 11 is no hit among the best 10")
    expect(function, ([10], [1], 10), 1.0, "a target at rank 10 is a hit among the best 10")
    expect(function, ([1, 99], [1, 2], 10), 0.5, "it is the ratio of two Recalls")
    expect(function, ([1, 99, 99, 99], [1, 99, 2, 99], 10), 0.5, "it is the ratio of two Recalls, not the model's own")
    expect(function, ([2, 99], [1, 1], 1), 0.0, "k must be respected")
    expect(function, ([1, 99], [99, 1], 10), 1.0, "a hit of the model counts, also where the oracle misses")


@check("the best tracks that were not heard, best first")
def next_tracks(function: Callable[[dict[str, float], list[str], int], list[str]]) -> None:
    """Exercise 00.3: the k best candidates from a table of scores."""
    scores = {"a": 0.1, "b": 0.4, "c": 0.3}
    expect(function, ({"a": 0.1}, [], 1), ["a"], "the only candidate comes first")
    expect(function, ({"a": 0.1, "b": 0.4}, [], 1), ["b"], "a higher score is better")
    given, heard = dict(scores), ["b"]
    call(function, given, heard, 2)
    if given != scores or heard != ["b"]:
        raise Violated(f"what you are given must stay as it was: after the call scores is {given} and heard is {heard}")
    expect(function, (dict(scores), [], 2), ["b", "c"], "the k best come out, best first")
    expect(function, (dict(scores), ["b"], 2), ["c", "a"], "tracks that were heard are no candidates")
    expect(function, (dict(scores), ["a", "b", "c"], 2), [], "with nothing left the answer is empty")
