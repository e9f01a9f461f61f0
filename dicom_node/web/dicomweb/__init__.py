"""DICOMweb: studies retrieved, sought and stored by HTTP (PS3.18 chapter 10)."""

from starlette.routing import BaseRoute

from dicom_node.web.context import Context
from dicom_node.web.dicomweb import capabilities, rendered, retrieve, search, storing

_PARTS = (capabilities, search, rendered, retrieve, storing)


def routes(context: Context) -> list[BaseRoute]:
    """Return every resource under /dicom-web."""
    return [route for part in _PARTS for route in part.routes(context)]
