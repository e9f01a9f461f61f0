"""The built-in viewer: a study's images with the segments and the marks that others laid over them, and what was measured.

It needs nothing from elsewhere: pictures are made by the server, one slice at a time; with our own small script they follow the mouse.
"""

from starlette.routing import BaseRoute

from dicom_node.web.context import Context
from dicom_node.web.viewer.page import Viewer


def routes(context: Context) -> list[BaseRoute]:
    """Return the resources under /view."""
    return Viewer(context).routes()
