"""What a model's process may not do: outlive the node, take the node's memory with it, leave a dump of a patient's images, reach the network.

These are guards against accidents and careless code. They are no sandbox against a hostile model: it runs as the node's own user.
"""

import contextlib
import ctypes
import os
import platform
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_KEEP = frozenset({"PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV", "XDG_CACHE_HOME"})
_KEEP_PREFIXES = ("LC_", "LD_", "DYLD_", "PYTHON", "CUDA_", "NVIDIA_", "HIP_", "ROCR_", "HSA_", "TORCH", "PYTORCH_", "ONNX", "OPENVINO", "KMP_")
_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "WANDB_DISABLED", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK")
_INTERNET = (socket.AF_INET, socket.AF_INET6)

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_SECCOMP_MODE_FILTER, _SECCOMP_ALLOW, _SECCOMP_EACCES = 2, 0x7FFF0000, 0x00050000 | 13
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # instructions of the kernel's packet filter
_SOCKET_CALL = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}  # machine -> its audit name, number of socket(2)


def environment(around: Mapping[str, str], threads: int) -> dict[str, str]:
    """Return a model's environment: of the node's own only what programs need to run (no password, no address), threads bounded, hubs offline."""
    kept = {name: value for name, value in around.items() if name in _KEEP or name.startswith(_KEEP_PREFIXES)}
    return kept | dict.fromkeys(_THREADS, str(threads)) | dict.fromkeys(_OFFLINE, "1") | {"PYTHONUNBUFFERED": "1"}


def confine(parent: int) -> None:
    """Put this process under all guards; `parent` is the process it must not outlive."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a person's Ctrl-C is for the node, which then stops this process
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    die_with(parent)
    _first_to_go()
    _no_network()


def die_with(parent: int) -> None:
    """Have the system end this process with its parent, or rather with the thread of it that started this one."""
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it died before this was asked for
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.killpg(0, signal.SIGKILL)


def _first_to_go() -> None:
    """Let the system, when it runs out of memory, end this process before the node's."""
    with contextlib.suppress(OSError):  # not every system has it
        Path("/proc/self/oom_score_adj").write_text("700")


def _no_network() -> None:
    sys.addaudithook(_object)
    if sys.platform == "linux" and platform.machine() in _SOCKET_CALL:
        _filter_sockets(*_SOCKET_CALL[platform.machine()])


def _object(event: str, args: tuple[Any, ...]) -> None:
    """Say in a sentence what the kernel's filter would only deny; where there is no such filter, deny it to Python code."""
    if event == "socket.getaddrinfo" or (event == "socket.__new__" and args[1] in _INTERNET):
        raise PermissionError("a model's process has no network: list its files as weights in model.toml, they are fetched before it runs")


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("value", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def _filter_sockets(machine: int, call: int) -> None:
    """Have the kernel answer EACCES when this process or one that it starts asks for an internet socket (seccomp, for compiled code too)."""
    steps = (
        (_LOAD, 0, 0, 4),  # the machine
        (_EQUAL, 0, 5, machine),
        (_LOAD, 0, 0, 0),  # the call
        (_EQUAL, 0, 3, call),
        (_LOAD, 0, 0, 16),  # its first argument, the family
        (_EQUAL, 2, 0, int(socket.AF_INET)),
        (_EQUAL, 1, 0, int(socket.AF_INET6)),
        (_RETURN, 0, 0, _SECCOMP_ALLOW),
        (_RETURN, 0, 0, _SECCOMP_EACCES),
    )
    instructions = (_Instruction * len(steps))(*(_Instruction(*step) for step in steps))
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(_Program(len(steps), instructions)))


def _prctl(option: int, value: int, pointer: Any = None) -> None:
    call = ctypes.CDLL(None).prctl
    call.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong)
    call(option, value, pointer, 0, 0)
