"""WADO-RS (PS3.18 10.4): studies, series and instances as files, what they say as metadata, and their frames and large values by themselves."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dicom_node.domain import Unsuitable
from dicom_node.store import Level, Store, Stored
from dicom_node.web.access import Role, allow
from dicom_node.web.aside import RETRIEVING
from dicom_node.web.context import Context
from dicom_node.web.dicomweb import bulkdata, frames
from dicom_node.web.dicomweb.accept import Choice, MediaType, choices
from dicom_node.web.dicomweb.elements import PIXEL_DATA, UNDEFINED, Elements, Unreadable
from dicom_node.web.dicomweb.frames import Layout
from dicom_node.web.dicomweb.metadata import told
from dicom_node.web.dicomweb.native import native_xml_of
from dicom_node.web.dicomweb.objects import Lost, Whole, readable, syntax_for
from dicom_node.web.dicomweb.parts import Bytes, Part, Streamed, answer
from dicom_node.web.dicomweb.urls import PREFIX, accepted, instance_url, service_url
from dicom_node.wire import Malformed, StoredFile

_STUDY = f"{PREFIX}/studies/{{study}}"
_SERIES = f"{_STUDY}/series/{{series}}"
_INSTANCE = f"{_SERIES}/instances/{{instance}}"
_UID = re.compile(r"[0-9.]{1,64}")  # of those that came, some have zeros where there should be none

_DICOM, _ONE_DICOM = MediaType(name="application/dicom", multipart=True), MediaType(name="application/dicom")
_XML = MediaType(name="application/dicom+xml", multipart=True)
_METADATA = (MediaType(name="application/dicom+json"), MediaType(name="application/json"), _XML)
_VALUE = (MediaType(name=frames.OCTETS), MediaType(name=frames.OCTETS, multipart=True))
_LAYOUTS: dict[tuple[str, str], Layout] = {}  # of images whose frames were asked for lately: each is asked for by itself
_LAYOUTS_AT_MOST, _FRAGMENTS_AT_MOST = 256, 1 << 20  # of all of them together, some 50 MB


def routes(context: Context) -> list[BaseRoute]:
    """Return the resources of the Retrieve transaction."""
    store = context.store
    return [
        *(_route(place, store, objects) for place in (_STUDY, _SERIES, _INSTANCE)),
        *(_route(f"{place}/metadata", store, metadata) for place in (_STUDY, _SERIES, _INSTANCE)),
        _route(f"{_INSTANCE}/frames/{{frames}}", store, some_frames),
        _route(f"{_INSTANCE}/bulkdata/{{path:path}}", store, value),
        _route(f"{_INSTANCE}/pixeldata", store, value),
    ]


def _route(path: str, store: Store, endpoint: Callable[[Request, Store], Response]) -> Route:
    def answered(request: Request) -> Response:
        try:
            return endpoint(request, store)
        except (Lost, Malformed) as error:
            raise HTTPException(410, "An object is not there any more.") from error
        except Unsuitable as error:
            raise HTTPException(406, f"An object cannot be had so: {error}") from error
        except Unreadable as error:
            raise HTTPException(406, f"An object cannot be taken apart: {error}") from error

    return Route(path, allow(Role.VIEWER, RETRIEVING.answers(answered), "dicomweb.read"), methods=["GET"])


# ---------------------------------------------------------------------------------------------------------------- objects


def objects(request: Request, store: Store) -> Response:
    """Answer with the DICOM files of a study, a series or an instance (PS3.18 10.4.1.1.1 to 10.4.1.1.3)."""
    found = _meant(request, store)
    offered = (_DICOM, _ONE_DICOM) if "instance" in request.path_params else (_DICOM,)
    wanted = _acceptable(request, offered)
    service, sent, parts = service_url(request), wanted[0].media_type, []
    for one in found:
        choice = next(((each, syntax) for each in wanted if (syntax := syntax_for(one.transfer_syntax_uid, each.transfer_syntax_uid))), None)
        if choice is not None:
            sent, syntax = choice[0].media_type, choice[1]
            content_type = f"application/dicom; transfer-syntax={syntax}"
            parts.append(Part(content_type=content_type, location=_url(service, one), body=Whole(stored=one, archive=store.archive, syntax=syntax)))
    if not parts:
        raise HTTPException(406, "Nothing of it can be had in a transfer syntax that is accepted.")
    return answer(parts, sent, status=200 if len(parts) == len(found) else 206)


def _meant(request: Request, store: Store) -> tuple[Stored, ...]:
    """Return what a path means, that the node holds."""
    uids = {name: request.path_params[name] for name in ("study", "series", "instance") if name in request.path_params}
    if not all(_UID.fullmatch(uid) for uid in uids.values()):
        raise HTTPException(400, "What should be a UID is none.")
    keys = dict(zip(("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"), uids.values(), strict=False))
    found = store.holdings.files((Level.STUDY, Level.SERIES, Level.IMAGE)[len(keys) - 1], keys)
    if not found:
        raise HTTPException(404, "The node does not hold it.")
    return found


def _acceptable(request: Request, offered: Sequence[MediaType]) -> tuple[Choice, ...]:
    wanted = choices(*accepted(request), offered)
    if not wanted:
        there = ", ".join(f'multipart/related; type="{one.name}"' if one.multipart else one.name for one in offered)
        raise HTTPException(406, f"There is {there}.")
    return wanted


def _url(service: str, one: Stored) -> str:
    return instance_url(service, one.study_instance_uid, one.series_instance_uid, one.sop_instance_uid)


# --------------------------------------------------------------------------------------------------------------- metadata


def metadata(request: Request, store: Store) -> Response:
    """Answer with what each instance says, in JSON or XML (PS3.18 10.4.1.1.4)."""
    found = _meant(request, store)
    chosen, service = _acceptable(request, _METADATA)[0].media_type, service_url(request)
    models = (_model(one, store, _url(service, one)) for one in found)
    if chosen == _XML:
        return answer((Part(content_type=_XML.name, body=Bytes(data=native_xml_of(model))) for model in models), _XML)
    return Streamed(_array(models), content_type=chosen.name, size=None)


def _model(one: Stored, store: Store, url: str) -> bytes:
    with readable(one, store.archive) as file:
        return told(Elements(file), url).encode("utf-8", "replace")


def _array(models: Iterator[bytes]) -> Iterator[bytes]:
    begin = b"["
    for model in models:
        yield begin + model
        begin = b","
    yield b"]"


# ----------------------------------------------------------------------------------------------------------------- frames


def some_frames(request: Request, store: Store) -> Response:
    """Answer with frames of an image (PS3.18 10.4.1.1.5)."""
    try:
        numbers = frames.listed(request.path_params["frames"])
        if 0 in numbers:
            raise ValueError("frames are counted from 1")
    except ValueError as error:
        raise HTTPException(400, f"{error}.") from error
    (one, *_) = _meant(request, store)
    wanted = _acceptable(request, frames.offers(one.transfer_syntax_uid))
    with ExitStack() as held:
        file = held.enter_context(readable(one, store.archive))
        found = _layout(one, store, file)
        if found is None or max(numbers) > found.number:
            raise HTTPException(404, f"It has {found.number if found else 'no'} frames.")
        return _frames(one, file, found, numbers, wanted, f"{_url(service_url(request), one)}/frames", held)


def _frames(one: Stored, file: StoredFile, found: Layout, numbers: Sequence[int], wanted: Sequence[Choice], url: str, held: ExitStack) -> Response:
    """Answer with frames as the best choice has them; alone only one can be had."""
    syntax = one.transfer_syntax_uid
    may = ((each, how) for each in wanted if each.media_type.multipart or len(numbers) == 1 if (how := frames.representation(syntax, each)))
    chosen = next(may, None)
    if chosen is None:
        raise HTTPException(406, "The frames cannot be had in a media type and a transfer syntax that are accepted.")
    choice, how = chosen
    try:
        stored = [frames.Frame(file=file, found=found, number=number) for number in numbers]
        for number in numbers:
            found.ranges(number)
    except LookupError as error:
        raise HTTPException(404, "Its pixels are cut short.") from error
    places = [f"{url}/{number}" for number in numbers]
    if how.decoded:
        bodies = frames.decoded(file, found, syntax, numbers)
        made = (Part(content_type=how.content_type, body=body, location=place) for body, place in zip(bodies, places, strict=True))
        return answer(made, choice.media_type, held=held.pop_all())
    parts = [Part(content_type=how.content_type, body=body, location=place) for body, place in zip(stored, places, strict=True)]
    return answer(parts, choice.media_type, held=held.pop_all())


def _layout(one: Stored, store: Store, file: StoredFile) -> Layout | None:
    """Return where an image's frames are, from memory where it was met before."""
    key = str(store.archive.root), one.path
    known = _LAYOUTS.get(key)  # another thread may clear them at any moment
    if known is not None:
        return known
    found = frames.layout(Elements(file), one.transfer_syntax_uid)
    if found is not None:
        fragments = sum(len(one.begins) for one in [*_LAYOUTS.values(), found])
        if len(_LAYOUTS) >= _LAYOUTS_AT_MOST or fragments > _FRAGMENTS_AT_MOST:
            _LAYOUTS.clear()
        _LAYOUTS[key] = found
    return found


# ------------------------------------------------------------------------------------------------------------- large values


def value(request: Request, store: Store) -> Response:
    """Answer with a value by itself (PS3.18 10.4.1.1.6): whole, or the bytes that are asked for; coded pixels frame by frame, a video whole."""
    try:
        path = bulkdata.path_of(request.path_params.get("path", f"{PIXEL_DATA:08X}"))
    except ValueError as error:
        raise HTTPException(400, f"{error}.") from error
    (one, *_) = _meant(request, store)
    with ExitStack() as held:
        file = held.enter_context(readable(one, store.archive))
        place = bulkdata.find(Elements(file), path)
        if place is None or place[0] + (0 if place[1] == UNDEFINED else place[1]) > file.size:
            raise HTTPException(404, "It has no such value.")
        if place[1] != UNDEFINED:
            wanted = _acceptable(request, _VALUE)
            return _range(request, (place,), file, wanted[0].media_type, frames.OCTETS, held)
        found = _layout(one, store, file) if path[-1][1] == PIXEL_DATA and len(path) == 1 else None
        if found is None:
            raise HTTPException(404, "It is no value of bytes.")
        return _coded(request, one, file, found, held)


def _coded(request: Request, one: Stored, file: StoredFile, found: Layout, held: ExitStack) -> Response:
    offered = frames.offers(one.transfer_syntax_uid)
    wanted, url = _acceptable(request, offered), f"{_url(service_url(request), one)}/frames"
    alone = next((each.media_type for each in wanted if found.number == 1 and not each.media_type.multipart), None)
    if alone is not None and alone == wanted[0].media_type and alone.name != frames.OCTETS:
        content_type = f"{alone.name}; transfer-syntax={one.transfer_syntax_uid}"
        return _range(request, tuple(found.ranges(1)), file, alone, content_type, held)
    return _frames(one, file, found, range(1, found.number + 1), wanted, url, held)


def _range(
    request: Request, ranges: tuple[tuple[int, int], ...], file: StoredFile, media_type: MediaType, content_type: str, held: ExitStack
) -> Response:
    whole = bulkdata.Ranges(file=file, ranges=ranges)
    if media_type.multipart:
        return answer([Part(content_type=content_type, body=whole, location=str(request.url))], media_type, held=held.pop_all())
    try:
        part = bulkdata.range_of(request.headers.get("range"), whole.whole)
    except LookupError as error:
        raise HTTPException(416, "There are no such bytes.", {"Content-Range": f"bytes */{whole.whole}"}) from error
    if part is None:
        return answer([Part(content_type=content_type, body=whole)], media_type, held=held.pop_all(), headers={"Accept-Ranges": "bytes"})
    body = bulkdata.Ranges(file=file, ranges=ranges, first=part[0], last=part[1])
    said = {"Accept-Ranges": "bytes", "Content-Range": f"bytes {part[0]}-{part[1]}/{whole.whole}"}
    return answer([Part(content_type=content_type, body=body)], media_type, status=206, held=held.pop_all(), headers=said)
