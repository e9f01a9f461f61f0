"""A process that has imported what a model's code needs, and forks the model's process on request: in milliseconds, its memory shared.

It has one thread, runs no model's code and holds no patient's data. It speaks with the node over a socket of packets: "fork", with the new
process's channel and output, is answered by a process number, "reap N" by an exit code. It reaps a process only when asked to, so that no number
comes to mean another process while the node uses it.
"""

import ast
import contextlib
import gc
import importlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from functools import lru_cache
from multiprocessing.connection import wait
from pathlib import Path

from dicom_node.analyse.confine import confine, die_with, environment

AVAILABLE = sys.platform == "linux" and hasattr(os, "pidfd_open")  # elsewhere libraries do not bear a fork, or the node could not watch the child

_ROOT = str(Path(__file__).parents[2])
_START = """
import sys
root, control, parent, *libraries = sys.argv[1:]
if root not in sys.path:
    sys.path.insert(0, root)
from dicom_node.analyse.forkserver import main
main(int(control), int(parent), libraries)
"""
_ANSWER_S = 30.0
_HAS_ANYWAY = sys.stdlib_module_names | {"dicom_node", "highdicom", "numpy", "pydicom"}


class ForkServer:
    """The node's handle on the process that forks.

    Start it from a thread that lives as long as the node: the system ends the process with the thread that started it, and its children with it.
    """

    def __init__(self, threads: int, libraries: Sequence[str]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(_ANSWER_S)
        self._lock = threading.Lock()
        self._fit: bool | None = None
        command = [sys.executable, "-P", "-X", "faulthandler", "-c", _START, _ROOT, str(theirs.fileno()), str(os.getpid()), *libraries]
        nowhere = subprocess.DEVNULL  # what fails here fails again in the model's own process, where it is heard
        try:
            self._popen = subprocess.Popen(
                command,
                stdin=nowhere,
                stdout=nowhere,
                stderr=nowhere,
                pass_fds=[theirs.fileno()],
                env=environment(os.environ, threads),
                start_new_session=True,
            )
        except BaseException:
            self._control.close()
            raise
        finally:
            theirs.close()

    def fit(self, within_s: float) -> bool | None:
        """Say whether it can fork; None when it has not yet imported all within the time.

        It cannot when a library has started threads, or the graphics processor, which do not survive a fork; or when an import has killed it.
        """
        with self._lock:
            if self._fit is None and wait([self._control], within_s):
                self._fit = self._received() == b"fit"
            return self._fit

    @property
    def lost(self) -> bool:
        """Whether it could fork and has died since: another may be started in its place."""
        return bool(self._fit) and self._popen.poll() is not None

    def fork(self, channel: int, output: int) -> int:
        """Fork a process that serves a channel and prints to a file; return its number.

        Raises
        ------
        EOFError: the server is gone.
        OSError: the system gives no further process.
        """
        with self._lock:
            number = self._asked(b"fork", [channel, output])
        if number < 0:
            raise OSError(-number, os.strerror(-number))
        return number

    def reap(self, pid: int) -> int:
        """Return the exit code of a process that has ended (negative: the signal that ended it), and free its number.

        Raises
        ------
        EOFError: the server is gone, and the code with it.
        """
        with self._lock:
            return self._asked(b"reap %d" % pid)

    def stop(self) -> None:
        """End it and all that it forked."""
        self._popen.kill()
        self._popen.wait()
        with self._lock:
            self._control.close()

    def _asked(self, request: bytes, files: Sequence[int] = ()) -> int:
        try:
            socket.send_fds(self._control, [request], files)
            return int(self._received() or b"none")
        except (OSError, ValueError) as error:
            raise EOFError("the process that forks is gone") from error

    def _received(self) -> bytes:
        try:
            return self._control.recv(64)
        except OSError:
            return b""


@lru_cache(maxsize=64)
def libraries_of(folder: Path, listed: tuple[str, ...], build: str) -> tuple[str, ...]:
    """Return the modules that a model's files import and that are not its own, as its code says and without running it; `build` names its state."""
    found = set(listed)
    files = sorted(folder.rglob("*.py"))
    for file in files:
        with contextlib.suppress(SyntaxError, ValueError, OSError):  # the model's own process will say so
            found |= _imported(ast.parse(file.read_bytes()))
    own = {path.relative_to(folder).parts[0].removesuffix(".py") for path in files}
    return tuple(sorted(name for name in found if name.partition(".")[0] not in own | _HAS_ANYWAY))


def _imported(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)  # some are modules, as in `from scipy import ndimage`
    return found


# ------------------------------------------------------------------------------------------------- in the process itself


def main(control_number: int, parent: int, libraries: Sequence[str]) -> None:
    """Import, then fork as asked until the node closes the socket; in each child, serve the model's channel instead."""
    os.set_inheritable(control_number, False)
    confine(parent)
    from dicom_node.analyse import child  # late: numpy and all the rest, under guard

    for library in libraries:
        with contextlib.suppress(Exception, SystemExit):  # not installed, no module, or broken: the model's own process will say so
            importlib.import_module(library)
    gc.collect()
    gc.freeze()  # a collection would write to every page that is shared
    with socket.socket(fileno=control_number) as control:
        control.send(b"fit" if _may_fork() else b"unfit")
        channel = _forked(control)
    if channel is not None:
        child.serve(channel)


def _forked(control: socket.socket) -> int | None:
    """Do what the node asks; return in each child, with the number of its channel, and in the server when the node is gone."""
    server = os.getpid()
    while True:
        request, files, _, _ = socket.recv_fds(control, 64, 2)
        if request.startswith(b"reap"):
            _, status = os.waitpid(int(request.split()[1]), 0)
            control.send(b"%d" % os.waitstatus_to_exitcode(status))
            continue
        if len(files) < 2:
            return None
        try:
            pid = os.fork()
        except OSError as error:
            pid = -(error.errno or 1)
        if pid == 0:
            return _become(server, *files)
        for file in files:
            os.close(file)
        control.send(b"%d" % pid)


def _become(server: int, channel: int, output: int) -> int:
    """Make this child what a process started by the node itself would be."""
    os.setsid()
    die_with(server)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    import numpy as np  # late: under guard, see `main`

    np.random.seed()  # else every child would draw the same numbers  # noqa: NPY002
    return channel


def _may_fork() -> bool:
    """Try a fork, before which some libraries end their threads, and say whether nothing is left that does not survive one."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return False
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    until = time.monotonic() + 1.0  # a thread that has ended is listed a moment longer
    while (threads := len(os.listdir("/proc/self/task"))) > 1 and time.monotonic() < until:
        time.sleep(0.01)
    return threads == 1
