"""The index that queries ask: an entry for each study and each series, made anew from the instances when these have changed.

Receiving does not pay for it: `study.changes` counts what came, and the index is brought up to it when somebody asks. Of a study's attributes an
entry has those that most of its instances say, by the first instance of each series and SOP class: they should all say the same (PS3.3 A.1.2).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Connection, Select, bindparam, delete, func, insert, literal_column, select, update

from dicom_node.domain import HEADER_KEYWORDS, REJECTION, Header, JobState, StudyState
from dicom_node.store.match import written
from dicom_node.store.tables import instance, job, result, series_entry, study, study_entry

PATIENT_KEYWORDS = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex")
STUDY_KEYWORDS = (
    *("StudyInstanceUID", "StudyDate", "StudyTime", "AccessionNumber", "StudyID", "StudyDescription", "ReferringPhysicianName", "PatientAge"),
    "TimezoneOffsetFromUTC",
)
SERIES_KEYWORDS = (
    *("SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription", "SeriesDate", "SeriesTime", "BodyPartExamined", "Laterality"),
    *("ProtocolName", "Manufacturer", "ManufacturerModelName", "PresentationIntentType", "PatientPosition", "FrameOfReferenceUID"),
)
IMAGE_KEYWORDS = tuple(sorted({*HEADER_KEYWORDS} - {*PATIENT_KEYWORDS, *STUDY_KEYWORDS, *SERIES_KEYWORDS, "SpecificCharacterSet"}))

STUDY_COLUMNS: Mapping[str, Column[Any]] = {
    "StudyInstanceUID": study_entry.c.study_instance_uid,
    "PatientID": study_entry.c.patient_id,
    "IssuerOfPatientID": study_entry.c.issuer_of_patient_id,
    "PatientName": study_entry.c.patient_name,
    "PatientBirthDate": study_entry.c.patient_birth_date,
    "PatientSex": study_entry.c.patient_sex,
    "StudyDate": study_entry.c.study_date,
    "StudyTime": study_entry.c.study_time,
    "AccessionNumber": study_entry.c.accession_number,
    "StudyID": study_entry.c.study_id,
    "ReferringPhysicianName": study_entry.c.referring_physician_name,
    "StudyDescription": study_entry.c.study_description,
    "ModalitiesInStudy": study_entry.c.modalities_in_study,
    "SOPClassesInStudy": study_entry.c.sop_classes_in_study,
}
SERIES_COLUMNS: Mapping[str, Column[Any]] = {
    "SeriesInstanceUID": series_entry.c.series_instance_uid,
    "Modality": series_entry.c.modality,
    "SeriesDescription": series_entry.c.series_description,
    "BodyPartExamined": series_entry.c.body_part_examined,
}
HELD = instance.c.current, ~instance.c.hidden  # the instances that the node lets others have

_AT_ONCE = 500  # parameters of one statement


def held_results(*columns: Any) -> Select[Any]:
    """Return what selects columns of the results that the node lets others have: valid ones of jobs that ended well, unless they came in again.

    A rejection note is not among them: it goes to those who are to act on it.
    """
    same = instance.c.study_instance_uid == result.c.study_instance_uid, instance.c.sop_instance_uid == result.c.sop_instance_uid
    back = select(instance.c.id).where(*same, instance.c.current).exists()
    valid = job.c.state == JobState.COMPLETED, result.c.problem == "", result.c.kind != REJECTION, ~back
    return select(*columns).select_from(result).join(job, job.c.id == result.c.job_id).where(*valid)


def look_again(connection: Connection, study_instance_uid: str) -> None:
    """Say that a study is no longer what the index has seen; whoever changes one that is not open says so. It is locked before its jobs are."""
    connection.execute(update(study).where(study.c.study_instance_uid == study_instance_uid).values(indexed=-1))


def to_index(connection: Connection) -> list[str]:
    """Return the studies that have changed since the index saw them: open ones by their count of changes, others because somebody said so.

    So nothing that a received image changes is in an index of its own.
    """
    return list(connection.execute(_TO_INDEX).scalars())


_SAID = study.c.indexed < literal_column("0")  # as it is written in the index, which SQLite does not take for a parameter
_GREW = study.c.state == StudyState.OPEN, study.c.changes != study.c.indexed
_TO_INDEX = select(study.c.study_instance_uid).where(_SAID).union(select(study.c.study_instance_uid).where(*_GREW))  # made once: each query asks it


def index(connection: Connection, study_instance_uid: str) -> bool:
    """Bring the entries of a study up to date in the caller's transaction; say whether that was still to be done."""
    same = study.c.study_instance_uid == study_instance_uid
    changes = connection.execute(select(study.c.changes).where(same, study.c.changes != study.c.indexed).with_for_update()).scalar()
    if changes is None:
        return False
    parts = _parts(connection, study_instance_uid)
    _write(connection, study_entry, study_instance_uid, _study_rows(study_instance_uid, parts))
    _write(connection, series_entry, study_instance_uid, _series_rows(study_instance_uid, parts))
    connection.execute(update(study).where(same).values(indexed=changes))
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """What a study has of one series and SOP class, or one result."""

    series_instance_uid: str
    sop_class_uid: str
    instances: int
    header: Header


def _parts(connection: Connection, study_instance_uid: str) -> list[_Part]:
    series, sop_class, first = instance.c.series_instance_uid, instance.c.sop_class_uid, func.min(instance.c.id)
    counted = select(series, sop_class, func.count(), first).where(instance.c.study_instance_uid == study_instance_uid, *HELD)
    rows = connection.execute(counted.group_by(series, sop_class).order_by(first)).all()
    headers: dict[int, Header] = {}
    for start in range(0, len(rows), _AT_ONCE):
        ids = [row[3] for row in rows[start : start + _AT_ONCE]]
        headers |= {key: header for key, header in connection.execute(select(instance.c.id, instance.c.header).where(instance.c.id.in_(ids)))}
    found = [_Part(series_instance_uid=row[0], sop_class_uid=row[1], instances=row[2], header=headers[row[3]]) for row in rows]
    made = held_results(result.c.series_instance_uid, result.c.sop_class_uid, result.c.header).where(
        result.c.study_instance_uid == study_instance_uid
    )
    of_results = (_Part(series_instance_uid=row[0], sop_class_uid=row[1], instances=1, header=row[2]) for row in connection.execute(made))
    return [*found, *of_results]


def _study_rows(uid: str, parts: Sequence[_Part]) -> list[dict[str, Any]]:
    if not parts:
        return []
    series, instances = len({part.series_instance_uid for part in parts}), sum(part.instances for part in parts)
    keys = _common((*PATIENT_KEYWORDS, *STUDY_KEYWORDS), parts) | {
        "StudyInstanceUID": uid,
        "ModalitiesInStudy": sorted({str(part.header["Modality"]) for part in parts if part.header.get("Modality")}),
        "SOPClassesInStudy": sorted({part.sop_class_uid for part in parts}),
        "NumberOfStudyRelatedSeries": series,
        "NumberOfStudyRelatedInstances": instances,
    }
    return [_row(STUDY_COLUMNS, keys) | {"series": series, "instances": instances}]


def _series_rows(uid: str, parts: Sequence[_Part]) -> list[dict[str, Any]]:
    of_series: dict[str, list[_Part]] = {}
    for part in parts:
        of_series.setdefault(part.series_instance_uid, []).append(part)
    rows = []
    for series, members in of_series.items():
        counted = {"SeriesInstanceUID": series, "NumberOfSeriesRelatedInstances": sum(part.instances for part in members)}
        rows.append(_row(SERIES_COLUMNS, _common(SERIES_KEYWORDS, members) | counted) | {"study_instance_uid": uid})
    return rows


def _row(columns: Mapping[str, Column[Any]], keys: Mapping[str, Any]) -> dict[str, Any]:
    return {column.name: written(keyword, keys.get(keyword)) for keyword, column in columns.items()} | {"attributes": dict(keys)}


def _common(keywords: Iterable[str], parts: Sequence[_Part]) -> dict[str, Any]:
    """Return what most instances say of each keyword; what none of them says is left out."""
    found: dict[str, Any] = {}
    for keyword in keywords:
        said, values = Counter[str](), {}
        for part in parts:
            if (value := part.header.get(keyword)) not in (None, ""):
                values[repr(value)] = value
                said[repr(value)] += part.instances
        if said:
            found[keyword] = values[said.most_common(1)[0][0]]
    return found


def _write(connection: Connection, table: Any, study_instance_uid: str, rows: Sequence[dict[str, Any]]) -> None:
    """Let a table have these rows of a study and no others; those that stay keep their numbers, by which a query under way goes on."""
    own = table.c.series_instance_uid if table is series_entry else table.c.study_instance_uid
    known = {uid: key for uid, key in connection.execute(select(own, table.c.id).where(table.c.study_instance_uid == study_instance_uid))}
    changed = [row | {"of": known[row[own.name]]} for row in rows if row[own.name] in known]
    fresh = [row for row in rows if row[own.name] not in known]
    gone = [known[uid] for uid in sorted(known.keys() - {row[own.name] for row in rows})]
    if changed:
        names = [name for name in changed[0] if name != "of"]
        renamed = [{f"new_{name}": row[name] for name in names} | {"of": row["of"]} for row in changed]
        connection.execute(update(table).where(table.c.id == bindparam("of")).values({name: bindparam(f"new_{name}") for name in names}), renamed)
    if fresh:
        connection.execute(insert(table), fresh)
    for start in range(0, len(gone), _AT_ONCE):
        connection.execute(delete(table).where(table.c.id.in_(gone[start : start + _AT_ONCE])))
