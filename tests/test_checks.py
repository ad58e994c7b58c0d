"""Every check says "not attempted yet" to the stub, ✔ to the solution, and names what is wrong with broken variants."""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch.nn.functional as F

from sasrec_utils import checks

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


def solution_answers() -> list[tuple[str, object]]:
    """(check, answer) for every exercise, run from the solution notebooks themselves."""
    found = []
    for path in sorted((NOTEBOOKS / "solutions").glob("*.ipynb")):
        scope: dict = {}
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type != "code":
                continue
            tree = ast.parse(cell.source)
            exec(cell.source, scope)
            last = tree.body[-1]
            if isinstance(last, ast.Expr) and ast.unparse(last).startswith("checks."):
                found.append((last.value.func.attr, scope[last.value.args[0].id]))
    return found


SOLUTIONS = dict(solution_answers())


@pytest.mark.parametrize("name", SOLUTIONS)
def test_the_solution_passes(name):
    result = getattr(checks, name)(SOLUTIONS[name])
    assert result
    assert result.text.startswith("✔")


def test_every_check_has_a_solution_and_broken_variants():
    assert set(SOLUTIONS) == set(checks.__all__) - {"Result", "bucket"} == set(BROKEN)


@pytest.mark.parametrize("name", SOLUTIONS)
def test_the_stub_is_not_attempted_yet(name):
    def stub(*args):
        raise NotImplementedError

    stubs = {"rank_of": None, "next_targets": None, "leaks": {"A": None, "B": None, "C": None}}
    stubs |= {"loss_in_nats": None, "diagnoses": dict.fromkeys("ABCD")}
    result = getattr(checks, name)(stubs.get(name, stub))
    assert not result
    assert result.text == "· not attempted yet"


def _crossing(playlists, k):
    flat = [a for p in playlists for a in p]
    pairs = list(zip(flat, flat[k:], strict=False))
    return sum(a == b for a, b in pairs) / len(pairs)


def _wrapping(playlists, k):
    pairs = [(a, b) for p in playlists for a, b in zip(p, np.roll(p, k).tolist(), strict=True)]
    return sum(a == b for a, b in pairs) / len(pairs)


def _mean_of_means(playlists, k):
    shares = [np.mean([a == b for a, b in zip(p, p[k:], strict=False)]) for p in playlists if len(p) > k]
    return float(np.mean(shares))


def _adjacent_collision(uris, size):
    ids = [checks.bucket(uri, size) for uri in uris]
    return next(((a, b) for a, b, i, j in zip(uris, uris[1:], ids, ids[1:], strict=False) if i == j and a != b), None)


def _self_collision(uris, size):
    ids = [checks.bucket(uri, size) for uri in uris]
    return next(((uris[i], uris[j]) for j in range(len(ids)) for i in range(j) if ids[i] == ids[j]), None)


def _overlapping(n, seed):
    rng = np.random.default_rng(seed)
    return rng.permutation(n), rng.permutation(n)[: n // 10]


def _different_each_time(n, seed, calls=[]):  # noqa: B006 (it is meant to remember)
    calls.append(0)
    order = np.random.default_rng([seed, len(calls)]).permutation(n)
    return order[n // 10 :], order[: n // 10]


def _losing(n, seed):
    order = np.random.default_rng(seed).permutation(n)
    return order[n // 10 + 1 :], order[: n // 10]


def _token_losses(scores, targets):
    return F.cross_entropy(scores[..., 1:].transpose(1, 2), (targets - 1).clamp(min=0), reduction="none")


def _sum_over_all_positions(scores, targets):
    return (_token_losses(scores, targets) * (targets > 0)).mean()


def _mean_of_rows(scores, targets):
    losses = _token_losses(scores, targets) * (targets > 0)
    return (losses.sum(1) / (targets > 0).sum(1)).mean()


def _step(*order, train=True, item=True):
    def step(objective, optimizer, ids, targets):
        if train:
            objective.train()
        loss = objective(ids, targets)
        for what in order:
            loss.backward() if what == "backward" else getattr(optimizer, what)()
        return loss.item() if item else loss

    return step


def _worse_than_the_epoch_before(values, patience):
    worse = 0
    for epoch in range(1, len(values)):
        worse = worse + 1 if values[epoch] <= values[epoch - 1] else 0
        if worse >= patience:
            return int(np.argmax(values[: epoch + 1])) + 1, epoch + 1
    return int(np.argmax(values)) + 1, len(values)


def _as_good_is_better(values, patience):
    best = 0
    for epoch, value in enumerate(values):
        best = epoch if value >= values[best] else best
        if epoch - best >= patience:
            return best + 1, epoch + 1
    return best + 1, len(values)


def _diagnosis(**changes):
    return {"A": "over-fitting", "B": "rate too low", "C": "healthy", "D": "rate too high"} | changes


def _left(history, target, n_items):
    return [x for x in range(1, n_items + 1) if x not in history and x != target] or [target % n_items + 1]


def _rejected(history, target, n_items, k, rng, forbidden):
    found = []
    while len(found) < k:
        track = int(rng.integers(1, n_items + 1))
        if track not in forbidden:
            found.append(track)
    return found


# (broken variant, a part of what the check must say)
BROKEN = {
    "rank_of": [(3, "already heard"), (1, "higher"), (0, "start at 1")],
    "share_of_best": [
        (lambda m, o, k: sum(r <= k for r in m) / len(m), "ratio"),
        (lambda m, o, k: sum(r < k for r in m) / sum(r <= k for r in o), "rank 10"),
        (lambda m, o, k: sum(r <= 10 for r in m) / sum(r <= 10 for r in o), "k must be respected"),
    ],
    "next_tracks": [
        (lambda s, h, k: sorted(s, key=s.get, reverse=True)[:k], "heard"),
        (lambda s, h, k: [t for t in sorted(s, key=s.get) if t not in h][:k], "higher score"),
        (lambda s, h, k: [t for t in sorted(s, key=s.get, reverse=True)[:k] if t not in h], "heard"),
    ],
    "unique_tracks": [
        (lambda ps: sum(len(p["tracks"]) for p in ps), "repeat within"),
        (lambda ps: sum(len({t["track_uri"] for t in p["tracks"]}) for p in ps), "two playlists"),
        (lambda ps: len({t["track_uri"] for t in ps[0]["tracks"]}) if ps else 0, "all playlists"),
    ],
    "shared_playlists": [
        (lambda ps: sum(1 for p in ps if p.get("collaborative")), '"false"'),
        (lambda ps: sum(p["collaborative"] == "true" for p in ps), "KeyError"),
        (lambda ps: sum(p.get("collaborative") is True for p in ps), '"true"'),
    ],
    "slice_order": [
        (sorted, "as text"),
        (lambda names: names, "smaller numbers"),
        (lambda names: sorted(names, key=lambda n: int(n.split(".")[2].split("-")[0]), reverse=True), "smaller"),
    ],
    "collision": [
        (_adjacent_collision, "must be found"),
        (_self_collision, "itself"),
        (lambda uris, size: None, "must be found"),
        (lambda uris, size: (uris[0], uris[-1]), "itself"),
    ],
    "same_artist": [(_crossing, "not followed"), (_wrapping, "not"), (_mean_of_means, "weighs the same")],
    "next_targets": [([7, 3, 9], "not the input itself"), ([3, 9, 4, 7], "wrap"), ([4, 9, 3], "what follows")],
    "shift": [
        (lambda p: (p, p), "after it"),
        (lambda p: (p[1:], p[:-1]), "after it"),
        (lambda p: (p, [*p[1:], *p[:1]]), "after it"),
        (lambda p: (p[:-1], p[1:]) if len(set(p)) == len(p) else ([], []), "repeated"),
    ],
    "keep_newest": [
        (lambda p, n: p[:n], "newest track is the last"),
        (lambda p, n: p[-n:], "n = 0"),
        (lambda p, n: p[::-1][:n], "oldest first"),
        (lambda p, n: p[len(p) - n :], "stays whole"),
    ],
    "leaks": [
        ({"A": "playlists", "B": "playlists", "C": "vocabulary"}, "A leaks nothing"),
        ({"A": "nothing", "B": "nothing", "C": "vocabulary"}, "B leaks playlists"),
        ({"A": "nothing", "B": "playlists", "C": "nothing"}, "C leaks vocabulary"),
        ({"A": "nothing"}, "each of"),
    ],
    "honest_split": [
        (_overlapping, "both sides"),
        (_losing, "no playlist is lost"),
        (_different_each_time, "same seed"),
        (lambda n, seed: (np.arange(n // 10, n), np.arange(n // 10)), "another seed"),
        (lambda n, seed: tuple(np.split(np.random.default_rng(0).permutation(n), [n - n // 10])), "another seed"),
        (lambda n, seed: tuple(np.split(np.random.default_rng(seed).permutation(n), [n // 2])), "a tenth"),
    ],
    "padding_share": [
        (lambda ls, n: 1 - sum(ls) / (len(ls) * max(ls)), "own width"),
        (lambda ls, n: 0.0, "as wide"),
        (
            lambda ls, n: float(
                np.mean([1 - sum(p) / (len(p) * max(p)) for p in (ls[i : i + n] for i in range(0, len(ls), n))])
            ),
            "last batch",
        ),
    ],
    "loss_in_nats": [
        (2.0, "bits"),
        (4.159, "mean"),
        (1.232, "logarithm of each"),
        (-1.386, "never negative"),
        (1.0, "is not 1"),
    ],
    "masked_loss": [
        (lambda s, y: F.cross_entropy(s.flatten(0, 1), y.flatten()), "column 0"),
        (lambda s, y: F.cross_entropy(s.flatten(0, 1), y.flatten(), ignore_index=0), "column 0"),
        (lambda s, y: F.cross_entropy(s.flatten(0, 1)[:, 1:], (y - 1).clamp(min=0).flatten()), "is padding"),
        (_sum_over_all_positions, "padding"),
        (_mean_of_rows, "weighs the same"),
        (lambda s, y: _token_losses(s, y)[y > 0].mean() / np.log(2), "ln 2"),
        (lambda s, y: None, "returns nothing"),
    ],
    "training_step": [
        (_step("backward", "step"), "must be cleared"),
        (_step("backward", "zero_grad", "step"), "must change the weights"),
        (_step("zero_grad", "backward"), "must change the weights"),
        (_step("zero_grad", "backward", "step", "step"), "once"),
        (_step("zero_grad", "backward", "step", train=False), "training mode"),
        (_step("zero_grad", "backward", "step", item=False), "loss.item()"),
    ],
    "early_stop": [
        (lambda v, p: (int(np.argmax(v)) + 1, len(v)), "first worse epoch"),
        (lambda v, p: (int(np.argmax(v)), len(v)), "count from 1"),
        (_worse_than_the_epoch_before, "best so far"),
        (_as_good_is_better, "first of equals"),
    ],
    "diagnoses": [
        (_diagnosis(A="healthy"), "A is not healthy"),
        (_diagnosis(B="healthy"), "B is not"),
        (_diagnosis(D="over-fitting"), "D is not"),
        (_diagnosis(C="fine"), "choose among"),
        ({"A": "healthy"}, "each of"),
    ],
    "negatives": [
        (lambda h, t, n, k, rng: rng.integers(1, n + 1, k).tolist(), "is no negative"),
        (lambda h, t, n, k, rng: _rejected(h, t, n, k, rng, {t}), "track of the playlist"),
        (lambda h, t, n, k, rng: _rejected(h, t, n, k, rng, {*h, t}), "must end"),
        (lambda h, t, n, k, rng: [0] * k, "never 0"),
        (lambda h, t, n, k, rng: _left(h, t, n)[:k], "k negatives"),
        (lambda h, t, n, k, rng: (_left(h, t, n) * k)[:k], "drawn anew"),
        (
            lambda h, t, n, k, rng: [_left(h, t, n)[int(len(_left(h, t, n)) * rng.random() ** 2)] for _ in range(k)],
            "equally",
        ),
    ],
}


@pytest.mark.parametrize(
    ("name", "index"), [(name, i) for name, variants in BROKEN.items() for i in range(len(variants))]
)
def test_a_broken_variant_is_found_and_named(name, index):
    variant, said = BROKEN[name][index]
    result = getattr(checks, name)(variant)
    assert not result
    assert result.text.startswith("✘")
    assert said in result.text


def test_an_error_in_the_learners_code_is_shown_with_the_input_that_caused_it():
    def broken(playlist):
        return playlist[99]

    assert "broken([5, 6]) raises IndexError" in checks.shift(broken).text


def test_a_forgotten_return_is_named():
    assert "returns nothing" in checks.shift(lambda p: None).text
