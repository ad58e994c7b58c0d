"""Checks of notebook 07: probabilities of candidates, and changed playlists."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from sasrec_utils.course.checks.trying import Violated, call, check, expect


@check("what was heard is no candidate, and the others share its probability in proportion")
def next_share(answer: float) -> None:
    """Exercise 07.1, by hand: A .4, B .3, C .2, D .1; the playlist has A. Among the candidates B has .5."""
    if not isinstance(answer, int | float):
        raise Violated(f"the answer is a number, not {answer!r}")
    if abs(answer - 0.3) < 1e-9:
        raise Violated("probabilities of the candidates sum to 1: without A, .3 + .2 + .1 is only .6")
    if abs(answer - 0.7) < 1e-9 or abs(answer - 0.4) < 1e-9:
        raise Violated("A's share goes to all candidates in proportion, not to B alone and not to A")
    if abs(answer - 0.5) > 1e-9:
        raise Violated(f"B has .3 of the .6 that are left, so {answer!r} cannot be")


@check("draws follow softmax(scores / temperature) among the tracks not heard, and temperature 0 takes the best")
def pick(function: Callable[[dict[str, float], list[str], float, float], str]) -> None:
    """Exercise 07.2: draw a next track with a temperature, from a number u in [0, 1)."""
    equal, two = {"a": 0.0, "b": 0.0}, {"a": 0.0, "b": float(np.log(3))}
    expect(function, ({"a": 1.0}, [], 1.0, 0.5), "a", "the only candidate is drawn")
    expect(function, (equal, [], 1.0, 0.2), "a", "candidates take their share of 0…1 in order: a up to .5")
    expect(function, (equal, [], 1.0, 0.7), "b", "candidates take their share of 0…1 in order: b from .5 on")
    expect(function, (two, [], 0.0, 0.1), "b", "temperature 0 takes the best, whatever u is")
    expect(function, (two, [], 1.0, 0.24), "a", "at temperature 1 a has 1/4: softmax of 0 and log 3")
    expect(function, (two, [], 1.0, 0.26), "b", "at temperature 1 b has 3/4: softmax of 0 and log 3")
    expect(function, (two, [], 0.5, 0.15), "b", "at temperature 1/2 scores double: b has 9/10")
    expect(function, (two, [], 1.0, 0.999), "b", "u up to 1 finds a track")
    expect(function, (two, ["b"], 1.0, 0.9), "a", "tracks that were heard are no candidates")
    expect(function, (two, ["b"], 0.0, 0.9), "a", "tracks that were heard are no candidates, at temperature 0 either")
    expect(function, ({"a": 1e4, "b": 1e4}, [], 1.0, 0.7), "b", "large scores must not overflow: subtract the largest")


@check("one place is taken out, whatever else is equal to it, and the playlist that was given stays as it was")
def without(function: Callable[[list[int], int], list[int]]) -> None:
    """Exercise 07.3, find the bug: the playlist without the track at one place."""
    expect(function, ([1, 2], 0), [2], "the track at the place goes")
    expect(function, ([1, 2], 1), [1], "the track at the place goes")
    expect(function, ([1, 2, 1], 2), [1, 2], "a repeat is another place: the first 1 stays")
    expect(function, ([1, 2, 1], 0), [2, 1], "a repeat is another place: the last 1 stays")
    expect(function, ([1], 0), [], "a playlist of one track becomes empty")
    given = [1, 2, 3]
    call(function, given, 1)
    if given != [1, 2, 3]:
        raise Violated(f"the playlist that was given must not change: [1, 2, 3] has become {given!r}")


# The three readings that exercise 07.4 asks about.
READINGS = {
    "A": "A head gives a track 60 %; without that track, the prediction would lose 60 %.",
    "B": "With the earlier tracks shuffled a weight stays as it was: it belongs to the place.",
    "C": "Removing a track changes nothing, so the model did not look at it.",
}


@check("a weight says where a head looks, the control what belongs to the place, and a removal what it changes")
def weights_say(answer: Mapping[str, bool]) -> None:
    """Exercise 07.4, interpret: which of three readings of attention hold (True) and which do not (False)."""
    if not isinstance(answer, Mapping) or set(answer) != set(READINGS):
        raise Violated('the answer says True or False for each of "A", "B" and "C"')
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
            raise Violated(f"{name} is {wanted}: {why[name]}")


@check("the best come first, no artist more than m times, and k of them if there are so many")
def at_most(function: Callable[[list[tuple[str, str]], int, int], list[str]]) -> None:
    """Exercise 07.5, stretch: the k best of (track, artist) pairs, best first, at most m of one artist."""
    ranked = [("a1", "A"), ("a2", "A"), ("a3", "A"), ("b1", "B"), ("a4", "A"), ("b2", "B")]
    expect(function, ([("a1", "A")], 1, 1), ["a1"], "one track alone is fine")
    expect(function, (ranked, 1, 2), ["a1", "b1"], "an artist comes at most m times, and the list is filled up to k")
    expect(function, (ranked, 2, 4), ["a1", "a2", "b1", "b2"], "the order stays that of the ranking")
    expect(function, (ranked, 9, 3), ["a1", "a2", "a3"], "a limit that is never met changes nothing")
    expect(function, (ranked, 1, 5), ["a1", "b1"], "where artists run out, the list stays short")
    expect(function, (ranked, 2, 1), ["a1"], "k is respected")
    expect(function, ([], 1, 3), [], "from nothing comes nothing")
