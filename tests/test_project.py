"""The project as a whole: lists that must agree, rooms that keep their order, and what must appear nowhere."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from sasrec_utils.cli.parser import make_parser

ROOT = Path(__file__).parents[1]
# A module imports only from modules above it.
ORDER = (
    "mpd", "world", "sequences", "features", "evaluation", "baselines", "vectors", "losses", "pointer", "model", "objective",
    "optimizer", "checkpoints", "training", "reranking", "track_names", "playlist_text", "recommender", "serving",
    "cli", "__main__", "course",
)  # fmt: skip
PACKAGE = ROOT / "sasrec_utils"
# Dotted name below the package, of every file: "model", "mpd.reading", "course.plots"; a folder is its `__init__.py`.
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path != PACKAGE / "__init__.py"
}
every_module = pytest.mark.parametrize("module", MODULES)


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def pyproject() -> dict:
    return tomllib.loads(text("pyproject.toml"))


def tracked() -> list[Path]:
    """The files that belong to the project: git's, or in a copy without git all that it would not ignore by name."""
    try:
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0")
        paths = [ROOT / name for name in listed if name]
    except (OSError, subprocess.CalledProcessError):
        ignored = {line.rstrip("/") for line in text(".gitignore").splitlines() if line.endswith("/")} | {".git"}
        ignored |= {"data/raw", "data/prepared", "data/models", "data/release", "benchmarks/.venv"}
        paths = []
        for path in ROOT.rglob("*"):
            parts = path.relative_to(ROOT)
            if not any(
                Path(rule) in (parent, Path(parent.name)) for rule in ignored for parent in (parts, *parts.parents)
            ):
                paths.append(path)
    return [path for path in paths if path.is_file()]


# Requirements


def requirements() -> list[Requirement]:
    project = pyproject()["project"]
    extras = project.get("optional-dependencies", {}).values()
    listed = [Requirement(line) for group in (project["dependencies"], *extras) for line in group]
    return [requirement for requirement in listed if requirement.name != project["name"]]  # an extra may take another


def pins() -> list[Requirement]:
    lines = (line.split("#")[0].strip() for line in text("constraints.txt").splitlines())
    return [Requirement(line) for line in lines if line]


def test_constraints_pin_one_version_each():
    names = [canonicalize_name(pin.name) for pin in pins()]
    assert len(names) == len(set(names))
    for pin in pins():
        assert re.fullmatch(r"==[0-9][^*,]*", str(pin.specifier)), f"{pin} does not name one exact version"
        assert pin.url is None and not pin.extras


def test_every_requirement_has_a_pin_that_satisfies_it():
    tested = {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in pins()}
    for requirement in requirements():
        version = tested.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not in constraints.txt"
        assert requirement.specifier.contains(version), f"{requirement} and constraints.txt ({version}) disagree"


def test_conda_installs_the_same():
    environment, project = yaml.safe_load(text("environment.yml")), pyproject()["project"]
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    plain = [line for line in environment["dependencies"] if isinstance(line, str)]
    names = {re.match(r"[a-z0-9_-]+", line)[0]: line for line in plain}
    assert set(names) == {"python", "pip"}
    assert SpecifierSet(names["python"].removeprefix("python")) == SpecifierSet(project["requires-python"])
    [nested] = [line for line in environment["dependencies"] if isinstance(line, dict)]
    assert nested == {"pip": ["-c constraints.txt", "-e .[dev]"]}
    assert "dev" in project["optional-dependencies"]


def test_readme_and_makefile_name_the_python_that_is_required():
    least = next(iter(SpecifierSet(pyproject()["project"]["requires-python"]))).version
    assert least in text("README.md") and least in text("Makefile")


# Commands of the README


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", text("Makefile"), re.MULTILINE))


def test_what_the_readme_tells_to_make_can_be_made():
    told = set(re.findall(r"(?:^|`)make ([a-z]+)", text("README.md"), re.MULTILINE))
    assert {"lab", "test"} <= told <= make_targets()
    declared = re.search(r"^\.PHONY: (.*)$", text("Makefile"), re.MULTILINE)[1].split()
    assert told <= set(declared)  # a file of that name must not get in the way


def test_what_the_readme_tells_to_type_is_understood():
    told = re.findall(
        r"(?:python -m sasrec_utils|sasrec) ((?:run|[a-z]+(?:-[a-z]+)?)(?: [^`\n]*)?)(?=[`\n])", text("README.md")
    )
    assert any(command.startswith("run") for command in told)
    for command in told:
        make_parser().parse_args(shlex.split(command))  # ends the program when it does not understand


def test_links_lead_somewhere():
    for page in [path for path in tracked() if path.suffix == ".md"]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_the_readme_lists_modules_in_their_order():
    listed = re.findall(r"^\| `(\w+)` \|", text("README.md"), re.MULTILINE)
    rooms = {name.split(".")[0] for name in MODULES}
    listed = [name for name in listed if name in ORDER]
    assert listed and listed == [name for name in ORDER if name in listed]
    assert set(listed) <= rooms


# Modules


def imported(module: str) -> set[str]:
    """Modules of this package that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("sasrec_utils.")}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import"
            if node.module == "sasrec_utils":
                found |= {alias.name for alias in node.names}
            elif (node.module or "").startswith("sasrec_utils."):
                found.add(node.module.split(".")[1])
    return found


@every_module
def test_a_module_imports_only_from_modules_above_it(module):
    room = module.split(".")[0]  # files of one room may import each other; Python itself refuses a circle there
    assert room in ORDER, f"{module} has no place in the order of modules"
    assert not imported(module) - set(ORDER[: ORDER.index(room)]) - {room}


@every_module
def test_every_public_name_explains_itself(module):
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    assert len((ast.get_docstring(tree) or "").split()) >= 5
    defined = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    public = {name for name in defined if not name.startswith("_")}
    if module.startswith("serving"):
        pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
    listed = getattr(importlib.import_module(f"sasrec_utils.{module}"), "__all__", None)
    if listed is not None:
        assert len(listed) == len(set(listed))
        for name in listed:
            assert hasattr(importlib.import_module(f"sasrec_utils.{module}"), name), f"{module}.{name} does not exist"
        public |= set(listed) & set(defined)
    for name in public:
        # The text of the source: a dataclass without one would be given a docstring by Python.
        explanation = ast.get_docstring(defined[name]) or ""
        said = {word.casefold() for word in re.findall(r"\w+", explanation)} - set(
            re.findall(r"[a-z]+", name.casefold())
        )
        assert len(said) >= 2, f"{module}.{name} is not explained"
        assert explanation.rstrip()[-1] in ".:)?", f"the docstring of {module}.{name} ends in the middle of a sentence"


def calls(tree: ast.AST) -> set[str]:
    """Dotted names of everything that is called: `a.b(...)` gives "a.b", `x[0].cuda()` gives ".cuda"."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            found |= {f"{owner}.{node.func.attr}", f".{node.func.attr}"}
    return found


@every_module
def test_no_device_is_taken_for_granted_and_nothing_is_unpickled(module):
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    called = calls(tree)
    assert ".cuda" not in called
    assert not called & {"torch.load", "torch.save", ".read_pickle", ".to_pickle", "joblib.load", "dill.load"}
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    # `mpd` talks to processes that it starts itself by pickle; no file is ever read that way.
    assert "pickle" not in names or module.split(".")[0] == "mpd"
    assert not names & {"joblib", "dill", "cloudpickle", "shelve", "marshal"}
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant) and node.value.value is False


# What must appear nowhere


def test_no_file_knows_this_machine():
    """Paths of a machine and addresses of package registries (spelt so that this file does not mention them)."""
    forbidden = re.compile(r"(?<![\w.*])/wor[k]/|(?<![\w.*])/roo[t]\b|fil[e]:///|inde[x]-url|[A-Z]:\\User[s]")
    for path in tracked():
        try:
            content = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture
        found = forbidden.search(content)
        assert not found, f"{path.relative_to(ROOT)} mentions {found[0]!r}"


def test_tracked_files_are_small_and_no_data():
    for path in tracked():
        assert path.stat().st_size < 5_000_000, f"{path.relative_to(ROOT)} is large"
        assert path.suffix not in {".parquet", ".safetensors", ".pt", ".pkl", ".npz"}, (
            f"{path.relative_to(ROOT)} is data"
        )
        assert not path.name.startswith("mpd.slice."), f"{path.relative_to(ROOT)} is a slice"
