"""Checks of notebook 04: distances, a head cut out, and one head trained."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch

from sasrec_utils.course.checks.trying import Violated, called, check, tensor
from sasrec_utils.model import Attention, SASRecConfig


@check("one weight for each head and distance, whatever the place, and -inf in the future")
def distance_bias(function: Callable[[torch.Tensor, int], torch.Tensor]) -> None:
    """Exercise 04.1: weights [H, M] of the distances 0…M-1 → what is added to the scores, [H, L, L]."""
    for H, M, L in ((1, 1, 1), (1, 2, 2), (2, 3, 3), (2, 5, 3)):
        weight = torch.arange(1.0, H * M + 1).view(H, M).requires_grad_()
        shown = f"{function.__name__}({weight.tolist()}, {L})"
        got = tensor(function, (weight, L), (H, L, L), shown)
        for h, i, j in itertools.product(range(H), range(L), range(L)):
            value, where = got[h, i, j].item(), f"{shown}, head {h}, query {i}, key {j}"
            if j > i and value != -np.inf:
                raise Violated(f"the future gets -inf: {where} is {value:g}")
            if j <= i and value != weight[h, i - j].item():
                raise Violated(f"the weight of distance i - j: {where} is {value:g}, wanted {weight[h, i - j]:g}")
        if not got.requires_grad:
            raise Violated(
                f"the weights have to be learned: {shown} hands them no gradient (no_grad, detach or .data?)"
            )


@check("what this head computes reaches nobody, and everything else is as it was")
def cut_head(function: Callable[[Attention, int], None]) -> None:
    """Exercise 04.2, find the bug: cuts one head out of an attention layer, in place."""
    for H, width, head in ((1, 2, 0), (2, 2, 0), (2, 2, 1), (3, 2, 1)):
        D = H * width
        layer = Attention(SASRecConfig(9, dim=D, heads=H, max_len=5)).requires_grad_(False)
        generator = torch.Generator().manual_seed(H + head)
        for weights in layer.parameters():
            weights.copy_(torch.randn(weights.shape, generator=generator))
        before = {name: weights.clone() for name, weights in layer.named_parameters()}
        shown = f"{function.__name__}(attention with {H} heads of {width} numbers, {head})"
        called(function, (layer, head), shown)
        own = slice(head * width, (head + 1) * width)
        others = torch.ones(D, dtype=torch.bool)
        others[own] = False
        out = layer.out.weight
        if torch.equal(out, before["out.weight"]):
            raise Violated(f"the head is cut where it writes, in the map W^O: after {shown} that is what it was")
        if not torch.equal(out[:, others], before["out.weight"][:, others]):
            raise Violated(
                f"other heads go on: {shown} changes what W^O reads from them; nn.Linear keeps W^O as [to, from], "
                "so what it reads from a head are columns"
            )
        if out[:, own].any():
            raise Violated(f"nothing of the head is left: after {shown} W^O still reads from it")
        for name, weights in layer.named_parameters():
            if name != "out.weight" and not torch.equal(weights, before[name]):
                raise Violated(f"everything else is as it was: {shown} changes {name}")


@check("minus the log of the weight that lies on places with the right artist, averaged, and it can be learned")
def head_loss(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
    """Exercise 04.3: weights [M] of the distances 0…M-1 and whether the artist there is the next one's, [T, M]."""
    even, skewed = [0.0, 0.0], [float(np.log(3)), 0.0]  # softmax: 1/2 1/2, and 3/4 1/4
    for weight, right, wanted, rule in (
        (even, [[True, False]], np.log(2), "half of the weight lies right: the loss is -log(1/2)"),
        (even, [[True, True]], 0.0, "places share by a softmax, and all of them are right: the loss is -log(1) = 0"),
        (skewed, [[True, False]], -np.log(3 / 4), "three quarters lie right: the loss is -log(3/4)"),
        (skewed, [[False, True], [True, False]], -(np.log(1 / 4) + np.log(3 / 4)) / 2, "the mean over all rows"),
        (even, [[True, False], [False, False]], np.log(2), "a row without any right place says nothing: leave it out"),
    ):
        given = torch.tensor(weight, requires_grad=True)
        shown = f"{function.__name__}({[round(w, 2) for w in weight]}, {right})"
        got = tensor(function, (given, torch.tensor(right)), (), shown)
        if not got.isfinite():
            raise Violated(f"{rule}: {shown} gives {got.item()}")
        if abs(got.item() - wanted) > 1e-4:
            raise Violated(f"{rule}, {wanted:.3f}: {shown} gives {got.item():.3f}")
        if not got.requires_grad:
            raise Violated(f"the head has to learn: {shown} hands the weights no gradient (no_grad, detach, .item()?)")
