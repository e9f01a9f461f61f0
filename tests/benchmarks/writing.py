"""Findings to a Segmentation on disk, beside dcmqi and highdicom: 300 slices, 20 segments, 1580 frames as bit planes.

Ours is timed as in a worker that is warm: headers and label map in memory, from there to the bytes in a file. dcmqi's `itkimage2segimage` is a
program: it starts, reads the same 300 images and the label map from files in the system's cache, and writes the object. highdicom is given what
we are given; of fractions we are given bytes, as a model's process sends them, and highdicom floating point numbers, for it takes nothing else.
Rounds are interleaved, medians count. Peak memory is the growth of the resident set in a fresh process that has written a small object before:
VmHWM, reset through /proc/self/clear_refs, less VmRSS at that moment.
"""

import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from io import BytesIO
from pathlib import Path

import highdicom
import numpy as np
import SimpleITK
from pydicom import dcmread
from pydicom.sr.codedict import codes
from pydicom.uid import DeflatedExplicitVRLittleEndian

from dicom_node.analyse import wire
from dicom_node.config import Encoding
from dicom_node.domain import FRACTION_MAX, SEGMENT_AXIS, Findings
from dicom_node.report import Run, build, encode, warm
from dicom_node.report.grid import planes
from dicom_node.report.outcome import interpret
from dicom_node.report.seg import segmentation
from tests import findings as made
from tests import phantoms
from tests.benchmarks.measure import Measure
from tests.peers import need

SLICES, SIDE, SEGMENTS = 300, 512, 20
FRACTIONAL_SEGMENTS = 5
ROUNDS, FEW_ROUNDS = 5, 2  # few where highdicom sorts 393 million numbers
NAME = f"{SEGMENTS} segments on {SLICES} slices"


def measures(folder: Path, rounds: int = ROUNDS) -> Iterator[Measure]:
    """Measure the object as bit planes, as a label map and deflated; its size, the memory it takes, and the first of a process."""
    bench = Bench(folder)
    warm()
    ours, dcmqi, theirs, both, ours_map, dcmqi_map = _rounds(
        rounds,
        lambda: bench.by_us("BINARY"),
        lambda: bench.by_dcmqi("binary"),
        bench.by_highdicom,
        bench.with_report,
        lambda: bench.by_us("LABELMAP"),
        lambda: bench.by_dcmqi("labelmap"),
    )
    yield Measure(name=f"SEG, {NAME}, BINARY: dcmqi ÷ ours", ours=ours, peer=dcmqi, unit="s", ratio=dcmqi / ours, bar=0.9, aim=1.5)
    yield Measure(name=f"SEG, {NAME}, BINARY: highdicom ÷ ours", ours=ours, peer=theirs, unit="s", ratio=theirs / ours)
    yield Measure(name=f"SEG and SR, {NAME}: dcmqi's SEG alone ÷ ours", ours=both, peer=dcmqi, unit="s", ratio=dcmqi / both)
    yield Measure(name=f"SEG, {NAME}, LABELMAP: dcmqi ÷ ours", ours=ours_map, peer=dcmqi_map, unit="s", ratio=dcmqi_map / ours_map)
    yield from _deflated(bench, rounds)
    ours, theirs = bench.peak_mb("by_us"), bench.peak_mb("by_highdicom")
    yield Measure(name=f"SEG, {NAME}: peak memory, highdicom ÷ ours", ours=ours, peer=theirs, unit="MB", ratio=theirs / ours)
    yield from _fractional(folder / "fractional", min(rounds, FEW_ROUNDS))
    cold, warmed = bench.first_s(warmed=False), bench.first_s(warmed=True)
    yield Measure(name="first report of a process: as it is ÷ warmed", ours=warmed, peer=cold, unit="s", ratio=cold / warmed)


def _deflated(bench: "Bench", rounds: int) -> Iterator[Measure]:
    """What a destination that takes it is sent: deflated anew from the file, as delivery does it; dcmqi builds and deflates."""
    bench.by_us("BINARY")
    ours, dcmqi = _rounds(rounds, bench.deflated_by_us, lambda: bench.by_dcmqi("binary", "--compress", "deflate"))
    yield Measure(name="the same file deflated for sending", ours=ours, peer=dcmqi, unit="s", note="dcmqi's time is with the building")
    plain, small, theirs = (bench.folder / f"{name}.dcm" for name in ("BINARY", "deflated", "dcmqi-binary"))
    ours, peer = small.stat().st_size / 1e6, theirs.stat().st_size / 1e6
    whole = plain.stat().st_size / 1e6
    yield Measure(name="its size deflated", ours=ours, peer=peer, unit="MB", ratio=peer / ours, note=f"{whole:.1f} MB as it lies on disk")


def _fractional(folder: Path, rounds: int) -> Iterator[Measure]:
    """Fractions: the object, and before it what becomes of floating point numbers in the model's process, beside all of them at once."""
    bench, name = FractionalBench(folder), f"{FRACTIONAL_SEGMENTS} segments on {SLICES} slices, FRACTIONAL"
    ours, theirs = _rounds(rounds, bench.by_us, bench.by_highdicom)
    given = f"given {bench.findings.segments.array.nbytes / 1e6:.0f} MB of uint8, highdicom {bench.values.nbytes / 1e6:.0f} MB of float32"
    yield Measure(name=f"SEG, {name}: highdicom ÷ ours", ours=ours, peer=theirs, unit="s", ratio=theirs / ours, note=given)
    ours, theirs = bench.peak_mb("by_us"), bench.peak_mb("by_highdicom")
    yield Measure(
        name=f"SEG, {name}: peak memory, highdicom ÷ ours", ours=ours, peer=theirs, unit="MB", ratio=theirs / ours, note="beside what is given"
    )
    ours, theirs = _rounds(rounds, bench.bytes_by_slice, bench.bytes_at_once)
    yield Measure(name="its float32 made bytes in the model's process: all at once ÷ by slice", ours=ours, peer=theirs, unit="s", ratio=theirs / ours)
    ours, theirs = bench.peak_mb("bytes_by_slice"), bench.peak_mb("bytes_at_once")
    yield Measure(name="the same: peak memory, all at once ÷ by slice", ours=ours, peer=theirs, unit="MB", ratio=theirs / ours)


def _rounds(rounds: int, *ways: Callable[[], object]) -> list[float]:
    """Return the median time of each way, taken one after the other in every round; a first round is not counted."""
    taken: list[list[float]] = []
    for _ in range(rounds + 1):
        taken.append([])
        for way in ways:
            start = time.perf_counter()
            way()
            taken[-1].append(time.perf_counter() - start)
    return [statistics.median(times) for times in zip(*taken[1:], strict=True)]


class Bench:
    """One series, its label map, and the ways to write it."""

    def __init__(self, folder: Path, slices: int = SLICES) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        images = phantoms.series(np.zeros((slices, SIDE, SIDE), np.int16), spacing_mm=(1.0, 0.7, 0.7))
        self.assembled = made.assembled(images)
        self.model = made.model(folder / "model", self.manifest())
        self.findings = Findings(segments=self.segments(slices))
        self.images = images
        self.run(encoding="BINARY").model.build  # noqa: B018 — reckoned once in a worker's life

    def manifest(self) -> str:
        """Return what the model says of itself."""
        return manifest(SEGMENTS)

    def segments(self, slices: int) -> highdicom.Volume:
        """Return what it found."""
        return self.assembled.volume.with_array(labels(slices))

    def run(self, encoding: Encoding) -> Run:
        """Return the run that results are of."""
        return made.run(self.model, encoding=encoding)

    def by_us(self, encoding: Encoding = "BINARY") -> None:
        """Write the Segmentation as the worker does: read the findings, lay them over the images, build, encode, write."""
        outcome = interpret(self.findings, {"ct": self.assembled}, self.model.manifest)
        seg = segmentation(outcome, self.assembled, planes(self.assembled), self.run(encoding))
        (self.folder / f"{encoding}.dcm").write_bytes(encode(seg))

    def with_report(self) -> None:
        """Write all that the worker writes."""
        for draft in build(self.findings, {"ct": self.assembled}, self.run("BINARY")):
            (self.folder / f"both-{draft.kind}.dcm").write_bytes(encode(draft.dataset))

    def deflated_by_us(self) -> None:
        """Deflate the file for a destination that takes it so."""
        dataset = dcmread(self.folder / "BINARY.dcm")
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        dataset.save_as(self.folder / "deflated.dcm", enforce_file_format=True)

    def by_highdicom(self) -> None:
        """Write the Segmentation as highdicom's users do."""
        self._written_by_highdicom(self.findings.segments.array, SEGMENTS, "BINARY")

    def _written_by_highdicom(self, array: np.ndarray, segments: int, kind: str) -> None:
        seg = highdicom.seg.Segmentation(
            source_images=self.images,
            pixel_array=array,
            segmentation_type=kind,
            segment_descriptions=[_description(number) for number in range(1, segments + 1)],
            series_instance_uid="1.2.3",
            series_number=1,
            sop_instance_uid="1.2.3.4",
            instance_number=1,
            manufacturer="Bench",
            manufacturer_model_name="Bench",
            software_versions="1",
            device_serial_number="1",
        )
        file = BytesIO()
        seg.save_as(file)
        (self.folder / "highdicom.dcm").write_bytes(file.getvalue())

    def by_dcmqi(self, kind: str, *options: str) -> None:
        """Let dcmqi write it from the same images, in files, and the label map beside them."""
        given = self._for_dcmqi()
        paths = {"--inputDICOMDirectory": given / "in", "--inputImageList": given / "labels.nrrd", "--inputMetadata": given / "meta.json"}
        output = ["--outputDICOM", str(self.folder / f"dcmqi-{kind}.dcm"), "--segmentationType", kind, "--skip", "1", *options]
        told = [str(part) for option in paths.items() for part in option]
        subprocess.run([_itkimage2segimage(), *told, *output], check=True, capture_output=True)

    def peak_mb(self, way: str) -> float:
        """Return by how much the memory of a process grows at most while it writes the object."""
        return float(self._elsewhere("peak", way))

    def first_s(self, *, warmed: bool) -> float:
        """Return how long the first report of a process takes."""
        return statistics.median(float(self._elsewhere("first", "warm" if warmed else "cold")) for _ in range(3))

    def _elsewhere(self, what: str, how: str) -> str:
        folder = self.folder / f"{what}-{how}-{time.monotonic_ns()}"
        command = [sys.executable, "-m", __name__, type(self).__name__, what, how, str(folder)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def _for_dcmqi(self) -> Path:
        given = self.folder / "dcmqi"
        if not given.exists():
            phantoms.write(self.images, given / "in")
            image = SimpleITK.GetImageFromArray(self.findings.segments.array)
            image.SetOrigin(self.assembled.volume.affine[:3, 3].tolist())
            image.SetSpacing((0.7, 0.7, 1.0))
            SimpleITK.WriteImage(image, str(given / "labels.nrrd"), useCompression=False)
            (given / "meta.json").write_text(json.dumps(_meta()))
        return given


class FractionalBench(Bench):
    """The same series, how probable each of five organs is in each voxel, and the ways to write that."""

    def manifest(self) -> str:
        """Return what the model says of itself."""
        return f'fractional = "PROBABILITY"\n{manifest(FRACTIONAL_SEGMENTS)}'

    def segments(self, slices: int) -> highdicom.Volume:
        """Return what it found, as it comes from the model's process."""
        self.values = probabilities(slices)
        return self.assembled.volume.with_array(wire.fractions(self.values), {SEGMENT_AXIS: range(1, FRACTIONAL_SEGMENTS + 1)})

    def by_highdicom(self) -> None:
        """Write the Segmentation as highdicom's users do: only floating point numbers are fractions to it."""
        self._written_by_highdicom(self.values, FRACTIONAL_SEGMENTS, "FRACTIONAL")

    def bytes_by_slice(self) -> None:
        """Make bytes of the numbers as the model's process does."""
        wire.fractions(self.values)

    def bytes_at_once(self) -> None:
        """Make bytes of the numbers as one would write it down."""
        np.rint(self.values * np.float32(FRACTION_MAX)).astype(np.uint8)


def manifest(segments: int) -> str:
    """Return the manifest of a model that finds so many organs."""
    part = '[[segments]]\nnumber = {0}\nlabel = "Organ {0}"\ncategory = "SCT.AnatomicalStructure"\ntype = "SCT.Lung"\n'
    head = 'name = "organs"\nversion = "1.0.0"\ntask = "Finds organs."\n[inputs.ct]\nModality = "CT"\n'
    return head + "".join(part.format(number) for number in range(1, segments + 1))


def probabilities(slices: int) -> np.ndarray:
    """Return float32 (slice, row, column, segment), segment after segment in memory: ellipsoids that fade out at their rim, in every slice."""
    found = np.empty((FRACTIONAL_SEGMENTS, slices, SIDE, SIDE), np.float32)
    z, y, x = np.ogrid[:slices, :SIDE, :SIDE]
    for index in range(FRACTIONAL_SEGMENTS):
        away = ((z - slices / 2) / slices) ** 2 + ((y - 256) / 120) ** 2 + ((x - 80 - index * 88) / 80) ** 2
        found[index] = np.clip(1.5 - away, 0, 1)
    return np.moveaxis(found, 0, -1)


def labels(slices: int) -> np.ndarray:
    """Return ellipsoids in a label map (slice, row, column), each in 79 slices of 300, as organs are."""
    found = np.zeros((slices, SIDE, SIDE), np.uint8)
    z, y, x = np.ogrid[:slices, :SIDE, :SIDE]
    for number in range(1, SEGMENTS + 1):
        centre = 45 + number * 53 % 210, (number - 1) // 5 * 110 + 70, (number - 1) % 5 * 100 + 56
        found[((z - centre[0]) / 40) ** 2 + ((y - centre[1]) / 48) ** 2 + ((x - centre[2]) / 45) ** 2 < 1] = number
    return found


def _description(number: int) -> highdicom.seg.SegmentDescription:
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=f"Organ {number}",
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=codes.SCT.Lung,
        algorithm_type="AUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence("organs", codes.DCM.ArtificialIntelligence, "1.0.0"),
    )


def _meta() -> dict[str, object]:
    """Return what dcmqi is told of the segments."""

    def code(value: str, meaning: str) -> dict[str, str]:
        return {"CodeValue": value, "CodingSchemeDesignator": "SCT", "CodeMeaning": meaning}

    segments = [
        {
            "labelID": number,
            "SegmentDescription": f"Organ {number}",
            "SegmentAlgorithmType": "AUTOMATIC",
            "SegmentAlgorithmName": "organs",
            "SegmentedPropertyCategoryCodeSequence": code("123037004", "Anatomical Structure"),
            "SegmentedPropertyTypeCodeSequence": code("39607008", "Lung"),
            "recommendedDisplayRGBValue": [255, 204, 0],
        }
        for number in range(1, SEGMENTS + 1)
    ]
    about = {"ContentCreatorName": "x", "SeriesDescription": "x", "SeriesNumber": "300", "InstanceNumber": "1", "ContentLabel": "SEG"}
    return {**about, "ContentDescription": "x", "BodyPartExamined": "CHEST", "segmentAttributes": [segments]}


@cache
def _itkimage2segimage() -> str:
    path = Path(sys.executable).parent / "itkimage2segimage"
    return str(path) if path.is_file() else need("itkimage2segimage")


# ----------------------------------------------------------------------------------------------- in a process of its own


def _peak_mb(kind: type[Bench], way: str, folder: Path) -> float:
    folder.mkdir()
    small = kind(folder / "small", slices=100)
    getattr(small, way)()
    del small
    bench = kind(folder / "whole")
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_kb("VmRSS")
    getattr(bench, way)()
    return (_status_kb("VmHWM") - before) * 1024 / 1e6


def _status_kb(what: str) -> int:
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{what}:"))


def _first_s(how: str, folder: Path) -> float:
    assembled, run = made.assembled(phantoms.series()), made.run(made.model(folder))
    if how == "warm":
        warm()
    start = time.perf_counter()
    for draft in build(made.findings(assembled), {"ct": assembled}, run):
        encode(draft.dataset)
    return time.perf_counter() - start


if __name__ == "__main__":
    _, kind, what, how, where = sys.argv
    print(_peak_mb({"Bench": Bench, "FractionalBench": FractionalBench}[kind], how, Path(where)) if what == "peak" else _first_s(how, Path(where)))
