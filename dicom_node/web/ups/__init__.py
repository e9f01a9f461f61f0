"""UPS-RS: workitems by HTTP, with the same outcomes as over DIMSE (PS3.18 chapter 11), and the channel by which watchers are told (8.10.4)."""

from starlette.routing import BaseRoute

from dicom_node.web.context import Context
from dicom_node.web.ups import channel, resources, searching, watching

_PARTS = (searching, resources, watching, channel)


def routes(context: Context) -> list[BaseRoute]:
    """Return every resource of workitems under /dicom-web."""
    return [route for part in _PARTS for route in part.routes(context)]
