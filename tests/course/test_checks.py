"""Every check says "not attempted yet" to the stub, ✔ to the solution, and names what is wrong with broken variants."""

from __future__ import annotations

import ast
import math
import random
import time
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from sasrec_utils.course import checks
from sasrec_utils.course.checks import trying

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


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


def _blocks(scores, k, size, offset=True, share=False, sort=True, each=1 << 30):
    """The best in blocks, with what people get wrong about it."""
    found = []
    for first in range(0, len(scores), size):
        block = sorted(enumerate(scores[first : first + size]), key=lambda pair: -pair[1])
        most = max(1, k // -(-len(scores) // size)) if share else min(k, each)
        found += [(place + first * offset, score) for place, score in block[:most]]
    if sort:
        found.sort(key=lambda pair: -pair[1])
    return [place for place, _ in found[:k]]


def _line(sizes, values, wanted):
    return float(np.polyval(np.polyfit(sizes, values, 1), wanted))


def _last_two(sizes, values, wanted):
    return float(np.exp(np.polyval(np.polyfit(np.log(sizes[-2:]), np.log(values[-2:]), 1), np.log(wanted))))


def test_every_check_has_a_solution_and_broken_variants():
    assert set(SOLUTIONS) == set(checks.__all__) - {"Result", "bucket"} == set(BROKEN)


@pytest.mark.parametrize("name", SOLUTIONS)
def test_the_stub_is_not_attempted_yet(name):
    def stub(*args):
        raise NotImplementedError

    stubs = {
        "rank_of": None,
        "leaks": {"A": None, "B": None, "C": None},
        "after_shuffling": dict.fromkeys(["popularity", "item-kNN", "Markov chain"]),
        "attention_row": [None] * 3,
        "three_metrics": {"recall": None, "ndcg": None, "mrr": None},
        "next_share": None,
        "weights_say": {"A": None, "B": None, "C": None},
        "loss_in_nats": None,
        "diagnoses": dict.fromkeys("ABCD"),
        "leaky_plans": dict.fromkeys("ABCDE"),
        "under_way": None,
    }
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


def _with_replacement(n, seed):
    test = np.random.default_rng(seed).integers(n, size=n // 10)
    return np.setdiff1d(np.arange(n), test), test


def _popping(scores, heard, k):
    for track in heard:
        scores.pop(track, None)
    return sorted(scores, key=scores.get, reverse=True)[:k]


def _marking(scores, heard, k):
    best = [t for t in sorted(scores, key=scores.get, reverse=True) if t not in heard][:k]
    heard.extend(best)
    return best


def _only_where_both(model, oracle, k):
    return sum(m <= k and o <= k for m, o in zip(model, oracle, strict=True)) / sum(o <= k for o in oracle)


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
        track = random.randint(1, n_items) if rng is None else int(rng.integers(1, n_items + 1))
        if track not in forbidden:
            found.append(track)
    return found


# (broken variant, a part of what the check must say)
def _boot(differences, seed):
    means = np.random.default_rng(seed).choice(differences, (2000, len(differences))).mean(1)
    return (float(np.mean(differences)), *np.percentile(means, [2.5, 97.5]))


def _unpaired(a, b, seed):
    rng = np.random.default_rng(seed)
    means = rng.choice(a, (2000, len(a))).mean(1) - rng.choice(b, (2000, len(b))).mean(1)
    return np.mean(a) - np.mean(b), *np.percentile(means, [2.5, 97.5])


def _seedless(a, b, seed):
    return _boot(np.array(a) - b, None)


def _of_values(a, b, seed):
    return float(np.mean(np.array(a) - b)), *np.percentile(np.array(a) - b, [2.5, 97.5])


def _boot_between(low, high):
    """The right answer but for the percentiles."""

    def interval(a, b, seed):
        differences = np.array(a) - b
        means = np.random.default_rng(seed).choice(differences, (2000, len(differences))).mean(1)
        return (float(np.mean(differences)), *np.percentile(means, [low, high]))

    return interval


def _looks_at(some):
    def rank(target, rivals):
        if any(score != score for score in some(target, rivals)):
            raise ValueError("NaN")
        return 1 + sum(rival >= target for rival in rivals)

    return rank


_looks_at_the_first_rival = _looks_at(lambda target, rivals: [target, *rivals[:1]])
_looks_at_the_last_rival = _looks_at(lambda target, rivals: [target, *rivals[-1:]])
_looks_at_rivals_only = _looks_at(lambda target, rivals: rivals)


def _within(lower):
    """A rule for `impossible` that has only some of the bounds."""
    return lambda recall, ndcg, k, known: not (lower(recall, k) <= ndcg <= recall <= known <= 1)


def _drawn_again(rank, n, m, k):
    better = (rank - 1) / (n - 1)
    return sum(math.comb(m, j) * better**j * (1 - better) ** (m - j) for j in range(k))


def _hypergeometric(rank, n, m, most):
    return sum(math.comb(rank - 1, j) * math.comb(n - rank, m - j) for j in range(most + 1)) / math.comb(n - 1, m)


BROKEN = {
    "rank_of": [(3, "already heard"), (1, "higher"), (0, "start at 1")],
    "share_of_best": [
        (lambda m, o, k: sum(r <= k for r in m) / len(m), "ratio"),
        (lambda m, o, k: sum(r < k for r in m) / sum(r <= k for r in o), "rank 10"),
        (lambda m, o, k: sum(r <= 10 for r in m) / sum(r <= 10 for r in o), "k must be respected"),
        (_only_where_both, "where the oracle misses"),
    ],
    "next_tracks": [
        (_popping, "must stay as it was"),
        (_marking, "must stay as it was"),
        (lambda s, h, k: sorted(s, key=s.get, reverse=True)[:k], "heard"),
        (lambda s, h, k: [t for t in sorted(s, key=s.get) if t not in h][:k], "higher score"),
        (lambda s, h, k: [t for t in sorted(s, key=s.get, reverse=True)[:k] if t not in h], "heard"),
    ],
    "shared_playlists": [
        (lambda ps: sum(1 for p in ps if p.get("collaborative")), '"false"'),
        (lambda ps: sum(p["collaborative"] == "true" for p in ps), "KeyError"),
        (lambda ps: sum(p.get("collaborative") is True for p in ps), '"true"'),
    ],
    "slice_order": [
        (sorted, "as text"),
        (lambda names: sorted(names, key=len), "length of the name"),
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
    "unseen_share": [
        (lambda plays: sum(p == 1 for p in plays) / len(plays), "share of rows"),
        (lambda plays: sum(p <= 2 for p in plays) / sum(plays), "no new one"),
        (lambda plays: 1 / sum(plays), "no new one"),
        (lambda plays: float(plays[0] == 1) / sum(plays), "all rows"),
    ],
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
        ({"A": "playlists", "B": "playlists", "C": "vocabulary"}, "2 of 3 are right"),
        ({"A": "nothing", "B": "nothing", "C": "vocabulary"}, "2 of 3 are right"),
        ({"A": "vocabulary", "B": "nothing", "C": "playlists"}, "0 of 3 are right"),
        ({"A": "nothing", "B": None, "C": None}, "say one of"),
        ({"A": "nothing"}, "each of"),
    ],
    "after_shuffling": [
        ({"popularity": "stays", "item-kNN": "falls", "Markov chain": "falls"}, "2 of 3 are right"),
        ({"popularity": "falls", "item-kNN": "falls", "Markov chain": "stays"}, "0 of 3 are right"),
        ({"popularity": "stays", "item-kNN": "rises", "Markov chain": "falls"}, "say one of"),
        ({"popularity": "stays"}, "each of"),
    ],
    "hidden_leak": [
        (lambda: ([[1, 2, 3, 4]], [[5, 6, 7, 8]]), "nowhere"),
        (lambda: ([[2, 3, 4, 5]], [[1, 2, 3, 4]]), "nowhere"),
        (lambda: ([[1, 2, 3, 4], [1, 2, 3, 5]], [[1, 2, 3, 4]]), "answers"),
        (lambda: ([[1, 2]], [[1, 2]]), "four tracks"),
        (lambda: ([], [[1, 2, 3, 4]]), "at least one"),
        (lambda: [[1, 2, 3, 4]], "returns"),
    ],
    "honest_split": [
        (_overlapping, "both sides"),
        (_losing, "no playlist is lost"),
        (_different_each_time, "same seed"),
        (lambda n, seed: (np.arange(n // 10, n), np.arange(n // 10)), "another seed"),
        (lambda n, seed: tuple(np.split(np.roll(np.arange(n), seed), [n - n // 10])), "at random"),
        (lambda n, seed: tuple(np.split(np.random.default_rng(seed).permutation(n), [int(0.9 * n)])), "rounded down"),
        (_with_replacement, "dealt once"),
        (lambda n, seed: tuple(np.split(np.random.default_rng(0).permutation(n), [n - n // 10])), "another seed"),
        (lambda n, seed: tuple(np.split(np.random.default_rng(seed).permutation(n), [n // 2])), "a tenth"),
    ],
    "three_metrics": [
        ({"recall": 2, "ndcg": 0.5, "mrr": 0.47}, "2 of 3"),
        ({"recall": 0.67, "ndcg": 1.5, "mrr": 0.47}, "over 3"),
        ({"recall": 0.67, "ndcg": 0.5, "mrr": 0.44}, "no cut-off"),
        ({"recall": 0.67}, "each of"),
        ({"recall": float("nan"), "ndcg": 0.5, "mrr": 0.47}, "not nan"),
        ({"recall": "0.67", "ndcg": 0.5, "mrr": 0.47}, "without quotation marks"),
        ({"recall": 0.67, "ndcg": None, "mrr": 0.47}, "ndcg is not None"),
    ],
    "honest_rank": [
        (lambda t, rivals: 1 + sum(r > t for r in rivals), "tie counts against"),
        (lambda t, rivals: 1 + sum(r >= t for r in rivals), "NaN"),
        (lambda t, rivals: sum(r >= t for r in rivals), "rank 1"),
        (_looks_at_the_first_rival, "NaN"),
        (_looks_at_the_last_rival, "NaN"),
        (_looks_at_rivals_only, "NaN"),
        (lambda t, rivals: 1 + sorted([t, *rivals], reverse=True).index(t), "tie counts against"),
    ],
    "difference_interval": [
        (_unpaired, "same playlists"),
        (_of_values, "two playlists"),
        (_boot_between(5, 95), "2.5 % on each side"),
        (_boot_between(1, 99), "2.5 % on each side"),
        (_boot_between(0.5, 99.5), "2.5 % on each side"),
        (_boot_between(5, 97.5), "below the mean"),
        (_seedless, "same seed"),
        (lambda a, b, seed: _boot(np.array(b) - a, seed), "mean is that of a - b"),
        (lambda a, b, seed: float(np.mean(np.array(a) - b)), "returns"),
    ],
    "impossible": [
        (_within(lambda recall, k: 0), "at rank 10"),
        (_within(lambda recall, k: recall / math.log2(11)), "hangs on k"),
        (_within(lambda recall, k: recall if k == 1 else 0.289 * recall), "hangs on k"),
        (_within(lambda recall, k: recall if k < 10 else 0.289 * recall), "rank 100"),
        (lambda recall, ndcg, k, known: ndcg > 1, "Recall"),
        (lambda recall, ndcg, k, known: not recall / math.log2(k + 1) <= ndcg <= recall <= 1, "not known"),
    ],
    "sampled_hit": [
        (_drawn_again, "without putting back"),
        (lambda rank, n, m, k: float(1 + m * (rank - 1) / (n - 1) <= k), "decides"),
        (lambda rank, n, m, k: _hypergeometric(rank, n, m, k), "decides"),
        (lambda rank, n, m, k: float(rank <= k), "decides"),
    ],
}


def _pick(scores, heard, temperature, u, overflow=False, ignore=False, times=False):
    left = [t for t in scores if ignore or t not in heard]
    if temperature == 0:
        return max(left, key=scores.get)
    x = np.array([scores[t] for t in left])
    x = x * temperature if times else x / temperature
    with np.errstate(over="ignore", invalid="ignore"):
        p = np.exp(x if overflow else x - x.max())
        return left[int((u >= np.cumsum(p / p.sum())[:-1]).sum())]


def _remove_first(playlist, place):
    out = list(playlist)
    out.remove(playlist[place])
    return out


def _pop(playlist, place):
    playlist.pop(place)
    return playlist


def _cut_then_limit(ranked, m, k):
    out = []
    for track, artist in ranked[:k]:
        if sum(a == artist for t, a in ranked if t in out) < m:
            out.append(track)
    return out


BROKEN |= {
    "next_share": [(0.3, "sum to 1"), (0.7, "in proportion"), (0.6, "cannot be")],
    "pick": [
        (lambda s, h, t, u: _pick(s, h, t, u, ignore=True), "heard"),
        (lambda s, h, t, u: _pick(s, h, t, u, overflow=True), "overflow"),
        (lambda s, h, t, u: _pick(s, h, t, u, times=True), "double"),
        (lambda s, h, t, u: max((x for x in s if x not in h), key=s.get), "share of 0…1"),
    ],
    "without": [
        (_remove_first, "another place"),
        (lambda p, i: [x for x in p if x != p[i]], "another place"),
        (_pop, "must not change"),
        (lambda p, i: p[:i], "at the place"),
    ],
    "weights_say": [
        ({"A": True, "B": True, "C": False}, "A is False"),
        ({"A": False, "B": False, "C": False}, "B is True"),
        ({"A": False, "B": True, "C": True}, "C is False"),
        ({"A": False}, "each of"),
    ],
    "at_most": [
        (lambda r, m, k: [t for t, _ in r][:k], "at most m"),
        (_cut_then_limit, "filled up"),
        (lambda r, m, k: sorted(dict.fromkeys(a.lower() + "1" for _, a in r))[:k], "order"),
    ],
    "loss_in_nats": [
        (2.0, "bits"),
        (4.159, "mean"),
        (1.232, "logarithm of each"),
        (-1.386, "never negative"),
        (1.0, "is not 1"),
        ("1.39", "without quotation marks"),
        (float("nan"), "not nan"),
        ([1.39, 1.39], "is a number, not"),
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
        (lambda h, t, n, k, rng: [0] * k, "never 0"),
        (lambda h, t, n, k, rng: _left(h, t, n)[:k], "k negatives"),
        (lambda h, t, n, k, rng: (_left(h, t, n) * k)[:k], "drawn anew"),
        (
            lambda h, t, n, k, rng: [_left(h, t, n)[int(len(_left(h, t, n)) * rng.random() ** 2)] for _ in range(k)],
            "equally",
        ),
    ],
    "under_way": [
        (2400, "milliseconds"),
        (37.5, "a rate times a time"),
        (125, "single worker"),
        (3, "not a whole number"),
        (0.0024, "fewer than three"),
        ("2.4", "without quotation marks"),
    ],
    "step_bytes": [
        (lambda rows, dim, used, sparse: 4 * rows * dim, "two moments"),
        (lambda rows, dim, used, sparse: 16 * rows * dim, "two numbers for each"),
        (lambda rows, dim, used, sparse: 16 * (used if sparse else rows) * dim, "two numbers for each"),
        (lambda r, d, u, sparse: 4 * r * d + 8 * r + 4 * u * d if sparse else 16 * r * d, "8 bytes (int64)"),
        (lambda r, d, u, sparse: 12 * r * d + u * (4 * d + 8) if sparse else 16 * r * d, "two numbers for each"),
        (lambda r, d, u, sparse: 4 * r * d + 4 * r + u * (4 * d + 8) if sparse else 16 * r * d, "two numbers for each"),
        (lambda rows, dim, used, sparse: None, "returns nothing"),
    ],
    "best_in_blocks": [
        (lambda *args: _blocks(*args, offset=False), "from the start of all scores"),
        (lambda *args: _blocks(*args, share=True), "all of the best may stand in one block"),
        (lambda *args: _blocks(*args, sort=False), "count from the start"),
        (lambda *args: _blocks(*args, each=1), "all of the best may stand in one block"),
        (lambda s, k, size: _blocks(s[: len(s) // size * size], k, size), "may be shorter"),
        (lambda s, k, size: [s.index(x) for x in sorted(s)[:k]], "one block is all"),
        (lambda s, k, size: _blocks(s, min(k, size), size), "larger than a block"),
    ],
    "extrapolate": [
        (_line, "a line through logarithms"),
        (lambda sizes, values, wanted: values[-1] * wanted / sizes[-1], "what did not grow"),
        (_last_two, "least squares"),
        (lambda sizes, values, wanted: values[-1], "ten times the time"),
        (lambda sizes, values, wanted: math.log(wanted), "ten times the time"),
        (lambda sizes, values, wanted: None, "returns nothing"),
    ],
    "received": [
        (lambda p, r, d, u, sparse: (p - 1) * u * (4 * d + 8) if sparse else (p - 1) * 4 * r * d, "never more"),
        (lambda p, r, d, u, sparse: (p - 1) * u * 4 * d if sparse else 2 * (p - 1) / p * 4 * r * d, "8 for where"),
        (lambda p, r, d, u, sparse: u * (4 * d + 8) if sparse else 2 * (p - 1) / p * 4 * r * d, "needs nobody"),
        (lambda p, r, d, u, sparse: 2 * (p - 1) / p * 4 * r * d, "the other used"),
        (lambda p, r, d, u, sparse: 2 * (p - 1) / p * u * (4 * d + 8) if sparse else 8 * r * d * (p - 1) / p, "p - 1"),
    ],
}


def _find(scores, take, histories, keep=(), padding=False, first=False, changed=False, lowest=-np.inf):
    """The solution of 09.1, or one of the ways to get it wrong."""
    if not changed:
        scores = scores.copy()
    if first:  # take the best and only then drop the history: too few are left
        best = np.argsort(-scores[:, 1:], axis=1)[:, :take] + 1
        return [set(row.tolist()) - set(heard) for row, heard in zip(best, histories, strict=True)]
    if not padding:
        scores[:, 0] = lowest
    for row, history in enumerate(histories):
        scores[row, [track for track in history if "history" not in keep]] = lowest
    best = np.argsort(-scores, axis=1)[:, :take]
    wanted = [[t for t in row if "all" in keep or s[t] > -np.inf] for row, s in zip(best.tolist(), scores, strict=True)]
    return wanted if "lists" in keep else list(map(set, wanted))


def _habit(artists, steps):
    pairs = list(zip(artists[steps:], artists, strict=False))
    return (sum(now == before for now, before in pairs) + 0.2) / (len(pairs) + 2)


def _habits(artists, artist, until=8, shift=1, newest=False, choose=max, forwards=False, habit=_habit):
    """The solution of 09.2, or one of the ways to get it wrong."""
    ages = [age for age, other in enumerate(artists if forwards else artists[::-1]) if other == artist and age < until]
    found = [habit(artists, age + shift) for age in (ages[:1] if newest else ages)]
    return choose(found) if found else 0.0


def _own_habit(artists, artist):
    pairs = {k: [(a, b) for a, b in zip(artists[k:], artists, strict=False) if artist in (a, b)] for k in range(1, 9)}
    ages = [age for age, other in enumerate(artists[::-1]) if other == artist and age < 8]
    return max(((sum(a == b for a, b in pairs[g + 1]) + 0.2) / (len(pairs[g + 1]) + 2) for g in ages), default=0.0)


BROKEN |= {
    "candidates": [
        (lambda *a: _find(*a, padding=True), "padding"),
        (lambda *a: _find(*a, lowest=0.0), "best"),
        (lambda *a: _find(*a, keep=("history",)), "no candidates"),
        (lambda *a: _find(*a, first=True), "next best"),
        (lambda *a: _find(*a, keep=("all",)), "one candidate"),
        (lambda *a: _find(*a, changed=True), "copy"),
        (lambda scores, take, histories: _find(-scores, take, histories), "best track"),
        (lambda scores, take, histories: _find(scores, take + 1, histories), "best track"),
        (lambda *a: set().union(*_find(*a)), "one set"),
        (lambda *a: None, "one set"),
        (lambda s, t, h: [{x for x in row if s[i, x] > 0} for i, row in enumerate(_find(s, t, h))], "below 0"),
    ],
    "artist_habit": [
        (lambda *a: _habits(*a, until=99), "from 8 on"),
        (lambda *a: _habits(*a, until=7), "7 still counts"),
        (lambda *a: _habits(*a, shift=2), "after 1 step"),
        (lambda *a: _habits(*a, newest=True), "the larger"),
        (lambda *a: _habits(*a, choose=min), "the larger"),
        (lambda *a: _habits(*a, choose=sum), "the larger"),
        (lambda *a: _habits(*a, forwards=True), "after 1 step"),
        (lambda *a: _habits(*a, habit=lambda artists, k: _habit(artists, k) if len(artists) > k else 0.0), "imaginary"),
        (_own_habit, "as this playlist did with Ann"),
        (lambda artists, artist: max(_habit(artists, k) for k in range(1, 9)), "empty"),
        (lambda artists, artist: artists.count(artist) / max(len(artists), 1), "imaginary"),
    ],
    "held_out": [
        (lambda owner: np.arange(len(owner)) % 5 == 0, "stay together"),
        (lambda owner: np.arange(len(owner)) < len(owner) // 5 + 1, "stay together"),
        (lambda owner: np.isin(owner, np.unique(owner)[::2]), "every fifth"),
        (lambda owner: ~np.isin(owner, np.unique(owner)[::5]), "every fifth"),
        (lambda owner: np.zeros(len(owner), bool), "every fifth"),
        (lambda owner: owner == owner[0], "every fifth"),
        (lambda owner: np.unique(owner)[::5], "True or False"),
        (lambda owner: np.flatnonzero(owner % 5 == 0), "True or False"),
    ],
    "leaky_plans": [
        (dict(zip("ABCDE", ["clean"] * 5, strict=True)), "2 of 5"),
        (dict(zip("ABCDE", ["leaks"] * 5, strict=True)), "3 of 5"),
        (dict(zip("ABCDE", ["clean", "leaks", "clean", "clean", "leaks"], strict=True)), "4 of 5"),
        (dict(zip("ABCDE", ["clean", "leaks", "leaks", "leaks", "leaks"], strict=True)), "4 of 5"),
        (dict(zip("ABCDE", ["clean", "leaks", "leaks", None, "leaks"], strict=True)), "say one of"),
        ({"A": "clean"}, "each of"),
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


ENDLESS = {
    "negatives": [
        lambda h, t, n, k, rng: _rejected(h, t, n, k, rng, {*h, t}),  # the generator that it is given …
        lambda h, t, n, k, rng: _rejected(h, t, n, k, None, {*h, t}),  # … or another one
    ],
    "early_stop": [lambda values, patience: _for_ever()],
    "masked_loss": [lambda scores, targets: _for_ever(swallow=True)],
    "training_step": [lambda *args: _for_ever()],
    "sampled_hit": [lambda *args: _for_ever()],
    "shift": [lambda playlist: _for_ever()],
}


def _for_ever(swallow=False):
    while True:
        try:
            sum(range(1000))
        except Exception:
            if not swallow:
                raise


@pytest.mark.parametrize(
    ("name", "index"), [(name, i) for name, variants in ENDLESS.items() for i in range(len(variants))]
)
def test_what_never_ends_is_stopped_and_named(name, index, monkeypatch):
    monkeypatch.setattr(trying, "LIMIT", 0.3)
    result = getattr(checks, name)(ENDLESS[name][index])
    assert not result
    assert result.text.startswith("✘ it must end")


def test_nothing_is_left_of_a_time_limit_that_was_kept():
    with trying.time_limit(0.05):
        pass
    time.sleep(0.2)  # the exception would come here
    with pytest.raises(trying.TooLong), trying.time_limit(0.05):
        _for_ever()


def test_an_error_in_the_learners_code_is_shown_with_the_input_that_caused_it():
    def broken(playlist):
        return playlist[99]

    assert "broken([5, 6]) raises IndexError" in checks.shift(broken).text


def test_a_forgotten_return_is_named():
    assert "returns nothing" in checks.shift(lambda p: None).text


# --- notebooks 03 and 04 ------------------------------------------------------------------------------------------------------


def _causal(length):
    return torch.ones(length, length, dtype=torch.bool).tril()


def _mask(ids, causal=True, keys=True, own=True, inverted=False, flat=False):
    length = ids.shape[1]
    allowed = _causal(length) if causal else torch.ones(length, length, dtype=torch.bool)
    allowed = allowed & (ids > 0)[:, None, None, :] if keys else allowed.expand(len(ids), 1, length, length)
    allowed = allowed | torch.eye(length, dtype=torch.bool) if own else allowed
    allowed = ~allowed if inverted else allowed
    return allowed[:, 0] if flat else allowed


def _attend(q, k, v, allowed, scaled=True):
    scores = q @ k.T / (q.shape[1] ** 0.5 if scaled else 1)
    return scores.masked_fill(~allowed, -torch.inf).softmax(-1) @ v


def _masked_with_zero(q, k, v):
    return (q @ k.T / q.shape[1] ** 0.5).masked_fill(~_causal(len(q)), 0).softmax(-1) @ v


def _padded(q, k, v, ids, *, keys=True, queries=False, own=False, additive=False, clean=False):
    allowed = _causal(len(ids))
    allowed = allowed & (ids > 0)[None] if keys else allowed
    allowed = allowed & (ids > 0)[:, None] if queries else allowed
    allowed = allowed | torch.eye(len(ids), dtype=torch.bool) if own else allowed
    scores = q @ k.T / q.shape[1] ** 0.5
    forbidden = torch.zeros(allowed.shape).masked_fill(~allowed, -torch.inf)
    weights = (scores + forbidden if additive else scores.masked_fill(~allowed, -torch.inf)).softmax(-1)
    return (weights.nan_to_num() if clean else weights) @ v


def _score(model, playlists, kept=lambda p, n: p[-n:], last=lambda ids: (ids > 0).sum(1) - 1, left=False):
    length = model.config.max_len
    ids = torch.zeros(len(playlists), length, dtype=torch.long)
    for row, playlist in enumerate(playlists):
        newest = torch.tensor(kept(playlist, length))
        ids[row, length - len(newest) :] = newest if left else ids[row, length - len(newest) :]
        ids[row, : len(newest)] = newest if not left else ids[row, : len(newest)]
    return model(ids)[torch.arange(len(ids)), last(ids)] @ model.table().T


def _divided_again(q, k, v):
    weights = (q @ k.T / q.shape[1] ** 0.5).softmax(-1).tril()
    return (weights / weights.sum(-1, keepdim=True)) @ v


def _cut(change):
    def cut(layer, head):
        width = layer.out.weight.shape[0] // layer.heads
        change(layer, slice(head * width, (head + 1) * width))

    return cut


def _head_loss(weight, right):
    on_right = (weight.softmax(0) * right).sum(1)
    return -on_right[right.any(1)].log().mean()


def _bias(weight, length, sign=1, future=-torch.inf, place=False):
    at = torch.arange(length)
    back = sign * (at[:, None] - at[None, :])
    chosen = weight[:, at[:, None].expand(length, length)] if place else weight[:, back.clamp(min=0)]
    return chosen.masked_fill(_causal(length).logical_not(), future)


BROKEN |= {
    "attention_row": [
        ([1 / 6, 3 / 6, 2 / 6], "the future"),
        ([1 / 6, 3 / 6, 0], "before you divide"),
        ([0.1, 0.9, 0], "2.2 becomes 1.1"),
        ([0, 1.1, 0], "a row sums to 1"),
        ([0.75, 0.25, 0], "stand to each other"),
        ([1 / 4, 3 / 4], "three keys"),
    ],
    "allowed_mask": [
        (lambda ids: _mask(ids, causal=False), "nobody sees the future"),
        (lambda ids: _mask(ids, inverted=True), "True = may attend"),
        (lambda ids: _mask(ids, keys=False), "padding is no track"),
        (lambda ids: _mask(ids, own=False), "an empty row"),
        (lambda ids: _mask(ids, flat=True), "the shape is"),
        (lambda ids: _mask(ids).float(), "True and False"),
        (lambda ids: _mask(ids) & ~torch.eye(ids.shape[1], dtype=torch.bool), "itself"),
        (lambda ids: _mask(ids) | (ids == 0)[:, None, :, None], "nobody, padded or not, sees the future"),
    ],
    "masked_attention": [
        (lambda q, k, v: (q @ k.T / q.shape[1] ** 0.5).softmax(-1).tril() @ v, "the future leaks"),
        (_masked_with_zero, "the future leaks"),
        (lambda q, k, v: _attend(q, k, v, torch.ones(len(q), len(q), dtype=torch.bool)), "the future leaks"),
        (lambda q, k, v: _attend(q, k, v, ~_causal(len(q))), "not a number"),
        (lambda q, k, v: _attend(q, k, v, _causal(len(q)).tril(-1)), "not a number"),
        (lambda q, k, v: _attend(q, k, v, _causal(len(q)).T), "the future leaks"),
        (lambda q, k, v: _attend(q, k, v, _causal(len(q)), scaled=False), "divided by"),
        (lambda q, k, v: 2 * _attend(q, k, v, _causal(len(q))), "sum to 1"),
        (_divided_again, "left out before the softmax"),
    ],
    "padded_attention": [
        (lambda q, k, v, ids: _padded(q, k, v, ids, keys=False, queries=True), "differs"),
        (lambda q, k, v, ids: _padded(q, k, v, ids, keys=False), "differs"),
        (lambda q, k, v, ids: _padded(q, k, v, ids), "0 / 0"),
        (lambda q, k, v, ids: _padded(q, k, v, ids, additive=True, clean=True), "gradients are finite"),
        (lambda q, k, v, ids: _padded(q.detach(), k.detach(), v, ids, own=True), "none reaches q"),
        (lambda q, k, v, ids: _padded(q, k.detach(), v, ids, own=True), "none reaches k"),
        (torch.no_grad()(lambda q, k, v, ids: _padded(q, k, v, ids, own=True)), "hands none"),
    ],
    "score_newest": [
        (lambda model, playlists: _score(model, playlists, kept=lambda p, n: p[:n]), "the newest tracks are kept"),
        (lambda model, playlists: _score(model, playlists, last=lambda ids: -1), "the last real track decides"),
        (lambda model, playlists: _score(model, playlists, last=lambda ids: (ids > 0).sum(1)), "IndexError"),
        (lambda model, playlists: _score(model, playlists, last=lambda ids: -1, left=True), "pads on the right"),
        (
            lambda model, playlists: _score(model, playlists, last=lambda ids: (ids > 0).sum(1).min() - 1),
            "nothing to do with each other",
        ),
    ],
    "distance_bias": [
        (lambda weight, length: _bias(weight, length, future=0.0), "the future gets -inf"),
        (lambda weight, length: _bias(weight, length, sign=-1), "distance i - j"),
        (lambda weight, length: _bias(weight, length, place=True), "distance i - j"),
        (lambda weight, length: _bias(weight[:1], length), "the shape is"),
        (lambda weight, length: _bias(weight.detach(), length), "hands them no gradient"),
    ],
    "cut_head": [
        (_cut(lambda layer, own: layer.out.weight[own].zero_()), "columns"),
        (_cut(lambda layer, own: layer.qkv.weight[own].zero_()), "in the map W^O"),
        (_cut(lambda layer, own: layer.out.weight.zero_()), "other heads go on"),
        (_cut(lambda layer, own: (layer.out.weight[:, own].zero_(), layer.out.bias.zero_())), "changes out.bias"),
        (_cut(lambda layer, own: layer.out.weight[:, own].mul_(0.5)), "nothing of the head is left"),
        (lambda layer, head: layer.heads[head], "TypeError"),
    ],
    "head_loss": [
        (lambda weight, right: -(weight.softmax(0) * right).sum(1).mean(), "half of the weight"),
        (lambda weight, right: -(weight * right).sum(1).mean(), "half of the weight"),
        (lambda weight, right: -(weight.softmax(0).log() * right).sum(1).mean(), "softmax, and all of them are right"),
        (lambda weight, right: -(weight.softmax(0) * right).sum(1).log().sum(), "the mean"),
        (lambda weight, right: -(weight.softmax(0) * right).sum(1).log().mean(), "leave it out"),
        (lambda weight, right: _head_loss(weight.detach(), right), "no gradient"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "index"), [(name, i) for name in ("attention_row", "allowed_mask", "masked_attention", "padded_attention",
                                               "score_newest", "distance_bias", "cut_head", "head_loss") for i in range(len(BROKEN[name]))]
)  # fmt: skip
def test_a_broken_variant_of_notebooks_03_and_04_is_found_and_named(name, index):
    test_a_broken_variant_is_found_and_named(name, index)


def _scaled(values, known, of_known=True, ddof=0, nothing=math.isnan, flag=True, guard=True):
    there = [v for v in values[: known if of_known else None] if not nothing(v)]
    mean = sum(there) / len(there)
    spread = math.sqrt(sum((v - mean) ** 2 for v in there) / (len(there) - ddof))
    spread = spread or (1.0 if guard else 0.0)
    return (
        [0.0 if nothing(v) else (v - mean) / spread for v in values],
        [int(nothing(v)) if flag else 0 for v in values],
    )


def _runs(word, n):
    return [word[i : i + n] for i in range(len(word) - n + 1)]


def _own(column, **more):
    return lambda tracks: pd.DataFrame({"track_uri": tracks["track_uri"], "mine": column(tracks)} | more)


BROKEN |= {
    "standardise": [
        (lambda values, known: _scaled(values, known, of_known=False), "only known tracks"),
        (lambda values, known: _scaled(values, known, ddof=1), "divide by n"),
        (lambda values, known: _scaled(values, known, nothing=lambda v: math.isnan(v) or v == 0), "0 is a number"),
        (lambda values, known: _scaled(values, known, flag=False), "flag 1"),
        (lambda values, known: _scaled(values, known, guard=False), "ZeroDivisionError"),
        (lambda values, known: _scaled([0.0 if math.isnan(v) else v for v in values], known), "missing says nothing"),
    ],
    "letter_runs": [
        (lambda word, n: _runs(word, n), "ends count as letters"),
        (lambda word, n: _runs(f"<{word}>", 3), "whatever n is"),
        (lambda word, n: _runs(f"<{word}>", n)[:-1], "ends count"),
        (lambda word, n: _runs(f"<{word}>", n) or [f"<{word}>"], "too short"),
    ],
    "lift_for": [
        (lambda odds, share: 0.0, "lift of 2"),
        (lambda odds, share: math.log(share / (1 - share)) - sum(odds) / len(odds), "that of probabilities"),
        (lambda odds, share: sum(odds) / len(odds) - math.log(share / (1 - share)), "lift of 2"),
        (lambda odds, share: "2", "a number"),
    ],
    "own_feature": [
        (lambda tracks: list(tracks), "a DataFrame"),
        (lambda tracks: tracks[["track_name"]], "one row for each track"),
        (lambda tracks: _own(lambda t: t["track_name"].str.len())(tracks.iloc[1:]), "8 tracks went in, 7"),
        (lambda tracks: tracks[["track_uri"]], "a column of its own"),
        (_own(lambda t: 1), "differs from track to track"),
        (_own(lambda t: t["plays"]), "plays count all playlists"),
        (_own(lambda t: np.arange(len(t))), "the order of the rows"),
        (_own(lambda t: t["track_name"].str.len().map(lambda n: "?" if n == 4 else str(n))), "load_features"),
        (lambda tracks: tracks.nothing, "AttributeError"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "index"),
    [(name, i) for name in ("standardise", "letter_runs", "lift_for", "own_feature") for i in range(len(BROKEN[name]))],
)
def test_a_broken_variant_of_notebook_08_is_found_and_named(name, index):
    test_a_broken_variant_is_found_and_named(name, index)


@pytest.mark.parametrize("name", ["leaks", "after_shuffling", "leaky_plans"])
def test_a_wrong_label_is_counted_and_the_right_one_is_not_given_away(name):
    right = SOLUTIONS[name]
    for key in right:
        others = [value for value in set(right.values()) if value != right[key]]
        texts = {getattr(checks, name)(right | {key: other}).text for other in others}
        assert texts
        for text in texts:
            assert f"{len(right) - 1} of {len(right)} are right" in text
            assert key not in text.split("right.")[0]
            assert right[key] not in text.replace("Ask of each", "")
