"""Starts nodes fast: everything is imported once, and each life of a node is a fork.

It reads lines of JSON, `{"verb", "config", "fuse", "passes"}`, forks a process that runs that verb, and writes `{"pid"}`; when a process has ended
it writes `{"dead", "verb", "point"}`. It has one thread, so that a fork finds no lock held.
"""

import json
import os
import select
import signal
import sys
from pathlib import Path

import dicom_node.work
from dicom_node.cli import operate
from dicom_node.store import Store
from tests.crashes.fuses import lay


def main() -> None:
    """Fork nodes as asked until standard input closes; then kill what is left."""
    alive: dict[int, tuple[str, Path]] = {}
    buffer = b""
    while True:
        ready, _, _ = select.select([0], [], [], 0.02)
        if ready:
            chunk = os.read(0, 65536)
            if not chunk:
                break
            buffer += chunk
        while b"\n" in buffer:
            line, buffer = buffer.split(b"\n", 1)
            wanted = json.loads(line)
            note = Path(wanted["note"])
            pid = os.fork()
            if pid == 0:
                _live(wanted, note)
            alive[pid] = (wanted["verb"], note)
            _say({"pid": pid})
        _reap(alive)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)


def _reap(alive: dict[int, tuple[str, Path]]) -> None:
    while alive:
        pid, _ = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        verb, note = alive.pop(pid)
        _say({"dead": pid, "verb": verb, "point": note.read_text() if note.exists() else ""})
        note.unlink(missing_ok=True)


def _live(wanted: dict, note: Path) -> None:
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    log = os.open(wanted["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if wanted["fuse"]:
        lay(wanted["verb"], wanted["fuse"], wanted["passes"], note.write_text)
    try:
        getattr(operate, wanted["verb"])(config=Path(wanted["config"]), storage=None)
    finally:
        sys.stdout.flush()
        os._exit(0)


def _say(said: dict) -> None:
    os.write(1, json.dumps(said).encode() + b"\n")


if __name__ == "__main__":
    assert dicom_node.work and Store  # imported here so that no fork has to
    main()
