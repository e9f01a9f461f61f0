"""What a certificate says (X.509, RFC 5280), as far as the node goes by it."""

import hashlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from dicom_node.domain import ConfigError

_SECONDS_A_DAY = 86400
_VERSION, _SEQUENCE, _UTC_TIME = 0xA0, 0x30, 0x17  # tags of DER
_LONG = 0x80


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate that a peer has shown, and an authority has vouched for.

    fingerprint: SHA-256 of the whole, hexadecimal.
    names: of its Subject Alternative Name, and its Common Names.
    """

    fingerprint: str
    names: frozenset[str] = frozenset()

    @classmethod
    def of(cls, connection: ssl.SSLSocket | ssl.SSLObject) -> Self | None:
        """Return the certificate that the other side of a connection has shown; None: it has shown none that was checked."""
        der = connection.getpeercert(binary_form=True)
        said: Mapping[str, Any] = connection.getpeercert() or {}
        if not der or not said:
            return None
        common = {value for part in said.get("subject", ()) for key, value in part if key == "commonName"}
        alternative = {value for _, value in said.get("subjectAltName", ()) if isinstance(value, str)}
        return cls(fingerprint=hashlib.sha256(der).hexdigest(), names=frozenset(common | alternative))

    def is_the(self, wanted: str) -> bool:
        """Say whether it is the one that a site names: "sha256:" and its fingerprint, or a name in it, without regard to case."""
        if wanted.startswith("sha256:"):
            return wanted.removeprefix("sha256:").replace(":", "").lower() == self.fingerprint
        return wanted.lower() in {name.lower() for name in self.names}


def days_left(der: bytes, now: float) -> int:
    """Return for how many whole days a certificate is still valid; below 0: it has expired.

    Raises
    ------
    ValueError: it is no certificate.
    """
    return int((_not_after(der) - now) // _SECONDS_A_DAY)


def certificate_in(path: Path) -> bytes:
    """Return the first certificate of a PEM file, as DER.

    Raises
    ------
    ConfigError: the file cannot be read, or has none.
    """
    try:
        text = path.read_text("latin-1")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", hint="Name a PEM file that this user may read.") from error
    begin, end = text.find(ssl.PEM_HEADER), text.find(ssl.PEM_FOOTER)
    if begin < 0 or end < begin:
        raise ConfigError(f"{path} holds no certificate", hint="Name a PEM file: it has a line -----BEGIN CERTIFICATE-----.")
    return ssl.PEM_cert_to_DER_cert(text[begin : end + len(ssl.PEM_FOOTER)])


def _not_after(der: bytes) -> float:
    """Read the end of the validity (RFC 5280 4.1.2.5), which Python tells of a peer's certificate alone."""
    try:
        at, _ = _content(der, 0)  # Certificate
        at, _ = _content(der, at)  # TBSCertificate
        if der[at] == _VERSION:
            at = _content(der, at)[1]
        for _ in range(3):  # serialNumber, signature, issuer
            at = _content(der, at)[1]
        at, _ = _content(der, at)  # validity
        at = _content(der, at)[1]  # notBefore
        begin, end = _content(der, at)
        text = der[begin:end].decode("ascii")
        form = "%y%m%d%H%M%SZ" if der[at] == _UTC_TIME else "%Y%m%d%H%M%SZ"
        return datetime.strptime(text, form).replace(tzinfo=UTC).timestamp()
    except (IndexError, UnicodeDecodeError, ValueError) as error:
        raise ValueError("not a certificate") from error


def _content(der: bytes, at: int) -> tuple[int, int]:
    """Return where the content of an element begins and ends."""
    length, at = der[at + 1], at + 2
    if length & _LONG:
        count = length & ~_LONG
        length, at = int.from_bytes(der[at : at + count]), at + count
    if at + length > len(der):
        raise ValueError("an element is longer than the whole")
    return at, at + length
