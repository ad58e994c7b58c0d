"""How checks try an answer: what is expected, what came out, and the sentence that says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import numpy as np
import torch


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


def check(holds: str) -> Callable[[Callable], Callable[[Any], Result]]:
    """Turn a function that raises `Violated` into a check that returns a `Result`."""

    def decorate(function: Callable[[Any], None]) -> Callable[[Any], Result]:
        @wraps(function)
        def checked(answer: Any) -> Result:
            if answer is None or answer is Ellipsis:
                return NOT_ATTEMPTED
            try:
                function(answer)
            except NotImplementedError:
                return NOT_ATTEMPTED
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
    except Exception as error:
        shown = ", ".join(map(repr, args))
        raise Violated(
            f"it must not fail: {function.__name__}({shown}) raises {type(error).__name__}: {error}"
        ) from None


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


def tensor(function: Callable, args: tuple, shape: tuple[int, ...], shown: str) -> torch.Tensor:
    """The tensor that the learner's function returns, of the right shape; `shown` is the call as a reader knows it."""
    try:
        got = function(*args)
    except NotImplementedError:
        raise
    except Exception as error:
        raise Violated(f"it must not fail: {shown} raises {type(error).__name__}: {error}") from None
    if not isinstance(got, torch.Tensor):
        raise Violated(f"it returns a tensor: {shown} gives {type(got).__name__}")
    if tuple(got.shape) != shape:
        raise Violated(f"the shape is {list(shape)}: {shown} gives {list(got.shape)}")
    return got
