"""A full disk: what was acknowledged stays, what cannot be kept is refused, and everything goes on when there is space again.

The node's storage is a file system of a few megabytes, filled up to its last block by a file that is none of the node's.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from dicom_node.domain import JobState
from dicom_node.simulate.pacs import Pacs
from dicom_node.simulate.scanner import push
from tests import phantoms
from tests.orthanc import free_ports
from tests.walks.node import Node, serving, wait_for

HERE = Path(__file__).parent
SIZE_MB = 12
OUT_OF_RESOURCES = 0xA700


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of a few megabytes; only root may, and not in every container."""
    place = tmp_path / "disk"
    place.mkdir()
    tried = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "none", str(place)], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"NOT TESTED: a small file system cannot be mounted here: {tried.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_a_full_disk_loses_nothing_and_passes(small_disk: Path, tmp_path: Path) -> None:
    """PS3.4 Table B.2-1, A7xx: the sender is told to try again; no acknowledged image is missing, and no study is unfinished afterwards."""
    studies = [phantoms.series(phantoms.marked((8, 160, 160)).astype(np.int16), seed=f"disk {number}") for number in range(10)]
    waiting = {str(path): path for number, one in enumerate(studies) for path in phantoms.write(one, tmp_path / str(number))}
    with Pacs(tmp_path / "pacs") as pacs:
        remotes = {"scanner": {"ae": "SCANNER@127.0.0.1:104", "may": ["send"]}, "pacs": {"ae": str(pacs.ae), "may": ["receive"]}}
        rules = [{"name": "CT", "when": {"Modality": "CT"}, "analyse": ["marker"], "deliver": ["pacs"]}]
        models = {"marker": HERE / "models" / "marker"}
        patient = {"attempts": 1000, "backoff_s": 0.5}  # a full disk is no reason to give a job up
        with serving(
            tmp_path / "node",
            remotes=remotes,
            rules=rules,
            models=models,
            port=free_ports(1)[0],
            storage=small_disk / "data",
            node={"disk_reserve_mb": 0, "complete_after_s": 0.5},
            work=patient,
        ) as node:
            ballast = fill(small_disk / "ballast", leave_kb=700)
            acknowledged = send(node, waiting)
            assert waiting, "the disk was not full"
            assert acknowledged, "nothing fitted"
            fill(small_disk / "more ballast", leave_kb=0)
            assert send(node, waiting) == set()
            assert kept(node) >= acknowledged
            ballast.unlink()
            (small_disk / "more ballast").unlink()
            while waiting:
                acknowledged |= send(node, waiting, may_fail=False)
            assert kept(node) == acknowledged
            for one in studies:
                jobs = node.settled(str(one[0].StudyInstanceUID))
                assert jobs[-1].state is JobState.COMPLETED, jobs
                assert len(jobs[-1].inputs["ct"]) == len(one)
            made = {one.sop_instance_uid for job in node.store.jobs.list(limit=1000) for one in node.store.jobs.results(job.id)}
            wait_for(lambda: set(pacs.instances()) == made)
            assert all(one.identical for one in pacs.instances().values())


def fill(path: Path, *, leave_kb: int) -> Path:
    """Write a file that leaves so much space."""
    block = b"\0" * 4096
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                if leave_kb and os.statvfs(path.parent).f_bavail * os.statvfs(path.parent).f_frsize <= leave_kb * 1024:
                    return path
                if file.write(block) < len(block):
                    return path
        except OSError:
            return path


def send(node: Node, waiting: dict[str, Path], *, may_fail: bool = True) -> set[str]:
    """Send what waits, take what was acknowledged out of it, and return the UIDs of that; what was refused was refused as it should be."""
    uids = {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID): name for name, path in waiting.items()}
    pushed = push(list(waiting.values()), node.ae)
    assert may_fail or not pushed.failed, pushed.failed
    assert {status and status & 0xFF00 for status in pushed.failed.values()} <= {OUT_OF_RESOURCES}
    for uid in pushed.acknowledged:
        del waiting[uids[uid]]
    return set(pushed.acknowledged)


def kept(node: Node) -> set[str]:
    """Return the UIDs of what the node holds, its bytes there and whole."""
    found = {}
    for row in node.store.studies.list(limit=1000):
        study = node.store.studies.view(row["study_instance_uid"])
        assert study is not None
        found |= {one.sop_instance_uid: one for one in study.instances}
    for one in found.values():
        assert node.store.instances.bring([one])[0].stat().st_size == one.size_bytes
    return set(found)
