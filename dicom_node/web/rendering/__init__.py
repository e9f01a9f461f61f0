"""What a screen shows of an object: its pixels as 8-bit pictures, its segments in their colours, its report as text.

Files that peers sent are not trusted: every size is bounded, and what cannot be shown is `Unsuitable`.
"""

from dicom_node.web.rendering.draw import Options, drawn, frames_of, tile
from dicom_node.web.rendering.grey import Window
from dicom_node.web.rendering.source import Source, opened

__all__ = ["Options", "Source", "Window", "drawn", "frames_of", "opened", "tile"]
