"""Notebook 04: its exercises, its record of two seeds, and the interventions that it defines."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import torch

import sasrec_utils.model as package
from sasrec_utils.course import checks

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "notebooks" / "04_heads.ipynb"
CELLS = nbformat.read(NOTEBOOK, as_version=4).cells
RECORD = NOTEBOOK.parent / "data"


def cell(marker: str) -> str:
    (found,) = [c.source for c in CELLS if c.cell_type == "code" and marker in c.source]
    return found


def test_the_broken_variant_that_an_exercise_shows_fails_its_check():
    text = "\n".join(c.source for c in CELLS if c.cell_type == "markdown")
    shown = re.findall(r"```python\n(def (\w+)\(.*?)```", text, re.DOTALL)
    assert [name for _, name in shown] == ["cut_head"]
    scope: dict = {}
    exec(shown[0][0], scope)
    assert checks.cut_head(scope["cut_head"]).text.startswith("✘ other heads go on")


def test_the_record_has_both_seeds_and_everything_that_the_notebook_asks_of_it():
    record = pd.read_csv(RECORD / "heads.csv")
    assert set(record["seed"]) == {0, 1}
    assert (record["low"] <= record["mean"]).all()
    assert (record["mean"] <= record["high"]).all()
    counts = record.groupby("seed").size()
    assert counts[0] == counts[1]
    swap = pd.read_csv(RECORD / "heads_swap.csv")
    assert swap.groupby("seed").size().tolist() == [3, 3]
    assert list(pd.read_csv(RECORD / "heads_direct.csv", index_col="part")) == ["seed 0", "seed 1"]


def test_every_verdict_holds_for_both_seeds():
    scope = {"pd": pd, "recorded": pd.read_csv(RECORD / "heads.csv").set_index(["seed", "change", "group"])}
    rows = scope["recorded"].loc[0]
    scope["effects"] = {change: {g: tuple(rows.loc[(change, g)]) for g in rows.loc[change].index} for change in
                        rows.index.unique("change")}  # fmt: skip
    exec(cell("claims = ["), scope)
    table = scope["verdicts"]
    assert len(table) >= 8
    assert not table[["seed 0", "seed 1"]].apply(lambda column: column.str.contains("(no)", regex=False)).any().any()


def test_what_the_swap_shows_holds_for_both_seeds():
    for _, rows in pd.read_csv(RECORD / "heads_swap.csv").groupby("seed"):
        (a_was, b_was), (a_swapped, b_swapped), (a_back, b_back) = rows[["P(artist A)", "P(artist B)"]].to_numpy()
        assert a_swapped < a_was / 2
        assert b_swapped > 5 * b_was
        assert a_back > 0.8 * a_was
        assert b_back < b_swapped / 2


@pytest.fixture
def small() -> dict:
    """The notebook's interventions on a small random model."""
    torch.manual_seed(0)
    model = package.SASRec(package.SASRecConfig(30, dim=16, heads=4, max_len=24, dropout=0.0, positions="relative"))
    for weights in model.eval().requires_grad_(False).parameters():
        weights += 0.3 * torch.randn(weights.shape)
    interventions = cell("def silence(").split("everything = slice(None)")[0]
    before, after = interventions.split("hooks = [listen(0), listen(1)]")
    scope = {"torch": torch, "copy": __import__("copy"), "trained": model, "means": [torch.randn(16), torch.randn(16)]}
    exec(before, scope)
    exec("def silence" + after.split("def silence", 1)[1], scope)
    return scope


def test_interventions_do_what_they_say_and_leave_the_model_alone(small):
    trained, ids = small["trained"], torch.randint(1, 31, (3, 9))
    before = trained(ids).clone()
    x = torch.randn(2, 7, 16)
    attention = trained.blocks[0].attention
    out = attention.out
    cut = small["silence"](0, slice(4, 8)).blocks[0].attention
    heads = torch.randn(5, 16)
    changed = heads.clone()
    changed[:, 4:8] = 9.0
    assert torch.equal(cut.out(heads), cut.out(changed))  # nobody hears the head
    mean = small["silence"](0, slice(4, 8), mean=True).blocks[0].attention
    heads[:, 4:8] = small["means"][0][4:8]
    assert torch.allclose(mean.out(changed), out(heads), atol=1e-5)  # everybody hears its mean
    _, weights = small["without_content"](0).blocks[0].attention(x, return_attention=True)
    assert torch.allclose(weights[0], weights[1], atol=1e-6)  # whatever the tracks are
    _, weights = small["closed"](3).blocks[0].attention(x, return_attention=True)
    assert weights.diagonal(-3, 2, 3).max() < 1e-9
    flat = small["flat"](0).blocks[0].attention
    order = torch.tensor([2, 0, 1, 4, 3, 5, 6])
    assert torch.allclose(flat(x)[0][:, -1], flat(x[:, order])[0][:, -1], atol=1e-5)  # a bag of tracks
    assert torch.equal(trained(ids), before)


def test_the_script_that_makes_the_record_leaves_out_what_reads_it():
    spec = importlib.util.spec_from_file_location("heads", ROOT / "benchmarks" / "heads.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    sources = [c.source for c in CELLS if c.cell_type == "code"]
    assert sum("dataset, seed=0)" in source for source in sources) == 1
    measuring = [s for s in sources if not any(word in s for word in script.NOT_MEASURING)]
    assert not any("read_csv" in source for source in measuring)
    assert any("def log_p(" in source for source in measuring)
