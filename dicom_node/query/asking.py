"""Asks other archives what they have, by the way that the remote's `retrieve` says: C-FIND, or QIDO-RS."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Protocol

from dicom_node.config import Node, Remote
from dicom_node.query import qido, scu
from dicom_node.query.answers import Answer, number_of
from dicom_node.query.scu import MOST, Contents
from dicom_node.store import Level
from dicom_node.wire import Credentials


class Asking(Protocol):
    """Asks a remote one question after the other."""

    def find(self, level: Level | str, keys: Mapping[str, str], *, limit: int = MOST) -> tuple[Answer, ...]:
        """Ask one question; as the function `find`."""

    def contents(self, study_instance_uid: str) -> Contents:
        """Return what the remote says it has of a study: its instances by name, where it names them, else their number."""


@contextlib.contextmanager
def asking(remote: Remote, node: Node, *, credentials: Credentials, patience_s: float | None = None) -> Iterator[Asking]:
    """Connect for questions, and end the connection.

    Raises
    ------
    PeerUnavailable: there is no association.
    Rejected: the remote accepts no question.
    """
    if remote.retrieve == "web":
        with contextlib.closing(qido.Asking(remote, patience_s)) as by_web:
            yield by_web
    else:
        with scu.asking(remote, node, credentials=credentials, patience_s=patience_s) as by_find:
            yield by_find


def find(
    remote: Remote,
    node: Node,
    level: Level | str,
    keys: Mapping[str, str],
    *,
    credentials: Credentials,
    limit: int = 1000,
    patience_s: float | None = None,
) -> tuple[Answer, ...]:
    r"""Ask a remote for the entities of a level (C-FIND at the Study Root, at the Patient Root where only that is accepted; QIDO-RS).

    level: one of `identifier.Level`.
    keys: keyword -> what it has to match (a value, UIDs parted by `\`, wildcards, a range; PS3.4 C.2.2.2); an empty text: it is to be returned.
    The unique key of the level is asked for in any case; at SERIES and IMAGE level the caller gives one value of each unique key above.
    limit: after so many answers the question is cancelled (C-CANCEL), and these are returned.
    patience_s: for each response; the remote's `timeout_s` unless it is given.

    Raises
    ------
    PeerUnavailable: nobody answers there, or no longer, or not in time (it may be asked again).
    Transient: it answers that it cannot now (A7xx, Cxxx; 5xx).
    Rejected: it does not take such questions, or what it answers cannot be read.
    """
    with asking(remote, node, credentials=credentials, patience_s=patience_s) as open_:
        return open_.find(level, keys, limit=limit)


def count(remote: Remote, node: Node, study_instance_uid: str, *, credentials: Credentials) -> int | None:
    """Return how many instances of a study a remote says it has; 0 where it does not know the study, None where it does not say.

    Raises
    ------
    PeerUnavailable, Transient, Rejected: as `find`.
    """
    with asking(remote, node, credentials=credentials) as open_:
        studies = open_.find(Level.STUDY, {"StudyInstanceUID": study_instance_uid, "NumberOfStudyRelatedInstances": "", "PatientID": ""})
        if not studies:
            return 0
        number = number_of(studies, "NumberOfStudyRelatedInstances")
        return number if number is not None else open_.contents(study_instance_uid).number
