"""Names: UIDs, derived and never rolled, and the addresses of application entities."""

import re
import uuid
from dataclasses import dataclass

_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*")
_NAMESPACE = uuid.UUID("5b4b54f6-5f5a-5c0a-9d6c-2f8f6f2d6f01")  # of every UID that this program derives


def is_uid(text: str) -> bool:
    """Say whether a text is a UID by PS3.5 §9.1: digits and dots, no leading zero in a component, at most 64 characters."""
    return 0 < len(text) <= 64 and _UID.fullmatch(text) is not None


def derived_uid(*parts: object) -> str:
    """Return the UID (2.25, PS3.5 B.2) that belongs to these parts: the same parts give the same UID, always and everywhere."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, chr(0).join(str(part) for part in parts)).int}"


IMPLEMENTATION_CLASS_UID = derived_uid("implementation")  # PS3.7 D.3.3.2: the same in associations and in files
IMPLEMENTATION_VERSION_NAME = "DICOM_NODE_0.1"


_AE_TITLE = re.compile(r"[\x20-\x5b\x5d-\x7e]{1,16}")  # the default repertoire without backslash and control characters


def is_ae_title(text: str) -> bool:
    """Say whether a text is an AE title by PS3.5 Table 6.2-1: 1-16 characters, no backslash, not only spaces."""
    return _AE_TITLE.fullmatch(text) is not None and bool(text.strip())


@dataclass(frozen=True, slots=True)
class AE:
    """An application entity's address, written `TITLE@host:port`."""

    title: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "AE":
        """Read `TITLE@host:port`; an IPv6 host stands in brackets.

        Raises
        ------
        ValueError: the text is not an address of this form; the message says which part is wrong.
        """
        title, at, address = text.rpartition("@")
        host, colon, port = address.rpartition(":")
        if not (at and colon and host):
            raise ValueError(f"'{text}' is not TITLE@host:port")
        if not is_ae_title(title):
            raise ValueError(f"'{title}' is not an AE title: 1 to 16 characters, no backslash")
        if not port.isdecimal() or not 0 < int(port) < 65536:
            raise ValueError(f"'{port}' is not a port: 1 to 65535")
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not bare or re.search(r"[\s\[\]/]", bare):
            raise ValueError(f"'{host}' is not a host")
        return cls(title.strip(), bare, int(port))

    def __str__(self) -> str:
        """Write the address as it is parsed."""
        return f"{self.title}@{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"
