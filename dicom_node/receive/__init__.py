"""Success is answered only after the bytes and their row are durable.

`Receiver` is the C-STORE and C-ECHO SCP; what it accepts it brings to the `Door`, where an import of files goes in too. `study_of` looks at
files without taking them. `Promises` and `Reporter` commit the node to what it holds. No pixel is decoded.
"""

from dicom_node.receive.commitment import Promises, Reporter
from dicom_node.receive.door import Door, import_file
from dicom_node.receive.file_arrival import FileArrival
from dicom_node.receive.folder import read_keywords, study_of
from dicom_node.receive.header import read_header, split_file
from dicom_node.receive.presence import Presence
from dicom_node.receive.receipt import recovered
from dicom_node.receive.scp import Receiver
from dicom_node.receive.turnstile import Turnstile

__all__ = [
    "Door",
    "FileArrival",
    "Presence",
    "Promises",
    "Receiver",
    "Reporter",
    "Turnstile",
    "import_file",
    "read_header",
    "read_keywords",
    "recovered",
    "split_file",
    "study_of",
]
