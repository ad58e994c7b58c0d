"""Figures: drawn on small input whose message is known, twice the screen's resolution, and told in words as well."""

from __future__ import annotations

import itertools
import re
import struct

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from sasrec_utils.course import plots

CALLS = {
    "spread": lambda: plots.spread(
        {"flat": np.full(10, 7), "steep": np.array([90, 5, 2, 1, 1, 1])}, {0.01: 0.11, 0.1: 0.42}
    ),
    "looks": lambda: plots.looks(np.array([[0.1, 0.6, 0.1], [0, 0, 0.9]]), ["Ann", "Bo", "Cy"], ["head 1", "head 3"]),
    "lags": lambda: plots.lags([1, 2, 3], np.array([0.1, 0.3, 0.1]), np.array([0.1, 0.1, 0.1])),
    "unseen": lambda: plots.unseen([10, 100], np.array([0.5, 0.125]), {1000: 0.4}),
    "unseen, one size": lambda: plots.unseen([10], np.array([0.5])),
    "batch": lambda: plots.batch({"wide": np.array([[1, 0], [0, 0]]) > 0, "tight": np.ones((2, 1), bool)}),
    "bars": lambda: plots.bars(["a", "b"], [0.25, 0.5], "Recall", "b wins", [(0.2, 0.3), (0.4, 0.6)], mark=1),
    "attention": lambda: plots.attention(np.tril(np.full((2, 3, 3), 0.3)) + np.eye(3) * 0.1, ["x", "y", "z"]),
    "maps": lambda: plots.maps(
        {"by id": np.random.default_rng(0).normal(size=(24, 4)), "by genre": np.eye(3)[np.arange(24) % 3]},
        np.arange(24) % 3, ["jazz", "soul", "punk"], "Genres part", np.arange(24) > 20,
    ),
    "by_group": lambda: plots.by_group(
        ["short", "long"],
        {"Markov": [(0.2, 0.1, 0.3), (0.4, 0.3, 0.5)], "oracle": [(0.5, 0.4, 0.6), (0.6, 0.5, 0.7)]},
        "Recall@10",
        "Longer is easier",
    ),
    "curves": lambda: plots.curves(
        [1, 10, 100],
        {"a": [0.1, 0.2, 0.3], "b": [0, 0.25, 0.5]},
        "k",
        "Recall@k",
        "They cross",
        {10: "k = 10"},
        log=True,
    ),
    "curves, with a level": lambda: plots.curves(
        [1, 5], {"train": [0.1, 0.9]}, "epochs", "Recall@10", "Up", level=(0.42, "claimed")
    ),
    "curves, one shorter, with ranges": lambda: plots.curves(
        [1, 5], {"a": [0.1, 0.9], "b": [0.3]}, "epochs", "Recall@10", "Up", ranges={"a": ([0.0, 0.8], [0.2, 1.0])}
    ),
    "against_claim": lambda: plots.against_claim(["model", "ceiling"], [0.1, 0.3], 0.42, "Recall@10", "Above", [1]),
    "continuation": lambda: plots.continuation(
        [1, 5],
        {"NDCG": {"a": [(0.1, 0.05, 0.2), (0.2, 0.1, 0.3)]}, "clicks": {"a": [(3.0, 2.5, 3.5), (2.0, 1.5, 2.5)]}},
        "More seeds help",
    ),
}
CALLS |= {
    "promises": lambda: plots.promises(["x", "y"], [0.1, 0.5], [(0.2, 0.1, 0.3), (0.5, 0.4, 0.6)]),
    "falls": lambda: plots.falls([1, 2, 3], {"oracle": np.array([2, 1, 0.0]), "model": np.array([1, 0.5, -0.1])}),
}
CALLS |= {"falls, none": lambda: plots.falls([1, 2], {"popularity": np.zeros(2), "model": np.array([0, -0.1])})}
WORDS = {
    "spread": "steep: the top 1 % of tracks hold 90.0% of plays, the top 10 % 90.0%; 50.0% of tracks are played once; "
    "5 plays or more have 33.3% of tracks, with 95.0% of plays. a real slice: the top 1% hold 11%, the top 10% hold 42%",
    "looks": "head 1 gives 60% to Bo, 2 before the next track; head 3 gives 90% to Cy, 1 before the next track",
    "lags": "more than twice that: 2.",
    "unseen": "50.0% after 10, 12.5% after 100",
    "batch": "wide 75.0%, tight 0.0%",
    "bars": "Recall: a 0.250 (0.200 to 0.300), b 0.500 (0.400 to 0.600)",
    "attention": "head 1 gives 0.40 to “z” (itself)",
    "by_group": "short: Markov 0.200, oracle 0.500; long: Markov 0.400, oracle 0.600",
    "curves": "a 0.100, 0.200, 0.300 at 1, 10, 100; b 0.000, 0.250, 0.500",
    "curves, one shorter, with ranges": "b 0.300 at 1; a at the last point from 0.800 to 1.000",
    "curves, with a level": "the dashed line is at 0.42, claimed",
    "against_claim": "against the claimed 0.42: model 0.100, ceiling 0.300; hatched: ceiling",
    "continuation": "with 1, 5 seeds, NDCG: a 0.100 0.200; clicks: a 3.000 2.000",
}
WORDS |= {
    "promises": "x says 0.100 and finds 0.200 (0.100 to 0.300); y says",
    "falls": "removals 1 to 3 back: oracle 2.00, 1.00, 0.00; model 1.00, 0.50, -0.10",
}


@pytest.mark.parametrize("name", CALLS)
def test_a_picture_is_a_png_at_twice_the_resolution(name):
    picture = CALLS[name]()
    png = picture.png()
    assert png.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", png[16:24])
    assert (width, height) == tuple(int(inches * 192) for inches in picture.figure.get_size_inches())


@pytest.mark.parametrize("name", WORDS)
def test_the_words_name_the_key_numbers(name):
    assert WORDS[name] in CALLS[name]().words


@pytest.mark.parametrize("name", CALLS)
def test_every_figure_has_a_title_that_fits_and_axes_with_names(name):
    figure = CALLS[name]().figure
    figure.draw_without_rendering()
    titles = [figure._suptitle] if figure._suptitle else [axes._left_title for axes in figure.axes]
    assert titles[0].get_text()
    assert titles[0].get_window_extent().x1 <= figure.bbox.x1 + 1
    for axes in figure.axes:  # a single row or column of a matrix may have its name at its tick
        assert axes.get_xlabel() or axes.get_ylabel() or any(tick.get_text() for tick in axes.get_yticklabels())


@pytest.fixture
def shown(monkeypatch):
    """What pictures hand to the notebook, in order."""
    outputs = []
    monkeypatch.setattr(plots.style, "display", lambda data, **how: outputs.append(data))
    return outputs


def test_a_picture_is_shown_with_its_words_folded_under_it(shown, capsys):
    picture = plots.bars(["Simon & <b>"], [0.5], "Recall", "One bar")
    picture._ipython_display_()
    image, twin = shown
    assert image["text/plain"] == "[figure]"
    assert image["image/png"]
    assert twin["text/html"] == (
        "<details><summary>In words</summary>Recall: Simon &amp; &lt;b&gt; 0.500.</details>"  # folded, and no markup
    )
    assert twin["text/plain"] == "In words: Recall: Simon & <b> 0.500."
    assert capsys.readouterr().out == ""  # nothing that fills the page


def test_long_words_are_broken_where_jupyterlab_can_show_them(shown):
    CALLS["bars"]()._ipython_display_()
    plain = shown[1]["text/plain"]
    assert plain.startswith("In words: ")
    assert max(map(len, plain.splitlines())) <= 92
    assert " ".join(plain.split()) == f"In words: {CALLS['bars']().words}"


def test_the_style_stays_inside():
    before = dict(mpl.rcParams)
    CALLS["bars"]().png()
    assert dict(mpl.rcParams) == before


def test_no_pyplot_figure_is_left_open():
    import matplotlib.pyplot as plt

    CALLS["bars"]()
    assert plt.get_fignums() == []


def test_series_differ_without_colour():
    assert len({(marker, line) for _, marker, line in plots.CYCLE}) == len(plots.CYCLE)
    assert {colour for colour, *_ in plots.CYCLE} <= set(plots.OKABE_ITO.values())


def test_the_masked_triangle_is_hatched_and_values_are_printed_up_to_eight():
    axes = CALLS["attention"]().figure.axes[0]
    assert sum(patch.get_hatch() == "////" for patch in axes.patches) == 3
    assert len(axes.texts) == 6
    long = plots.attention(np.tril(np.full((1, 9, 9), 0.1)), list("abcdefghi"))
    assert not long.figure.axes[0].texts


def test_the_title_over_attention_counts_from_the_next_track():
    assert CALLS["looks"]().figure._suptitle.get_text() == "Head 1 looks 2 tracks back, head 3 looks 1 track back"


# --- diagrams ---------------------------------------------------------------------------------------------------------

DIAGRAMS = {
    "journey": (
        lambda: plots.journey([[4, 6, 5], [2, 5]], [[5, 2, 1], [4, 1]], np.array([[5, 2], [4, 0]])),
        "sequences of model ids (5 2 1; 4 1), and all but the last track of each become the rows of a batch, filled up "
        "with 0: 5 2; 4 0.",
    ),
    "shift": (lambda: plots.shift([5, 2, 3]), "inputs 5 2, targets 2 3. With the mask each position sees"),
    "funnel": (
        lambda: plots.funnel(1399, {"SASRec": 150, "kNN": 50, "Markov": 50, "their blend": 150}),
        "of all 1,399 tracks SASRec its best 150, kNN its best 50, Markov its best 50, their blend its best 150",
    ),
}


@pytest.mark.parametrize("name", DIAGRAMS)
def test_a_diagram_is_drawn_and_told_and_nothing_leaves_the_sheet(name):
    draw, words = DIAGRAMS[name]
    picture = draw()
    assert picture.png().startswith(b"\x89PNG")
    assert words in picture.words
    figure = picture.figure
    figure.draw_without_rendering()
    for text in figure.axes[0].texts:
        box = text.get_window_extent()
        assert box.x0 >= 0, text.get_text()
        assert box.x1 <= figure.bbox.x1, text.get_text()
        assert box.y0 >= 0, text.get_text()
        assert box.y1 <= figure.bbox.y1, text.get_text()


def test_the_mask_of_the_shift_hides_the_answer_of_every_row_but_the_last():
    axes = DIAGRAMS["shift"][0]().figure.axes[0]
    hidden = [patch for patch in axes.patches if patch.get_hatch() == "////"]
    assert len(hidden) == 1  # two positions: one lies in the future of the first
    assert sum(text.get_text() == "★" for text in axes.texts) == 1


# --- notebooks 03 and 04 ----------------------------------------------------------------------------------------------

TINY = np.array([[1.0, -0.5], [0.25, 0.0]])
CALLS |= {
    "matrices": lambda: plots.matrices({"x": TINY, "y": 2 * TINY}, ["a", "b"], "Twice as much", ["→"]),
    "matrices, a mask": lambda: plots.matrices({"may": np.array([[True, False], [False, False]])}, ["a", "b"], "One"),
    "over_sizes": lambda: plots.over_sizes([1, 4, 16], {"up": [1, 2, 3], "flat": [1, 1, 1]}, ("width", "weight"), "Up", log=True),
    "cost": lambda: plots.cost(
        {"N": ([1, 10], [0.001, 0.01], [0.002, 0.02]), "D": ([2, 4], [0.1, 0.2], [0.1, 0.2])}, "More costs more"
    ),
    "by_distance": lambda: plots.by_distance(np.array([[0.1, 0.7, 0.1, 0.1], [0.0, 0.2, 0.1, 0.7]]), ["1", "2"], "Back"),
    "wiring": plots.wiring,
    "one_query": lambda: plots.one_query(["old", "new"], ["Nuria", "loud"], TINY[0], TINY, 2 * TINY, "It finds itself", 2),
    "split_heads": lambda: plots.split_heads(TINY, 2, ["a", "b"], ["Nuria", "loud"], "Cut in two"),
    "growth": lambda: plots.growth(
        {"seconds": {"prepare": ([1, 10], [0.2, 2.0]), "make": ([1, 10], [1.0, 11.0])}, "GB": {"prepare": ([1, 10], [0.2, 0.3])}},
        "slices", "It grows", {"seconds": {"prepare": ([1000], [200.0])}},
    ),
    "effects": lambda: plots.effects(["cut", "flat"], {"seed 0": [(0.5, 0.4, 0.6), (-0.2, -0.3, -0.1)]}, "nats", "Cut costs"),
}  # fmt: skip
WORDS |= {
    "matrices": "the last row, b: “x” 0.25, 0; “y” 0.5, 0",
    "matrices, a mask": "“may” has 1 True, and 1 rows without any",
    "over_sizes": "weight for width 1, 4, 16: up 1, 2, 3; flat 1, 1, 1",
    "cost": "N from 1 to 10 takes 1.0 to 10.0 ms (formula 2.0 to 20.0)",
    "by_distance": "1: 1 back 0.70, nothing 0.10; 2: 1 back 0.20, nothing 0.70",
    "wiring": "x + f(LN(x))",
    "one_query": "old 0.62 and 0.62, new 0.12 and 0.38. It takes home Nuria 1.43, loud −0.62",
    "split_heads": "head 1 has Nuria; head 2 has loud",
    "growth": "seconds, prepare 0.2 at 1, 2 at 10, estimated 200 at 1,000; seconds, make 1 at 1, 11 at 10; GB, prepare 0.2 at 1",
    "effects": "nats. cut: seed 0 0.50 (0.40 to 0.60); flat: seed 0 -0.20 (-0.30 to -0.10)",
}


def test_a_mask_hatches_what_is_false_and_small_numbers_are_written_short():
    axes = CALLS["matrices, a mask"]().figure.axes[0]
    assert sum(patch.get_hatch() == "////" for patch in axes.patches) == 3
    axes = CALLS["matrices"]().figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["1", "−0.5", "0.25", "0"]


def test_columns_and_keys_have_names():
    figure = plots.matrices({"x": TINY}, ["a", "b"], "Named", columns=["Nuria", "loud"]).figure
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["Nuria", "loud"]
    axes = CALLS["attention"]().figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["x", "y", "z"]
    assert plots.attention(np.eye(2)[None], ["a", "b"], finding="A finding").figure._suptitle.get_text() == "A finding"


def test_figures_on_dark_cells_are_white():
    axes = plots.attention(np.array([[[1.0, 0.0], [0.2, 0.8]]]), ["a", "b"]).figure.axes[0]
    assert [(text.get_text(), text.get_color()) for text in axes.texts] == [
        ("1", "white"), (".20", "black"), (".80", "white"),
    ]  # fmt: skip


def test_the_picture_of_one_query_is_attention():
    """Products over the scale, softmax, and the sum of weighted values, as PyTorch has them."""
    rng = np.random.default_rng(0)
    q, k, v = rng.normal(size=(1, 3)), rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    told = plots.one_query(list("abcd"), ["x", "y", "z"], q[0], k, v, "One", 3**0.5).words
    wanted = F.scaled_dot_product_attention(*map(torch.from_numpy, (q, k, v)))[0].tolist()
    found = [float(x.replace("−", "-")) for x in re.findall(r"[xyz] (−?[\d.]+)(?:,|\.$)", told.split("takes home")[1])]
    assert found == pytest.approx(wanted, abs=0.006)


def test_where_nothing_is_lacking_nothing_is_said_about_it():
    assert "What a row lacks" not in plots.attention(np.eye(3)[None], list("abc")).words
    assert "What a row lacks" in CALLS["attention"]().words


# --- notebook 05 ------------------------------------------------------------------------------------------------------

HISTORY = pd.DataFrame(
    {"epoch": [1, 2, 3], "train_loss": [4.5, 4.0, 3.5], "valid_loss": [4.4, 4.2, 4.3], "valid_ndcg@10": [0.1, 0.3, 0.2]}
)
RUN = {"history": HISTORY, "floor": 3.75, "popularity": 5.0, "best": 0.4}
TRAINING = {
    "loss_curves": lambda: plots.loss_curves({"small": RUN}, "It falls"),
    "loss_curves, two runs, no oracle": lambda: plots.loss_curves(
        {"small": RUN, "real": {"history": HISTORY[:1], "floor": None, "popularity": 5.0, "best": None}}, "They fall"
    ),
    "learning_rates": lambda: plots.learning_rates(
        np.geomspace(1e-4, 1, 40), np.r_[np.linspace(5, 4, 30), np.linspace(4, 9, 10)], 0.01,
        {"slow": np.linspace(5, 4, 20), "fast": np.linspace(5, 3, 20)}, "Neither too slow nor too fast",
    ),
    "dots": lambda: plots.dots(["a", "b"], np.array([[0.1, 0.2], [0.3, 0.5]]), "NDCG", "b wins", (0.6, "the oracle")),
    "gaps": lambda: plots.gaps(
        ["small", "large"], ["album run", "mood"], np.array([[1.5, 0.5], [0.25, -0.1]]), np.array([0.9, 0.1]), "Width"
    ),
}  # fmt: skip
TRAINING_WORDS = {
    "loss_curves": "after 3 epochs the training loss is 3.50 nats, the validation loss 4.30 (lowest 4.20), popularity 5.00, "
    "floor: the oracle 3.75; the best validation NDCG@10 is 0.300, in epoch 2 (the oracle's 0.400)",
    "loss_curves, two runs, no oracle": "real: after 1 epochs",
    "learning_rates": "chosen: 0.01",
    "dots": "a 0.150 (0.100 to 0.200); b 0.400 (0.300 to 0.500); the oracle 0.600.",
    "gaps": "large 0.10 (album run 0.25, mood -0.10)",
}


@pytest.mark.parametrize("name", TRAINING)
def test_a_picture_of_training_is_a_png_with_words_and_a_title_that_fits(name):
    picture = TRAINING[name]()
    assert picture.png().startswith(b"\x89PNG")
    assert TRAINING_WORDS[name] in picture.words
    picture.figure.draw_without_rendering()
    title = picture.figure._suptitle or picture.figure.axes[0]._left_title
    assert title.get_text()
    assert title.get_window_extent().x1 <= picture.figure.bbox.x1 + 1


def test_names_at_the_edge_never_overlap():
    figure = plots.loss_curves({"small": {**RUN, "floor": 3.51, "popularity": 4.31}}, "Close together").figure
    figure.draw_without_rendering()
    axes = figure.axes[0]
    boxes = sorted((t.get_window_extent() for t in axes.texts), key=lambda box: box.y0)
    assert len(boxes) == 4
    assert all(low.y1 <= high.y0 + 1 for low, high in itertools.pairwise(boxes))


def test_a_live_picture_is_one_output_drawn_anew_and_told_at_the_end(monkeypatch):
    shown = []

    class Handle:
        def update(self, data, raw, metadata):
            shown.append(("update", data))

    def display(data, raw, metadata=None, display_id=False):
        shown.append(("display", data))
        return Handle()

    monkeypatch.setattr(plots.training, "display", display)
    with plots.Live(lambda n: plots.bars(["a"], [n], "x", "One bar")) as show:
        for n in (1.0, 2.0, 3.0):
            show(n)
        assert [kind for kind, _ in shown] == ["display", "update", "update"]  # not told yet
    assert len({data["image/png"] for _, data in shown[:3]}) == 3
    kind, twin = shown[3]
    assert kind == "display"
    assert twin["text/plain"] == "In words: x: a 3.000."
    assert twin["text/html"].startswith("<details>")
    with plots.Live(plots.bars):
        pass  # nothing drawn, nothing told
    assert len(shown) == 4
