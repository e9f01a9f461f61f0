"""Results that newer ones replace, rejected by a Key Object Selection (IHE RAD TF-3 4.66, Imaging Object Change Management).

The earlier objects are not altered; the note asks whoever keeps them to show them no more.
"""

from collections.abc import Mapping, Sequence

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from highdicom.sr import CodedConcept, DeviceObserverIdentifyingAttributes, ObserverContext
from pydicom import Dataset
from pydicom.sr.codedict import codes

from dicom_node.domain import REJECTION, Assembled, Reference
from dicom_node.report.evidence import nobody
from dicom_node.report.header import serial_number, settle
from dicom_node.report.run import Draft, Run
from dicom_node.report.words import Words

_TITLE = CodedConcept("113001", "DCM", "Rejected for Quality Reasons")  # PS3.16 CID 7010
_NO_IMAGES = ("1.2.840.10008.5.1.4.1.1.88.", "1.2.840.10008.5.1.4.1.1.11.")  # documents, presentation states


def rejection(superseded: Sequence[Reference], inputs: Mapping[str, Assembled], run: Run) -> Draft:
    """Return the note that rejects earlier results of this model on this study; there is at least one, and none is itself a note."""
    source = inputs[next(iter(run.model.manifest.inputs))].sources[0]
    words = Words.of(source)
    evidence = [_named(one) for one in superseded]
    built = KeyObjectSelectionDocument(
        evidence=evidence,
        content=_content(evidence, run, words),
        series_instance_uid=run.uid(f"{REJECTION} series"),
        series_number=1,
        sop_instance_uid=run.uid(REJECTION),
        instance_number=1,
        manufacturer=words.say(run.model.manifest.manufacturer, 64),
    )
    settle(built, source, run, REJECTION)
    return Draft(kind=REJECTION, dataset=built)


def _content(evidence: Sequence[Dataset], run: Run, words: Words) -> KeyObjectSelection:
    """Return title, observer, sentence, and what is rejected (TID 2010)."""
    manifest = run.model.manifest
    observer = DeviceObserverIdentifyingAttributes(
        uid=run.model.device_uid,
        name=manifest.name,
        manufacturer_name=words.say(manifest.manufacturer, 64),
        model_name=manifest.name,
        serial_number=serial_number(run),
    )
    return KeyObjectSelection(
        document_title=_TITLE,
        referenced_objects=evidence,
        observer_device_context=ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=observer),
        description=words.say(f"Newer results of {manifest.name} on this study replace these.", 1024),
    )


def _named(one: Reference) -> Dataset:
    """Return what names an earlier result; that it has rows and columns is what makes highdicom refer to it as to an image."""
    item = nobody()
    item.SOPClassUID, item.SOPInstanceUID = one.sop_class_uid, one.sop_instance_uid
    item.StudyInstanceUID, item.SeriesInstanceUID = one.study_instance_uid, one.series_instance_uid
    if not one.sop_class_uid.startswith(_NO_IMAGES):
        item.Rows = item.Columns = 1
    return item
