"""An archive that is asked over HTTP, in this process, written from PS3.18 alone; it misbehaves as a test wants it to."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydicom import Dataset, dcmwrite

BOUNDARY = "b-1"
KIND = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'


@dataclass
class WebArchive:
    """What it has, what it was asked, and how it answers."""

    images: Sequence[Dataset] = ()
    token: str = ""
    page: int = 1000  # answers at once, at most
    find: Callable[["Asked"], bool] | None = None  # answers instead; False: it does not
    retrieve: Callable[["Asked"], bool] | None = None
    asked: list[str] = field(default_factory=list)
    url: str = ""


class Asked(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    of: WebArchive

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path = url.path.removeprefix("/dicom-web")
        self.of.asked.append(path)
        steps = path.strip("/").split("/")
        if self.of.token and self.headers.get("Authorization") != f"Bearer {self.of.token}":
            self.say(401)
        elif steps[-1] in ("studies", "series", "instances"):
            if self.of.find is None or not self.of.find(self):
                self.found(steps, {key: values[0] for key, values in parse_qs(url.query).items()})
        elif self.of.retrieve is None or not self.of.retrieve(self):
            self.say(200, multipart([written(one) for one in self.chosen(steps)]), KIND)

    def chosen(self, steps: Sequence[str]) -> list[Dataset]:
        """Return the images beneath a resource."""
        named = dict(zip(steps[::2], steps[1::2], strict=False))
        keywords = {"studies": "StudyInstanceUID", "series": "SeriesInstanceUID"}
        return [one for one in self.of.images if all(one[keywords[step]].value == uid for step, uid in named.items())]

    def found(self, steps: Sequence[str], said: dict[str, str]) -> None:
        """Answer a search: what it does not know it passes over."""
        unique = {"studies": "StudyInstanceUID", "series": "SeriesInstanceUID", "instances": "SOPInstanceUID"}[steps[-1]]
        told = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "PatientID", "PatientName", "StudyDate")
        answers: dict[str, dict[str, Any]] = {}
        for one in self.chosen(steps):
            kept = Dataset()
            kept.update({one[keyword].tag: one[keyword] for keyword in told if keyword in one})
            kept.NumberOfStudyRelatedInstances = sum(other.StudyInstanceUID == one.StudyInstanceUID for other in self.of.images)
            answers[one[unique].value] = kept.to_json_dict()
        first = int(said.get("offset", 0))
        page = list(answers.values())[first : first + min(int(said.get("limit", 1000)), self.of.page)]
        self.say(200 if page else 204, json.dumps(page).encode() if page else b"", "application/dicom+json")

    def say(self, status: int, body: bytes = b"", kind: str = "text/plain", **headers: str) -> None:
        """Answer."""
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


def written(image: Dataset) -> bytes:
    """Return an image as a file."""
    out = BytesIO()
    dcmwrite(out, image, enforce_file_format=True)
    return out.getvalue()


def multipart(files: Sequence[bytes], boundary: str = BOUNDARY) -> bytes:
    """Return files as RFC 2387 has them."""
    parts = [f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode() + one + b"\r\n" for one in files]
    return b"".join(parts) + f"--{boundary}--\r\n".encode()


@contextmanager
def web_archive(tls: ssl.SSLContext | None = None, **how: Any) -> Iterator[WebArchive]:
    """Let one answer."""
    of = WebArchive(**how)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Asked,), {"of": of}))
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    of.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}/dicom-web"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield of
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
