"""The node's handle on one model's process: start it, speak with it, hear its output, weigh it, end it, and say how it died."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from multiprocessing.connection import wait
from pathlib import Path
from typing import IO, Any, Protocol, Self

import structlog

from dicom_node.analyse import wire
from dicom_node.analyse.confine import environment
from dicom_node.analyse.forkserver import ForkServer

_ROOT = str(Path(__file__).parents[2])
_START = """
import sys
root, channel, parent = sys.argv[1:]
if root not in sys.path:
    sys.path.insert(0, root)
from dicom_node.analyse.child import main
main(int(channel), int(parent))
"""
_MESSAGE_S = 30  # once a message has begun, so long until its end
_LINE_BYTES = 1000
_LINES_PER_JOB = 200  # of a model's output that are logged
_LAST_LINES = 60  # kept to find the place of a crash in
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20
LACK_OF_MEMORY = ", probably by the system for lack of memory"
_CRASHED_AT = re.compile(r'File "([^"]+)", line (\d+)')  # how Python's fault handler names a frame
_log = structlog.get_logger()


class _Body(Protocol):
    """The process as the system sees it. It stays unreaped until `code`, so that its number cannot come to mean another process."""

    pid: int
    sentinel: int  # a file that is readable once it has ended; -1 where there is none

    def ended(self, within_s: float) -> bool:
        """Wait for its end; say whether it has come."""

    def code(self) -> int | None:
        """Wait for its end and return its exit code (negative: the signal that ended it); None when nobody knows it."""


class _Started:
    """Started by the node itself."""

    def __init__(self, popen: "subprocess.Popen[bytes]") -> None:
        self._popen = popen
        self.pid = popen.pid
        self.sentinel = os.pidfd_open(popen.pid) if hasattr(os, "pidfd_open") else -1

    def ended(self, within_s: float) -> bool:
        until = time.monotonic() + within_s
        while self._popen.returncode is None and os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() >= until:
                return False
            time.sleep(0.01)
        return True

    def code(self) -> int | None:
        if self._popen.returncode is None and self.sentinel >= 0:
            os.close(self.sentinel)
            self.sentinel = -1
        return self._popen.wait()


class _Forked:
    """Forked by the server, which is its parent and reaps it when the node says so."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self._server = server
        self._code: int | None = None
        self.pid = pid
        self.sentinel = os.pidfd_open(pid)

    def ended(self, within_s: float) -> bool:
        return self.sentinel < 0 or bool(wait([self.sentinel], within_s))

    def code(self) -> int | None:
        if self.sentinel >= 0:
            wait([self.sentinel])
            os.close(self.sentinel)
            self.sentinel = -1
            with contextlib.suppress(EOFError):  # the server died, and this one with it
                self._code = self._server.reap(self.pid)
        return self._code


class Process:
    """One process that holds one model, or none yet."""

    def __init__(self, body: _Body, channel: socket.socket, output: IO[bytes]) -> None:
        self._body = body
        self._channel = channel
        self._channel.settimeout(_MESSAGE_S)
        self._output = output
        self._reaped = False
        self._bound: dict[str, str] = {}
        self._lines = _LINES_PER_JOB
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        self._listener = threading.Thread(target=self._listen, name=f"output of {self.pid}", daemon=True)
        self._listener.start()

    @classmethod
    def started(cls, threads: int) -> Self:
        """Start a process of its own, from a thread that lives as long as the node: the system ends the process with the thread that started it.

        Raises
        ------
        OSError: the system gives no further process.
        """
        channel, theirs = socket.socketpair()
        command = [sys.executable, "-P", "-X", "faulthandler", "-c", _START, _ROOT, str(theirs.fileno()), str(os.getpid())]
        try:
            popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                env=environment(os.environ, threads),
                start_new_session=True,
            )
        except BaseException:
            channel.close()
            raise
        finally:
            theirs.close()
        assert popen.stdout is not None  # noqa: S101 - for mypy: Popen was asked for a pipe
        return cls(_Started(popen), channel, popen.stdout)

    @classmethod
    def forked(cls, server: ForkServer) -> Self:
        """Fork a process from one that has the libraries.

        Raises
        ------
        EOFError: the server is gone.
        OSError: the system gives no further process.
        """
        channel, theirs = socket.socketpair()
        output, end = os.pipe()
        try:
            body = _Forked(server, server.fork(theirs.fileno(), end))
        except BaseException:
            channel.close()
            os.close(output)
            raise
        finally:
            theirs.close()
            os.close(end)
        return cls(body, channel, open(output, "rb"))  # noqa: SIM115 - closed by the thread that listens

    @property
    def pid(self) -> int:
        """The process's number, and that of its group."""
        return self._body.pid

    @property
    def sentinel(self) -> int:
        """A file that is readable once the process has ended; -1 where the system has none."""
        return self._body.sentinel

    @property
    def dead(self) -> bool:
        """Whether it has ended."""
        return self._body.ended(0)

    # ------------------------------------------------------------------------------------------------------- speaking

    def send(self, said: Mapping[str, Any], file: int = -1) -> None:
        """Send a request.

        Raises
        ------
        EOFError: the process is gone.
        """
        try:
            wire.send(self._channel, said, file)
        except OSError as error:
            raise EOFError("the channel is closed") from error

    def receive(self, within_s: float) -> wire.Received | None:
        """Return the next message, or None when none comes in time.

        Raises
        ------
        EOFError: the process is gone.
        """
        if wait([self._channel], within_s):
            return wire.receive(self._channel)
        if self.dead and not wait([self._channel], 0):  # a process that it started may hold the channel open
            raise EOFError("the process has ended")
        return None

    def name(self, **bound: str) -> None:
        """Say what its output is to be logged under, from now on; the allowance of lines starts anew."""
        self._bound, self._lines = bound, _LINES_PER_JOB

    def _listen(self) -> None:
        """Read what the model prints, for as long as it lives, so that it never waits for a reader; log the first lines of each job."""
        with self._output:
            for line in iter(lambda: self._output.readline(_LINE_BYTES), b""):
                text = "".join(c if c.isprintable() else " " for c in line.decode(errors="replace")).rstrip()
                self._last.append(text)
                self._lines -= 1
                if self._lines >= 0 and text:
                    _log.info("model_said", pid=self.pid, line=text, **self._bound)
                elif self._lines == -1:
                    _log.info("model_said_more", pid=self.pid, note=f"only the first {_LINES_PER_JOB} lines of each job are logged", **self._bound)

    # ------------------------------------------------------------------------------------------------------- watching

    def used_mb(self) -> float:
        """Return the memory that the process and those it started hold; 0 where the system has no /proc."""
        family = _family(self.pid)
        with contextlib.suppress(OSError, ValueError, IndexError):
            if len(family) > 1:  # pages that a family shares count once
                return sum(_proportional_mb(pid) for pid in family)
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE_MB
        return 0.0

    def death(self, folder: Path) -> str:
        """Return how the process ended, continuing "the model's process …"; where it crashed, with the line of the model's code."""
        if not self._body.ended(2):
            return "closed its channel to the node and was stopped"
        code = self._reap()
        self._listener.join(timeout=1)
        if code is None:
            return "ended with the process that it was forked from"
        if code >= 0:
            return f"ended itself with exit code {code}"
        where = "".join(self._crashed_at(folder)) if -code in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL) else ""
        cause = LACK_OF_MEMORY if -code == signal.SIGKILL else ""
        return f"was killed by signal {-code} ({signal.Signals(-code).name}){cause}{where}"

    def _crashed_at(self, folder: Path) -> list[str]:
        frames = [found for line in self._last if (found := _CRASHED_AT.search(line)) and Path(found[1]).is_relative_to(folder)]
        return [f" at {Path(frame[1]).relative_to(folder)}:{frame[2]}" for frame in frames[:1]]

    def kill(self) -> None:
        """End the process and all that it started in its group, at once."""
        if self._reaped:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):  # just forked, it may not have a group of its own yet
            os.kill(self.pid, signal.SIGKILL)

    def stop(self) -> None:
        """End the process and give back what the node held for it; nobody may use it any more."""
        self.kill()
        self._reap()
        self._channel.close()
        self._listener.join(timeout=1)

    def _reap(self) -> int | None:
        """Wait for its end, end what it started in its group as long as the group is certainly its own, and return its exit code."""
        if not self._reaped:
            self._body.ended(_MESSAGE_S)
            self.kill()
            self._reaped = True
        return self._body.code()


def _family(pid: int) -> list[int]:
    found = [pid]
    for one in found:  # grows while it is walked
        for path in Path(f"/proc/{one}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found.extend(int(child) for child in path.read_text().split())
    return found


def _proportional_mb(pid: int) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0
