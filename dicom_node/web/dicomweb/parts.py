"""What goes out: one payload, or many in multipart/related (RFC 2387, PS3.18 8.6.1.2), as a stream that takes little memory whatever its length."""

import asyncio
import uuid
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from dicom_node.web.aside import RETRIEVING
from dicom_node.web.dicomweb.accept import MediaType

AT_ONCE_BYTES = 1 << 20


class Body(Protocol):
    """The bytes of a payload, before they are read."""

    @property
    def size(self) -> int | None:
        """How many there are; None where that is not known before."""

    def open(self) -> AbstractContextManager[tuple[int, Iterator[bytes]]]:
        """Lend them and their number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One payload."""

    content_type: str
    body: Body
    location: str = ""  # its URL


class Streamed(Response):
    """An answer that is made while it is sent; when the client goes away, what it is made from is closed.

    If it cannot be made to its end the connection is cut: a client sees that something is missing.
    """

    def __init__(
        self, pieces: Iterator[bytes], *, content_type: str, size: int | None, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        """Make its first bytes at once: whatever prevents that can still be said.

        size: of all pieces; None where it is not known.
        """
        said = {"content-type": content_type, **({} if size is None else {"content-length": str(size)}), **(headers or {})}
        self.status_code = status
        self.raw_headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in said.items()]
        self._pieces = bursts(pieces)
        self._first = next(self._pieces, b"")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        gone = asyncio.ensure_future(_gone(receive))
        following: asyncio.Future[bytes | None] | None = None
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            piece: bytes | None = self._first if scope["method"] != "HEAD" else None
            while piece and not gone.done():
                following = asyncio.ensure_future(RETRIEVING.run(next, self._pieces, None))  # it is read while this one is sent
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                piece = await following
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()
            if following is not None:
                await asyncio.gather(following, return_exceptions=True)  # a thread is reading: nothing is closed under its hands
            self._pieces.close()


async def _gone(receive: Receive) -> None:
    """Wait until the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Bytes:
    """A payload that is at hand."""

    data: bytes

    @property
    def size(self) -> int:
        """Its length."""
        return len(self.data)

    @contextmanager
    def open(self) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Lend its bytes."""
        yield self.size, iter((self.data,))


def answer(
    parts: Iterable[Part], media_type: MediaType, *, status: int = 200, held: ExitStack | None = None, headers: Mapping[str, str] | None = None
) -> Streamed:
    """Return payloads as a media type says: together in multipart/related, or the first alone.

    parts: a sequence where all of them are known, else they are made one after another while they are sent. held: what is closed at the end.
    """
    if not media_type.multipart:
        only = next(iter(parts))
        said = {**(headers or {})} | ({"Content-Location": only.location} if only.location else {})
        return Streamed(_held(_alone(only), held), content_type=only.content_type, size=only.body.size, status=status, headers=said)
    boundary = uuid.uuid4().hex
    content_type = f'multipart/related; type="{media_type.name}"; boundary={boundary}'
    size = _size(parts, boundary) if isinstance(parts, Sequence) else None
    return Streamed(_held(_multipart(parts, boundary), held), content_type=content_type, size=size, status=status, headers=headers)


def _held(pieces: Iterator[bytes], held: ExitStack | None) -> Iterator[bytes]:
    with held or ExitStack():
        yield from pieces


def bursts(pieces: Iterable[bytes]) -> Generator[bytes, None, None]:
    """Give small pieces together, so that not each is sent for itself."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= AT_ONCE_BYTES:
            yield held[0] if len(held) == 1 else b"".join(held)
            held, size = [], 0
    if size:
        yield b"".join(held)


def _alone(part: Part) -> Iterator[bytes]:
    with part.body.open() as (_, pieces):
        yield from pieces


def _multipart(parts: Iterable[Part], boundary: str) -> Iterator[bytes]:
    for part in parts:
        with part.body.open() as (size, pieces):
            yield _head(part, size, boundary)
            yield from pieces
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


def _head(part: Part, size: int, boundary: str) -> bytes:
    location = f"Content-Location: {part.location}\r\n" if part.location else ""
    return f"--{boundary}\r\nContent-Type: {part.content_type}\r\nContent-Length: {size}\r\n{location}\r\n".encode()


def _size(parts: Iterable[Part], boundary: str) -> int | None:
    """Return the length of a whole multipart payload; None where one part's is not known."""
    whole = len(boundary) + 6
    for part in parts:
        if part.body.size is None:
            return None
        whole += len(_head(part, part.body.size, boundary)) + part.body.size + 2
    return whole
