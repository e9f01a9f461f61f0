"""What every test shares: nothing leaves this machine, and caches are the user's."""

import logging
import os

import pydicom
import pytest
import structlog

from tests.orthanc import free_ports

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def _as_it_was():
    """Undo what a verb, called in this process, sets for a whole process: how it logs and what its libraries may say."""
    libraries = [logging.getLogger(name) for name in ("pydicom", "pynetdicom", "highdicom", "apscheduler")]
    levels, mode = [library.level for library in libraries], pydicom.config.settings.reading_validation_mode
    yield
    structlog.reset_defaults()
    pydicom.config.settings.reading_validation_mode = mode
    for library, level in zip(libraries, levels, strict=True):
        library.setLevel(level)


@pytest.fixture
def free_port():
    """Return a port on loopback that nobody listened on a moment ago."""
    return free_ports(1)[0]
