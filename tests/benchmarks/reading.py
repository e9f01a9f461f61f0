"""Files of one series to a volume in Hounsfield units: the whole of `assemble`, from paths to the finished volume, beside highdicom and pydicom.

Every round reads the same files, warm in the system's cache, one way after the other. The peers are given what they need for the same values:
highdicom all headers and pixels (`dcmread`), then its modality transform, as it is called by default (float64, the line that is judged) and asked
for float32; pydicom the files in the order of their positions. Peak memory is the growth of the resident set in a fresh process that
has assembled a few slices before: VmHWM, reset through /proc/self/clear_refs, less VmRSS at that moment.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
from pydicom import Dataset, dcmread
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from dicom_node.assemble.volume import assemble
from dicom_node.config import Input
from tests import phantoms
from tests.benchmarks.measure import Measure
from tests.peers import need

SLICES, CODED_SLICES, SIDE = 300, 100, 512
ROUNDS, CODED_ROUNDS = 7, 3
HU = Input(units="HU")
CODED = {"JPEG-LS": (JPEGLSLossless, "pyjpegls"), "JPEG 2000": (JPEG2000Lossless, "pylibjpeg"), "RLE": (RLELossless, "pylibjpeg")}

Way = Callable[[Sequence[Path]], np.ndarray]


def measures(folder: Path) -> Iterator[Measure]:
    """Measure uncompressed slices, peak memory, then every compressed syntax."""
    plain = phantoms.write(images(SLICES), folder / "uncompressed")
    ours, default, single, loop = rounds(plain, (by_us, by_highdicom, by_highdicom_in_float32, by_pydicom), ROUNDS)
    name = f"{SLICES} CT slices, uncompressed, to float32 HU"
    yield Measure(name=f"{name}: highdicom ÷ ours", ours=ours, peer=default, unit="s", ratio=default / ours, bar=6, aim=10)
    yield Measure(name=f"{name}: highdicom asked for float32 ÷ ours", ours=ours, peer=single, unit="s", ratio=single / ours)
    yield Measure(name=f"{name}: pydicom loop ÷ ours", ours=ours, peer=loop, unit="s", ratio=loop / ours)
    yield peak(folder / "uncompressed")
    for syntax, paths in coded(folder):
        ours, default, loop = rounds(paths, (by_us, by_highdicom, by_pydicom), CODED_ROUNDS)
        name = f"{CODED_SLICES} CT slices, {syntax}, to float32 HU"
        yield Measure(name=f"{name}: highdicom ÷ ours", ours=ours, peer=default, unit="s", ratio=default / ours)
        yield Measure(name=f"{name}: pydicom loop ÷ ours", ours=ours, peer=loop, unit="s", ratio=loop / ours)


def images(slices: int) -> list[Dataset]:
    """Return axial slices with a body, noise, and as many attributes as a scanner writes, some in sequences and some private."""
    rng = np.random.default_rng(1)
    row, column = np.ogrid[:SIDE, :SIDE]
    body = (row - SIDE / 2) ** 2 / 200**2 + (column - SIDE / 2) ** 2 / 230**2 < 1
    organs = 40 + 60 * np.sin(column / 31) * np.cos(row / 23)
    stored = np.stack([1024 + np.where(body, organs + 20 * np.sin(n / 7) + rng.normal(0, 12, body.shape), -1000) for n in range(slices)])
    made = phantoms.series(stored.astype(np.int16), spacing_mm=(1.0, 0.7, 0.7))
    for number, image in enumerate(made):
        _as_a_scanner_would(image, number)
    return made


def _as_a_scanner_would(image: Dataset, number: int) -> None:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "RPID145", "RADLEX", "CT CHEST"
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = image.file_meta.MediaStorageSOPClassUID, image.StudyInstanceUID
    image.ProcedureCodeSequence, image.ReferencedStudySequence = [code], [reference]
    image["ProcedureCodeSequence"].is_undefined_length = True
    image.InstitutionName, image.StationName, image.ProtocolName = "Phantom hospital", "CT01", "Chest routine"
    image.ContentDate, image.ContentTime, image.AcquisitionTime = "20240105", f"1016{number % 60:02d}.000", f"1016{number % 60:02d}.000"
    image.SliceLocation, image.TableHeight, image.GantryDetectorTilt, image.RotationDirection = f"{number}.0", "150.5", "0", "CW"
    image.ExposureTime, image.XRayTubeCurrent, image.Exposure, image.GeneratorPower, image.FocalSpots = 500, 200 + number % 40, 100, 30, "1.2"
    image.DataCollectionDiameter, image.ReconstructionDiameter, image.DistanceSourceToDetector = "500", "358.4", "1085.6"
    image.WindowCenter, image.WindowWidth, image.WindowCenterWidthExplanation = ["40", "-600"], ["400", "1600"], ["MEDIASTINUM", "LUNG"]
    image.PatientWeight, image.AdditionalPatientHistory, image.InstanceCreationDate, image.InstanceCreationTime = "70", "", "20240105", "101700"
    for group in (0x0019, 0x0043):
        block = image.private_block(group, "PHANTOM WORKS", create=True)
        for element in range(12):
            block.add_new(element, "DS" if element % 2 else "LO", f"{number}.{element}" if element % 2 else f"private {element}")


def coded(folder: Path) -> Iterator[tuple[str, list[Path]]]:
    """Yield each compressed syntax and a series written in it."""
    series = images(CODED_SLICES)
    plain = phantoms.write(series, folder / "to be coded")
    lossless = folder / "JPEG lossless"
    lossless.mkdir()
    for path in plain:
        subprocess.run([need("dcmcjpeg"), "+e1", path, lossless / path.name], check=True, timeout=60)
    yield "JPEG lossless", sorted(lossless.iterdir())
    for syntax, (transfer_syntax_uid, plugin) in CODED.items():
        made = [dcmread(path) for path in plain]
        for image in made:
            image.compress(transfer_syntax_uid, encoding_plugin=plugin, generate_instance_uid=False)
        yield syntax, phantoms.write(made, folder / syntax)


def rounds(paths: Sequence[Path], ways: Sequence[Way], count: int) -> list[float]:
    """Return each way's median time in seconds over interleaved rounds, after one that warms up and sees that all give the same values."""
    expected = ways[0](paths)
    for way in ways[1:]:
        assert np.array_equal(way(paths).astype(np.float32), expected), way.__name__
    del expected
    took: dict[Way, list[float]] = {way: [] for way in ways}
    for _ in range(count):
        for way, times in took.items():
            since = time.perf_counter()
            made = way(paths)
            times.append(time.perf_counter() - since)
            del made
    return [statistics.median(times) for times in took.values()]


def by_us(paths: Sequence[Path]) -> np.ndarray:
    return assemble(paths, HU).volume.array


def by_highdicom(paths: Sequence[Path]) -> np.ndarray:
    return hd.get_volume_from_series([dcmread(path) for path in paths], apply_modality_transform=True).array


def by_highdicom_in_float32(paths: Sequence[Path]) -> np.ndarray:
    return hd.get_volume_from_series([dcmread(path) for path in paths], apply_modality_transform=True, dtype=np.float32).array


def by_pydicom(paths: Sequence[Path]) -> np.ndarray:
    headers = sorted((dcmread(path) for path in paths), key=lambda image: -float(image.ImagePositionPatient[2]))
    array = np.empty((len(headers), SIDE, SIDE), np.float32)
    for slot, image in zip(array, headers, strict=True):
        np.add(image.pixel_array * np.float32(image.RescaleSlope), np.float32(image.RescaleIntercept), out=slot)
    return array


# --------------------------------------------------------------------------------------------------------------- memory

WAYS: Mapping[str, Way] = {way.__name__: way for way in (by_us, by_highdicom, by_highdicom_in_float32, by_pydicom)}


def peak(folder: Path) -> Measure:
    """Measure our peak memory, and highdicom's, each in a fresh process."""
    program = "import sys; from tests.benchmarks.reading import grown; grown(*sys.argv[1:])"
    grown_bytes = {}
    for way in ("by_us", "by_highdicom"):
        command = [sys.executable, "-c", program, way, str(folder)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[2])
        grown_bytes[way] = int(done.stdout)
    array = SLICES * SIDE * SIDE * 4
    ours, peer = grown_bytes["by_us"], grown_bytes["by_highdicom"]
    name = "the same: our peak memory ÷ the array's"
    return Measure(name=name, ours=ours / 1e6, peer=peer / 1e6, unit="MB", ratio=ours / array, bar=1.5, aim=1.2, at_most=True)


def grown(way: str, folder: str) -> None:
    """Print by how many bytes the resident set grows at most while a series is read; to be run in a process of its own."""
    paths = sorted(Path(folder).iterdir())
    WAYS[way](paths[:4])
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_bytes("VmRSS")
    WAYS[way](paths)
    print(_status_bytes("VmHWM") - before)


def _status_bytes(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024
