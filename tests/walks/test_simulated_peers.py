"""The simulated scanner and PACS against each other and against DCMTK: what the node's own walks rely on."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, SecondaryCaptureImageStorage
from pynetdicom import AllStoragePresentationContexts

from dicom_node.domain import AE, PeerUnavailable, Transient
from dicom_node.simulate import samples
from dicom_node.simulate.pacs import BEHAVIOURS, Behaviour, Pacs
from dicom_node.simulate.scanner import SOP_CLASS_NOT_SUPPORTED, echo, push
from tests.orthanc import free_ports
from tests.peers import missing

WAIT_S = 20.0

# pynetdicom forgets to close a socket whose connection was refused, and leaves that to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


def dcmtk(program: str) -> str:
    """Return DCMTK's program; pynetdicom installs others of the same name beside Python."""
    folders = [folder for folder in os.environ.get("PATH", "").split(os.pathsep) if Path(folder) != Path(sys.executable).parent]
    return shutil.which(program, path=os.pathsep.join(folders)) or missing(f"DCMTK's {program} is not installed")


def written(
    folder: Path, count: int = 3, *, classes: list[str] | None = None, transfer_syntax: str = ExplicitVRLittleEndian, more: str = ""
) -> list[Path]:
    """Write small objects, of one study: headers and a few kilobytes that nobody decodes."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        dataset = Dataset()
        dataset.SOPClassUID = classes[number] if classes else SecondaryCaptureImageStorage
        dataset.SOPInstanceUID = f"2.25.9.{number + 1}"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "2.25.7777", "2.25.8888"
        dataset.PatientName, dataset.PatientID = "DEMO^NOBODY", "DEMO-0"
        dataset.ImageComments = more
        dataset.add_new(0x00091001, "OB", bytes(6000))
        dataset.add_new(0x00090010, "LO", "DICOM-NODE TEST")
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = transfer_syntax
        paths.append(folder / f"{number:03d}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


@contextmanager
def storescp(folder: Path) -> Iterator[AE]:
    """Run DCMTK's storescp, and yield its address once it answers."""
    folder.mkdir()
    ae = AE("STORESCP", "127.0.0.1", free_ports(1)[0])
    command = [dcmtk("storescp"), "--aetitle", ae.title, "--output-directory", str(folder), "--bit-preserving", "+xa", str(ae.port)]
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                echo(ae, timeout_s=2)
                break
            except PeerUnavailable:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.05)
        yield ae
    finally:
        process.kill()
        process.wait()


def body(path: Path) -> bytes:
    """Return the data set's bytes without the file's meta information."""
    with path.open("rb") as file:
        dcmread(file, stop_before_pixels=True, specific_tags=[])
    meta = dcmread(path).file_meta
    return path.read_bytes()[144 + meta.FileMetaInformationGroupLength :]


# ------------------------------------------------------------------------------------------------------- with each other


def test_what_is_pushed_is_kept_byte_for_byte(tmp_path: Path) -> None:
    """PS3.4 B.4.1, Level 2: nothing is coerced; files lie at study, series and instance."""
    files = written(tmp_path / "out")
    progress: list[tuple[int, int]] = []
    with Pacs(tmp_path / "pacs") as pacs:
        pushed = push(files, pacs.ae, on_progress=lambda done, of: progress.append((done, of)))
        kept = pacs.instances()
    assert (pushed.sent, dict(pushed.failed)) == (3, {})
    assert progress == [(1, 3), (2, 3), (3, 3)]
    assert pushed.acknowledged == set(kept)
    assert [body(instance.path) for instance in kept.values()] == [body(path) for path in files]
    assert kept["2.25.9.1"].path == tmp_path / "pacs" / "2.25.7777" / "2.25.8888" / "2.25.9.1.dcm"
    assert kept["2.25.9.1"].calling_ae == "SCANNER"


def test_a_compressed_image_is_sent_as_it_is(tmp_path: Path) -> None:
    """PS3.5 §10: the transfer syntax of the file is the one that is proposed; nothing is decoded."""
    files = written(tmp_path / "out", 1, transfer_syntax=JPEG2000Lossless)
    with Pacs(tmp_path / "pacs") as pacs:
        assert push(files, pacs.ae).sent == 1
        assert pacs.instances()["2.25.9.1"].transfer_syntax_uid == JPEG2000Lossless


def test_more_classes_than_an_association_may_propose_take_two(tmp_path: Path) -> None:
    """PS3.8 9.3.2.2: at most 128 presentation contexts."""
    classes = [str(context.abstract_syntax) for context in AllStoragePresentationContexts][:130]
    with Pacs(tmp_path / "pacs") as pacs:
        assert push(written(tmp_path / "out", 130, classes=classes), pacs.ae).sent == 130
        assert (pacs.associations, pacs.most_at_once) == (2, 1)


def test_several_associations_share_the_work(tmp_path: Path) -> None:
    """A modality may open more than one at a time."""
    with Pacs(tmp_path / "pacs", behaviour=Behaviour(delay_s=0.05)) as pacs:
        assert push(written(tmp_path / "out", 12), pacs.ae, associations=3).sent == 12
        assert (pacs.associations, pacs.most_at_once, len(pacs.instances())) == (3, 3, 12)


def test_a_second_arrival_is_counted_and_compared(tmp_path: Path) -> None:
    """A retry must bring the same bytes: the PACS can tell."""
    files = written(tmp_path / "out", 2)
    with Pacs(tmp_path / "pacs") as pacs:
        push([*files, files[0]], pacs.ae)
        push(written(tmp_path / "other", 2, more="changed")[1:], pacs.ae)
        first, second = pacs.instances().values()
    assert (first.arrivals, first.identical) == (2, True)
    assert (second.arrivals, second.identical) == (2, False)


def test_an_association_aborted_in_the_middle_leaves_no_half_image(tmp_path: Path) -> None:
    """PS3.8 7.3: what was begun when the scanner aborted is no data set."""
    with Pacs(tmp_path / "pacs") as pacs:
        pushed = push(written(tmp_path / "out"), pacs.ae, abort_after=2)
        assert (pushed.sent, dict(pushed.failed)) == (2, {"2.25.9.3": None})
        assert (pacs.requests, len(pacs.instances())) == (2, 2)
    assert len(list((tmp_path / "pacs").rglob("*.dcm*"))) == 2


def test_a_wrong_called_title_is_rejected(tmp_path: Path) -> None:
    """PS3.8 Table 9-21: called AE title not recognised."""
    with Pacs(tmp_path / "pacs") as pacs, pytest.raises(PeerUnavailable, match="Called AE title not recognised"):
        push(written(tmp_path / "out"), pacs.ae, called_ae="SOMEBODY")


def test_a_uid_never_becomes_a_path_unchecked(tmp_path: Path) -> None:
    """PS3.5 §9.1: what is no UID is not understood (C000), and nothing is written anywhere."""
    (path,) = written(tmp_path / "out", 1)
    path.write_bytes(path.read_bytes().replace(b"2.25.7777", b"../../out"))
    with Pacs(tmp_path / "pacs" / "inner") as pacs:
        assert dict(push([path], pacs.ae).failed) == {"2.25.9.1": 0xC000}
    assert list((tmp_path / "pacs").rglob("*.dcm")) == []
    assert list((tmp_path / "out").iterdir()) == [path]


def test_somebody_can_wait_for_what_will_come(tmp_path: Path) -> None:
    """Tests wait for an arrival, not for a time."""
    with Pacs(tmp_path / "pacs") as pacs:
        assert not pacs.wait(bool, timeout_s=0.01)
        push(written(tmp_path / "out"), pacs.ae)
        assert pacs.wait(lambda kept: len(kept) == 3, timeout_s=WAIT_S)


# --------------------------------------------------------------------------------------------------------- broken in ways


@pytest.mark.parametrize(
    ("name", "statuses", "kept"),
    [
        ("well", [0, 0, 0, 0], 4),
        ("full-at-first", [0xA700, 0xA700, 0xA700, 0], 1),
        ("full", [0xA700] * 4, 0),
        ("cannot-understand", [0xC000] * 4, 0),
        ("warns", [0xB000] * 4, 4),
        ("aborts", [0, None, None, None], 1),
        ("never-answers", [None] * 4, 1),
    ],
)
def test_a_broken_pacs_answers_as_its_name_says(name: str, statuses: list[int | None], kept: int, tmp_path: Path) -> None:
    """PS3.4 Table B.2-1: what is refused is not kept, what is warned about is; silence says nothing of either."""
    with Pacs(tmp_path / "pacs", behaviour=BEHAVIOURS[name]) as pacs:
        started = time.monotonic()
        pushed = push(written(tmp_path / "out", 4), pacs.ae, timeout_s=2.0 if name == "never-answers" else WAIT_S)
        assert [answer.status for answer in pushed.answers] == statuses
        assert time.monotonic() - started < WAIT_S / 2  # an abort is noticed, not waited out
        assert len(pacs.instances()) == kept


def test_a_pacs_can_refuse_every_association(tmp_path: Path) -> None:
    """PS3.8 Table 9-21: calling AE title not recognised."""
    with Pacs(tmp_path / "pacs", behaviour=BEHAVIOURS["refuses-associations"]) as pacs, pytest.raises(PeerUnavailable, match="Calling AE"):
        push(written(tmp_path / "out"), pacs.ae)


def test_a_pacs_can_take_images_and_refuse_results(tmp_path: Path) -> None:
    """PS3.8 9.3.3.2: a refused presentation context is told from a refused object."""
    seg, sr = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.88.34"
    files = written(tmp_path / "out", 3, classes=[seg, SecondaryCaptureImageStorage, sr])
    with Pacs(tmp_path / "pacs", behaviour=BEHAVIOURS["refuses-results"]) as pacs:
        assert [answer.status for answer in push(files, pacs.ae).answers] == [SOP_CLASS_NOT_SUPPORTED, 0, SOP_CLASS_NOT_SUPPORTED]


def test_a_pacs_that_was_down_comes_back_where_it_was(tmp_path: Path) -> None:
    """It keeps its port, its files and its counts."""
    files = written(tmp_path / "out")
    with Pacs(tmp_path / "pacs") as pacs:
        push(files[:2], pacs.ae)
        pacs.stop()
        with pytest.raises(PeerUnavailable, match="cannot be reached"):
            push(files, pacs.ae)
        pacs.start()
        assert echo(pacs.ae) < WAIT_S
        assert push(files, pacs.ae).sent == 3
        assert [instance.arrivals for instance in pacs.instances().values()] == [2, 2, 1]


# ------------------------------------------------------------------------------------------------------------ with DCMTK


def test_dcmtk_stores_to_the_pacs(tmp_path: Path) -> None:
    """PS3.4 Annex A and B, from an independent SCU; -R proposes just the classes that are sent."""
    files = written(tmp_path / "out", 2, classes=["1.2.840.10008.5.1.4.1.1.66.4", SecondaryCaptureImageStorage])
    with Pacs(tmp_path / "pacs") as pacs:
        address = ["-aec", "PACS", "-aet", "MODALITY", "127.0.0.1", str(pacs.ae.port)]
        subprocess.run([dcmtk("echoscu"), *address], check=True, timeout=WAIT_S)
        subprocess.run([dcmtk("storescu"), "-R", *address, *map(str, files)], check=True, timeout=WAIT_S)
        kept = pacs.instances()
    assert {instance.calling_ae for instance in kept.values()} == {"MODALITY"}
    assert [body(kept[uid].path) for uid in ("2.25.9.1", "2.25.9.2")] == [body(path) for path in files]


def test_the_scanner_stores_to_dcmtk(tmp_path: Path) -> None:
    """PS3.4 Annex B, to an independent SCP that writes the bytes as they come."""
    files = written(tmp_path / "out")
    with storescp(tmp_path / "in") as ae:
        assert push(files, ae).sent == 3
    arrived = {dcmread(path).SOPInstanceUID: body(path) for path in (tmp_path / "in").iterdir()}
    assert arrived == {dcmread(path).SOPInstanceUID: body(path) for path in files}


@pytest.mark.parametrize(("name", "images"), [("chest-ct", 133), ("head-mr", 192)])
def test_a_whole_sample_study_arrives(name: str, images: int, tmp_path: Path) -> None:
    """The studies of the demonstration, as a scanner sends them."""
    try:
        files = samples.sample_files(name)
    except Transient as error:
        missing(str(error))
    with Pacs(tmp_path / "pacs") as pacs:
        assert push(files, pacs.ae, associations=2).sent == images
        assert len(pacs.instances()) == images
