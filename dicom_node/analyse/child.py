"""The model's process: it loads one model, then answers one analysis after another over its channel until the channel closes.

It knows nothing of the node beside it: no ledger, no archive, no patient. `pool` is the other side.
"""

import contextlib
import ctypes
import gc
import importlib
import importlib.util
import inspect
import operator
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from highdicom import ChannelDescriptor, Volume

from dicom_node.analyse import wire
from dicom_node.analyse.confine import confine
from dicom_node.domain import SEGMENT_AXIS, Cause, Findings, Unsuitable, cause_of

_PROGRESS_EVERY_S = 0.1
_SAID_MAX = 500  # characters of an exception's text that are passed on
_speaking = threading.Lock()  # a model may report progress from a thread of its own


class _Wrong(Exception):
    """The model's code did or returned what the contract does not allow; the text continues "the model …"."""


@dataclass(slots=True)
class _Loaded:
    analyse: Callable[..., Any]
    folder: Path
    precision: Callable[[], Any]  # a context for each analysis
    reports: bool  # whether `analyse` takes `progress`
    fractional: bool  # whether its segments are values from 0 to 1


def main(channel_number: int, parent: int) -> None:
    """Serve the pool on an inherited socket until it closes, in a process that was started for it."""
    confine(parent)
    serve(channel_number)


def serve(channel_number: int) -> None:
    """Serve the pool until it closes, in a process that is confined."""
    os.set_inheritable(channel_number, False)
    with socket.socket(fileno=channel_number) as channel, contextlib.suppress(EOFError, BrokenPipeError):
        asked = wire.receive(channel).said
        loaded = _attempt(channel, Path(asked["folder"]), lambda: _load(asked))
        if loaded is None:
            return
        gc.collect()
        gc.freeze()  # what lives as long as the process need not be looked at after every analysis
        _say(channel, {"event": "loaded", "bf16": loaded.precision is not contextlib.nullcontext})
        while True:
            _one(channel, loaded, wire.receive(channel))


def _one(channel: socket.socket, loaded: _Loaded, received: wire.Received) -> None:
    """Answer one request; whatever the analysis held is given back before the answer goes out, so that the pool sees the memory at rest."""
    job, file = received.said["job"], -1
    described: dict[str, Any] = {}
    answer = _attempt(channel, loaded.folder, lambda: _analyse(channel, loaded, received), job)
    if answer is None:
        return
    volumes = answer.pop("volumes")
    if volumes:
        file, described = wire.pack(volumes)
    del volumes
    _tidy()
    try:
        _say(channel, {"event": "done", "job": job, "findings": answer, "volumes": described}, file)
    finally:
        if file >= 0:
            os.close(file)


def _say(channel: socket.socket, said: Mapping[str, Any], file: int = -1) -> None:
    with _speaking:
        wire.send(channel, said, file)


def _attempt(channel: socket.socket, folder: Path, step: Callable[[], Any], job: int = 0) -> Any:
    """Return what a step returns, or tell the pool why it does not, and return None."""
    try:
        return step()
    except Unsuitable as declined:
        _say(
            channel, {"event": "unsuitable", "job": job, "why": str(declined)[:_SAID_MAX], "hint": declined.hint[:_SAID_MAX], "cause": declined.cause}
        )
    except _Wrong as wrong:
        _say(channel, {"event": "failed", "job": job, "why": str(wrong)[:_SAID_MAX]})
    except SystemExit as wish:
        _say(channel, {"event": "failed", "job": job, "why": f"called sys.exit({wish.code!r}){_where(wish, folder)}"})
    except BaseException as error:  # the process's outermost frame: a model may raise anything
        traceback.print_exc()
        said = f"{type(error).__name__}: {error}".removesuffix(": ")[:_SAID_MAX]
        ran_out = {"cause": Cause.RESOURCE} if _ran_out(error) else {}
        _say(channel, {"event": "failed", "job": job, "why": f"raised {said}{_where(error, folder)}", **ran_out})
    return None


def _ran_out(error: BaseException) -> bool:
    """Say whether memory or the disk did not suffice; torch has a class of its own for a device's memory."""
    return cause_of(error) is Cause.RESOURCE or type(error).__name__ == "OutOfMemoryError"


def _where(error: BaseException, folder: Path) -> str:
    """Return " at file:line" of the innermost line of the model's own code that the error passed through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(folder)]
    return f" at {Path(frames[-1].filename).relative_to(folder)}:{frames[-1].lineno}" if frames else ""


# -------------------------------------------------------------------------------------------------------------- loading


def _load(asked: Mapping[str, Any]) -> _Loaded:
    for library in asked["libraries"]:
        _library(library)
    folder = Path(asked["folder"])
    load = getattr(_module(folder, asked["name"]), "load", None)
    if not callable(load):
        raise _Wrong("has no function load(folder, device) in its analysis.py")
    _bound_torch(asked["threads"])
    arguments = [folder, asked["device"], Path(asked["weights"])]
    analyse = load(*arguments[: 3 if _takes(load, "weights") or len(inspect.signature(load).parameters) > 2 else 2])
    if not callable(analyse):
        raise _Wrong(f"returned from load a {type(analyse).__name__}, not the function analyse")
    _bound_torch(asked["threads"])
    return _Loaded(analyse, folder, _precision(asked["device"], asked["bf16"]), _takes(analyse, "progress"), asked["fractional"])


def _library(name: str) -> None:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise _Wrong(f"needs the library {name}, which is not installed here ({error})") from error


def _module(folder: Path, name: str) -> Any:
    """Import `analysis.py` as a package of its own, so that it finds its neighbours both as `import other` and as `from . import other`."""
    unique = f"dicom_node_model_{name.replace('-', '_')}"
    sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location(unique, folder / "analysis.py", submodule_search_locations=[str(folder)])
    if spec is None or spec.loader is None:
        raise _Wrong("has no analysis.py that can be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module
    spec.loader.exec_module(module)
    return module


def _takes(function: Callable[..., Any], name: str) -> bool:
    try:
        return name in inspect.signature(function).parameters
    except ValueError:  # compiled functions need not say
        return False


def _bound_torch(threads: int) -> None:
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)


def _precision(device: str, bf16: bool) -> Callable[[], Any]:
    """Return what makes the context of an analysis: bfloat16 autocast where the model allows it and the processor has it."""
    torch = sys.modules.get("torch")
    kind = device.partition(":")[0]
    if not bf16 or torch is None or kind not in ("cpu", "cuda"):
        return contextlib.nullcontext
    try:
        if kind == "cuda":
            able = torch.cuda.is_bf16_supported()
        else:  # without these instructions bfloat16 is emulated, and slower than float32
            able = torch.ops.mkldnn._is_mkldnn_bf16_supported() and torch.cpu._is_avx512_bf16_supported()
    except AttributeError:  # another torch names them otherwise
        able = False
    return (lambda: torch.autocast(kind, dtype=torch.bfloat16)) if able else contextlib.nullcontext


# ------------------------------------------------------------------------------------------------------------ analysing


def _analyse(channel: socket.socket, loaded: _Loaded, received: wire.Received) -> dict[str, Any]:
    try:
        inputs: dict[str, Any] = dict.fromkeys(received.said["without"]) | wire.unpack_shared(received.file, received.said["inputs"])
    finally:
        os.close(received.file)
    if loaded.reports:
        inputs["progress"] = _reporter(channel, received.said["job"])
    with loaded.precision():
        found = loaded.analyse(**inputs)
    if not isinstance(found, Findings):
        raise _Wrong(f"returned a {type(found).__name__}, not Findings")
    return _plain(found, _fractions if loaded.fractional else _lean)


def _reporter(channel: socket.socket, job: int) -> Callable[..., None]:
    last = 0.0

    def progress(fraction: float, sentence: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PROGRESS_EVERY_S:  # a model may call this for every window
            last = now
            _say(channel, {"event": "progress", "job": job, "fraction": min(max(float(fraction), 0.0), 1.0), "sentence": str(sentence)})

    return progress


def _plain(found: Findings, small: Callable[[Volume], Volume]) -> dict[str, Any]:
    """Turn findings into what JSON can carry; `contract` judges them later."""
    if not isinstance(found.segments, Volume | None):
        raise _Wrong(f"gave as segments a {type(found.segments).__name__}, not a Volume such as ct.with_array(mask)")
    volumes = {} if found.segments is None else {wire.SEGMENTS: small(found.segments)}
    for name, image in found.images.items():
        volumes[wire.IMAGE + _text(name, "the name of an image")] = _pixels(f"image '{name}'", image)
    for name, quantity in found.maps.items():
        volumes[wire.MAP + _text(name, "the name of a map")] = _pixels(f"map '{name}'", quantity)
    return {
        "volumes": volumes,
        "measurements": {_text(name, "the name of a measurement"): _measured(name, value) for name, value in found.measurements.items()},
        "evaluations": {
            _text(name, "the name of an evaluation"): _text(answer, f"evaluation '{name}'") for name, answer in found.evaluations.items()
        },
        "presentations": {_text(name, "the name of a presentation"): _shown(name, one) for name, one in found.presentations.items()},
        "keys": {_text(name, "the name of key images"): [_whole(f"keys '{name}'", index) for index in one] for name, one in found.keys.items()},
        "notes": [_text(note, "a note") for note in ((found.notes,) if isinstance(found.notes, str) else found.notes)],
    }


def _lean(segments: Volume) -> Volume:
    """Return the mask in the smallest type that holds its numbers."""
    array = np.asarray(segments.array)
    if array.ndim != 3:
        raise _Wrong(f"gave segments of {array.ndim} dimensions, not (slice, row, column) with segment numbers")
    if array.dtype.kind not in "biu":
        raise _Wrong(f"gave segments of type {array.dtype}, not boolean or segment numbers")
    if array.dtype.kind != "b" and array.itemsize > 1 and array.min() >= 0:
        array = array.astype(np.min_scalar_type(array.max()), copy=False)
    return segments.with_array(array) if array is not segments.array else segments


def _fractions(segments: Volume) -> Volume:
    """Return the fractions as bytes."""
    if segments.channel_descriptors not in ((), (ChannelDescriptor(SEGMENT_AXIS),)):
        axes = ", ".join(axis.keyword for axis in segments.channel_descriptors)
        raise _Wrong(f"gave segments by slice, row, column and {axes}: name the axis of the segments {SEGMENT_AXIS}, and give no other")
    try:
        return segments.with_array(wire.fractions(np.asarray(segments.array)))
    except ValueError as error:
        raise _Wrong(str(error)) from error


def _pixels(what: str, image: Any) -> Volume:
    """Return an image or a map in 16 bits where it is whole numbers of so many, else as float32: what a stored image holds, no more."""
    if not isinstance(image, Volume):
        raise _Wrong(f"gave as {what} a {type(image).__name__}, not a Volume such as ct.with_array(values)")
    array = np.asarray(image.array)
    if array.ndim != 3 or array.dtype.kind not in "iuf":
        raise _Wrong(f"gave as {what} {array.dtype} of {array.ndim} dimensions, not numbers by slice, row and column")
    if array.dtype.kind == "f" or array.itemsize > 2:
        array = array.astype(np.float32, copy=False)
    return image.with_array(array) if array is not image.array else image


def _measured(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return [[_whole(f"measurement '{name}'", number), _number(name, each)] for number, each in value.items()]  # JSON has no numbers as keys
    return _number(name, value)


def _whole(what: str, number: Any) -> int:
    try:
        return operator.index(number)
    except TypeError as error:
        raise _Wrong(f"gave {what} for {number!r}, which is no whole number") from error


def _shown(name: str, presentation: Any) -> dict[str, Any] | None:
    try:
        return wire.shown(presentation)
    except (TypeError, ValueError, AttributeError) as error:
        raise _Wrong(f"gave as presentation '{name}' what is no Presentation of numbers and Marks: {error}") from error


def _number(name: str, value: Any) -> float | None:
    if value is None:
        return None
    try:
        if isinstance(value, str | bytes):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:  # torch says RuntimeError
        raise _Wrong(f"gave for measurement '{name}' a {type(value).__name__}, not a number") from error


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise _Wrong(f"gave for {what} a {type(value).__name__}, not text")
    return str(value)


def _tidy() -> None:
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # not every C library has it
        ctypes.CDLL(None).malloc_trim(0)
