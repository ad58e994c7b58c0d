#!/usr/bin/env python
"""Execute notebooks in fresh kernels and write them back in one normal form: `make notebooks`, or

    python tests/notebooks/build.py [--shuffle] [--check] [notebook.ipynb ...]

Without names: every notebook, solution and the template. Each runs in a kernel of its own, in its own folder, so the
order does not matter (`--shuffle` proves it). Then: execution counts 1…n, kernelspec `python3`, no widget states, no
progress bars, no paths of this machine; navigation lines, times and the blocks that the contents page owns (map,
notation) are brought up to date. `--check` executes nothing and fails if a file is not in this form.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "notebooks"
TEMPLATE = Path(__file__).with_name("template.ipynb")
CONTENTS = HERE / "README.md"
# The series, in order: stem of the file, title, and the question that the notebook answers.
SERIES = (
    ("00_start_here", "Start here", "What can a playlist recommender do, and how good could one be?"),
    ("01_parse_and_explore", "Parse and explore the MPD", "What is in the data, and what is there to be learned?"),
    ("02_playlists_to_sequences", "From playlists to training sequences", "What does the model really get to see?"),
    ("03_self_attention", "Self-attention, block by block", "How does a model look back at what came before?"),
    ("04_heads", "What do the heads do?", "Which head finds what, and how do we know?"),
    ("05_train", "Train it", "How does it learn, and from which mistakes?"),
    ("06_evaluate", "Evaluate it honestly", "How good is it, how sure are we, and what is still missing?"),
    ("07_recommend", "Pick a playlist, see what comes next", "What would it play next, why, and what if?"),
    ("08_beyond_ids", "Beyond ids", "What do metadata, sound and titles buy, and for whom?"),
    ("09_two_stages", "Two stages: find, then order", "How does a short list get into the best order?"),
    ("10_serve_and_scale", "Serve it, and take it to a million playlists", "What breaks when the data grow a thousandfold?"),
)
DROPPED_METADATA = ("widgets", "signature", "toc", "vscode", "colab")
NAVIGATION = re.compile(r"(?m)^.*\[Contents\]\((?:\.\./)*(?:notebooks/)?README\.md\).*$")
PROGRESS = re.compile(r"\d+%\|.*\||\d+it \[|it/s|s/it|slices?/s|batch/s")
PATHS = re.compile(r"(?<![\w.:/<)\]])/[A-Za-z][\w.-]*/[\w.-]+|\b[A-Z]:\\[\w.-]+")  # absolute ones
WORDS_A_MINUTE, SECONDS_A_CODE_LINE, SECONDS_A_FIGURE = 200, 3, 20


def notebooks() -> list[Path]:
    """Every notebook that is kept executed: the series, its solutions and the template."""
    return [*sorted(HERE.glob("*.ipynb")), *sorted((HERE / "solutions").glob("*.ipynb")), TEMPLATE]


def execute(path: Path) -> tuple[nbformat.NotebookNode, float]:
    """The notebook run from top to bottom in a fresh kernel, and the seconds that took, kernel start included."""
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": path.parent}})
    began = time.perf_counter()
    client.execute()
    return notebook, time.perf_counter() - began


def normalise(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """One form for all: what differs from machine to machine, or from run to run without meaning, is taken out."""
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    count = 0
    for index, cell in enumerate(notebook.cells):
        cell["id"] = f"c{index:03d}"  # position, not chance: a rebuilt notebook is the same file
        cell.source = cell.source.rstrip()
        tags = cell.metadata.get("tags", [])
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type != "code":
            continue
        count += 1
        cell.execution_count = count
        cell.outputs = [output for output in map(_clean, cell.outputs) if output is not None]
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
    return notebook


def _clean(output: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """An output without progress bars; None if nothing else is in it."""
    if output.output_type == "stream" and output.name == "stderr":
        lines = [line for line in re.split(r"[\r\n]+", output.text) if line.strip() and not PROGRESS.search(line)]
        kept = [line for line in lines if not line.startswith("training on ")]
        if not kept:
            return None
        output.text = "\n".join(kept) + "\n"
    data = output.get("data", {})
    if "application/vnd.jupyter.widget-view+json" in data:
        shown = str(data.get("text/plain", ""))
        if PROGRESS.search(shown) or not shown:
            return None  # the picker's twin follows it: that is seen everywhere, without a kernel and its state
    return output


def refresh(path: Path, notebook: nbformat.NotebookNode, seconds: float | None) -> None:
    """Bring navigation lines, the row with the times, and the blocks copied from the contents page up to date."""
    blocks = contents_blocks()
    line = navigation(path)
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        cell.source = NAVIGATION.sub(lambda _: line, cell.source)
        for name, text in blocks.items():
            cell.source = put_block(cell.source, name, text)
        if seconds is not None:
            row = f"| Time | {reading_minutes(notebook)} minutes to read, {rounded(seconds)} seconds to run |"
            cell.source = re.sub(r"(?m)^\| Time \|.*\|$", row, cell.source)


def navigation(path: Path) -> str:
    """Previous · contents · next, for this notebook; a solution points back to its notebook."""
    stems = [stem for stem, *_ in SERIES if (HERE / f"{stem}.ipynb").exists()]
    if path.parent.name == "solutions":
        return f"[← {path.stem[:2]} the notebook](../{path.name}) · [Contents](../README.md)"
    if path.stem not in stems:
        return "[Contents](../../notebooks/README.md)"
    titles = {stem: f"{stem[:2]} {title}" for stem, title, _ in SERIES}
    at = stems.index(path.stem)
    parts = [f"[← {titles[stems[at - 1]]}]({stems[at - 1]}.ipynb)"] if at else []
    parts.append("[Contents](README.md)")
    if at + 1 < len(stems):
        parts.append(f"[{titles[stems[at + 1]]} →]({stems[at + 1]}.ipynb)")
    return " · ".join(parts)


def reading_minutes(notebook: nbformat.NotebookNode) -> int:
    """Minutes to read, without exercises: 200 words a minute, three seconds a line of code, twenty a figure.

    Exercises carry minutes of their own: an old-style section "## Exercises", or "### NN.k · …" anywhere in the flow.
    """
    seconds, counts = 0.0, True
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for section in re.split(r"(?m)^(?=#{2,3} )", cell.source):
                if heading := re.match(r"## (.+)", section):
                    counts = heading[1] != "Exercises"
                if counts and not re.match(r"### \d\d\.\d · ", section):
                    text = re.sub(r"\]\([^)]*\)|<[^>]*>", " ", section)  # where a link leads is not read
                    seconds += len(re.findall(r"\w[\w'’-]*", text)) * 60 / WORDS_A_MINUTE
        elif cell.cell_type == "code" and counts and not {"exercise", "check"} & set(cell.metadata.get("tags", [])):
            seconds += sum(bool(line.strip()) for line in cell.source.splitlines()) * SECONDS_A_CODE_LINE
            seconds += SECONDS_A_FIGURE * sum("image/png" in output.get("data", {}) for output in cell.outputs)
    return max(1, round(seconds / 60))


def rounded(seconds: float) -> int:
    """Up to the next five seconds, so that the header does not change with every run."""
    return 5 * max(1, -int(-seconds // 5))


def contents_blocks() -> dict[str, str]:
    """What lies between `<!-- name -->` and `<!-- /name -->` on the contents page, for every name there."""
    text = CONTENTS.read_text(encoding="utf-8")
    return {m[1]: m[2] for m in re.finditer(r"<!-- (\w+) -->\n(.*?)\n?<!-- /\1 -->", text, re.DOTALL)}


def put_block(text: str, name: str, block: str) -> str:
    """`text` with the block between its markers replaced; unchanged if it has none of that name."""
    pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
    return re.sub(pattern, lambda m: f"{m[1]}{block}\n{m[2]}", text, flags=re.DOTALL)


def series_map() -> str:
    """The map of the series as a table: link, question, times."""
    rows = ["| notebook | the question it answers | read | run |", "|---|---|---|---|"]
    for stem, title, question in SERIES:
        path, name = HERE / f"{stem}.ipynb", f"{stem[:2]} · {title}"
        times = (
            re.search(r"(?m)^\| Time \| (\d+) minutes to read, (\d+) seconds", _text(path)) if path.exists() else None
        )
        link = f"[{name}]({path.name})" if path.exists() else name
        read, run = (f"{times[1]} min", f"{times[2]} s") if times else ("", "to come")
        rows.append(f"| {link} | {question} | {read} | {run} |")
    return "\n".join(rows)


def _text(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def dumps(notebook: nbformat.NotebookNode) -> str:
    """The file's text: keys sorted, one blank of indent, a newline at the end."""
    return json.dumps(json.loads(nbformat.writes(notebook)), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def coverage(notebook: nbformat.NotebookNode) -> tuple[int, int]:
    """(cells whose output nbval compares, cells that print): a picture alone prints nothing."""
    printing = compared = 0
    for cell in notebook.cells:
        if cell.cell_type != "code" or not any(map(_prints, cell.outputs)):
            continue
        printing += 1
        tags = set(cell.metadata.get("tags", []))
        compared += cell.execution_count is not None and not tags & {"nbval-ignore-output", "nbval-skip"}
    return compared, printing


def _prints(output: nbformat.NotebookNode) -> bool:
    if output.output_type in ("stream", "error"):
        return True
    return any(kind.startswith("text/") for kind in output.get("data", {}))


def write_contents() -> None:
    """The contents page with the map of the series as it is now."""
    text = CONTENTS.read_text(encoding="utf-8")
    CONTENTS.write_text(put_block(text, "map", series_map()), encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", type=Path, help="notebooks to execute (default: all)")
    parser.add_argument("--shuffle", action="store_true", help="execute them in a random order")
    parser.add_argument("--check", action="store_true", help="execute nothing; fail if a file is not in its form")
    args = parser.parse_args(argv)
    paths = [path.resolve() for path in args.names] or notebooks()
    if args.check:
        wrong = [path.name for path in paths if not in_form(path)]
        if wrong:
            print("not as `make notebooks` writes it: " + ", ".join(wrong))
            return 1
        counts = [coverage(nbformat.read(path, as_version=4)) for path in paths]
        compared, printing = map(sum, zip(*counts, strict=True))
        print(f"{len(paths)} notebooks in form; nbval compares {compared} of {printing} cells that print")
        return 0
    if args.shuffle:
        random.shuffle(paths)
    total = 0.0
    for path in paths:
        notebook, seconds = execute(path)
        total += seconds
        normalise(notebook)
        refresh(path, notebook, seconds)
        path.write_text(dumps(notebook), encoding="utf-8")
        done, printing = coverage(notebook)
        print(f"{path.relative_to(ROOT)}: {seconds:.0f} s, {done} of {printing} printing cells compared", flush=True)
    write_contents()
    for path in notebooks():  # times and navigation of others may have changed with these
        notebook = nbformat.read(path, as_version=4)
        refresh(path, notebook, None)
        path.write_text(dumps(notebook), encoding="utf-8")
    print(f"{len(paths)} notebooks in {total:.0f} s")
    return 0


def in_form(path: Path) -> bool:
    """Whether the file is exactly what this script would write without executing it."""
    notebook = normalise(nbformat.read(path, as_version=4))
    refresh(path, notebook, None)
    return path.read_text(encoding="utf-8") == dumps(notebook)


if __name__ == "__main__":
    sys.exit(main())
