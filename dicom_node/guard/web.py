"""A connection to the DICOMweb services of a remote (PS3.18), as its configuration says: whom it is believed to be, and which token it is shown.

Redirections are not followed: nobody but the host that the site names is asked, or shown the bearer token (RFC 6750).
"""

import contextlib
import socket
import ssl
from email.message import Message
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import urlsplit

from dicom_node.config import Remote
from dicom_node.domain import PeerUnavailable
from dicom_node.guard.access import first_line

_AWAY = frozenset({429, 502, 503, 504})


class WebLine:
    """Asks what lies beneath a remote's `web_url`, one request after the other over one connection."""

    def __init__(self, name: str, remote: Remote, patience_s: float | None = None) -> None:
        """Know where it is; name: what it is called in errors."""
        self._name = name
        self._remote = remote
        self._patience_s = patience_s or remote.timeout_s
        self._line: HTTPConnection | None = None
        self._socket: socket.socket | None = None
        self.address = urlsplit(remote.web_url.rstrip("/"))

    def ask(self, method: str, path: str, *, accept: str, most_bytes: int, body: bytes | None = None, kind: str = "") -> tuple[int, Message, bytes]:
        """Ask, and return status, headers and body.

        Raises
        ------
        PeerUnavailable: no answer comes, it is too long, or it says that it cannot now.
        """
        answer = self.open(method, path, accept=accept, body=body, kind=kind)
        try:
            whole = answer.read(most_bytes + 1)
        except (OSError, HTTPException, ValueError) as error:
            raise self._silent(error) from error
        if len(whole) > most_bytes:
            self.close()
            raise PeerUnavailable(f"{self._name} does not answer over HTTP: the answer is too long", hint="Look at its own log.")
        return answer.status, answer.headers, whole

    def open(self, method: str, path: str, *, accept: str, body: bytes | None = None, kind: str = "") -> HTTPResponse:
        """Ask, and return the answer, whose body has not been read.

        Raises
        ------
        PeerUnavailable: as `ask`.
        """
        headers = {"Accept": accept, "User-Agent": "dicom-node", **({"Content-Type": kind} if kind else {}), **self.token()}
        try:
            line = self._line = self._line or self._connected()
            if line.sock is None:
                line.connect()
            self._socket = line.sock
            line.request(method, self.address.path + path, body, headers)
            answer = line.getresponse()
        except (OSError, HTTPException, ValueError) as error:
            raise self._silent(error) from error
        if answer.status in _AWAY:
            self.close()
            raise PeerUnavailable(f"{self._name} answered {answer.status}", hint="It cannot now; look at its own log.")
        return answer

    def token(self) -> dict[str, str]:
        """Return the header that shows the token; the file is read each time.

        Raises
        ------
        ConfigError: it cannot be read.
        """
        file = self._remote.web_token_file
        return {"Authorization": f"Bearer {first_line(file).decode('latin-1')}"} if file is not None else {}

    def tls(self) -> ssl.SSLContext:
        """Return whom it is believed to be."""
        return ssl.create_default_context(cafile=str(self._remote.tls.authorities) if self._remote.tls else None)

    def close(self) -> None:
        """End the connection; the next request opens another."""
        line, self._line, self._socket = self._line, None, None
        if line is not None:
            line.close()

    def cut(self) -> None:
        """End the connection under whoever reads from it, in another thread."""
        transport = self._socket
        if transport is not None:
            with contextlib.suppress(OSError):
                transport.shutdown(socket.SHUT_RDWR)

    def _silent(self, error: Exception) -> PeerUnavailable:
        self.close()
        why = getattr(error, "strerror", None) or type(error).__name__
        return PeerUnavailable(f"{self._name} does not answer over HTTP: {why}", hint="Look at `web_url`, and at its own log.")

    def _connected(self) -> HTTPConnection:
        host, port = str(self.address.hostname), self.address.port
        if self.address.scheme == "https":
            return HTTPSConnection(host, port, timeout=self._patience_s, context=self.tls())
        return HTTPConnection(host, port, timeout=self._patience_s)
