"""The command line, as the tests call it: in this process or in its own."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from sasrec_utils.__main__ import main

COMMANDS = ("run", "make-data", "prepare", "train", "evaluate", "recommend", "tracks", "serve")
SMALL = ("--epochs", "1", "--accelerator", "cpu")


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


def sasrec(*arguments) -> Outcome:
    """One command, in this process; a wrong option ends it the way argparse does."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
    return Outcome(code, out.getvalue(), err.getvalue())


def program(*arguments, given: bytes = b"") -> Outcome:
    """The same as its own process, as a person starts it."""
    done = subprocess.run(
        [sys.executable, "-m", "sasrec_utils", *map(str, arguments)],
        input=given,
        capture_output=True,
        timeout=200,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
    )
    return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())


def no_json(text: str) -> None:
    pytest.fail(f"{text} is no JSON")


def refused(outcome: Outcome, word: str) -> None:
    """Exit code 2, nothing on stdout, no traceback, and at the end one sentence that says what is wrong."""
    assert outcome.code == 2 and outcome.out == ""
    assert "Traceback" not in outcome.err
    last = outcome.err.rstrip().splitlines()[-1]
    assert last.startswith("sasrec") and word in last, last
