"""The dashboard: what the node does and why, as pages that need no script; a small one of our own keeps them fresh."""

from starlette.routing import BaseRoute

from dicom_node.web.context import Context
from dicom_node.web.pages import deliveries, events, front, jobs, models, refused, remotes, retrievals, rules, static, storage, studies, worklist
from dicom_node.web.pages.showing import Pages

__all__ = ["refused", "routes"]

_PARTS = (front, studies, jobs, worklist, deliveries, retrievals, models, rules, remotes, storage)


def routes(context: Context) -> list[BaseRoute]:
    """Return the pages, what they are dressed with, and the stream of events that says when to look again."""
    pages = Pages(context)
    return [route for part in _PARTS for route in part.routes(pages)] + static.routes() + events.routes(context.store)
