"""Rendered resources: what a browser shows of studies, series, instances and frames, and thumbnails of them (PS3.18 10.4.1.1.3 and 10.4.1.1.5).

Of a series, a study or an image with many frames a plain media type gets the one picture that stands for it, multipart/related all of them, and
image/gif of many frames the frames as one that moves. A report or a key object is text.
"""

import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from PIL import Image
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from dicom_node.domain import Unsuitable, is_uid
from dicom_node.store import Archive, Stored
from dicom_node.web.access import Role, allow
from dicom_node.web.aside import DRAWING
from dicom_node.web.context import Context
from dicom_node.web.dicomweb.accept import MediaType, negotiate
from dicom_node.web.dicomweb.bulkdata import Ranges, find
from dicom_node.web.dicomweb.elements import Elements, Unreadable
from dicom_node.web.dicomweb.objects import Lost, readable
from dicom_node.web.dicomweb.parts import Part, answer
from dicom_node.web.dicomweb.urls import PREFIX, accepted, service_url
from dicom_node.web.rendering.asked import Asked, asked, frames
from dicom_node.web.rendering.coded import GIF, JPEG, PNG, coded, moving
from dicom_node.web.rendering.document import as_html, as_text, is_document
from dicom_node.web.rendering.draw import drawn, tile
from dicom_node.web.rendering.kinds import REPORT, SEGMENTS, has_pixels, kind_of
from dicom_node.web.rendering.source import Source, opened

_ONE = tuple(MediaType(name=name) for name in (JPEG, PNG, GIF))
_MANY = tuple(MediaType(name=name, multipart=True) for name in (JPEG, PNG))
_TEXTS = MediaType(name="text/html"), MediaType(name="text/plain")
_PDF = MediaType(name="application/pdf")
_DOCUMENT, _DOCUMENT_LENGTH, _LENGTH_BYTES = 0x00420011, 0x00420015, 4
_ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.1"
_MOVING_PIXELS, _READ_PIXELS = 2**26, 2**28  # of a GIF, over all frames: as it is made, and as they are read
_THUMBNAIL = 128  # pixels along its longer side
_FRAME_MS, _FASTEST_MS, _SLOWEST_MS = 100.0, 20.0, 10_000.0
_KEPT_S = 300
_SECURE = {"Cache-Control": f"private, max-age={_KEPT_S}", "X-Content-Type-Options": "nosniff"}
_HTML = {**_SECURE, "Content-Security-Policy": "default-src 'none'"}


class _Answer(Exception):
    """Raised to answer with something else than what was asked for."""

    def __init__(self, status: int, error: str, hint: str = "") -> None:
        super().__init__(error)
        self.response = JSONResponse({"error": error, "hint": hint}, status_code=status)


def routes(context: Context) -> list[BaseRoute]:
    """Return the rendered resources and the thumbnails of every level."""
    study = f"{PREFIX}/studies/{{study}}"
    series = f"{study}/series/{{series}}"
    instance = f"{series}/instances/{{instance}}"
    resource = _Rendered(context)
    found: list[BaseRoute] = []
    for place in (study, series, instance, f"{instance}/frames/{{frames}}"):
        for name, endpoint in (("rendered", resource.rendered), ("thumbnail", resource.thumbnail)):
            guarded = allow(Role.VIEWER, DRAWING.answers(_answered(endpoint)), "dicomweb.read")
            found.append(Route(f"{place}/{name}", guarded, methods=["GET"]))
    return found


def _answered(endpoint: Callable[[Request], Response]) -> Callable[[Request], Response]:
    def answered(request: Request) -> Response:
        try:
            return endpoint(request)
        except _Answer as other:
            return other.response
        except Unreadable:
            return JSONResponse({"error": "an object cannot be taken apart", "hint": "Retrieve the object itself."}, status_code=406)
        except ValueError as error:  # of a query or a path: its text is ours
            return JSONResponse({"error": str(error), "hint": "PS3.18 8.3.5"}, status_code=400)
        except Unsuitable as error:
            return JSONResponse({"error": str(error), "hint": error.hint}, status_code=406)
        except (FileNotFoundError, Lost):
            return JSONResponse({"error": "it is not here any more", "hint": ""}, status_code=404)

    return answered


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """What a path means: objects, and of one object the frames that were named."""

    objects: Sequence[Stored]
    frames: Sequence[int] | None  # from 1
    is_instance: bool


class _Rendered:
    def __init__(self, context: Context) -> None:
        self._context = context

    def rendered(self, request: Request) -> Response:
        """Answer with what was asked for, in the best form that the client accepts."""
        target, how = self._target(request), asked(request.query_params)
        if target.is_instance:
            return self._instance(request, target, how)
        images = [one for one in target.objects if has_pixels(one.sop_class_uid)]
        documents = [one for one in target.objects if kind_of(one.sop_class_uid) == REPORT]
        chosen = _chosen(request, ((*_ONE, *_MANY) if images else ()) + (_TEXTS if documents else ()))
        if chosen.multipart:
            return self._all(request, [(one, None) for one in images], chosen, how)
        if chosen in _TEXTS:
            return _text(self._open(documents[0]), chosen)
        source = self._open(representative(images))
        return _picture(source, [representative_frame(source)], chosen, how)

    def thumbnail(self, request: Request) -> Response:
        """Answer with a small picture of what stands for the rest; of what is no image, with its kind."""
        target, how = self._target(request), asked(request.query_params, side=_THUMBNAIL)
        chosen = _chosen(request, _ONE[:2])
        modality = ""
        try:
            source = self._open(representative(target.objects))
            modality = str(source.header.get("Modality") or "")
            picture = drawn(source, (target.frames or [representative_frame(source)])[0] - 1, how.options)
        except Unsuitable:
            picture = tile(modality)
        return Response(coded(picture, chosen.name, quality=how.quality), media_type=chosen.name, headers=_SECURE)

    # ----------------------------------------------------------------------------------------------------------- one object

    def _instance(self, request: Request, target: _Target, how: Asked) -> Response:
        source = self._open(target.objects[0])
        if is_document(source.header):
            return _text(source, _chosen(request, _TEXTS))
        if source.header.get("SOPClassUID") == _ENCAPSULATED_PDF:
            _chosen(request, (_PDF,))
            return _pdf(target.objects[0], self._context.store.archive)
        if not source.is_image:
            raise _Answer(406, "nothing of this object can be shown", "Retrieve it as application/dicom.")
        wanted = target.frames or range(1, source.frames + 1)
        named = len(target.frames or ()) > 1
        chosen = _chosen(request, (*_MANY, MediaType(name=GIF)) if named else (*_ONE, *_MANY))
        if chosen.multipart:
            return self._all(request, [(target.objects[0], wanted)], chosen, how)
        one = len(wanted) == 1 or chosen.name == GIF
        return _picture(source, wanted if one else [representative_frame(source)], chosen, how)

    # ------------------------------------------------------------------------------------------------------------- several

    def _all(self, request: Request, wanted: Sequence[tuple[Stored, Sequence[int] | None]], chosen: MediaType, how: Asked) -> Response:
        boundary = secrets.token_hex(16)
        parts = self._parts(service_url(request), wanted, chosen, how, boundary)
        said = f'multipart/related; type="{chosen.name}"; boundary={boundary}'
        return StreamingResponse(_drawn_aside(parts), media_type=said, headers=_SECURE)

    def _parts(
        self, url: str, wanted: Sequence[tuple[Stored, Sequence[int] | None]], chosen: MediaType, how: Asked, boundary: str
    ) -> Iterator[bytes]:
        """Give part after part; a picture that cannot be made is left out."""
        for one, numbers in wanted:
            try:
                source = self._open(one)
            except (Unsuitable, FileNotFoundError):
                continue
            place = f"{url}/studies/{one.study_instance_uid}/series/{one.series_instance_uid}/instances/{one.sop_instance_uid}"
            for number in numbers or range(1, source.frames + 1):
                try:
                    data = coded(drawn(source, number - 1, how.options), chosen.name, quality=how.quality)
                except (Unsuitable, FileNotFoundError):
                    continue
                head = f"--{boundary}\r\nContent-Type: {chosen.name}\r\nContent-Location: {place}/frames/{number}/rendered\r\n\r\n"
                yield head.encode() + data + b"\r\n"
        yield f"--{boundary}--\r\n".encode()

    # --------------------------------------------------------------------------------------------------------------- what

    def _target(self, request: Request) -> _Target:
        """Find what a path means.

        Raises
        ------
        _Answer: there is no such thing.
        ValueError: the path is none of ours.
        """
        named = {key: request.path_params.get(key) for key in ("study", "series", "instance")}
        if not all(is_uid(uid) for uid in named.values() if uid is not None):
            raise ValueError("a UID in the path is none")
        numbers = frames(request.path_params["frames"]) if "frames" in request.path_params else None
        objects = held(self._context, **{key: uid for key, uid in named.items() if uid is not None})
        if not objects:
            raise _Answer(404, "the node does not hold it")
        if numbers and max(numbers) > (held_frames := self._open(objects[0]).frames):
            raise _Answer(404, f"there are {held_frames} frames")
        return _Target(objects=objects, frames=numbers, is_instance=named["instance"] is not None)

    def _open(self, one: Stored) -> Source:
        return opened(self._context.store.archive.path(one.path))


def held(context: Context, study: str, series: str = "", instance: str = "") -> tuple[Stored, ...]:
    """Return the objects of a study, a series of it, or one of that."""
    keys = {"StudyInstanceUID": study, "SeriesInstanceUID": series, "SOPInstanceUID": instance}
    level = "IMAGE" if instance else "SERIES" if series else "STUDY"
    return context.store.holdings.files(level, {key: uid for key, uid in keys.items() if uid})


def representative(objects: Sequence[Stored]) -> Stored:
    """Return the object that stands for some: the middle one of the largest series of images; segmentations and what has no pixels come after."""
    ranks = {one: (not has_pixels(one.sop_class_uid), kind_of(one.sop_class_uid) == SEGMENTS) for one in objects}
    best = [one for one in objects if ranks[one] == min(ranks.values())]
    largest, _ = Counter(one.series_instance_uid for one in best).most_common(1)[0]
    series = [one for one in best if one.series_instance_uid == largest]
    return series[len(series) // 2]


def representative_frame(source: Source) -> int:
    """Return the number of the frame that stands for all (Representative Frame Number, else the middle one), from 1."""
    said = source.header.get("RepresentativeFrameNumber")
    return said if isinstance(said, int) and 1 <= said <= source.frames else source.frames // 2 + 1


async def _drawn_aside(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (part := await DRAWING.run(next, parts, None)) is not None:
        yield part


def _chosen(request: Request, offers: Sequence[MediaType]) -> MediaType:
    found = negotiate(*accepted(request), offers) if offers else None
    if found is None:
        names = ", ".join(dict.fromkeys(one.name for one in offers)) or "nothing"
        raise _Answer(406, "it is not available in a form that the client accepts", f"It is available as {names}.")
    return found


def _picture(source: Source, numbers: Sequence[int], chosen: MediaType, how: Asked) -> Response:
    if chosen.name == GIF and len(numbers) > 1:
        data = _moving(source, numbers, how)
    else:
        data = coded(drawn(source, numbers[0] - 1, how.options), chosen.name, quality=how.quality)
    return Response(data, media_type=chosen.name, headers=_SECURE)


def _moving(source: Source, numbers: Sequence[int], how: Asked) -> bytes:
    view = how.options.viewport
    pixels = view.width * view.height if view else source.rows * source.columns
    if pixels * len(numbers) > _MOVING_PIXELS or source.rows * source.columns * len(numbers) > _READ_PIXELS:
        raise _Answer(413, "that many frames make too large a GIF", "Ask for some frames, or for a smaller viewport.")
    pictures: Iterator[Image.Image] = (drawn(source, number - 1, how.options) for number in numbers)
    return moving(pictures, _frame_ms(source))


def _frame_ms(source: Source) -> float:
    time: Any = source.header.get("FrameTime")
    rate: Any = source.header.get("RecommendedDisplayFrameRate") or source.header.get("CineRate")
    try:
        found = float(time) if time else 1000 / float(rate) if rate else _FRAME_MS
    except (ArithmeticError, TypeError, ValueError):
        found = _FRAME_MS
    return min(max(found, _FASTEST_MS), _SLOWEST_MS)


def _text(source: Source, chosen: MediaType) -> Response:
    if not is_document(source.header):
        raise Unsuitable("a report cannot be understood", hint="Retrieve the object itself.")
    if chosen.name == "text/plain":
        return Response(as_text(source.header), media_type="text/plain; charset=utf-8", headers=_SECURE)
    return Response(as_html(source.header), media_type="text/html; charset=utf-8", headers=_HTML)


def _pdf(one: Stored, archive: Archive) -> Response:
    """Answer with an encapsulated document (PS3.3 C.24.2), without the byte that makes its value even."""
    with ExitStack() as held:
        file = held.enter_context(readable(one, archive))
        elements = Elements(file)
        place, length = (find(elements, ((0, tag),)) for tag in (_DOCUMENT, _DOCUMENT_LENGTH))
        if place is None or sum(place) > elements.size:
            raise Unsuitable("a document is not in its object", hint="Retrieve the object itself.")
        said = int.from_bytes(elements.value(*length), "little") if length is not None and length[1] == _LENGTH_BYTES else place[1]
        body = Ranges(file=file, ranges=((place[0], min(said, place[1]) or place[1]),))
        return answer([Part(content_type=_PDF.name, body=body)], _PDF, held=held.pop_all(), headers=_SECURE)
