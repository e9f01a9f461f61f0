"""What the web is given of other rooms: built here, in the process that answers HTTP."""

import time
from collections.abc import Callable

from dicom_node.config import Site
from dicom_node.serve.bringing import bringing
from dicom_node.serve.explaining import explained
from dicom_node.serve.joining import managing
from dicom_node.serve.trying import tried_apart
from dicom_node.store import Store
from dicom_node.web import Context
from dicom_node.worklist.ups.events import information


def context(site: Site, store: Store, clock: Callable[[], float] = time.time) -> Context:
    """Return the node as the web sees it."""
    return Context(
        site=site,
        store=store,
        clock=clock,
        bring=bringing(site, store, clock),
        explain=lambda uid: explained(site, store, uid, clock()),
        try_rules=lambda text, studies: tried_apart(site, text, studies, clock()),
        worklist=managing(site, store, clock),
        event_of=information,
    )
