"""Checks of notebook 03: masks, attention, and the state that scores the next track."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch

from sasrec_utils.course.checks.trying import Violated, check, plain, tensor
from sasrec_utils.model import SASRec, SASRecConfig
from sasrec_utils.sequences import Sequences


@check("masked, scaled, normalised: weights 1/4, 3/4 and nothing for the future")
def attention_row(answer: list[float]) -> None:
    """Exercise 03.1, by hand: D = 4, products 0, 2.2 and 1.4 (the future), e^0 = 1, e^1.1 ≈ 3, e^0.7 ≈ 2."""
    answer = plain(answer)
    if not isinstance(answer, list | tuple) or len(answer) != 3:
        raise Violated("a row has one weight for each of the three keys")
    if all(value is None for value in answer):
        raise NotImplementedError
    if not all(isinstance(value, int | float) for value in answer):
        raise Violated(f"weights are three numbers, not {answer!r}")

    def near(*wanted: float) -> bool:
        return all(abs(a - w) < 0.02 for a, w in zip(answer, wanted, strict=True))

    if near(1 / 6, 3 / 6, 2 / 6):
        raise Violated("the third key is the future: it gets weight 0, and the others share the whole row")
    if near(1 / 6, 3 / 6, 0):
        raise Violated("a row sums to 1: leave the future out before you divide, not after")
    if near(0.1, 0.9, 0):
        raise Violated("products are divided by √4 = 2 before the exponential: 2.2 becomes 1.1")
    if abs(sum(answer) - 1) > 0.02:
        raise Violated(f"a row sums to 1, yours to {sum(answer):.2f}")
    if abs(answer[2]) > 0.02:
        raise Violated("the third key is the future: its weight is 0")
    if not near(1 / 4, 3 / 4, 0):
        raise Violated("the weights stand to each other as e^0 = 1 and e^1.1 ≈ 3")


@check("real positions see real tracks up to themselves, True = may attend, and no row is empty")
def allowed_mask(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Exercise 03.3: the mask [B, 1, L, L] of a batch of ids [B, L], padded on either side."""
    for rows in (
        [[7]],
        [[7, 8]],
        [[7, 8, 9]],
        [[7, 0]],
        [[0, 7]],
        [[0, 0]],
        [[7, 8, 0], [0, 0, 9]],
        [[0, 0, 0], [7, 8, 9]],
    ):
        ids = torch.tensor(rows)
        B, L = ids.shape
        shown = f"{function.__name__}({rows})"
        got = tensor(function, (ids,), (B, 1, L, L), shown)
        if got.dtype != torch.bool:
            raise Violated(f"a mask is made of True and False: {shown} is {str(got.dtype).removeprefix('torch.')}")
        for b, i, j in itertools.product(range(B), range(L), range(L)):
            may, where = bool(got[b, 0, i, j]), f"{shown}, query {i}, key {j}"
            if j > i and may:
                who = "nobody, padded or not, sees" if ids[b, i] == 0 else "nobody sees"
                raise Violated(f"{who} the future, and True = may attend: {where} is True")
            if ids[b, i] == 0:
                continue  # what a padded position sees of the past means nothing, if it sees something
            if j <= i and ids[b, j] == 0 and may:
                raise Violated(f"padding is no track to look at: {where} is True")
            if j <= i and ids[b, j] > 0 and not may:
                raise Violated(f"itself and earlier tracks are seen, True = may attend: {where} is False")
        if not got.any(-1).all():
            b, _, i = (~got.any(-1)).nonzero()[0].tolist()
            raise Violated(f"an empty row makes softmax divide 0 by 0: {shown}, row {b}, query {i} sees nothing")


def _reference_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    scores = (q @ k.T / q.shape[-1] ** 0.5).masked_fill(~allowed, -torch.inf)
    return scores.softmax(-1) @ v


@check("each row is a weighted mean of the past, and the future changes nothing")
def masked_attention(function: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
    """Exercise 03.2, find the bug: causal attention, q, k, v [L, d] → [L, d]."""
    name = function.__name__
    zero = torch.zeros(1, 1)
    got = tensor(function, (zero, zero, torch.ones(1, 1)), (1, 1), f"{name}(q, k, v) of one track")
    if not got.isfinite().all():
        raise Violated("a track alone sees itself: with one track the result is not a number")
    if abs(float(got) - 1) > 1e-5:
        raise Violated(f"weights sum to 1: one track whose value is 1 gives {float(got):.3g}")
    generator = torch.Generator().manual_seed(0)
    for L, d in ((2, 1), (3, 4), (6, 3)):
        q, k, v = torch.randn(3, L, d, generator=generator)
        shown = f"{name}(q, k, v) of {L} tracks"
        got = tensor(function, (q, k, v), (L, d), shown)
        if not got.isfinite().all():
            raise Violated(f"every row sees at least itself: {shown} holds a NaN")
        k2, v2 = k.clone(), v.clone()
        k2[-1], v2[-1] = 9.0, 9.0
        again = tensor(function, (q, k2, v2), (L, d), shown)
        if not torch.allclose(again[:-1], got[:-1], atol=1e-6):
            t = int((again[:-1] - got[:-1]).abs().amax(1).argmax())
            raise Violated(f"the future leaks: of {L} tracks, another last one changes the result at place {t}")
        ones = tensor(function, (q, k, torch.ones(L, d)), (L, d), shown)
        if not torch.allclose(ones, torch.ones(L, d), atol=1e-5):
            t = int((ones - 1).abs().amax(1).argmax())
            raise Violated(f"weights sum to 1: with all values 1 place {t} of {L} gets {float(ones[t, 0]):.3f}")
        k3 = k.clone()
        k3[-1] = 1000 * q[0].sign()
        again = tensor(function, (q, k3, v), (L, d), shown)
        if not torch.allclose(again[:1], v[:1], atol=1e-5):
            raise Violated(
                "the future is left out before the softmax: a later product that outweighs all others "
                f"makes place 0 of {L} {again[0].tolist()} instead of its own value"
            )
        wanted = _reference_attention(q, k, v, torch.ones(L, L).tril().bool())
        if not torch.allclose(got, wanted, atol=1e-5):
            raise Violated(
                "the weights are those of equation 5: is every product divided by √d, and the past all seen?"
            )


@check("what stands at padding changes nothing, and nothing is ever NaN, in gradients either")
def padded_attention(function: Callable[..., torch.Tensor]) -> None:
    """Exercise 03.4, find the bug: causal attention with padding anywhere, q, k, v [L, d] and ids [L] → [L, d]."""
    generator = torch.Generator().manual_seed(1)
    for row in ([7], [7, 8], [0, 7], [7, 0], [0, 0], [0, 0, 7, 8], [7, 0, 8]):
        ids = torch.tensor(row)
        L, real = len(row), ids > 0
        q, k, v = (part.requires_grad_() for part in torch.randn(3, L, 2, generator=generator))
        shown = f"{function.__name__}(q, k, v, {row})"
        got = tensor(function, (q, k, v, ids), (L, 2), shown)
        if not got[real].isfinite().all():
            raise Violated(
                f"real tracks get numbers: {shown} has a NaN at place {int((~got.isfinite()).any(1).nonzero()[0])}"
            )
        if real.any():
            allowed = torch.ones(L, L).tril().bool()[real][:, real]
            wanted = _reference_attention(q[real], k[real], v[real], allowed)
            if not torch.allclose(got[real], wanted, atol=1e-5):
                raise Violated(f"the result is that of the playlist without its padding: {shown} differs")
        if not got.isfinite().all():
            raise Violated(f"a row that sees nothing is 0 / 0: {shown} has a NaN at a padded place, and it spreads")
        if not real.any():
            continue
        if not got.requires_grad:
            raise Violated(f"training needs gradients: {shown} hands none to q, k and v (no_grad, detach or .data?)")
        push = torch.randn(L, 2, generator=generator) * real[:, None]  # another direction for every number
        gradients = torch.autograd.grad((got * push).sum(), (q, k, v), allow_unused=True)
        right = torch.autograd.grad((wanted * push[real]).sum(), (q, k, v))
        for name, found, expected in zip("qkv", gradients, right, strict=True):
            if found is None or (not found.any() and expected.abs().max() > 1e-6):
                raise Violated(f"training needs gradients: after {shown} none reaches {name}")
            if not found.isfinite().all():
                raise Violated(f"gradients are finite too: after {shown} that of {name} holds a NaN")
            if not torch.allclose(found, expected, atol=1e-5):
                raise Violated(f"the gradient is that of the playlist without its padding: of {name}, {shown} differs")


def _padded_on_the_left(model: SASRec, playlists: list[list[int]]) -> torch.Tensor:
    """What comes out when short playlists are moved to the end of the row: the newest tracks, at other places."""
    L = model.config.max_len
    ids = torch.tensor([[0] * (L - len(playlist[-L:])) + playlist[-L:] for playlist in playlists])
    with torch.no_grad():
        return model(ids)[:, -1] @ model.table().T


@check("the newest tracks count, the last real one decides, and neighbours in the batch change nothing")
def score_newest(function: Callable[[SASRec, list[list[int]]], torch.Tensor]) -> None:
    """Exercise 03.5, find the bugs: scores [B, N+1] after each playlist (lists of model ids), L positions."""
    N, L = 9, 4
    model = SASRec(SASRecConfig(N, dim=8, heads=2, blocks=1, max_len=L, dropout=0.0)).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.5)
        model.item_emb.weight[0] = 0
    cases = (
        ([[1, 2, 3, 4]], "a playlist of L tracks"),
        ([[5, 6]], "the last real track decides, not what stands at the last place"),
        ([[1, 2, 3, 4, 5, 6]], f"of a playlist longer than L = {L} the newest tracks are kept"),
        ([[5, 6], [1, 2, 3]], "rows of a batch have nothing to do with each other"),
        ([[7], [1, 2, 3, 4, 5], [8, 9]], "short and long playlists share a batch"),
    )
    for playlists, rule in cases:
        shown = f"{function.__name__}(model, {playlists})"
        with torch.no_grad():
            got = tensor(function, (model, playlists), (len(playlists), N + 1), shown)
        wanted = torch.from_numpy(model.score(Sequences.from_lists(playlists)))
        if not torch.allclose(got[:, 1:], wanted[:, 1:], atol=1e-4):
            if torch.allclose(got[:, 1:], _padded_on_the_left(model, playlists)[:, 1:], atol=1e-4):
                raise Violated(
                    "this model pads on the right and counts places from the start of the row: padding on the left "
                    f"moves every track to a later place, and is looked at; {shown} has the scores of that"
                )
            row = int((got - wanted)[:, 1:].abs().amax(1).argmax())
            raise Violated(f"{rule}: {shown} has other scores in row {row}")
