"""Files seen as a study: for those who try a model or a rule on a folder. Nothing is stored, and nothing is refused that could be read."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue

from dicom_node.domain import DRAWN_ON, HEADER_KEYWORDS, Header, Instance, Refused, Rejected, Study, drawn_on
from dicom_node.receive.header import read_header, split_file
from dicom_node.receive.receipt import digest_of

_HEAD_BYTES = 1 << 20  # of a file: far more than a header takes before the pixels


def study_of(files: Sequence[Path], keywords: Iterable[str] = ()) -> Study:
    """Return the study that files hold; their `Instance.path` is the file's own. What is not DICOM is passed over.

    keywords: beyond HEADER_KEYWORDS, read from one file of each series.

    Raises
    ------
    Rejected: there is no DICOM file among them, or they belong to several studies.
    """
    instances = tuple(instance for number, file in enumerate(files, 1) if (instance := _instance(file, number)) is not None)
    studies = sorted({instance.study_instance_uid for instance in instances})
    if len(studies) != 1:
        hint = "Give a folder with the files of one study."
        raise Rejected(f"the files hold {len(studies)} studies" if studies else f"none of {len(files)} files is a DICOM object of a study", hint=hint)
    study = Study(study_instance_uid=studies[0], instances=instances)
    extra = frozenset(keywords) - set(HEADER_KEYWORDS)
    more = {series.series_instance_uid: read_keywords(Path(series.instances[0].path), extra) for series in study.series} if extra else {}
    return Study(study_instance_uid=studies[0], instances=instances, more=more)


def read_keywords(path: Path, keywords: Collection[str]) -> Header:
    """Return attributes of a file that the ledger does not keep: text, int, float, or a list of them; sequences and binary values are left out.

    But for DRAWN_ON: of it the series that a segmentation (PS3.3 C.12.2) or a structure set (C.8.8.5) refers to.
    """
    try:
        wanted = [*keywords, *(("ReferencedFrameOfReferenceSequence",) if DRAWN_ON in keywords else ())]
        found = dcmread(path, stop_before_pixels=True, specific_tags=wanted, force=True)
        told = {DRAWN_ON: uids} if (uids := drawn_on(found)) else {}
        return told | {element.keyword: value for element in found if (value := _plain(element.value)) is not None}
    except (InvalidDicomError, OSError, ValueError, KeyError, AttributeError, NotImplementedError):
        return {}  # they count as missing, and the rule that asks for them says so


def _instance(file: Path, number: int) -> Instance | None:
    try:
        with file.open("rb") as opened:
            head = opened.read(_HEAD_BYTES)
        meta, start = split_file(head)
        header = read_header(head[start:], meta["TransferSyntaxUID"])
    except (Refused, OSError):
        return None
    if not all(header.get(keyword) for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")):
        return None
    return Instance(
        id=number,
        sop_instance_uid=header["SOPInstanceUID"],
        sop_class_uid=str(header.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID", "")),
        transfer_syntax_uid=meta["TransferSyntaxUID"],
        study_instance_uid=header["StudyInstanceUID"],
        series_instance_uid=header["SeriesInstanceUID"],
        path=str(file),
        size_bytes=file.stat().st_size,
        digest=digest_of(file, start).hex(),
        calling_ae="",
        received_at=0.0,
        header=header,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, MultiValue | list | tuple):
        return [one for part in value if (one := _plain(part)) is not None] or None
    if isinstance(value, float):  # before int: a DS is a float, and so is its text
        return float(value)
    if isinstance(value, int):
        return int(value)
    return str(value) or None if isinstance(value, str) or type(value).__name__ in ("PersonName", "DSdecimal", "UID") else None
