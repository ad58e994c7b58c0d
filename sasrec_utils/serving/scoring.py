"""Requests that arrive together are scored together.

One thread computes. While it does, new requests gather, and what has gathered is its next batch: nobody waits for
a clock, and under load the batches grow by themselves. Eight histories at once cost about as much as three alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from sasrec_utils.evaluation import top_k
from sasrec_utils.evaluation.ranking import rows_at_once
from sasrec_utils.recommender import Recommendation, Recommender

__all__ = ["Batcher", "Busy", "Question", "Scored", "answer_together"]

MAX_WAITING = 1_024  # questions; more would wait longer than anybody does
MAX_TOGETHER = 64  # histories in one batch
COLDEST = 1e-3  # a lower temperature is none: the best track's odds are beyond what float64 can tell


class Busy(Exception):
    """More questions are waiting than the server takes."""


@dataclass(frozen=True)
class Question:
    """A request whose tracks are known: `tracks` and `exclude` are URIs."""

    tracks: list[str]
    k: int = 10
    exclude: Sequence[str] = ()
    temperature: float = 0.0
    seed: int | None = None
    title: str = ""


@dataclass(frozen=True)
class Scored:
    """The answer to one question: ids, scores and probabilities (or None) of the tracks, best first."""

    ids: list[int]
    scores: list[float]
    probabilities: list[float] | None
    note: str


def answer_together(recommender: Recommender, questions: Sequence[Question]) -> list[Scored]:
    """What `recommender` answers to each question; all are scored in one go."""
    answers = recommender.recommend_batch(
        [question.tracks for question in questions],
        max(question.k for question in questions),
        [question.exclude for question in questions],
        [question.title for question in questions],
    )
    return [_read(recommender, *pair) for pair in zip(questions, answers, strict=True)]


def _read(recommender: Recommender, question: Question, answer: Recommendation) -> Scored:
    shares = recommender.probabilities(answer)
    notes = [answer.note] if answer.note else []
    ids = answer.ids[: question.k]
    if question.temperature >= COLDEST:
        if shares is None:
            notes.append("There are no probabilities to draw by: these are the best tracks.")
        else:
            ids = _draw(shares, answer.left_out, question)
    return Scored(
        ids.tolist(),
        answer.scores[ids].tolist(),
        None if shares is None else shares[ids].tolist(),
        " ".join(notes),
    )


def _draw(shares: np.ndarray, left_out: set[int], question: Question) -> np.ndarray:
    """`k` different tracks, each drawn by p^(1/temperature) among those that are left; ids in the order of drawing.

    Adding Gumbel noise to logarithms and taking the k largest is drawing without replacement from their softmax
    (Kool, van Hoof and Welling, ICML 2019, section 2.3).
    """
    with np.errstate(divide="ignore"):
        worth = np.log(shares.astype(np.float64)) / question.temperature
    worth += np.random.default_rng(question.seed).gumbel(size=len(worth))
    worth[[0, *left_out]] = -np.inf
    best = top_k(worth[None], min(question.k, len(worth) - 1))[0]
    return best[best > 0]


class Batcher:
    """Questions in, answers out, in whatever company they come. For one event loop.

    `thread`: an executor with one thread. What a question is answered does not depend on the others in its batch, and
    one that fails takes no other with it.
    """

    def __init__(self, recommender: Recommender, thread: Executor):
        self.recommender, self.thread = recommender, thread
        self.most = rows_at_once(recommender.scorer, MAX_TOGETHER)
        self._waiting: deque[tuple[Question, asyncio.Future[Scored]]] = deque()
        self._worker: asyncio.Task | None = None

    async def ask(self, questions: Sequence[Question]) -> list[Scored]:
        """The answers to `questions`, in their order. Raises Busy, and what the recommender raises."""
        if len(self._waiting) + len(questions) > MAX_WAITING:
            raise Busy
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in questions]
        self._waiting.extend(zip(questions, futures, strict=True))
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        return await asyncio.gather(*futures)

    async def _work(self) -> None:
        """Answer until nothing waits. A task, and so it begins after all that has arrived by now."""
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(self.most, len(self._waiting)))]
            batch = [(question, future) for question, future in batch if not future.done()]  # whose asker has left
            await self._answer(batch)
        self._worker = None

    async def _answer(self, batch: list[tuple[Question, asyncio.Future[Scored]]]) -> None:
        if not batch:
            return
        questions = [question for question, _ in batch]
        loop = asyncio.get_running_loop()
        try:
            answers = await loop.run_in_executor(self.thread, answer_together, self.recommender, questions)
        except Exception as error:
            if len(batch) > 1:  # one of them may be to blame: the others must not suffer for it
                for one in batch:
                    await self._answer([one])
            elif not batch[0][1].done():
                batch[0][1].set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)
