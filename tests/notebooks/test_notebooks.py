"""The notebooks as documents: executed, in one form, without traces of a machine, every figure told in words.

What their cells print is compared by nbval, which runs beside this; here is the rest. The last part shows that each rule
catches what it is for.
"""

from __future__ import annotations

import copy
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "notebooks"
spec = importlib.util.spec_from_file_location("build", Path(__file__).with_name("build.py"))
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)

PATHS = build.notebooks()
LESSONS = [path for path in PATHS if path.parent == HERE]
SOLUTIONS = [path for path in PATHS if path.parent == HERE / "solutions"]
TAGS = {"nbval-ignore-output", "nbval-skip", "raises-exception", "exercise", "check"}
EXEMPT = {"nbval-ignore-output", "nbval-skip"}


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def tags_of(cell) -> set[str]:
    return set(cell.metadata.get("tags", []))


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text_of(cell) -> str:
    """What a cell printed, as text."""
    parts = []
    for output in cell.get("outputs", []):
        parts.append(output.get("text", "") or output.get("data", {}).get("text/plain", ""))
    return "\n".join("".join(part) for part in parts)


def prose(notebook) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def is_twin(output) -> bool:
    """Whether an output tells a figure in words: folded on the page, and as text that nbval compares."""
    data = output.get("data", {})
    told = re.match(r"In words: \S", "".join(data.get("text/plain", "")))
    return bool(told) and "".join(data.get("text/html", "")).startswith("<details>")


def problems(notebook) -> list[str]:
    """Everything that is wrong with a notebook that is to be committed."""
    wrong = []
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        wrong.append("the kernelspec is not python3")
    if "widgets" in notebook.metadata:
        wrong.append("a widget state is left in")
    cells = code_cells(notebook)
    if [cell.execution_count for cell in cells] != list(range(1, len(cells) + 1)):
        wrong.append("its cells are not executed 1…n: nbval would compare nothing")
    for index, cell in enumerate(notebook.cells):
        if tags_of(cell) - TAGS:
            wrong.append(f"cell {index} has unknown tags {tags_of(cell) - TAGS}")
        text = cell.source + "\n" + text_of(cell)
        if found := build.PATHS.search(text):
            wrong.append(f"cell {index} names a path of one machine: {text[found.start() : found.start() + 30]!r}")
        if cell.cell_type == "markdown":
            if re.search(r"!\[\s*\]\(", cell.source) or re.search(r"<img(?![^>]*alt=\"[^\"]+\")", cell.source):
                wrong.append(f"cell {index} has an image without alt text")
            continue
        for output in cell.outputs:
            data = output.get("data", {})
            if output.output_type == "error" and "raises-exception" not in tags_of(cell):
                wrong.append(f"cell {index} ended with {output.ename}")
            if output.get("name") == "stderr":
                wrong.append(f"cell {index} wrote to stderr: {output.text[:60]!r}")
            if build.PROGRESS.search(text_of(cell)):
                wrong.append(f"cell {index} holds a progress bar")
            if "image/svg+xml" in data:
                wrong.append(f"cell {index} holds an SVG, which nbval cannot compare")
        pictures = sum("image/png" in output.get("data", {}) for output in cell.outputs)
        if pictures > sum(map(is_twin, cell.outputs)):
            wrong.append(f"cell {index} has a figure without its folded twin in words")
    return wrong


@pytest.mark.parametrize("path", PATHS, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_notebook_is_fit_to_be_committed(path):
    assert problems(read(path)) == []


@pytest.mark.parametrize("path", PATHS, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_notebook_is_as_the_build_writes_it(path):
    assert build.in_form(path), "run `make notebooks`"


def test_nbval_compares_at_least_nine_of_ten_cells_that_print():
    counts = {path.stem: build.coverage(read(path)) for path in PATHS}
    for stem, (compared, printing) in counts.items():
        assert compared >= 0.9 * printing, f"{stem}: {compared} of {printing} cells that print are compared"


@pytest.mark.parametrize("path", PATHS, ids=lambda p: str(p.relative_to(ROOT)))
def test_an_exempt_cell_that_prints_is_followed_by_one_that_is_compared(path):
    cells = code_cells(read(path))
    for cell, later in zip(cells, [*cells[1:], None], strict=True):
        if tags_of(cell) & EXEMPT and cell.outputs:
            assert later is not None
            assert not tags_of(later) & EXEMPT
            assert later.outputs


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_opening_and_closing(path):
    notebook = read(path)
    first, last = notebook.cells[0].source, notebook.cells[-1].source
    number, title = path.stem[:2], dict((stem, title) for stem, title, _ in build.SERIES)[path.stem]
    assert first.startswith(f"# {number} · {title}\n")
    assert len(re.findall(r"(?m)^# ", prose(notebook))) == 1
    assert build.navigation(path) in first
    assert build.navigation(path) in last
    for row in ("You will be able to", "You need", "Time", "Data", "Files it makes"):
        assert f"| {row} |" in first
    headings = re.findall(r"(?m)^## (.+)$", prose(notebook))
    closing = ["What you can now do", "Numbers to remember", "Where this breaks", "Quiz", "References"]
    assert [h for h in headings if h in closing] == closing
    references = prose(notebook).split("## References")[1]
    assert 1 <= len(re.findall(r"(?m)^- ", references)) <= 5


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_the_promised_verbs_are_confirmed_at_the_end(path):
    text = prose(read(path))
    promised = re.findall(r"\*\*(\w+)\*\*", re.search(r"(?m)^\| You will be able to \|(.+)$", text)[1])
    done = re.findall(r"(?m)^- \*\*(\w+)\*\*", text.split("## What you can now do")[1].split("\n## ")[0])
    assert [verb.lower() for verb in done] == promised
    assert len(promised) == 3


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_it_runs_within_90_seconds(path):
    assert int(re.search(r"(\d+) seconds to run", prose(read(path)))[1]) <= 90


def exercises_of(notebook) -> list[str]:
    """Each exercise's text, wherever it stands: from `### NN.k · …` to the next heading."""
    sections = re.split(r"(?m)^(?=#{1,3} )", prose(notebook))
    return [section.removeprefix("### ") for section in sections if re.match(r"### \d\d\.\d · ", section)]


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_exercises_have_a_stub_a_check_two_hints_and_a_solution(path):
    notebook = read(path)
    parts = exercises_of(notebook)
    assert 3 <= len(parts) <= 6
    checks = [cell.source for cell in notebook.cells if "check" in tags_of(cell)]
    assert len(parts) == len(checks) == sum("exercise" in tags_of(cell) for cell in notebook.cells)
    solutions = "\n".join(cell.source for cell in read(HERE / "solutions" / path.name).cells)
    for part, check in zip(parts, checks, strict=True):
        assert re.match(r"\d\d\.\d · .+ [●○]{5} · \d+ minutes", part)
        assert part.count("<details><summary>Hint") == 2
        assert part.splitlines()[0].split(" ●")[0] in solutions
        assert check in solutions
    for cell in notebook.cells:
        if "check" in tags_of(cell):
            assert "not attempted yet" in text_of(cell)
    for cell in read(HERE / "solutions" / path.name).cells:
        if cell.cell_type == "code" and "checks." in cell.source.splitlines()[-1]:
            assert text_of(cell).startswith("✔")


def numbers(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w.@])\d[\d,]*(?:\.\d+)?(?![\w@])", text))


def stands_in(number: str, shown: set[str]) -> bool:
    """Whether a number, as prose writes it, is one that was shown, perhaps rounded or as a percentage."""
    value, digits = float(number.replace(",", "")), len(number.partition(".")[2])
    candidates = [float(other.replace(",", "")) for other in shown]
    return any(abs(round(c * scale, digits) - value) < 1e-9 for c in candidates for scale in (1, 100))


@pytest.mark.parametrize("path", PATHS, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_reading_names_numbers_that_were_shown(path):
    shown: set[str] = set()
    for index, cell in enumerate(read(path).cells):
        if cell.cell_type == "code":
            shown |= numbers(cell.source) | numbers(text_of(cell))
            continue
        for reading in re.findall(r"\*Reading:\* (.+)", cell.source):
            named = {n for n in numbers(reading) if float(n.replace(",", "")) >= 10 or "." in n}
            missing = {n for n in named if not stands_in(n, shown)}
            assert not missing, f"cell {index} reads {missing}, which no output above shows"
        shown |= numbers(cell.source)


@pytest.mark.parametrize("path", [*PATHS, build.CONTENTS], ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    text = path.read_text(encoding="utf-8") if path.suffix == ".md" else prose(read(path))
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", PATHS, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_word_that_makes_a_reader_feel_slow(path):
    assert not re.findall(r"(?i)\b(simply|just|obviously|of course|trivial\w*)\b", prose(read(path)))


def test_the_contents_page_is_up_to_date():
    assert build.contents_blocks()["map"] == build.series_map()


def glossary() -> list[tuple[str, str, str]]:
    """(anchor, term, number of the notebook that introduces it) for every row of the glossary."""
    text = build.CONTENTS.read_text(encoding="utf-8").split("## Glossary")[1]
    return re.findall(r'(?m)^\| <a id="([\w-]+)"></a>([^|]+) \| [^|]+ \| (\d\d) \|$', text)


def test_the_glossary_is_sorted_and_names_no_term_twice():
    text = build.CONTENTS.read_text(encoding="utf-8").split("## Glossary")[1]
    terms = [term.casefold() for _, term, _ in glossary()]
    assert len(terms) == text.count("\n| ") - 1  # every row but the head has an anchor
    assert len(terms) > 20
    assert terms == sorted(set(terms))
    assert len({anchor for anchor, *_ in glossary()}) == len(terms)


@pytest.mark.parametrize(("anchor", "term", "number"), glossary())
def test_a_glossary_term_is_used_where_the_glossary_says(anchor, term, number):
    (path,) = HERE.glob(f"{number}_*.ipynb")
    notebook = read(path)
    words = prose(notebook) + "\n".join(cell.source for cell in code_cells(notebook))
    assert re.search(re.escape(term), words, re.IGNORECASE), f"{path.name} does not use {term!r}"
    if number in ("00", "01", "02"):
        assert f"](README.md#{anchor})" in words, f"{path.name} does not link {term!r} to the glossary"


def test_a_link_into_the_glossary_leads_to_a_term():
    anchors = {anchor for anchor, *_ in glossary()} | {"notation", "glossary"}
    for path in LESSONS:
        assert set(re.findall(r"\]\(README\.md#([\w-]+)\)", prose(read(path)))) <= anchors, path.name


@pytest.mark.parametrize("stem", ["00_start_here", "01_parse_and_explore", "02_playlists_to_sequences"])
def test_the_first_notebooks_are_short(stem):
    minutes = build.reading_minutes(read(HERE / f"{stem}.ipynb"))
    assert minutes <= (6 if stem.startswith("00") else 15)


def test_reading_time_leaves_out_exercises_wherever_they_stand_and_the_targets_of_links():
    v4 = nbformat.v4
    hundred = "word " * 100
    lesson = [v4.new_markdown_cell("## 1 · One\n" + hundred), v4.new_markdown_cell("## 2 · Two\n" + hundred)]
    exercise = v4.new_markdown_cell("### 02.1 · Do it ●○○○○ · 9 minutes\n" + 4 * hundred)
    stub = v4.new_code_cell("x = 1\n" * 100, metadata={"tags": ["exercise"]})
    link = v4.new_markdown_cell("[a](" + "-".join("b" * 400) + ")")
    assert build.reading_minutes(v4.new_notebook(cells=lesson)) == 1
    assert build.reading_minutes(v4.new_notebook(cells=[lesson[0], exercise, stub, lesson[1], link])) == 1
    assert build.reading_minutes(v4.new_notebook(cells=[lesson[0], v4.new_markdown_cell(4 * hundred)])) > 2


# --- each rule catches what it is for ---------------------------------------------------------------------------------


def good() -> nbformat.NotebookNode:
    """A notebook with a figure that every rule lets pass."""
    v4 = nbformat.v4
    picture = v4.new_output("display_data", data={"image/png": "aGVsbG8=", "text/plain": "[figure]"})
    folded = {"text/html": "<details>one bar, 3 high.</details>", "text/plain": "In words: one bar, 3 high."}
    words = v4.new_output("display_data", data=folded)
    cells = [
        v4.new_markdown_cell("# A title"),
        v4.new_code_cell("print(6 * 7)", outputs=[v4.new_output("stream", name="stdout", text="42\n")]),
        v4.new_code_cell("picture", outputs=[picture, words]),
    ]
    return build.normalise(v4.new_notebook(cells=cells))


def strip(notebook):
    for cell in code_cells(notebook):
        cell.execution_count, cell.outputs = None, []


def drop_words(notebook):
    notebook.cells[2].outputs.pop()


def unfold_words(notebook):
    notebook.cells[2].outputs[1] = nbformat.v4.new_output("stream", name="stdout", text="In words: one bar, 3 high.\n")


def leave_state(notebook):
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}


def leave_path(notebook):
    notebook.cells[1].outputs[0].text = "saved in " + "/".join(["", "home", "me", "data"])


def leave_bar(notebook):
    notebook.cells[1].outputs[0].text = " 45%|████      | 9/20 [00:01<00:01, 8.3batch/s]"


def leave_error(notebook):
    notebook.cells[1].outputs = [nbformat.v4.new_output("error", ename="KeyError", evalue="1", traceback=[])]


def drop_alt(notebook):
    notebook.cells[0].source += "\n\n![](picture.png)"


def test_a_good_notebook_passes():
    assert problems(good()) == []


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (strip, "not executed"),
        (drop_words, "figure without its folded twin"),
        (unfold_words, "figure without its folded twin"),
        (leave_state, "widget state"),
        (leave_path, "path of one machine"),
        (leave_bar, "progress bar"),
        (leave_error, "KeyError"),
        (drop_alt, "alt text"),
    ],
)
def test_what_is_broken_is_found(break_it, said):
    notebook = good()
    break_it(notebook)
    assert any(said in problem for problem in problems(notebook))


@pytest.mark.parametrize("path", PATHS, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_stripped_copy_of_each_notebook_is_found(path):
    notebook = copy.deepcopy(read(path))
    strip(notebook)
    assert problems(notebook)


def test_the_build_takes_out_what_must_not_stay():
    notebook = good()
    leave_state(notebook)
    bar = nbformat.v4.new_output("stream", name="stderr", text=" 45%|████      | 9/20 [00:01<00:01, 8.3batch/s]\n")
    notebook.cells[1].outputs.append(bar)
    assert problems(notebook)
    assert problems(build.normalise(notebook)) == []


def test_a_reading_with_a_number_that_was_not_shown_is_found():
    assert stands_in("22", {"0.2214"})
    assert stands_in("0.22", {"0.2214"})
    assert stands_in("1,399", {"1,399"})
    assert not stands_in("0.23", {"0.2214"})


def run_nbval(path: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--nbval", "--nbval-current-env"]
    options = ["--nbval-cell-timeout=60", "-q", "-c", str(path.parent / "none.ini"), "--rootdir", str(path.parent)]
    (path.parent / "none.ini").write_text("[pytest]\n")
    return subprocess.run([*command, *options, str(path)], capture_output=True, text=True)


def test_a_changed_output_fails_under_nbval(tmp_path):
    notebook = good()
    notebook.cells.pop()  # its figure comes from nowhere
    path = tmp_path / "small.ipynb"
    nbformat.write(notebook, path)
    assert run_nbval(path).returncode == 0
    notebook.cells[1].outputs[0].text = "43\n"
    nbformat.write(notebook, path)
    done = run_nbval(path)
    assert done.returncode == 1
    assert "42" in done.stdout
