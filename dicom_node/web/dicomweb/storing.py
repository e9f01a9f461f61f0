"""The Store Transaction (STOW-RS, PS3.18 10.5): DICOM files in a multipart payload, each through the same door as C-STORE, as they come.

What was stored when a payload turns out to be none, or when its sender goes, stays stored; what had not come whole is forgotten.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dicom_node.domain import is_ae_title
from dicom_node.web.access import Role, allow, person
from dicom_node.web.aside import STORING
from dicom_node.web.context import Bringing, Context
from dicom_node.web.dicomweb import model
from dicom_node.web.dicomweb.accept import MediaType, negotiate
from dicom_node.web.dicomweb.stored import Answer, Stored, answer
from dicom_node.web.dicomweb.urls import PREFIX, accepted, service_url
from dicom_node.wire.multipart import Begun, Ended, Malformed, Reader, content_type

_JSON, _PLAIN_JSON, _XML = (MediaType(name=f"application/{name}") for name in ("dicom+json", "json", "dicom+xml"))
_PIECE_BYTES = 1 << 20  # are gathered before a thread is asked to take them
_RETRY_AFTER_S = 60
_DICOM = "application/dicom"
_UID = re.compile(r"[0-9.]{1,64}")

_log = structlog.get_logger()


def routes(context: Context) -> list[BaseRoute]:
    """Return the two resources that can be stored to."""
    store = allow(Role.OPERATOR, _Storing(context).store, "dicomweb.write")
    return [Route(f"{PREFIX}{path}", store, methods=["POST"]) for path in ("/studies", "/studies/{study}")]


def title_of(name: str) -> str:
    """Return who sent an instance as the ledger keeps it: their name, as far as an AE title can hold it (PS3.5 Table 6.2-1)."""
    plain = re.sub(r"[^\x20-\x5b\x5d-\x7e]", "_", name)[:16].strip()
    return plain if is_ae_title(plain) else "STOW-RS"


class Upload:
    """One payload, taken as it comes."""

    def __init__(self, boundary: str, bring: Callable[[], Bringing]) -> None:
        """Begin; bring: opens the door for one file.

        Raises
        ------
        Malformed: the boundary is none.
        """
        self._reader = Reader(boundary)
        self._bring = bring
        self._present: Bringing | None = None
        self._is_other = False  # whether the present part is no DICOM file
        self.stored = Stored()

    def feed(self, data: bytes) -> None:
        """Take the next bytes; once they are no multipart any more, they go nowhere."""
        if self.stored.problem:
            return
        try:
            for event in self._reader.feed(data):
                if isinstance(event, Begun):
                    self._begin(event)
                elif isinstance(event, Ended):
                    self._end()
                elif self._present is not None:
                    self._present.write(event)
        except Malformed as error:
            self._break_off(str(error))

    def finish(self) -> None:
        """Say that all has come."""
        try:
            if not self.stored.problem:
                self._reader.finish()
        except Malformed as error:
            self._break_off(str(error))

    def drop(self) -> None:
        """Forget what has not come whole."""
        present, self._present = self._present, None
        if present is not None:
            present.drop()

    def _begin(self, part: Begun) -> None:
        kind, _ = content_type(part.headers.get("content-type", _DICOM))
        self._is_other = kind != _DICOM
        self._present = None if self._is_other else self._bring()

    def _end(self) -> None:
        present, self._present = self._present, None
        if present is not None:
            self.stored.outcomes.append(present.close())
        elif self._is_other:
            self.stored.others += 1

    def _break_off(self, problem: str) -> None:
        self.drop()
        self.stored.problem = problem


class _Storing:
    """Answers the requests of one node."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._node = context.site.config.node
        self._under_way = 0

    async def store(self, request: Request) -> Response:
        """Store what a payload brings (PS3.18 10.5)."""
        study = request.path_params.get("study", "")
        upload = self._begun(request, study)
        if self._under_way >= self._node.max_associations:
            return Response(status_code=503, headers={"Retry-After": str(_RETRY_AFTER_S)})
        self._under_way += 1
        try:
            await self._take(request, upload)
        except ClientDisconnect:
            self._tell(request, upload.stored, "broken off")
            return Response(status_code=400)  # nobody hears it
        finally:
            self._under_way -= 1
            await asyncio.shield(STORING.run(upload.drop))
        self._tell(request, upload.stored, "whole")
        return _response(request, answer(upload.stored, service_url(request)))

    def _begun(self, request: Request, study: str) -> Upload:
        """Begin an upload, or say why not."""
        kind, said = content_type(request.headers.get("content-type", ""))
        if kind != "multipart/related" or said.get("type", _DICOM).lower() != _DICOM:
            raise HTTPException(415, 'what is stored comes as multipart/related; type="application/dicom"')
        if request.headers.get("content-encoding", "identity") != "identity":
            raise HTTPException(415, "a payload has to come without a content coding")
        if "study" in request.path_params and not _UID.fullmatch(study):
            raise HTTPException(400, "the path has something that is no UID")
        title = title_of(person(request).name)
        try:
            return Upload(said.get("boundary", ""), lambda: self._context.bring(title, study))
        except Malformed as error:
            raise HTTPException(400, str(error)) from error

    async def _take(self, request: Request, upload: Upload) -> None:
        """Take the payload, some at a time: the loop goes on while the disk works."""
        gathered, size = [], 0
        async for chunk in _patiently(request, self._node.network_timeout_s):
            gathered.append(chunk)
            size += len(chunk)
            if size >= _PIECE_BYTES:
                await STORING.run(upload.feed, b"".join(gathered))
                gathered, size = [], 0
        await STORING.run(upload.feed, b"".join(gathered))
        await STORING.run(upload.finish)

    def _tell(self, request: Request, stored: Stored, ended: str) -> None:
        kept = sum(not one.status for one in stored.outcomes)
        refused = len(stored.outcomes) - kept + stored.others
        title = title_of(person(request).name)
        _log.info("receive.upload", ended=ended, calling_ae=title, stored=kept, refused=refused, problem=stored.problem)


async def _patiently(request: Request, timeout_s: float) -> AsyncIterator[bytes]:
    """Give a payload as it comes, and give it up when nothing has come for so long.

    Raises
    ------
    ClientDisconnect: its sender has gone, or has fallen silent.
    """
    stream = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout(timeout_s):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise ClientDisconnect from error
        yield chunk


def _response(request: Request, said: Answer) -> Response:
    kind = negotiate(*accepted(request), (_JSON, _PLAIN_JSON, _XML)) or _JSON
    headers = {"Retry-After": str(_RETRY_AFTER_S)} if said.status == 503 else {}
    content: Any = model.xml_of(said.attributes) if kind is _XML else model.json_object(said.attributes)
    return Response(content, status_code=said.status, media_type=kind.name, headers=headers)
