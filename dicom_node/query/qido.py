"""Asks other archives what they have over HTTP: QIDO-RS as user agent (PS3.18 10.6), every answer bounded, and compared with the question again.

As of C-FIND (`scu`), an answer has to meet every key that it says anything of. No address with a question in it is logged, nor quoted in an error.
"""

import json
from collections.abc import Mapping
from time import monotonic
from typing import Any
from urllib.parse import urlencode

from pydicom import Dataset

from dicom_node.config import Remote
from dicom_node.domain import NodeError, PeerUnavailable, Rejected, Transient, is_uid
from dicom_node.guard.web import WebLine
from dicom_node.query.answers import PENDING, Answer, is_meant, number_of, readable, texts_of_all
from dicom_node.query.scu import MOST, Contents
from dicom_node.store import UNIQUE_KEYS, Level

_JSON = "application/dicom+json"
_ANSWER_BYTES = 16 << 20  # of one page
_PAGE = 500
_BESIDE = 10_000  # answers more than are kept, of a service that passes keys over
_INSTANCES = 200_000  # of a study
_TIMES = 10  # the whole of a question takes at most so many times the patience for one page
_ABSENT = frozenset({404, 410})


class Asking:
    """Asks one remote, one question after the other."""

    def __init__(self, remote: Remote, patience_s: float | None = None) -> None:
        self._where = remote.web_url
        self._patience_s = patience_s or remote.timeout_s
        self._line = WebLine(self._where, remote, patience_s)

    def close(self) -> None:
        """End the connection."""
        self._line.close()

    def find(self, level: Level | str, keys: Mapping[str, str], *, limit: int = MOST) -> tuple[Answer, ...]:
        """Ask one question, page by page, until a page brings nothing new: a service may give fewer at once than it is asked for (PS3.18 10.6.3.2).

        Raises
        ------
        PeerUnavailable, Transient, Rejected: as `asking.find`.
        """
        level = Level(level)
        unique = UNIQUE_KEYS[level]
        asked = {unique: ""} | dict(keys)
        path, said = question(level, asked)
        found: list[Answer] = []
        seen: set[str] = set()
        offset, until = 0, monotonic() + _TIMES * self._patience_s
        while len(found) < limit:
            page = self._page(path, [*said, ("limit", str(_PAGE)), ("offset", str(offset))])
            new = {str(one.get(unique)): one for one in page if str(one.get(unique)) not in seen}
            if not new:
                break
            seen |= new.keys()
            offset += len(page)
            found += [one for one in new.values() if is_meant(level, asked, one, PENDING)]
            if monotonic() > until or len(seen) > limit + _BESIDE:
                raise PeerUnavailable(f"{self._where} does not come to an end of its answers", hint="Ask for less, or look at its own log.")
        return tuple(found[:limit])

    def contents(self, study_instance_uid: str) -> Contents:
        """Return what the remote says it has of a study: its instances by name, where it finds instances, else their number.

        Raises
        ------
        PeerUnavailable, Transient, Rejected: as `find`.
        """
        images = self._images(study_instance_uid)
        if not images:
            studies = self.find(Level.STUDY, {"StudyInstanceUID": study_instance_uid, "NumberOfStudyRelatedInstances": ""})
            return Contents(number=number_of(studies, "NumberOfStudyRelatedInstances") if studies else 0)
        series = {str(one["SOPInstanceUID"]): str(one.get("SeriesInstanceUID") or "") for one in images}
        return Contents(
            number=len(series),
            instances=series if all(map(is_uid, series.values())) else {},
            sop_classes=tuple(one for one in texts_of_all(images, "SOPClassUID") if is_uid(one)),
        )

    def _images(self, study_instance_uid: str) -> tuple[Answer, ...]:
        """Return every instance of a study; none where the remote does not find instances."""
        keys = {"StudyInstanceUID": study_instance_uid, "SeriesInstanceUID": "", "SOPClassUID": ""}
        try:
            images = self.find(Level.IMAGE, keys, limit=_INSTANCES)
        except PeerUnavailable:
            raise
        except (Transient, Rejected):  # what else it refuses it refuses to the next question, too
            return ()
        if len(images) >= _INSTANCES:
            raise Rejected(f"{self._where} names {_INSTANCES} instances of one study, or more", hint="So many are not fetched.")
        return images

    def _page(self, path: str, said: list[tuple[str, str]]) -> list[Answer]:
        status, _, body = self._line.ask("GET", f"{path}?{urlencode(said)}", accept=_JSON, most_bytes=_ANSWER_BYTES)
        if status == 204 or (status in _ABSENT and path != "/studies"):
            return []
        if status not in (200, 206):
            raise refused(self._where, status, "a query")
        return self._read(body)

    def _read(self, body: bytes) -> list[Answer]:
        """Return what a page says (PS3.18 F.2).

        Raises
        ------
        Rejected: it cannot be read.
        """
        try:
            said = json.loads(body or b"[]")
            return [_answer(one) for one in said]
        except Exception as error:  # whatever pydicom raises on what anybody may send: it is no answer
            hint = "Look at its own log; its maker has to look."
            raise Rejected(f"{self._where} answers a query with what cannot be read", hint=hint) from error


def question(level: Level, asked: Mapping[str, str]) -> tuple[str, list[tuple[str, str]]]:
    """Return the resource beneath `web_url`, and the parameters, of a question (PS3.18 10.6.1): several UIDs are parted by commas (8.3.4.1).

    Raises
    ------
    Rejected: QIDO-RS has no such question.
    """
    study, series = (asked.get(keyword, "") for keyword in ("StudyInstanceUID", "SeriesInstanceUID"))
    places: dict[Level, tuple[str, tuple[str, ...]]] = {
        Level.STUDY: ("/studies", ()),
        Level.SERIES: (f"/studies/{study}/series", (study,)),
        Level.IMAGE: (f"/studies/{study}/series/{series}/instances", (study, series)) if series else (f"/studies/{study}/instances", (study,)),
    }
    path, within = places.get(level, ("", ("",)))
    if not all(map(is_uid, within)):
        raise Rejected(f"a service over HTTP is not asked such a question at {level} level", hint="Name one study, and one series.")
    rest = {keyword: wanted for keyword, wanted in asked.items() if keyword not in ("StudyInstanceUID", "SeriesInstanceUID")[: len(within)]}
    told = [keyword for keyword, wanted in rest.items() if not wanted and keyword != UNIQUE_KEYS[level]]
    return path, [
        *((keyword, wanted.replace("\\", ",")) for keyword, wanted in rest.items() if wanted),
        *([("includefield", ",".join(told))] if told else []),
    ]


def refused(where: str, status: int, what: str) -> NodeError:
    """Return the error that an answer is (PS3.18 8.5)."""
    said = f"{where} answered {what} with {status}"
    if status in (401, 403):
        return Rejected(f"{said}: not authorised", hint="Have the node allowed to search and retrieve there; its token is in `web_token_file`.")
    if 300 <= status < 400:
        return Rejected(f"{said}: it is elsewhere, where nobody is asked", hint="Correct `web_url`.")
    if 400 <= status < 500 and status != 408 or status == 501:
        return Rejected(f"{said}: it does not take this", hint="Correct `web_url`, or look at its conformance statement.")
    return Transient(said, hint="It could not do it now. Look at its own log.")


def _answer(said: Any) -> Answer:
    return readable(Dataset.from_json(said, bulk_data_uri_handler=_no_bulk), is_decoded=True)


def _no_bulk(*_: object) -> None:
    """What is said by reference is not fetched."""
