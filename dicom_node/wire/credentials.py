"""How this node shows who it is when it requests an association, and why that fails where TLS is the reason, in words."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field

from pynetdicom.pdu_primitives import UserIdentityNegotiation

from dicom_node.domain import AE, PeerUnavailable

_NAME, _NAME_AND_PASSCODE = 1, 2  # user identity types (PS3.7 Table D.3-14)
_EXPIRED, _NOT_YET_VALID, _UNKNOWN_ISSUER = (10,), (9,), (2, 18, 19, 20, 21)  # OpenSSL's results of verification
_WRONG_NAME = (62, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTls:
    """TLS towards a peer (PS3.15 B.12): what connections are wrapped by, and the name that its certificate must have.

    shows: whether the context has a certificate of this node.
    """

    context: ssl.SSLContext
    server_name: str
    shows: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who the node says it is (PS3.7 D.3.3.7); without passcode by its name alone."""

    name: str
    passcode: bytes = field(default=b"", repr=False)

    @property
    def item(self) -> UserIdentityNegotiation:
        """What is negotiated."""
        item = UserIdentityNegotiation()
        item.user_identity_type = _NAME_AND_PASSCODE if self.passcode else _NAME
        item.primary_field = self.name.encode()
        if self.passcode:
            item.secondary_field = self.passcode
        item.positive_response_requested = False
        return item


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What an association with one peer is requested with."""

    tls: ClientTls | None = None
    identity: Identity | None = None


_ALERTS: Mapping[str, tuple[str, str]] = {  # what the peer says of us (RFC 8446 6.2), or OpenSSL of the peer -> what it means, what to do
    "WRONG_VERSION_NUMBER": ("it speaks no TLS on this port", "Give the peer's TLS port, often 2762, or leave `tls` out of this remote."),
    "UNEXPECTED_EOF_WHILE_READING": ("it closed the connection within the handshake", "It may speak no TLS on this port: look at its own log."),
    "UNSUPPORTED_PROTOCOL": ("it speaks only TLS older than 1.2", "Have TLS 1.2 or 1.3 enabled there (BCP 195)."),
    "TLSV1_ALERT_PROTOCOL_VERSION": ("it does not speak TLS 1.2 or newer", "Have TLS 1.2 or 1.3 enabled there (BCP 195)."),
    "SSLV3_ALERT_HANDSHAKE_FAILURE": ("it agrees to no cipher suite, or demands a certificate", "Set node.tls, and compare the TLS profiles."),
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": ("it demands a certificate of this node", "Set node.tls, whose certificate the node shows."),
    "TLSV1_ALERT_UNKNOWN_CA": ("it does not know the authority of this node's certificate", "Have node.tls.certificate's authority entered there."),
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": ("this node's certificate has expired", "Renew node.tls.certificate."),
    "SSLV3_ALERT_BAD_CERTIFICATE": ("it does not take this node's certificate", "Look at the peer's own log: which authorities does it know?"),
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": ("it does not take this node's certificate", "Look at the peer's own log: which authorities does it know?"),
    "TLSV1_ALERT_DECRYPT_ERROR": ("it does not take this node's certificate", "Look at the peer's own log: which authorities does it know?"),
}


def tls_failed(to: AE, tls: ClientTls, error: OSError) -> PeerUnavailable:
    """Return what a failure of TLS says and what to do about it."""
    why, hint = _why(tls, error)
    return PeerUnavailable(f"{to} cannot be spoken to over TLS: {why}", hint=hint)


def tls_ended(to: AE, tls: ClientTls) -> PeerUnavailable:
    """Return what it says that a peer ends the connection after the handshake, before it answers: with TLS 1.3 it looks at certificates then."""
    why = "it ended the connection after the handshake"
    if tls.shows:
        return PeerUnavailable(f"{to} cannot be spoken to over TLS: {why}", hint="It may not take node.tls.certificate: look at its own log.")
    return PeerUnavailable(f"{to} cannot be spoken to over TLS: {why}", hint="It may demand a certificate: set node.tls, or look at its own log.")


def _why(tls: ClientTls, error: OSError) -> tuple[str, str]:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate(tls, error)
    if isinstance(error, ssl.SSLError):
        reason = error.reason or type(error).__name__
        return _ALERTS.get(reason, (reason.replace("_", " ").lower(), "Look at the peer's own log."))
    if isinstance(error, TimeoutError):
        return "it does not go on with the handshake: timed out", "It may speak no TLS on this port: give its TLS port, often 2762."
    return _ALERTS["UNEXPECTED_EOF_WHILE_READING"]


def _certificate(tls: ClientTls, error: ssl.SSLCertVerificationError) -> tuple[str, str]:
    code = error.verify_code
    if code in _EXPIRED:
        return "its certificate has expired", "Have it renewed there; the clocks of both machines must be right."
    if code in _NOT_YET_VALID:
        return "its certificate is not valid yet", "Are the clocks of both machines right?"
    if code in _UNKNOWN_ISSUER:
        return (
            "its certificate is of no authority that is known",
            "Add its authority, or the certificate itself, to `tls.authorities` of this remote.",
        )
    if code in _WRONG_NAME:
        return f"its certificate is not of '{tls.server_name}'", "Set `tls.server_name` of this remote to a name that stands in the certificate."
    return f"its certificate is not accepted: {error.verify_message}", "Look at the certificate."
