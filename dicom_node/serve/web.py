"""What the web is given of other rooms: built here, in the process that answers HTTP."""

import time
from collections.abc import Callable

from dicom_node.config import Site
from dicom_node.store import Store
from dicom_node.web import Context


def context(site: Site, store: Store, clock: Callable[[], float] = time.time) -> Context:
    """Return the node as the web sees it."""
    return Context(site=site, store=store, clock=clock)
