"""DICOMweb: studies retrieved, sought and stored by HTTP (PS3.18 chapter 10)."""

from starlette.routing import BaseRoute

from dicom_node.web.context import Context
from dicom_node.web.dicomweb import capabilities, rendered, retrieve, search

_PARTS = (capabilities, search, retrieve, rendered)


def routes(context: Context) -> list[BaseRoute]:
    """Return the resources of every transaction."""
    return [one for part in _PARTS for one in part.routes(context)]
