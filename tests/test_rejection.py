"""Rejection notes (IHE IOCM): those that come hide what they name, and ours name what newer results replace."""

from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.assemble.rejection import KEY_OBJECT, TITLES, rejections
from dicom_node.config import NodeConfig, Site
from dicom_node.domain import Reference, StudyState
from dicom_node.receive import Door, import_file
from dicom_node.report import Draft, build, check, encode, rejection
from dicom_node.serve import judge_due
from dicom_node.store import Store
from tests import findings as made
from tests import phantoms
from tests.contracts.arrange import kinds, last

NOW = 1_800_000_000.0


# ------------------------------------------------------------------------------------------------------------ those that come


def note(images: list[Dataset], *, title: str = "113001", scheme: str = "DCM", number: int = 1, **header: object) -> Dataset:
    """Return a Key Object that names these images."""
    first = images[0]
    made_here = Dataset()
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID"):
        setattr(made_here, keyword, first.get(keyword))
    made_here.SOPClassUID, made_here.SOPInstanceUID = KEY_OBJECT, f"1.2.826.0.1.3680043.8.498.77.{number}"
    made_here.SeriesInstanceUID, made_here.Modality, made_here.ValueType = "1.2.826.0.1.3680043.8.498.77", "KO", "CONTAINER"
    name, of_study, of_series = Dataset(), Dataset(), Dataset()
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = title, scheme, "a title"
    of_study.StudyInstanceUID, of_series.SeriesInstanceUID = first.StudyInstanceUID, first.SeriesInstanceUID
    of_series.ReferencedSOPSequence = [_reference(image) for image in images]
    of_study.ReferencedSeriesSequence = [of_series]
    made_here.ConceptNameCodeSequence, made_here.CurrentRequestedProcedureEvidenceSequence = [name], [of_study]
    for keyword, value in header.items():
        setattr(made_here, keyword, value)
    made_here.file_meta = FileMetaDataset()
    made_here.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made_here


def _reference(image: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return item


class Desk:
    """A node that judges what comes, at once."""

    def __init__(self, folder: Path) -> None:
        config = NodeConfig.model_validate({"node": {"complete_after_s": 0.0, "storage": folder / "data", "disk_reserve_mb": 1}})
        self.site, self.folder, self.now = Site(config=config, models={}), folder, NOW
        self.store = Store.of(config.node)
        self._door = Door(self.store, config.node)

    def receive(self, *objects: Dataset) -> None:
        """Take objects in, and judge their study."""
        self.now += 10
        for path in phantoms.write(list(objects), self.folder / f"{self.now:.0f}"):
            import_file(self._door, path, received_at=self.now)
        judge_due(self.site, self.store, self.now + 1)

    def shown(self, uid: str) -> set[str]:
        """Return the images of a study that are used."""
        return {one.sop_instance_uid for one in self.store.studies.view(uid).instances if one.sop_class_uid != KEY_OBJECT}


@pytest.fixture
def desk(tmp_path: Path):
    opened = Desk(tmp_path)
    yield opened
    opened.store.close()


@pytest.mark.parametrize("title", TITLES)
def test_a_note_hides_what_it_names_and_the_study_is_judged_again(desk: Desk, title: str) -> None:
    """Of the four titles of PS3.16 CID 7010; the journal says who sent it, and why."""
    images = phantoms.series()
    uid = images[0].StudyInstanceUID
    desk.receive(*images)
    desk.receive(note(images[:2], title=title))
    assert desk.shown(uid) == {image.SOPInstanceUID for image in images[2:]}
    assert desk.store.studies.view(uid).rejected == {image.SOPInstanceUID for image in images[:2]}
    assert last(desk.store, "rejected", uid)[1] == f"a rejection note names them: {TITLES[title]}"
    assert kinds(desk.store, uid)[-3:] == ["reopened", "rejected", "complete"]
    assert desk.store.studies.view(uid).revision == 2


def test_a_note_counts_for_what_comes_after_it(desk: Desk) -> None:
    """The archive may send it first, and a rejected image again, even with other bytes."""
    images = phantoms.series()
    uid = images[0].StudyInstanceUID
    desk.receive(note(images[:2]))
    desk.receive(*images)
    assert desk.shown(uid) == {image.SOPInstanceUID for image in images[2:]}
    images[0].SeriesDescription = "again"
    desk.receive(images[0])
    assert desk.shown(uid) == {image.SOPInstanceUID for image in images[2:]}


@pytest.mark.parametrize(
    "header",
    [
        {"PatientID": "SOMEBODY-ELSE"},
        {"title": "113000"},
        {"scheme": "99OTHER"},
        {"ConceptNameCodeSequence": []},
        {"CurrentRequestedProcedureEvidenceSequence": []},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11"},
    ],
)
def test_what_is_no_note_of_this_patient_hides_nothing(desk: Desk, header: dict[str, object]) -> None:
    """Another patient's, one of interest, a private title, none at all, nothing named, another kind of document."""
    images = phantoms.series()
    desk.receive(*images)
    desk.receive(note(images[:2], **header))
    assert desk.shown(images[0].StudyInstanceUID) >= {image.SOPInstanceUID for image in images}
    assert "rejected" not in kinds(desk.store, images[0].StudyInstanceUID)


def test_a_note_of_another_study_hides_nothing(desk: Desk) -> None:
    """Neither one that lies in the other study, nor one in this that lists the other."""
    images = phantoms.series()
    uid = images[0].StudyInstanceUID
    desk.receive(*images)
    desk.receive(note(images[:2], StudyInstanceUID=f"{uid}.9"))
    foreign = note(images[:2], number=2)
    foreign.CurrentRequestedProcedureEvidenceSequence[0].StudyInstanceUID = f"{uid}.9"
    desk.receive(foreign)
    assert desk.shown(uid) == {image.SOPInstanceUID for image in images}


def test_a_study_of_which_all_is_rejected_is_complete_with_nothing_to_do(desk: Desk) -> None:
    """It does not stay open."""
    images = phantoms.series()
    uid = images[0].StudyInstanceUID
    desk.receive(*images)
    desk.receive(note(images))
    assert desk.shown(uid) == set()
    assert desk.store.studies.counts() == {StudyState.COMPLETE: 1}


def test_a_note_that_cannot_be_read_is_none(desk: Desk, tmp_path: Path) -> None:
    """Whatever stands in its file."""
    images = phantoms.series()
    desk.receive(note(images[:1]))
    seen = desk.store.studies.view(images[0].StudyInstanceUID)
    broken = tmp_path / "broken.dcm"
    for data in (b"", b"?" * 200, b"\0" * 128 + b"DICM" + b"\xff" * 90):
        broken.write_bytes(data)
        assert rejections(seen, [(seen.instances[0], broken)]) == ()
    assert rejections(seen, [(seen.instances[0], tmp_path / "gone.dcm")]) == ()


# -------------------------------------------------------------------------------------------------------------------- ours


def ours(folder: Path, images: list[Dataset]) -> tuple[tuple[Draft, ...], Dataset, list[Reference]]:
    """Return the results of a run, the note of a later run that rejects them, and what it was given."""
    model, assembled = made.model(folder / "model"), made.assembled(images)
    drafts = build(made.findings(assembled), {"ct": assembled}, made.run(model))
    before = [
        Reference(
            sop_class_uid=str(one.dataset.SOPClassUID),
            sop_instance_uid=str(one.dataset.SOPInstanceUID),
            series_instance_uid=str(one.dataset.SeriesInstanceUID),
            study_instance_uid=str(one.dataset.StudyInstanceUID),
        )
        for one in drafts
    ]
    return drafts, rejection(before, {"ct": assembled}, made.run(model, identity="b" * 64)).dataset, before


def test_our_note_names_every_earlier_result_and_is_valid(tmp_path: Path) -> None:
    """dciodvfy finds nothing; title, evidence and references are those of TID 2010."""
    images = phantoms.series()
    drafts, built, _ = ours(tmp_path, images)
    path = tmp_path / "note.dcm"
    path.write_bytes(encode(built))
    assert check(path) == ()
    read = dcmread(BytesIO(encode(built)))
    assert (read.SOPClassUID, read.Modality, read.ConceptNameCodeSequence[0].CodeValue) == (KEY_OBJECT, "KO", "113001")
    assert (read.StudyInstanceUID, read.PatientID) == (images[0].StudyInstanceUID, images[0].PatientID)
    (of_study,) = read.CurrentRequestedProcedureEvidenceSequence
    named = {item.ReferencedSOPInstanceUID for series in of_study.ReferencedSeriesSequence for item in series.ReferencedSOPSequence}
    pointed = {
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID: item.ValueType for item in read.ContentSequence if "ReferencedSOPSequence" in item
    }
    assert named == set(pointed) == {one.dataset.SOPInstanceUID for one in drafts}
    assert {pointed[one.dataset.SOPInstanceUID] for one in drafts if one.kind == "SR"} == {"COMPOSITE"}
    assert {pointed[one.dataset.SOPInstanceUID] for one in drafts if one.kind == "SEG"} == {"IMAGE"}


def test_our_note_is_the_same_when_it_is_made_again(tmp_path: Path) -> None:
    """UIDs are derived: a retry rejects with the same object."""
    assert encode(ours(tmp_path, phantoms.series())[1]) == encode(ours(tmp_path, phantoms.series())[1])


def test_a_node_understands_our_note(desk: Desk, tmp_path: Path) -> None:
    """What an archive sends us back of our own is hidden by it as anything is."""
    images = phantoms.series()
    drafts, built, _ = ours(tmp_path, images)
    uid = images[0].StudyInstanceUID
    desk.receive(*images, *(one.dataset for one in drafts))
    desk.receive(built)
    assert desk.shown(uid) == {image.SOPInstanceUID for image in images}
