"""The hospital in a box: its studies are valid, its patients are nobody, and its pictures are the right way round."""

import hashlib
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pytest
import SimpleITK
from highdicom.color import CIELabColor
from PIL import Image
from pydicom import dcmread
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from scipy.spatial.transform import Rotation

from dicom_node.domain import Unsuitable, is_uid
from dicom_node.picture import picture
from dicom_node.picture.files import scene
from dicom_node.picture.scene import AXIAL, CORONAL, SAGITTAL
from dicom_node.simulate import samples
from dicom_node.simulate.reading import findings
from dicom_node.simulate.scanner import Answer, Pushed
from tests.peers import need

BOX = (slice(3, 5), slice(4, 9), slice(20, 28))  # of the marker: low, in front, on the left
BLUE = (90, 190, 255)


def phantom(angles_deg: tuple[float, float, float] = (0, 0, 0)) -> Any:
    """Return a body with a bright marker, 12 slices of 24 x 32, counted towards head, back and left (and then turned)."""
    values = np.full((12, 24, 32), -1000, np.int16)
    values[1:11, 2:22, 2:30] = 40
    values[BOX] = 300
    turned = Rotation.from_euler("xyz", angles_deg, degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turned @ np.array([[0, 0, 2.0], [0, 2.0, 0], [5.0, 0, 0]])
    affine[:3, 3] = (-30, -20, 100)
    return highdicom.Volume(values, affine, coordinate_system="PATIENT")


def written(folder: Path, volume: Any, name: str = "chest-ct", run: str = "1") -> list[Path]:
    """Write a phantom as the named sample's scanner would."""
    folder.mkdir(exist_ok=True)
    paths = []
    for number, dataset in enumerate(samples.slices(volume, samples.PROTOCOLS[name], name, run)):
        paths.append(folder / f"{number:02d}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def segmented(files: list[Path], into: Path, colour: tuple[int, int, int] = BLUE) -> Path:
    """Write a segmentation of the marker."""
    images = [dcmread(path) for path in files]
    volume = highdicom.get_volume_from_series(images)
    algorithm = highdicom.AlgorithmIdentificationSequence(name="marker-ct", version="1.0", family=codes.cid7162.ArtificialIntelligence)
    description = highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label="Marker",
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=codes.SCT.Lung,
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
        display_color=CIELabColor.from_rgb(*colour),
    )
    seg = highdicom.seg.Segmentation(
        images,
        volume.with_array((volume.array == 300).astype(np.uint8)),
        "BINARY",
        [description],
        series_instance_uid="2.25.11",
        series_number=9001,
        sop_instance_uid="2.25.12",
        instance_number=1,
        manufacturer="dicom-node project",
        manufacturer_model_name="marker-ct",
        software_versions="1.0",
        device_serial_number="1",
    )
    seg.save_as(into)
    return into


# --------------------------------------------------------------------------------------------------------------- samples


@pytest.mark.parametrize("name", samples.PROTOCOLS)
def test_what_the_scanner_makes_is_a_valid_object(name: str, tmp_path: Path) -> None:
    """PS3.3 A.3 and A.4: dciodvfy finds neither an error nor a warning, on an oblique stack too."""
    volume = phantom((10, 5, 20))
    shifted = volume.with_array(np.maximum(volume.array, 0).astype(np.int16)) if name == "head-mr" else volume
    for path in written(tmp_path, shifted, name)[:2]:
        done = subprocess.run([need("dciodvfy"), str(path)], capture_output=True, text=True, check=False)
        assert done.returncode == 0
        assert "Error" not in done.stdout + done.stderr
        assert "Warning" not in done.stdout + done.stderr


@pytest.mark.parametrize("angles_deg", [(0, 0, 0), (20, -10, 25)])
@pytest.mark.parametrize("name", samples.PROTOCOLS)
def test_every_voxel_keeps_its_value_and_its_place(name: str, angles_deg: tuple[float, float, float], tmp_path: Path) -> None:
    """PS3.3 C.7.6.2.1.1: position and orientation of the images give back the volume they were cut from."""
    volume = phantom(angles_deg)
    volume = volume.with_array(np.maximum(volume.array, 0).astype(np.int16)) if name == "head-mr" else volume
    images = [dcmread(path) for path in written(tmp_path, volume, name)]
    back = highdicom.get_volume_from_series(images, dtype=np.float32)
    place = back.map_indices_to_reference(np.argwhere(back.array == 300)).mean(axis=0)
    assert place == pytest.approx(volume.map_indices_to_reference(np.argwhere(volume.array == 300)).mean(axis=0), abs=1e-3)
    assert np.array_equal(np.sort(back.array, axis=None), np.sort(volume.array, axis=None))


def test_a_ct_is_axial_and_counts_from_foot_to_head() -> None:
    """PS3.3 C.7.6.2.1.1: rows run to the patient's left, columns to the back; the head comes last."""
    images = list(samples.slices(phantom(), samples.PROTOCOLS["chest-ct"], "chest-ct", "1"))
    assert images[0].ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
    assert [image.ImagePositionPatient[2] for image in images] == [100 + 5 * n for n in range(12)]
    assert [image.InstanceNumber for image in images] == list(range(1, 13))


def test_an_mr_is_sagittal() -> None:
    """PS3.3 C.7.6.2.1.1: rows run to the back, columns to the feet."""
    images = list(samples.slices(phantom().with_array(np.zeros((12, 24, 32), np.int16)), samples.PROTOCOLS["head-mr"], "head-mr", "1"))
    assert len(images) == 32
    assert images[0].ImageOrientationPatient == [0, 1, 0, 0, 0, -1]
    assert (images[0].Rows, images[0].Columns) == (12, 24)


def test_values_outside_the_scanners_circle_survive() -> None:
    """PS3.3 C.11.1: -2048 HU lies below the intercept; stored values are signed and rescale to what was measured."""
    volume = phantom().with_array(np.full((12, 24, 32), -2048, np.int16))
    image = next(samples.slices(volume, samples.PROTOCOLS["chest-ct"], "chest-ct", "1"))
    assert set(image.pixel_array.ravel() * image.RescaleSlope + image.RescaleIntercept) == {-2048}
    assert image.PixelPaddingValue + image.RescaleIntercept == -2048


def test_one_run_gives_the_same_bytes_and_another_run_another_study_of_the_same_patient(tmp_path: Path) -> None:
    """A scanner can send the same study again, or a new one."""
    first, again, other = (written(tmp_path / folder, phantom(), run=run) for folder, run in (("a", "1"), ("b", "1"), ("c", "2")))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    old, new = dcmread(first[0]), dcmread(other[0])
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID", "AccessionNumber"):
        assert old[keyword].value != new[keyword].value
    assert (old.PatientID, old.PatientName) == (new.PatientID, new.PatientName)
    assert len({dcmread(path).SOPInstanceUID for path in first}) == len(first)
    assert is_uid(str(old.StudyInstanceUID))


@pytest.mark.parametrize("name", samples.PROTOCOLS)
def test_the_patient_is_invented_and_says_so(name: str) -> None:
    """PS3.3 C.7.1.1: Patient Identity Removed, and names that nobody has."""
    header = samples.PROTOCOLS[name].header
    assert header["PatientName"].startswith("DEMO^")
    assert header["PatientID"].startswith("DEMO-")
    assert header["PatientIdentityRemoved"] == "YES"


@pytest.mark.parametrize("name", samples.SAMPLES)
def test_every_sample_says_whose_it_is_and_under_which_licence(name: str) -> None:
    """What others published is used under their conditions and named."""
    assert samples.SAMPLES[name].citation
    assert samples.SAMPLES[name].licence
    assert len(samples.SAMPLES[name].packaged.sha256) == len(samples.SAMPLES[name].packaged.package_sha256) == 64


def test_files_are_made_once_from_the_published_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second demonstration does not wait for the first one's work, and a folder that is there is whole."""
    volume = phantom()
    image = SimpleITK.GetImageFromArray(volume.array)
    image.SetSpacing((2, 2, 5))
    image.SetOrigin((-30, -20, 100))
    published = tmp_path / "samples" / "chest-ct.nii.gz"
    published.parent.mkdir()
    SimpleITK.WriteImage(image, published)
    pinned = replace(samples.SAMPLES["chest-ct"].packaged, sha256=hashlib.sha256(published.read_bytes()).hexdigest())
    monkeypatch.setitem(samples.SAMPLES, "chest-ct", replace(samples.SAMPLES["chest-ct"], packaged=pinned))
    monkeypatch.setenv("DICOM_NODE_CACHE", str(tmp_path))
    said: list[str] = []
    first = samples.sample_files("chest-ct", say=said.append)
    assert samples.sample_files("chest-ct", say=said.append) == first
    assert said == ["making DICOM of chest-ct"]
    assert [path.name for path in first] == [f"{number:04d}.dcm" for number in range(1, 13)]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in written(tmp_path / "direct", volume)]
    other = samples.sample_files("chest-ct", run="2", into=tmp_path / "elsewhere")
    assert len(other) == 12
    assert len(list((tmp_path / "elsewhere").iterdir())) == 1


# --------------------------------------------------------------------------------------------------------------- scanner


@pytest.mark.parametrize(("status", "stored"), [(0x0000, True), (0xB000, True), (0xB007, True), (0xA700, False), (0xC000, False), (None, False)])
def test_a_warning_counts_as_stored_and_silence_does_not(status: int | None, stored: bool) -> None:
    """PS3.4 Table B.2-1: a warning's object was kept."""
    pushed = Pushed(answers=(Answer(sop_instance_uid="1.2", status=status),), seconds=0.1)
    assert pushed.sent == int(stored)
    assert pushed.failed == ({} if stored else {"1.2": status})
    assert pushed.acknowledged == (frozenset({"1.2"}) if stored else frozenset())


# ---------------------------------------------------------------------------------------------------------------- viewer


def centre(mask: Any) -> tuple[float, float]:
    """Return how far down and to the right a mask lies, from 0 to 1."""
    down, right = (np.argwhere(mask).mean(axis=0) + 0.5) / mask.shape
    return float(down), float(right)


@pytest.mark.parametrize("name", samples.PROTOCOLS)
def test_the_patients_left_is_on_the_pictures_right(name: str, tmp_path: Path) -> None:
    """Radiological convention, from whatever plane the images were acquired in: the marker lies left, in front, low."""
    volume = phantom()
    volume = volume.with_array(np.maximum(volume.array, 0).astype(np.int16)) if name == "head-mr" else volume
    files = written(tmp_path, volume, name)
    shown = scene(files, segmented(files, tmp_path / "seg.dcm"))
    mask = shown.segments[0].mask
    down, right = centre(AXIAL.cut(mask, shown.best(AXIAL)))
    assert down < 0.4 and right > 0.6
    down, right = centre(CORONAL.cut(mask, shown.best(CORONAL)))
    assert down > 0.5 and right > 0.6
    down, right = centre(SAGITTAL.cut(mask, shown.best(SAGITTAL)))
    assert down > 0.5 and right < 0.4
    assert (shown.letters(AXIAL), shown.letters(CORONAL), shown.letters(SAGITTAL)) == (tuple("RALP"), tuple("RHLF"), tuple("AHPF"))


def test_an_oblique_stack_shows_two_letters(tmp_path: Path) -> None:
    """PS3.3 C.7.6.1.1.1: Patient Orientation names the second direction too."""
    files = written(tmp_path, phantom((0, 0, 25)))
    shown = scene(files, segmented(files, tmp_path / "seg.dcm"))
    assert shown.letters(AXIAL) == ("RA", "AL", "LP", "PR")


def test_the_legend_says_how_much_the_segment_holds(tmp_path: Path) -> None:
    """80 voxels of 2 x 2 x 5 mm are 1.6 ml, whatever was cut away around the body."""
    files = written(tmp_path, phantom())
    (segment,) = scene(files, segmented(files, tmp_path / "seg.dcm")).segments
    assert segment.volume_ml == pytest.approx(1.6)
    assert (segment.label, max(abs(a - b) for a, b in zip(segment.colour, BLUE, strict=True)) <= 2) == ("Marker", True)


def test_the_picture_has_the_segments_colour_where_the_marker_is(tmp_path: Path) -> None:
    """The outline is drawn in the colour that the segmentation recommends (0062,000D); the banner is always there."""
    files = written(tmp_path, phantom())
    path = picture([*files, segmented(files, tmp_path / "seg.dcm")], tmp_path / "seg.dcm", tmp_path / "out" / "picture.png")
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
        assert image.info.keys().isdisjoint({"Title", "Author", "Comment", "Description"})
    blue = np.abs(pixels - BLUE).sum(axis=2) < 30
    assert blue.sum() > 500
    assert (np.abs(pixels[:100, 1200:] - (255, 184, 64)).sum(axis=2) < 30).sum() > 500


def test_a_picture_can_be_asked_for_in_a_window(tmp_path: Path) -> None:
    """Center and width, as a presentation state says them; without them the marker's tissue chooses."""
    files = written(tmp_path, phantom())
    seg = segmented(files, tmp_path / "seg.dcm")
    assert "window -1350 to 150 HU" in scene(files, seg, (-600, 1500)).subtitle
    assert "window -160 to 240 HU" in scene(files, seg).subtitle


def test_a_segmentation_of_other_images_is_not_drawn(tmp_path: Path) -> None:
    """What it refers to must be among the files that are given."""
    files = written(tmp_path / "a", phantom())
    seg = segmented(files, tmp_path / "seg.dcm")
    with pytest.raises(Unsuitable, match="of 12 images that the segmentation refers to, 0 are here"):
        scene(written(tmp_path / "b", phantom(), run="2"), seg)
    with pytest.raises(Unsuitable, match="11 are here"):
        scene(files[1:], seg)


def report(files: list[Path], into: Path) -> Path:
    """Write a report by TID 1500 with a volume, a mean, and an answer."""
    sr, images = highdicom.sr, [dcmread(path) for path in files[:1]]
    device = sr.DeviceObserverIdentifyingAttributes(uid="2.25.5", name="marker-ct")
    observer = sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid="2.25.6", identifier="lung 1"),
        finding_type=codes.SCT.AnatomicalStructure,
        finding_sites=[sr.FindingSite(codes.SCT.Lung, laterality=codes.SCT.Left)],
        measurements=[
            sr.Measurement(codes.SCT.Volume, 1740.5, Code("mL", "UCUM", "milliliter")),
            sr.Measurement(codes.DCM.AttenuationCoefficient, -820.0, Code("[hnsf'U]", "UCUM", "Hounsfield unit"), derivation=codes.SCT.Mean),
        ],
        qualitative_evaluations=[sr.QualitativeEvaluation(Code("87433001", "SCT", "Emphysema"), Code("2667000", "SCT", "Absent"))],
        source_images=[sr.SourceImageForMeasurementGroup.from_source_image(images[0])],
    )
    content = sr.MeasurementReport(sr.ObservationContext(observer_device_context=observer), codes.LN.CTUnspecifiedBodyRegion, [group])
    dataset = sr.Comprehensive3DSR(
        images,
        content[0],
        "2.25.7",
        9002,
        "2.25.8",
        1,
        manufacturer="dicom-node project",
        performed_procedure_codes=[codes.LN.CTUnspecifiedBodyRegion],
    )
    dataset.save_as(into)
    return into


def test_a_reports_measurements_are_read_with_unit_side_and_tracking(tmp_path: Path) -> None:
    """PS3.16 TID 1500 and 1501: numbers with their derivation, coded answers by their meaning."""
    rows = findings(report(written(tmp_path, phantom()), tmp_path / "sr.dcm"))
    assert [(row.label, row.value, row.unit) for row in rows] == [
        ("Volume", 1740.5, "mL"),
        ("Attenuation Coefficient (Mean)", -820.0, "[hnsf'U]"),
        ("Emphysema", "Absent", ""),
    ]
    assert {(row.site, row.tracking_id, row.tracking_uid) for row in rows} == {("Lung (Left)", "lung 1", "2.25.6")}
