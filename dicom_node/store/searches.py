"""Searches of what the node holds, a page at a time: the newest studies first, then by UID (PS3.18 10.6).

What stands before or behind a page is not read where the database alone decides what is meant: it is counted, by what the index counts. Where it
does not, what is behind is looked at up to a bound, and so is what stands before.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BindParameter, Connection, Select, Table, bindparam, select

from dicom_node.store.database import Database
from dicom_node.store.holdings import ATTRIBUTES, OF_SERIES, OF_STUDY, Holdings, Level, objects, whole
from dicom_node.store.indexing import IMAGE_KEYWORDS, SERIES_COLUMNS, STUDY_COLUMNS
from dicom_node.store.match import Test, alternatives, doubtful, matcher, prefilter, span, span_asked
from dicom_node.store.tables import instance, result, series_entry, study_entry

_PAGE, _LEAST = 256, 16  # rows that are read at a time
_COUNTED = 5_000  # entities behind a page that are looked at to count those that are meant
_LOOKED_AT = 50_000  # before its end
_LATEST = "9"  # a text behind every moment
_NEWEST_FIRST = study_entry.c.study_date.desc(), study_entry.c.study_instance_uid
_WITH_STUDY = series_entry.c.study_instance_uid == study_entry.c.study_instance_uid
_COLUMNS = {**STUDY_COLUMNS, **SERIES_COLUMNS}
_OBJECTS: tuple[Table, ...] = (instance, result)

Candidates = Sequence[tuple[Any, bool]]  # its number, and whether it is in doubt that it is meant
Read = Callable[[Sequence[Any]], Mapping[Any, dict[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some of what a search means."""

    found: tuple[dict[str, Any], ...]
    remaining: int  # so many are behind it
    all_counted: bool  # whether no more are
    too_broad: bool  # whether the search was given up before the page was full


class TooBroad(Exception):
    """Raised when too many entities were looked at."""


class _Window:
    """A page while it is filled."""

    def __init__(self, offset: int, limit: int) -> None:
        self.before, self.left = offset, limit
        self.found: list[dict[str, Any]] = []
        self.remaining = self._behind = self._looked_at = 0

    def passes(self, count: int) -> bool:
        """Let so many that are meant go by, if none of them is of the page."""
        if self.left and count > self.before:
            return False
        self.before, self.remaining = (self.before - count, 0) if self.left else (self.before, self.remaining + count)
        return True

    def take(self, one: dict[str, Any]) -> None:
        """Take one that is meant."""
        if not self.passes(1):
            self.found.append(one)
            self.left -= 1

    def look(self, count: int) -> None:
        """Note that so many are looked at.

        Raises
        ------
        TooBroad: they are too many.
        """
        self._behind, self._looked_at = (self._behind, self._looked_at + count) if self.left else (self._behind + count, self._looked_at)
        if self._behind > _COUNTED or self._looked_at > _LOOKED_AT:
            raise TooBroad

    @property
    def size(self) -> int:
        """How many rows are read at a time."""
        return min(_PAGE, max(_LEAST, self.before + self.left)) if self.left else _PAGE


@dataclass(frozen=True, slots=True)
class _Group:
    """A study, or a series of it, whose images may be of the page."""

    study_instance_uid: str
    series_instance_uid: str  # empty: all
    series: int  # how many
    instances: int  # how many


class Searches:
    """Searches of the ledger."""

    def __init__(self, database: Database, holdings: Holdings) -> None:
        self._database = database
        self._holdings = holdings

    def page(self, level: str, keys: Mapping[str, Any], *, offset: int = 0, limit: int) -> Page:
        """Return some of what the keys mean, of the level and of those above it, as `Holdings.find` gives it but in the order of searches.

        level: STUDY, SERIES or IMAGE. A range of Study Date and one of Study Time are one range of moments (PS3.18 8.3.4.1).

        Raises
        ------
        Transient: the database does not answer.
        """
        self._holdings.refresh()
        level = Level(level)
        asked = {keyword: wanted for keyword, wanted in keys.items() if keyword in ATTRIBUTES[level] and alternatives(keyword, wanted)}
        window = _Window(offset, limit)
        with self._database.read() as connection:  # one for all of it: a transaction takes longer to begin than most of what is asked in it
            ended = _Search(connection).fill(window, level, asked)
        return Page(found=tuple(window.found), remaining=window.remaining, all_counted=ended, too_broad=not ended and window.left > 0)


class _Search:
    """One search, in a transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def fill(self, window: _Window, level: Level, asked: Mapping[str, Any]) -> bool:
        """Fill a page; say whether all that is behind it was counted."""
        try:
            {Level.STUDY: self._studies, Level.SERIES: self._series, Level.IMAGE: self._images}[level](asked, window)
        except TooBroad:
            return False
        return True

    # ---------------------------------------------------------------------------------------------------------- by level

    def _studies(self, asked: Mapping[str, Any], window: _Window) -> None:
        if len(alternatives("StudyInstanceUID", asked.get("StudyInstanceUID"))) in range(1, _LEAST):  # few at most: read with their candidates
            rows = self._rows(_studies(asked, study_entry.c.id, study_entry.c.attributes))
            known = {key: whole(OF_STUDY, keys) for key, keys, _ in rows}
            self._walk([(key, doubt) for key, _, doubt in rows], lambda _: known, _test(asked), window)
            return
        candidates = self._rows(_studies(asked, study_entry.c.id))
        self._walk([(row[0], row[-1]) for row in candidates], self._read_studies, _test(asked), window)

    def _series(self, asked: Mapping[str, Any], window: _Window) -> None:
        if not asked.keys() <= {*OF_STUDY}:
            candidates = self._rows(_series(asked, series_entry.c.id))
            self._walk([(row[0], row[-1]) for row in candidates], self._read_series, _test(asked), window)
            return
        for one in self._groups(asked, window):
            if not window.passes(one.series):
                of_study = select(series_entry.c.id).where(series_entry.c.study_instance_uid == one.study_instance_uid)
                rows = self._rows(of_study.order_by(series_entry.c.series_instance_uid))
                self._walk([(row[0], False) for row in rows], self._read_series, _test({}), window)

    def _images(self, asked: Mapping[str, Any], window: _Window) -> None:
        above = {keyword: wanted for keyword, wanted in asked.items() if keyword in OF_SERIES}
        own = {keyword: wanted for keyword, wanted in asked.items() if keyword not in OF_SERIES}
        test = matcher(own)
        for one in self._groups(above | _implied(own), window, *_holding(asked)):
            if not own and window.passes(one.instances):
                continue
            candidates = self._candidates(one, own)
            if own:
                window.look(len(candidates))
            self._walk(candidates, self._reading_images(one), test, window)

    def _groups(self, asked: Mapping[str, Any], window: _Window, *conditions: Any) -> Iterator[_Group]:
        """Give the studies that are meant, or, where keys are of series, their series, one after the other."""
        by_study = asked.keys() <= {*OF_STUDY}
        if by_study:
            columns = study_entry.c.id, study_entry.c.study_instance_uid, study_entry.c.series, study_entry.c.instances
            wanted = _studies(asked, *columns).where(*(study_entry.c.study_instance_uid.in_(one) for one in conditions))
        else:
            counted = series_entry.c.attributes["NumberOfSeriesRelatedInstances"].as_integer()
            columns = series_entry.c.id, series_entry.c.study_instance_uid, series_entry.c.series_instance_uid, counted
            wanted = _series(asked, *columns).where(*(series_entry.c.study_instance_uid.in_(one) for one in conditions))
        rows, test, read = self._rows(wanted), _test(asked), self._read_studies if by_study else self._read_series
        for start in range(0, len(rows), _PAGE):
            batch = rows[start : start + _PAGE]
            doubted = [row[0] for row in batch if row[-1]]
            window.look(len(doubted))
            known = read(doubted) if doubted else {}
            for key, study, more, instances, doubt in batch:
                if not doubt or (key in known and test(known[key])):
                    yield _Group(study, "", more, instances) if by_study else _Group(study, more, 1, instances or 0)

    # ------------------------------------------------------------------------------------------------------------- rows

    def _walk(self, candidates: Candidates, read: Read, test: Test, window: _Window) -> None:
        """Take candidates that are meant, in their order; what is certain and not of the page is not read."""
        at = 0
        while at < len(candidates):
            batch = candidates[at : at + window.size]
            at += len(batch)
            reaches = window.left > 0 and window.before < len(batch)
            needed = [key for key, doubt in batch if doubt or reaches]
            window.look(sum(doubt for _, doubt in batch))
            rows = read(needed) if needed else {}
            for key, doubt in batch:
                if not doubt and not reaches:
                    window.passes(1)
                elif key in rows and (not doubt or test(rows[key])):
                    window.take(rows[key])

    def _candidates(self, group: _Group, own: Mapping[str, Any]) -> list[tuple[tuple[int, int], bool]]:
        """Return the objects of a group that may be meant, by series and UID; their numbers are those of a table and of a row."""
        found = []
        for number, table in enumerate(_OBJECTS):
            columns = {"SOPInstanceUID": table.c.sop_instance_uid, "SOPClassUID": table.c.sop_class_uid}
            wanted = table.c.series_instance_uid, table.c.sop_instance_uid, table.c.id, doubtful(own, columns)
            series = [group.series_instance_uid] if group.series_instance_uid else None
            found += [
                (one, sop, (number, key), doubt)
                for one, sop, key, doubt in self._rows(objects(table, group.study_instance_uid, series, own, *wanted))
            ]
        return [(key, bool(doubt)) for _, _, key, doubt in sorted(found)]

    def _read_studies(self, ids: Sequence[int]) -> dict[int, dict[str, Any]]:
        return {key: whole(OF_STUDY, keys) for key, keys in self._rows(_STUDIES, ids=ids)}

    def _read_series(self, ids: Sequence[int]) -> dict[int, dict[str, Any]]:
        return {key: whole(OF_SERIES, {**keys, **above}) for key, keys, above in self._rows(_SERIES, ids=ids)}

    def _reading_images(self, group: _Group) -> Read:
        """Return what reads objects of a group."""
        above: dict[str, dict[str, Any]] = {}

        def read(keys: Sequence[Any]) -> dict[Any, dict[str, Any]]:
            if not above:
                same = series_entry.c.study_instance_uid == group.study_instance_uid
                ids = [row[0] for row in self._rows(select(series_entry.c.id).where(same))]
                above.update({one["SeriesInstanceUID"]: one for one in self._read_series(ids).values()})
            found = {}
            for number, wanted in enumerate(_IMAGES):
                ids = [key for of, key in keys if of == number]
                for key, series, *own, header in self._rows(wanted, ids=ids) if ids else ():
                    said = whole(IMAGE_KEYWORDS, header) | dict(zip(_OWN, own, strict=True))
                    found[number, key] = said | above[series] if series in above else said
            return found

        return read

    def _rows(self, wanted: Select[Any], **values: Any) -> Sequence[Any]:
        return self._connection.execute(wanted, values).all()


_OWN = {"SOPClassUID": "sop_class_uid", "SOPInstanceUID": "sop_instance_uid", "AvailableTransferSyntaxUID": "transfer_syntax_uid"}
_IDS: BindParameter[int] = bindparam("ids", expanding=True)  # statements are made once: making one takes as long as its answer
_STUDIES = select(study_entry.c.id, study_entry.c.attributes).where(study_entry.c.id.in_(_IDS))
_SERIES = (
    select(series_entry.c.id, series_entry.c.attributes, study_entry.c.attributes).join(study_entry, _WITH_STUDY).where(series_entry.c.id.in_(_IDS))
)
_IMAGES = tuple(
    select(*(one.c[name] for name in ("id", "series_instance_uid", *_OWN.values(), "header"))).where(one.c.id.in_(_IDS)) for one in _OBJECTS
)


def _studies(asked: Mapping[str, Any], *columns: Any) -> Select[Any]:
    return select(*columns, _doubt(asked, STUDY_COLUMNS)).where(*prefilter(_apart(asked), STUDY_COLUMNS)).order_by(*_NEWEST_FIRST)


def _series(asked: Mapping[str, Any], *columns: Any) -> Select[Any]:
    wanted = select(*columns, _doubt(asked, _COLUMNS)).join_from(series_entry, study_entry, _WITH_STUDY)
    return wanted.where(*prefilter(_apart(asked), _COLUMNS)).order_by(*_NEWEST_FIRST, series_entry.c.series_instance_uid)


def _implied(own: Mapping[str, Any]) -> dict[str, Any]:
    """Return what studies have to be that hold images of these SOP classes."""
    return {"SOPClassesInStudy": own["SOPClassUID"]} if "SOPClassUID" in own else {}


def _holding(asked: Mapping[str, Any]) -> list[Select[Any]]:
    """Return, where instances are named and nothing above them is, what selects their studies."""
    if "SOPInstanceUID" not in asked or not asked.keys().isdisjoint(("StudyInstanceUID", "SeriesInstanceUID")):
        return []
    one, other = (select(table.c.study_instance_uid).where(*prefilter(asked, {"SOPInstanceUID": table.c.sop_instance_uid})) for table in _OBJECTS)
    return [one.union(other)]  # type: ignore[list-item]


# --------------------------------------------------------------------------------------------------------- date and time


def _moments(asked: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the first and the last moment of a range of dates and one of times; None where they are not both ranges."""
    values = [alternatives(keyword, asked.get(keyword)) for keyword in ("StudyDate", "StudyTime")]
    if not all(len(one) == 1 and "-" in one[0] for one in values):
        return None
    days, times = (span_asked(vr, one[0]) for vr, one in zip(("DA", "TM"), values, strict=True))
    if days is None or times is None:
        return None
    first = days[0] + (times[0] or "") if days[0] else ""
    return first, days[1] + (times[1] or _LATEST) if days[1] else _LATEST


def _apart(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys but for a time that is part of a range of moments."""
    return {keyword: wanted for keyword, wanted in asked.items() if keyword != "StudyTime" or _moments(asked) is None}


def _doubt(asked: Mapping[str, Any], columns: Mapping[str, Any]) -> Any:
    return doubtful(asked, columns).label("doubt")


def _test(asked: Mapping[str, Any]) -> Test:
    """Return how an entity is compared with the keys."""
    moments = _moments(asked)
    if moments is None:
        return matcher(asked)
    test = matcher({keyword: wanted for keyword, wanted in asked.items() if keyword not in ("StudyDate", "StudyTime")})
    return lambda attributes: test(attributes) and _is_within(attributes, *moments)


def _is_within(attributes: Mapping[str, Any], first: str, last: str) -> bool:
    """Say whether a study may be of a range of moments; one without a date may be of any, as its keys are required ones (C.2.2.2.1.2)."""
    day, time = str(attributes.get("StudyDate") or ""), str(attributes.get("StudyTime") or "")
    if not day:
        return True
    of_day, of_time = span("DA", day), span("TM", time) or ("", _LATEST)
    return of_day is not None and of_day[1] + of_time[1] >= first and of_day[0] + of_time[0] <= last
