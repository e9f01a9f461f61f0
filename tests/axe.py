"""axe-core, which finds what keeps people from using a page: Deque's published package, by version and hash, fetched for the tests alone."""

import base64
import hashlib
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

NAME, VERSION = "axe-core", "4.14.1"
INTEGRITY = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="  # SHA-512
_FETCH_S = 300


def fetched(folder: Path) -> str:
    """Return the script; without npm, or where that reaches nothing, the test says so and is skipped."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("accessibility is NOT tested: npm is not installed")
    command = [npm, "pack", f"{NAME}@{VERSION}", "--ignore-scripts", "--silent", "--pack-destination", str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_FETCH_S, cwd=folder)
    package = folder / f"{NAME}-{VERSION}.tgz"
    if done.returncode or not package.is_file():
        told = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        told(f"accessibility is NOT tested: {NAME} cannot be fetched: {done.stderr[-200:]}")
    assert base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode() == INTEGRITY
    with tarfile.open(package) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode()


def violations(page: Any, script: str) -> list[str]:
    """Return what a page breaks of WCAG 2 A and AA and of good practice, with the first element that does."""
    page.evaluate(script)
    found = page.evaluate("axe.run()")["violations"]
    return [f"{one['impact']} {one['id']}: {one['nodes'][0]['html'][:160]}" for one in found]
