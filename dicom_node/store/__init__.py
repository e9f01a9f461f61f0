"""What it acknowledged survives a power cut.

Bytes on disk (`Archive`) and rows in the ledger: instances, studies, jobs, results, deliveries, and the journal of every change.
"""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL

from dicom_node.config import Node
from dicom_node.domain import NodeError
from dicom_node.store.announcements import Announcements
from dicom_node.store.archive import Archive
from dicom_node.store.backlog import Backlog
from dicom_node.store.bell import Bell, Listener, Topic, bell_of
from dicom_node.store.commitments import Commitments
from dicom_node.store.database import Database, Spelled
from dicom_node.store.deliveries import Deliveries, Destination
from dicom_node.store.draft import PAGE_BYTES, Draft, pour
from dicom_node.store.feedback import Feedback
from dicom_node.store.holdings import ATTRIBUTES, UNIQUE_KEYS, Holdings, Level, Stored
from dicom_node.store.intake import Intake
from dicom_node.store.jobs import Jobs
from dicom_node.store.journal import Event, Journal
from dicom_node.store.latencies import Latencies
from dicom_node.store.match import span_asked
from dicom_node.store.messages import Messages
from dicom_node.store.notices import Notices
from dicom_node.store.orders import Orders
from dicom_node.store.overview import Listing, Overview, Standing, Step
from dicom_node.store.people import People
from dicom_node.store.places import instance_name
from dicom_node.store.priors import PriorSearches
from dicom_node.store.recording import Recorded
from dicom_node.store.reports import Report, reports
from dicom_node.store.retrievals import Retrievals
from dicom_node.store.searches import Page, Searches
from dicom_node.store.sessions import Session, Sessions
from dicom_node.store.steps import Steps
from dicom_node.store.studies import Studies
from dicom_node.store.subscriptions import Subscriptions
from dicom_node.store.triage import Triage
from dicom_node.store.watch import Watch
from dicom_node.store.workitems import Change, Workitems

__all__ = [
    "ATTRIBUTES",
    "PAGE_BYTES",
    "UNIQUE_KEYS",
    "Announcements",
    "Archive",
    "Bell",
    "Change",
    "Commitments",
    "Database",
    "Deliveries",
    "Destination",
    "Draft",
    "Event",
    "Feedback",
    "Holdings",
    "Intake",
    "Jobs",
    "Journal",
    "Level",
    "Listener",
    "Listing",
    "Notices",
    "Orders",
    "Overview",
    "Page",
    "People",
    "PriorSearches",
    "Recorded",
    "Report",
    "Retrievals",
    "Searches",
    "Session",
    "Sessions",
    "Spelled",
    "Standing",
    "Step",
    "Steps",
    "Store",
    "Stored",
    "Studies",
    "Subscriptions",
    "Topic",
    "Triage",
    "Watch",
    "Workitems",
    "instance_name",
    "pour",
    "reports",
    "span_asked",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """The archive and the ledger of one node."""

    archive: Archive
    database: Database
    bell: Bell
    instances: Intake
    holdings: Holdings
    searches: Searches
    studies: Studies
    jobs: Jobs
    priors: PriorSearches
    deliveries: Deliveries
    commitments: Commitments
    retrievals: Retrievals
    steps: Steps
    notices: Notices
    orders: Orders
    announcements: Announcements
    feedback: Feedback
    journal: Journal
    latencies: Latencies
    messages: Messages
    backlog: Backlog
    overview: Overview
    people: People
    sessions: Sessions
    workitems: Workitems
    subscriptions: Subscriptions
    triage: Triage

    # Longer than others, for it names every room of rows once.
    @classmethod
    def open(cls, storage: Path, address: str = "") -> "Store":
        """Open the store in a folder, with SQLite inside it unless a database address is given, and bring its tables up to date.

        Raises
        ------
        ConfigError: the folder or the address cannot be used, the driver is missing, or the ledger is of a newer program.
        Transient: the database does not answer.
        """
        archive = Archive(storage)
        database = Database(address or str(URL.create("sqlite", database=str(archive.root / "ledger.sqlite"))))
        try:
            database.upgrade()
        except NodeError:
            database.close()
            raise
        bell = bell_of(database, archive.root)
        instances = Intake(database, archive, bell)
        holdings = Holdings(database, archive, instances)
        return cls(
            archive=archive,
            database=database,
            bell=bell,
            instances=instances,
            holdings=holdings,
            searches=Searches(database, holdings),
            studies=Studies(database, archive, bell),
            jobs=Jobs(database, bell),
            priors=PriorSearches(database, bell),
            deliveries=Deliveries(database, bell),
            commitments=Commitments(database, bell),
            retrievals=Retrievals(database, bell),
            steps=Steps(database, bell),
            notices=Notices(database, bell),
            orders=Orders(database),
            announcements=Announcements(database),
            feedback=Feedback(database, bell),
            journal=Journal(database),
            latencies=Latencies(database),
            messages=Messages(database),
            backlog=Backlog(database),
            overview=Overview(database),
            people=People(database),
            sessions=Sessions(database),
            workitems=Workitems(database, bell),
            subscriptions=Subscriptions(database, bell),
            triage=Triage(database, bell, holdings),
        )

    @classmethod
    def of(cls, node: Node) -> "Store":
        """Open the store that the site's configuration names."""
        return cls.open(node.storage, node.database)

    def close(self) -> None:
        """Commit what waits and close every connection."""
        self.instances.close()
        self.bell.close()
        self.archive.close()
        self.database.close()
