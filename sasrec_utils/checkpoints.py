"""Trained models and unfinished runs on disk: files that run no code, never half-written, and checked when read.

A model folder holds `model.safetensors` (weights; their header repeats the shape of the model) and `config.json` (that
shape, and what else is known of the model). While it is being trained there is also `resume.safetensors`: the weights
as they are, the weights at their best, and the optimiser's moments. All files are written beside and renamed, tensor
by tensor from where they lie in memory: a checkpoint needs no memory of its own. Under `torchrun` process 0 writes
alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sasrec_utils.features import TrackFeatures
from sasrec_utils.model import SASRec, SASRecConfig
from sasrec_utils.mpd.files import lock, remove_leftovers, write_beside

__all__ = ["CheckpointError", "RunState", "is_writer", "load", "load_weights", "save", "writing"]

FORMAT = 2  # of a model folder
LONGEST = 1 << 16  # positions of a model that is read: more than any has, and few enough to allocate for
DTYPES = {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
}


class CheckpointError(ValueError):
    """A model directory that cannot be used: what is wrong, in which file, and what to do."""


# Models ---------------------------------------------------------------------------------------------------------------


def save(directory: str | os.PathLike, model: SASRec, extra: dict | None = None) -> None:
    """Write `model.safetensors` (weights) and `config.json` (shape and `extra`) into `directory`.

    A kill leaves the old file or the new one. Neither can run code when it is loaded. Raises OSError with the file's
    name when the disk is full. Under `torchrun` only process 0 writes.
    """
    if not is_writer():
        return
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    about = {"format": FORMAT, "kind": "sasrec", "model": asdict(model.config), **(extra or {})}
    # The shape goes into the weights' own header too: a config.json of another run beside it is then found out.
    write_tensors(directory / "model.safetensors", model.state_dict(), {"model": json.dumps(asdict(model.config))})
    write_bytes(directory / "config.json", (json.dumps(about, indent=1) + "\n").encode())


def load(directory: str | os.PathLike) -> tuple[SASRec, dict]:
    """The model saved in `directory`, on the CPU, and its `config.json`.

    Raises CheckpointError when a file is missing, damaged (every weight is covered by a checksum), of another format or
    of another run. Draws no random numbers: what is drawn after it is what would have been drawn without it.
    """
    directory = Path(directory)
    about = _read_config(directory / "config.json")
    tensors, header = read_tensors(directory / "model.safetensors")
    try:
        its_shape = json.loads(header["model"])
    except (KeyError, ValueError) as error:
        raise _misfit(directory, "they do not say which shape they have") from error
    if its_shape != about["model"]:
        raise CheckpointError(
            f"{directory}: config.json and model.safetensors come from different runs; train the model again."
        )
    try:
        config = SASRecConfig(**about["model"])
        known = {
            "artist_of": _ids_of(tensors, "artist"),
            "album_of": _ids_of(tensors, "album"),
            "features": _features_of(config, tensors),
        }
        _check_shapes(config, known, tensors)
        with torch.random.fork_rng(devices=[]):  # a new model sets the seed
            model = SASRec(config, **known)
        model.load_state_dict(tensors)
    except (RuntimeError, TypeError, ValueError, KeyError, OverflowError) as error:
        raise _misfit(directory, " ".join(str(error).split())[:200]) from error
    model.eval()
    return model, about


def load_weights(directory: str | os.PathLike, model: SASRec) -> None:
    """Load the weights saved in `directory` into `model`, which has their shape."""
    model.load_state_dict(read_tensors(Path(directory) / "model.safetensors")[0])


def _misfit(directory: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{directory}: the weights do not fit the settings ({reason}); train the model again.")


def _ids_of(tensors: dict[str, Tensor], feature: str):
    """The artist or album of each track, as the file has it; None if it has none."""
    ids = tensors.get(f"{feature}_of")
    return None if ids is None else ids.numpy()


def _features_of(config: SASRecConfig, tensors: dict[str, Tensor]) -> TrackFeatures:
    """What is known of the tracks beside their ids, as the file has it: a model needs no table of features again."""
    categories = {name: _ids_of(tensors, f"is_{name}") for name in config.categories}
    numbers = tensors["numbers"].numpy() if config.n_numbers else np.zeros((0, 0), np.float32)
    return TrackFeatures(categories, numbers)


def _check_shapes(config: SASRecConfig, known: dict, tensors: dict[str, Tensor]) -> None:
    """Raise ValueError if the weights are not those of such a model, before memory or time is spent on it."""
    blocks = {name.split(".")[1] for name in tensors if name.startswith("blocks.")}
    if len(blocks) != config.blocks:
        raise ValueError(f"{len(blocks)} blocks instead of {config.blocks}")
    if config.max_len > LONGEST:
        raise ValueError(f"{config.max_len} positions are more than {LONGEST}")
    with torch.random.fork_rng(devices=[]), torch.device("meta"):  # a model without memory, for its shapes alone
        wanted = SASRec(config, **known).state_dict()
    for name in sorted(wanted.keys() ^ tensors.keys()):
        raise ValueError(f"{name} is {'missing' if name in wanted else 'not a part of it'}")
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise ValueError(f"{name} has shape {list(tensor.shape)} instead of {list(wanted[name].shape)}")


def _read_config(path: Path) -> dict:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: there is no such file; train a model there first.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error}); train the model again.") from error
    if not isinstance(about, dict):
        raise CheckpointError(f"{path}: holds no settings; train the model again.")
    if about.get("kind") != "sasrec" or "model" not in about:
        raise CheckpointError(f"{path}: is not the settings of a SASRec of this project; train one with `train`.")
    if about.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: has format {about.get('format')}, this version reads {FORMAT}; train the model again."
        )
    return about


# Runs that can go on --------------------------------------------------------------------------------------------------


@dataclass
class RunState:
    """Where a run stands after an epoch: a row of history for each, the best NDCG@10 and the epoch that had it."""

    history: list[dict]
    best: float
    best_epoch: int


def write_run(directory: Path, model: SASRec, optimizer, settings: dict, state: RunState) -> None:
    """Write `resume.safetensors`: one rename makes weights, best weights, moments and history valid together.

    `settings`: what a run that goes on must share with this one, see `read_run`. The best weights are the model's if
    the last epoch was the best, else those of `model.safetensors`: no copy of them is kept in memory.
    """
    now = model.state_dict()
    best = now if state.best_epoch == len(state.history) else read_tensors(directory / "model.safetensors")[0]
    tensors = {f"now.{name}": value for name, value in now.items()}
    tensors |= {f"best.{name}": value for name, value in best.items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{name}": value for name, value in moments.items()}
    about = {"settings": settings, "model": asdict(model.config), **asdict(state)}
    write_tensors(directory / "resume.safetensors", tensors, {"run": json.dumps(about)})


def read_run(directory: Path, model: SASRec, optimizer, settings: dict, extra: dict) -> RunState:
    """Load the run of `directory` into `model` and `optimizer`; returns where it stands.

    `model.safetensors` holds the run's best weights afterwards, whatever a kill has left there (`extra` as in `save`).
    Raises CheckpointError if the file is damaged, or if the run had other settings, another shape or other playlists.
    """
    path = directory / "resume.safetensors"
    tensors, header = read_tensors(path)
    with _no_run(path):
        about = json.loads(header["run"])
        state = RunState(list(about["history"]), float(about["best"]), int(about["best_epoch"]))
        its_settings, its_shape = dict(about["settings"]), dict(about["model"])
    _check_same(path, {**asdict(model.config), **settings}, {**its_shape, **its_settings})
    best = _part(tensors, "best.")
    with _no_run(path):
        model.load_state_dict(best)
    if is_writer() and not _holds(directory, best):
        save(directory, model, extra)
    with _no_run(path):
        model.load_state_dict(_part(tensors, "now."))
        _load_moments(optimizer, _part(tensors, "adam."))
    return state


@contextlib.contextmanager
def _no_run(path: Path) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: is not a run that can be continued; start anew without resuming.") from error


def _check_same(path: Path, mine: dict, its: dict) -> None:
    for name, value in mine.items():
        if value == its.get(name):
            continue
        if name == "playlists":  # a fingerprint: its value says nothing to anyone
            raise CheckpointError(
                f"{path}: was trained on other playlists; give the same ones, or start anew without resuming."
            )
        raise CheckpointError(
            f"{path}: was trained with {name} = {its.get(name)}, not {value}; "
            "use the same settings, or start anew without resuming."
        )


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _load_moments(optimizer, tensors: dict[str, Tensor]) -> None:
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        moments.setdefault(int(index), {})[name] = value.clone()  # the file is let go of
    kinds = [(p, group.get("rows", False)) for group in optimizer.param_groups for p in group["params"]]
    for index, (parameter, rows) in enumerate(kinds):
        names, shape = ("exp_avg", "exp_avg_sq"), parameter.shape
        if rows:  # of `optimizer.RowAdamW`
            names, shape = ("square", "last"), parameter.shape[:1]
        if {moments[index][name].shape for name in names} != {shape} or moments[index]["step"].numel() != 1:
            raise ValueError(f"moments of parameter {index} do not fit it")
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})


def _holds(directory: Path, weights: dict[str, Tensor]) -> bool:
    """Whether the model folder is whole and has these weights."""
    try:
        _read_config(directory / "config.json")
        there, _ = read_tensors(directory / "model.safetensors")
    except CheckpointError:
        return False
    return there.keys() == weights.keys() and all(torch.equal(there[name], weights[name]) for name in weights)


# Who writes -----------------------------------------------------------------------------------------------------------


def is_writer() -> bool:
    """Whether this process is the one that writes: process 0 of a `torchrun`, and any other that runs alone."""
    return int(os.environ.get("RANK", 0)) == 0


_WRITING: set[Path] = set()  # folders that this process holds the lock of


@contextlib.contextmanager
def writing(directory: str | os.PathLike) -> Iterator[None]:
    """One process at a time trains into `directory`: a second one gets a CheckpointError at once, not a mixed folder.

    May be entered again inside, by the same process. The lock is a file beside the folder, `.name.lock`.
    """
    directory = Path(directory).resolve()
    if not is_writer() or directory in _WRITING:
        yield
        return

    def refuse() -> None:
        raise CheckpointError(
            f"{directory}: another training is writing there; wait until it has ended, or choose another name."
        )

    directory.mkdir(parents=True, exist_ok=True)
    with lock(directory.with_name(f".{directory.name}.lock"), on_wait=refuse):
        _WRITING.add(directory)
        try:
            remove_leftovers(directory)
            yield
        finally:
            _WRITING.discard(directory)


# Tensors on disk ------------------------------------------------------------------------------------------------------


def write_tensors(path: Path, tensors: dict[str, Tensor], about: dict[str, str]) -> None:
    """Write a safetensors file with `about` and a checksum of everything in its header.

    Our own writer, because the library's takes no tensor twice (the best weights may be those of now) and no checksum
    that is known only when all is written. Tensors go to the file from where they are, one by one.
    """
    names = _order(tensors)
    checksum = _start(about, tensors)
    header: dict[str, dict] = {"__metadata__": {**about, "checksum": f"{checksum:08x}"}}
    end = 0
    for name in names:
        begin, end = end, end + tensors[name].numel() * tensors[name].element_size()
        shape = list(tensors[name].shape)
        header[name] = {"dtype": DTYPES[tensors[name].dtype], "shape": shape, "data_offsets": [begin, end]}
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_beside(path) as beside, beside.open("wb") as file:
        file.write(_head(header))
        for name in names:
            content = _bytes(tensors[name])
            checksum = zlib.crc32(content, checksum)
            file.write(content)
        header["__metadata__"]["checksum"] = f"{checksum:08x}"
        file.seek(0)
        file.write(_head(header))  # as long as before


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file that `write_tensors` wrote, and its `about`. Raises CheckpointError for any other file.

    The tensors are views of the file, read as they are used: copy what is to stay.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors, about = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: there is no such file; train a model there first.") from error
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: is damaged or no safetensors file ({error}); train the model again.") from error
    expected = about.pop("checksum", None)
    checksum = _start(about, tensors)
    for name in _order(tensors):
        checksum = zlib.crc32(_bytes(tensors[name]), checksum)
    if expected != f"{checksum:08x}":
        raise CheckpointError(f"{path}: is damaged, its checksum is not that of its content; train the model again.")
    return tensors, about


def write_bytes(path: Path, content: bytes) -> None:
    """Write a small file, beside and renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_beside(path) as beside:
        beside.write_bytes(content)


def _order(tensors: dict[str, Tensor]) -> list[str]:
    """Large numbers first, so that each stands at a multiple of its own size."""
    return sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))


def _start(about: dict[str, str], tensors: dict[str, Tensor]) -> int:
    """Checksum of what the header says."""
    shapes = {name: [str(tensors[name].dtype), *tensors[name].shape] for name in _order(tensors)}
    return zlib.crc32(json.dumps([about, shapes], sort_keys=True).encode())


def _head(header: dict) -> bytes:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _bytes(tensor: Tensor) -> memoryview:
    """The bytes of a tensor, without a copy if it is on the CPU."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
