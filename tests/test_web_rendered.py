"""Rendered resources and thumbnails, without a socket: the golden values are worked out here, pixel by pixel, from the formulas of the standard."""

import io
import math
import tracemalloc
from collections.abc import Callable, Iterator
from email import message_from_bytes
from email.policy import HTTP
from pathlib import Path

import numpy as np
import pydicom.uid
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.encaps import encapsulate, generate_frames
from pydicom.tag import Tag
from pydicom.uid import EncapsulatedPDFStorage, JPEG2000Lossless, RLELossless, SecondaryCaptureImageStorage, UltrasoundMultiFrameImageStorage
from starlette.testclient import TestClient

from dicom_node.domain import derived_uid
from dicom_node.serve.web import context
from dicom_node.web import build
from dicom_node.web.rendering.asked import asked, frames
from dicom_node.web.rendering.grey import Look, Shape, Window, automatic, look, shown, table, windowed
from dicom_node.web.rendering.kinds import kind_of
from dicom_node.web.rendering.source import Lately
from tests import phantoms
from tests.reported import Node

MARKER = Path(__file__).parent / "walks" / "models" / "marker"
VALUES = phantoms.marked()[2].astype(int) - 1024  # of the third image, HU


class Rendered:
    """A node that holds one study: a CT, its SEG and SR, and a series of pictures of other kinds."""

    def __init__(self, folder: Path) -> None:
        self.node = Node(folder, {"marker": MARKER})
        self.images = phantoms.series(WindowCenter=["-900", "40"], WindowWidth=["200", "400"])
        self.others = [_multi(), _palette(), _monochrome1(), _ybr(), *_compressed(), _broken()]
        self.study = self.node.receive(self.images)
        self.node.work()
        self.node.receive(self.others)
        self.client = TestClient(build(context(self.node.site, self.node.store)), base_url="http://127.0.0.1:8080")

    def path(self, one: Dataset) -> str:
        return f"/dicom-web/studies/{self.study}/series/{one.SeriesInstanceUID}/instances/{one.SOPInstanceUID}"

    def made(self, kind: str) -> str:
        """Return the path of a result."""
        (row,) = (one for one in self.node.store.jobs.results(1) if one.kind == kind)
        return f"/dicom-web/studies/{self.study}/series/{row.series_instance_uid}/instances/{row.sop_instance_uid}"

    def pixels(self, path: str, query: str = "", accept: str = "image/png") -> np.ndarray:
        answer = self.client.get(f"{path}/rendered{query}", headers={"Accept": accept})
        assert answer.status_code == 200, answer.text
        return np.asarray(Image.open(io.BytesIO(answer.content)))


def _other(number: int, pixels: np.ndarray, **attributes: object) -> Dataset:
    """Return an image of 8 bits."""
    (image,) = phantoms.series(np.zeros((1, *pixels.shape[-2:]), np.int16), number=50, rescale=None, modality="MR")
    image.SOPInstanceUID = derived_uid("rendered", number)
    image.SOPClassUID, image.Modality, image.InstanceNumber = SecondaryCaptureImageStorage, "OT", number
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 8, 8, 7, 0
    for keyword, value in attributes.items():
        setattr(image, keyword, value)
    data = pixels.astype(np.uint8).tobytes()
    image.PixelData = data + b"\0" * (len(data) % 2)
    image["PixelData"].VR = "OB"
    image.file_meta.MediaStorageSOPClassUID, image.file_meta.MediaStorageSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return image


def _multi() -> Dataset:
    shades = np.repeat([10, 90, 200], 16 * 12).reshape(3, 16, 12)
    return _other(1, shades, NumberOfFrames=3, FrameTime="50", SOPClassUID=UltrasoundMultiFrameImageStorage, Modality="US")


def _palette() -> Dataset:
    lut = {}
    for name, values in (("Red", [0, 65280, 0]), ("Green", [0, 0, 32768]), ("Blue", [256, 0, 0])):
        lut[f"{name}PaletteColorLookupTableDescriptor"] = [3, 5, 16]
        lut[f"{name}PaletteColorLookupTableData"] = np.array(values, "<u2").tobytes()
    return _other(2, np.array([[0, 5], [6, 7], [8, 255]]), PhotometricInterpretation="PALETTE COLOR", **lut)


def _monochrome1() -> Dataset:
    return _other(3, np.array([[0, 50], [100, 255]]), PhotometricInterpretation="MONOCHROME1")


def _ybr() -> Dataset:
    pixels = np.zeros((2, 2, 3))
    pixels[..., 0], pixels[..., 1:] = [[81, 145], [41, 255]], 128
    pixels[1, 0] = 76, 85, 255  # red
    image = _other(4, np.zeros((2, 2)), PhotometricInterpretation="YBR_FULL", SamplesPerPixel=3, PlanarConfiguration=0)
    image.PixelData = pixels.astype(np.uint8).tobytes()
    return image


def _compressed() -> list[Dataset]:
    found = []
    for number, syntax in enumerate((RLELossless, JPEG2000Lossless), start=5):
        image = _other(number, np.arange(32 * 32).reshape(32, 32) % 251)
        image.compress(syntax, generate_instance_uid=False)
        found.append(image)
    return found


def _broken() -> Dataset:
    image = _other(9, np.zeros((4, 4)))
    image.PixelData = b"\0\0"
    return image


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rendered]:
    """The study above, served."""
    found = Rendered(tmp_path_factory.mktemp("rendered"))
    with found.client:
        yield found
    found.node.close()


def linear(value: float, center: float, width: float) -> float:
    """PS3.3 C.11.2.1.2.1, as it is written there."""
    if value <= center - 0.5 - (width - 1) / 2:
        return 0
    if value > center - 0.5 + (width - 1) / 2:
        return 255
    return ((value - (center - 0.5)) / (width - 1) + 0.5) * 255


def exact(value: float, center: float, width: float) -> float:
    """PS3.3 C.11.2.1.3.2."""
    if value <= center - width / 2:
        return 0
    return 255 if value > center + width / 2 else ((value - center) / width + 0.5) * 255


def sigmoid(value: float, center: float, width: float) -> float:
    """PS3.3 C.11.2.1.3.1."""
    return 255 / (1 + math.exp(-4 * (value - center) / width))


def by_hand(function: object, center: float, width: float) -> np.ndarray:
    return np.array([[round(function(int(value), center, width)) for value in row] for row in VALUES])  # type: ignore[operator]


# -------------------------------------------------------------------------------------------------------------- pixels


@pytest.mark.parametrize(("said", "function"), [("linear", linear), ("linear-exact", exact), ("SIGMOID", sigmoid)])
def test_a_window_that_is_asked_for_is_that_of_the_standard(web: Rendered, said: str, function: object) -> None:
    """PS3.18 8.3.5.1.4, PS3.3 C.11.2.1: every pixel of a CT image, by hand; HU come by the rescale."""
    found = web.pixels(web.path(web.images[2]), f"?window=-940,90,{said}")
    assert np.abs(found.astype(int) - by_hand(function, -940, 90)).max() == 0
    assert len(np.unique(found)) > 20


def test_the_first_window_of_the_header_is_the_default(web: Rendered) -> None:
    """PS3.3 C.11.2.1.2: of several views the first."""
    assert (web.pixels(web.path(web.images[2])) == by_hand(linear, -900, 200)).all()


def test_a_frame_is_the_same_as_its_instance(web: Rendered) -> None:
    """PS3.18 10.4.1.1.3: /frames/1/rendered."""
    place = web.path(web.images[0])
    assert (web.pixels(f"{place}/frames/1") == web.pixels(place)).all()


def test_a_palette_gives_its_colours(web: Rendered) -> None:
    """PS3.3 C.7.6.3.1.5: entries of 16 bits, the first for 5, and the ends for what lies beyond."""
    dark, red, green = (0, 0, 1), (255, 0, 0), (0, 128, 0)
    assert web.pixels(web.path(web.others[1])).tolist() == [[list(dark)] * 2, [list(red), list(green)], [list(green)] * 2]


def test_low_values_are_bright_in_monochrome1(web: Rendered) -> None:
    """PS3.3 C.7.6.3.1.2; 8 bits without a window are shown as they are."""
    assert web.pixels(web.path(web.others[2])).tolist() == [[255, 205], [155, 0]]


def test_luminance_and_chrominance_become_red_green_and_blue(web: Rendered) -> None:
    """PS3.3 C.7.6.3.1.2, YBR_FULL: grey where both differences are 128, and red."""
    found = web.pixels(web.path(web.others[3]))
    assert found[0].tolist() == [[81] * 3, [145] * 3]
    assert np.abs(found[1, 0].astype(int) - [254, 0, 0]).max() <= 1


def test_compressed_pixels_are_decoded(web: Rendered) -> None:
    """RLE and JPEG 2000 without loss give what was coded."""
    truth = (np.arange(32 * 32).reshape(32, 32) % 251).tolist()
    assert [web.pixels(web.path(one)).tolist() for one in web.others[4:6]] == [truth, truth]


def test_a_segmentation_is_shown_as_its_segments_in_their_colours(web: Rendered) -> None:
    """PS3.3 C.8.20.2: the Recommended Display CIELab Value, where the phantom's marker is and nowhere else."""
    found = web.pixels(web.made("SEG"))
    inside = np.zeros(found.shape[:2], bool)
    inside[5:8, 14:18] = True
    assert found[~inside].max() == 0
    assert len(np.unique(found[inside], axis=0)) == 1
    assert found[inside].max() > 100


def test_a_viewport_cuts_and_scales(web: Rendered) -> None:
    """PS3.18 8.3.5.1.3: what fits inside, never stretched; a part of it, mirrored where its size is negative."""
    place = web.path(web.images[2])
    assert web.pixels(place, "?viewport=40,1000").shape == (48, 40)
    marker = web.pixels(place, "?viewport=4,3,14,5,4,3&window=-500,2,linear-exact")
    assert marker.tolist() == [[255] * 4] * 3
    plain, mirrored = (web.pixels(place, f"?viewport=20,24,0,0,{across},24") for across in (20, -20))
    assert (plain[:, ::-1] == mirrored).all()


def test_annotations_are_burned_in_only_when_asked_for(web: Rendered) -> None:
    """PS3.18 8.3.5.1.1."""
    place = web.path(web.images[2])
    plain, named = web.pixels(place, "?viewport=200,240"), web.pixels(place, "?viewport=200,240&annotation=patient,technique")
    assert plain.shape == named.shape
    assert (plain != named).any()


# --------------------------------------------------------------------------------------------------------- tables and looks


def test_tables_take_the_place_of_a_line() -> None:
    """PS3.3 C.11.1 and C.11.2.1.1: a modality LUT, then a VOI LUT, both with a first value; beyond their ends the end counts."""
    modality, interest = table([4, 10, 16], [0, 100, 200, 300]), table([3, 100, 8], bytes([0, 51, 255]))
    how = Look(slope=1, intercept=0, modality=modality, windows=(), of_interest=interest, inverse=False, padding=None)
    assert shown(np.array([[0, 10, 11, 12, 99]]), how).tolist() == [[0, 0, 0, 255, 255]]
    straight = Look(slope=1, intercept=0, modality=None, windows=(), of_interest=interest, inverse=True, padding=None)
    assert shown(np.array([[99, 100, 101, 102, 200]]), straight).tolist() == [[255, 255, 204, 0, 0]]


def test_a_presentation_lut_shape_is_stronger_than_the_photometric_interpretation() -> None:
    """PS3.3 C.11.6: IDENTITY and INVERSE."""
    image = Dataset()
    image.PhotometricInterpretation = "MONOCHROME1"
    assert look(image, 0).inverse
    image.PresentationLUTShape = "IDENTITY"
    assert not look(image, 0).inverse
    image.PhotometricInterpretation, image.PresentationLUTShape = "MONOCHROME2", "INVERSE"
    assert look(image, 0).inverse


def test_frames_have_windows_of_their_own() -> None:
    """PS3.3 C.7.6.16.2.10: Frame VOI LUT, per frame before shared."""
    image = phantoms.enhanced()
    for number, frame in enumerate(image.PerFrameFunctionalGroupsSequence):
        one = Dataset()
        one.WindowCenter, one.WindowWidth, one.VOILUTFunction = number, 10 + number, "SIGMOID"
        frame.FrameVOILUTSequence = [one]
    assert look(image, 3).windows == (Window(center=3, width=13, function=Shape.SIGMOID),)
    assert look(image, 3).intercept == -1024


def test_a_window_of_width_one_divides() -> None:
    """PS3.3 C.11.2.1.2.1: no division by zero."""
    assert windowed(np.array([9.0, 10.0]), Window(center=10, width=1)).tolist() == [0, 255]


@pytest.mark.parametrize("windows", [(), (Window(center=300, width=700),)])
def test_a_large_image_is_shown_in_little_more_than_its_own_memory(windows: tuple[Window, ...]) -> None:
    """A mammogram has twenty million pixels, and several are asked for at once; the greys are those of the whole worked out in one."""
    values = np.random.default_rng(1).integers(0, 4096, (2000, 1500), dtype=np.uint16)
    how = Look(slope=1.5, intercept=-7, modality=None, windows=windows, of_interest=None, inverse=True, padding=(0, 100))
    meant = values[values > 100] * 1.5 - 7
    truth = 255 - np.rint(windowed(values * 1.5 - 7, *(windows or (automatic(meant),)))).astype(np.uint8)
    tracemalloc.start()
    found = shown(values, how)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (found == truth).all()
    assert peak_bytes < 8 * values.size


# ------------------------------------------------------------------------------------------------------- what peers may send


def _long_header() -> Dataset:
    image = _other(20, np.zeros((4, 4)))
    for number in range(6):
        image.add_new(0x00091000 + number, "OB", bytes(7 << 20))
    return image


def _long_sequence() -> Dataset:
    image = _other(21, np.zeros((4, 4)))
    item = Dataset()
    item.add_new(0x00091000, "OB", bytes(40 << 20))
    image.ContentSequence = [item]
    return image


def _long_fragment() -> Dataset:
    image = _other(22, np.zeros((16, 16)))
    image.compress(RLELossless, generate_instance_uid=False)
    (fragment,) = generate_frames(image.PixelData, number_of_frames=1)
    image.PixelData = encapsulate([fragment + bytes(40 << 20)])
    image["PixelData"].VR = "OB"
    return image


@pytest.mark.parametrize("made", [_long_header, _long_sequence, _long_fragment])
def test_what_is_longer_than_can_be_is_not_read(tmp_path: Path, made: Callable[[], Dataset]) -> None:
    """A peer decides how long a file is, and not how much memory the node takes to show it."""
    image = made()
    node = Node(tmp_path, {"marker": MARKER})
    study = node.receive([image])
    path = f"/dicom-web/studies/{study}/series/{image.SeriesInstanceUID}/instances/{image.SOPInstanceUID}"
    del image
    client = TestClient(build(context(node.site, node.store)), base_url="http://127.0.0.1:8080")
    assert client.get("/health/live").status_code == 200
    tracemalloc.start()
    answers = [client.get(f"{path}/{name}").status_code for name in ("rendered", "thumbnail")]
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert answers == [406, 200]
    assert peak_bytes < 36 << 20
    node.close()


@pytest.mark.parametrize(
    ("said", "given"),
    [(b"\3\0\1\0", 0x10003), (b"\xff\xff\xff\xff", 0x10004), (b"\3\0\1\0\4\0\0\0", 0x10004), (b"", 0x10004)],
)
def test_an_encapsulated_document_is_given_as_long_as_it_says(tmp_path: Path, said: bytes, given: int) -> None:
    """PS3.3 C.24.2: Encapsulated Document Length leaves out the byte that makes the value even; nonsense is no fault of the program."""
    image = _other(24, np.zeros((4, 4)), SOPClassUID=EncapsulatedPDFStorage, Modality="DOC")
    del image.PixelData
    image.EncapsulatedDocument = bytes(range(256)) * 256 + b"end\0"
    image[0x00420015] = RawDataElement(Tag(0x00420015), "UL", len(said), said, 0, False, True)
    node = Node(tmp_path, {"marker": MARKER})
    study = node.receive([image])
    client = TestClient(build(context(node.site, node.store)), base_url="http://127.0.0.1:8080")
    place = f"/dicom-web/studies/{study}/series/{image.SeriesInstanceUID}/instances/{image.SOPInstanceUID}"
    answer = client.get(f"{place}/rendered", headers={"Accept": "application/pdf"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/pdf")
    assert answer.content == image.EncapsulatedDocument[:given]
    assert client.get(f"{place}/rendered", headers={"Accept": "image/png"}).status_code == 406
    node.close()


def test_what_was_read_is_kept_as_long_as_it_is_not_long() -> None:
    """A segmentation of ten thousand frames is a hundred megabytes in memory: the last is kept, whatever its size, and not sixteen of them."""
    read: list[Path] = []
    kept = Lately(lambda path: (read.append(path), path)[1], lambda path: int(path.name))
    for name in ("1000", "2000", "1000", "9000000", "9000000", "1000", "2000"):
        assert kept(Path(name)) == Path(name)
    assert [path.name for path in read] == ["1000", "2000", "9000000", "1000", "2000"]


def test_what_a_format_cannot_hold_is_not_acceptable(tmp_path: Path) -> None:
    """JPEG ends at 65500 rows, DICOM at 65535; PNG holds it."""
    image = _other(23, np.zeros((65535, 1)), Rows=65535, Columns=1)
    node = Node(tmp_path, {"marker": MARKER})
    study = node.receive([image])
    client = TestClient(build(context(node.site, node.store)), base_url="http://127.0.0.1:8080")
    path = f"/dicom-web/studies/{study}/series/{image.SeriesInstanceUID}/instances/{image.SOPInstanceUID}/rendered"
    assert client.get(path, headers={"Accept": "image/jpeg"}).status_code == 406
    assert client.get(path, headers={"Accept": "image/png"}).status_code == 200
    node.close()


# ------------------------------------------------------------------------------------------------------------ representations


def test_jpeg_is_the_default_and_png_and_gif_are_there(web: Rendered) -> None:
    """PS3.18 Table 8.7.4-1."""
    place = f"{web.path(web.images[0])}/rendered"
    kinds = [web.client.get(place, headers={"Accept": one}).headers["content-type"] for one in ("*/*", "image/*", "image/png", "image/gif")]
    assert kinds == ["image/jpeg", "image/jpeg", "image/png", "image/gif"]
    assert web.client.get(f"{place}?accept=image/png").headers["content-type"] == "image/png"
    small, large = (len(web.client.get(f"{place}?quality={one}&viewport=500,500").content) for one in (5, 95))
    assert small < large


def test_many_frames_move_or_come_as_parts(web: Rendered) -> None:
    """PS3.18 8.7.4: a GIF with every frame and its time; multipart with one part each; a plain picture is the middle one."""
    place = web.path(web.others[0])
    gif = Image.open(io.BytesIO(web.client.get(f"{place}/rendered", headers={"Accept": "image/gif"}).content))
    assert (gif.n_frames, gif.info["duration"]) == (3, 50)
    assert web.pixels(place).max() == 90
    parts = _parts(web.client.get(f"{place}/frames/3,1/rendered", headers={"Accept": 'multipart/related; type="image/png"'}))
    assert [np.asarray(Image.open(io.BytesIO(data))).max() for _, data in parts] == [200, 10]
    assert [where.endswith(f"/frames/{number}/rendered") for (where, _), number in zip(parts, (3, 1), strict=True)] == [True, True]


def test_a_gif_is_not_made_of_more_than_can_be_read_in_a_while(tmp_path: Path) -> None:
    """However small it is asked for: every frame would be read whole."""
    image = _other(25, np.zeros((4, 4)), Rows=8192, Columns=8192, NumberOfFrames=5, SOPClassUID=UltrasoundMultiFrameImageStorage)
    node = Node(tmp_path, {"marker": MARKER})
    study = node.receive([image])
    client = TestClient(build(context(node.site, node.store)), base_url="http://127.0.0.1:8080")
    path = f"/dicom-web/studies/{study}/series/{image.SeriesInstanceUID}/instances/{image.SOPInstanceUID}/rendered?viewport=1,1"
    assert client.get(path, headers={"Accept": "image/gif"}).status_code == 413
    node.close()


def test_a_series_is_one_picture_or_all_of_them(web: Rendered) -> None:
    """PS3.18 10.4.1.1.3: a plain type gets what stands for the series, multipart/related every image; what is broken is left out."""
    series = f"/dicom-web/studies/{web.study}/series/{web.images[0].SeriesInstanceUID}/rendered"
    assert web.client.get(series, headers={"Accept": "image/jpeg"}).headers["content-type"] == "image/jpeg"
    everything = f"/dicom-web/studies/{web.study}/rendered"
    for place, count in ((series, 8), (everything, 8 + 3 + 5 + 2)):  # the SEG has two frames
        assert len(_parts(web.client.get(place, headers={"Accept": "multipart/related; type=image/jpeg"}))) == count


def _parts(answer: object) -> list[tuple[str, bytes]]:
    """Take multipart/related apart by the standard library's reader of messages."""
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()  # type: ignore[attr-defined]
    message = message_from_bytes(head + answer.content, policy=HTTP)  # type: ignore[attr-defined]
    return [(str(part["Content-Location"]), part.get_payload(decode=True)) for part in message.iter_parts()]


def test_a_report_is_a_page_or_a_text(web: Rendered) -> None:
    """PS3.18 Table 8.7.4-1: text/html is the default, text/plain is there; a page runs nothing."""
    place = f"{web.made('SR')}/rendered"
    page, text = web.client.get(place), web.client.get(place, headers={"Accept": "text/plain"})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"] == "default-src 'none'"
    assert "Imaging Measurement Report" in page.text
    assert "Centre, towards the left: " in text.text
    assert "Verification: UNVERIFIED" in text.text
    assert web.client.get(place, headers={"Accept": "image/jpeg"}).status_code == 406


def test_thumbnails_are_small_and_there_for_everything(web: Rendered) -> None:
    """PS3.18 10.4.1.1.5: of a study, a series, an instance and a frame; a report shows its kind."""
    study = f"/dicom-web/studies/{web.study}"
    places = [study, f"{study}/series/{web.images[0].SeriesInstanceUID}", web.path(web.images[0]), f"{web.path(web.others[0])}/frames/2"]
    for place in [*places, web.made("SEG"), web.made("SR"), web.path(web.others[-1])]:
        answer = web.client.get(f"{place}/thumbnail", headers={"Accept": "image/jpeg"})
        assert answer.headers["content-type"] == "image/jpeg"
        assert max(Image.open(io.BytesIO(answer.content)).size) == 128


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("?window=a,b", 400),
        ("?window=40", 400),
        ("?window=40,0,linear", 400),
        ("?window=40,400,cubic", 400),
        ("?window=nan,400", 400),
        ("?window=1e400,400", 400),
        ("?viewport=0,10", 400),
        ("?viewport=5000,10", 400),
        ("?viewport=10,10,1", 400),
        ("?viewport=10,10,0,0,0,5", 400),
        ("?viewport=10,10,15,0,10,5", 406),
        ("?quality=0", 400),
        ("?quality=101", 400),
        ("?quality=²", 400),
        ("?annotation=everything", 400),
        ("?iccprofile=cmyk", 400),
        ("?accept=application/dicom", 406),
        ("?iccprofile=srgb&annotation=&quality=100", 200),
    ],
)
def test_what_is_asked_wrongly_is_said(web: Rendered, query: str, status: int) -> None:
    """PS3.18 8.3.5 and 8.5."""
    assert web.client.get(f"{web.path(web.images[0])}/rendered{query}").status_code == status


def test_what_is_not_there_is_not_found(web: Rendered) -> None:
    """PS3.18 8.5: 404, 400 for what is no UID, 406 for pixels that cannot be shown; never a fault of the program."""
    place = web.path(web.images[0])
    wrong = f"/dicom-web/studies/1.2.3/series/{web.images[0].SeriesInstanceUID}/rendered"
    for path in (f"{place}/frames/2/rendered", f"{place}7/rendered", wrong, "/dicom-web/studies/1.2.3/thumbnail"):
        assert web.client.get(path).status_code == 404, path
    for path in (f"{place}/frames/0/rendered", f"{place}/frames/1,x/rendered", "/dicom-web/studies/..1/rendered"):
        assert web.client.get(path).status_code == 400, path
    assert web.client.get(f"{web.path(web.others[-1])}/rendered").status_code == 406


@pytest.mark.parametrize(
    ("kind", "classes"),
    [
        ("images", "CTImage MRImage UltrasoundMultiFrameImage RTImage RTDose ParametricMap SecondaryCaptureImage VLWholeSlideMicroscopyImage"),
        ("segments", "Segmentation"),
        ("report", "BasicTextSR Comprehensive3DSR KeyObjectSelectionDocument"),
        ("other", "RTStructureSet RTPlan RTBeamsTreatmentRecord RTIonPlan CArmPhotonElectronRadiation SpatialRegistration SpatialFiducials RawData"),
        (
            "other",
            "MRSpectroscopy GrayscaleSoftcopyPresentationState TwelveLeadECGWaveform EncapsulatedPDF RealWorldValueMapping SurfaceSegmentation",
        ),
        ("other", "MicroscopyBulkSimpleAnnotations ContentAssessmentResults Inventory CTDefinedProcedureProtocol"),
    ],
)
def test_classes_are_known_by_what_they_show(kind: str, classes: str) -> None:
    """PS3.4 Table B.5-1: the viewer and rendered resources agree on what has pixels."""
    assert {name: kind_of(str(getattr(pydicom.uid, f"{name}Storage"))) for name in classes.split()} == dict.fromkeys(classes.split(), kind)


def test_frames_are_read_as_a_list() -> None:
    """PS3.18 10.1.1: numbers from 1 with commas, each once."""
    assert frames("3,1,3") == [3, 1]
    for wrong in ("", "0", "1,,2", "-1", "1.5", "٣"):
        with pytest.raises(ValueError, match="numbers"):
            frames(wrong)
    assert asked({}).options.window is None
