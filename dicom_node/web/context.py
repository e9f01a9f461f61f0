"""What every page and resource is made from: the site, the store, and what other rooms do, as values."""

from collections.abc import Callable
from dataclasses import dataclass

from dicom_node.config import Site
from dicom_node.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The node, as the web sees it."""

    site: Site
    store: Store
    clock: Callable[[], float]
