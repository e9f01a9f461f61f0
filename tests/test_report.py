"""The same findings give the same objects, valid by the standard."""

import hashlib
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.config import Model, NodeConfig, Remote, load_model
from dicom_node.domain import AE, Findings, ModelFailed, Reference, Rejected, Unsuitable
from dicom_node.report import Draft, build, check, encode
from tests import findings as made
from tests import phantoms

PRESENCE, ABSENT = "121052", "272519000"
LABEL_MAP_CLASS = "1.2.840.10008.5.1.4.1.1.66.7"
SR_CLASS, SEG_CLASS = "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.66.4"


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return made.model(tmp_path / "model")


def results(model: Model, images: list[Dataset] | None = None, *, given: Findings | None = None, **run: object) -> dict[str, Dataset]:
    """Build the objects of a phantom and return them by kind."""
    assembled = made.assembled(images or phantoms.series(), notes=("A localizer was left out.",))
    return {d.kind: d.dataset for d in build(given or made.findings(assembled), {"ct": assembled}, made.run(model, **run))}


def groups(sr: Dataset) -> list[Dataset]:
    """Return the measurement groups of a report."""
    return [item for item in container(sr, "126010").ContentSequence if code(item) == "125007"]


def container(sr: Dataset, value: str) -> Dataset:
    return next(item for item in sr.ContentSequence if code(item) == value)


def code(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue)


def child(group: Dataset, value: str) -> Dataset:
    return next(item for item in group.ContentSequence if code(item) == value)


def number(group: Dataset, value: str) -> str:
    return str(child(group, value).MeasuredValueSequence[0].NumericValue)


def comments(sr: Dataset) -> list[str]:
    return [item.TextValue for item in container(sr, "C0034375").ContentSequence]


# --------------------------------------------------------------------------------------------------------------- the same


def test_the_same_findings_give_the_same_bytes_in_another_process(tmp_path: Path, model: Model) -> None:
    """Design 4.5: a retry writes the same bytes; no clock, no random UID, no hash order."""
    here = [hashlib.sha256(encode(dataset)).hexdigest() for dataset in results(model).values()]
    program = (
        "import hashlib, sys; from pathlib import Path; from dicom_node.config import load_model; from dicom_node.report import encode\n"
        "from tests.test_report import results\n"
        "[print(hashlib.sha256(encode(d)).hexdigest()) for d in results(load_model(Path(sys.argv[1]))).values()]"
    )
    environment = {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "PYTHONPATH": ":".join(p for p in sys.path if p)}
    there = subprocess.run([sys.executable, "-c", program, str(model.folder)], env=environment, capture_output=True, text=True, check=True)
    assert there.stdout.split() == here


def test_another_run_has_other_uids_but_the_same_device(model: Model) -> None:
    """Design 4.5: a re-analysis has new UIDs; the Device UID belongs to the model build (IHE AIR 6.5.3.1)."""
    images = phantoms.series()
    known = uids(images[0]) | {i.SOPInstanceUID for i in images}
    first, second = ([own(d, known) for d in results(model, images, identity=identity).values()] for identity in ("a" * 64, "b" * 64))
    for a, b in zip(first, second, strict=True):
        assert a & b == {model.device_uid}
        assert all(uid.startswith("2.25.") for uid in a)


def test_a_retry_at_another_moment_keeps_its_uids(model: Model) -> None:
    """Only dates and times depend on the moment."""
    early, late = (results(model, made_at=moment)["SEG"] for moment in (1.7e9, 1.8e9))
    assert own(early, set()) == own(late, set())
    assert early.ContentDate != late.ContentDate


def uids(dataset: Dataset) -> set[str]:
    return {str(e.value) for e in dataset.iterall() if e.VR == "UI" and e.value}


def own(dataset: Dataset, known: set[str]) -> set[str]:
    return {uid for uid in uids(dataset) - known if not uid.startswith("1.2.840.10008.")}


# --------------------------------------------------------------------------------------------------------------- headers


@pytest.mark.parametrize("kind", ["SEG", "SR"])
def test_the_algorithm_is_named_alike_everywhere(model: Model, kind: str) -> None:
    """IHE AIR Table 6.5.3.1-1: contributing equipment, device observer, TID 4019 and the algorithm macro say the same."""
    objects = results(model)
    equipment = [e for e in objects[kind].ContributingEquipmentSequence if e.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"]
    assert len(equipment) == 1
    named = (equipment[0].Manufacturer, equipment[0].ManufacturerModelName, equipment[0].SoftwareVersions, equipment[0].DeviceUID)
    assert named == ("Phantom Works", "lung-phantom", "1.2.0", model.device_uid)
    observer = {code(i): i.get("TextValue") or i.get("UID") for i in objects["SR"].ContentSequence if i.ValueType in ("TEXT", "UIDREF")}
    assert (observer["121014"], observer["121015"], observer["121012"]) == (named[0], named[1], named[3])
    assert all((child(g, "111001").TextValue, child(g, "111003").TextValue) == named[1:3] for g in groups(objects["SR"]))
    for segment in objects["SEG"].SegmentSequence:
        macro = segment.SegmentationAlgorithmIdentificationSequence[0]
        assert (macro.AlgorithmSource, macro.AlgorithmName, macro.AlgorithmVersion) == named[:3]
        assert macro.AlgorithmFamilyCodeSequence[0].CodeValue == "123110"


@pytest.mark.parametrize("kind", ["SEG", "SR"])
def test_a_header_says_whose_it_is_and_that_it_is_research(model: Model, kind: str) -> None:
    """PS3.3 C.7.3.1, C.7.5.2, C.12.1; a Laterality is never written empty."""
    source, made_here = phantoms.series()[0], results(model)[kind]
    for keyword in (*phantoms.PATIENT, *phantoms.STUDY, "StudyInstanceUID", "SpecificCharacterSet"):
        assert made_here[keyword].value == source[keyword].value
    assert made_here.SeriesInstanceUID != source.SeriesInstanceUID
    assert 9000 <= made_here.SeriesNumber < 10000
    assert made_here.SeriesDescription == f"lung-phantom AI research use {kind}"
    assert made_here.Manufacturer, made_here.ManufacturerModelName == ("Phantom Works", "lung-phantom")
    assert (made_here.SoftwareVersions, made_here.DeviceSerialNumber) == ("1.2.0", model.build[:16])
    assert made_here.ContentQualification == "RESEARCH"
    assert (made_here.ContentDate, made_here.ContentTime) == ("20231114", "231320")
    assert "Laterality" not in made_here
    assert "TimezoneOffsetFromUTC" not in made_here
    assert [s.CodingSchemeDesignator for s in made_here.CodingSchemeIdentificationSequence] == ["99PHANTOM"]


def test_the_results_of_one_run_are_apart(model: Model) -> None:
    """One instance in each series (viewers take the last), one series for each kind."""
    seg, sr = results(model).values()
    assert seg.SeriesInstanceUID != sr.SeriesInstanceUID
    assert seg.SeriesNumber != sr.SeriesNumber


def test_times_are_in_the_offset_of_the_images(model: Model) -> None:
    """PS3.3 C.12.1.1.8: the offset holds for every time of the object."""
    for dataset in results(model, phantoms.series(TimezoneOffsetFromUTC="-0330")).values():
        assert dataset.TimezoneOffsetFromUTC == "-0330"
        assert (dataset.SeriesDate, dataset.SeriesTime) == ("20231114", "184320")


def test_what_the_images_lack_is_empty_not_missing(model: Model, tmp_path: Path) -> None:
    """Type 2 attributes of the Patient and General Study modules; odd sources are common."""
    lacking = {"PatientSex": None, "PatientBirthDate": None, "StudyID": "", "AccessionNumber": "", "ReferringPhysicianName": None, "StudyTime": None}
    images = phantoms.series(**lacking, Manufacturer="", SliceThickness="", PositionReferenceIndicator=None)
    for kind, dataset in results(model, images).items():
        assert all(keyword in dataset and not dataset[keyword].value for keyword in lacking)
        path = tmp_path / kind
        path.write_bytes(encode(dataset))
        assert check(path) == ()


CHARACTER_SETS = {
    "Latin-1": ("ISO_IR 100", b"Buc^J\xe9r\xf4me"),
    "Japanese": (["", "ISO 2022 IR 87"], b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B"),
    "Korean": (["", "ISO 2022 IR 149"], b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf"),
    "UTF-8": ("ISO_IR 192", "Wang^XiaoDong=王^小东".encode()),
    "undeclared": (None, b"M\xfcller^J\xf6rg"),
    "wrong": ("ISO_IR 192", b"M\xfcller^J\xf6rg"),
}


@pytest.mark.parametrize("name", CHARACTER_SETS)
def test_a_name_keeps_its_bytes(model: Model, tmp_path: Path, name: str) -> None:
    """IHE RAD App. V: patient and study are copied as they are, also where a name does not keep to its character set."""
    character_set, raw = CHARACTER_SETS[name]
    paths = phantoms.write(phantoms.series(SpecificCharacterSet=character_set, PatientName="X" * len(raw)), tmp_path / "in")
    for path in paths:
        path.write_bytes(path.read_bytes().replace(b"X" * len(raw), raw))
    assembled = made.assembled([dcmread(path) for path in paths])
    for draft in build(made.findings(assembled), {"ct": assembled}, made.run(model)):
        path = tmp_path / draft.kind
        path.write_bytes(encode(draft.dataset))
        assert dcmread(path).get_item("PatientName").value.rstrip(b" ") == raw
        assert dcmread(path).get("SpecificCharacterSet") == assembled.sources[0].get("SpecificCharacterSet")
        assert check(path) == ()


def test_our_own_words_fit_the_studys_character_set(tmp_path: Path) -> None:
    """What we add is spelled in ASCII, unless the study is in UTF-8."""
    model = made.model(tmp_path / "model", made.MANIFEST.replace('"Left lung"', '"Linke Größe ≥ 5 µm"'))
    segs = {name: results(model, phantoms.series(SpecificCharacterSet=name))["SEG"] for name in ("ISO_IR 100", "ISO_IR 192")}
    labels = {name: seg.SegmentSequence[0].SegmentLabel for name, seg in segs.items()}
    assert labels == {"ISO_IR 100": "Linke Grosse >= 5 um", "ISO_IR 192": "Linke Größe ≥ 5 µm"}


def test_sequences_of_an_implicit_source_are_copied(model: Model, tmp_path: Path) -> None:
    """PS3.5 A.1: elements of an implicit source carry no VR, and the result is explicit."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "P1", "99LOCAL", "Chest CT"
    images = phantoms.series(ProcedureCodeSequence=[item])
    for image in images:
        image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    paths = phantoms.write(images, tmp_path / "in")
    assembled = made.assembled([dcmread(path) for path in paths])
    for draft in build(made.findings(assembled), {"ct": assembled}, made.run(model)):
        again = dcmread(BytesIO(encode(draft.dataset)))
        assert again.ProcedureCodeSequence[0].CodeMeaning == "Chest CT"
        assert again.PatientName == "Marked^Patient"


# --------------------------------------------------------------------------------------------------------- segmentation


def test_a_segment_is_described_in_codes_and_words(model: Model) -> None:
    """PS3.3 C.8.20.4: category, type, laterality as modifier, colour; the volume in words, for viewers that show no report."""
    left = results(model)["SEG"].SegmentSequence[0]
    assert (left.SegmentLabel, left.SegmentDescription, left.SegmentAlgorithmType) == ("Left lung", "Left lung, 2310.0 mL", "AUTOMATIC")
    assert left.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "91723000"
    kind = left.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue) == ("39607008", "7771000")
    lightness, a, b = left.RecommendedDisplayCIELabValue  # scaled by PS3.3 C.10.7.1.1
    assert (round(lightness / 655.35), round(a / 257 - 128), round(b / 257 - 128)) == (59, -14, -37)


def test_every_frame_names_its_image_and_its_segment(model: Model) -> None:
    """PS3.3 C.7.6.16.2.6, C.8.20.3.1: OHIF and Weasis map frames to images by the derivation image."""
    images = phantoms.series()
    seg = results(model, images)["SEG"]
    assert (seg.SegmentationType, seg.SegmentsOverlap, seg.NumberOfFrames) == ("BINARY", "NO", 4)
    positions = {i.SOPInstanceUID: i.ImagePositionPatient for i in images}
    assert [i.ReferencedSOPInstanceUID for i in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence] == list(positions)
    found = []
    for frame in seg.PerFrameFunctionalGroupsSequence:
        derivation = frame.DerivationImageSequence[0]
        source = derivation.SourceImageSequence[0]
        assert derivation.DerivationCodeSequence[0].CodeValue == "113076"
        assert (source.PurposeOfReferenceCodeSequence[0].CodeValue, source.SpatialLocationsPreserved) == ("121322", "YES")
        assert frame.PlanePositionSequence[0].ImagePositionPatient == positions[source.ReferencedSOPInstanceUID]
        found.append((frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber, list(positions).index(source.ReferencedSOPInstanceUID)))
    assert found == [(1, 3), (1, 2), (2, 4), (2, 3)]  # slice after slice, from one end to the other


def test_a_single_segment_is_named_in_every_frame(model: Model) -> None:
    """Older viewers look for Segment Identification nowhere else."""
    assembled = made.assembled(phantoms.series())
    only = assembled.volume.array > 500
    seg = results(model, given=made.findings(assembled, segments=assembled.volume.with_array(only)))["SEG"]
    assert [f.SegmentIdentificationSequence[0].ReferencedSegmentNumber for f in seg.PerFrameFunctionalGroupsSequence] == [1, 1]
    assert "SegmentIdentificationSequence" not in seg.SharedFunctionalGroupsSequence[0]
    assert seg.DimensionOrganizationType == "3D"


def test_frames_of_an_enhanced_image_are_named_by_number(model: Model) -> None:
    """PS3.3 C.7.6.16.2.6: Referenced Frame Number where the source has frames."""
    image = phantoms.enhanced()
    seg = results(model, [image])["SEG"]
    sources = [f.DerivationImageSequence[0].SourceImageSequence[0] for f in seg.PerFrameFunctionalGroupsSequence]
    assert {s.ReferencedSOPInstanceUID for s in sources} == {image.SOPInstanceUID}
    assert [int(s.ReferencedFrameNumber) for s in sources] == [4, 3, 5, 4]
    assert len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 1


@pytest.mark.parametrize("view", [lambda v: v.flip_spatial([0, 2]), lambda v: v[1:6, 2:, :], lambda v: v.permute_spatial_axes([2, 0, 1])])
def test_a_lossless_view_of_the_grid_is_undone(model: Model, view: object) -> None:
    """Design 4.4: flips, crops and permutations give the same object as the grid itself."""
    assembled = made.assembled(phantoms.series(orientation="oblique"))
    plain = made.findings(assembled)
    viewed = made.findings(assembled, segments=view(plain.segments))  # type: ignore[operator]
    one, other = (build(f, {"ct": assembled}, made.run(model))[0] for f in (plain, viewed))
    assert encode(one.dataset) == encode(other.dataset)


def test_an_interpolated_slice_has_no_frame(model: Model) -> None:
    """A frame lies on an image; where there was none, nothing is drawn and the report says so."""
    images = phantoms.series()
    whole = made.assembled(images)
    assembled = type(whole)(volume=whole.volume, sources=tuple(s for i, s in enumerate(whole.sources) if i != 3))
    seg, sr = (d.dataset for d in build(made.findings(assembled), {"ct": assembled}, made.run(model)))
    assert seg.NumberOfFrames == 2
    assert any("1 slices of the volume have no image" in text for text in comments(sr))


def test_a_label_map_shows_every_segment_of_a_slice_in_one_frame(model: Model) -> None:
    """PS3.3 A.51 and C.8.20.2 as Supplement 243 has them: a SOP class of its own, the segment's number in each pixel, the background described."""
    assembled = made.assembled(phantoms.series())
    seg, sr = results(model, encoding="LABELMAP").values()
    assert (seg.SOPClassUID, seg.SegmentationType, seg.NumberOfFrames, seg.BitsAllocated) == (LABEL_MAP_CLASS, "LABELMAP", 3, 8)
    assert [(s.SegmentNumber, s.SegmentLabel) for s in seg.SegmentSequence] == [(0, "Background"), (1, "Left lung"), (2, "Right lung")]
    written = dcmread(BytesIO(encode(seg))).pixel_array  # (frame, row, column), from the last slice to the first
    assert np.array_equal(written, made.findings(assembled).segments.array[[4, 3, 2]])
    assert child(groups(sr)[0], "121191").ReferencedSOPSequence[0].ReferencedSOPClassUID == LABEL_MAP_CLASS


def test_a_label_map_is_made_where_every_destination_takes_one() -> None:
    """One object goes to all destinations of a job, and most archives store bit planes only; a remote that is no longer there may come back."""
    new, old = (
        Remote(ae=AE.parse(f"{title}@127.0.0.1:104"), may={"receive"}, **more) for title, more in (("NEW", {"segmentation": "LABELMAP"}), ("OLD", {}))
    )
    config = NodeConfig(remotes={"new": new, "old": old})
    assert [config.encoding(names) for names in (["new"], ["old"], ["new", "old"], ["new", "gone"], [])] == ["LABELMAP", *["BINARY"] * 4]


def test_another_encoding_is_another_object(model: Model) -> None:
    """PS3.5 9: one UID never stands for two objects; only the segmentation is another."""
    plain, mapped = (results(model, encoding=encoding) for encoding in ("BINARY", "LABELMAP"))
    assert plain["SEG"].SOPInstanceUID != mapped["SEG"].SOPInstanceUID
    assert plain["SEG"].SegmentSequence[0].TrackingUID == mapped["SEG"].SegmentSequence[1].TrackingUID


@pytest.mark.parametrize("encoding", ["BINARY", "LABELMAP"])
def test_a_result_is_deflated_to_the_same_bytes_each_time(model: Model, encoding: str) -> None:
    """PS3.5 A.5: what a destination gets deflated is the object on disk, and a retry sends the same bytes."""
    on_disk = encode(results(model, encoding=encoding)["SEG"])
    sent = []
    for _ in range(2):
        file, dataset = BytesIO(), dcmread(BytesIO(on_disk))
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        dataset.save_as(file, enforce_file_format=True)
        sent.append(file.getvalue())
    assert sent[0] == sent[1]
    assert len(sent[0]) < len(on_disk)
    assert dcmread(BytesIO(sent[0])) == dcmread(BytesIO(on_disk))


def test_more_segments_than_a_byte_counts_take_two(tmp_path: Path) -> None:
    """PS3.3 C.8.20.2: a label map has 8 or 16 bits; whatever the manifest describes, only what is present is numbered."""
    described = "".join(
        f'[[segments]]\nnumber = {n}\nlabel = "{n}"\ncategory = "SCT.AnatomicalStructure"\ntype = "SCT.Lung"\n' for n in range(1, 301)
    )
    model = made.model(tmp_path, f'name = "many"\nversion = "1"\ntask = "Counts."\n[inputs.ct]\nModality = "CT"\n{described}')
    assembled = made.assembled(phantoms.series())
    labels = np.zeros(assembled.volume.shape, np.uint16)
    labels[0].reshape(-1)[:299] = range(2, 301)
    seg = results(model, given=Findings(segments=assembled.volume.with_array(labels)), encoding="LABELMAP")["SEG"]
    assert (seg.BitsAllocated, seg["PixelData"].VR, len(seg.SegmentSequence)) == (16, "OW", 300)
    assert np.array_equal(dcmread(BytesIO(encode(seg))).pixel_array, np.where(labels[0], labels[0] - 1, 0))


@pytest.fixture
def unsure(tmp_path: Path) -> Model:
    return made.model(tmp_path / "unsure", made.FRACTIONAL_MANIFEST)


def fractional(model: Model, values: np.ndarray | None = None, **run: object) -> dict[str, Dataset]:
    """Build the objects of a model that gives fractions: of the phantom's blocks, and of a nodule that reaches 0.4 in one voxel."""
    assembled = made.assembled(phantoms.series())
    if values is None:
        values = made.fractions(made.findings(assembled).segments.array)
        values[6, 3, 3, 2] = 0.4
    return results(model, given=made.findings(assembled, segments=made.as_bytes(assembled, values)), **run)


def test_fractions_are_written_in_bytes_without_empty_frames(unsure: Model) -> None:
    """PS3.3 C.8.20.2.3: the type, what stands for 1.0, and whether segments overlap, which is not defined for fractions."""
    seg = fractional(unsure)["SEG"]
    said = (seg.SOPClassUID, seg.SegmentationType, seg.SegmentationFractionalType, seg.MaximumFractionalValue, seg.BitsAllocated, seg.SegmentsOverlap)
    assert said == (SEG_CLASS, "FRACTIONAL", "PROBABILITY", 255, 8, "UNDEFINED")
    written = dcmread(BytesIO(encode(seg))).pixel_array  # (frame, row, column): of each segment the block's two slices, one above, one below
    assert (len(written), seg["PixelData"].VR) == (8, "OB")
    assert [frame.max() for frame in written[[0, 3, 4, 7]]] == [51] * 4
    assert all(frame.max() > 127 for frame in written[[1, 2, 5, 6]])


def test_a_segment_of_fractions_is_there_from_a_half_on(unsure: Model) -> None:
    """A nodule that nobody is sure of is said to be absent, and is not drawn; a volume counts what reaches 0.5."""
    seg, sr = fractional(unsure).values()
    assert [s.SegmentLabel for s in seg.SegmentSequence] == ["Left lung", "Right lung"]
    assert "Looked for and not found: Nodule." in comments(sr)
    assert child(groups(sr)[2], PRESENCE).ConceptCodeSequence[0].CodeValue == ABSENT
    values = np.zeros((8, 24, 20, 3))
    values[..., 0], values[0, 0, :, 0], values[1, 0, 0, 0] = 0.499, 0.5, 127.4 / 255
    counted = made.findings(made.assembled(phantoms.series()), segments=made.as_bytes(made.assembled(phantoms.series()), values), measurements={})
    seg = results(unsure, given=counted)["SEG"]
    assert seg.SegmentSequence[0].SegmentDescription == f"Left lung, {20 * 2.5 * 0.8 * 0.7 / 1000:.1f} mL"
    assert (len(seg.SegmentSequence), seg.NumberOfFrames, seg.SegmentsOverlap) == (1, 8, "NO")


def test_fractions_that_never_reach_a_half_are_a_report_alone(unsure: Model) -> None:
    """A negative result is a result; a segmentation of nothing is never made."""
    assert list(fractional(unsure, np.full((8, 24, 20, 3), 0.49))) == ["SR"]


def test_destinations_that_take_label_maps_get_fractions_as_such(unsure: Model) -> None:
    """One result for all: a label says no fraction, so the destinations' wish does not touch the object."""
    plain, mapped = (fractional(unsure, encoding=encoding) for encoding in ("BINARY", "LABELMAP"))
    assert [encode(dataset) for dataset in plain.values()] == [encode(dataset) for dataset in mapped.values()]


@pytest.mark.parametrize("view", [lambda v: v.flip_spatial([0, 2]), lambda v: v[1:6, 2:, :], lambda v: v.permute_spatial_axes([2, 0, 1])])
def test_a_lossless_view_of_fractions_is_undone(unsure: Model, view: object) -> None:
    """As of a mask; the axis of the segments stays where it is."""
    assembled = made.assembled(phantoms.series())
    given = made.as_bytes(assembled, made.fractions(made.findings(assembled).segments.array))
    seg = results(unsure, given=made.findings(assembled, segments=view(given)))["SEG"]  # type: ignore[operator]
    assert encode(seg) == encode(results(unsure, given=made.findings(assembled, segments=given))["SEG"])


@pytest.mark.parametrize("wrong", [np.zeros((8, 24, 20, 2), np.uint8), np.zeros((8, 24, 20, 3), np.float32), np.zeros((8, 24, 20), np.uint8)])
def test_fractions_that_are_not_settled_are_refused(unsure: Model, wrong: np.ndarray) -> None:
    """Bytes for each segment of the manifest, or nothing."""
    volume = made.assembled(phantoms.series()).volume
    segments = volume.with_array(wrong, {"ReferencedSegmentNumber": range(1, wrong.shape[3] + 1)} if wrong.ndim == 4 else None)
    with pytest.raises(ModelFailed, match="model.toml describes fractions of 3"):
        results(unsure, given=Findings(segments=segments))


def test_an_object_is_written_twice_alike(model: Model) -> None:
    """The pixels lie in a buffer, which writing leaves as it was; looking into the frames changes nothing."""
    seg = results(model)["SEG"]
    once = encode(seg)
    assert len(seg.PerFrameFunctionalGroupsSequence) == seg.NumberOfFrames
    assert encode(seg) == once


def test_a_process_is_warmed_once() -> None:
    """The tables of the standard are read before the first report is written, and not again."""
    program = (
        "import json\nfrom dicom_node.report import warm\nread, loads = [], json.loads\n"
        "json.loads = lambda text, **more: (read.append(len(text)), loads(text, **more))[1]\n"
        "warm(); first = len(read); warm(); print(first > 0, len(read) == first)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["True", "True"]


# ------------------------------------------------------------------------------------------------------------------ report


def test_numbers_are_written_as_the_manifest_rounds_them(model: Model) -> None:
    """TID 300: value, UCUM unit, derivation; tied to the segment by TID 1411."""
    seg, sr = results(model).values()
    left = groups(sr)[0]
    assert (number(left, "118565006"), number(left, "112031")) == ("2310.0", "-812")
    assert child(left, "118565006").MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue == "mL"
    assert child(left, "112031").ContentSequence[0].ConceptCodeSequence[0].CodeValue == "373098007"
    reference = child(left, "121191").ReferencedSOPSequence[0]
    assert (reference.ReferencedSOPInstanceUID, reference.ReferencedSegmentNumber) == (seg.SOPInstanceUID, 1)
    assert phantoms.series()[0].SeriesInstanceUID == child(left, "121232").UID
    assert number(groups(sr)[3], "RATIO") == "0.838"


def test_a_measurement_may_be_of_a_part_of_a_segment(tmp_path: Path) -> None:
    """TID 300: the part is the number's own finding site, on the segment's side; the group's stays the segment."""
    text = (made.model(tmp_path / "whole").folder / "model.toml").read_text()
    text = text.replace("[measurements.volume]\n", '[measurements.volume]\nsite = "SCT.UpperZoneOfLung"\n', 1)
    (folder := tmp_path / "part").mkdir()
    (folder / "model.toml").write_text(text)
    (folder / "analysis.py").write_text("")
    left = groups(results(load_model(folder))["SR"])[0]
    site = child(child(left, "118565006"), "363698007")
    assert site.ConceptCodeSequence[0].CodeValue == "281392002" and site.ContentSequence[0].ConceptCodeSequence[0].CodeMeaning == "Left"
    assert child(left, "363698007").ConceptCodeSequence[0].CodeValue == "39607008"


def test_a_segment_has_one_tracking_uid_in_both_objects(model: Model) -> None:
    """IHE AIR: the same UID in SEG (0062,0021) and SR (112040, DCM); one for each group."""
    seg, sr = results(model).values()
    tracked = [child(g, "112040").UID for g in groups(sr)]
    assert [s.TrackingUID for s in seg.SegmentSequence] == tracked[:2]
    assert len(set(tracked)) == len(tracked) == 5


def test_evidence_lists_every_image_and_the_segmentation(model: Model) -> None:
    """PS3.3 C.17.2: Current Requested Procedure Evidence Sequence; TID 1600: all images in the first group."""
    images = phantoms.series()
    seg, sr = results(model, images).values()
    study = sr.CurrentRequestedProcedureEvidenceSequence[0]
    evidence = [item.ReferencedSOPInstanceUID for series in study.ReferencedSeriesSequence for item in series.ReferencedSOPSequence]
    assert sorted(evidence) == sorted([*(i.SOPInstanceUID for i in images), seg.SOPInstanceUID])
    library = container(sr, "111028").ContentSequence
    listed = [i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for i in library[0].ContentSequence if i.ValueType == "IMAGE"]
    assert (len(library), listed) == (1, [i.SOPInstanceUID for i in images])


def test_a_report_is_unverified_and_preliminary(model: Model) -> None:
    """PS3.3 C.17.2: nobody has read it yet."""
    sr = results(model)["SR"]
    assert (sr.CompletionFlag, sr.VerificationFlag, sr.PreliminaryFlag) == ("COMPLETE", "UNVERIFIED", "PRELIMINARY")
    assert "VerifyingObserverSequence" not in sr


def test_a_report_names_the_report_it_replaces(model: Model) -> None:
    """PS3.3 C.17.2: Predecessor Documents are reports; the earlier segmentation is not one."""
    old = [
        Reference(sop_class_uid=c, sop_instance_uid=f"1.2.{n}", series_instance_uid="1.2.8", study_instance_uid="1.2.9")
        for n, c in enumerate((SEG_CLASS, SR_CLASS))
    ]
    item = results(model, predecessors=tuple(old))["SR"].PredecessorDocumentsSequence[0]
    series = item.ReferencedSeriesSequence[0]
    assert (item.StudyInstanceUID, series.SeriesInstanceUID) == ("1.2.9", "1.2.8")
    assert [i.ReferencedSOPInstanceUID for i in series.ReferencedSOPSequence] == ["1.2.1"]


def test_evaluations_are_coded_answers(model: Model) -> None:
    """TID 1501: at the site, with the images they speak of."""
    group = groups(results(model)["SR"])[3]
    assert child(group, "EMPH").ConceptCodeSequence[0].CodeValue == ABSENT
    assert child(group, "363698007").ConceptCodeSequence[0].CodeValue == "39607008"
    assert sum(code(i) == "121112" for i in group.ContentSequence) == 8


def test_sentences_reach_the_reader(model: Model) -> None:
    """TID 1500 row 14: notes of the analysis and of the assembly, the intended use, what is implausible."""
    said = comments(results(model)["SR"])
    assert {"The base of the lungs is cut off.", "A localizer was left out.", "Research use only; not for diagnosis."} <= set(said)
    assert any(text.startswith("Volume of Nodule is 0.0 mL, outside of what is plausible (0.0 to 5000.0)") for text in said)


def test_a_value_outside_its_range_is_reported_and_remarked(model: Model) -> None:
    """The number stays what it is; the sentence says that it is doubtful."""
    assembled = made.assembled(phantoms.series())
    given = made.findings(assembled, measurements={"volume": {1: 9000.0, 2: 1.0, 3: 1.0}})
    sr = results(model, given=given)["SR"]
    assert number(groups(sr)[0], "118565006") == "9000.0"
    assert [t for t in comments(sr) if "plausible" in t] == [
        "Volume of Left lung is 9000.0 mL, outside of what is plausible (0.0 to 5000.0): the input or the result may be at fault."
    ]


def test_what_was_not_produced_makes_the_report_partial(model: Model) -> None:
    """PS3.3 C.17.2: Completion Flag and its description."""
    assembled = made.assembled(phantoms.series())
    sr = results(model, given=made.findings(assembled, measurements={"volume": {1: 1.0, 2: 1.0}, "mean": {1: 1.0, 2: 1.0}}, evaluations={}))["SR"]
    assert (sr.CompletionFlag, sr.CompletionFlagDescription) == ("PARTIAL", "Not produced: volume of segment 3, ratio, quality, emphysema")


def test_a_number_that_could_not_be_measured_says_why_it_is_missing(model: Model) -> None:
    """PS3.3 C.18.1: no measured value, and the qualifier (114000, DCM)."""
    assembled = made.assembled(phantoms.series())
    measured = {"volume": {1: 1.0, 2: 1.0, 3: 1.0}, "mean": {1: None, 2: 1.0}, "ratio": float("inf"), "quality": 1.0}
    sr = results(model, given=made.findings(assembled, measurements=measured))["SR"]
    item = child(groups(sr)[0], "112031")
    assert len(item.MeasuredValueSequence) == 0
    assert item.NumericValueQualifierCodeSequence[0].CodeValue == "114000"


# -------------------------------------------------------------------------------------------------------- negative results


def test_a_negative_result_is_a_report_without_a_segmentation(model: Model, tmp_path: Path) -> None:
    """IHE AIR: coded absent, volume 0; a segmentation with no frames would be refused by viewers."""
    assembled = made.assembled(phantoms.series())
    nothing = assembled.volume.with_array(np.zeros(assembled.volume.shape, bool))
    measured = {"volume": {1: 0.0, 2: 0.0, 3: 0.0}, "mean": {1: float("nan"), 2: float("nan")}, "ratio": float("nan"), "quality": 97.0}
    objects = results(model, given=made.findings(assembled, segments=nothing, measurements=measured))
    assert list(objects) == ["SR"]
    for group in groups(objects["SR"])[:3]:
        assert (number(group, "118565006"), child(group, PRESENCE).ConceptCodeSequence[0].CodeValue) == ("0.0", ABSENT)
    assert "Looked for and not found: Left lung, Right lung, Nodule." in comments(objects["SR"])
    (tmp_path / "SR").write_bytes(encode(objects["SR"]))
    assert check(tmp_path / "SR") == ()


def test_an_empty_segment_among_others_is_left_out_and_reported_absent(model: Model) -> None:
    """PS3.3 C.8.20.2: numbers without holes; the report refers to the numbers of the object."""
    assembled = made.assembled(phantoms.series())
    labels = made.findings(assembled).segments.array.copy()
    labels[labels == 1] = 0
    seg, sr = results(model, given=made.findings(assembled, segments=assembled.volume.with_array(labels))).values()
    assert [(s.SegmentNumber, s.SegmentLabel) for s in seg.SegmentSequence] == [(1, "Right lung")]
    right, left, nodule = groups(sr)[:3]
    assert child(right, "121191").ReferencedSOPSequence[0].ReferencedSegmentNumber == 1
    assert seg.SegmentSequence[0].TrackingUID == child(right, "112040").UID
    assert [child(g, "112039").TextValue for g in (left, nodule)] == ["Left lung", "Nodule"]


# ------------------------------------------------------------------------------------------------------------------ faults


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"measurements": {"weight": 1.0}}, "measurements 'weight', unknown"),
        ({"measurements": {"volume": 1.0}}, "one number for 3 segments"),
        ({"measurements": {"mean": {3: 1.0}}}, "given for segment 3"),
        ({"evaluations": {"emphysema": "perhaps"}}, "answered 'perhaps'; model.toml lists yes, no"),
    ],
)
def test_findings_that_the_manifest_does_not_describe_are_the_models_fault(model: Model, change: dict[str, object], said: str) -> None:
    """The manifest says what numbers mean; what it does not know cannot be said."""
    with pytest.raises(ModelFailed, match=said):
        results(model, given=made.findings(made.assembled(phantoms.series()), **change))


@pytest.mark.parametrize("fault", ["number", "fraction", "voxels", "place"])
def test_a_mask_off_the_grid_is_the_models_fault(model: Model, fault: str) -> None:
    """Nothing is resampled here: a mask is on the input's grid, or it is refused."""
    assembled = made.assembled(phantoms.series())
    labels = made.findings(assembled).segments
    other = made.assembled(phantoms.series(spacing_mm=(2.5, 0.4, 0.7) if fault == "voxels" else (2.5, 0.8, 0.7), origin_mm=(-31.3, -42.2, 17.7)))
    wrong = {
        "number": labels.with_array(labels.array * 4),
        "fraction": labels.with_array(labels.array * np.float32(0.5)),
        "voxels": other.volume.with_array(labels.array),
        "place": other.volume.with_array(labels.array),
    }[fault]
    with pytest.raises(ModelFailed):
        results(model, given=made.findings(assembled, segments=wrong))


def test_images_without_a_frame_of_reference_cannot_carry_a_segmentation(model: Model) -> None:
    """PS3.3 C.7.4.1: the segmentation's frame of reference is its source's."""
    with pytest.raises(Unsuitable, match="frame of reference"):
        results(model, phantoms.series(FrameOfReferenceUID=None))


def test_a_volume_that_is_not_its_images_is_noticed(model: Model) -> None:
    """A mask must never be laid over other images than those it was made on."""
    here, elsewhere = (made.assembled(phantoms.series(origin_mm=(0, 0, z))) for z in (0.0, 101.0))
    mixed = type(here)(volume=here.volume, sources=elsewhere.sources)
    with pytest.raises(Rejected):
        build(made.findings(mixed), {"ct": mixed}, made.run(model))


# ------------------------------------------------------------------------------------------------------------------- check


def test_the_check_finds_what_the_standard_forbids_and_tells_no_value(model: Model, tmp_path: Path) -> None:
    """Promise 2: nothing invalid leaves; no identity of a patient in a message."""
    drafts = [Draft(kind=kind, dataset=dataset) for kind, dataset in results(model).items()]
    seg = drafts[0].dataset
    del seg.SegmentSequence[0].SegmentAlgorithmType
    seg["ContentLabel"]._value = "Marked^Patient </PatientName>"
    path = tmp_path / "seg.dcm"
    path.write_bytes(encode(seg))
    problems = check(path)
    assert any("SegmentAlgorithmType" in problem for problem in problems)
    assert any("ContentLabel" in problem for problem in problems)
    assert not any("Marked" in problem for problem in problems)


def test_the_check_leaves_the_studys_own_values_alone(model: Model, tmp_path: Path) -> None:
    """What is copied verbatim from the images is theirs: a sex of U or a date with dots does not stop a result."""
    odd = phantoms.series()
    for image in odd:
        image["PatientSex"]._value, image["PatientBirthDate"]._value, image["PatientAge"]._value = "U", "1950.01.02", "74"
    for kind, dataset in results(model, odd).items():
        path = tmp_path / kind
        path.write_bytes(encode(dataset))
        assert (dataset.PatientSex, check(path)) == ("U", ())


@pytest.mark.parametrize("value", ["quick brown", "Quixotry\nError in line 2", "<Quixotry", "= <Quixotry", "Quixotry^Zephyrine > and > more"])
def test_no_part_of_a_value_stands_in_a_problem(model: Model, tmp_path: Path, value: str) -> None:
    """The checker quotes values, breaks them over lines, and spells out what it does not like letter by letter."""
    seg = results(model)["SEG"]
    seg["ContentLabel"]._value = value  # CS: no small letters, no signs
    (tmp_path / "seg.dcm").write_bytes(encode(seg))
    problems = check(tmp_path / "seg.dcm")
    assert problems
    assert not [problem for problem in problems if any(word in problem for word in ("Quix", "Zeph", "quick", "'q'", "more", "line 2"))]


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("BodyPartExamined", "Chest wall"),
        ("BodyPartExamined", "CHEST_ABDOMEN_AND_PELVIS"),
        ("StationName", "CT scanner in room 4, ground floor"),
        ("Manufacturer", "A" * 80),
        ("ManufacturerModelName", ["A", "B"]),
        ("DeviceSerialNumber", "4711\n"),
        ("InstitutionName", "Hospital\r\nRadiology"),
        ("PositionReferenceIndicator", "X" * 80),
    ],
)
def test_what_a_scanner_writes_wrongly_does_not_stop_a_result(model: Model, tmp_path: Path, keyword: str, value: object) -> None:
    """PS3.5 Table 6.2-1: what is copied only because it is useful is left out where it is not valid."""
    odd = phantoms.series()
    for image in odd:
        setattr(image, keyword, "")
        image[keyword]._value = value
    for kind, dataset in results(model, odd).items():
        (tmp_path / kind).write_bytes(encode(dataset))
        assert check(tmp_path / kind) == ()
        assert keyword not in dataset or dataset[keyword].value != value


def test_a_file_that_is_no_object_does_not_pass(tmp_path: Path) -> None:
    """Silence of the checker is not a pass."""
    (tmp_path / "no.dcm").write_bytes(b"this is not DICOM")
    assert check(tmp_path / "no.dcm")
