"""Losses against their formulas, negatives against their promises, and memory against a large catalogue."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sasrec_utils import losses
from sasrec_utils.losses import (
    bce_loss,
    draw_negatives,
    gbce_beta,
    gbce_loss,
    sampled_softmax_loss,
    softmax_loss,
    start_bias,
    unseen_softmax_loss,
)
from sasrec_utils.model import SASRec, SASRecConfig
from sasrec_utils.objective import Objective
from sasrec_utils.sequences import Sequences, batches
from sasrec_utils.training import TrainConfig

quick = settings(deadline=None, max_examples=30)


def random(seed, *shape, grad=True) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).requires_grad_(grad)


def integers(seed, high, *shape) -> torch.Tensor:
    """From 1 to `high`."""
    return torch.randint(1, high + 1, shape, generator=torch.Generator().manual_seed(seed))


def gradients(loss: torch.Tensor, *leaves: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, leaves, retain_graph=True))


# Softmax


@pytest.mark.parametrize("T", [1, 63, 64, 65, 300])  # around the chunks of 64 positions
def test_softmax_is_cross_entropy(T):
    N, D = 50, 8
    hidden, table, targets = random(1, T, D), random(2, N + 1, D), integers(3, N, T)
    expected = F.cross_entropy(hidden @ table[1:].T, targets - 1)
    loss = softmax_loss(hidden, targets, table)
    assert torch.allclose(loss, expected, atol=1e-5)
    for mine, its in zip(gradients(loss, hidden, table), gradients(expected, hidden, table), strict=True):
        assert torch.allclose(mine, its, atol=1e-6)


@pytest.mark.parametrize("T", [1, 64, 300])
@pytest.mark.parametrize("unseen", [False, True])
def test_bfloat16_scores_change_little(T, unseen, monkeypatch):
    """Value within 0.01 nats and gradients within 1 % of float32's, padding and seen tracks left out alike."""
    monkeypatch.setattr(losses, "CHUNK_SCORES", 1)  # chunks of 64 positions, the last one short
    N, D = 2_000, 8
    hidden, table = random(1, 1, T, D), random(2, N + 1, D)
    ids, targets = integers(4, N, 1, T), integers(3, N, 1, T)
    if unseen:
        exact, half = (unseen_softmax_loss(hidden, ids, targets, table, half) for half in (False, True))
    else:
        exact, half = (softmax_loss(hidden[0], targets[0], table, half) for half in (False, True))
    assert abs(exact.item() - half.item()) < 0.01
    for mine, its in zip(gradients(half, hidden, table), gradients(exact, hidden, table), strict=True):
        assert (mine - its).norm() < 0.01 * its.norm()
    assert (gradients(half, table)[0][0] == 0).all()  # padding


@pytest.mark.parametrize("down", [80, 88, 90, 93, 100, 104])
def test_bfloat16_scores_of_a_target_far_down(down):
    """Near the end of the range of small numbers they lose their digits one by one: log of them says little."""
    table = torch.zeros(11, 4).index_fill(0, torch.tensor([3]), 1.0).requires_grad_()
    hidden = torch.full((2, 4), down / 4).requires_grad_()
    loss = softmax_loss(hidden, torch.tensor([7, 7]), table, half=True)
    assert loss.item() == pytest.approx(down, abs=0.01)


def test_bfloat16_scores_of_a_hopeless_target_stay_finite():
    """Its probability is 0 in any precision, its loss is the distance to the best score."""
    table = torch.zeros(11, 4).index_fill(0, torch.tensor([3]), 10.0).requires_grad_()
    hidden = torch.full((2, 4), 5.0).requires_grad_()
    loss = softmax_loss(hidden, torch.tensor([7, 3]), table, half=True)
    assert loss.item() == pytest.approx((200 + 0) / 2)
    assert all(torch.isfinite(g).all() for g in gradients(loss, hidden, table))


def test_the_padding_row_takes_no_part_in_the_softmax():
    hidden, table, targets = random(1, 9, 4), random(2, 21, 4), integers(3, 20, 9)
    loud = torch.cat([torch.full((1, 4), 100.0), table[1:]]).detach().requires_grad_()
    assert torch.equal(softmax_loss(hidden, targets, loud), softmax_loss(hidden, targets, table))
    assert not gradients(softmax_loss(hidden, targets, loud), loud)[0][0].any()


def unseen_by_hand(hidden, ids, targets, table):
    """Position by position: -log of the target's share among the candidates it has."""
    losses = []
    for b, t in zip(*np.nonzero(targets.numpy()), strict=True):
        own = int(targets[b, t])
        seen = set(ids[b, : t + 1].tolist()) - {own}
        candidates = [i for i in range(1, len(table)) if i not in seen]
        losses.append(torch.logsumexp(table[candidates] @ hidden[b, t], 0) - table[own] @ hidden[b, t])
    return torch.stack(losses).mean()


@quick
@given(st.integers(0, 10_000))
def test_unseen_softmax_is_the_softmax_over_unseen_tracks(seed):
    """Few tracks and long windows: repeats in the window, targets that repeat, and padding, all many times."""
    N, D, B, L = 9, 5, 4, 7
    ids, targets = integers(seed, N, B, L), integers(seed + 1, N, B, L)
    targets[:, :-1] = ids[:, 1:]  # as in a batch: the next track
    lengths = integers(seed + 2, L, B)
    padding = torch.arange(L) >= lengths[:, None]
    last = targets.gather(1, lengths[:, None] - 1)
    ids, targets = ids.masked_fill(padding, 0), targets.masked_fill(padding, 0)
    assert torch.equal(targets.gather(1, lengths[:, None] - 1), last)
    # Small scores: where seen tracks have all but a millionth of the mass, float32 has no digits left for the rest.
    hidden, table = (0.4 * random(seed + 3, B, L, D)).detach().requires_grad_(), random(seed + 4, N + 1, D)
    loss, expected = unseen_softmax_loss(hidden, ids, targets, table), unseen_by_hand(hidden, ids, targets, table)
    assert torch.allclose(loss, expected, rtol=1e-4, atol=1e-4)
    for mine, its in zip(gradients(loss, hidden, table), gradients(expected, hidden, table), strict=True):
        assert torch.allclose(mine, its, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("half", [False, True])
def test_unseen_softmax_is_right_where_hardly_anything_is_unseen(half):
    """The window holds all tracks but two, and they have all the mass: what is left is shared by the two."""
    N = 7
    ids, targets = torch.tensor([[1, 2, 3, 4, 5, 0]]), torch.tensor([[2, 3, 4, 5, 6, 0]])
    table = torch.eye(N + 1)[:, 1:].clone().requires_grad_()
    hidden = torch.tensor([[[50.0] * 5 + [-50.0] * 2] * 6], requires_grad=True)
    loss = unseen_softmax_loss(hidden, ids, targets, table, half)
    assert loss.item() == pytest.approx((sum(math.log(n) for n in (4, 3, 2, 1)) + math.log(2)) / 5, abs=0.01)
    grad = gradients(loss, hidden)[0]
    assert grad[0, 4].tolist() == pytest.approx([0, 0, 0, 0, 0, -0.1, 0.1], abs=1e-3)


def crowded(B=2, L=8, N=30, D=8):
    """Windows whose own tracks score high: up to 99.9 % of the mass is on tracks that are out."""
    ids = torch.stack([torch.randperm(N, generator=torch.Generator().manual_seed(b))[: L + 1] + 1 for b in range(B)])
    ids, targets = ids[:, :-1], ids[:, 1:]
    table = random(2, N + 1, D, grad=False)
    table[ids.flatten()] += 2.5
    hidden = (1.5 + 0.3 * random(1, B, L, D, grad=False)).requires_grad_()
    return hidden, ids, targets, table.requires_grad_()


def test_unseen_softmax_is_exact_where_the_seen_tracks_have_the_mass():
    """In float32 and under bfloat16 autocast alike: loss and gradients of float64."""
    hidden, ids, targets, table = crowded()
    exact = unseen_by_hand(hidden.double(), ids, targets, table.double())
    expected = gradients(exact, hidden, table)
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = unseen_softmax_loss(hidden, ids, targets, table)
        assert math.isclose(loss.item(), exact.item(), rel_tol=1e-4)
        for mine, its in zip(gradients(loss, hidden, table), expected, strict=True):
            assert (mine - its).norm() < 1e-4 * its.norm()


@pytest.mark.skipif(sys.platform == "win32", reason="no resource module")
@pytest.mark.parametrize("unseen", [False, True])
def test_memory_does_not_hold_all_scores_at_once(unseen):
    """All scores of this batch would take 600 MB, and more with their gradients."""
    import resource

    def peak() -> float:  # in bytes; the system counts kilobytes, on a Mac bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    B, L, N, D = 20, 50, 150_000, 2
    hidden, table = random(1, B, L, D), random(2, N + 1, D)
    ids, targets = integers(3, N, B, L), integers(4, N, B, L)
    before = peak()
    if unseen:
        loss = unseen_softmax_loss(hidden, ids, targets, table)
    else:
        loss = softmax_loss(hidden.flatten(0, 1), targets.flatten(), table)
    loss.backward()
    assert peak() - before < 0.3 * B * L * N * 4


# Negatives


def window(row, L, N):
    """ids and targets of one window of `row`, padded to L."""
    ids, targets = torch.zeros(2, 1, L, dtype=torch.long)
    ids[0, : len(row) - 1], targets[0, : len(row) - 1] = torch.tensor(row[:-1]), torch.tensor(row[1:])
    return ids, targets


@pytest.mark.parametrize("N", [200, 1 << 26])  # and a catalogue too large for a table of what each window holds
def test_negatives_are_not_in_the_window(N, monkeypatch):
    rng = np.random.default_rng(0)
    batch = next(iter(batches(Sequences.from_lists([rng.integers(1, 31, n) for n in (2, 3, 9, 12, 20)]), 20, 8)))
    ids, targets = torch.from_numpy(batch.ids), torch.from_numpy(batch.targets)
    # Small steps from the target meet its window often, even in a huge catalogue.
    randint = torch.randint
    monkeypatch.setattr(torch, "randint", lambda low, high, *a, **k: randint(low, min(high, 200), *a, **k))
    drawn = draw_negatives(ids, targets, N, 50, rounds=200)
    assert drawn.shape == (*ids.shape, 50) and drawn.dtype == torch.int64
    assert drawn.min() >= 1 and drawn.max() <= N
    for row, its_ids, its_targets in zip(drawn, ids, targets, strict=True):
        assert not np.isin(row, [*its_ids, *its_targets]).any()


@quick
@given(st.integers(2, 6), st.integers(1, 5), st.integers(0, 1000))
def test_a_window_that_holds_every_track_still_gets_negatives(N, k, seed):
    """It ends, and a negative is never the target itself, whatever else it may be."""
    rng = np.random.default_rng(seed)
    ids, targets = window([*rng.permutation(N) + 1, *rng.integers(1, N + 1, 3)], 12, N)
    drawn = draw_negatives(ids, targets, N, k, torch.Generator().manual_seed(seed))
    real = targets > 0
    assert (drawn != targets[..., None])[real].all()
    assert (drawn >= 1).all() and (drawn <= N).all()


def test_one_track_has_no_negatives():
    with pytest.raises(ValueError, match="at least two tracks"):
        draw_negatives(*window([1, 1], 3, 1), 1, 1)


def test_negatives_are_uniform_over_the_others():
    N = 12
    ids, targets = window([3, 4, 3, 9], 5, N)
    drawn = draw_negatives(ids, targets, N, 20_000, torch.Generator().manual_seed(0), rounds=60)[0, :3].flatten()
    counts = torch.bincount(drawn, minlength=N + 1)[1:]
    held = [3, 4, 9]
    assert not counts[[i - 1 for i in held]].any()
    others = np.array([int(counts[i - 1]) for i in range(1, N + 1) if i not in held])
    assert (abs(others / others.mean() - 1) < 5 / math.sqrt(others.mean())).all()  # five standard errors


def test_negatives_are_drawn_anew_at_each_call():
    ids, targets = window([1, 2, 3, 4], 4, 1000)
    assert not torch.equal(draw_negatives(ids, targets, 1000, 5), draw_negatives(ids, targets, 1000, 5))
    seeded = [draw_negatives(ids, targets, 1000, 5, torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(*seeded)
    model, plan = SASRec(SASRecConfig(1000, dim=4, heads=1, dropout=0.0)), TrainConfig(negatives=3)
    for loss in ("bce", "gbce", "sampled_softmax"):
        objective = Objective(model, replace(plan, loss=loss))
        with torch.no_grad():
            model.item_emb.weight[1:] = torch.randn(1000, 4)
        assert objective(ids, targets).item() != objective(ids, targets).item(), loss


# Sampled softmax


def log_uniform(N) -> torch.Tensor:
    ids = torch.arange(1, N + 1, dtype=torch.float64)
    return torch.cat([torch.zeros(1), (torch.log1p(1 / ids) / math.log(N + 1)).log().float()])


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("unseen", [True, False])
def test_sampled_softmax_is_its_formula(shared, unseen):
    N, T, K, D = 30, 6, 9, 4
    hidden, table, targets = random(1, T, D), random(2, N + 1, D), integers(3, N, T)
    drawn = integers(4, N, K) if shared else integers(4, N, T, K)
    drawn[..., 0] = targets[2]  # somebody's target
    drawn[..., 1] = drawn[..., 2]  # drawn twice
    log_q = log_uniform(N)
    out = torch.stack([drawn.expand(T, K)[:, 3], torch.zeros(T, dtype=torch.long)], 1) if unseen else None
    loss = sampled_softmax_loss(hidden, targets, table[targets], table[drawn], drawn, log_q, out)
    losses = []
    for t, (h, y) in enumerate(zip(hidden, targets, strict=True)):
        void = {int(y)} | (set(out[t].tolist()) if unseen else set())
        own = [x for x in drawn.expand(T, K)[t].tolist() if x not in void]
        scores = [h @ table[y]] + [h @ table[x] - math.log(K) - log_q[x] for x in own]
        losses.append(torch.logsumexp(torch.stack(scores), 0) - h @ table[y])
    expected = torch.stack(losses).mean()
    assert torch.allclose(loss, expected, atol=1e-5)
    for mine, its in zip(gradients(loss, hidden, table), gradients(expected, hidden, table), strict=True):
        assert torch.allclose(mine, its, atol=1e-5)


def test_many_negatives_make_it_the_full_softmax():
    """The estimate of the partition function is unbiased; its error falls with the root of the number of negatives."""
    N, T, D = 40, 5, 4
    hidden, table, targets = (
        random(1, T, D),
        (random(2, N + 1, D, grad=False) * 0.5).requires_grad_(),
        integers(3, N, T),
    )
    log_q = log_uniform(N)
    full = softmax_loss(hidden, targets, table)
    generator = torch.Generator().manual_seed(0)
    for K, allowed in ((100, 0.3), (10_000, 0.03), (1_000_000, 0.003)):
        drawn = torch.multinomial(log_q[1:].exp(), K, replacement=True, generator=generator) + 1
        loss = sampled_softmax_loss(hidden, targets, table[targets], table[drawn], drawn, log_q)
        assert abs(loss.item() - full.item()) < allowed
    for mine, its in zip(gradients(loss, hidden, table), gradients(full, hidden, table), strict=True):
        assert torch.allclose(mine, its, atol=3e-3)
    uncorrected = sampled_softmax_loss(hidden, targets, table[targets], table[drawn], drawn, torch.zeros(N + 1))
    assert abs(uncorrected.item() - full.item()) > 0.1


@pytest.mark.parametrize("unseen", [True, False])
@pytest.mark.parametrize("rows", [None, [1] * 60 + [2] * 20 + [*range(1, 26)] * 2])
def test_the_objective_draws_by_the_law_it_corrects_for(rows, unseen):
    """Averaged over many draws, exp(loss) of the sampled softmax is exp(loss) of the full one: unbiased as a whole."""
    N = 25
    model = SASRec(SASRecConfig(N, dim=4, heads=1, blocks=1, dropout=0.0))
    with torch.no_grad():
        model.item_emb.weight[1:] = random(5, N, 4, grad=False)
    ids, targets = window([4, 11], 1, N)
    torch.manual_seed(0)
    with torch.inference_mode():
        full = Objective(model, TrainConfig(loss="softmax", unseen_only=unseen))(ids, targets).exp().item()
        plan = TrainConfig(loss="sampled_softmax", negatives=20, unseen_only=unseen)
        sampled = Objective(model, plan, None if rows is None else np.array(rows, dtype=np.int32))
        values = torch.stack([sampled(ids, targets).exp() for _ in range(1500)])
    assert abs(values.mean().item() - full) < 4 * values.std().item() / math.sqrt(len(values))
    assert values.std().item() / math.sqrt(len(values)) < 0.05 * full  # or the line above would say little


def test_tracks_are_drawn_as_often_as_they_are_played(monkeypatch):
    """For each position its own, and no track that training never plays."""
    N, seen = 10, []
    model = SASRec(SASRecConfig(N, dim=2, heads=1, blocks=1, dropout=0.0))
    monkeypatch.setattr("sasrec_utils.objective.sampled_softmax_loss", lambda *args: seen.append(args[4]))
    rows = np.array([1] * 70 + [2] * 20 + [9] * 10, dtype=np.int32)
    plan = TrainConfig(loss="sampled_softmax", negatives=5_000)
    Objective(model, plan, rows)(*window([1, 2, 3, 4], 3, N))
    (drawn,) = seen
    assert drawn.shape == (3, 5_000) and not torch.equal(drawn[0], drawn[1])
    shares = torch.bincount(drawn.flatten(), minlength=N + 1) / drawn.numel()
    assert shares[[1, 2, 9]].tolist() == pytest.approx([0.7, 0.2, 0.1], abs=0.02)
    assert set(drawn.flatten().tolist()) == {1, 2, 9}


# BCE and gBCE


def sigmoid(x: torch.Tensor) -> float:
    return 1 / (1 + math.exp(-x.item()))


@pytest.mark.parametrize("beta", [1.0, 0.3])
@pytest.mark.parametrize("bias", [0.0, -2.5])
def test_bce_and_gbce_are_their_formulas(beta, bias):
    T, k, D = 5, 3, 4
    hidden, positive, own, shared = random(1, T, D), random(2, T, D), random(3, T, k, D), random(4, k, D)
    for negative in (own, shared):
        total = 0.0
        for t in range(T):
            others = negative[t] if negative.ndim == 3 else negative
            total -= beta * math.log(sigmoid(hidden[t] @ positive[t] + bias))
            total -= sum(math.log(1 - sigmoid(hidden[t] @ other + bias)) for other in others)
        assert math.isclose(gbce_loss(hidden, positive, negative, beta, bias=bias).item(), total / T, rel_tol=1e-5)
        if beta == 1.0:
            assert torch.equal(
                bce_loss(hidden, positive, negative, bias), gbce_loss(hidden, positive, negative, 1.0, bias=bias)
            )


@pytest.mark.parametrize(("N", "k"), [(1_000, 1), (1_000, 16), (100_000, 256)])
def test_scores_that_start_at_the_bias_pull_no_way_on_average(N, k):
    """Of a model that scores all tracks alike: as much pushes a score up, as a target, as down, as a negative."""
    for beta in (1.0, gbce_beta(N, k)):
        bias = torch.tensor(start_bias(beta, k), dtype=torch.float64, requires_grad=True)
        expected = beta / N * F.softplus(-bias) + k / N * F.softplus(bias)
        assert abs(gradients(expected, bias)[0].item()) < 1e-12


def test_bce_is_pytorchs_binary_cross_entropy():
    hidden, positive, negative = random(1, 7, 4), random(2, 7, 4), random(3, 7, 1, 4)
    scores = torch.cat([(hidden * positive).sum(-1), (hidden * negative[:, 0]).sum(-1)])
    labels = torch.tensor([1.0] * 7 + [0.0] * 7)
    expected = F.binary_cross_entropy_with_logits(scores, labels) * 2  # sum of both parts, not their mean
    assert torch.allclose(bce_loss(hidden, positive, negative), expected, atol=1e-6)


def test_scores_of_any_size_keep_bce_finite():
    hidden, positive = torch.tensor([[500.0], [-500.0]], requires_grad=True), torch.ones(2, 1)
    loss = bce_loss(hidden, positive, torch.ones(2, 1, 1))
    assert loss.isfinite() and gradients(loss, hidden)[0].isfinite().all()


def test_a_shared_negative_that_is_the_target_does_not_count():
    hidden, positive, shared = random(1, 2, 4), random(2, 2, 4), random(3, 3, 4)
    same = torch.tensor([[False, True, False], [False, False, False]])
    expected = (
        gbce_loss(hidden[:1], positive[:1], shared[[0, 2]], 0.4) + gbce_loss(hidden[1:], positive[1:], shared, 0.4)
    ) / 2
    loss = gbce_loss(hidden, positive, shared, 0.4, same)
    assert torch.allclose(loss, expected, atol=1e-6)
    assert all(g.isfinite().all() for g in gradients(loss, hidden, positive, shared))


@given(st.integers(2, 10**7), st.integers(1, 5000), st.floats(0, 1))
def test_beta_lies_between_its_ends(N, k, t):
    alpha = min(1.0, k / (N - 1))
    assert math.isclose(gbce_beta(N, k, 0.0), 1.0, rel_tol=1e-9)  # plain BCE
    assert math.isclose(gbce_beta(N, k, 1.0), alpha, rel_tol=1e-9)  # full calibration
    assert alpha - 1e-9 <= gbce_beta(N, k, t) <= 1 + 1e-9


def test_beta_needs_something_to_be_negative():
    with pytest.raises(ValueError, match="at least two tracks"):
        gbce_beta(1, 1)


def test_beta_is_that_of_the_paper():
    """gSASRec's MovieLens-1M setting: 3,416 tracks, 256 negatives, t = 0.75."""
    alpha = 256 / 3415
    assert math.isclose(gbce_beta(3416, 256, 0.75), alpha * (0.75 * (1 - 1 / alpha) + 1 / alpha))
    assert math.isclose(gbce_beta(3416, 256, 0.75), 0.75 * alpha + 0.25)


# Batches


@pytest.mark.parametrize("loss", ["softmax", "unseen", "sampled_softmax", "bce", "gbce"])
def test_the_loss_of_a_batch_is_that_of_its_playlists_one_by_one(loss, monkeypatch):
    """Weighted by their targets: padding counts nowhere, and a playlist's company does not matter."""
    N, L = 30, 9
    model = SASRec(SASRecConfig(N, dim=8, heads=2, max_len=L + 3, dropout=0.0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(random(7, *parameter.shape, grad=False) * 0.3)
        model.item_emb.weight[0] = 5.0  # were padding to count anywhere, it would be heard
    plan = TrainConfig(loss="softmax" if loss == "unseen" else loss, unseen_only=loss == "unseen", negatives=6)
    objective = Objective(model, plan).eval()
    # Negatives by track and not by chance, the same for a playlist in any company.
    monkeypatch.setattr(torch, "randint", lambda high, shape, **_: (torch.arange(math.prod(shape)) % 6 * 4).view(shape))
    monkeypatch.setattr(
        "sasrec_utils.objective.draw_negatives",
        lambda ids, targets, n_items, k: (targets[..., None] + torch.arange(1, k + 1)) % n_items + 1,
    )
    rng = np.random.default_rng(9)
    rows = [rng.integers(1, N + 1, n) for n in (2, 10, 5, 3, 7, 2)]
    together = next(iter(batches(Sequences.from_lists(rows), L, len(rows))))
    whole = objective(torch.from_numpy(together.ids), torch.from_numpy(together.targets)).item()
    summed = count = 0
    for row in rows:
        ids, targets = window(row.tolist(), len(row) - 1, N)
        summed += objective(ids, targets).item() * (len(row) - 1)
        count += len(row) - 1
    assert math.isclose(whole, summed / count, rel_tol=1e-5)
    wider = [F.pad(torch.from_numpy(part), (0, L + 3 - part.shape[1])) for part in together]
    assert math.isclose(objective(*wider).item(), whole, rel_tol=1e-5)


# Memory and precision of the objective


@pytest.mark.parametrize("loss", ["sampled_softmax", "bce", "gbce"])
def test_many_negatives_are_taken_in_parts(loss, monkeypatch):
    """The same loss and gradients, a few windows at a time."""
    N, B, L = 40, 7, 5
    model = SASRec(SASRecConfig(N, dim=8, heads=2, max_len=L, dropout=0.0))
    objective = Objective(model, TrainConfig(loss=loss, negatives=12))
    ids, targets = integers(1, N, B, L), integers(2, N, B, L)
    targets[3, 2:] = ids[3, 2:] = 0
    monkeypatch.setattr(
        "sasrec_utils.objective.draw_negatives",
        lambda ids, targets, n_items, k: (targets[..., None] + torch.arange(1, k + 1)) % n_items + 1,
    )
    monkeypatch.setattr(torch, "randint", lambda high, shape, **_: (torch.arange(math.prod(shape)) % 12).view(shape))
    whole = objective(ids, targets)
    monkeypatch.setattr("sasrec_utils.objective.OWN_NUMBERS", 3 * L * 12 * 8)  # three windows
    parts = objective(ids, targets)
    assert torch.allclose(parts, whole)
    leaves = list(model.parameters())
    for mine, its in zip(gradients(parts, *leaves), gradients(whole, *leaves), strict=True):
        assert torch.allclose(mine, its, atol=1e-6)


@pytest.mark.skipif(sys.platform == "win32", reason="no resource module")
def test_thousands_of_negatives_fit_into_memory(monkeypatch):
    """All their vectors would take half a gigabyte, and their gradients as much again."""
    import resource

    scale = 1 if sys.platform == "darwin" else 1024
    monkeypatch.setattr("sasrec_utils.objective.OWN_NUMBERS", 1 << 24)
    B, L, k, D = 10, 50, 4_096, 64
    model = SASRec(SASRecConfig(2_000, dim=D, max_len=L, dropout=0.0))
    objective = Objective(model, TrainConfig(loss="sampled_softmax", negatives=k))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    objective(integers(1, 2_000, B, L), integers(2, 2_000, B, L)).backward()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale - before < 0.6 * B * L * k * D * 4


def test_the_scores_are_bfloat16_where_that_was_chosen(monkeypatch):
    N = 8_200
    model = SASRec(SASRecConfig(N, dim=4, heads=1, blocks=1, dropout=0.0))
    with torch.no_grad():
        model.item_emb.weight[1:] = random(5, N, 4, grad=False)
    ids, targets = integers(1, N, 2, 5), integers(2, N, 2, 5)
    for fast in (True, False):
        monkeypatch.setattr("sasrec_utils.objective.fast_bfloat16", lambda fast=fast: fast)
        for unseen_only in (True, False):
            value = {
                scores: Objective(model, TrainConfig(scores=scores, unseen_only=unseen_only))(ids, targets).item()
                for scores in ("float32", "bfloat16", "auto")
            }
            assert value["float32"] != value["bfloat16"] == pytest.approx(value["float32"], abs=0.02)
            assert value["auto"] == value["bfloat16" if fast else "float32"]


@pytest.mark.parametrize(("loss", "k", "beta"), [("bce", 1, 1.0), ("bce", 8, 1.0), ("gbce", 8, gbce_beta(50, 8))])
def test_an_untrained_model_starts_from_the_bias(loss, k, beta):
    """All its scores are 0: the loss is that of scores which are all the bias."""
    model = SASRec(SASRecConfig(50, dim=4, heads=1, blocks=1, dropout=0.0))
    with torch.no_grad():
        model.item_emb.weight.zero_()
    bias = math.log(beta / k)
    expected = beta * math.log1p(math.exp(-bias)) + k * math.log1p(math.exp(bias))
    objective = Objective(model, TrainConfig(loss=loss, negatives=k))
    assert objective(*window([1, 2, 3], 3, 50)).item() == pytest.approx(expected, rel=1e-5)


def test_on_a_device_with_autocast_the_largest_product_is_bfloat16_too():
    """What decides it, for there may be no other device than the CPU here."""
    model = SASRec(SASRecConfig(20, dim=8, max_len=5))
    for scores, expected in (("auto", True), ("bfloat16", True), ("float32", False)):
        objective = Objective(model, TrainConfig(scores=scores))
        assert not objective._autocast(torch.zeros(1))
        with torch.autocast("cpu", torch.bfloat16):
            assert objective._autocast(torch.zeros(1)) == expected
