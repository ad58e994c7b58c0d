"""The recommender behind HTTP: what can be asked, as FastAPI reads it. `create_app` makes the application."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, HTTPException, Query, Request, Security
from fastapi import Path as PathPart
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as StarletteHTTPException

from sasrec_utils.playlist_text import PlaylistTextError
from sasrec_utils.serving.guard import Guard, log, problem
from sasrec_utils.serving.loaded import Model
from sasrec_utils.serving.messages import (
    MAX_K,
    MAX_WORDS,
    Answer,
    Answers,
    Ask,
    AskMany,
    Found,
    Health,
    ModelCard,
    Pasted,
    Problem,
    ReadPlaylist,
    Recommended,
)
from sasrec_utils.serving.scoring import Busy, Question, Scored

__all__ = ["Served", "create_app"]

PAGE = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
KINDS = {404: "not_found", 405: "method_not_allowed", 422: "no_playlist", 503: "busy"}
FEW = 200  # tracks that are looked up at once, between two other things; more go to a thread
PROBLEMS = {
    401: "The token is missing or wrong.",
    404: "There is no such playlist.",
    408: "The body came too slowly.",
    413: "The body is too large.",
    422: "The request is not understood.",
    503: "Too many requests are waiting.",
}


class Served:
    """What is served now. `now` is a `Model`; a request takes it once and keeps it to its end, so that `reload` can put
    another one there at any time: the old one goes when its last request is answered."""

    def __init__(self, data_dir, name: str, rerank: bool = True):
        self.thread = ThreadPoolExecutor(1, "scores")
        self._from = (data_dir, name, self.thread, rerank)
        self._one_at_a_time = asyncio.Lock()
        self.now = Model(*self._from)

    async def reload(self) -> bool:
        """Load the folder again; for a while both models are in memory. If it cannot be used, what is served stays, and
        the log says why."""
        async with self._one_at_a_time:  # else the older of two might come in last
            try:
                self.now = await run_in_threadpool(Model, *self._from)
            except Exception as error:
                log("not reloaded", reason=str(error), error=type(error).__name__)
                return False
            log("reloaded", model=self.now.version)
            return True


def create_app(served: Served, token: str | None = None) -> FastAPI:
    """The application. With `token`, everything but the page, /health and the schema wants it as a bearer token.

    Taught in notebook 10.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_):
        yield
        served.thread.shutdown()

    app = FastAPI(
        title="SASRec on playlists",
        version="1",
        description="Tracks in, the tracks that should follow out.",
        docs_url=None,  # their pages come from a CDN
        redoc_url=None,
        lifespan=lifespan,
        dependencies=[Security(HTTPBearer(auto_error=False))] if token is not None else [],
    )
    app.add_middleware(Guard, token=token)
    app.state.served = served
    _handle_errors(app)
    _add_recommending(app)
    _add_looking_up(app)
    return app


def _may_fail(*statuses: int) -> dict[int | str, dict]:
    return {status: {"model": Problem, "description": PROBLEMS[status]} for status in statuses}


# --- recommending -----------------------------------------------------------------------------------------------------


async def _recommend(model: Model, asked: list[Ask]) -> list[Answer]:
    """One answer for each request, all from the same model."""
    many = sum(len(ask.tracks) + len(ask.exclude) for ask in asked) > FEW
    read = await run_in_threadpool(_resolve, model, asked) if many else _resolve(model, asked)
    questions = [question for question, _ in read]
    try:
        scored = await model.batcher.ask(questions)
    except Busy:
        raise HTTPException(
            503, "Too many requests are waiting: try again in a second.", {"retry-after": "1"}
        ) from None
    missing = [unknown for _, unknown in read]
    told = [[] for _ in asked]
    if any(missing):  # a search among all names, which must not hold the others up
        told = await run_in_threadpool(_suggest, model, missing)
    return [_answer(model, *one) for one in zip(questions, scored, told, strict=True)]


def _resolve(model: Model, asked: list[Ask]) -> list[tuple[Question, list[str]]]:
    """The questions about what is known, and the texts that are not."""
    found = []
    for ask in asked:
        ids, unknown = model.recognise(ask.tracks)
        excluded, _ = model.recognise(ask.exclude)
        uris, others = ([model.uris[i - 1] for i in some] for some in (ids, excluded))
        found.append((Question(uris, ask.k, others, ask.temperature, ask.seed, ask.title), unknown))
    return found


def _suggest(model: Model, missing: list[list[str]]) -> list[list]:
    """Suggestions for the first unknown tracks of the first requests: in bounded time, however many there are."""
    every = model.unknown([text for texts in missing for text in texts])
    return [[every.pop(0) for _ in texts] for texts in missing]


def _answer(model: Model, question: Question, scored: Scored, unknown: list) -> Answer:
    shares = scored.probabilities or [None] * len(scored.ids)
    columns = model.recommender.names.columns
    named = [{name: column[i - 1] for name, column in columns.items()} for i in scored.ids]
    rows = [
        Recommended(rank=rank, score=score, probability=share, **names)
        for rank, (score, share, names) in enumerate(zip(scored.scores, shares, named, strict=True), 1)
    ]
    return Answer(recommendations=rows, history=question.tracks, unknown=unknown, note=scored.note, model=model.version)


def _add_recommending(app: FastAPI) -> None:
    served: Served = app.state.served

    @app.post("/recommendations", responses=_may_fail(401, 408, 413, 422, 503))
    async def recommendations(ask: Ask) -> Answer:
        """The tracks that should follow some others."""
        return (await _recommend(served.now, [ask]))[0]

    @app.post("/recommendations/batch", responses=_may_fail(401, 408, 413, 422, 503))
    async def batch(many: AskMany) -> Answers:
        """The same for several playlists at once."""
        return Answers(answers=await _recommend(served.now, many.requests))

    @app.get("/playlists/{pid}/recommendations", responses=_may_fail(401, 404, 422, 503))
    async def playlist_recommendations(
        pid: Annotated[int, PathPart(ge=0, lt=2**53, description="Number of a playlist in the data.", examples=[0])],
        k: Annotated[int, Query(ge=1, le=MAX_K, description="How many tracks to recommend.")] = 10,
    ) -> Answer:
        """The tracks that should follow a playlist of the data that the model was made from."""
        model = served.now
        playlists = await run_in_threadpool(model.playlists)
        if playlists is None:
            raise HTTPException(404, "The playlists that this model was made from are not on this server.")
        found = playlists.find(pid)
        if found is None:
            raise HTTPException(404, f"There is no playlist {pid}.")
        ids, title = found
        read = title if title and model.recommender.reads_titles else ""
        question = Question([model.uris[i - 1] for i in ids], k, title=read)
        return _answer(model, question, (await model.batcher.ask([question]))[0], [])


# --- looking up -------------------------------------------------------------------------------------------------------


def _add_looking_up(app: FastAPI) -> None:
    served: Served = app.state.served
    headers = {"content-security-policy": _policy(PAGE), "x-content-type-options": "nosniff"}

    @app.get("/tracks", responses=_may_fail(401, 422))
    def tracks(
        q: Annotated[str, Query(max_length=MAX_WORDS, description="Words, or parts of them.", examples=["love"])],
        k: Annotated[int, Query(ge=1, le=MAX_K, description="How many tracks at most.")] = 10,
    ) -> Found:
        """Tracks whose title and artist hold every word of `q`; a link or URI finds its track."""
        model = served.now
        names = model.recommender.names
        sure = names.find(q) if ":" in q else 0
        found = [sure] if sure else names.search(q, k)
        near = [] if found else names.nearest(q, min(k, 10))
        return Found(tracks=model.tracks(found), nearest=model.tracks(near))

    @app.post("/playlists", responses=_may_fail(401, 408, 413, 422))
    def read_playlist(pasted: Pasted) -> ReadPlaylist:
        """What is recognised in a playlist that somebody pasted."""
        model = served.now
        try:
            ids, written, missing = model.read(pasted.text)
        except PlaylistTextError as error:
            raise HTTPException(422, str(error).replace("the file", "the text", 1)) from error
        return ReadPlaylist(tracks=model.tracks(ids), written=written, missing=missing)

    @app.get("/health")
    async def health() -> Health:
        """That the server answers."""
        return Health(status="ok", model=served.now.version)

    @app.get("/model", responses=_may_fail(401))
    def model_card() -> ModelCard:
        """What is loaded, and what it reached on test playlists."""
        model = served.now
        playlists = model.playlists()
        return ModelCard(
            name=model.name,
            model=model.version,
            second_stage=model.second_stage,
            reads_titles=model.recommender.reads_titles,
            tracks=len(model.recommender),
            playlists=None if playlists is None else len(playlists),
            shape=model.about["model"],
            training=model.about.get("training"),
            train_seconds=model.about.get("train_seconds"),
            note=model.recommender.remark,
            metrics=model.metrics.get("metrics"),
            test_playlists=model.metrics.get("playlists"),
        )

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(PAGE, headers=headers)


def _policy(page: str) -> str:
    """Only the page's own script and style may run, and only this server may be asked."""
    hashes = {}
    for kind in ("script", "style"):
        inside = re.search(rf"<{kind}>(.*?)</{kind}>", page, re.DOTALL)[1]
        hashes[kind] = "'sha256-" + base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode() + "'"
    return (
        f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


# --- what goes wrong --------------------------------------------------------------------------------------------------


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        """The first mistake, in one sentence. What was given is not repeated: it may be long, or no text at all."""
        first = error.errors()[0]
        where = [part for part in first["loc"] if isinstance(part, int) or part.isidentifier()]
        name = ".".join(str(part) for part in where[1:])
        what = first["msg"][:1].lower() + first["msg"][1:] if name else first["msg"]
        return _problem(422, "invalid_request", f"{name}: {what}" if name else what, where)

    @app.exception_handler(StarletteHTTPException)
    async def known(_: Request, error: StarletteHTTPException) -> Response:
        kind = {422: "no_playlist", 503: "busy"}.get(error.status_code) or KINDS.get(
            error.status_code, "invalid_request"
        )
        if error.status_code == 400:  # FastAPI's word for JSON that is too deep, or a number of 5,000 digits
            return _problem(422, "invalid_request", "The body is no JSON that can be read.")
        kind = KINDS.get(error.status_code, "invalid_request")
        said = {404: "There is nothing here.", 405: "This address is asked in another way: see /openapi.json."}
        default = error.detail in ("Not Found", "Method Not Allowed")
        message = said[error.status_code] if default else str(error.detail)
        return _problem(error.status_code, kind, message, headers=error.headers)


def _problem(status: int, kind: str, message: str, where: list | None = None, headers: dict | None = None) -> Response:
    return Response(problem(kind, message, where), status, headers, "application/json")
