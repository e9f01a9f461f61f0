"""Results as others read them: the validators of DICOM, and the readers inside viewers."""

import json
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pytest
import SimpleITK
from pydicom import Dataset, dcmread

from dicom_node.config import load_model
from dicom_node.domain import Assembled
from dicom_node.picture.files import scene
from dicom_node.report import Observer, build, check, encode, verified
from dicom_node.work import try_model
from tests import findings as made
from tests import phantoms
from tests.conformance.viewers import objections_to_report, objections_to_segmentation
from tests.peers import need, need_file, packaged

SOURCES: dict[str, Callable[[], list[Dataset]]] = {
    "axial": phantoms.series,
    "axial, feet first": lambda: phantoms.series()[::-1],
    "coronal": lambda: phantoms.series(orientation="coronal"),
    "sagittal": lambda: phantoms.series(orientation="sagittal"),
    "oblique": lambda: phantoms.series(orientation="oblique"),
    "MR": lambda: phantoms.series(modality="MR", orientation="sagittal", rescale=None),
    "odd size": lambda: phantoms.series(phantoms.marked((8, 23, 19))),
    "one slice": lambda: phantoms.series()[3:4],
    "Enhanced CT": lambda: [phantoms.enhanced(orientation="oblique")],
    "Enhanced MR": lambda: [phantoms.enhanced(modality="MR")],
}
ENCODINGS = ("BINARY", "LABELMAP", "FRACTIONAL")
MODELS = Path(__file__).parents[1] / "models"


class Results:
    """One phantom, what was found on it, and the objects on disk."""

    def __init__(self, folder: Path, images: list[Dataset], encoding: str, segments: Sequence[int]) -> None:
        self.images = images
        self.inputs = phantoms.write(images, folder / "in")
        self.assembled = made.assembled(images)
        self.labels = _labels(self.assembled) * np.isin(_labels(self.assembled), segments)
        self.fractions = made.fractions(self.labels)  # where they are at least a half are the labels
        model, given, run = made.model(folder / "model"), self.assembled.volume.with_array(self.labels), {"encoding": encoding}
        if encoding == "FRACTIONAL":
            model, given, run = made.model(folder / "model", made.FRACTIONAL_MANIFEST), made.as_bytes(self.assembled, self.fractions), {}
        self.objects: dict[str, Path] = {}
        for draft in build(made.findings(self.assembled, segments=given), {"ct": self.assembled}, made.run(model, **run)):
            self.objects[draft.kind] = folder / f"{draft.kind}.dcm"
            self.objects[draft.kind].write_bytes(encode(draft.dataset))

    def points(self, number: int) -> set[tuple[float, ...]]:
        """Return the centres of a segment's voxels in the patient's millimetres, to a hundredth."""
        return _points(np.argwhere(self.labels == number), self.assembled.volume.affine)


def _labels(assembled: Assembled) -> np.ndarray:
    """Return both blocks, or on a single slice two spots."""
    labels = np.zeros(assembled.volume.shape, np.uint8)
    for number, marker in ((1, made.LEFT), (2, made.RIGHT)):
        labels[phantoms.block(marker) if len(labels) > 1 else (0, *phantoms.block(marker)[1:])] = number
    return labels


def _points(indices: np.ndarray, affine: np.ndarray) -> set[tuple[float, ...]]:
    return {tuple(point) for point in np.round(indices @ affine[:3, :3].T + affine[:3, 3], 2) + 0.0}


@pytest.fixture(scope="module")
def of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Results]:
    """Return the results of a source, made once, with the segmentation in the encoding asked for."""

    @cache
    def results(name: str, encoding: str = "BINARY", segments: tuple[int, ...] = (1, 2)) -> Results:
        return Results(tmp_path_factory.mktemp("results"), SOURCES[name](), encoding, segments)

    return results


def run(*command: object) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", SOURCES)
def test_every_object_passes_dciodvfy(of: Callable[..., Results], name: str, encoding: str) -> None:
    """PS3.3 A.51, A.35.13: no error, whatever the source."""
    assert {kind: check(path) for kind, path in of(name, encoding).objects.items()} == {"SEG": (), "SR": ()}


OURS = (  # attributes of a segmentation that say whose it is, when and by what it was made, or that we write otherwise on purpose
    *("SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "StationName", "InstanceCreatorUID", "ContentQualification"),
    *("SeriesDate", "SeriesTime", "ContentDate", "ContentTime", "InstanceCreationDate", "InstanceCreationTime", "ContentLabel"),
    *("ContentDescription", "ContentCreatorName"),
    *("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "DeviceSerialNumber", "ContributingEquipmentSequence"),
    *("CodingSchemeIdentificationSequence", "TimezoneOffsetFromUTC", "DimensionOrganizationSequence", "BodyPartExamined"),
    *("SourceImageSequence", "ReferencedSeriesSequence"),  # highdicom names an image under several frames several times
)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("segments", [(1, 2), (1,)])
@pytest.mark.parametrize("name", SOURCES)
def test_a_segmentation_is_what_highdicom_would_make_of_the_same_images(
    of: Callable[..., Results], name: str, segments: tuple[int, ...], encoding: str
) -> None:
    """The frames are our own bytes; attribute for attribute they are those that the owner of the object writes (PS3.3 A.51, C.7.6.16)."""
    results = of(name, encoding, segments)
    ours, theirs = dcmread(results.objects["SEG"]), _by_highdicom(results, encoding)
    _without_what_differs(ours)
    _without_what_differs(theirs)
    assert [element.keyword for element in ours] == [element.keyword for element in theirs]
    for element in theirs:
        assert ours[element.tag].value == element.value, element.keyword
        assert ours[element.tag].VR == element.VR or element.keyword in ("PixelData", "PixelPaddingValue")


def _by_highdicom(results: Results, encoding: str) -> Dataset:
    described = [item for item in dcmread(results.objects["SEG"]).SegmentSequence if item.SegmentNumber]
    seg = highdicom.seg.Segmentation(
        source_images=results.images,
        pixel_array=results.fractions[..., : len(described)] if encoding == "FRACTIONAL" else results.labels,
        segmentation_type=encoding,
        segment_descriptions=[highdicom.seg.SegmentDescription.from_dataset(item) for item in described],
        series_instance_uid="1.2.3",
        series_number=1,
        sop_instance_uid="1.2.3",
        instance_number=1,
        manufacturer="x",
        manufacturer_model_name="x",
        software_versions="x",
        device_serial_number="x",
    )
    file = BytesIO()
    if "PixelPaddingValue" in seg:
        seg["PixelPaddingValue"].VR = "US"
    seg.save_as(file, enforce_file_format=True)
    file.seek(0)
    return dcmread(file)


def _without_what_differs(seg: Dataset) -> None:
    for item in seg.DimensionIndexSequence:
        del item.DimensionOrganizationUID
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.SpacingBetweenSlices = round(measures.SpacingBetweenSlices, 6)  # ours is reckoned where a multi-frame source states one
    if seg.PixelData.endswith(b"0"):
        seg.PixelData = seg.PixelData[:-1] + b"\0"  # PS3.5 8.1.1: padding is null, and highdicom's is the character
    identification = seg.SharedFunctionalGroupsSequence[0].pop("SegmentIdentificationSequence", None)
    for frame in seg.PerFrameFunctionalGroupsSequence if identification else ():
        frame.add(identification)  # we name the segment in every frame
    for keyword in OURS:
        seg.pop(keyword, None)


@pytest.mark.parametrize("name", ["oblique", "MR"])
def test_results_agree_with_their_images_on_patient_and_study(of: Callable[..., Results], name: str) -> None:
    """dcentvfy: the same entity has the same attributes across inputs and outputs, and no UID is used twice."""
    results = of(name)
    said = run(packaged("dcentvfy"), *results.inputs, *results.objects.values())
    assert "Error" not in said
    assert all("Different information entities" in line for line in said.splitlines())  # Accession Number is in two modules


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", SOURCES)
def test_dcmqi_reads_the_same_voxels(of: Callable[..., Results], name: str, encoding: str, tmp_path: Path) -> None:
    """What 3D Slicer imports lies on the same points of the patient, in the same colour, under the same name."""
    results = of(name, encoding)
    run(packaged("segimage2itkimage"), "--inputDICOM", results.objects["SEG"], "--outputDirectory", tmp_path, "--outputType", "nrrd")
    described = [one for group in json.loads((tmp_path / "meta.json").read_text())["segmentAttributes"] for one in group]
    assert {one["labelID"]: one["SegmentLabel"] for one in described} == {1: "Left lung", 2: "Right lung"}
    assert [one["recommendedDisplayRGBValue"] for one in described] == [[0, 151, 206], [216, 101, 79]]
    read: dict[int, set[tuple[float, ...]]] = {1: set(), 2: set()}
    for path in tmp_path.glob("*.nrrd"):
        image = SimpleITK.ReadImage(str(path))
        array = SimpleITK.GetArrayFromImage(image)  # (slice, row, column)
        for number in read:
            if encoding != "FRACTIONAL":
                read[number] |= _points(np.argwhere(array == number), _affine_of(image))
            elif path.stem == str(number):  # one file for each segment, which holds its bytes
                read[number] |= _points(np.argwhere(array >= 128), _affine_of(image))
                assert sorted(array[array > 0]) == sorted(np.rint(results.fractions[results.fractions[..., number - 1] > 0, number - 1] * 255))
    for number, points in read.items():
        assert _same_points(points, results.points(number), tolerance_mm=0.02)


def _affine_of(image: SimpleITK.Image) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = (np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing())[:, ::-1]
    matrix[:3, 3] = image.GetOrigin()
    return matrix


def _same_points(some: set[tuple[float, ...]], others: set[tuple[float, ...]], *, tolerance_mm: float) -> bool:
    a, b = np.array(sorted(some)), np.array(sorted(others))
    return len(a) == len(b) and bool((np.linalg.norm(a[:, None] - b[None], axis=2).min(axis=1) < tolerance_mm).all())


@pytest.mark.parametrize("name", ["axial", "Enhanced CT"])
def test_dcmqi_reads_the_same_numbers(of: Callable[..., Results], name: str, tmp_path: Path) -> None:
    """tid1500reader: quantity, unit, value, segment and site of every group; verification and completion."""
    results = of(name)
    run(packaged("tid1500reader"), "--inputDICOM", results.objects["SR"], "--outputMetadata", tmp_path / "sr.json")
    read = json.loads((tmp_path / "sr.json").read_text())
    numbers = {group["TrackingIdentifier"]: dict(map(_quantity, group["measurementItems"])) for group in read["Measurements"]}
    assert numbers == {
        "Left lung": {"Volume": (2310.0, "mL"), "Attenuation Coefficient": (-812.0, "[hnsf'U]")},
        "Right lung": {"Volume": (2755.0, "mL"), "Attenuation Coefficient": (-807.0, "[hnsf'U]")},
        "Nodule": {"Volume": (0.0, "mL")},
        "Lung, lung-phantom": {"Left to right ratio": (0.838, "1")},
        "lung-phantom": {"Image quality": (97.0, "%")},
    }
    assert [group.get("ReferencedSegment") for group in read["Measurements"]] == [1, 2, None, None, None]
    assert [group["Laterality"]["CodeMeaning"] for group in read["Measurements"][:2]] == ["Left", "Right"]
    assert read["Measurements"][0]["segmentationSOPInstanceUID"] == dcmread(results.objects["SEG"]).SOPInstanceUID
    assert (read["VerificationFlag"], read["CompletionFlag"], read["observerContext"]["ObserverType"]) == ("UNVERIFIED", "COMPLETE", "DEVICE")


@pytest.mark.parametrize("name", ["axial", "Enhanced CT"])
def test_dcmqi_reads_the_same_of_a_report_that_a_person_verified(of: Callable[..., Results], name: str, tmp_path: Path) -> None:
    """tid1500reader and dciodvfy: a valid IOD, VERIFIED, with the same groups and numbers."""
    first = of(name).objects["SR"]
    again = tmp_path / "verified.dcm"
    again.write_bytes(encode(verified(dcmread(first), Observer(name="Anna Berg", organization="Klinikum Nord", at=1_700_086_400.0)).dataset))
    assert check(again) == ()
    read = []
    for path in (first, again):
        run(packaged("tid1500reader"), "--inputDICOM", path, "--outputMetadata", tmp_path / "sr.json")
        read.append(json.loads((tmp_path / "sr.json").read_text()))
    assert [one["VerificationFlag"] for one in read] == ["UNVERIFIED", "VERIFIED"]
    assert read[0]["Measurements"] == read[1]["Measurements"]


def _quantity(item: dict[str, Any]) -> tuple[str, tuple[float, str]]:
    return item["quantity"]["CodeMeaning"], (float(item["value"]), item["units"]["CodeValue"])


@pytest.mark.parametrize("name", SOURCES)
def test_ohif_would_show_the_results(of: Callable[..., Results], name: str) -> None:
    """Its own preconditions, which it does not all check before it fails."""
    results = of(name)
    seg, sr = (dcmread(results.objects[kind]) for kind in ("SEG", "SR"))
    assert [*objections_to_segmentation(seg, results.images), *objections_to_report(sr, results.images)] == []


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", ["coronal", "sagittal", "oblique", "Enhanced CT"])
def test_an_asymmetric_marker_returns_to_its_side(of: Callable[..., Results], name: str, encoding: str) -> None:
    """A mirrored result is the most dangerous defect: the marker's centre is where the phantom has it, within half a voxel."""
    results = of(name, encoding)
    orientation = {"Enhanced CT": "oblique"}.get(name, name)
    truth = phantoms.affine(orientation) @ [*(start + (size - 1) / 2 for start, size in zip(made.LEFT, (2, 3, 4), strict=True)), 1]
    volume = highdicom.seg.segread(results.objects["SEG"]).get_volume(segment_numbers=[1])
    found = volume.affine @ [*np.argwhere(volume.array[..., 0] >= 0.5).mean(axis=0), 1]
    assert np.linalg.norm(found[:3] - truth[:3]) < 0.35  # half of the smallest voxel edge
    brightest = np.argwhere(results.assembled.volume.array > 500).mean(axis=0)
    assert np.allclose(results.assembled.volume.affine @ [*brightest, 1], truth, atol=1e-3)


@pytest.mark.parametrize("name", SOURCES)
def test_fractions_come_back_as_they_were_within_a_255th(of: Callable[..., Results], name: str) -> None:
    """PS3.3 C.8.20.2.3: a stored value divided by Maximum Fractional Value; slices in which all is 0 are left out and come back as 0."""
    results = of(name, "FRACTIONAL")
    seg = highdicom.seg.segread(results.objects["SEG"])
    assert seg.NumberOfFrames == np.count_nonzero(results.fractions.any(axis=(1, 2)))
    read = seg.get_volume().match_geometry(results.assembled.volume) if len(results.fractions) > 1 else seg.get_volume()
    assert np.abs(read.array - results.fractions[..., :2]).max() <= 0.5 / 255 + 1e-6


def test_what_a_model_is_unsure_of_is_written_as_it_said_it(tmp_path: Path) -> None:
    """From the model's process through the contract to a valid object: what never reaches a half is not there, and the report says so."""
    trial = try_model(load_model(MODELS / "unsure"), phantoms.write(phantoms.series(), tmp_path / "in"), tmp_path / "out")
    assert (trial.problems, [path.name for path in trial.objects]) == ((), ["1-seg.dcm", "2-sr.dcm"])
    image = made.assembled(phantoms.series()).volume.array
    told = (image - image.min()) / (image.max() - image.min())
    seg = highdicom.seg.segread(trial.objects[0])
    assert [item.SegmentLabel for item in seg.SegmentSequence] == ["Liver"]
    read = seg.get_volume().match_geometry(made.assembled(phantoms.series()).volume)
    assert np.abs(read.array[..., 0] - told).max() <= 0.5 / 255 + 1e-6
    (drawn,) = scene(trial.sources, trial.objects[0]).segments  # as a picture shows it
    assert drawn.volume_ml == pytest.approx(np.count_nonzero(told >= 0.5) * 2.5 * 0.8 * 0.7 / 1000)


@pytest.mark.slow
def test_pixelmeds_template_checker_finds_no_error(of: Callable[..., Results], tmp_path: Path) -> None:
    """PS3.16 TID 1500, 1411 and 1501, by the checker that IHE uses.

    It chooses one template for all measurement groups of a report, so that a report holding both kinds is checked once with each.
    """
    whole = dcmread(of("axial").objects["SR"])
    parts = {template: _with_groups(whole, template) for template in ("1411", "1501")}
    for template, part in parts.items():
        part.save_as(tmp_path / f"{template}.dcm")
    with ThreadPoolExecutor() as pool:
        said = dict(zip(parts, pool.map(_pixelmed, (tmp_path / f"{template}.dcm" for template in parts)), strict=True))
    for template, text in said.items():
        assert "Found Root Template TID_1500" in text
        assert "Root Template Validation Complete" in text
        assert [line for line in text.splitlines() if line.startswith("Error")] == [], template
        assert "different code meaning" not in text


def _with_groups(sr: Dataset, template: str) -> Dataset:
    part = deepcopy(sr)
    measured = next(item for item in part.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "126010")
    kept = [group for group in measured.ContentSequence if group.ContentTemplateSequence[0].TemplateIdentifier == template]
    assert kept
    measured.ContentSequence = kept
    return part


def _pixelmed(path: Path) -> str:
    options = ["-XX:TieredStopAtLevel=1", *(f"-Djdk.xml.xpath{name}Limit=0" for name in ("TotalOp", "ExprOp", "ExprGrp"))]
    jar = need_file("/usr/share/java/pixelmed.jar")
    return run(need("java"), *options, "-cp", jar, "com.pixelmed.validate.DicomSRValidator", path)
