"""Which earlier studies of a patient a job waits for: chosen from what archives and the node itself say they have. No I/O.

An archive may ignore a key that it does not support, so what it answers is compared again here.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from dicom_node.domain import Priors

Answer = Mapping[str, Any]  # keyword -> value, of a study or a series that matches

_CANDIDATES = 50  # whose series are asked for, newest first

STUDY_KEYS = (
    *("PatientID", "IssuerOfPatientID", "PatientBirthDate", "StudyInstanceUID", "StudyDate", "StudyTime", "ModalitiesInStudy"),
    "NumberOfStudyRelatedInstances",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Current:
    """The study that is analysed, as far as its priors depend on it."""

    study_instance_uid: str
    patient_id: str
    issuer: str
    birth_date: str
    study_date: str  # VR DA; empty: today's
    study_time: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A study that somebody says they have."""

    study_instance_uid: str
    study_date: str
    study_time: str
    source: str  # name of the remote; empty: the node itself
    instances: int | None  # how many it says there are; none: it does not count


def keys_of(current: Current, asked: Priors) -> dict[str, str]:
    """Return the keys of the C-FIND for studies: who, and when; by the patient's ID and issuer, never by name (PS3.4 C.6.2.1)."""
    first = _day(current.study_date) - timedelta(days=asked.within_days)
    keys = dict.fromkeys(STUDY_KEYS, "")
    return keys | {"PatientID": current.patient_id, "StudyDate": f"{first:%Y%m%d}-{_day(current.study_date):%Y%m%d}"}


def candidates(current: Current, asked: Priors, answers: Iterable[tuple[str, Answer]]) -> list[Candidate]:
    """Return the studies that are earlier ones of the patient, of the modalities that are asked for, newest first, each once.

    answers: who says it, and what. The node's own come first: of a study that it holds, too, the archive's number of instances counts.
    """
    found: dict[str, Candidate] = {}
    for source, answer in answers:
        uid = _text(answer, "StudyInstanceUID")
        if not uid or not _is_earlier(current, answer, asked) or not _is_same_patient(current, answer) or not _has_modality(asked, answer):
            continue
        number = _text(answer, "NumberOfStudyRelatedInstances")
        found[uid] = Candidate(
            study_instance_uid=uid,
            study_date=_text(answer, "StudyDate"),
            study_time=_text(answer, "StudyTime"),
            source=source,
            instances=int(number) if number.isdecimal() else None,
        )
    newest_first = sorted(found.values(), key=lambda one: (one.study_date, one.study_time, one.study_instance_uid), reverse=True)
    return newest_first[:_CANDIDATES]


def chosen(asked: Priors, found: Sequence[Candidate], series_of: Callable[[Candidate], Sequence[Answer]]) -> list[Candidate]:
    """Return as many of the candidates as are asked for: those of which a series shows the body part, or that do not say what they show.

    series_of: asked for one candidate after the other, until there are enough.
    """
    taken: list[Candidate] = []
    for one in found:
        if len(taken) == asked.count:
            break
        if not asked.body_parts or _shows(asked, series_of(one)):
            taken.append(one)
    return taken


def _shows(asked: Priors, series: Sequence[Answer]) -> bool:
    said = [_text(one, "BodyPartExamined").upper() for one in series if not asked.modalities or _text(one, "Modality") in {"", *asked.modalities}]
    return not any(said) or not asked.body_parts.isdisjoint(said)


def _is_earlier(current: Current, answer: Answer, asked: Priors) -> bool:
    """Say whether a study is an earlier one; of the same day, by its time."""
    if _text(answer, "StudyInstanceUID") == current.study_instance_uid:
        return False
    when, now = _text(answer, "StudyDate").replace(".", ""), f"{_day(current.study_date):%Y%m%d}"
    first = f"{_day(current.study_date) - timedelta(days=asked.within_days):%Y%m%d}"
    if not first <= when <= now:
        return False
    return when < now or bool(current.study_time and "" < _text(answer, "StudyTime") < current.study_time)


def _is_same_patient(current: Current, answer: Answer) -> bool:
    """Say whether a study is of the same patient: the ID; issuer and birth date where both say them."""
    pairs = ((current.issuer, _text(answer, "IssuerOfPatientID")), (current.birth_date, _text(answer, "PatientBirthDate")))
    return _text(answer, "PatientID") == current.patient_id and all(not here or not there or here == there for here, there in pairs)


def _has_modality(asked: Priors, answer: Answer) -> bool:
    value = answer.get("ModalitiesInStudy")
    said = {one.strip() for one in (value if isinstance(value, list | tuple) else str(value or "").split("\\"))} - {""}
    return not asked.modalities or not said or not asked.modalities.isdisjoint(said)


def _text(answer: Answer, keyword: str) -> str:
    value = answer.get(keyword)
    return "" if value is None else str(value).strip()


def _day(study_date: str) -> datetime:
    try:
        return datetime.strptime(study_date.replace(".", ""), "%Y%m%d")  # noqa: DTZ007 - a study's date has no zone
    except ValueError:
        return datetime.now()  # noqa: DTZ005 - today where the node is
