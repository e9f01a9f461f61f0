"""Files stored by HTTP: by dicomweb-client, all that pydicom has, and while the process is killed (PS3.18 10.5)."""

import contextlib
import json
import threading
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file

from dicom_node.config import Node
from dicom_node.domain import Refused
from dicom_node.receive import Door, import_file, read_header, recovered, split_file
from dicom_node.store import Store
from tests import phantoms
from tests.files import size_bytes
from tests.walks.webs import stow, web

FILES = sorted((Path(pydicom.__file__).parent / "data" / "test_files").glob("*.dcm"))


def held(store: Store) -> set[str]:
    """The UIDs of what the ledger has and the disk, too: its file is as long as it was, and its header is the one that it is known by."""
    found = {str(one["SOPInstanceUID"]): one for one in store.holdings.find("IMAGE", {})}
    files = store.holdings.files("STUDY", {"StudyInstanceUID": [*{one["StudyInstanceUID"] for one in found.values()}]})
    for one in files:
        data = store.archive.path(one.path).read_bytes()
        assert len(data) == one.size_bytes
        assert read_header(data[split_file(data)[1] :], one.transfer_syntax_uid)["SOPInstanceUID"] == one.sop_instance_uid
    assert {one.sop_instance_uid for one in files} == found.keys()
    return {*found}


def acknowledged(answer: bytes) -> set[str]:
    said = Dataset.from_json(json.loads(answer)) if answer else Dataset()
    return {str(one.ReferencedSOPInstanceUID) for one in said.get("ReferencedSOPSequence", [])}


def test_dicomweb_client_stores_and_finds_what_it_stored(tmp_path: Path) -> None:
    """Its answer names every instance; storing it again is no harm."""
    datasets = [dcmread(get_testdata_file(name, download=False)) for name in ("CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm", "liver_1frame.dcm")]
    uids = {str(one.SOPInstanceUID) for one in datasets}
    with web(tmp_path) as node:
        client = DICOMwebClient(node.dicomweb)
        for _ in range(2):
            said = client.store_instances(datasets)
            assert {str(one.ReferencedSOPInstanceUID) for one in said.ReferencedSOPSequence} == uids == held(node.store)
        one = datasets[0]
        assert "ReferencedSOPSequence" in client.store_instances([one], study_instance_uid=one.StudyInstanceUID)
        with pytest.raises(Exception, match="409"):
            client.store_instances([one], study_instance_uid="1.2.3")
        assert {one["00080018"]["Value"][0] for one in client.search_for_instances()} == uids


def test_every_file_of_pydicom_is_taken_as_an_import_takes_it(tmp_path: Path) -> None:
    """Of any transfer syntax, with and without meta information, whole or cut off: the same instances, the same bytes, the same refusals."""
    store = Store.open(tmp_path / "import")
    door, refused = Door(store, Node(disk_reserve_mb=1)), set()
    for path in FILES:
        try:
            import_file(door, path, received_at=1.0)
        except Refused:
            refused.add(path.name)
    with web(tmp_path / "web") as node:
        statuses = {path.name: stow(node.dicomweb, [path.read_bytes()])[0] for path in FILES}
        assert {name for name, status in statuses.items() if status != 200} == refused and {*statuses.values()} <= {200, 409}
        status, said = stow(node.dicomweb, [path.read_bytes() for path in FILES])
        assert status == 202 and len(acknowledged(said)) == len(held(store))
        assert held(node.store) == held(store) and len(held(store)) > len(FILES) // 3
        assert digests(node.store) == digests(store)
        assert len(node.store.instances.quarantined(1000)) >= len(refused), "what is refused is kept with its reason"
    store.close()


def digests(store: Store) -> set[tuple[str, str]]:
    found = store.studies.view
    studies = {str(one["StudyInstanceUID"]) for one in store.holdings.find("STUDY", {})}
    return {(one.sop_instance_uid, one.digest) for uid in studies for series in found(uid).series for one in series.instances}


def test_a_web_that_is_killed_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    """kill -9 amid uploads of several senders; what was begun is swept, and all is taken when it is sent again."""
    groups = {}
    for number in range(16):
        images = phantoms.series(np.zeros((8, 64, 64), np.int16), seed=f"sender {number}")
        paths = phantoms.write(images, tmp_path / f"sent-{number}")
        groups[number] = [path.read_bytes() for path in paths]
    everything = {str(dcmread(path).SOPInstanceUID) for path in tmp_path.glob("sent-*/*")}
    answered: set[str] = set()
    lock, enough = threading.Lock(), threading.Event()

    def send(url: str, number: int) -> None:
        with contextlib.suppress(urllib.error.URLError, HTTPException, OSError):
            status, said = stow(url, groups[number])
            with lock:
                answered.update(acknowledged(said))
                assert status == 200, said
                if len(answered) > len(everything) // 4:
                    enough.set()

    with web(tmp_path) as node, ThreadPoolExecutor(4) as pool:
        sending = [pool.submit(send, node.dicomweb, number) for number in groups]
        assert enough.wait(120)
        node.process.kill()
        node.process.wait(60)
        [one.result(120) for one in sending]
    assert answered and len(answered) < len(everything), "it was killed amid uploads"
    store = Store.open(tmp_path / "data")
    store.instances.sweep(recovered)
    assert answered <= held(store) <= everything
    assert not [path for path in store.archive.incoming.iterdir() if size_bytes(path)], "what was begun is gone"
    store.close()
    with web(tmp_path) as node:
        for files in groups.values():
            status, said = stow(node.dicomweb, files)
            assert status == 200, said
        assert held(node.store) == everything
