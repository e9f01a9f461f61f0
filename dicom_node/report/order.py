"""What an object says of the request that its study was made for, where the images do not say it themselves."""

from pydicom import Dataset

from dicom_node.domain import Order
from dicom_node.report.run import Run
from dicom_node.report.words import Words

_DOCUMENTS = "1.2.840.10008.5.1.4.1.1.88."  # Structured Reports and Key Object Selections


def state_order(dataset: Dataset, source: Dataset, run: Run, words: Words) -> None:
    """Add the order of a run: accession number, and the request, of a document in Referenced Request Sequence (PS3.3 C.17.2), else C.7.3.1's.

    Nothing that the source image says is changed. An order that says otherwise than this image is another study's, and is not used.
    """
    order = run.order
    if order is None or _contradicts(order, source):
        return
    if order.accession_number and not _text(source, "AccessionNumber") and order.accession_number.isascii():
        dataset.AccessionNumber = order.accession_number
    if str(dataset.SOPClassUID).startswith(_DOCUMENTS):
        dataset.ReferencedRequestSequence = [_request(order, words)]
    elif not source.get("RequestAttributesSequence"):
        dataset.RequestAttributesSequence = [_attributes(order, words)]


def _contradicts(order: Order, source: Dataset) -> bool:
    said = _text(source, "AccessionNumber")
    named = {_text(item, "RequestedProcedureID") for item in source.get("RequestAttributesSequence") or ()} - {""}
    wanted = order.requested_procedure_id
    return bool((said and order.accession_number and said != order.accession_number) or (named and wanted and wanted not in named))


def _text(dataset: Dataset, keyword: str) -> str:
    return str(dataset.get(keyword) or "").strip()


def _attributes(order: Order, words: Words) -> Dataset:
    """Return an item of Request Attributes Sequence (PS3.3 Table 10-9)."""
    item = Dataset()
    item.StudyInstanceUID = order.study_instance_uid
    said = _ids(order) | {"ScheduledProcedureStepID": order.scheduled_procedure_step_id} | _texts(order, words)
    for keyword, value in said.items():
        if value:
            setattr(item, keyword, value)
    if order.requested_procedure_code:
        item.RequestedProcedureCodeSequence = [_code(order.requested_procedure_code, words)]
    return item


def _request(order: Order, words: Words) -> Dataset:
    """Return an item of Referenced Request Sequence (PS3.3 Table C.17-3): all but the reason is type 2, and empty where it is not known."""
    item = Dataset()
    item.StudyInstanceUID = order.study_instance_uid
    item.ReferencedStudySequence = []
    item.PlacerOrderNumberImagingServiceRequest = words.say(order.placer_order_number, 64) or None
    item.FillerOrderNumberImagingServiceRequest = words.say(order.filler_order_number, 64) or None
    for keyword, value in (_ids(order) | _texts(order, words)).items():
        if value or keyword != "ReasonForTheRequestedProcedure":
            setattr(item, keyword, value or None)
    code = order.requested_procedure_code
    item.RequestedProcedureCodeSequence = [_code(code, words)] if code else []
    return item


def _ids(order: Order) -> dict[str, str]:
    """Return what must not be spelled otherwise: left out where the object's character set may lack a character of it."""
    said = {"AccessionNumber": order.accession_number, "RequestedProcedureID": order.requested_procedure_id}
    return {keyword: value if value.isascii() else "" for keyword, value in said.items()}


def _texts(order: Order, words: Words) -> dict[str, str]:
    description, reason = words.say(order.requested_procedure_description, 64), words.say(order.reason, 64)
    return {"RequestedProcedureDescription": description, "ReasonForTheRequestedProcedure": reason}


def _code(code: tuple[str, str, str], words: Words) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = words.say(code[0], 16), words.say(code[1], 16), words.say(code[2], 64)
    return item
