"""What a few slices look like: drawn bodies with headers that say otherwise, text in pixels, radiographs the wrong way up; and real images."""

import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from pydicom import dcmread
from pydicom.uid import ComputedRadiographyImageStorage

from dicom_node.assemble.looking import checked, look, seen
from dicom_node.assemble.recognition import recognised, warnings
from dicom_node.assemble.volume import assemble
from dicom_node.config import Input, bundled, load_model
from dicom_node.domain import RECOGNITION_KEYWORDS, Unsuitable
from dicom_node.methods.lettering import letters_in_line
from dicom_node.methods.radiograph import frontal_chest_evidence
from dicom_node.methods.recognition import recognise
from dicom_node.receive import study_of
from dicom_node.simulate.samples import sample_files
from dicom_node.work import try_model
from dicom_node.work.reading import assembled
from tests import phantoms
from tests.models_proof import sample
from tests.verbs import run

NOBODY = {"BodyPartExamined": None, "SeriesDescription": None, "ProtocolName": None, "StudyDescription": None, "BurnedInAnnotation": None}
SLICES, SIZE, MM = 40, 100, 4.0  # of drawn bodies: (slice, row, column), and the pixels' spacing


def ellipse(rows, columns, row=50.0, column=50.0):
    """Return a mask (row, column); radii and centre in mm and pixels."""
    y, x = np.ogrid[:SIZE, :SIZE]
    return (((y - row) * MM / rows) ** 2 + ((x - column) * MM / columns) ** 2) <= 1


def head(noise=15):
    """Return a head in HU: skin, a ring of bone, brain; 160 mm long, 150 to 180 mm wide."""
    skin, skull, brain = ellipse(92, 78), ellipse(84, 70), ellipse(74, 60)
    plane = np.select([brain, skull, skin], [35.0, 900.0, 20.0], -1000.0)
    return _stacked([plane] * SLICES, noise)


def chest(noise=15):
    """Return a chest in HU: a wide body with two lungs in three of four slices, a spine, ribs here and there."""
    body, spine = ellipse(110, 165), ellipse(16, 16, row=68)
    lungs = ellipse(75, 50, column=32) | ellipse(75, 50, column=68)
    planes = [np.select([spine, lungs & (5 <= k < 35), body], [300.0, -850.0, 30.0], -1000.0) for k in range(SLICES)]
    return _stacked(planes, noise)


def _stacked(planes, noise):
    return np.stack(planes) + np.random.default_rng(0).normal(0, noise, (len(planes), SIZE, SIZE))


def written(hu, folder, *, between_mm=8.0, **attributes):
    """Write HU or brightness as a series (slice spacing as given) and return its files."""
    stored = np.rint(hu + 1024).astype(np.int16) if attributes.get("modality", "CT") == "CT" else np.rint(hu).astype(np.int16)
    rescale = {} if attributes.get("modality", "CT") == "CT" else {"rescale": None}
    return phantoms.write(phantoms.series(stored, spacing_mm=(between_mm, MM, MM), **rescale, **attributes), folder)


def looked(paths):
    [series] = study_of(paths, RECOGNITION_KEYWORDS).series
    return look(series, paths)


def volume_seen(paths):
    return seen(assemble(paths, Input()))


@pytest.mark.parametrize(("draw", "between_mm", "part"), [(head, 4.0, "head"), (chest, 8.0, "chest")])
@pytest.mark.parametrize("recognising", [looked, volume_seen])
def test_without_a_word_in_the_header_the_pixels_decide(draw, between_mm, part, recognising, tmp_path):
    """From files as `explain --pixels` looks at them, and from a volume as a job does."""
    found = recognising(written(draw(), tmp_path, between_mm=between_mm, **NOBODY))
    assert found.get("body_part") == part, found.as_detail()
    assert warnings(found) == ()


@pytest.mark.parametrize("recognising", [looked, volume_seen])
def test_an_enhanced_image_is_recognised_like_its_slices(recognising, tmp_path):
    """What the ledger does not keep of it lies in functional groups (PS3.3 C.7.6.16)."""
    image = phantoms.enhanced(np.rint(head() + 1024).astype(np.int16), spacing_mm=(4.0, MM, MM), **NOBODY)
    found = recognising(phantoms.write([image], tmp_path))
    assert (found.get("modality"), found.get("body_part"), found.get("plane")) == ("CT", "head", "axial")


@pytest.mark.parametrize("orientation", ["coronal", "sagittal"])
def test_a_head_is_a_head_however_it_was_cut(orientation, tmp_path):
    """The volume is turned before it is looked at: in the patient's axes a 320 mm cube of this phantom has its ring where it had."""
    cube = np.stack([head(0)[0]] * SIZE)[::2]  # (slice, row, column), cylinder along the patient's axis
    turned = {"coronal": np.ascontiguousarray(cube.transpose(1, 0, 2)), "sagittal": np.ascontiguousarray(cube.transpose(2, 0, 1))}[orientation]
    stored = np.rint(turned + 1024).astype(np.int16)
    paths = phantoms.write(phantoms.series(stored, orientation=orientation, spacing_mm=(MM, MM, MM), **NOBODY), tmp_path)
    found = volume_seen(paths)
    assert found.get("plane") == orientation and found.get("body_part") == "head", found.as_detail()


@pytest.mark.parametrize(("draw", "between_mm", "stated", "like"), [(head, 4.0, "CHEST", "head"), (chest, 8.0, "HEAD", "chest")])
def test_a_header_that_the_pixels_contradict_is_warned_of(draw, between_mm, stated, like, tmp_path):
    found = volume_seen(written(draw(), tmp_path, between_mm=between_mm, **NOBODY | {"BodyPartExamined": stated}))
    [said] = warnings(found)
    assert said.startswith(f"BodyPartExamined says body part {stated.lower()}, but the pixels look like {like}")
    assert found.answers["body_part"].most_probable == like, "four features outweigh one word"


@pytest.mark.parametrize("stated", ["CHEST", "THORAX", "CHESTABDOMEN", "HEART", "LUNG"])
def test_a_header_that_the_pixels_allow_is_not(stated, tmp_path):
    """What the parts of the trunk are called differs between houses."""
    assert warnings(volume_seen(written(chest(), tmp_path, **NOBODY | {"BodyPartExamined": stated}))) == ()


def test_the_lungs_of_a_head_are_not_measured(tmp_path):
    """A head CT sent as CHEST gets to the model's door and no further, with the reason."""
    lung_ct = load_model(bundled("models") / "lung_ct").manifest
    paths = written(head(), tmp_path, between_mm=4.0, **NOBODY | {"BodyPartExamined": "CHEST"})
    with pytest.raises(
        Unsuitable, match=r"body_part is head, which is excluded \(BodyPartExamined: is chest .*bone below the skin in 100% of the directions"
    ):
        assembled(lung_ct, lambda _: paths)


def test_a_chest_that_calls_itself_a_head_is_measured_and_the_report_says_so(tmp_path):
    """Whoever asks for it: the warning is among the input's notes, which the job and the report repeat."""
    paths = written(chest(), tmp_path, **NOBODY | {"BodyPartExamined": "HEAD"})
    wanted = Input(recognised=load_model(bundled("models") / "lung_ct").manifest.inputs["ct"].recognised)
    one = checked(assemble(paths, wanted), wanted)
    assert any(note.startswith("BodyPartExamined says body part head, but the pixels look like chest") for note in one.notes)


@pytest.mark.parametrize("shape", [(8, 24, 20), (1, 8, 8), (2, 64, 64)])
def test_a_small_or_empty_image_says_nothing(shape, tmp_path):
    """No body, no evidence; nothing fails."""
    paths = phantoms.write(phantoms.series(np.full(shape, 24, np.int16), **NOBODY), tmp_path)
    found = volume_seen(paths)
    assert found.get("body_part") is None and warnings(found) == ()
    assert looked(paths).get("body_part") is None


def test_a_part_that_fills_the_image_is_not_taken_for_another(tmp_path):
    """The temporal bones of a head are full of air; a small field of view shows no skin and no width, and contradicts nothing."""
    hu = head()
    hu[:, 30:70:4, 30:70:4] = -900.0  # cells of air, a sixteenth of what is shown, and what lies between them blurred into it
    hu[:, 31:70:4, 30:70:4] = hu[:, 30:70:4, 31:70:4] = -700.0
    zoomed = np.ascontiguousarray(hu[:, 38:62, 38:62])
    found = volume_seen(written(zoomed, tmp_path, between_mm=4.0, **NOBODY | {"BodyPartExamined": "HEAD"}))
    assert found.get("body_part") == "head" and warnings(found) == ()


def test_explain_shows_what_was_seen_and_warns(tmp_path):
    """`explain` by headers alone believes them; with `--pixels` it says what contradicts them, and names the evidence."""
    written(chest(), tmp_path / "study", **NOBODY | {"BodyPartExamined": "HEAD"})
    said = run("explain", tmp_path / "study")
    assert said.code == 0 and "head, P 0.77: BodyPartExamined: is head" in " ".join(said.out.split()) and "warning" not in said.out
    said = run("explain", tmp_path / "study", "--pixels", "--json").json
    [uid] = said["recognised"]
    assert "lung in 78% of the slices" in said["recognised"][uid]["body_part"]
    assert said["warnings"][uid][0].startswith("BodyPartExamined says body part head, but the pixels look like chest")


# ---------------------------------------------------------------------------------------------------------------- MR


TISSUES = {"fat": (1.0, 380, 70), "brain": (0.75, 1000, 85), "fluid": (1.0, 4300, 2000)}  # proton density, T1 and T2 in ms at 3 T, about


def brightness(te, tr, ti=None):
    """Return the brightness of each tissue by the equation of a spin echo, or of one after inversion."""
    signal = {}
    for name, (density, t1, t2) in TISSUES.items():
        recovered = 1 - np.exp(-tr / t1) if ti is None else abs(1 - 2 * np.exp(-ti / t1) + np.exp(-tr / t1))
        signal[name] = 1000 * density * recovered * np.exp(-te / t2)
    return signal


def mr_head(te, tr, ti=None):
    """Return a head of fat about brain with ventricles and sulci of fluid (slice, row, column)."""
    of = brightness(te, tr, ti)
    skin, inside = ellipse(92, 78), ellipse(80, 66)
    fluid = ellipse(22, 6, column=47) | ellipse(22, 6, column=53) | (ellipse(62, 48) & ~ellipse(56, 42))
    plane = np.select([fluid, inside, skin], [of["fluid"], of["brain"], of["fat"]], 0.0)
    return np.abs(_stacked([plane] * SLICES, 8))


T1, T2, FLAIR = (12, 550), (100, 4500), (120, 9000, 2500)


@pytest.mark.parametrize(
    ("times", "stated", "contradicted"), [(T1, "T1", False), (T2, "T1", True), (T1, "T2", False), (T2, "T2", False), (FLAIR, "FLAIR", False)]
)
def test_fluid_tells_t2_from_t1(times, stated, contradicted, tmp_path):
    """The physics of the drawn head is that of `times`; its header says only what it is called.

    Bright fluid is never T1. Dark values in the brain may be bone or iron on T2, too: that is evidence, and no contradiction.
    """
    silent = dict.fromkeys(("EchoTime", "RepetitionTime", "ScanningSequence"))
    said = NOBODY | silent | {"SeriesDescription": f"{stated} tra", "BodyPartExamined": "HEAD"}
    found = volume_seen(written(mr_head(*times), tmp_path, modality="MR", between_mm=4.0, **said))
    told = [sentence for sentence in warnings(found) if sentence.startswith(f"SeriesDescription says sequence {stated}")]
    assert bool(told) is contradicted, found.as_detail()


def test_a_t2_is_declined_by_brain_mr(tmp_path):
    """By the times of its header, before anything is assembled; and by those of the assembled images."""
    brain_mr = load_model(bundled("models") / "brain_mr").manifest
    said = {"EchoTime": 14.9, "RepetitionTime": 2800, "ScanningSequence": "SE", "SeriesDescription": "PD ax"}  # within what EchoTime allows
    paths = written(mr_head(15, 2800), tmp_path, modality="MR", between_mm=3.0, **NOBODY | {"BodyPartExamined": "HEAD"} | said)
    with pytest.raises(Unsuitable, match=r"sequence is PD, none of T1 \(SeriesDescription: names PD"):
        assembled(brain_mr, lambda _: paths)


# --------------------------------------------------------------------------------------------------------- lettering


def lettered(plane, size=16, level=None, at=(8, 8), text="DOE^JANE 1950-01-02"):
    """Return an image with text drawn into it, its edges smoothed as a console draws them."""
    picture = Image.new("L", plane.shape[::-1])
    ImageDraw.Draw(picture).text(at, text, font=ImageFont.load_default(size), fill=255)
    ink = np.asarray(picture) / 255.0
    return plane + ink * ((plane.max() * 1.2 if level is None else level) - plane)


@cache
def real(name):
    return sample(name).to_patient_orientation("HPL").array


@pytest.mark.parametrize("name", ["chest-ct", "head-mr", "head-ct"])
@pytest.mark.parametrize("size", [10, 12, 16, 24])
def test_text_is_found_on_real_images(name, size):
    assert letters_in_line(lettered(real(name)[len(real(name)) // 2], size)) >= 5


@pytest.mark.parametrize("name", ["chest-ct", "head-mr", "head-ct"])
def test_no_text_is_found_where_none_is(name):
    """Every third slice; of all 484 in tests/models_proof/test_recognise.py."""
    assert [index for index, plane in enumerate(real(name)[::3]) if letters_in_line(plane)] == []


@pytest.mark.parametrize("seed", range(5))
def test_noise_and_metal_are_no_text(seed):
    random = np.random.default_rng(seed)
    noise = np.clip(random.normal(0, 1, (256, 256)), -2, 2)
    noise[tuple(random.integers(0, 256, (2, 40)))] = 2.5  # specks
    noise[100:140, 60:110] = 3.0  # a plate
    assert letters_in_line(noise) == letters_in_line(random.poisson(3, (256, 256))) == 0


def test_burned_in_text_is_warned_of_whatever_the_header_says(tmp_path):
    """BurnedInAnnotation is NO in every image of the phantom."""
    hu = np.stack([lettered(plane, 10, 1500.0) for plane in head(5)])
    found = volume_seen(written(hu, tmp_path, between_mm=4.0, BodyPartExamined="HEAD"))
    [said] = [sentence for sentence in warnings(found) if "text is likely" in sentence]
    assert said.startswith("text is likely to be burned into the pixels, and may name the patient (burned-in, P ")
    assert "BurnedInAnnotation: is NO" in said


# -------------------------------------------------------------------------------------------------------- radiographs


@cache
def projected():
    """Return a frontal radiograph (row, column) of the real chest, as shown: attenuation along the rays, without the slices below the diaphragm."""
    hu = sample("chest-ct").to_patient_orientation("FPL").array  # slices from the head down
    density = np.clip(hu[:95] + 1000, 0, 3000) * (hu[:95] > -1100)
    return np.log1p(density.sum(axis=1) * 0.02 / 1000 * 0.703).astype(np.float32)


@pytest.mark.parametrize(("turned", "expected"), [(lambda x: x, "plain"), (lambda x: -x, "inverted")], ids=["plain", "inverted"])
def test_an_inverted_radiograph_is_seen(turned, expected):
    assert recognise(frontal_chest_evidence(turned(projected()))).get("photometric") == expected


def drawn_radiograph():
    """Return a frontal chest as it is shown: a dark room, a dense abdomen below, two dark lungs, a bright middle."""
    shown = np.full((200, 200), 60.0)
    rows, columns = np.ogrid[:200, :200]
    shown[:, 20:180] = 140
    shown[:30, :60] = shown[:30, 140:] = 20
    for column in (55, 145):
        shown[((rows - 85) / 60) ** 2 + ((columns - column) / 28) ** 2 <= 1] = 60
    shown[:, 88:112] = 200
    shown[150:, 20:180] = 210
    return shown + np.random.default_rng(0).normal(0, 4, shown.shape)


@pytest.mark.parametrize(
    ("turned", "photometric", "way_up"),
    [
        (lambda x: x, "plain", "upright"),
        (lambda x: x.max() - x, "inverted", "upright"),
        (lambda x: x[::-1], "plain", "upside-down"),
        (lambda x: x.max() - x[::-1], "inverted", "upside-down"),
    ],
    ids=["right", "inverted", "upside down", "both"],
)
@pytest.mark.parametrize("monochrome", ["MONOCHROME1", "MONOCHROME2"])
def test_a_radiograph_is_warned_of_when_it_is_shown_wrongly(turned, photometric, way_up, monochrome, tmp_path):
    """In a file, with the interpretation that the header states: MONOCHROME1 is shown inverted (PS3.3 C.7.6.3.1.2)."""
    shown = turned(drawn_radiograph())
    stored = np.rint(shown.max() - shown if monochrome == "MONOCHROME1" else shown)
    attributes = {
        "SOPClassUID": ComputedRadiographyImageStorage,
        "Modality": "CR",
        "BodyPartExamined": "CHEST",
        "PhotometricInterpretation": monochrome,
    }
    removed = dict.fromkeys(("ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID", "ConvolutionKernel", "KVP"))
    images = phantoms.series(stored[None].astype(np.int16), **attributes, **removed, ViewPosition="PA")
    found = looked(phantoms.write(images, tmp_path))
    assert (found.get("photometric"), found.get("way_up")) == (photometric, way_up), found.as_detail()
    assert len(warnings(found)) == (photometric != "plain") + (way_up != "upright")


# --------------------------------------------------------------------------------------------------------- real studies


@pytest.mark.parametrize(("name", "part"), [("chest-ct", "chest"), ("head-mr", "head")])
def test_the_real_studies_are_what_their_headers_say(name, part):
    """By files and by volume; nothing is warned of, so that what is reported of them does not change."""
    sample(name)  # or skip
    files = list(sample_files(name))
    for found in (looked(files), volume_seen(files)):
        assert found.get("body_part") == part
        assert warnings(found) == ()


@pytest.mark.parametrize(("name", "part"), [("chest-ct", "chest"), ("head-ct", "head")])
def test_real_ct_is_recognised_without_any_header(name, part, tmp_path):
    """LIDC-IDRI-0001 and the head of dicom2stl, thinned out: the pixels alone."""
    image = sample(name).to_patient_orientation("FPL")
    factor = 2 if image.spacing[1] < 1.0 else 1
    stored = np.ascontiguousarray(image.array[::4, ::factor, ::factor])
    spacing_mm = (image.spacing[0] * 4, image.spacing[1] * factor, image.spacing[2] * factor)
    images = phantoms.series(np.rint(stored + 1024).astype(np.int16), spacing_mm=spacing_mm, **NOBODY)
    found = volume_seen(phantoms.write(images, tmp_path))
    assert found.get("body_part") == part, found.as_detail()


@pytest.mark.parametrize("name", ["chest-ct", "head-mr"])
def test_how_long_recognising_takes_is_told(name):
    """The least of several runs, printed for docs/recognition.md; a time is never asserted."""
    sample(name)  # or skip
    files = list(sample_files(name))
    [series] = study_of(files, RECOGNITION_KEYWORDS).series
    volume = assemble(files, Input())
    found = {"headers": lambda: recognised(series), "files": lambda: look(series, files), "volume": lambda: seen(volume)}
    for what, recognising in found.items():
        runs = [_seconds(recognising) for _ in range(5)]
        print(f"{name}, {len(files)} images, by {what}: {min(runs) * 1000:.1f} ms")
        assert recognising().get("modality") == volume.sources[0].Modality


def _seconds(doing):
    started = time.perf_counter()
    doing()
    return time.perf_counter() - started


def test_a_contradiction_stands_in_the_report(tmp_path):
    """As a remark of the SR, whatever the model: nobody reads the result without it."""
    paths = written(chest(), tmp_path / "in", **NOBODY | {"BodyPartExamined": "HEAD"})
    trial = try_model(load_model(Path(__file__).parent / "models" / "good"), paths, tmp_path / "out")
    assert trial.problems == ()
    report = dcmread(trial.objects[-1]).to_json()
    assert "BodyPartExamined says body part head, but the pixels look like chest" in report
