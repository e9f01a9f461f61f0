"""The program's verbs, called in this process as a person at a terminal would call them."""

import io
import json
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

import pydicom
import structlog

from dicom_node.cli import main


@dataclass(frozen=True)
class Said:
    """What a verb printed, and the exit code it ended with."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, as a program reads it."""
        return json.loads(self.out)

    @property
    def all(self) -> str:
        """Everything that a person would have seen."""
        return self.out + self.err


def run(*words: object) -> Said:
    """Run a verb with its options; what it sets for its whole process is put back afterwards."""
    out, err = io.StringIO(), io.StringIO()
    with _process_of_its_own(words), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
    return Said(code, out.getvalue(), err.getvalue())


@contextmanager
def _process_of_its_own(words: tuple[object, ...]) -> Iterator[None]:
    before, sys.argv = sys.argv, ["dicom-node", *map(str, words)]
    logs, mode = structlog.get_config(), pydicom.config.settings.reading_validation_mode
    levels = {name: logging.getLogger(name).level for name in ("pydicom", "pynetdicom", "highdicom", "apscheduler")}
    try:
        with warnings.catch_warnings():
            yield
    finally:
        sys.argv = before
        structlog.configure(**logs)
        pydicom.config.settings.reading_validation_mode = mode
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
