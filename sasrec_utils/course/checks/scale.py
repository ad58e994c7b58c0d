"""Checks of notebook 10: how many at once, what a step holds in memory, the best in blocks, how far a curve reaches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from sasrec_utils.course.checks.trying import Violated, call, check, expect, number


@check("2.4 requests are under way at any moment: what arrives in the time that one takes")
def under_way(answer: float) -> None:
    """Exercise 10.1, by hand: 300 requests a second, 8 ms each; 2.4 are under way on average (Little's law)."""
    answer = number(answer)
    wrong = {
        2400.0: "300 a second times 8 is right for seconds; these are milliseconds: 0.008 s",
        37.5: "divide nothing: what arrives while one is served is a rate times a time",
        125.0: "this is how many a single worker can serve in a second (1 / 0.008 s), not how many are under way",
        0.4: "no cores in this question yet: how many are under way in all?",
        3.0: "this is how many cores you need at least; the mean itself is not a whole number",
    }
    for value, why in wrong.items():
        if math.isclose(answer, value, rel_tol=1e-3):
            raise Violated(why)
    if not math.isclose(answer, 2.4, rel_tol=1e-3):
        raise Violated(f"300 arrive in a second, so in 0.008 s arrive fewer than three, not {answer:g}")


@check("dense, four tables; sparse, one table, the used rows with their numbers, and two numbers for each row")
def step_bytes(function: Callable[[int, int, int, bool], float]) -> None:
    """Exercise 10.2: bytes that training holds for one table: `step_bytes(rows, dim, used, sparse)`."""
    dense = "dense: the table, its gradient and Adam's two moments, 4 bytes a number"
    expect(function, (1, 1, 0, False), 16, dense)
    expect(function, (10, 4, 3, False), 640, "dense: all rows are there four times, used or not")
    expect(function, (10, 4, 0, True), 240, "sparse: the table (4 bytes a number) and two numbers for each of its rows")
    expect(function, (10, 4, 1, True), 264, "sparse: a used row has its gradient and its number, 8 bytes (int64)")
    expect(function, (10, 4, 10, True), 480, "sparse: even with all rows used there are no moments of a table's size")
    rows, dim, used = 2_262_293, 128, 100_000
    wanted = 4 * rows * dim + 8 * rows + used * (4 * dim + 8)
    expect(function, (rows, dim, used, True), wanted, "the same at the size of the full data set")


@check("the best of all, best first, whatever the size of a block")
def best_in_blocks(function: Callable[[Sequence[float], int, int], list[int]]) -> None:
    """Exercise 10.4, find the bug: the k best scores' places, looking at `size` scores at a time."""
    expect(function, ([0.1, 0.9, 0.5], 1, 3), [1], "one block is all there is")
    expect(function, ([0.1, 0.2, 0.9, 0.5], 1, 2), [2], "places count from the start of all scores, not of the block")
    expect(function, ([0.5, 0.2, 0.9, 0.1], 2, 2), [2, 0], "the best comes first, in whichever block it stands")
    expect(function, ([0.1, 0.2, 0.9, 0.8], 2, 2), [2, 3], "all of the best may stand in one block")
    expect(function, ([0.3, 0.9, 0.8], 2, 2), [1, 2], "the last block may be shorter than the others")
    expect(function, ([0.3, 0.9, 0.8, 0.7, 0.1], 3, 2), [1, 2, 3], "k may be larger than a block")
    expect(function, ([0.2, 0.1, 0.3], 5, 2), [2, 0, 1], "with fewer than k scores all of them are the best")
    expect(function, ([-5.0, -1.0, -3.0], 1, 2), [1], "scores may be below 0")


@check("a straight line through the logarithms: what doubles with the size doubles, what stays stays")
def extrapolate(function: Callable[[Sequence[float], Sequence[float], float], float]) -> None:
    """Exercise 10.3: the value at `wanted` from measured ones, by a power law fitted to the logarithms."""

    def verify(sizes: list, values: list, wanted: float, expected: float, rule: str) -> None:
        got = call(function, sizes, values, wanted)
        shown = f"{function.__name__}({sizes}, {values}, {wanted})"
        if got is None:
            raise Violated(f"{rule}: {shown} returns nothing, wanted {expected:g}")
        if not math.isclose(number(got), expected, rel_tol=1e-4):
            raise Violated(f"{rule}: {shown} gives {number(got):g}, wanted {expected:g}")

    verify([1, 10], [2.0, 20.0], 100, 200.0, "ten times the size, ten times the time")
    verify([1, 10], [3.0, 3.0], 1000, 3.0, "what did not grow does not grow")
    verify([1, 4], [2.0, 4.0], 16, 8.0, "four times the size, twice the time, and again: a line through logarithms, "
           "not through the numbers")  # fmt: skip
    verify([1, 10, 100], [1.0, 10.0, 100.0], 1000, 1000.0, "all points lie on the line")
    verify([1, 10, 100], [1.0, 10.0, 10.0], 1000, 46.4159, "all points count, not the last two alone: least squares")
    verify([2, 8], [1.0, 2.0], 2, 1.0, "at a size that was measured it gives what was measured")


@check("a ring passes a dense gradient on, almost twice; sparse rows go from each process to every other")
def received(function: Callable[[int, int, int, int, bool], float]) -> None:
    """Exercise 10.5: bytes each process receives in a step: `received(processes, rows, dim, used, sparse)`."""
    expect(function, (1, 10, 4, 3, False), 0, "a single process needs nobody")
    expect(function, (1, 10, 4, 3, True), 0, "a single process needs nobody")
    expect(function, (2, 10, 4, 3, False), 160, "dense, two processes: 2 (p - 1) / p times a table of 4 bytes a number")
    expect(function, (8, 10, 4, 3, False), 280, "dense: the more processes, the nearer to two tables, and never more")
    expect(function, (2, 10, 4, 3, True), 72, "sparse: the rows that the other used, 4 bytes a number, 8 for where")
    expect(function, (8, 10, 4, 3, True), 504, "sparse: the used rows of all the others, so it grows with p - 1")
    expect(function, (8, 1_000_000, 4, 3, True), 504, "sparse: how many rows the table has does not matter")
