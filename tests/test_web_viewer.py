"""The viewer's page and pictures, without a socket and without a browser: what lies where is worked out here from the phantom's geometry."""

import copy
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import highdicom
import numpy as np
import pytest
from highdicom.sr import (
    FindingSite,
    GraphicTypeValues,
    GraphicTypeValues3D,
    ImageRegion,
    ImageRegion3D,
    Measurement,
    MeasurementReport,
    ObservationContext,
    ObserverContext,
    PersonObserverIdentifyingAttributes,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    SourceImageForRegion,
    TrackingIdentifier,
)
from PIL import Image
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.sr.codedict import codes
from pydicom.tag import Tag
from starlette.testclient import TestClient

from dicom_node.domain import derived_uid
from dicom_node.serve.web import context
from dicom_node.web import build
from dicom_node.web.rendering.place import plane
from dicom_node.web.rendering.segments import Under, overlay, segmentation
from tests import phantoms
from tests.reported import Node

MARKER = Path(__file__).parent / "walks" / "models" / "marker"
COLOUR = (200, 40, 90)


class Viewed:
    """A node with one study, seen by a browser that runs no script."""

    def __init__(self, folder: Path, images: Sequence[Dataset], more: Sequence[Dataset] = (), *, works: bool = True) -> None:
        self.node = Node(folder, {"marker": MARKER})
        self.images = images
        self.study = self.node.receive(images)
        if works:
            self.node.work()
        if more:
            self.node.receive(more)
        self.client = TestClient(build(context(self.node.site, self.node.store)), base_url="http://127.0.0.1:8080")

    def page(self, query: str = "") -> str:
        answer = self.client.get(f"/view/{self.study}{query}")
        assert answer.status_code == 200, answer.text
        return answer.text

    def scene(self, series: str = "") -> dict:
        return self.client.get(f"/view/{self.study}/scene" + (f"?series={series}" if series else "")).json()

    def picture(self, address: str) -> np.ndarray:
        answer = self.client.get(address)
        assert answer.status_code == 200, answer.text
        return np.asarray(Image.open(io.BytesIO(answer.content)))


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewed]:
    """A CT with the marker, its SEG and SR, and a report with marks that somebody else made."""
    images = phantoms.series(SeriesDescription="Chest <b>")
    found = Viewed(tmp_path_factory.mktemp("viewed"), images, [marked_report(images)])
    yield found
    found.node.close()


def drawn(images: Sequence[Dataset], mask: np.ndarray, **how: object) -> Dataset:
    """Return a segmentation that another program would have made."""
    described = highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label="Drawn",
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=codes.SCT.Lung,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        display_color=highdicom.color.CIELabColor.from_rgb(*COLOUR),
    )
    return highdicom.seg.Segmentation(
        source_images=list(images),
        pixel_array=mask,
        segmentation_type=how.pop("kind", "BINARY"),
        segment_descriptions=[described],
        series_instance_uid=derived_uid("drawn", "series"),
        series_number=90,
        sop_instance_uid=derived_uid("drawn", "seg"),
        instance_number=1,
        manufacturer="Other",
        manufacturer_model_name="Pen",
        software_versions="1",
        device_serial_number="1",
        **how,
    )


def marked_report(images: Sequence[Dataset]) -> Dataset:
    """Return a report by TID 1500 with a polyline on the fourth image, and a polygon in space on the sixth."""
    lines = np.array([[2.0, 3.0], [9.0, 3.0], [9.0, 8.0], [2.0, 3.0]])
    flat = ImageRegion(
        graphic_type=GraphicTypeValues.POLYLINE,
        graphic_data=lines,
        source_image=SourceImageForRegion(images[3].SOPClassUID, images[3].SOPInstanceUID),
    )
    corners = [[5, row, column] for row, column in ((4, 4), (4, 10), (12, 10), (4, 4))]
    places = np.array([(phantoms.affine() @ [*corner, 1])[:3] for corner in corners])
    deep = ImageRegion3D(graphic_type=GraphicTypeValues3D.POLYGON, graphic_data=places, frame_of_reference_uid=images[0].FrameOfReferenceUID)
    groups = [
        PlanarROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=TrackingIdentifier(identifier=name, uid=derived_uid("marked", name)),
            referenced_region=region,
            finding_type=codes.SCT.Nodule,
            finding_sites=[FindingSite(anatomic_location=codes.SCT.Lung, laterality=codes.SCT.Left)],
            measurements=[Measurement(name=codes.SCT.Length, value=value, unit=codes.UCUM.Millimeter)],
        )
        for name, region, value in (("Flat", flat, 4.5), ("Deep", deep, 7.25))
    ]
    who = ObserverContext(
        observer_type=codes.DCM.Person, observer_identifying_attributes=PersonObserverIdentifyingAttributes(name="Reader^One", login_name="one")
    )
    content = MeasurementReport(
        observation_context=ObservationContext(observer_person_context=who),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=groups,
    )
    return highdicom.sr.Comprehensive3DSR(
        evidence=list(images),
        content=content[0],
        series_instance_uid=derived_uid("marked", "series"),
        series_number=91,
        sop_instance_uid=derived_uid("marked", "sr"),
        instance_number=1,
        manufacturer="Other",
        series_description="Marks",
    )


def under(image: Dataset) -> Under:
    return Under(
        sop_instance_uid=str(image.SOPInstanceUID),
        frame=1,
        rows=image.Rows,
        columns=image.Columns,
        plane=plane(image),
        frame_of_reference_uid=str(image.FrameOfReferenceUID),
    )


def laid(seg: Dataset, folder: Path, image: Dataset, **how: bool) -> np.ndarray:
    """Write a segmentation and return it on an image's pixels."""
    path = folder / f"{len(list(folder.iterdir()))}.dcm"
    seg.save_as(path, enforce_file_format=True)
    return overlay(segmentation(path), under(image), {1}, **how)


# ------------------------------------------------------------------------------------------------------------- overlays


@pytest.mark.parametrize("orientation", [*phantoms.ORIENTATIONS])
def test_the_nodes_own_segmentation_lies_on_the_marker_in_every_orientation(tmp_path: Path, orientation: str) -> None:
    """PS3.3 C.7.6.16.2.6: frames name the images that they were made from."""
    viewed = Viewed(tmp_path, phantoms.series(orientation=orientation, seed=orientation))
    (layer,) = viewed.scene()["layers"]
    slices = viewed.scene()["slices"]
    numbers = {uid: index for index, image in enumerate(viewed.images) if (uid := image.SOPInstanceUID)}
    for uid, frame, *_ in slices:
        alpha = viewed.picture(f"/view/{viewed.study}/overlay/{layer['uid']}/{uid}/{frame}/1.png")[..., 3] > 0
        truth = np.zeros((24, 20), bool)
        if numbers[uid] in (2, 3):
            truth[5:8, 14:18] = True
        assert (alpha == truth).all()
    assert {numbers[slices[index][0]] for index in layer["slices"]["1"]} == {2, 3}
    viewed.node.close()


def test_a_segmentation_of_mirrored_images_is_laid_by_where_it_is(tmp_path: Path) -> None:
    """PS3.3 C.7.6.2.1.1: rows and columns that run the other way, in another size, and slices in the other order; nobody names these images."""
    images = phantoms.series(seed="mirrored")
    far = phantoms.affine() @ [7, 23, 19, 1]
    others = phantoms.series(
        np.zeros((8, 48, 20), np.int16),
        orientation=(-1, 0, 0, 0, 1, 0),
        spacing_mm=(2.5, 0.4, 0.7),
        origin_mm=(far[0], phantoms.affine()[1, 3] - 0.2, far[2]),
        seed="mirrored",
        number=2,
    )
    mask = np.zeros((8, 48, 20), bool)
    mask[1, 10:16, 2:6] = True  # from the top slice down the second
    seg = drawn(others, mask)
    truth = np.zeros((24, 20), bool)
    truth[5:8, 14:18] = True
    found = [laid(seg, tmp_path, image) for image in images]
    assert [bool(one[..., 3].any()) for one in found] == [index == 6 for index in range(8)]
    assert ((found[6][..., 3] > 0) == truth).all()
    assert found[6][5, 14, :3].tolist() == list(COLOUR)


def test_a_segmentation_turned_within_its_plane_is_laid_by_where_it_is(tmp_path: Path) -> None:
    """Rows that run at an angle to those of the images: each pixel takes the nearest one."""
    images, angle = phantoms.series(seed="turned"), np.radians(30)
    cosines = (np.cos(angle), np.sin(angle), 0, -np.sin(angle), np.cos(angle), 0)
    others = phantoms.series(np.zeros((8, 40, 40), np.int16), orientation=cosines, spacing_mm=(2.5, 0.5, 0.5), seed="turned", number=2)
    mask = np.zeros((8, 40, 40), bool)
    mask[4, 8:20, 5:25] = True
    truth = np.zeros((24, 20), bool)
    back = np.linalg.inv(phantoms.affine(cosines, (2.5, 0.5, 0.5)))
    for row, column in np.ndindex(24, 20):
        _, at_row, at_column, _ = np.rint(back @ phantoms.affine() @ [4, row, column, 1]).astype(int)
        truth[row, column] = 8 <= at_row < 20 and 5 <= at_column < 25
    assert truth.any()
    assert ((laid(drawn(others, mask), tmp_path, images[4])[..., 3] > 0) == truth).all()


def test_an_oblique_segmentation_lies_on_its_own_plane_only(tmp_path: Path) -> None:
    """Planes that cross are not parallel: nothing is shown, rather than something in a wrong place."""
    oblique, axial = phantoms.series(orientation="oblique", seed="crossing"), phantoms.series(seed="crossing", number=2)
    mask = np.zeros((8, 24, 20), bool)
    mask[:, 5:9, 3:7] = True
    seg = drawn(oblique, mask)
    assert not any(laid(seg, tmp_path, image)[..., 3].any() for image in axial)
    assert np.argwhere(laid(seg, tmp_path, oblique[4])[..., 3]).min(axis=0).tolist() == [5, 3]


def _naming(seg: Dataset, images: Sequence[Dataset]) -> Dataset:
    """Let every frame say that it was made of all these images."""
    for frame in seg.PerFrameFunctionalGroupsSequence:
        item = frame.DerivationImageSequence[0]
        one = item.SourceImageSequence[0]
        item.SourceImageSequence = [copy.deepcopy(one) for _ in images]
        for source, image in zip(item.SourceImageSequence, images, strict=True):
            source.ReferencedSOPInstanceUID = image.SOPInstanceUID
    return seg


def test_a_frame_that_names_several_images_lies_on_those_where_it_is(tmp_path: Path) -> None:
    """PS3.3 C.7.6.16.2.6: it was derived from all of them, which does not say that it is on each."""
    images, mask = phantoms.series(seed="several"), np.zeros((8, 24, 20), bool)
    mask[4, 8:12, 5:9] = True
    seg = _naming(drawn(images, mask), images)
    assert [bool(laid(seg, tmp_path, image)[..., 3].any()) for image in images] == [index == 4 for index in range(8)]
    (tmp_path / "node").mkdir()
    viewed = Viewed(tmp_path / "node", images, [seg], works=False)
    what = viewed.scene()
    (on,) = what["layers"][0]["slices"]["1"]
    assert what["slices"][on][0] == images[4].SOPInstanceUID
    viewed.node.close()


def test_a_frame_does_not_lie_on_an_image_that_its_plane_crosses_whatever_it_names(tmp_path: Path) -> None:
    """Also where the image happens to have as many rows and columns."""
    oblique, axial = phantoms.series(orientation="oblique", seed="named"), phantoms.series(seed="named", number=2)
    mask = np.zeros((8, 24, 20), bool)
    mask[:, 5:9, 3:7] = True
    seg = _naming(drawn(oblique, mask), axial[4:5])
    assert not laid(seg, tmp_path, axial[4])[..., 3].any()


@pytest.mark.parametrize(
    ("keyword", "vr", "value"),
    [
        ("MaximumFractionalValue", "US", b"\1\0\2\0"),
        ("PerFrameFunctionalGroupsSequence", "LO", b"what is this"),
        ("SharedFunctionalGroupsSequence", "LO", b"what is this"),
    ],
)
def test_a_segmentation_that_cannot_be_is_no_fault_of_the_program(tmp_path: Path, keyword: str, vr: str, value: bytes) -> None:
    """It is left out, and the images are shown without it."""
    images, mask = phantoms.series(seed="odder"), np.zeros((8, 24, 20), np.float64)
    mask[4, 8:12, 5:9] = 1
    seg = drawn(images, mask, kind="FRACTIONAL", fractional_type="PROBABILITY")
    tag = tag_for_keyword(keyword)
    seg[tag] = RawDataElement(Tag(tag), vr, len(value), value, 0, False, True)
    viewed = Viewed(tmp_path, images, [seg], works=False)
    assert viewed.client.get(f"/view/{viewed.study}").status_code == 200
    answer = viewed.client.get(f"/view/{viewed.study}/overlay/{seg.SOPInstanceUID}/{images[4].SOPInstanceUID}/1/1.png")
    assert answer.status_code in (200, 406), answer.text
    viewed.node.close()


def test_nothing_is_laid_over_an_image_that_says_it_is_larger_than_is_shown(tmp_path: Path) -> None:
    """A header of some bytes must not ask for 17 GB."""
    images, mask = phantoms.series(seed="huge"), np.zeros((8, 24, 20), bool)
    mask[4, 8:12, 5:9] = True
    seg = drawn(images, mask)
    images[4].Rows = images[4].Columns = 65535
    viewed = Viewed(tmp_path, images, [seg], works=False)
    answer = viewed.client.get(f"/view/{viewed.study}/overlay/{seg.SOPInstanceUID}/{images[4].SOPInstanceUID}/1/1.png")
    assert answer.status_code == 406
    viewed.node.close()


def test_an_outline_is_the_segment_without_its_inside(tmp_path: Path) -> None:
    """A pixel is inside when its four neighbours belong to the segment."""
    images, mask = phantoms.series(seed="outline"), np.zeros((8, 24, 20), bool)
    mask[2, 4:9, 6:12] = True
    truth = mask[2].copy()
    truth[5:8, 7:11] = False
    assert ((laid(drawn(images, mask), tmp_path, images[2], outline=True)[..., 3] > 0) == truth).all()


@pytest.mark.parametrize("kind", ["FRACTIONAL", "LABELMAP"])
def test_other_kinds_of_segmentations_are_laid_as_well(tmp_path: Path, kind: str) -> None:
    """PS3.3 C.8.20.2.3, A.90: of fractions what is at least a half; of a label map its numbers."""
    images = phantoms.series(seed=kind)
    mask = np.zeros((8, 24, 20), np.float64 if kind == "FRACTIONAL" else np.uint8)
    mask[2, 4:9, 6:12] = 1
    truth = mask[2] > 0
    if kind == "FRACTIONAL":
        mask[2, 4, 6:12] = 0.4
        truth[4] = False
    found = laid(drawn(images, mask, kind=kind, **({"fractional_type": "PROBABILITY"} if kind == "FRACTIONAL" else {})), tmp_path, images[2])
    assert ((found[..., 3] > 0) == truth).all()
    assert found[6, 8, :3].tolist() == list(COLOUR)


def test_frames_of_an_enhanced_image_carry_their_own(tmp_path: Path) -> None:
    """PS3.3 C.7.6.16.2.6: Referenced Frame Number."""
    viewed = Viewed(tmp_path, [phantoms.enhanced(seed="enhanced")])
    what = viewed.scene()
    (layer,) = what["layers"]
    frames = [what["slices"][index][1] for index in layer["slices"]["1"]]
    assert sorted(frames) == [3, 4]
    for frame in (2, 3):
        alpha = viewed.picture(f"/view/{viewed.study}/overlay/{layer['uid']}/{what['slices'][0][0]}/{frame}/1.png")[..., 3]
        assert alpha[5:8, 14:18].all() == (frame == 3)
        assert np.count_nonzero(alpha) == (12 if frame == 3 else 0)
    viewed.node.close()


# ---------------------------------------------------------------------------------------------------------------- values


def test_slices_go_from_head_to_feet(web: Viewed) -> None:
    """Whatever the order in which they came; the letters are of the edges (PS3.3 C.7.6.1.1.1)."""
    what = web.scene()
    assert [uid for uid, *_ in what["slices"]] == [str(one.SOPInstanceUID) for one in reversed(web.images)]
    assert what["edges"] == [["R", "A", "L", "P"]] * 8
    assert what["sizes"] == [[20, 24, pytest.approx(0.8 / 0.7)]] * 8


def test_each_slice_has_its_own_letters_and_its_own_size(tmp_path: Path) -> None:
    """A localizer: planes that cross in one series, in another size (PS3.3 C.7.6.1.1.1)."""
    images = phantoms.localizer("scout")
    axial, coronal = images[:2], images[2:]
    viewed = Viewed(tmp_path, images, works=False)
    what = viewed.scene()
    truth = {str(one.SOPInstanceUID): (letters, rows) for some, letters, rows in ((axial, "RALP", 24), (coronal, "RHLF", 30)) for one in some}
    assert [("".join(said), size[1]) for said, size in zip(what["edges"], what["sizes"], strict=True)] == [truth[one[0]] for one in what["slices"]]
    for number, (uid, *_) in enumerate(what["slices"], start=1):
        page, (letters, rows) = viewed.page(f"?slice={number}"), truth[uid]
        assert "".join(re.findall(r'class="view-edge view-\w+">(\w)<', page)) == letters
        height = rows * (0.8 if rows == 24 else 0.5) / 0.7
        assert float(re.search(r'viewBox="0 0 20 ([0-9.]+)" tabindex', page)[1]) == pytest.approx(height)
    viewed.node.close()


def test_marks_lie_in_the_pixels_of_their_slice(web: Viewed) -> None:
    """PS3.3 C.18.6 and C.18.9: on an image as they are; in space where its points are, half a pixel from its corner."""
    flat, deep = web.scene()["shapes"]
    assert (flat["slice"], flat["label"]) == (7 - 3, "Flat")
    assert flat["points"] == [[2, 3], [9, 3], [9, 8], [2, 3]]
    assert (deep["slice"], deep["label"]) == (7 - 5, "Deep")
    assert np.allclose(deep["points"], [[4.5, 4.5], [10.5, 4.5], [10.5, 12.5], [4.5, 4.5]], atol=1e-3)


def test_measurements_are_listed_and_lead_to_their_slice(web: Viewed) -> None:
    """TID 1411 and 1410: name, value with unit, site; a segment leads to the middle of its slices."""
    page = web.page()
    rows = [re.sub(r"<[^>]+>|\s+", " ", row) for row in re.findall(r"<tr>\s*<td>.*?</tr>", page, re.DOTALL)]
    rows = [" ".join(row.split()) for row in rows]
    assert "Length 4.5 mm Lung (Left) slice 5" in rows
    assert "Length 7.25 mm Lung (Left) slice 3" in rows
    assert any(row.startswith("Volume") and row.endswith("mL Spleen slice 6") for row in rows)


# -------------------------------------------------------------------------------------------------------------- the page


def test_the_page_shows_a_slice_with_its_segments_and_runs_nothing_inline(web: Viewed) -> None:
    """Every picture that it names is there; what AI made is marked; a description is text, whatever it contains."""
    page = web.page()
    assert page.count("AI · research use · unverified") >= 3
    assert "Chest &lt;b&gt;" in page
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", page)
    pictures = [one.replace("&amp;", "&") for one in re.findall(r'(?:href|src)="(/view/[^"]+/(?:image|overlay|thumbnail)/[^"]+)"', page)]
    assert len(pictures) == 1 + 1 + 4  # image, overlay, and a thumbnail for each series
    assert all(web.client.get(one).status_code == 200 for one in pictures)


def test_links_and_the_form_do_without_script(web: Viewed) -> None:
    """A slice, a window, a hidden segment, outlines: each is a part of the address."""
    page = web.page("?slice=6&window=lung&hide=0.1")
    assert "6 / 8" in page
    assert "window=-600%2C1500" in page
    assert "/overlay/" not in page
    assert "/overlay/" in web.page("?slice=6")
    assert "/overlay/" not in web.page("?slice=1")
    assert "edge=1&" in web.page("?slice=6&edge=1").replace("&amp;", "&")
    for wrong in ("?slice=x", "?slice=-1", "?slice=99999999", "?window=<script>", "?hide=x&hide=1.1.1"):
        assert "<script>" not in web.page(wrong)


def test_windows_are_those_of_the_page(web: Viewed) -> None:
    """A number of pixels through each: 8 bits of a CT by the formula, and by its own values where it is asked to."""
    uid, frame, *_ = web.scene()["slices"][0]
    place = f"/view/{web.study}/image/{uid}/{frame}"
    values = phantoms.marked()[7].astype(float) - 1024
    truth = np.rint(np.clip(((values + 600.5) / 1499 + 0.5) * 255, 0, 255))
    assert (web.picture(f"{place}?window=-600,1500") == truth).all()
    automatic = web.picture(f"{place}?window=auto")
    assert (automatic.min(), automatic.max()) == (0, 255)
    assert web.client.get(f"{place}?window=1").status_code == 400


def test_pictures_are_kept_where_their_address_names_the_content(web: Viewed) -> None:
    """An address with the version of the file is good for ever, any other is asked for anew; neither by a shared cache."""
    uid, frame, version, _ = web.scene()["slices"][0]
    place = f"/view/{web.study}/image/{uid}/{frame}"
    kept = [web.client.get(f"{place}{query}").headers["cache-control"] for query in (f"?v={version}", "?v=1", "")]
    assert kept == ["private, max-age=31536000, immutable", *["private, no-cache"] * 2]
    assert web.client.get(f"/view/{web.study}").headers["cache-control"] == "no-store"


def test_what_is_not_there_is_not_found(web: Viewed) -> None:
    """404 for what the node does not hold, 400 for what is no UID; never a fault of the program."""
    what = web.scene()
    uid, seg = what["slices"][0][0], what["layers"][0]["uid"]
    base = f"/view/{web.study}"
    for path in (
        "/view/1.2.3",
        f"{base}?series=1.2.3",
        f"{base}/scene?series={'1' * 500}",
        f"{base}/image/1.2.3/1",
        f"{base}/image/{uid}/2",
        f"{base}/image/{uid}/0",
        f"{base}/overlay/{uid}/{uid}/1/1.png",
        f"{base}/overlay/{seg}/{uid}/2/1.png",
    ):
        assert web.client.get(path).status_code == 404, path
    for path in ("/view/x", f"{base}/image/x/1", f"{base}/overlay/{seg}/{uid}/1/one.png", f"{base}/overlay/{seg}/{uid}/1/1,,2.png"):
        assert web.client.get(path).status_code == 400, path
    assert not web.picture(f"{base}/overlay/{seg}/{uid}/1/7,99999.png").any()


def test_a_study_without_images_says_so(tmp_path: Path) -> None:
    """A report alone has nothing to lie on."""
    report = marked_report(phantoms.series(seed="alone"))
    viewed = Viewed(tmp_path, [report], works=False)
    assert "There is no image to show" in viewed.page()
    assert viewed.client.get(f"/view/{viewed.study}/scene").status_code == 404
    viewed.node.close()


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("NumberOfFrames", b"1\\2 "),
        ("Rows", b"\1\0\2\0"),
        ("BitsAllocated", b"\7\0"),
        ("WindowWidth", b"inf "),
        ("WindowCenter", b"x\\y"),
        ("RescaleSlope", b"nan "),
        ("PixelSpacing", b"0\\0 "),
        ("ImageOrientationPatient", b"1\\0 "),
        ("PhotometricInterpretation", b"\xff\xfe"),
        ("HighBit", b"\xff\xff"),
        ("PixelPaddingValue", b"\1\0\2\0"),
    ],
)
def test_a_header_that_cannot_be_is_no_fault_of_the_program(tmp_path: Path, keyword: str, value: bytes) -> None:
    """Whatever a peer wrote, an answer is good or says what is not: never 500."""
    images = phantoms.series(seed="odd", WindowCenter="1", WindowWidth="2", PixelPaddingValue=0, NumberOfFrames=1)
    for image in images:
        element = image[keyword]
        image[element.tag] = RawDataElement(element.tag, element.VR, len(value), value, 0, False, True)
    node = Node(tmp_path, {"marker": MARKER})
    node.receive(images[:2])
    client = TestClient(build(context(node.site, node.store)), base_url="http://127.0.0.1:8080", raise_server_exceptions=True)
    study, series, uid = (str(getattr(images[0], name)) for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"))
    there = f"/dicom-web/studies/{study}/series/{series}"
    for path in (f"/view/{study}", f"/view/{study}/scene", f"/view/{study}/image/{uid}/1", f"/view/{study}/image/{uid}/1?window=auto"):
        assert client.get(path).status_code in (200, 400, 404, 406), path
    for path in (f"{there}/rendered", f"{there}/instances/{uid}/rendered", f"{there}/thumbnail"):
        assert client.get(path).status_code in (200, 404, 406), path
    node.close()


def test_the_values_are_json_that_a_script_can_read(web: Viewed) -> None:
    """No NaN, no infinity."""
    text = web.client.get(f"/view/{web.study}/scene").text
    json.loads(text, parse_constant=pytest.fail)
