"""Checks of notebook 05: the loss, a step, when to stop, negatives."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from sasrec_utils.course.checks.trying import LIMIT, TooLong, Violated, call, check, expect, number


@check("the mean of -ln p over the targets, in nats: ln 4, as good as a fair choice among four")
def loss_in_nats(answer: float) -> None:
    """Exercise 05.1, by hand: the targets got the probabilities 1/2, 1/4 and 1/8; the loss is ln 4 = 1.386 nats."""
    answer = number(answer)
    wrong = {
        2.0: "these are bits: a nat uses the natural logarithm, so 1/2 costs ln 2 = 0.693, not 1",
        6.0: "these are bits, and not their mean: nats use the natural logarithm",
        math.log(64): "the loss is the mean over the targets, not the sum",
        -math.log(7 / 24): "take the logarithm of each target first, then the mean; not the other way round",
        -math.log(4): "the loss is minus the logarithm, so it is never negative",
    }
    for value, why in wrong.items():
        if abs(answer - value) < 0.006:
            raise Violated(why)
    if abs(answer - math.log(4)) > 0.006:
        raise Violated(f"the mean of -ln(1/2), -ln(1/4) and -ln(1/8) is not {answer:g}")


@check("cross-entropy over the tracks 1…N, averaged over the real targets alone")
def masked_loss(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Exercise 05.2: the loss of scores [B, L, N+1] for targets [B, L], 0 = padding."""

    def verify(scores: list, targets: list, wanted: float, rule: str) -> None:
        got = call(function, torch.tensor(scores), torch.tensor(targets))
        shown = f"{function.__name__}({scores}, {targets})"
        if got is None:
            raise Violated(f"{rule}: {shown} returns nothing, wanted {wanted:.4f}")
        got = float(got)
        if not abs(got - wanted) < 1e-4:  # NaN is not, either
            raise Violated(f"{rule}: {shown} gives {got:.4f}, wanted {wanted:.4f}")

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


@check("each step clears the old gradients, learns from its own batch, in training mode, and hands back a number")
def training_step(function: Callable) -> None:
    """Exercise 05.3, find the bug: one step of training; `objective(ids, targets)` is the loss."""
    objective = _Scale()
    objective.eval()
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.25)
    ids, targets = torch.tensor([1.0]), torch.tensor([1.0])
    first = call(function, objective, optimizer, ids, targets)
    if objective.weight.item() == 0:
        raise Violated(
            "a step must change the weights: zero_grad, then backward, then step; clearing between the last two leaves "
            "nothing to learn from"
        )
    if not math.isclose(objective.weight.item(), 0.5):
        raise Violated(
            f"one step changes a weight once: with rate 0.25 and gradient -2 it goes from 0 to 0.5, not to "
            f"{objective.weight.item():g}"
        )
    call(function, objective, optimizer, ids, targets)
    if not math.isclose(objective.weight.item(), 0.75):
        raise Violated(
            "the last step's gradients must be cleared: after two steps from 0 with rate 0.25 the weight should be "
            f"0.75, and it is {objective.weight.item():g}"
        )
    if not all(objective.modes):
        raise Violated("dropout works in training mode only: call objective.train(), validation has left eval mode on")
    if isinstance(first, Tensor):
        raise Violated("return loss.item(): a tensor would keep all it was computed from in memory")
    if not isinstance(first, float) or not math.isclose(first, 1.0):
        raise Violated(f"it returns the loss of the batch before the step, here 1.0, not {first!r}")


@check("the best epoch is the first of the best, and the run ends `patience` epochs after it at the latest")
def early_stop(function: Callable[[list[float], int], tuple[int, int]]) -> None:
    """Exercise 05.4: (best epoch, last epoch trained) from the NDCG of each epoch and the patience."""
    expect(function, ([0.1], 1), (1, 1), "epochs count from 1, and one epoch is its own best")
    expect(function, ([0.1, 0.2], 1), (2, 2), "while it gets better it goes on, to the end")
    expect(function, ([0.3, 0.2, 0.4], 1), (1, 2), "with patience 1 the first worse epoch is the last")
    expect(function, ([0.3, 0.2, 0.4], 2), (3, 3), "with patience 2 one worse epoch is endured")
    expect(function, ([0.3, 0.1, 0.2, 0.4], 2), (1, 3), "what counts is the best so far, not the epoch before")
    expect(function, ([0.3, 0.3, 0.3], 2), (1, 3), "as good is not better: the first of equals is the best")
    expect(function, ([0.1, 0.3, 0.2, 0.2, 0.9], 2), (2, 4), "what comes after the stop was never trained")


# The four runs that exercise 05.5 asks about: (training loss, validation loss) of four epochs. Popularity has 5.06.
RUNS = {
    "A": ((4.6, 3.9, 3.1, 2.2), (4.5, 4.6, 5.2, 6.3)),
    "B": ((5.28, 5.26, 5.24, 5.22), (5.27, 5.25, 5.23, 5.21)),
    "C": ((4.9, 4.5, 4.3, 4.2), (4.6, 4.4, 4.3, 4.3)),
    "D": ((5.9, 5.6, 5.8, 5.7), (5.6, 5.8, 5.5, 5.9)),
}


_DIAGNOSES = {"A": "over-fitting", "B": "rate too low", "C": "healthy", "D": "rate too high"}


@check("A knows its playlists by heart, B crawls, C learns, D jumps about above popularity")
def diagnoses(answer: Mapping[str, str]) -> None:
    """Exercise 05.5, interpret: what is the matter with runs A to D?"""
    if not isinstance(answer, Mapping) or set(answer) != set(_DIAGNOSES):
        raise Violated('the answer names a diagnosis for each of "A", "B", "C" and "D"')
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
            raise Violated(f"{name}: choose among {', '.join(sorted(_DIAGNOSES.values()))}, not {answer[name]!r}")
        if answer[name] != wanted:
            raise Violated(f"{name} is not {answer[name]}: {why[name]}")


@check("fresh, uniform, never a track of the playlist, never the target, and it always ends")
def negatives(function: Callable[[list[int], int, int, int, np.random.Generator], list[int]]) -> None:
    """Exercise 05.6: k negatives among the tracks 1…n_items for one position."""

    def draw(history: list[int], target: int, n_items: int, k: int, rng: np.random.Generator) -> list[int]:
        try:
            got = function(list(history), target, n_items, k, rng)
        except NotImplementedError:
            raise
        except TooLong:
            raise Violated(
                f"it must end: with history {history}, target {target}, {n_items} tracks and k = {k} it was still "
                f"drawing after {LIMIT:g} seconds"
            ) from None
        except Exception as error:
            raise Violated(
                f"it must not fail: with history {history}, target {target}, {n_items} tracks and k = {k} it raises "
                f"{type(error).__name__}: {error}"
            ) from None
        if got is None:
            raise Violated("it returns nothing, wanted a list of tracks")
        got = [int(track) for track in np.asarray(got).ravel()]
        shown = f"history {history}, target {target}, {n_items} tracks, k = {k} gives {got}"
        if len(got) != k:
            raise Violated(f"k negatives come out, repeats allowed: {shown}")
        if not all(1 <= track <= n_items for track in got):
            raise Violated(f"negatives are tracks 1…N, never 0 (padding) or N + 1: {shown}")
        if target in got:
            raise Violated(f"the target is no negative: {shown}")
        return got

    for seed in range(20):
        got = draw([1], 2, 4, 3, np.random.default_rng(seed))
        if 1 in got:
            raise Violated(f"a track of the playlist is no negative: history [1], target 2, 4 tracks gives {got}")
    got = draw([1, 2, 3], 4, 5, 2, np.random.default_rng(0))
    if got != [5, 5]:
        raise Violated(f"only track 5 is left: history [1, 2, 3], target 4, 5 tracks gives {got}, wanted [5, 5]")
    draw([1, 3], 2, 3, 2, np.random.default_rng(0))  # nothing is left: anything but the target, as long as it ends
    rng = np.random.default_rng(0)
    if draw([1], 2, 1000, 20, rng) == draw([1], 2, 1000, 20, rng):
        raise Violated("negatives are drawn anew at each call: two calls gave the same twenty of 998 tracks")
    share = np.mean(np.array(draw([1], 2, 5, 3000, np.random.default_rng(1))) == 3)
    if not 0.28 < share < 0.39:
        raise Violated(f"each allowed track is equally likely: of tracks 3, 4 and 5, 3 came up in {share:.0%} of draws")
