"""Starting and stopping: a server in this process (`serve`), or in one of its own for as long as a block lasts."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from sasrec_utils.serving.app import Served, create_app
from sasrec_utils.serving.guard import log

__all__ = ["TOKEN", "Running", "running_server", "serve"]

TOKEN = "SASREC_TOKEN"  # the environment variable; on a command line everybody on the machine could read it
LEAST_TOKEN = 16  # characters
TO_THE_END = 20  # seconds that requests under way have after the signal to stop
MOST = 900  # connections at once; many systems give a process 1,024 open files


def serve(
    data_dir: str | os.PathLike, name: str = "default", host: str = "127.0.0.1", port: int = 8000, rerank: bool = True
) -> None:
    """Serve a model until SIGTERM or Ctrl-C; requests under way are answered first. SIGHUP loads the model again.

    A signal, because nobody who only reaches the port can give it, and because a watcher of the folder would serve
    a model in the middle of its training. Port 0 takes a free one. A bearer token is read from the environment variable
    SASREC_TOKEN; ValueError if there is none and `host` is no loopback address. Raises CheckpointError and OSError.
    """
    token = os.environ.get(TOKEN) or None
    if token is None and not is_loopback(host):
        raise ValueError(
            f"{host} can be reached from other machines: set the environment variable {TOKEN} to a secret that callers "
            "send as 'Authorization: Bearer …', or stay on 127.0.0.1."
        )
    if token is not None and not re.fullmatch(rf"[!-~]{{{LEAST_TOKEN},}}", token):
        raise ValueError(f"{TOKEN} must be {LEAST_TOKEN} letters, digits or signs or more, without blanks.")
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is a model to be replaced
    logging.getLogger("uvicorn").addHandler(_Lines(logging.WARNING))
    with _bound(host, port) as listening:
        served = Served(data_dir, name, rerank)
        app = create_app(served, token)
        config = uvicorn.Config(
            app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=TO_THE_END,
            proxy_headers=False, limit_concurrency=MOST,
        )  # fmt: skip
        address, taken = listening.getsockname()[:2]
        shown = f"[{address}]" if ":" in address else address
        log("serving", url=f"http://{shown}:{taken}", model=served.now.version, tracks=len(served.now.recommender))
        asyncio.run(_run(uvicorn.Server(config), listening, served))
        log("stopped")


class _Lines(logging.Handler):
    """What uvicorn has to say, in lines as all others are."""

    def emit(self, record: logging.LogRecord) -> None:
        log(record.name, level=record.levelname, message=record.getMessage())


async def _run(server: uvicorn.Server, listening: socket.socket, served: Served) -> None:
    if hasattr(signal, "SIGHUP"):  # Windows has none: start the server again there
        tasks = set()  # a task that nobody holds may be collected

        def reload() -> None:
            tasks.add(asyncio.ensure_future(served.reload()))

        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
    # uvicorn gives the signal that stopped it to whoever had it before: stopping is no accident here.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    await server.serve([listening])


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address. A name counts as what it resolves to, all of it."""
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(ipaddress.ip_address(address.split("%")[0]).is_loopback for address in found)


@contextlib.contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    """A socket at this address: taken before the model is loaded, so that a port in use is told at once."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    # With its protocol: asyncio turns Nagle's algorithm off only where it is TCP's. An answer goes out in two parts,
    # and the second would else wait 40 ms for the client to confirm the first.
    with socket.socket(family, kind, protocol) as listening:
        if os.name != "nt":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(address)
            listening.listen()
        except OSError as error:
            reason = f"{host}:{port} cannot be used ({error.strerror})"
            raise OSError(f"{reason}: choose another --host or --port.") from error
        yield listening


# --- in a process of its own ------------------------------------------------------------------------------------------


@dataclass
class Running:
    """A server in a process of its own. `url`: where it is. `process`: it. `log`: the file of its lines."""

    url: str
    process: subprocess.Popen
    log: Path
    token: str | None = None

    def ask(self, path: str, body: dict | None = None, timeout: float = 30) -> dict:
        """The answer to a GET, or with `body` to a POST of it as JSON; what went wrong is an answer, too."""
        headers = {"content-type": "application/json"}
        if self.token is not None:
            headers["authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return json.load(error)

    def stop(self, seconds: float = 30) -> int:
        """Ask it to stop and wait for its end; its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


@contextlib.contextmanager
def running_server(
    data_dir: str | os.PathLike,
    name: str = "default",
    *,
    port: int = 0,
    token: str | None = None,
    rerank: bool = True,
    seconds: float = 120,
) -> Iterator[Running]:
    """`sasrec serve` in a process of its own, ready to be asked, stopped at the end of the block.

        with running_server("data") as server:
            server.ask("/recommendations", {"tracks": ["Artist - Title"]})

    Port 0 takes a free one. RuntimeError with what the server said if it ends before it is ready, or is not ready after
    `seconds`. Taught in notebook 10.
    """
    command = [sys.executable, "-m", "sasrec_utils", "serve", "--data-dir", str(data_dir), "--name", name]
    command += ["--port", str(port), *([] if rerank else ["--no-rerank"])]
    environment = {name: value for name, value in os.environ.items() if name != TOKEN}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), environment.get("PYTHONPATH", "")])
    if token is not None:
        environment[TOKEN] = token
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        said = Path(folder) / "log.jsonl"
        with said.open("wb") as file:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment)
        try:
            server = Running(_wait(process, said, seconds), process, said, token)
            yield server
        finally:
            Running("", process, said).stop()


def _wait(process: subprocess.Popen, said: Path, seconds: float) -> str:
    """The address of the server, once it answers there."""
    end = time.monotonic() + seconds
    url = ""
    while process.poll() is None and time.monotonic() < end:
        if not url:
            lines = said.read_text(encoding="utf-8", errors="replace").splitlines()
            found = [json.loads(line) for line in lines if line.startswith('{"time"') and '"serving"' in line]
            url = found[0]["url"] if found else ""
        if url:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5):
                return url
        time.sleep(0.05)
    process.kill()
    process.wait()
    last = (said.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["it said nothing"])[-1]
    raise RuntimeError(f"the server did not start: {last}")
