"""What the node holds, as queries and retrievals ask for it: current instances, but for those that a rejection note hides, and its own valid results.

An upper level's attributes are those of its entry in the index (`indexing.py`); an image's own are those of its header.
"""

import contextlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import groupby, islice
from typing import Any

from sqlalchemy import Select, Table, case, func, or_, select

from dicom_node.store.archive import Archive
from dicom_node.store.database import Database
from dicom_node.store.indexing import (
    HELD,
    IMAGE_KEYWORDS,
    PATIENT_KEYWORDS,
    SERIES_COLUMNS,
    SERIES_KEYWORDS,
    STUDY_COLUMNS,
    STUDY_KEYWORDS,
    held_results,
    index,
    to_index,
)
from dicom_node.store.intake import Intake
from dicom_node.store.match import MANY, Test, alternatives, matcher, prefilter
from dicom_node.store.tables import instance, result, series_entry, study_entry

_PAGE = 256  # rows that are read at a time: between pages nobody is kept waiting


class Level(StrEnum):
    """Query/Retrieve Level (0008,0052), from the highest to the lowest."""

    PATIENT = "PATIENT"
    STUDY = "STUDY"
    SERIES = "SERIES"
    IMAGE = "IMAGE"


UNIQUE_KEYS: Mapping[Level, str] = {
    Level.PATIENT: "PatientID",
    Level.STUDY: "StudyInstanceUID",
    Level.SERIES: "SeriesInstanceUID",
    Level.IMAGE: "SOPInstanceUID",
}
_OF_PATIENT = (*PATIENT_KEYWORDS, "InstanceAvailability")
OF_STUDY = (
    *_OF_PATIENT,
    *STUDY_KEYWORDS,
    *("ModalitiesInStudy", "SOPClassesInStudy", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances"),
)
OF_SERIES = (*OF_STUDY, *SERIES_KEYWORDS, "NumberOfSeriesRelatedInstances")

ATTRIBUTES: Mapping[Level, tuple[str, ...]] = {  # what is known at each level: other keys are not supported
    Level.PATIENT: (*_OF_PATIENT, "NumberOfPatientRelatedStudies", "NumberOfPatientRelatedSeries", "NumberOfPatientRelatedInstances"),
    Level.STUDY: OF_STUDY,
    Level.SERIES: OF_SERIES,
    Level.IMAGE: (*OF_SERIES, *IMAGE_KEYWORDS, "AvailableTransferSyntaxUID"),
}
_ONLINE = {"InstanceAvailability": "ONLINE"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An object that the node holds, and where."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    study_instance_uid: str
    series_instance_uid: str
    path: str  # below the archive, with forward slashes
    size_bytes: int  # of the file


class Holdings:
    """The holdings of the ledger."""

    def __init__(self, database: Database, archive: Archive, intake: Intake) -> None:
        self._database = database
        self._archive = archive
        self._intake = intake
        self._fresh_at: int | None = None  # of `Database.commits`, when nothing was left to index

    def refresh(self) -> int:
        """Bring the index up to what has come until now; return how many studies had changed.

        Every query does so first; where nobody has committed since, there is nothing to look for. What a power cut takes of it is made again with
        the next.

        Raises
        ------
        Transient: the database does not take it.
        """
        commits = self._database.commits()
        if commits is not None and commits == self._fresh_at:
            return 0
        with self._database.read() as connection:
            changed = to_index(connection)
        if not changed:
            self._fresh_at = commits
        number = 0
        for uid in changed:  # a transaction for each: who receives waits for one at most
            with self._database.write(relaxed=True) as connection:
                number += index(connection, uid)
        return number

    def find(self, level: str, keys: Mapping[str, Any], limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Give the attributes of each entity that the keys mean, of the level and of those above it (PS3.4 C.4.1); page after page.

        level: one of `Level`.
        keys: keyword -> text, of several values a list, or a text with backslashes between them. Those that are not in `ATTRIBUTES` of this level
        are not supported, and mean nothing.
        An attribute is a text, a number or a list of them, as it came; one that is known at this level but has no value is an empty text.

        Raises
        ------
        Transient: the database does not answer.
        """
        self.refresh()
        asked = {keyword: wanted for keyword, wanted in keys.items() if keyword in ATTRIBUTES[Level(level)]}
        find = {Level.PATIENT: self._patients, Level.STUDY: self._studies, Level.SERIES: self._series, Level.IMAGE: self._images}
        yield from islice(find[Level(level)](asked), limit)

    def files(self, level: str, keys: Mapping[str, Any]) -> tuple[Stored, ...]:
        """Return what a retrieval has to send, study by study and series by series (PS3.4 C.4.2).

        level: one of `Level`.
        keys: the unique keys of this level and of those above it, of which some may be missing; any others mean nothing. Without any, nothing is
        meant. The files of instances are at their places and stay there; `Archive.path` says where.

        Raises
        ------
        Transient: the database does not answer, or the disk did not flush.
        """
        upto = tuple(Level)[: tuple(Level).index(Level(level)) + 1]
        asked = {UNIQUE_KEYS[one]: keys[UNIQUE_KEYS[one]] for one in upto if alternatives(UNIQUE_KEYS[one], keys.get(UNIQUE_KEYS[one]))}
        if not asked:
            return ()
        self.refresh()
        found = [one for study, series in self._meant(asked) for one in self._stored(study, [*series], asked)]
        self._intake.settle_files(one.path for one in found if one.size_bytes >= 0)
        return tuple(one if one.size_bytes >= 0 else replace(one, size_bytes=self._size_bytes(one.path)) for one in found)

    # ---------------------------------------------------------------------------------------------------------- by level

    def _patients(self, asked: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        test = matcher({keyword: wanted for keyword, wanted in asked.items() if keyword in _OF_PATIENT})
        counted = matcher({keyword: wanted for keyword, wanted in asked.items() if keyword not in _OF_PATIENT})
        seen: set[tuple[str, ...]] = set()
        with self._database.read() as connection:
            wanted = select(study_entry.c.id, *_PATIENT).where(*prefilter(asked, STUDY_COLUMNS)).order_by(study_entry.c.id.desc())
            rows = [(row[0], tuple(row[1:])) for row in connection.execute(wanted)]
        for start in range(0, len(rows), _PAGE):
            page = {key: patient for key, patient in rows[start : start + _PAGE] if patient not in seen}
            found = {}
            for key, keys in self._page(select(study_entry.c.id, study_entry.c.attributes).where(study_entry.c.id.in_([*page]))):
                attributes = {keyword: keys.get(keyword, "") for keyword in _OF_PATIENT} | _ONLINE
                if page[key] not in found and test(attributes):
                    found[page[key]] = attributes
            seen |= found.keys()
            numbers = self._of_patients(list(found))
            yield from (one for patient, attributes in found.items() if counted(one := attributes | numbers.get(patient, {})))

    def _of_patients(self, patients: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], dict[str, int]]:
        """Count what there is of each patient."""
        counted = select(*_PATIENT, func.count(), func.sum(study_entry.c.series), func.sum(study_entry.c.instances)).group_by(*_PATIENT)
        names = ATTRIBUTES[Level.PATIENT][-3:]
        rows = self._page(counted.where(study_entry.c.patient_id.in_({patient[0] for patient in patients})))
        return {tuple(row[:3]): dict(zip(names, map(int, row[3:]), strict=True)) for row in rows}

    def _studies(self, asked: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        test = matcher(asked)
        for ids in self._pages(select(study_entry.c.id).where(*prefilter(asked, STUDY_COLUMNS))):
            rows = self._page(select(study_entry.c.attributes).where(study_entry.c.id.in_(ids)).order_by(study_entry.c.id.desc()))
            yield from (one for (keys,) in rows if test(one := whole(OF_STUDY, keys)))

    def _series(self, asked: Mapping[str, Any], *conditions: Any) -> Iterator[dict[str, Any]]:
        test, own = matcher(asked), series_entry.c.study_instance_uid == study_entry.c.study_instance_uid
        wanted = select(series_entry.c.id).join(study_entry, own).where(*prefilter(asked, {**STUDY_COLUMNS, **SERIES_COLUMNS}), *conditions)
        for ids in self._pages(wanted):
            both = select(series_entry.c.attributes, study_entry.c.attributes).join(study_entry, own).where(series_entry.c.id.in_(ids))
            rows = self._page(both.order_by(study_entry.c.id.desc(), series_entry.c.id))
            yield from (one for of_series, of_study in rows if test(one := whole(OF_SERIES, {**of_series, **of_study})))

    def _images(self, asked: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        test = matcher({keyword: wanted for keyword, wanted in asked.items() if keyword not in OF_SERIES})
        for study, series in self._meant(asked):
            above = {one["SeriesInstanceUID"]: one for one in series}
            yield from self._images_of(study, above, asked, test)

    def _images_of(self, study: str, above: Mapping[str, dict[str, Any]], asked: Mapping[str, Any], test: Test) -> Iterator[dict[str, Any]]:
        for table in (instance, result):
            columns = (table.c[name] for name in ("series_instance_uid", "sop_class_uid", "sop_instance_uid", "transfer_syntax_uid", "header"))
            wanted = select(*columns).order_by(table.c.id)
            for ids in self._pages(objects(table, study, [*above], asked, table.c.id), newest_first=False):
                for series, sop_class, sop_instance, syntax, header in self._page(wanted.where(table.c.id.in_(ids))):
                    own = {"SOPClassUID": sop_class, "SOPInstanceUID": sop_instance, "AvailableTransferSyntaxUID": syntax}
                    if test(one := whole(IMAGE_KEYWORDS, header) | own | above[series]):
                        yield one

    # ------------------------------------------------------------------------------------------------------------- rows

    def _meant(self, asked: Mapping[str, Any]) -> Iterator[tuple[str, Iterator[dict[str, Any]]]]:
        """Give each study and of its series those that the keys of their levels mean, or may have an instance that is meant."""
        above = {keyword: wanted for keyword, wanted in asked.items() if keyword in OF_SERIES}
        conditions = []
        if "SOPInstanceUID" in asked and not any(alternatives(keyword, above.get(keyword)) for keyword in ("StudyInstanceUID", "SeriesInstanceUID")):
            holding = (
                select(table.c.study_instance_uid).where(*prefilter(asked, {"SOPInstanceUID": table.c.sop_instance_uid}))
                for table in (instance, result)
            )
            conditions = [or_(*(series_entry.c.study_instance_uid.in_(one) for one in holding))]
        yield from groupby(self._series(above, *conditions), key=lambda one: str(one["StudyInstanceUID"]))

    def _stored(self, study: str, series: Sequence[Mapping[str, Any]], asked: Mapping[str, Any]) -> Iterator[Stored]:
        """Give the objects of some series; the size of a result is in its file."""
        for table in (instance, result):
            names = [name for name in Stored.__dataclass_fields__ if name in table.c]
            wanted = objects(table, study, [one["SeriesInstanceUID"] for one in series], asked, *(table.c[name] for name in names))
            for row in self._page(wanted.order_by(table.c.series_instance_uid, table.c.id)):
                yield Stored(**({"size_bytes": -1} | dict(zip(names, row, strict=True))))

    def _size_bytes(self, path: str) -> int:
        with contextlib.suppress(OSError):  # whoever sends it meets it again, and says so
            return self._archive.path(path).stat().st_size
        return 0

    def _pages(self, wanted: Select[Any], *, newest_first: bool = True) -> Iterator[Sequence[int]]:
        """Give the numbers of rows, all of which are known before the first is read: what changes meanwhile moves none of them."""
        with self._database.read() as connection:
            ids = array("q", sorted(connection.execute(wanted).scalars(), reverse=newest_first))
        yield from (ids[start : start + _PAGE].tolist() for start in range(0, len(ids), _PAGE))

    def _page(self, wanted: Select[Any]) -> Sequence[Any]:
        with self._database.read() as connection:
            return connection.execute(wanted).all()


_PATIENT = (  # who is meant; without a usable ID the name says it
    study_entry.c.patient_id,
    study_entry.c.issuer_of_patient_id,
    case((study_entry.c.patient_id.in_(["", MANY]), study_entry.c.patient_name), else_=""),
)


def whole(keywords: Sequence[str], keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an entity says of each keyword; of one that it has no value of, an empty text."""
    return {keyword: keys.get(keyword, "") for keyword in keywords} | _ONLINE


def objects(table: Table, study: str, series: Sequence[str] | None, asked: Mapping[str, Any], *columns: Any) -> Select[Any]:
    """Return what selects columns of the objects that are held of a study, or of some series of it, and may be meant."""
    own = {"SOPInstanceUID": table.c.sop_instance_uid, "SOPClassUID": table.c.sop_class_uid}
    meant = [table.c.study_instance_uid == study, *prefilter(asked, own)]
    meant += [table.c.series_instance_uid.in_(series)] if series is not None else []
    return (select(*columns).where(*HELD) if table is instance else held_results(*columns)).where(*meant)
