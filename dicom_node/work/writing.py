"""One object written to the archive and looked at by an independent eye, as the ledger keeps it."""

from hashlib import sha256

from dicom_node.domain import Header, Result
from dicom_node.receive import read_header, split_file
from dicom_node.report import Draft, check, encode
from dicom_node.store import Archive


def write_draft(archive: Archive, draft: Draft, *, job_id: int, identity: str, name: str, study_instance_uid: str, made_at: float) -> Result:
    """Write an object, check the file, and return it as a job's result; its `problem` says what the check found.

    Raises
    ------
    Transient: the disk did not take it, or the check did not end.
    """
    data = encode(draft.dataset)
    path = archive.write_result(data, identity, name, made_at=made_at)
    return Result(
        job_id=job_id,
        kind=draft.kind,
        sop_class_uid=str(draft.dataset.SOPClassUID),
        sop_instance_uid=str(draft.dataset.SOPInstanceUID),
        series_instance_uid=str(draft.dataset.SeriesInstanceUID),
        study_instance_uid=study_instance_uid,
        path=path,
        digest=sha256(data).hexdigest(),
        transfer_syntax_uid=str(draft.dataset.file_meta.TransferSyntaxUID),
        problem="; ".join(check(archive.path(path))),
        header=_header(data),
    )


def _header(file: bytes) -> Header:
    """Return what the ledger keeps of an object's header, as of one that is received."""
    meta, start = split_file(file)
    return read_header(memoryview(file)[start:], meta["TransferSyntaxUID"])
