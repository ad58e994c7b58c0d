"""What goes over the wire: every request and answer with its limits and an example. OpenAPI is made from this file."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

__all__ = [
    "Answer",
    "Answers",
    "Ask",
    "AskMany",
    "Found",
    "Health",
    "ModelCard",
    "Pasted",
    "Problem",
    "ReadPlaylist",
    "Recommended",
    "Track",
    "Unknown",
]

# The longest playlists of the MPD have 376 tracks; a model reads the newest 50 or 100 and leaves the others out.
MAX_HISTORY = 1_000
MAX_K = 500
MAX_BATCH = 64
MAX_WORDS = 300  # characters of one track; "Artist - Title" of the MPD has at most about 250
MAX_PASTED = 300_000  # characters: 1,000 lines as Exportify writes them; fits into a body in any script

A_TRACK = "Artist - Title"
A_URI = "spotify:track:0000000000000000000042"
Words = Annotated[str, StringConstraints(max_length=MAX_WORDS)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Request(_Message):
    """What is asked: a number must be a number, and a field that does not exist is a mistake worth telling."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


# --- what is asked ----------------------------------------------------------------------------------------------------


class Ask(_Request):
    """What should follow these tracks?"""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"tracks": [A_URI, A_TRACK], "k": 5}, {"tracks": [], "temperature": 1}]}
    )

    tracks: list[Words] = Field(
        max_length=MAX_HISTORY,
        description="Oldest first: Spotify URIs or links, names, or 'Artist - Title'. Empty: the most played tracks.",
    )
    title: str = Field(
        "", max_length=MAX_WORDS, description="The playlist's name. A model that reads no titles says so in `note`."
    )
    k: int = Field(10, ge=1, le=MAX_K, description="How many tracks to recommend.")
    exclude: list[Words] = Field(
        default=[], max_length=MAX_HISTORY, description="Tracks that must not come back; the model does not see them."
    )
    temperature: float = Field(
        0,
        ge=0,
        le=10,
        allow_inf_nan=False,
        description="0: the best tracks. 1: tracks drawn by their probability, less sharpens and more flattens it.",
    )
    seed: int | None = Field(
        None, ge=0, lt=2**53, description="The same seed draws the same tracks again; only with a temperature."
    )


class AskMany(_Request):
    """The same for several playlists, which are scored together."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"requests": [{"tracks": [A_URI]}, {"tracks": []}]}]})

    requests: list[Ask] = Field(min_length=1, max_length=MAX_BATCH)


class Pasted(_Request):
    """A playlist as somebody pasted or exported it: CSV (Exportify), M3U, links, or lines 'Artist - Title'."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"text": f"{A_TRACK}\n{A_URI}\n"}]})

    text: str = Field(max_length=MAX_PASTED)


# --- what is answered -------------------------------------------------------------------------------------------------


class Track(_Message):
    """A track that the model knows; null where the data have no name."""

    track_uri: str | None
    track_name: str | None
    artist_name: str | None
    album_name: str | None


class Recommended(Track):
    """A track that should follow. `score` orders within one answer only."""

    rank: int
    score: float
    probability: float | None = Field(description="Its share of 1 among all tracks; null where scores are no logits.")


class Unknown(_Message):
    """A track that was asked about and is not known."""

    text: str = Field(description="As it was given.")
    reason: str
    suggestions: list[Track] = Field(description="What may be meant, the likeliest first.")


class Answer(_Message):
    """What should follow, what it rests on, and what could not be used."""

    recommendations: list[Recommended]
    history: list[str | None] = Field(description="URIs of the tracks that were recognised, oldest first.")
    unknown: list[Unknown]
    note: str = Field(description="A sentence if something needs saying, else empty.")
    model: str = Field(description="Which weights answered: it changes when the model is replaced.")


class Answers(_Message):
    """One answer for each request, in their order."""

    answers: list[Answer]


class Found(_Message):
    """Tracks whose names hold the words that were searched, the most played first."""

    tracks: list[Track]
    nearest: list[Track] = Field(description="Names that are like the words, where none holds them.")


class ReadPlaylist(_Message):
    """What was recognised in a pasted playlist."""

    tracks: list[Track] = Field(description="The recognised ones in their order.")
    written: int = Field(description="How many tracks the text names.")
    missing: list[Unknown]


class Health(_Message):
    """That the server answers, and with which model."""

    status: str
    model: str


class ModelCard(_Message):
    """What is loaded."""

    name: str
    model: str = Field(description="Its weights, as `model` in every answer.")
    second_stage: bool = Field(description="Whether the second stage orders the candidates.")
    reads_titles: bool = Field(description="Whether it makes something of a playlist's title.")
    tracks: int
    playlists: int | None = Field(description="How many can be asked for by their number; null: there are none here.")
    shape: dict = Field(description="The settings of the network.")
    training: dict | None = Field(description="The settings of its training.")
    train_seconds: float | None
    note: str
    metrics: dict[str, dict[str, dict[str, float | None]]] | None = Field(
        description="On test playlists, by scorer and metric, with the 95 % interval; null: not evaluated yet."
    )
    test_playlists: int | None


class Problem(_Message):
    """What went wrong: `type` for programs, `message` for people, `where` in the request."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"type": "invalid_request", "message": "k: must be at least 1", "where": ["body", "k"]}]
        }
    )

    type: str
    message: str
    where: list[str | int] | None = None
