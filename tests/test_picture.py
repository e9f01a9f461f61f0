"""The picture that a job keeps: what was found is drawn where it is, the right way round and to scale, and nobody is named in it."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from dicom_node.assemble.volume import assemble
from dicom_node.cli.inline import inline
from dicom_node.config import Manifest, Segment, load_model, load_site
from dicom_node.domain import Findings, Job, JobState, Mark, Presentation
from dicom_node.picture import sheet as sheets
from dicom_node.picture import summary
from dicom_node.picture.canvas import bar_mm, draw_scale_bar
from dicom_node.picture.views import View, lines, views
from dicom_node.receive import Door, import_file
from dicom_node.serve import judge_due
from dicom_node.serve.web import context
from dicom_node.store import Store
from dicom_node.store.tables import tombstone
from dicom_node.web import build
from dicom_node.work import Worker, worker
from tests import findings as made
from tests import phantoms, projections

MODELS = Path(__file__).parent / "models"
LEFT_COLOUR = (0, 151, 206)  # of the phantom's model
NOW = 1_700_000_000.0


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return made.model(tmp_path_factory.mktemp("model")).manifest


def centre(mask: np.ndarray) -> tuple[float, float]:
    """Return how far down and to the right a mask lies, from 0 to 1."""
    down, right = (np.argwhere(mask).mean(axis=0) + 0.5) / mask.shape
    return float(down), float(right)


def seen(orientation: str, manifest: Manifest, **more: Any) -> tuple[View, ...]:
    given = made.assembled(phantoms.series(orientation=orientation))
    return views(made.findings(given, **more), {"ct": given}, manifest)


# ---------------------------------------------------------------------------------------------------------- the right way round


def box(lps_low: tuple[float, ...], lps_high: tuple[float, ...], images: Any) -> np.ndarray:
    """Return a mask of the voxels whose centres lie in a box of the patient."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in images.volume.shape), indexing="ij"), axis=-1).reshape(-1, 3)
    at = (images.volume.affine @ np.c_[index, np.ones(len(index))].T)[:3].T
    return ((at >= lps_low) & (at <= lps_high)).all(axis=1).reshape(images.volume.shape)


@pytest.mark.parametrize("orientation", phantoms.ORIENTATIONS)
def test_left_stays_left_from_whatever_plane_was_acquired(orientation: str, manifest: Manifest) -> None:
    """Radiological convention: the patient's left is on the right, the front up, the head up (PS3.3 C.7.6.1.1.1 letters say so)."""
    images = made.assembled(phantoms.series(orientation=orientation))
    corner, size = images.volume.affine, images.volume.shape
    ends = np.array([(corner @ (*np.array(place), 1))[:3] for place in np.ndindex(2, 2, 2) for place in [np.array(place) * (np.array(size) - 1)]])
    low, high = ends.min(axis=0), ends.max(axis=0)
    middle = (low + high) / 2
    labels = np.zeros(size, np.uint8)
    labels[box((middle[0] + 0.15 * (high - low)[0], low[1], low[2]), (high[0], middle[1], high[2]), images)] = 1  # left, in front
    shown = views(made.findings(images, segments=images.volume.with_array(labels)), {"ct": images}, manifest)
    assert shown
    for view in shown:
        (mask, colour), (left, top, right, bottom) = view.outlines[0], view.letters
        down, across = centre(mask)
        assert colour == LEFT_COLOUR
        if "L" in (left[0], right[0]):
            assert right[0] == "L" and across > 0.5
        if "A" in (top[0], bottom[0]):
            assert top[0] == "A" and down < 0.5
        assert "F" not in top


@pytest.mark.parametrize("orientation", phantoms.ORIENTATIONS)
def test_a_segments_outline_lies_where_the_segment_is(orientation: str, manifest: Manifest) -> None:
    """In the file itself: pixels of the segment's colour run around the brightest part of the first panel, which the phantom's marker is."""
    given = made.assembled(phantoms.series(orientation=orientation))
    png = summary(made.findings(given), {"ct": given}, manifest)
    first = views(made.findings(given), {"ct": given}, manifest)[0]
    assert png is not None
    pixels = np.asarray(Image.open(BytesIO(png)).convert("RGB")).astype(int)
    panel = sheets._panel(first, sheets._SIDE)
    blue = np.abs(np.asarray(panel).astype(int) - LEFT_COLOUR).sum(axis=2) < 60
    bright = np.asarray(panel).min(axis=2) > 190
    bright[-60:], bright[:40] = False, False  # scale bar and letters
    bright[:, :30], bright[:, -30:] = False, False
    assert blue.sum() > 100
    (top, left), (bottom, right) = np.argwhere(blue).min(axis=0), np.argwhere(blue).max(axis=0)
    inside = np.argwhere(bright)
    assert ((inside >= (top, left)) & (inside <= (bottom, right))).all(axis=1).mean() > 0.9
    assert (np.abs(pixels - LEFT_COLOUR).sum(axis=2) < 60).sum() > blue.sum()  # and the same is in the file, beside the legend's square


def test_the_slices_with_the_largest_areas_are_shown(manifest: Manifest) -> None:
    """Two segments on different slices: each gets the slice on which it is largest; the larger comes first."""
    images = made.assembled(phantoms.series())
    labels = np.zeros(images.volume.shape, np.uint8)
    labels[1, 4:8, 3:9], labels[1:3, 5:6, 4:6] = 1, 1
    labels[5, 4:20, 3:18], labels[6, 4:6, 3:6] = 2, 2
    shown = views(made.findings(images, segments=images.volume.with_array(labels)), {"ct": images}, manifest)
    axial = [view for view in shown if view.caption.startswith("axial")]
    assert [view.caption for view in axial] == [f"axial, {17 + 2.5 * index:+.0f} mm" for index in (5, 1)]


def test_a_segment_of_one_voxel_is_found(manifest: Manifest) -> None:
    images = made.assembled(phantoms.series())
    labels = np.zeros(images.volume.shape, np.uint8)
    labels[3, 7, 9] = 3
    shown = views(made.findings(images, segments=images.volume.with_array(labels)), {"ct": images}, manifest)
    assert [mask.sum() for mask, _ in shown[0].outlines] == [1]


def test_fractions_are_outlined_where_they_reach_a_half(tmp_path: Path) -> None:
    images = made.assembled(phantoms.series())
    labels = np.zeros(images.volume.shape, np.uint8)
    labels[phantoms.block(made.LEFT)] = 1
    manifest = made.model(tmp_path, made.FRACTIONAL_MANIFEST).manifest
    segments = made.as_bytes(images, made.fractions(labels))
    shown = views(made.findings(images, segments=segments), {"ct": images}, manifest)
    assert [mask.sum() for mask, _ in shown[0].outlines] == [12]


# ------------------------------------------------------------------------------------------------------------------ to scale


@pytest.mark.parametrize(("width_mm", "scale"), [(14.0, 20.0), (350.0, 1.03), (512.0, 0.7), (40.0, 9.0)])
def test_the_scale_bar_is_as_long_as_it_says(width_mm: float, scale: float) -> None:
    """Its white part, in pixels, is its length in mm times the panel's pixels per mm."""
    panel = Image.new("RGB", (round(width_mm * scale), 200), (90, 20, 20))
    length = bar_mm(width_mm)
    draw_scale_bar(panel, scale, length, 12)
    row = np.asarray(panel)[200 - round(1.3 * 12)]
    assert (row.min(axis=1) > 200).sum() == round(length * scale)
    assert 0.1 * width_mm <= length <= 0.4 * width_mm


def test_panels_keep_the_shape_of_voxels(manifest: Manifest) -> None:
    """24 rows of 0.8 mm, 20 columns of 0.7 mm."""
    view = seen("axial", manifest)[0]
    panel = sheets._panel(view, 360)
    assert panel.width / panel.height == pytest.approx(view.size_mm[0] / view.size_mm[1], rel=0.01)
    assert view.size_mm == pytest.approx((20 * 0.7, 24 * 0.8))


# ----------------------------------------------------------------------------------------------------------------- every kind


def test_marks_are_drawn_where_they_point(tmp_path: Path) -> None:
    model = load_model(MODELS / "points")
    for orientation in phantoms.ORIENTATIONS:
        images = made.assembled(phantoms.series(orientation=orientation))
        index, row, column = np.unravel_index(images.volume.array.argmax(), images.volume.shape)
        mark = Mark(slice=int(index), points=((float(row), float(column)),), text="here")
        findings = Findings(presentations={"marks": Presentation(marks=(mark,)), "lung": None})
        (view,) = views(findings, {"ct": images}, model.manifest.of_found(0).of_made(["marks"]))
        ((down, across),) = view.marks[0].points
        assert view.grey[int(down * view.grey.shape[0]), int(across * view.grey.shape[1])] == view.grey.max()


def test_of_every_kind_something_is_shown() -> None:
    """Outlines, marks, a map's heat and key images share four panels."""
    model, images = load_model(MODELS / "points"), made.assembled(phantoms.series())
    mask = images.volume.array > 500
    findings = Findings(
        segments=images.volume.with_array(mask.astype(np.uint8)),
        measurements={"volume": {1: 0.5}, "count": 1},
        presentations={"marks": Presentation(marks=(Mark(slice=2, points=((6.0, 15.0),)),)), "lung": None},
        maps={"heat": images.volume.with_array(images.volume.array / 4096)},
        keys={"best": [2]},
    )
    manifest = model.manifest.of_found(1).of_made(["marks"])
    shown = views(findings, {"ct": images}, manifest)
    assert len(shown) == 4
    assert (bool(shown[0].outlines), bool(shown[1].marks), shown[2].heat is not None) == (True, True, True)
    assert shown[3].caption == "Of Interest, axial, +22 mm"
    assert [line.text for line in lines(findings, manifest)] == ["Candidate 1", "Candidates, Lung"]
    assert summary(findings, {"ct": images}, manifest)


def test_derived_images_stand_beside_what_they_were_made_of() -> None:
    model, images = load_model(MODELS / "smooths"), made.assembled(phantoms.series())
    half = images.volume.with_array(images.volume.array / 2)
    before, after = views(Findings(images={"half": half}), {"ct": images}, model.manifest)
    assert (before.caption[:6], after.caption) == ("before", "after: Half of each value")
    assert before.grey.shape == after.grey.shape and (before.grey != after.grey).any()


def test_numbers_without_a_place_stand_below_the_middle_slice(tmp_path: Path) -> None:
    model, images = load_model(MODELS / "draws"), made.assembled(phantoms.series())
    (view,) = views(Findings(measurements={"volume": 12.34}), {"ct": images}, model.manifest)
    assert view.caption == "axial, +27 mm"
    assert [(line.text, line.values) for line in lines(Findings(measurements={"volume": 12.34}), model.manifest)] == [("Volume, Spleen", "12.3 mL")]


def test_a_projection_is_shown_as_it_is(tmp_path: Path) -> None:
    """It has no letters: it has no place in the patient's coordinates (PS3.3 C.7.6.2)."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.toml").write_text(PROJECTING)
    (folder / "analysis.py").write_text("")
    manifest = load_model(folder).manifest
    paths = phantoms.write([projections.image("DX", projections.wedge())], tmp_path / "in")
    images = assemble(paths, manifest.inputs["image"])
    (view,) = views(Findings(measurements={"score": 0.25}), {"image": images}, manifest)
    assert (view.letters, view.grey.shape, view.caption) == (("", "", "", ""), (40, 30), "")
    assert summary(Findings(measurements={"score": 0.25}), {"image": images}, manifest)


PROJECTING = """
name = "scores"
version = "1"
task = "Scores."
[inputs.image]
kind = "projection"
[measurements.score]
concept = ["SCORE", "99PHANTOM", "Score"]
unit = "1"
"""


def test_of_nothing_there_is_no_picture(manifest: Manifest) -> None:
    images = made.assembled(phantoms.series())
    assert summary(Findings(), {"ct": images}, manifest) is None


# ------------------------------------------------------------------------------------------------------------------ of nobody


def test_nothing_that_a_header_words_is_in_the_picture(manifest: Manifest) -> None:
    """Two patients with other names, dates, descriptions, stations: the same picture, byte for byte; and no text beside the pixels."""
    other = {
        "PatientName": "Other^Name",
        "PatientID": "X",
        "PatientBirthDate": "20010101",
        "SeriesDescription": "Mrs Other, second try",
        "StudyDescription": "Other",
        "AccessionNumber": "999",
        "InstitutionName": "Elsewhere",
        "StationName": "CT9",
        "ProtocolName": "Other",
        "ConvolutionKernel": "SHARP",
        "Manufacturer": "Else",
        "StudyDate": "20300101",
    }
    pictures = []
    for attributes in ({}, other):
        images = made.assembled(phantoms.series(**attributes), notes=(str(attributes),))
        pictures.append(summary(made.findings(images, notes=("A sentence", str(attributes))), {"ct": images}, manifest))
    assert pictures[0] == pictures[1] and pictures[0] is not None
    with Image.open(BytesIO(pictures[0])) as image:
        image.load()
        assert not getattr(image, "text", {})
        assert set(image.info) <= {"transparency"}


def test_regions_that_others_drew_have_numbers_and_no_names(tmp_path: Path) -> None:
    """What somebody called a contour is free text, and may name a patient."""
    model = load_model(Path(__file__).parents[1] / "models" / "measure")
    first = next(iter(model.manifest.inputs))
    code = {"value": "1", "scheme": "99X", "meaning": "Mr Secret"}
    drawn = model.manifest.of_regions([Segment(number=1, label="Mr Secret", category=code, type=code)], {first: (code, code)}, overlap=False)
    assert [line.text for line in lines(Findings(), drawn)][:1] == ["Region 1"]
    assert "Secret" not in str([line for line in lines(Findings(), drawn)])


def test_a_large_noisy_study_makes_a_small_file(manifest: Manifest) -> None:
    """Noise does not compress: the panels shrink until the file is small."""
    noise = np.random.default_rng(1).integers(0, 2000, (12, 512, 512)).astype(np.int16)
    images = made.assembled(phantoms.series(noise, spacing_mm=(3.0, 0.7, 0.7)))
    labels = np.zeros(images.volume.shape, np.uint8)
    labels[2, 100:200, 100:200], labels[9, 300:330, 50:90] = 1, 2
    png = summary(made.findings(images, segments=images.volume.with_array(labels)), {"ct": images}, manifest)
    assert png is not None and len(png) <= 150_000


# ------------------------------------------------------------------------------------------------------------------- a job's

CONFIG = """
[node]
storage = {storage}
complete_after_s = 0
disk_reserve_mb = 0
[models.points]
folder = {model}
[[rules]]
name = "every CT"
when.Modality = "CT"
analyse = ["points"]
"""


class House:
    """A node whose worker runs here."""

    def __init__(self, folder: Path) -> None:
        config = folder / "node.toml"
        config.write_text(CONFIG.format(storage=json.dumps(str(folder / "data")), model=json.dumps(str(MODELS / "points"))))
        self.site = load_site(config)
        self.store = Store.of(self.site.config.node)
        self._folder = folder
        self._door = Door(self.store, self.site.config.node)

    def worked(self, seed: str) -> Job:
        """Receive a study, let the worker do its job, and return it."""
        for path in phantoms.write(phantoms.series(phantoms.marked(value=2000), seed=seed), self._folder / seed):
            import_file(self._door, path, received_at=NOW)
        judge_due(self.site, self.store, NOW + 10)
        one = Worker(self.site, self.store)
        thread = threading.Thread(target=one.run)
        thread.start()
        until = time.monotonic() + 120
        while (job := self.store.jobs.list()[0]).ended_at is None and time.monotonic() < until:
            time.sleep(0.05)
        one.stop()
        thread.join()
        return job


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made_house = House(tmp_path)
    yield made_house
    made_house.store.close()


def ask(house: House, path: str, **headers: str) -> Any:
    with TestClient(build(context(house.site, house.store, time.time)), base_url="http://127.0.0.1:8080") as client:
        return client.get(path, headers=headers)


def test_a_job_keeps_its_picture_until_the_study_goes(house: House) -> None:
    """Beside its results, named in the ledger, shown by the web, removed with the study; a sweep leaves it alone."""
    job = house.worked("kept")
    assert job.state is JobState.COMPLETED and job.picture.startswith("results/") and job.picture.endswith(".png")
    file = house.store.archive.path(job.picture)
    house.store.studies.bury()
    answer = ask(house, f"/jobs/{job.id}/picture.png")
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, "image/png", file.read_bytes())
    assert "private" in answer.headers["cache-control"] and "immutable" in answer.headers["cache-control"]
    again = ask(house, f"/jobs/{job.id}/picture.png", **{"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    missing = ask(house, "/jobs/4711/picture.png")
    assert (missing.status_code, "there is no job 4711" in missing.text) == (404, True)
    house.store.studies.purge(job.study_instance_uid, who="test", why="test", now=NOW)
    assert not file.exists()
    assert ask(house, f"/jobs/{job.id}/picture.png").status_code == 404


def test_a_picture_that_cannot_be_drawn_costs_no_job(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The results count: the job is completed, and its journal says that it has no picture, and why."""

    def broken(*_: Any) -> Callable[..., bytes]:
        raise ZeroDivisionError("Marked^Patient")

    monkeypatch.setattr(worker, "summary", broken)
    job = house.worked("undrawn")
    assert (job.state, job.picture) == (JobState.COMPLETED, "")
    assert len(house.store.jobs.results(job.id)) >= 2
    (said,) = (event.why for event in house.store.journal.of_study(job.study_instance_uid) if event.kind == "completed")
    assert "warning: no picture could be drawn: unexpected ZeroDivisionError" in said and "Marked" not in said
    assert "nothing to draw" in ask(house, f"/jobs/{job.id}/picture.png").text


def test_a_study_that_came_again_keeps_its_new_picture(house: House) -> None:
    """A tombstone of the first is no reason to remove what the second wrote under the same name."""
    job = house.worked("again")
    with house.store.database.write() as connection:
        connection.execute(tombstone.insert().values(path=job.picture))
    house.store.studies.bury()
    assert house.store.archive.path(job.picture).exists()


# ------------------------------------------------------------------------------------------------------------- in a terminal


def test_a_terminal_that_can_shows_the_picture() -> None:
    """Kitty's protocol sends 4096 characters at a time; iTerm2's all at once; any other terminal gets nothing."""
    png = b"\x89PNG" + bytes(9000)
    assert inline(png, {"TERM": "xterm-256color"}) == ""
    assert inline(png, {"TERM_PROGRAM": "iTerm.app"}).startswith(f"\x1b]1337;File=inline=1;size={len(png)}:")
    kitty = inline(png, {"TERM": "xterm-kitty"})
    assert kitty.startswith("\x1b_Gf=100,a=T,m=1;") and kitty.endswith("\x1b\\") and kitty.count("\x1b_Gm=0;") == 1
    assert max(len(part) for part in kitty.split("\x1b_G")) < 4096 + 20
