"""Checks of notebook 06: metrics, intervals, and numbers that cannot be."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from sasrec_utils.course.checks.trying import Violated, call, check, expect, number, plain


@check("a hit counts 1 in Recall, 1 / log2(rank + 1) in NDCG, and MRR has no cut-off")
def three_metrics(answer: Mapping[str, float]) -> None:
    """Exercise 06.1, by hand: Recall@10, NDCG@10 and MRR of three targets at the ranks 1, 3 and 12."""
    if not isinstance(answer, Mapping) or set(answer) != {"recall", "ndcg", "mrr"}:
        raise Violated('the answer has a number for each of "recall", "ndcg" and "mrr"')
    if all(value in (None, Ellipsis) for value in answer.values()):
        raise NotImplementedError
    wanted = {
        "recall": (2 / 3, "ranks 1 and 3 are hits, rank 12 is none: 2 of 3"),
        "ndcg": (1 / 2, "rank 1 gives 1 / log2(2) = 1, rank 3 gives 1 / log2(4) = 1/2, rank 12 gives 0, over 3"),
        "mrr": ((1 + 1 / 3 + 1 / 12) / 3, "1/1, 1/3 and, with no cut-off, 1/12, over 3"),
    }
    for name, (value, why) in wanted.items():
        if answer[name] is None or abs(number(answer[name]) - value) > 0.006:  # two digits are enough
            raise Violated(f"{name} is not {answer[name]!r}: {why}")


@check("ties count against the target, and a score that is no number is an error")
def honest_rank(function: Callable[[float, list[float]], int]) -> None:
    """Exercise 06.2, find the bug: the rank of a target among other candidates."""
    expect(function, (0.5, []), 1, "a target without rivals has rank 1")
    expect(function, (0.5, [0.9]), 2, "a better rival stands before it")
    expect(function, (0.5, [0.1]), 1, "a worse rival stands behind it")
    expect(function, (0.5, [0.5]), 2, "a tie counts against the target: else a constant scorer is always right")
    expect(function, (0.5, [0.5, 0.9, 0.1, 0.5]), 4, "better rivals and ties are all counted")
    expect(function, (0.5, [float("-inf")]), 1, "a rival that is ruled out (-inf) stands behind")
    nan = float("nan")
    for args in ((nan, [0.1]), (nan, []), (0.5, [nan]), (0.5, [0.1, nan]), (0.5, [nan, 0.9]), (0.5, [0.9, nan, 0.1])):
        shown = f"{getattr(function, '__name__', 'it')}({', '.join(map(repr, args))})"
        try:
            got = function(*args)
        except ValueError:
            continue
        except Exception as error:
            raise Violated(f"NaN raises ValueError: {shown} raises {type(error).__name__}") from None
        raise Violated(f"every comparison with NaN is false, so its rank means nothing: {shown} gives {got!r}")


@check("playlists are resampled in pairs: what both models find hard cancels")
def difference_interval(function: Callable[[list[float], list[float], int], tuple[float, float, float]]) -> None:
    """Exercise 06.3: mean of a - b and its 95 % bootstrap interval over playlists, from a seed."""

    def ask(a: list[float], b: list[float], seed: int, shown: str) -> list[float]:
        got = plain(call(function, a, b, seed))
        if not isinstance(got, tuple | list) or len(got) != 3:
            raise Violated(f"it returns (mean, low, high): {shown} gives {got!r}")
        return [float(value) for value in map(plain, got)]

    mean, low, high = ask([1.0, 1.0], [1.0, 1.0], 0, "([1, 1], [1, 1], 0)")
    if (mean, low, high) != (0, 0, 0):
        raise Violated(f"two equal models differ by 0, surely: ([1, 1], [1, 1], 0) gives {(mean, low, high)}")
    mean, low, high = ask([1.0, 0.0], [0.0, 0.0], 0, "([1, 0], [0, 0], 0)")
    if abs(mean - 0.5) > 1e-9:
        raise Violated(f"the mean is that of a - b on the playlists as they are: ([1, 0], [0, 0], 0) gives {mean}")
    if max(abs(low), abs(high - 1)) > 1e-9:
        raise Violated(f"two playlists tell little, the interval is [0, 1]: ([1, 0], [0, 0], 0) gives {[low, high]}")
    rng = np.random.default_rng(0)
    hard = rng.random(400)
    got = ask((hard + 0.25).tolist(), hard.tolist(), 0, "(b + 0.25, b, 0)")
    if max(abs(value - 0.25) for value in got) > 1e-9:
        raise Violated(
            f"the same playlists are drawn for both models: where a is b + 0.25 on each of 400 playlists the interval "
            f"is [0.25, 0.25], not [{got[1]:.3f}, {got[2]:.3f}]"
        )
    a, b = rng.normal(size=400).tolist(), [0.0] * 400
    asked = [ask(a, b, seed, f"(400 draws, zeros, {seed})") for seed in range(10)]
    mean, low, high = np.mean(asked, axis=0)  # over seeds, so that the luck of few resamples is not held against anyone
    expected = 1.96 * float(np.std(a)) / 20
    for end, half in (("below", mean - low), ("above", high - mean)):
        if not 0.92 * expected < half < 1.08 * expected:
            raise Violated(
                f"as many playlists are drawn as there are, and 95 % of the means lie inside, 2.5 % on each side: for "
                f"400 differences with a spread of {np.std(a):.2f} it reaches about {expected:.3f} {end} the mean, not "
                f"{half:.3f}"
            )
    if ask(a, b, 0, "(400 draws, zeros, 0)") != asked[0]:
        raise Violated("the same seed gives the same interval: two calls with seed 0 differ")


@check("0 ≤ NDCG ≤ Recall ≤ share of known targets, and a hit is worth at least 1 / log2(k + 1)")
def impossible(function: Callable[[float, float, int, float], bool]) -> None:
    """Exercise 06.4: whether Recall@k and NDCG@k over all targets (one each) can be, with this share of them known."""
    cases = [
        ((0.0, 0.0, 10, 0.5), False, "finding nothing is always possible"),
        ((1.0, 1.0, 10, 1.0), False, "all targets at rank 1 are possible"),
        ((0.5, 0.5, 10, 0.5), False, "all known targets at rank 1 are possible"),
        ((0.5, 1.6, 10, 1.0), True, "NDCG cannot pass 1"),
        ((0.3, 0.4, 10, 1.0), True, "a hit is worth at most 1, so NDCG cannot pass Recall"),
        ((0.7, 0.5, 10, 0.6), True, "a target that is not known cannot be found, so Recall cannot pass that share"),
        ((0.5, 0.1, 10, 1.0), True, "at rank 10 a hit is still worth 1 / log2(11) = 0.289, so NDCG ≥ 0.289 · Recall"),
        ((0.5, 0.2, 10, 1.0), False, "0.2 lies between 0.289 · 0.5 and 0.5"),
        ((0.5, 0.2, 3, 1.0), True, "at rank 3 a hit is still worth 1 / log2(4) = 0.5: what a hit is worth hangs on k"),
        (
            (0.5, 0.1, 100, 1.0),
            False,
            "at rank 100 a hit is worth 1 / log2(101) = 0.150: what a hit is worth hangs on k",
        ),
        ((0.5, 0.3, 1, 1.0), True, "at k = 1 every hit is worth 1, so NDCG and Recall are equal"),
        ((-0.1, -0.2, 10, 1.0), True, "a share is never negative"),
    ]
    for args, wanted, why in cases:
        got = call(function, *args)
        if bool(got) != wanted or got is None:
            shown = f"{getattr(function, '__name__', 'it')}{args}"
            raise Violated(f"{why}: {shown} gives {got!r}, wanted {wanted}")


@check("the sampled hit is a lottery over which rivals are drawn, and far kinder than the full one")
def sampled_hit(function: Callable[[int, int, int, int], float]) -> None:
    """Exercise 06.5, stretch: P(target among the best k of itself and m random others | its full rank among n)."""

    def near(args: tuple[int, int, int, int], wanted: float, why: str) -> None:
        got = plain(call(function, *args))
        if not isinstance(got, int | float) or not abs(got - wanted) < 1e-6:
            shown = f"{getattr(function, '__name__', 'it')}{args}"
            raise Violated(f"{why}: {shown} gives {got!r}, wanted {wanted:.6g}")

    near((1, 10, 5, 1), 1.0, "nothing beats the first, whoever is drawn")
    near((10, 10, 5, 1), 0.0, "everything beats the last, so none of the drawn may")
    near((2, 3, 1, 1), 0.5, "of two others one is better: the draw decides")
    near((3, 5, 2, 1), 1 / 6, "negatives are drawn without putting back: both of the two worse ones, 1 of 6 pairs")
    near((3, 5, 2, 2), 5 / 6, "all but the pair of the two better ones, 5 of 6 pairs")
    near((4, 5, 4, 3), 0.0, "with all others drawn the sampled rank is the full rank")
    near((100, 1000, 100, 10), 0.4574895, "k - 1 better ones may be drawn, not k")
