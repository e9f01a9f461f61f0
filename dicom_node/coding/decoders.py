"""Coded frames decoded by processes beside this one: by as many at once as there are cores, each of which may die.

Decoders hold Python's lock, so that threads would not help; and they are C code that reads what strangers send. A frame whose decoder dies is
tried once more by a fresh one, for it may have been the system that killed it; if that dies too, or is silent, the frame is refused.
The processes start with the first frame there is to decode and are kept for the next, as starting takes longer than most series.
"""

import atexit
import contextlib
import fcntl
import json
import mmap
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np

from dicom_node.domain import Unsuitable

_PROGRAM = Path(__file__).with_name("decode.py")
_MOST = 8  # processes
_AHEAD = 2  # frames that one has: it goes on with the next while what it made is taken
_FRAMES_EACH = 8  # fewer are not worth another process
_PATIENCE_S = 120.0  # that not one frame comes back
_ALIGN_BYTES = 4096
_SMALLEST_BYTES = 2**20
_TYPES = frozenset({"|u1", "|i1", "<u2", "<i2", "<u4", "<i4", ">u2", ">i2", ">u4", ">i4"})

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Coded:
    """One frame to be decoded."""

    data: bytes
    rows: int
    columns: int
    transfer_syntax_uid: str
    plugins: tuple[str, ...]  # of pydicom, best first
    options: dict[str, Any]  # for pydicom's decoder
    refused: Unsuitable  # what is raised when it cannot be decoded
    take: Callable[[Array], None]  # is given its values (row, column), of colours (row, column, 3), which live until it returns
    samples: int = 1  # of a pixel


@dataclass(slots=True, kw_only=True, eq=False)
class _Process:
    popen: subprocess.Popen[bytes]
    channel: Connection
    asked: deque[tuple[int, Coded, int]]  # number, frame and the slot it was given, in order

    def end(self) -> None:
        self.channel.close()
        self.popen.kill()
        self.popen.wait()


class Decoders:
    """The processes that decode, and the memory they share with this one; used by one thread at a time."""

    def __init__(self, program: Path = _PROGRAM) -> None:
        self._program = program
        self._lock = threading.Lock()
        self._processes: list[_Process] = []
        self._memory_fd = -1
        self._memory = mmap.mmap(-1, 1)
        self._slot_bytes = 0

    def decode(self, frames: Iterator[Coded], *, count: int, frame_bytes: int, coded_bytes: int) -> None:
        """Decode frames and have each one's values taken, in no certain order.

        count: of the frames, at most. frame_bytes, coded_bytes: of the largest, decoded and coded.

        Raises
        ------
        Unsuitable: of the frames that cannot be decoded, the first; and whatever `frames` and `take` raise of that kind.
        """
        with self._lock:
            try:
                self._ready(min(cores(), _MOST, 1 + count // _FRAMES_EACH), frame_bytes, coded_bytes)
                _Round(self, frames, frame_bytes, coded_bytes).run()
            except Unsuitable:
                raise  # once every answer that was due is in
            except BaseException:
                self._end()  # what they were asked is of no use to the next
                raise

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes there are."""
        return tuple(one.popen.pid for one in self._processes)

    def close(self) -> None:
        """End the processes; the next frame starts others."""
        with self._lock:
            self._end()

    def replace(self, dead: _Process) -> _Process:
        """End a process and start another in its place."""
        dead.end()
        fresh = self._start()
        self._processes[self._processes.index(dead)] = fresh
        return fresh

    def slot(self, number: int) -> tuple[int, memoryview]:
        """Return where in the shared memory a slot begins, and the slot."""
        at = number * self._slot_bytes
        return at, memoryview(self._memory)[at : at + self._slot_bytes]

    @property
    def processes(self) -> tuple[_Process, ...]:
        """The processes, in the order of their slots."""
        return tuple(self._processes)

    def _ready(self, count: int, frame_bytes: int, coded_bytes: int) -> None:
        self._slot_bytes = _aligned(frame_bytes) + _aligned(coded_bytes)
        if self._memory_fd < 0:
            self._memory_fd = _file_without_name()
        while len(self._processes) < count:
            self._processes.append(self._start())
        needed = max(_SMALLEST_BYTES, len(self._processes) * _AHEAD * self._slot_bytes)
        if needed > len(self._memory):
            os.ftruncate(self._memory_fd, needed)
            self._memory = mmap.mmap(self._memory_fd, needed)

    def _start(self) -> _Process:
        ours, theirs = socket.socketpair()
        with theirs:
            popen = subprocess.Popen(
                [sys.executable, "-P", "-W", "ignore", str(self._program), str(theirs.fileno()), str(self._memory_fd)],
                pass_fds=(theirs.fileno(), self._memory_fd),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # what decoders say there may quote the patient
                start_new_session=True,
            )
        return _Process(popen=popen, channel=Connection(ours.detach()), asked=deque())

    def _end(self) -> None:
        for one in self._processes:
            one.end()
        self._processes = []
        if self._memory_fd >= 0:
            os.close(self._memory_fd)
        self._memory_fd, self._memory = -1, mmap.mmap(-1, 1)


class _Round:
    """Some frames on their way through the processes."""

    def __init__(self, decoders: Decoders, frames: Iterator[Coded], frame_bytes: int, coded_bytes: int) -> None:
        self._decoders = decoders
        self._frames: Iterator[tuple[int, Coded]] | None = enumerate(frames)
        self._frame_bytes = frame_bytes
        self._coded_bytes = coded_bytes
        self._number = -1  # of the last frame there was
        self._failed: tuple[int, Unsuitable] | None = None  # the first frame that failed
        self._suspects: set[int] = set()  # frames whose decoder died

    def run(self) -> None:
        """Ask, take, until every frame is done, or every one before the first that failed."""
        free = deque((place, place * _AHEAD + ahead) for ahead in range(_AHEAD) for place in range(len(self._decoders.processes)))
        while True:
            while free and (frame := self._next()):
                place, slot = free.popleft()
                self._ask(self._decoders.processes[place], self._number, frame, slot)
            busy = [one for one in self._decoders.processes if one.asked]
            if not busy:
                break
            answered = wait([one.channel for one in busy], timeout=_PATIENCE_S)
            for one in busy:
                place = self._decoders.processes.index(one)
                if not answered or one.channel in answered:
                    free.extend((place, slot) for slot in self._hear(one, silent=not answered))
        if self._failed:
            raise self._failed[1]

    def _next(self) -> Coded | None:
        """Return the next frame, None after the last or once one failed."""
        if self._frames is None or self._failed:
            return None
        try:
            self._number, frame = next(self._frames)
        except StopIteration:
            self._frames = None
            return None
        except Unsuitable as error:
            self._fail(self._number + 1, error)
            return None
        if len(frame.data) > self._coded_bytes:
            self._fail(self._number, frame.refused)
            return None
        return frame

    def _ask(self, process: _Process, number: int, frame: Coded, slot: int) -> None:
        at, memory = self._decoders.slot(slot)
        memory[: len(frame.data)] = frame.data
        process.asked.append((number, frame, slot))
        asked = {
            "at": at,
            "size": len(frame.data),
            "to": at + _aligned(self._coded_bytes),
            "room": self._frame_bytes,
            "transfer_syntax_uid": frame.transfer_syntax_uid,
            "plugins": frame.plugins,
            "options": frame.options,
        }
        with contextlib.suppress(OSError):  # it died: that is seen where its answer is waited for
            process.channel.send_bytes(json.dumps(asked).encode())

    def _hear(self, process: _Process, *, silent: bool) -> list[int]:
        """Take one answer, and return the slots that are free again."""
        try:
            if silent:
                raise EOFError
            answer = process.channel.recv_bytes(64).decode()
        except (EOFError, OSError):
            return self._bury(process)
        number, frame, slot = process.asked.popleft()
        try:
            frame.take(self._values(frame, slot, answer))
        except Unsuitable as error:
            self._fail(number, error)
        return [slot]

    def _values(self, frame: Coded, slot: int, answer: str) -> Array:
        size = frame.rows * frame.columns * frame.samples
        if answer not in _TYPES or np.dtype(answer).itemsize * size > self._frame_bytes:
            raise frame.refused
        _, memory = self._decoders.slot(slot)
        shape = (frame.rows, frame.columns, *((frame.samples,) if frame.samples > 1 else ()))
        return np.frombuffer(memory, answer, size, _aligned(self._coded_bytes)).reshape(shape)

    def _bury(self, process: _Process) -> list[int]:
        """Have a fresh process do what a dead one left, but for a frame that was the death of two."""
        number, frame, _ = process.asked[0]
        left = list(process.asked)
        fresh = self._decoders.replace(process)
        if number in self._suspects:
            self._fail(number, frame.refused)
            return [slot for _, _, slot in left]  # the frames after it: nobody needs them now
        self._suspects.add(number)
        for one in left:
            self._ask(fresh, *one)
        return []

    def _fail(self, number: int, error: Unsuitable) -> None:
        if self._failed is None or number < self._failed[0]:
            self._failed = (number, error)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _aligned(size: int) -> int:
    return -(-size // _ALIGN_BYTES) * _ALIGN_BYTES


def _file_without_name() -> int:
    """Return a file that no path leads to: in memory, or on disk where the system has no such."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("dicom-node decoders", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)  # nobody makes it smaller under another's feet
    else:
        with tempfile.TemporaryFile() as held:
            file = os.dup(held.fileno())
    os.ftruncate(file, _SMALLEST_BYTES)
    return file


DECODERS = Decoders()  # of this process, whichever thread assembles
atexit.register(DECODERS.close)
