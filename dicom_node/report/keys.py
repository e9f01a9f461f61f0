"""Images that a person should look at, as a Key Object Selection Document (PS3.3 A.35.4, PS3.16 TID 2010)."""

from collections.abc import Sequence

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from highdicom.sr import DeviceObserverIdentifyingAttributes, ObserverContext
from pydicom import Dataset
from pydicom.sr.codedict import codes

from dicom_node.config import KeyImages
from dicom_node.domain import Assembled
from dicom_node.report.evidence import identified
from dicom_node.report.grid import planes
from dicom_node.report.header import serial_number, settle
from dicom_node.report.run import Run
from dicom_node.report.words import Words


def key_objects(name: str, slices: Sequence[int], assembled: Assembled, run: Run) -> Dataset | None:
    """Return the document that names the images of these slices; None where none of them has an image of its own.

    slices: indices in the input's volume. Of a multi-frame image its frames are named.
    """
    frames: dict[str, list[int]] = {}  # by SOP Instance UID, in the order of the slices
    for plane in planes(assembled):
        if plane.slice_index in slices:
            frames.setdefault(plane.sop_instance_uid, []).extend([] if plane.frame_number is None else [plane.frame_number])
    if not frames:
        return None
    first, words = assembled.sources[0], Words.of(assembled.sources[0])
    sources = {source.SOPInstanceUID: source for source in assembled.sources}
    evidence = [identified(sources[uid], "Rows", "Columns", "NumberOfFrames") for uid in frames]
    content = _content(run.model.manifest.keys[name], evidence, run, words)
    _name_frames(content[0], frames)
    built = KeyObjectSelectionDocument(
        evidence=evidence,
        content=content,
        series_instance_uid=run.uid("KO series"),
        series_number=1,
        sop_instance_uid=run.uid(f"KO {name}"),
        instance_number=1 + list(run.model.manifest.keys).index(name),
        manufacturer=words.say(run.model.manifest.manufacturer, 64),
    )
    settle(built, first, run, "KO")
    return built


def _content(described: KeyImages, evidence: Sequence[Dataset], run: Run, words: Words) -> KeyObjectSelection:
    """Return title, observer, what is named and the sentence on it (TID 2010)."""
    manifest = run.model.manifest
    observer = DeviceObserverIdentifyingAttributes(
        uid=run.model.device_uid,
        name=manifest.name,
        manufacturer_name=words.say(manifest.manufacturer, 64),
        model_name=manifest.name,
        serial_number=serial_number(run),
    )
    return KeyObjectSelection(
        document_title=words.concept(described.title),
        referenced_objects=evidence,
        observer_device_context=ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=observer),
        description=words.say(f"{described.description} {manifest.name}: {manifest.intended_use} Unverified.", 1024),
    )


def _name_frames(content: Dataset, frames: dict[str, list[int]]) -> None:
    """Say in each reference to a multi-frame image which of its frames are meant (PS3.3 C.18.4)."""
    for item in content.ContentSequence:
        reference = item.ReferencedSOPSequence[0] if item.get("ReferencedSOPSequence") else Dataset()
        if frames.get(reference.get("ReferencedSOPInstanceUID", "")):
            reference.ReferencedFrameNumber = frames[reference.ReferencedSOPInstanceUID]
