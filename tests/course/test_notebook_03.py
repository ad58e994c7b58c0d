"""Notebook 03: what it defines is taken out of the notebook and tested like any other code."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sasrec_utils.model as package
from sasrec_utils.course import checks
from sasrec_utils.sequences import Sequences

PATH = Path(__file__).resolve().parents[2] / "notebooks" / "03_self_attention.ipynb"
CELLS = nbformat.read(PATH, as_version=4).cells
CODE = [cell for cell in CELLS if cell.cell_type == "code"]


def defined() -> dict:
    """Everything that the notebook defines."""
    scope: dict = {"display": print}
    for cell in CODE:
        exec(compile(cell.source, PATH.name, "exec"), scope)
    return scope


@pytest.fixture(scope="module")
def nb() -> dict:
    before = torch.get_rng_state()
    scope = defined()
    torch.set_rng_state(before)
    torch.set_printoptions(profile="default")
    return scope


def ragged(N, L, rows=6, seed=0) -> tuple[list[list[int]], torch.Tensor]:
    rng = np.random.default_rng(seed)
    playlists = [rng.integers(1, N + 1, length).tolist() for length in (1, L, *rng.integers(1, L + 1, rows - 2))]
    return playlists, torch.tensor([playlist + [0] * (L - len(playlist)) for playlist in playlists])


def twins(nb, N=50, D=16, H=2, L=9, blocks=2, seed=0):
    """The notebook's model and the package's with the same random weights."""
    theirs = package.SASRec(package.SASRecConfig(N, D, blocks, H, L)).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for weights in theirs.parameters():
        weights += 0.2 * torch.randn(weights.shape, generator=generator)
    theirs.item_emb.weight[0] = 0
    mine = nb["SASRec"](N, D, H, L, blocks).eval()
    mine.load_state_dict(theirs.state_dict())
    return mine, theirs


def test_the_whole_model_stands_in_one_cell_of_at_most_forty_lines():
    (cell,) = [cell for cell in CODE if re.search(r"(?m)^class SASRec\(", cell.source)]
    assert len([line for line in cell.source.splitlines() if line.strip()]) <= 40
    assert max(map(len, cell.source.splitlines())) <= 120


@pytest.mark.parametrize(("D", "H", "L", "blocks"), [(3, 1, 5, 1), (16, 2, 9, 2), (24, 4, 30, 3), (8, 8, 2, 1)])
@torch.inference_mode()
def test_it_is_the_packages_model(nb, D, H, L, blocks):
    mine, theirs = twins(nb, D=D, H=H, L=L, blocks=blocks)
    playlists, ids = ragged(50, L)
    assert torch.allclose(mine(ids), theirs(ids), rtol=0, atol=1e-5)
    scores = torch.from_numpy(theirs.score(Sequences.from_lists(playlists)))
    assert torch.allclose(mine.score(ids)[:, 1:], scores[:, 1:], rtol=0, atol=2e-5)


@torch.inference_mode()
def test_it_is_pytorchs_encoder(nb):
    D, H, L, blocks = 16, 2, 9, 2
    mine, _ = twins(nb, D=D, H=H, L=L, blocks=blocks)
    layer = nn.TransformerEncoderLayer(D, H, D, 0.2, "relu", batch_first=True, norm_first=True)
    encoder = nn.TransformerEncoder(layer, blocks, norm=nn.LayerNorm(D), enable_nested_tensor=False).eval()
    for its, my in zip(encoder.layers, mine.blocks, strict=True):
        for to, of in (
            (its.self_attn.out_proj, my.attention["out"]), (its.linear1, my.feed_in), (its.linear2, my.feed_out),
            (its.norm1, my.norm_attention), (its.norm2, my.norm_feed),
        ):  # fmt: skip
            to.load_state_dict(of.state_dict())
        its.self_attn.in_proj_weight.copy_(my.attention["qkv"].weight)
        its.self_attn.in_proj_bias.copy_(my.attention["qkv"].bias)
    encoder.norm.load_state_dict(mine.norm.state_dict())
    _, ids = ragged(50, L)
    blocked = torch.ones(L, L, dtype=torch.bool).triu(1)
    assert torch.allclose(encoder(mine.item_emb(ids) + mine.pos_emb.weight, mask=blocked), mine(ids), rtol=0, atol=1e-5)


@torch.inference_mode()
def test_it_sees_neither_future_nor_padding(nb):
    mine, _ = twins(nb)
    _, ids = ragged(50, 9)
    ids[:, :] = torch.where(ids == 0, 7, ids)
    for t in range(8):
        changed = ids.clone()
        changed[:, t + 1 :] = 11
        assert torch.equal(mine(changed)[:, : t + 1], mine(ids)[:, : t + 1])
    padded = torch.cat([ids[:, :4], torch.zeros(len(ids), 5, dtype=torch.long)], 1)
    assert torch.allclose(mine(padded)[:, :4], mine(ids[:, :4]), rtol=0, atol=1e-5)


def test_it_trains(nb):
    torch.manual_seed(0)
    model = nb["SASRec"](N=6, D=16, H=2, L=6, blocks=1, dropout=0.0)
    ids = torch.tensor([[1, 2, 3, 4, 5, 6], [4, 5, 6, 1, 2, 3], [2, 3, 0, 0, 0, 0]])
    targets = torch.tensor([[2, 3, 4, 5, 6, 1], [5, 6, 1, 2, 3, 4], [3, 4, 0, 0, 0, 0]])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(150):
        logits = model(ids) @ model.item_emb.weight[1:].T  # padding is no candidate
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten() - 1, ignore_index=-1)
        optimizer.zero_grad()
        loss.backward()
        assert all(weights.grad.isfinite().all() for weights in model.parameters())
        optimizer.step()
    assert loss < 0.1
    assert not model.item_emb.weight[0].any()


def test_the_naive_forms_are_the_fast_ones(nb):
    generator = torch.Generator().manual_seed(3)
    for L, D in ((1, 2), (4, 6), (7, 12)):
        q, k, v = torch.randn(3, L, D, generator=generator)
        allowed = torch.ones(L, L, dtype=torch.bool).tril()
        wanted = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]
        for form in (nb["attend"], nb["attend_fast"]):
            found, weights = form(q, k, v, allowed)
            assert torch.allclose(found, wanted, atol=1e-5)
            assert torch.allclose(weights.sum(1), torch.ones(L), atol=1e-5)
            assert not weights.triu(1).any()
        heads = [part.view(L, 2, D // 2).transpose(0, 1) for part in (q, k, v)]
        wanted = F.scaled_dot_product_attention(*heads, is_causal=True).transpose(0, 1).reshape(L, D)
        assert torch.allclose(nb["multi_head"](q, k, v, allowed, 2)[0], wanted, atol=1e-5)
        assert torch.allclose(nb["layer_norm"](q), F.layer_norm(q, (D,)), atol=1e-4)
        W, b_1 = torch.randn(2, D, D, generator=generator), torch.randn(D, generator=generator)
        assert torch.allclose(nb["feed_forward"](q, W[0], b_1, W[1]), F.relu(q @ W[0] + b_1) @ W[1], atol=1e-4)
    dropped = nb["dropout"](torch.ones(1000, 100), 0.2)
    assert abs(float(dropped.mean()) - 1) < 0.02
    assert set(dropped.unique().tolist()) == {0.0, 1.25}


def test_the_toy_is_what_pencil_and_paper_give(nb):
    """The last row once more in plain Python, from the numbers of the tables."""
    E = {1: (1.5, -0.5, -0.5, 1.5), 2: (-1.5, 1, -1, 0.5), 3: (1.5, -0.5, -2, -2.5), 4: (-1.5, 0, 0.5, 2),
         5: (1.5, -1.5, 1, 1), 6: (-1.5, 0, 2, 1), 7: (1.5, -0.5, 3, -3)}  # fmt: skip
    P = [(0.5, 2), (0.5, 1.5), (0.5, 1), (1.5, 0), (0.5, -0.5)]

    def norm(x):
        mean = sum(x) / 4
        spread = math.sqrt(sum((a - mean) ** 2 for a in x) / 4 + 1e-5)
        return [(a - mean) / spread for a in x]

    x = [[*E[s][:2], E[s][2] + P[t][0], E[s][3] + P[t][1]] for t, s in enumerate([3, 2, 1, 4, 5])]
    z = [norm(row) for row in x]
    q = [-3.5 * z[4][0], 0, 0.5 * z[4][2], 0.5 * z[4][3]]
    products = [sum(a * b for a, b in zip(q, key, strict=True)) / 2 for key in z]
    weights = [math.exp(s) / sum(map(math.exp, products)) for s in products]
    h = [x[4][0] + 2 * sum(w * row[0] for w, row in zip(weights, z, strict=True)), *x[4][1:]]
    n = norm(h)
    y = [h[0] - 8.5 * max(0, n[0] - 1) + 8.5 * max(0, -n[0] - 1), *h[1:]]
    scores = [sum(a * b for a, b in zip(norm(y), E[i], strict=True)) for i in range(1, 8)]
    p = [math.exp(s) / sum(map(math.exp, scores)) for s in scores]
    assert torch.allclose(nb["A"][4], torch.tensor(weights), atol=1e-5)
    assert torch.allclose(nb["p"][4], torch.tensor(p), atol=1e-5)


def test_every_row_of_the_toy_predicts_rightly_and_every_part_is_needed(nb):
    following = torch.tensor([2, 1, 4, 5, 6])

    def right(**out):
        return int((nb["toy_predicts"](**out).argmax(1) + 1 == following).sum())

    assert right() == 5
    assert right(feed=False) == 4
    assert right(attention=False) < 3
    assert right(places=False) < 3
    assert nb["units"].nonzero().tolist() == [[0, 0]]  # one unit wakes up, for Candle, as the text says
    blind = (nb["q_blind"] @ nb["k"].T / 2).softmax(0)
    assert nb["A"][4, 3] - blind[3] > 0.05  # the places matter in the row that is explained


def test_without_the_mask_the_loss_is_too_good_and_the_recall_poor(nb):
    leak = nb["leak"]
    floor = (math.log(15) + 6 * math.log(5)) / 7
    assert floor - 0.02 < leak.loc["training loss", "with the mask"] < floor + 0.1
    assert leak.loc["training loss", "without"] < floor - 1
    assert leak["with the mask"][:5].min() > 0.95
    assert leak["without"][:5].mean() < 0.8


def shown_in_the_text() -> list[tuple[str, str]]:
    """(check, code) of each broken variant that an exercise shows."""
    text = "\n".join(cell.source for cell in CELLS if cell.cell_type == "markdown")
    found = re.findall(r"```python\n(def (\w+)\(.*?)```", text, re.DOTALL)
    return [(name, code) for code, name in found]


def test_three_exercises_show_a_broken_variant():
    assert [name for name, _ in shown_in_the_text()] == ["masked_attention", "padded_attention", "score_newest"]


@pytest.mark.parametrize(("name", "code"), shown_in_the_text())
def test_the_variant_that_an_exercise_shows_fails_its_check(name, code):
    scope = {"math": math, "torch": torch}
    exec(code, scope)
    result = getattr(checks, name)(scope[name])
    assert result.text.startswith("✘")


@pytest.mark.parametrize(
    "repair", ["kept = playlist[-L:]", "return hidden[torch.arange(len(ids)), (ids > 0).sum(1) - 1]"]
)
def test_one_repair_of_the_two_is_not_enough(repair):
    (code,) = [code for name, code in shown_in_the_text() if name == "score_newest"]
    bad = "kept = playlist[:L]" if "kept" in repair else "return hidden[:, -1]"
    assert bad in code
    scope = {"torch": torch}
    exec(code.replace(bad, repair), scope)
    assert checks.score_newest(scope["score_newest"]).text.startswith("✘")


def test_docstrings_name_sections_that_exist():
    sections = {int(n) for cell in CELLS for n in re.findall(r"(?m)^## (\d+) ·", cell.source)}
    assert sections == set(range(1, 14))
    for part in (package.Attention, package.Block, package.Dropout):
        named = re.search(r"notebook 03 (§[^.\n]*)", part.__doc__)[1]
        numbers = list(map(int, re.findall(r"\d+", named)))
        assert numbers, part
        assert set(numbers) <= sections, part


def test_weights_of_the_three_parts_may_be_any(nb):
    """Order of queries, keys, values in the package's one matrix: as the notebook says."""
    layer = package.Attention(package.SASRecConfig(4, dim=6, heads=3)).requires_grad_(False)
    noise = torch.randn(4, 6, generator=torch.Generator().manual_seed(4))
    q, k, v = layer.qkv(noise).chunk(3, 1)
    for order in itertools.permutations((q, k, v)):
        found = layer.out(nb["multi_head"](*order, torch.ones(4, 4).tril(), 3)[0])
        assert torch.allclose(layer(noise[None])[0][0], found, atol=1e-5) == (order[0] is q and order[1] is k)
