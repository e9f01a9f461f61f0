"""The real programs that tests talk to; what is missing is skipped loudly, and fails in CI."""

import os
import shutil
import sys
from pathlib import Path

import pytest

_ELSEWHERE = (Path("/usr/sbin"), Path("/usr/lib/postgresql/17/bin"), Path("/usr/lib/postgresql/16/bin"), Path("/usr/lib/postgresql/15/bin"))


def need(program: str) -> str:
    """Return the path of a program, or skip this test; under CI=true its absence is a failure."""
    # pynetdicom brings scripts with the names of DCMTK's programs: the environment's own folder does not count as a peer.
    elsewhere = os.pathsep.join(folder for folder in os.environ.get("PATH", "").split(os.pathsep) if Path(folder) != Path(sys.executable).parent)
    path = shutil.which(program, path=elsewhere) or next((str(folder / program) for folder in _ELSEWHERE if (folder / program).is_file()), None)
    return path or missing(f"{program} is not installed")


def packaged(program: str) -> str:
    """Return a program that came with a package of this environment, else one of the machine."""
    path = Path(sys.executable).parent / program
    return str(path) if path.is_file() else need(program)


def need_file(path: str) -> Path:
    """Return a path that must exist, or skip this test; under CI=true its absence is a failure."""
    return Path(path) if Path(path).exists() else Path(missing(f"{path} does not exist"))


def missing(what: str) -> str:
    """Skip this test because of what is missing, or fail it under CI=true."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}; in CI this test may not be skipped: see deploy/install-peers.sh")
    pytest.skip(f"NOT TESTED: {what}; deploy/install-peers.sh installs it")
