"""The node's handle on one model's process: start it, speak with it, hear its output, weigh it, end it, and say how it died."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import structlog

from dicom_node.analyse import wire
from dicom_node.analyse.confine import environment

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
_CRASHED_AT = re.compile(r'File "([^"]+)", line (\d+)')  # how Python's fault handler names a frame
_log = structlog.get_logger()


class Process:
    """One process that holds one model, or none yet.

    Start it from a thread that lives as long as the node: the system ends the process with the thread that started it.
    """

    def __init__(self, threads: int) -> None:
        self._channel, theirs = socket.socketpair()
        command = [sys.executable, "-P", "-X", "faulthandler", "-c", _START, _ROOT, str(theirs.fileno()), str(os.getpid())]
        try:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                env=environment(os.environ, threads),
                start_new_session=True,
            )
        except BaseException:
            self._channel.close()
            raise
        finally:
            theirs.close()
        self._channel.settimeout(_MESSAGE_S)
        self._bound: dict[str, str] = {}
        self._lines = _LINES_PER_JOB
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        self._listener = threading.Thread(target=self._listen, name=f"output of {self.pid}", daemon=True)
        self._listener.start()

    @property
    def pid(self) -> int:
        """The process's number, and that of its group."""
        return self._popen.pid

    @property
    def dead(self) -> bool:
        """Whether it has ended; it stays unreaped until `stop`, so that its number cannot come to mean another process."""
        if self._popen.returncode is not None:
            return True
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

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
        pipe = self._popen.stdout
        assert pipe is not None  # noqa: S101 - for mypy: Popen was asked for a pipe
        with pipe:
            for line in iter(lambda: pipe.readline(_LINE_BYTES), b""):
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
        try:
            code = self._popen.wait(timeout=2)
        except subprocess.TimeoutExpired:
            return "closed its channel to the node and was stopped"
        self._listener.join(timeout=1)
        if code >= 0:
            return f"ended itself with exit code {code}"
        where = "".join(self._crashed_at(folder)) if -code in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL) else ""
        cause = ", probably by the system for lack of memory" if -code == signal.SIGKILL else ""
        return f"was killed by signal {-code} ({signal.Signals(-code).name}){cause}{where}"

    def _crashed_at(self, folder: Path) -> list[str]:
        frames = [found for line in self._last if (found := _CRASHED_AT.search(line)) and Path(found[1]).is_relative_to(folder)]
        return [f" at {Path(frame[1]).relative_to(folder)}:{frame[2]}" for frame in frames[:1]]

    def kill(self) -> None:
        """End the process and all that it started in its group, at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def stop(self) -> None:
        """End the process and give back what the node held for it; nobody may use it any more."""
        self.kill()
        self._popen.wait()
        self._channel.close()
        self._listener.join(timeout=1)


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
