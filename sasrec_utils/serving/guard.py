"""What stands before the application: who may come in, how much they may bring, and a line in the log for each.

An ASGI middleware without a framework, so that it sees everything: bodies before they are in memory, answers of every
kind, and errors that nobody foresaw, of which the outside is told nothing but a number to ask about.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import sys
import time
import traceback
from collections.abc import Callable

from sasrec_utils.serving.messages import Problem

__all__ = ["Guard", "log", "problem"]

MAX_BODY = 2_000_000  # bytes
# What is beyond is still read, and thrown away, for most clients listen only when all is sent; beyond this no more.
MAX_READ = 10 * MAX_BODY
BODY_SECONDS = 10  # in which a body must have come: who trickles it must not hold a connection for ever
OPEN = ("/", "/health", "/openapi.json")  # say nothing that needs a token


def log(event: str, **more) -> None:
    """One line of JSON on stderr: the time (seconds since 1970), what happened, and whatever else there is to say."""
    line = json.dumps({"time": round(time.time(), 3), "event": event, **more})
    print(line, file=sys.stderr, flush=True)


def problem(kind: str, message: str, where: list[str | int] | None = None) -> bytes:
    """A `Problem` as JSON. Surrogates that a request smuggled in cannot be sent, and are replaced."""
    said = Problem(type=kind, message=message.encode("utf-8", "replace").decode(), where=where)
    return said.model_dump_json(exclude_none=True).encode()


class Refused(Exception):
    """A request that ends here: the status, the kind of problem and a sentence."""

    def __init__(self, status: int, kind: str, message: str):
        super().__init__(message)
        self.status, self.kind, self.message = status, kind, message


class Guard:
    """Asks for the token, bounds the body, logs each request and turns whatever goes wrong into a typed answer.

    `token`: what `Authorization: Bearer …` must hold, compared in constant time; None lets everybody in.
    """

    def __init__(self, app: Callable, token: str | None = None):
        self.app, self._token = app, None if token is None else token.encode()

    async def __call__(self, scope, receive, send) -> None:
        """One request, as ASGI has it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, number = time.perf_counter(), secrets.token_hex(8)
        said = {"status": 0, "bytes": 0}

        async def tell(message) -> None:
            if message["type"] == "http.response.start":
                said["status"] = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", number.encode())]
            else:
                said["bytes"] += len(message.get("body", b""))
            await send(message)

        try:
            self._check_token(scope)
            await self.app(scope, _replay(await _read(receive), receive), tell)
        except Refused as refusal:
            await _answer(tell, refusal)
        except Exception as error:
            log("error", id=number, error=type(error).__name__, trace=traceback.format_exc())
            if not said["status"]:
                message = f"Something went wrong here; the server's log has more under {number}."
                await _answer(tell, Refused(500, "internal", message))
        finally:
            milliseconds = round(1000 * (time.perf_counter() - began), 2)
            client = scope["client"][0] if scope.get("client") else None
            # The path without its query: what people search for is nobody's business.
            seen = {"id": number, "client": client, "method": scope["method"], "path": scope["path"][:200]}
            log("request", **seen, **said, ms=milliseconds)

    def _check_token(self, scope) -> None:
        if self._token is None or scope["path"] in OPEN:
            return
        given = dict(scope["headers"]).get(b"authorization", b"")
        kind, _, token = given.partition(b" ")
        if kind.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self._token):
            raise Refused(401, "unauthorized", "This server wants the header 'Authorization: Bearer TOKEN'.")


async def _read(receive) -> bytes:
    """The whole body. Raises Refused when it is too large, or takes too long, and reads no more than is allowed."""
    body, size, more = bytearray(), 0, True
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refused(408, "timeout", "The request ended before its body did.")
                part = message.get("body", b"")
                size += len(part)
                if size <= MAX_BODY:
                    body += part
                more = message.get("more_body", False) and size <= MAX_READ
    except TimeoutError:
        raise Refused(408, "timeout", f"The body did not come within {BODY_SECONDS} seconds.") from None
    if size > MAX_BODY:
        raise Refused(413, "too_large", f"The body may have {MAX_BODY:,} bytes at most.")
    return bytes(body)


def _replay(body: bytes, receive) -> Callable:
    """A `receive` that gives the body that was read, and then waits for what else happens."""
    given = False

    async def again():
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _answer(send, refusal: Refused) -> None:
    body = problem(refusal.kind, refusal.message)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if refusal.status in (408, 413):
        headers.append((b"connection", b"close"))  # what is left of the body is not waited for
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
