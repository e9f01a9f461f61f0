"""Parametric maps, presentation states, key objects and segments whose number nobody knew: what stands beside a segmentation and a report."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import highdicom
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import Dataset, dcmread
from pydicom.uid import UID

from dicom_node.analyse import contract
from dicom_node.assemble.volume import assemble
from dicom_node.config import load_model
from dicom_node.domain import Assembled, ConfigError, Findings, Mark, ModelFailed, Presentation, Unsuitable
from dicom_node.report import build, check, encode, settled
from dicom_node.work import try_model
from tests import findings as made
from tests import phantoms
from tests.peers import need, packaged

HEAD = """
name = "pointer"
version = "1"
task = "Points at a marker."
manufacturer = "Phantom Works"

[inputs.ct]
allow_gaps = true
"""
STATES = """
[presentations.lung]
label = "LUNG"
description = "Window for the lungs"

[presentations.marks]
label = "MARKS"
description = "What was found"
"""
MAPS = """
[maps.heat]
description = "Where the network looked"
quantity = ["130403", "DCM", "Gradient-weighted class activation"]
unit = "1"
"""
KEYS = """
[keys.best]
title = "DCM.OfInterest"
description = "Slices with a marker."
"""
FOUND = """
[found]
most = 5
label = "Candidate"
category = "SCT.MorphologicallyAbnormalStructure"
type = "SCT.Nodule"
site = "SCT.Lung"

[measurements.volume]
concept = "SCT.Volume"
unit = "mL"
of = "found"

[measurements.count]
concept = ["COUNT", "99PHANTOM", "Candidates"]
unit = "1"
site = "SCT.Lung"
digits = 0
"""
EVERYTHING = HEAD + STATES + MAPS + KEYS + FOUND
POINTS = Path(__file__).parent / "models" / "points"

SOURCES = {
    "axial CT": phantoms.series,
    "oblique CT": lambda: phantoms.series(orientation="oblique"),
    "coronal CT, last slice first": lambda: phantoms.series(orientation="coronal")[::-1],
    "MR without a rescale": lambda: phantoms.series(modality="MR", orientation="sagittal", rescale=None),
    "one slice": lambda: phantoms.series()[2:3],
}
every_source = pytest.mark.parametrize("source", SOURCES)
CIRCLE = Mark(slice=0, kind="CIRCLE", points=((5.0, 6.5), (5.0, 9.5)), text="1: 0.93, 8 mm")


class Made:
    """A phantom as assembled, and what was made of findings on it, on disk."""

    def __init__(self, folder: Path, images: Sequence[Dataset], manifest: str = EVERYTHING, **findings: object) -> None:
        self.model = made.model(folder / "model", manifest)
        self.paths = phantoms.write(images, folder / "in")
        self.assembled: Assembled = assemble(self.paths, self.model.manifest.inputs["ct"])
        given = Findings(**(everything(self.assembled) | findings))
        volumes = {"ct": self.assembled.volume}
        self.findings = contract.settle(given, self.model.manifest, volumes)
        self.drafts = build(self.findings, {"ct": self.assembled}, made.run(settled(self.model, self.findings)))
        (folder / "out").mkdir()
        self.files = []
        for number, draft in enumerate(self.drafts):
            self.files.append(folder / "out" / f"{number:03d}-{draft.kind}.dcm")
            self.files[-1].write_bytes(encode(draft.dataset))

    def of(self, kind: str) -> list[Dataset]:
        """Return the objects of a kind as they were written."""
        return [dcmread(path) for path in self.files if path.stem.endswith(kind)]


def everything(assembled: Assembled) -> dict[str, object]:
    """Return findings of each kind."""
    volume = assembled.volume
    mask = np.zeros(volume.shape, np.uint8)
    mask[0, 2:5, 2:6], mask[0, 8:10, 8:9] = 1, 2
    return {
        "segments": volume.with_array(mask),
        "measurements": {"volume": {1: 1.5, 2: 0.25}, "count": 2},
        "presentations": {"lung": Presentation(window=(-600, 1500)), "marks": Presentation(marks=(CIRCLE, Mark(slice=0, points=((1, 2),))))},
        "maps": {"heat": volume.with_array(ramp(volume.shape))},
        "keys": {"best": (0,)},
    }


def ramp(shape: Sequence[int]) -> np.ndarray:
    """Return a value from 0 to 1 for each voxel, no two alike."""
    return np.linspace(0, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)


@every_source
def test_every_object_passes_dciodvfy_and_says_research(source: str, tmp_path: Path) -> None:
    """PS3.3 A.33.1, A.75, A.35.4: no error, whatever the source; each kind is there once for each name."""
    whole = Made(tmp_path, SOURCES[source]())
    assert [draft.kind for draft in whole.drafts] == ["SEG", "PM", "PR", "PR", "KO", "SR"]
    assert [f"{path.name}: {problem}" for path in whole.files for problem in check(path)] == []
    for path in whole.files:
        assert "AI research use" in dcmread(path).SeriesDescription
    numbers = {one.Modality: one.SeriesNumber for one in map(dcmread, whole.files)}
    assert len(set(numbers.values())) == len(numbers) == 5  # SEG, OT, PR, KO, SR


def test_the_same_findings_give_the_same_bytes(tmp_path: Path) -> None:
    """A retry must not give a reader two of each."""
    first, second = (Made(tmp_path / name, phantoms.series()) for name in ("a", "b"))
    assert [path.read_bytes() for path in first.files] == [path.read_bytes() for path in second.files]


def test_enhanced_images_are_pointed_at_by_frame(tmp_path: Path) -> None:
    """PS3.3 C.18.4, C.10.5: key objects and marks name the frame."""
    whole = Made(tmp_path, [phantoms.enhanced()])
    assert [f"{path.name}: {problem}" for path in whole.files for problem in check(path)] == []
    (keys,), (_, marks) = whole.of("KO"), whole.of("PR")
    (frame,) = {item.ReferencedSOPSequence[0].ReferencedFrameNumber for item in keys.ContentSequence if "ReferencedSOPSequence" in item}
    drawn = marks.GraphicAnnotationSequence[0].ReferencedImageSequence[0].ReferencedFrameNumber
    assert frame == drawn >= 1


def test_dcmtk_reads_key_objects_as_a_document(tmp_path: Path) -> None:
    """`dsrdump` holds a document to the relationships that its IOD allows (PS3.3 A.35.4.3.1.3)."""
    path = next(path for path in Made(tmp_path, phantoms.series()).files if path.stem.endswith("KO"))
    done = subprocess.run([need("dsrdump"), str(path)], check=True, capture_output=True, text=True)
    assert "Of Interest" in done.stdout and "CT image" in done.stdout and "E:" not in done.stderr


# ------------------------------------------------------------------------------------------------------- presentation states


def test_a_window_is_in_what_the_modality_lut_gives(tmp_path: Path) -> None:
    """PS3.3 C.11.1, C.11.2: the state has the images' own rescale, so that the window is in Hounsfield units."""
    state = Made(tmp_path, phantoms.series()).of("PR")[0]
    source = phantoms.series()[0]
    assert (state.RescaleSlope, state.RescaleIntercept) == (source.RescaleSlope, source.RescaleIntercept)
    voi = state.SoftcopyVOILUTSequence[0]
    assert (voi.WindowCenter, voi.WindowWidth, voi.VOILUTFunction) == (-600, 1500, "LINEAR")
    assert state.ContentLabel == "LUNG" and state.PresentationLUTShape == "IDENTITY"
    assert len(state.ReferencedSeriesSequence[0].ReferencedImageSequence) == len(phantoms.series())


def test_dcmtk_shows_an_image_through_the_window(tmp_path: Path) -> None:
    """An independent renderer applies the state: each pixel as PS3.3 C.11.2.1.2 says, within a grey level."""
    images = phantoms.series()
    whole = Made(tmp_path, images)
    index = next(i for i, plane in enumerate(whole.assembled.sources) if plane.SOPInstanceUID == images[2].SOPInstanceUID)
    path = next(p for p in whole.paths if dcmread(p).SOPInstanceUID == images[2].SOPInstanceUID)
    state = next(p for p in whole.files if p.stem.endswith("PR"))
    subprocess.run([need("dcmp2pgm"), "-p", str(state), str(path), str(tmp_path / "shown.pgm")], check=True, capture_output=True)
    values = whole.assembled.volume.array[index]
    wanted = np.clip((values - (-600 - 0.5)) / (1500 - 1) + 0.5, 0, 1) * 255
    assert np.abs(pgm(tmp_path / "shown.pgm") - wanted).max() <= 1.0


def pgm(path: Path) -> np.ndarray:
    """Return the grey values of a binary PGM file."""
    data = path.read_bytes()
    fields = [word for line in data.split(b"\n")[:6] if not line.startswith(b"#") for word in line.split()]
    width, height = int(fields[1]), int(fields[2])
    return np.frombuffer(data[-width * height :], np.uint8).reshape(height, width).astype(float)


def test_marks_lie_where_they_were_drawn(tmp_path: Path) -> None:
    """PS3.3 C.10.5: the corner of the first pixel is 0\\0, so that its centre is half a pixel further; columns come first."""
    state = Made(tmp_path, phantoms.series()).of("PR")[1]
    (annotation,) = state.GraphicAnnotationSequence
    circle, point = annotation.GraphicObjectSequence
    assert (circle.GraphicType, list(circle.GraphicData)) == ("CIRCLE", [7.0, 5.5, 10.0, 5.5])
    assert (point.GraphicType, list(point.GraphicData)) == ("POINT", [2.5, 1.5])
    assert annotation.TextObjectSequence[0].UnformattedTextValue == "1: 0.93, 8 mm"
    assert list(annotation.TextObjectSequence[0].AnchorPoint) == [10.0, 5.5]


def test_marks_alone_leave_each_image_its_own_window(tmp_path: Path) -> None:
    """PS3.3 C.11.8: a state without any would show a CT over all its values."""
    images = phantoms.series()
    for number, image in enumerate(images):
        image.WindowCenter, image.WindowWidth = ([40, -600], [400, 1500]) if number else (50, 350)
    marks = Made(tmp_path, images).of("PR")[1]
    windows = {(item.WindowCenter, item.WindowWidth): len(item.ReferencedImageSequence) for item in marks.SoftcopyVOILUTSequence}
    assert windows == {(50, 350): 1, (40, 400): len(images) - 1}


def test_what_does_not_apply_is_not_made(tmp_path: Path) -> None:
    """None, and no key slice, are answers."""
    whole = Made(tmp_path, phantoms.series(), presentations={"lung": None, "marks": None}, keys={"best": ()})
    assert [draft.kind for draft in whole.drafts] == ["SEG", "PM", "SR"]


BELONGING = """
[measurements.center]
concept = ["CENTER", "99PHANTOM", "Centre of the window"]
unit = "[hnsf'U]"
of = "lung"
site = "SCT.Lung"
"""


def test_what_belongs_to_a_presentation_is_told_where_it_is_made(tmp_path: Path) -> None:
    """A measurement of a window that is not made is no missing output: the report is complete without it."""
    marks = Presentation(marks=(CIRCLE,))
    for name, window, value in (("made", Presentation(window=(-600, 1500)), -600.0), ("unmade", None, None)):
        chosen = {"presentations": {"lung": window, "marks": marks}, "measurements": {"center": value}}
        rest = {"segments": None, "maps": {}, "keys": {}}
        (report,) = Made(tmp_path / name, phantoms.series(), HEAD + STATES + BELONGING, **chosen, **rest).of("SR")
        assert ("Centre of the window" in str(report)) is (name == "made")
        assert report.CompletionFlag == "COMPLETE"
    chosen["measurements"] = {"center": 7.0}
    with pytest.raises(ModelFailed, match="measurement 'center' has a value, though the presentation 'lung' is not made"):
        Made(tmp_path / "wrong", phantoms.series(), HEAD + STATES + BELONGING, **chosen, **rest)


def test_images_with_different_rescales_cannot_be_presented_by_one_state(tmp_path: Path) -> None:
    """Positron emission images are rescaled one by one."""
    images = phantoms.series()
    images[1].RescaleSlope = 2
    with pytest.raises(Unsuitable, match="2 different rescales"):
        Made(tmp_path, images)


def test_a_low_pixel_that_is_white_stays_white(tmp_path: Path) -> None:
    """PS3.3 C.11.6: MONOCHROME1 is presented with the shape INVERSE."""
    images = phantoms.series()
    for image in images:
        image.PhotometricInterpretation = "MONOCHROME1"
    assert {state.PresentationLUTShape for state in Made(tmp_path, images).of("PR")} == {"INVERSE"}


# ----------------------------------------------------------------------------------------------------------- parametric maps


@every_source
def test_a_map_is_read_back_voxel_for_voxel_in_its_place(source: str, tmp_path: Path) -> None:
    """By highdicom, in the order of space: values equal bit for bit, geometry equal to the input's."""
    whole = Made(tmp_path, SOURCES[source]())
    path = next(path for path in whole.files if path.stem.endswith("PM"))
    read = highdicom.imread(path).get_volume(apply_real_world_transform=False)
    if read.shape[0] > 1:  # one slice does not say how far the next would be
        read = read.match_geometry(whole.assembled.volume)
    assert np.array_equal(read.array, ramp(whole.assembled.volume.shape))


def test_dcmqi_reads_a_map(tmp_path: Path) -> None:
    """An independent reader: the same values.

    dcmqi 1.5.7 reads the Frame Anatomy of every map, which PS3.3 A.75 leaves to the writer, and ends where there is none: its copy gets one.
    """
    whole = Made(tmp_path, phantoms.series())
    (copy,) = whole.of("PM")
    region = Dataset()
    region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = "39607008", "SCT", "Lung"
    anatomy = Dataset()
    anatomy.AnatomicRegionSequence, anatomy.FrameLaterality = [region], "B"
    copy.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [anatomy]
    copy.save_as(tmp_path / "copy.dcm")
    command = [packaged("paramap2itkimage"), "--inputDICOM", str(tmp_path / "copy.dcm"), "--outputDirectory", str(tmp_path), "--outputType", "nrrd"]
    subprocess.run(command, check=True, capture_output=True)
    (image,) = (sitk.ReadImage(str(found)) for found in tmp_path.glob("*.nrrd"))
    read, given = sitk.GetArrayFromImage(image), ramp(whole.assembled.volume.shape)
    assert np.array_equal(read, given) or np.array_equal(read[::-1], given)


# --------------------------------------------------------------------------------------------------------------- what is found


def leaves(item: Dataset) -> list[str]:
    """Return what a report says, in its order: texts, UIDs, numbers and the meanings of codes."""
    said = [str(item.get(keyword)) for keyword in ("TextValue", "UID") if keyword in item]
    said += [one.CodeMeaning for one in item.get("ConceptCodeSequence", ())]
    said += [str(one.NumericValue) for one in item.get("MeasuredValueSequence", ())]
    said += [one.CodeMeaning for one in item.get("NumericValueQualifierCodeSequence", ())]
    return said + [text for one in item.get("ContentSequence", ()) for text in leaves(one)]


def test_as_many_segments_as_were_found_with_their_numbers(tmp_path: Path) -> None:
    """TID 1411: one group for each, with its own tracking identifier and volume."""
    whole = Made(tmp_path, phantoms.series())
    (seg,), (report,) = whole.of("SEG"), whole.of("SR")
    assert [item.SegmentLabel for item in seg.SegmentSequence] == ["Candidate 1", "Candidate 2"]
    tracked = [item.TrackingUID for item in seg.SegmentSequence]
    said = leaves(report)
    assert len(set(tracked)) == 2 and set(tracked) < set(said)
    assert [value for value in said if value in ("1.5", "0.2", "2")] == ["1.5", "0.2", "2"]


def test_nothing_found_is_a_coded_negative(tmp_path: Path) -> None:
    """An empty mask: no segmentation, and a group that says absent, with no number that is none."""
    nothing = phantoms.series()
    empty = np.zeros((len(nothing), nothing[0].Rows, nothing[0].Columns), np.uint8)
    model = made.model(tmp_path / "m", EVERYTHING)
    assembled = assemble(phantoms.write(nothing, tmp_path / "i"), model.manifest.inputs["ct"])
    whole = Made(tmp_path, nothing, segments=assembled.volume.with_array(empty), measurements={"volume": {}, "count": 0})
    assert [draft.kind for draft in whole.drafts] == ["PM", "PR", "PR", "KO", "SR"]
    said = leaves(whole.of("SR")[0])
    assert "Absent" in said and "Looked for and not found: Candidate." in said and "Not a number" not in said
    assert [problem for path in whole.files for problem in check(path)] == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"segments": (1, 3)}, "numbered what it found 1, 3"),
        ({"segments": (6,)}, "holds the number 6"),
        ({"measurements": {"volume": {1: 1.0}, "count": 2}}, "given for segments 1, but is described on 1, 2"),
        ({"keys": {"best": (99,)}}, "name slice 99"),
        ({"presentations": {"lung": Presentation(window=(0, 0)), "marks": None}}, "the window of presentation 'lung'"),
        ({"presentations": {"lung": Presentation(), "marks": None}}, "neither window nor marks"),
        ({"presentations": {"lung": None, "marks": Presentation(marks=(Mark(slice=99, points=((1, 1),)),))}}, "lies in slice 99"),
        ({"presentations": {"lung": None, "marks": Presentation(marks=(Mark(slice=0, points=((1, 999),)),))}}, "begins at row 1, column 999"),
        ({"presentations": {"lung": None, "marks": Presentation(marks=(Mark(slice=0, kind="CIRCLE", points=((1, 1),)),))}}, "CIRCLE of 1 points"),
        ({"presentations": {"lung": None}}, "gave no presentation 'marks'"),
        ({"maps": {"heat": None}}, "heat"),
    ],
)
def test_what_the_manifest_does_not_allow_fails_the_job(change: dict[str, object], said: str, tmp_path: Path) -> None:
    """The sentence says in which point."""
    images = phantoms.series()
    model = made.model(tmp_path / "m", EVERYTHING)
    volume = assemble(phantoms.write(images, tmp_path / "i"), model.manifest.inputs["ct"]).volume
    if "segments" in change:
        mask = np.zeros(volume.shape, np.uint8)
        for place, number in enumerate(change["segments"]):  # type: ignore[call-overload]
            mask[0, place, 0] = number
        change = {"segments": volume.with_array(mask)}
    if change.get("maps") == {"heat": None}:
        change = {"maps": {"heat": volume.with_array(np.full(volume.shape, np.nan, np.float32))}}
    with pytest.raises(ModelFailed, match=said):
        Made(tmp_path, images, **change)


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (HEAD + STATES.replace('label = "LUNG"', 'label = "lung"'), "label"),
        (HEAD + STATES + '[presentations.x]\nlabel = "X"\ndescription = "x"\nof = "mr"\n', "of input 'mr', which is not described"),
        (
            HEAD + FOUND + '[[segments]]\nnumber = 1\nlabel = "a"\ncategory = "SCT.AnatomicalStructure"\ntype = "SCT.Lung"\n',
            "both found and segments",
        ),
        (HEAD + MAPS + '[measurements.a]\nconcept = "SCT.Volume"\nunit = "mL"\nof = "found"\n', "nor what \\[found\\] describes"),
        (HEAD, "has no output"),
        (HEAD + BELONGING, "nor a presentation"),
        (HEAD + STATES.replace("presentations.lung", "presentations.ct"), "presentations.ct has the name of an input"),
    ],
)
def test_a_manifest_that_contradicts_itself_does_not_load(manifest: str, said: str, tmp_path: Path) -> None:
    """With the place that is wrong."""
    (tmp_path / "analysis.py").write_text("")
    (tmp_path / "model.toml").write_text(manifest)
    with pytest.raises(ConfigError, match=said):
        load_model(tmp_path)


# ------------------------------------------------------------------------------------------------------------------- the way


def test_findings_of_every_kind_come_out_of_a_models_process(tmp_path: Path) -> None:
    """Through the pool, as JSON and arrays, to valid objects."""
    trial = try_model(load_model(POINTS), phantoms.write(phantoms.series(), tmp_path / "in"), tmp_path / "out")
    assert trial.problems == ()
    classes = [UID(dcmread(path).SOPClassUID).name for path in trial.objects]
    assert classes == [
        "Segmentation Storage",
        "Parametric Map Storage",
        "Grayscale Softcopy Presentation State Storage",
        "Key Object Selection Document Storage",
        "Comprehensive 3D SR Storage",
    ]
