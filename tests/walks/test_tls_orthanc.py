"""Orthanc over TLS in both roles: it stores to the node, asks it and moves from it; the node stores to Orthanc, asks it and fetches from it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from dicom_node.domain import RetrievalState
from tests import phantoms
from tests.certificates import authority, signed
from tests.orthanc import ask, free_ports, orthanc
from tests.walks import node as walk
from tests.walks.node import Node, serving, wait_for

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
FAKES = walk.ROOT / "tests" / "models"


def _kept(rest: str, images: list[Dataset], folder: Path) -> str:
    """Let Orthanc hold a study, and return its name there."""
    return str([ask(f"{rest}/instances", path.read_bytes()) for path in phantoms.write(images, folder)][0]["ParentStudy"])


@pytest.fixture(params=["move", "get"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Node, str]]:
    """Run both, each with a certificate of one authority, and neither speaking anything but TLS."""
    root = authority(tmp_path / "pki", "root")
    ours, theirs = (signed(root, tmp_path / "pki", name) for name in ("node", "orthanc"))
    (port,) = free_ports(1)
    here = {"AET": "DICOM_NODE", "Host": "127.0.0.1", "Port": port, "UseDicomTls": True}
    keys: dict[str, Any] = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(theirs.certificate),
        "DicomTlsPrivateKey": str(theirs.key),
        "DicomTlsTrustedCertificates": str(root.certificate),
        "DicomModalities": {"node": here},
    }
    with orthanc(tmp_path / "orthanc", **keys) as (ae, rest):
        tls = {"authorities": str(root.certificate)}
        remotes = {"orthanc": {"ae": str(ae), "may": ["send", "receive", "query", "move"], "retrieve": request.param, "tls": tls}}
        rules = [{"name": "all", "when": {"Modality": "CT"}, "analyse": ["good"], "deliver": ["orthanc"]}]
        node = {"tls": {"certificate": str(ours.certificate), "key": str(ours.key), "clients": str(root.certificate)}}
        with serving(tmp_path / "node", remotes=remotes, rules=rules, models={"good": FAKES / "good"}, port=port, node=node) as made:
            yield made, rest


def test_everything_between_the_node_and_orthanc_goes_over_tls(pair: tuple[Node, str], tmp_path: Path) -> None:
    """C-STORE, C-FIND and C-MOVE in both roles, C-GET as SCU (PS3.15 B.12)."""
    node, rest = pair
    first, second = phantoms.series(seed="first"), phantoms.series(seed="second")
    pushed, fetched = str(first[0].StudyInstanceUID), str(second[0].StudyInstanceUID)
    ask(f"{rest}/modalities/node/store", [_kept(rest, first, tmp_path / "first")])
    node.settled(pushed)
    assert ask(f"{rest}/tools/find", {"Level": "Series", "Query": {"StudyInstanceUID": pushed, "Modality": "SR"}})

    _kept(rest, second, tmp_path / "second")
    said = node.verb("fetch", "orthanc", "--study", fetched, "--get", "--wait")
    assert said.code == 0, said.all
    (one,) = node.store.retrievals.list(study_instance_uid=fetched)
    assert (one.state, one.held) == (RetrievalState.COMPLETED, len(second))
    node.settled(fetched)

    asked = ask(f"{rest}/modalities/node/query", {"Level": "Study", "Query": {"StudyInstanceUID": pushed}})
    assert len(ask(f"{rest}/queries/{asked['ID']}/answers")) == 1
    before = ask(f"{rest}/statistics")["CountInstances"]
    ask(f"{rest}/queries/{asked['ID']}/retrieve", {"TargetAet": "ORTHANC", "Synchronous": True})
    assert ask(f"{rest}/statistics")["CountInstances"] == before, "all of it was there"
    wait_for(lambda: "retrieved" in node.kinds(pushed))
