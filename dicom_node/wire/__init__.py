"""DICOM messages on a connection, for those who own its socket: P-DATA and command sets as bytes, and a pynetdicom association that never sleeps.

The rooms that speak to peers move images with it past pynetdicom, which goes on negotiating their associations and serving every other message.
`peer` is the association that such a room requests. `hl7` and `mllp` are messages of HL7 v2 and how they are framed.
"""

from dicom_node.wire.association import Gate, WokenDUL, is_known_library, judge_by_artim
from dicom_node.wire.connection import Broken, Connection
from dicom_node.wire.credentials import ClientTls, Credentials, Identity
from dicom_node.wire.message import (
    COMMAND,
    LAST,
    P_DATA_TF,
    PDU_HEAD,
    PDV_HEAD,
    Malformed,
    MoveOriginator,
    StoreAnswer,
    StoreRequest,
    fragments,
    p_data,
    query_response,
    read_command,
    store_request,
    store_response,
)
from dicom_node.wire.part10 import FileMeta, StoredFile, read_file_meta
from dicom_node.wire.peer import Context
from dicom_node.wire.requestor import Requestor
from dicom_node.wire.sender import StoreSender
from dicom_node.wire.service import UNCOMPRESSED, Service, status_of

__all__ = [
    "COMMAND",
    "LAST",
    "PDU_HEAD",
    "PDV_HEAD",
    "P_DATA_TF",
    "UNCOMPRESSED",
    "Broken",
    "ClientTls",
    "Connection",
    "Context",
    "Credentials",
    "FileMeta",
    "Gate",
    "Identity",
    "Malformed",
    "MoveOriginator",
    "Requestor",
    "Service",
    "StoreAnswer",
    "StoreRequest",
    "StoreSender",
    "StoredFile",
    "WokenDUL",
    "fragments",
    "is_known_library",
    "judge_by_artim",
    "p_data",
    "query_response",
    "read_command",
    "read_file_meta",
    "status_of",
    "store_request",
    "store_response",
]
