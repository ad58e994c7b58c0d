"""Rows of a table move as Adam would move them, and only those that a step has used."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from torch import nn

from sasrec_utils.model import SASRec, SASRecConfig
from sasrec_utils.optimizer import RowAdamW, set_sparse, table_names

BETA, LR = 0.98, 0.1


def table(rows=5, dim=4) -> nn.Embedding:
    torch.manual_seed(0)
    return nn.Embedding(rows, dim, padding_idx=0, sparse=True)


def optimizer_of(embedding, **changes) -> RowAdamW:
    group = {"params": [embedding.weight], "rows": True, "lr": LR, "weight_decay": 0.0} | changes
    return RowAdamW([group], betas=(0.9, BETA))


def step(optimizer, embedding, ids, gradient) -> torch.Tensor:
    """One step with this gradient for each of the ids; by how much each row moved, [rows, D]."""
    before = embedding.weight.detach().clone()
    (embedding(torch.tensor(ids)) * gradient).sum().backward()
    optimizer.step()
    return embedding.weight.detach() - before


def test_only_the_rows_that_were_used_move_and_padding_never():
    embedding = table()
    moved = step(optimizer_of(embedding), embedding, [0, 2, 4, 4], torch.ones(4))
    assert moved[[0, 1, 3]].eq(0).all() and moved[[2, 4]].ne(0).all()
    # Used twice in one step: the gradients are added up, and the size of the step is that of Adam's first, the rate.
    assert torch.allclose(moved[[2, 4]], torch.full((2, 4), -LR), atol=1e-6)


def test_a_row_moves_by_its_gradient_over_what_its_gradients_usually_are():
    """The rule written out, with steps that pass over the row: v falls at each of them."""
    embedding = table()
    optimizer, square, last = optimizer_of(embedding), 0.0, 0
    for now, (used, scale) in enumerate([(True, 1.0), (False, 0), (False, 0), (True, 3.0), (True, -0.5)], start=1):
        gradient = torch.tensor([1.0, -2.0, 0.5, 0.0]) * scale
        moved = step(optimizer, embedding, [2 if used else 3], gradient if used else torch.ones(4))[2]
        if not used:
            assert moved.eq(0).all()
            continue
        square = square * BETA ** (now - last) + (1 - BETA) * gradient.square().mean().item()
        last = now
        expected = -LR * gradient / math.sqrt(square / (1 - BETA**now))
        assert torch.allclose(moved, expected, atol=1e-6)


@pytest.mark.parametrize("period", [1, 10, 200])
def test_a_row_moves_as_far_as_adam_moves_it(period):
    """However often it is used: Adam spreads over the steps that follow what is done here at once."""
    far = {}
    for kind in ("rows", "adam"):
        torch.manual_seed(0)
        embedding = nn.Embedding(2, 4, sparse=kind == "rows")
        optimizer = optimizer_of(embedding)
        if kind == "adam":
            optimizer = torch.optim.Adam(embedding.parameters(), lr=LR, betas=(0.9, BETA))
        before = embedding.weight.detach().clone()
        for now in range(2_000):
            optimizer.zero_grad(set_to_none=False)
            embedding.weight.grad = None
            used = embedding(torch.tensor([int(now % period == 0)])) * torch.ones(4)
            used.sum().backward()
            optimizer.step()
        far[kind] = (embedding.weight.detach() - before)[1].mean().item()
    assert far["rows"] == pytest.approx(far["adam"], rel=0.25)


def test_weight_decay_reaches_a_row_when_it_is_used_for_all_steps_since():
    embedding = table()
    optimizer = optimizer_of(embedding, weight_decay=0.5)
    before = embedding.weight.detach().clone()
    for ids in ([1], [1], [1], [2]):
        step(optimizer, embedding, ids, torch.zeros(4))
    assert torch.allclose(embedding.weight[2], before[2] * (1 - LR * 0.5) ** 4)
    assert torch.allclose(embedding.weight[1], before[1] * (1 - LR * 0.5) ** 3)
    assert torch.equal(embedding.weight[3], before[3])


def test_other_groups_are_adamw():
    torch.manual_seed(0)
    layers = [nn.Linear(3, 2), nn.Linear(3, 2)]
    layers[1].load_state_dict(layers[0].state_dict())
    optimizers = [RowAdamW([{"params": layers[0].parameters()}]), torch.optim.AdamW(layers[1].parameters())]
    for layer, optimizer in zip(layers, optimizers, strict=True):
        for _ in range(3):
            optimizer.zero_grad()
            layer(torch.ones(1, 3)).square().sum().backward()
            optimizer.step()
    assert torch.equal(layers[0].weight, layers[1].weight)


def test_a_step_needs_no_memory_of_a_tables_size():
    """A table of 400 MB, and a step that uses a thousand of its rows: a gradient and moments would be 1.2 GB more."""
    resource = pytest.importorskip("resource")  # not on Windows
    unit = 1 if sys.platform == "darwin" else 1024
    embedding = nn.Embedding(1_600_000, 64, padding_idx=0, sparse=True)
    optimizer = optimizer_of(embedding)
    ids = list(range(1, 1_001))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2):
        (embedding(torch.tensor(ids)) * torch.ones(64)).sum().backward()
        optimizer.step()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit
    assert grown < 200 * 2**20


def test_tables_are_those_with_padding_and_nothing_else():
    model = SASRec(SASRecConfig(9, dim=4, n_artists=3, tied=False), [0, 1, 2, 3, 1, 2, 3, 1, 2, 3])
    names = ["item_emb.weight", "features.artist.weight", "output.weight", "output_features.artist.weight"]
    assert sorted(table_names(model)) == sorted(names)
    set_sparse(model, True)
    assert model.item_emb.sparse and model.output.sparse and not model.pos_emb.sparse
    set_sparse(model, False)
    assert not model.item_emb.sparse
