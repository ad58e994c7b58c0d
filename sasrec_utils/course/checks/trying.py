"""How checks try an answer: what is expected, what came out, and the sentence that says so."""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import numpy as np
import torch

LIMIT = 10.0  # seconds that a check waits for an answer: the right ones take milliseconds


@dataclass(frozen=True)
class Result:
    """What a check found. True in a condition if the answer passed."""

    passed: bool
    text: str

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        return self.text


NOT_ATTEMPTED = Result(False, "· not attempted yet")


class Violated(Exception):
    """A property that does not hold, with the smallest input that shows it."""


class TooLong(BaseException):
    """The time is up. No `Exception`, so that an `except Exception` in the learner's loop does not swallow it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TooLong` in this thread if the block takes longer, and again each time as long has passed.

    A second thread raises it, because alarm signals do not exist on every system. It takes effect between two steps of
    Python: a single call into compiled code is waited for.
    """
    me, over, turn = threading.get_ident(), threading.Event(), threading.Lock()

    def watch() -> None:
        while not over.wait(seconds):
            with turn:
                if not over.is_set():
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(me), ctypes.py_object(TooLong))

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        with turn:
            over.set()


def check(holds: str) -> Callable[[Callable], Callable[[Any], Result]]:
    """Turn a function that raises `Violated` into a check that returns a `Result`."""

    def decorate(function: Callable[[Any], None]) -> Callable[[Any], Result]:
        @wraps(function)
        def checked(answer: Any) -> Result:
            if answer is None or answer is Ellipsis:
                return NOT_ATTEMPTED
            try:
                with time_limit(LIMIT):
                    function(answer)
            except NotImplementedError:
                return NOT_ATTEMPTED
            except TooLong:
                return Result(False, f"✘ it must end: after {LIMIT:g} seconds it was still running")
            except Violated as violated:
                return Result(False, f"✘ {violated}")
            return Result(True, f"✔ {holds}")

        return checked

    return decorate


def call(function: Callable, *args: Any) -> Any:
    """The answer of the learner's function; an error of its own becomes a violated property."""
    try:
        return function(*args)
    except NotImplementedError:
        raise
    except TooLong:
        shown = ", ".join(map(repr, args))
        raise Violated(f"it must end: {function.__name__}({shown}) was still running after {LIMIT:g} seconds") from None
    except Exception as error:
        shown = ", ".join(map(repr, args))
        raise Violated(
            f"it must not fail: {function.__name__}({shown}) raises {type(error).__name__}: {error}"
        ) from None


def number(answer: Any) -> float:
    """An answer that has to be a number, as one; text, NaN and the like become a violated property."""
    if isinstance(answer, str):
        raise Violated(f"the answer is a number, and {answer!r} is text: write it without quotation marks")
    try:
        value = float(answer)
    except (TypeError, ValueError):
        raise Violated(f"the answer is a number, not {answer!r}") from None
    if not math.isfinite(value):
        raise Violated(f"the answer is a number, not {value}")
    return value


def expect(function: Callable, args: tuple, wanted: Any, rule: str) -> None:
    """`function(*args)` must equal `wanted` (numbers, lists, arrays); `rule` is the property this shows."""
    got = call(function, *args)
    shown = f"{function.__name__}({', '.join(map(repr, args))})"
    if got is None:
        raise Violated(f"{rule}: {shown} returns nothing, wanted {wanted}")
    if not same(got, wanted):
        raise Violated(f"{rule}: {shown} gives {plain(got)}, wanted {wanted}")


def plain(value: Any) -> Any:
    """An answer without NumPy's types, so that it compares and prints like the numbers people write."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, tuple):
        return tuple(map(plain, value))
    return value


def same(a: Any, b: Any) -> bool:
    """Whether two answers agree: numbers to nine digits, lists and tuples entry by entry."""
    a, b = plain(a), plain(b)
    if isinstance(a, float) or isinstance(b, float):
        return isinstance(a, int | float) and isinstance(b, int | float) and abs(a - b) < 1e-9
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def called(function: Callable, args: tuple, shown: str):
    """What the learner's function returns; `shown` is the call as a reader knows it, if it fails."""
    try:
        return function(*args)
    except NotImplementedError:
        raise
    except Exception as error:
        raise Violated(f"it must not fail: {shown} raises {type(error).__name__}: {error}") from None


def tensor(function: Callable, args: tuple, shape: tuple[int, ...], shown: str) -> torch.Tensor:
    """The tensor that the learner's function returns, of the right shape; `shown` is the call as a reader knows it."""
    got = called(function, args, shown)
    if not isinstance(got, torch.Tensor):
        raise Violated(f"it returns a tensor: {shown} gives {type(got).__name__}")
    if tuple(got.shape) != shape:
        raise Violated(f"the shape is {list(shape)}: {shown} gives {list(got.shape)}")
    return got
