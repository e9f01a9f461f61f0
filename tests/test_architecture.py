"""The house stands as it is drawn: floors, rooms, and who may know what."""

import subprocess
import sys
from pathlib import Path

from importlinter import cli

ROOT = Path(__file__).parents[1]


def test_no_room_imports_what_it_must_not_know(monkeypatch):
    """The contracts are in pyproject.toml, [tool.importlinter]."""
    monkeypatch.chdir(ROOT)
    assert cli.lint_imports(no_cache=True) == cli.EXIT_STATUS_SUCCESS


def test_listening_never_loads_torch_nor_the_models_libraries():
    """`serve` starts in well under a second of imports and stays small."""
    code = "import sys, dicom_node.serve; print(sorted({'torch', 'SimpleITK', 'scipy', 'highdicom'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_help_loads_no_verb():
    """`--help` answers at once because each verb imports what it needs when it is called."""
    heavy = "{'torch', 'SimpleITK', 'scipy', 'highdicom', 'pynetdicom', 'pydicom', 'pydantic', 'sqlalchemy', 'apscheduler', 'alembic'}"
    code = f"import sys, dicom_node.cli; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_every_room_begins_with_its_promise():
    """The first line of a module's docstring is one sentence."""
    for path in sorted((ROOT / "dicom_node").rglob("*.py")):
        first = path.read_text().split('"""')[1].strip().splitlines()[0]
        assert first.endswith((".", "?", ":")), f"{path}: {first}"


def test_no_module_is_called_by_what_it_is_not():
    """A name that says nothing hides where a line belongs."""
    names = {path.stem for path in (ROOT / "dicom_node").rglob("*.py")} | {path.name for path in (ROOT / "dicom_node").iterdir()}
    assert not names & {"utils", "util", "helpers", "helper", "common", "core", "misc", "tools"}


def test_the_clock_is_passed_into_the_rooms_that_decide():
    """A decision that reads the clock cannot be tested with a table."""
    for path in [ROOT / "dicom_node" / "route.py", *(p for room in ("domain", "assemble") for p in (ROOT / "dicom_node" / room).glob("*.py"))]:
        text = path.read_text()
        assert "time.time(" not in text and "datetime.now(" not in text, path
