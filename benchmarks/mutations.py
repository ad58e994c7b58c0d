"""Do the tests notice? Each mutation spoils one line of the package in a copy of it; some test must then fail.

    python benchmarks/mutations.py              all of them, some 15 minutes; prints a table
    python benchmarks/mutations.py dropout seed only those with one of these words in their description
    python benchmarks/mutations.py --list       what there is

A mutation that survives is a result that nobody guards. One whose text is not found any more has to be brought up to
date. Either way the exit code is 1. Not part of `make test`: tests that fail on purpose take their time.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# A failing property is enough: looking for its smallest case would take longer than all else.
CONFTEST = """
from hypothesis import Phase, settings

settings.register_profile("mutations", phases=[Phase.explicit, Phase.generate])
settings.load_profile("mutations")
"""
SECONDS = 600  # that the tests of one mutation may take: longer counts as noticed, a person would notice too


@dataclass(frozen=True)
class Mutation:
    """`old`, which stands exactly once in the package, becomes `new`; one of `tests` must fail."""

    what: str
    old: str
    new: str
    tests: str


MUTATIONS = [
    # sequences
    Mutation(
        "min_count of a data set",
        "prepared_dir: str | Path,\n    min_count: int = 2,\n",
        "prepared_dir: str | Path,\n    min_count: int = 1,\n",
        "test_batches",
    ),
    Mutation(
        "min_count of the vocabulary",
        "n_catalogue: int, min_count: int = 1, newcomers",
        "n_catalogue: int, min_count: int = 2, newcomers",
        "test_sequences",
    ),
    Mutation(
        "equal plays parted by catalogue id",
        "np.random.default_rng(0).permutation(n_catalogue), -plays",
        "np.arange(n_catalogue), -plays",
        "test_sequences",
    ),
    Mutation(
        "a split that ignores its seed",
        "order = np.random.default_rng(seed).permutation(n)",
        "order = np.random.default_rng(0).permutation(n)",
        "test_sequences",
    ),
    Mutation(
        "the oldest window is the full one",
        "end = targets[owner] - index * max_len",
        "end = np.minimum((index + 1) * max_len, targets[owner])",
        "test_batches",
    ),
    # evaluation
    Mutation(
        "a rank with ties in the target's favour",
        "found = np.count_nonzero(scores[:, 1:] >= own[:, None], axis=1)",
        "found = np.count_nonzero(scores[:, 1:] > own[:, None], axis=1) + 1",
        "evaluation/test_ranking",
    ),
    Mutation(
        "a sampled rank with ties in the target's favour",
        "(scores[index[:, None], drawn] >= own[:, None])",
        "(scores[index[:, None], drawn] > own[:, None])",
        "evaluation/test_ranking",
    ),
    Mutation(
        "NDCG's ideal cut one place early",
        "hit @ gain / ideal[np.minimum(whole, n)]",
        "hit @ gain / ideal[np.minimum(whole, n - 1)]",
        "evaluation/test_reports",
    ),
    Mutation(
        "negatives that ignore the seed",
        "rng = np.random.default_rng(seed)\n    size",
        "rng = np.random.default_rng(0)\n    size",
        "evaluation/test_reports",
    ),
    Mutation(
        "evaluate that ignores the seed of the negatives",
        "targets, seed=seed, batch_size=batch_size)",
        "targets, seed=0, batch_size=batch_size)",
        "evaluation/test_reports",
    ),
    Mutation(
        "resamples that ignore the seed",
        "    rng = np.random.default_rng(seed)\n    means",
        "    rng = np.random.default_rng(0)\n    means",
        "evaluation/test_reports",
    ),
    Mutation(
        "a bootstrap where a share has an exact interval",
        "if name not in UNBOUNDED and",
        "if False and",
        "evaluation/test_metrics",
    ),
    Mutation(
        "an exact interval of 90 %", "hits, n - hits + 1, 0.025", "hits, n - hits + 1, 0.05", "evaluation/test_metrics"
    ),
    Mutation(
        "top_k that lists equals by id",
        "order = np.lexsort((place[ids], -best), axis=1)",
        "order = np.lexsort((ids, -best), axis=1)",
        "evaluation/test_ranking",
    ),
    Mutation(
        "top_k that cuts equals as they come",
        "for row in np.flatnonzero((best[:, k - 1] == best[:, k])",
        "for row in np.flatnonzero((best[:, k - 1] < best[:, k])",
        "evaluation/test_ranking",
    ),
    Mutation(
        "top_k in float32",
        "scores.dtype if scores.dtype in (np.float32, np.float64) else np.float64",
        "np.float32",
        "evaluation/test_ranking",
    ),
    Mutation(
        "coverage of playlists without a target",
        "shown[listed[counted[rows]]] = True",
        "shown[listed] = True",
        "evaluation/test_reports",
    ),
    Mutation(
        "the table made anew for every batch",
        "return nullcontext() if own is None else own()",
        "return nullcontext()",
        "evaluation/test_ranking",
    ),
    Mutation(
        "a table that is kept for good",
        "        finally:\n            self._kept_table = None",
        "        finally:\n            pass",
        "evaluation/test_ranking",
    ),
    Mutation(
        "log-likelihood in batches of any size",
        "size, step = rows_at_once(scorer, batch_size)",
        "size, step = batch_size",
        "evaluation/test_metrics",
    ),
    # baselines
    Mutation(
        "tune that ignores k",
        "recall, ndcg = _means(found, k)\n        settings",
        "recall, ndcg = _means(found, 10)\n        settings",
        "test_baselines",
    ),
    Mutation("tune that takes the later of equals", "if ndcg > best_ndcg:", "if ndcg >= best_ndcg:", "test_baselines"),
    Mutation(
        "shrink not tuned: only the small one",
        "for shrink in (1.0, 10.0, 30.0)",
        "for shrink in (1.0,)",
        "test_baselines",
    ),
    Mutation(
        "shrink not tuned: only the large one",
        "for shrink in (1.0, 10.0, 30.0)",
        "for shrink in (10.0, 30.0)",
        "test_baselines",
    ),
    Mutation(
        "a negative weight brings back what is ruled out",
        "        if weight < 0:\n",
        "        if False:\n",
        "test_baselines",
    ),
    Mutation(
        "a blend of logits decided by the first batch",
        "            return None\n        alive",
        "        alive",
        "test_baselines",
    ),
    Mutation("neighbours kept as they come", "kept = values > level\n", "kept = values >= level\n", "test_baselines"),
    Mutation(
        "seen tracks among the candidates of a blend",
        "    candidate[history[history < len(candidate)]] = False\n",
        "",
        "test_baselines",
    ),
    # the made-up world
    Mutation(
        "titles beyond the first 256 histories",
        "None if words is None else words[b]",
        "None if words is None else words[: b.stop - b.start]",
        "world/test_oracle",
    ),
    # the model
    Mutation(
        "CPU dropout that is not scaled up",
        "return x * ((random < keep) * (256 / keep))",
        "return x * (random < keep)",
        "test_model",
    ),
    Mutation("no dropout at a block's end", "return x + self.dropout(y), attn", "return x + y, attn", "test_model"),
    Mutation("no dropout after attention", "        x = x + self.dropout(y)\n", "        x = x + y\n", "test_model"),
    Mutation(
        "noise instead of waves in pos_emb",
        "self.pos_emb.weight.copy_(0.1 * torch.cat([angle.cos(), angle.sin()], 1)[:, :D])",
        "self.pos_emb.weight.normal_(std=0.07)",
        "test_model",
    ),
    Mutation(
        "an old kept table",
        "        self._kept_table = None\n        # Stored by columns",
        "        # Stored by columns",
        "test_model",
    ),
    Mutation("a kept table in training", "        if mode:\n            self._kept_table = None\n", "", "test_model"),
    # optimizer
    Mutation("a row forgets nothing while it is idle", "* beta**idle +", "* beta +", "test_optimizer"),
    Mutation("first steps not corrected", "square / (1 - beta ** state", "square / (1 - 0 * state", "test_optimizer"),
    Mutation("processes keep their rows", "of_all_processes(table.grad)", "table.grad", "test_training"),
    # training
    Mutation("another β₂", "BETAS = (0.9, 0.98)", "BETAS = (0.9, 0.999)", "test_training"),
    Mutation("table_lr ignored", '"table": config.table_lr', '"table": 1.0', "test_training"),
    Mutation("distance_lr ignored", '"distance": config.distance_lr', '"distance": 1.0', "test_training"),
    Mutation(
        "processes that share their seeds",
        "+ epoch * fabric.world_size + fabric.global_rank)",
        "+ epoch * fabric.world_size)",
        "test_training",
    ),
    Mutation("half never used", "half = self.half if", "half = False if", "test_losses"),
    Mutation(
        "validate that ignores unseen_only",
        "            if unseen_only:\n                loss = unseen_softmax_loss(",
        "            if False:\n                loss = unseen_softmax_loss(",
        "test_training evaluation/test_metrics",
    ),
    # the recommender, the command line, the picker
    Mutation(
        "a shown rank with ties in the target's favour",
        "beaten_by = self.scores >= self.scores[track_id]",
        "beaten_by = self.scores > self.scores[track_id]",
        "test_recommender",
    ),
    Mutation(
        "the command line judges on validation playlists",
        "histories, targets = leave_last_out(data.test)\n    return [evaluate(",
        "histories, targets = leave_last_out(data.valid)\n    return [evaluate(",
        "cli/test_way cli/test_recommend",
    ),
    Mutation(
        "a title of the picker's copy on paper unescaped",
        "<bdi>{html.escape(view['title'])}</bdi>",
        "<bdi>{view['title']}</bdi>",
        "course/test_picker",
    ),
    Mutation(
        "a caption of the picker's copy on paper unescaped",
        "<caption>{html.escape(answer['model'])}</caption>",
        "<caption>{answer['model']}</caption>",
        "course/test_picker",
    ),
    Mutation(
        "names that the living picker takes as HTML",
        'const isolated = (text, kind) => element("bdi", { className: kind, textContent: text });',
        'const isolated = (text, kind) => element("bdi", { className: kind, innerHTML: text });',
        "course/test_browser",
    ),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", metavar="WORD", help="only mutations described with one of these words")
    parser.add_argument("--list", action="store_true", help="print what there is, and stop")
    args = parser.parse_args()
    chosen = [m for m in MUTATIONS if not args.words or any(word in m.what for word in args.words)]
    if args.list:
        print("\n".join(m.what for m in chosen))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        ignore = shutil.ignore_patterns("__pycache__")
        for name in ("sasrec_utils", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=ignore)
        shutil.copy(ROOT / "pyproject.toml", copy)
        shutil.copy(ROOT / "conftest.py", copy)
        with open(copy / "conftest.py", "a", encoding="utf-8") as file:
            file.write(CONFTEST)
        ok = True
        print("| mutation | file | result | seconds |\n|---|---|---|---|", flush=True)
        for mutation in chosen:
            began = time.perf_counter()
            file, result = try_out(mutation, copy)
            ok = ok and result.startswith("noticed")
            print(f"| {mutation.what} | {file} | {result} | {time.perf_counter() - began:.0f} |", flush=True)
    return 0 if ok else 1


def try_out(mutation: Mutation, copy: Path) -> tuple[str, str]:
    """Where the mutation was made in the copy, and what its tests said. The copy is left as it was."""
    package = sorted(p for p in (copy / "sasrec_utils").rglob("*") if p.suffix in (".py", ".js"))
    files = [p for p in package if mutation.old in p.read_text(encoding="utf-8")]
    if len(files) != 1 or files[0].read_text(encoding="utf-8").count(mutation.old) != 1:
        return ", ".join(p.name for p in files), "TEXT NOT FOUND ONCE"
    before = files[0].read_text(encoding="utf-8")
    try:
        files[0].write_text(before.replace(mutation.old, mutation.new), encoding="utf-8")
        return str(files[0].relative_to(copy / "sasrec_utils")), run_tests(mutation.tests, copy)
    finally:
        files[0].write_text(before, encoding="utf-8")


def run_tests(tests: str, copy: Path) -> str:
    """`noticed by` the first test that fails, or what else came of them."""
    command = [sys.executable, *"-B -m pytest -x -q -o addopts= -p no:nbval -p no:cacheprovider".split()]
    command += [f"tests/{name}.py" for name in tests.split()]
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"noticed: no end within {SECONDS} s"
    if done.returncode == 0:
        return "SURVIVED"
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED ")]
    if done.returncode != 1 or not failed:
        return f"TESTS COULD NOT RUN (pytest ended with {done.returncode})"
    return f"noticed by {failed[0].split('::', 1)[1].split(' - ')[0].split('[')[0]}"


if __name__ == "__main__":
    sys.exit(main())
