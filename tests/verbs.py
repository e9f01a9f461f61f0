"""The program's verbs, called in this process as a person at a terminal would call them."""

import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

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
    """Run a verb with its options."""
    out, err = io.StringIO(), io.StringIO()
    with _called_with(words), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
    return Said(code, out.getvalue(), err.getvalue())


@contextmanager
def _called_with(words: tuple[object, ...]) -> Iterator[None]:
    before, sys.argv = sys.argv, ["dicom-node", *map(str, words)]
    try:
        yield
    finally:
        sys.argv = before
