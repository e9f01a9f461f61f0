"""Notifications that came: which instances others say are to be had, one row for each notification."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, func, select, update

from dicom_node.domain import Availability, Available, Notice, Notification, Refused, standing
from dicom_node.store.bell import Bell, Topic, ringing
from dicom_node.store.database import Database, insert_unless_there
from dicom_node.store.journal import Event, note
from dicom_node.store.tables import instance, notice, result, study

_KEPT_S = 30 * 86400.0  # a notification whose study never came
_MOST = 10_000  # of one study
_FULL = 0x0213  # resource limitation (PS3.7 C.5.24)
_AT_ONCE = 500  # values of one statement


class Notices:
    """The Instance Availability Notifications of the ledger."""

    def __init__(self, database: Database, bell: Bell) -> None:
        self._database = database
        self._bell = bell

    def record(self, said: Notification, calling_ae: str, *, now: float) -> bool:
        """Record a notification, and let its study be judged again; False when the ledger has it already.

        Raises
        ------
        Refused: there are too many of this study.
        """
        uid = said.study_instance_uid
        with ringing(self._bell, Topic.STUDIES, self._database) as connection:
            lonely = ~select(study.c.state).where(study.c.study_instance_uid == notice.c.study_instance_uid).exists()
            connection.execute(delete(notice).where(notice.c.received_at < now - _KEPT_S, lonely))
            if connection.execute(select(func.count()).select_from(notice).where(notice.c.study_instance_uid == uid)).scalar_one() >= _MOST:
                raise Refused(f"more than {_MOST} notifications of one study are not kept", status=_FULL)
            values = {"study_instance_uid": uid, "series": _kept(said), "calling_ae": calling_ae, "received_at": now}
            if not insert_unless_there(connection, notice, sop_instance_uid=said.sop_instance_uid, **values):
                return False
            why = f"{len(said.instances)} instances are said to be available, or not"
            detail = {"notification": said.sop_instance_uid, "series": len(said.series), "instances": len(said.instances)}
            note(connection, Event(at=now, study_instance_uid=uid, kind="notice", who=calling_ae, why=why, detail=detail))
            connection.execute(update(study).where(study.c.study_instance_uid == uid, study.c.look_at > now).values(look_at=now))
        return True

    def of_study(self, study_instance_uid: str) -> tuple[Notice, ...]:
        """Return what others have of a study by the last word on each instance, without what the node itself made."""
        wanted = select(notice).where(notice.c.study_instance_uid == study_instance_uid).order_by(notice.c.received_at, notice.c.sop_instance_uid)
        with self._database.read() as connection:
            rows = list(connection.execute(wanted).mappings())
            ours = select(result.c.sop_instance_uid).where(result.c.study_instance_uid == study_instance_uid)
            return standing(map(_notification, rows), frozenset(connection.execute(ours).scalars())) if rows else ()

    def absent(self, study_instance_uid: str, sop_instance_uids: Collection[str]) -> frozenset[str]:
        """Return those of these instances of a study that the node neither received nor made."""
        uids = sorted(set(sop_instance_uids))
        with self._database.read() as connection:
            there = [
                uid
                for start in range(0, len(uids), _AT_ONCE)
                for table in (instance, result)
                for uid in _there(connection, table, study_instance_uid, uids[start : start + _AT_ONCE])
            ]
        return frozenset(uids).difference(there)


def _there(connection: Connection, table: Any, study_instance_uid: str, uids: list[str]) -> list[str]:
    named = table.c.study_instance_uid == study_instance_uid, table.c.sop_instance_uid.in_(uids)
    return list(connection.execute(select(table.c.sop_instance_uid).where(*named)).scalars())


def _kept(said: Notification) -> dict[str, list[list[Any]]]:
    return {uid: [[one.sop_instance_uid, one.availability, list(one.retrieve_aes)] for one in of_series] for uid, of_series in said.series.items()}


def _notification(row: RowMapping) -> Notification:
    return Notification(
        sop_instance_uid=row["sop_instance_uid"],
        study_instance_uid=row["study_instance_uid"],
        series={
            series: tuple(Available(sop_instance_uid=uid, availability=Availability(how), retrieve_aes=tuple(titles)) for uid, how, titles in of)
            for series, of in row["series"].items()
        },
        at=row["received_at"],
    )
