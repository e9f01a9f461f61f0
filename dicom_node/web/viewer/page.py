"""The viewer's page, the values that its script takes, and its pictures."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from dicom_node.domain import Unsuitable, is_uid
from dicom_node.store import Stored
from dicom_node.web.access import Role, allow
from dicom_node.web.aside import DRAWING
from dicom_node.web.context import Context
from dicom_node.web.dress import address
from dicom_node.web.ohif import is_here
from dicom_node.web.pages.showing import person_name
from dicom_node.web.rendering.asked import window
from dicom_node.web.rendering.coded import JPEG, PNG, coded
from dicom_node.web.rendering.draw import Options, Viewport, drawn, tile
from dicom_node.web.rendering.kinds import kind_of
from dicom_node.web.rendering.place import plane
from dicom_node.web.rendering.segments import Under, overlay, segmentation
from dicom_node.web.rendering.source import Source, opened
from dicom_node.web.viewer.scene import BANNER, MOST_LAYERS, PRESETS, Scene, scene
from dicom_node.web.viewer.stack import Listed, Stack, edges, listed, stack, version_of

_HERE = Path(__file__).parents[1]
_POLICY = "default-src 'none'; img-src 'self'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'self'"
_KEPT = {"Cache-Control": "private, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
_ASKED_FOR_ANEW = {"Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}
_NEVER_KEPT = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_THUMBNAIL = Viewport(width=96, height=96)
_SHOWN = re.compile(r"[0-9]{1,4}\.[0-9]{1,5}")
_MOST_SHOWN = 2048


class _NotHere(Exception):
    """Raised when there is no such study, series or object."""


class Viewer:
    """Answers what is below /view."""

    def __init__(self, context: Context) -> None:
        self._context = context
        templates = FileSystemLoader(_HERE / "templates")
        self._templates = Environment(loader=templates, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        self._templates.globals["static"] = address

    def routes(self) -> list[BaseRoute]:
        """Return the page and what belongs to it."""

        def seen(path: str, endpoint: Callable[[Request], Response]) -> Route:
            return Route(path, allow(Role.VIEWER, DRAWING.answers(_answered(endpoint))), methods=["GET"])

        return [
            seen("/view/{study}", self.page),
            seen("/view/{study}/scene", self.values),
            seen("/view/{study}/thumbnail/{instance}", self.thumbnail),
            seen("/view/{study}/image/{instance}/{frame:number}", self.image),
            seen("/view/{study}/overlay/{seg}/{instance}/{frame:number}/{segments}", self.overlay),
        ]

    # ------------------------------------------------------------------------------------------------------------ the page

    def page(self, request: Request) -> Response:
        """Answer with one slice of one series, and links to all others."""
        study = _uid(request, "study")
        objects = self._held(study)
        series = listed(self._context, study, objects)
        chosen = self._chosen(request, series, objects)
        what = self._scene(study, chosen, series, objects) if chosen else None
        values = {
            "study": study,
            "series": series,
            "chosen": chosen,
            "scene": what,
            "banner": BANNER,
            "ohif": is_here(self._context),
            "thumbnails": _thumbnails(objects),
        }
        who = next(self._context.store.holdings.find("STUDY", {"StudyInstanceUID": study}), {})
        named = {"patient": person_name(who.get("PatientName")), "patient_id": str(who.get("PatientID") or "")}
        text = self._templates.get_template("viewer.html").render(values | named | _state(request, what))
        return HTMLResponse(text, headers={**_NEVER_KEPT, "Content-Security-Policy": _POLICY})

    def values(self, request: Request) -> Response:
        """Answer with what the script needs to show any slice."""
        study = _uid(request, "study")
        objects = self._held(study)
        series = listed(self._context, study, objects)
        chosen = self._chosen(request, series, objects)
        what = self._scene(study, chosen, series, objects) if chosen else None
        if what is None:
            raise _NotHere
        return JSONResponse(_values(study, what), headers=_NEVER_KEPT)

    def _chosen(self, request: Request, series: Sequence[Listed], objects: Sequence[Stored]) -> Listed | None:
        """Return the series that was asked for; else the one that most segmentations lie on, else the largest."""
        images = [one for one in series if one.kind == "images"]
        wanted = request.query_params.get("series")
        if wanted:
            found = next((one for one in images if one.series_instance_uid == wanted), None)
            if found is None:
                raise _NotHere
            return found
        named: Counter[str] = Counter()
        for one in [one for one in objects if kind_of(one.sop_class_uid) == "segments"][-MOST_LAYERS:]:
            try:
                named.update(segmentation(self._path(one)).series)
            except Unsuitable:
                continue  # it is listed, and is not laid over anything
        return max(images, key=lambda one: (named[one.series_instance_uid], one.objects, -one.number), default=None)

    def _scene(self, study: str, chosen: Listed, series: Sequence[Listed], objects: Sequence[Stored]) -> Scene | None:
        shown: Stack = stack(self._context, study, chosen, objects)
        return scene(self._context, objects, series, shown) if shown.slices else None

    # ------------------------------------------------------------------------------------------------------------ pictures

    def image(self, request: Request) -> Response:
        """Answer with a slice, 8 bits, through the window that was asked for: `center,width`, `auto`, or as its header says."""
        one, said = self._one(request, "instance"), request.query_params.get("window", "")
        options = Options(automatic=True) if said == "auto" else Options(window=window(said)) if said else Options()
        source = self._opened(one, request.path_params["frame"])
        return _picture(request, one, drawn(source, request.path_params["frame"] - 1, options))

    def thumbnail(self, request: Request) -> Response:
        """Answer with a small picture of an object, or with its kind."""
        one = self._one(request, "instance")
        modality = ""
        try:
            source = opened(self._path(one))
            modality = str(source.header.get("Modality") or "")
            picture = drawn(source, source.frames // 2, Options(viewport=_THUMBNAIL))
        except Unsuitable:
            picture = tile(modality, _THUMBNAIL.width)
        return _picture(request, one, picture, JPEG)

    def overlay(self, request: Request) -> Response:
        """Answer with segments on the pixels of a slice, and nothing where there are none."""
        seg, one, frame = self._one(request, "seg"), self._one(request, "instance"), request.path_params["frame"]
        numbers = request.path_params["segments"].removesuffix(".png").split(",")
        if not all(text.isascii() and text.isdigit() and len(text) < 6 for text in numbers):
            raise ValueError("segments are numbers with commas between them")
        if kind_of(seg.sop_class_uid) != "segments":
            raise _NotHere
        source = self._opened(one, frame)
        under = Under(
            sop_instance_uid=one.sop_instance_uid,
            frame=frame,
            rows=source.rows,
            columns=source.columns,
            plane=plane(source.header, frame - 1),
            frame_of_reference_uid=str(source.header.get("FrameOfReferenceUID") or ""),
        )
        pixels = overlay(segmentation(self._path(seg)), under, {*map(int, numbers)}, outline=request.query_params.get("edge") == "1")
        return _picture(request, seg, Image.fromarray(pixels))

    def _opened(self, one: Stored, frame: int) -> Source:
        source = opened(self._path(one))
        if not 1 <= frame <= source.frames:
            raise _NotHere
        return source

    def _one(self, request: Request, name: str) -> Stored:
        found = self._held(_uid(request, "study"), SOPInstanceUID=_uid(request, name))
        return found[0]

    def _held(self, study: str, **keys: str) -> tuple[Stored, ...]:
        found = self._context.store.holdings.files("IMAGE" if keys else "STUDY", {"StudyInstanceUID": study, **keys})
        if not found:
            raise _NotHere
        return found

    def _path(self, one: Stored) -> Path:
        return self._context.store.archive.path(one.path)


def _answered(endpoint: Callable[[Request], Response]) -> Callable[[Request], Response]:
    def answer(request: Request) -> Response:
        try:
            return endpoint(request)
        except (_NotHere, FileNotFoundError):
            return Response("The node does not hold it.", status_code=404, media_type="text/plain", headers=_NEVER_KEPT)
        except ValueError as error:  # of a query or a path: its text is ours
            return Response(str(error), status_code=400, media_type="text/plain", headers=_NEVER_KEPT)
        except Unsuitable as error:
            return Response(f"{error}. {error.hint}", status_code=406, media_type="text/plain", headers=_NEVER_KEPT)

    return answer


def _uid(request: Request, name: str) -> str:
    found: str = request.path_params[name]
    if not is_uid(found):
        raise ValueError("a UID in the path is none")
    return found


def _picture(request: Request, one: Stored, picture: Image.Image, kind: str = PNG) -> Response:
    """Answer with a picture, which is kept for ever where its address names the content that it was made from."""
    same = request.query_params.get("v") == version_of(one)
    return Response(coded(picture, kind), media_type=kind, headers=_KEPT if same else _ASKED_FOR_ANEW)


def _thumbnails(objects: Sequence[Stored]) -> dict[str, tuple[str, str]]:
    """Return of each series the object in the middle, and its version."""
    of: dict[str, list[Stored]] = {}
    for one in objects:
        of.setdefault(one.series_instance_uid, []).append(one)
    return {uid: (some[len(some) // 2].sop_instance_uid, version_of(some[len(some) // 2])) for uid, some in of.items()}


# --------------------------------------------------------------------------------------------------------------- values


def _values(study: str, what: Scene) -> dict[str, Any]:
    """Return a scene as JSON has it."""
    shown = what.stack
    return {
        "base": f"/view/{study}",
        "series": shown.series_instance_uid,
        "slices": [[one.sop_instance_uid, one.frame, one.version, one.number] for one in shown.slices],
        "sizes": [[one.columns, one.rows, one.aspect] for one in shown.slices],
        "edges": [edges(one.plane) for one in shown.slices],
        "window": what.window,
        "presets": {key: (center, width) for key, (_, center, width) in PRESETS.items()},
        "layers": [
            {"uid": layer.sop_instance_uid, "version": layer.version, "slices": {str(number): on for number, on in layer.slices.items()}}
            for layer in what.layers
        ],
        "shapes": [{"slice": one.slice, "kind": one.kind, "points": one.points, "label": one.label} for one in what.shapes],
    }


def _state(request: Request, what: Scene | None) -> dict[str, Any]:
    """Return what the page shows now, and the links that change one thing of it."""
    if what is None:
        return {"url": None, "index": 0, "pictures": [], "window": "", "edge": False, "hidden": frozenset(), "presets": {}, "edges": ("",) * 4}
    query, count = request.query_params, len(what.stack.slices)
    said = query.get("slice", "")
    index = min(max(int(said), 1), count) - 1 if said.isascii() and said.isdigit() and len(said) < 6 else _first(what)
    allowed = {"", "auto", *PRESETS}
    named = query.get("window", "")
    edge = query.get("edge") == "1"
    hidden = frozenset(one for one in query.getlist("hide")[:_MOST_SHOWN] if _SHOWN.fullmatch(one))
    state = {"series": what.stack.series_instance_uid, "slice": index + 1, "window": named if named in allowed else "", "edge": "1" if edge else ""}

    def url(**changed: Any) -> str:
        kept = {key: value for key, value in {**state, "hide": sorted(hidden), **changed}.items() if value}
        return "?" + urlencode(kept, doseq=True)

    presets = {"": "As sent", "auto": "Automatic", **({key: name for key, (name, _, _) in PRESETS.items()} if what.stack.modality == "CT" else {})}
    return {
        "url": url,
        "index": index,
        "pictures": _pictures(what, index, str(state["window"]), edge, hidden),
        "window": state["window"],
        "edge": edge,
        "hidden": hidden,
        "presets": presets,
        "edges": edges(what.stack.slices[index].plane),
    }


def _first(what: Scene) -> int:
    """Return the slice that is shown first: the middle one of the first segment that was found, else of the stack."""
    for layer in what.layers:
        for on in layer.slices.values():
            return on[len(on) // 2]
    return len(what.stack.slices) // 2


def _pictures(what: Scene, index: int, named: str, edge: bool, hidden: frozenset[str]) -> list[str]:
    """Return the addresses of a slice's image and of what lies over it, below the page's own."""
    one = what.stack.slices[index]
    through = f"{PRESETS[named][1]:g},{PRESETS[named][2]:g}" if named in PRESETS else named
    found = [f"/image/{one.sop_instance_uid}/{one.frame}?" + urlencode({"window": through, "v": one.version})]
    for place, layer in enumerate(what.layers):
        numbers = [number for number, on in layer.slices.items() if index in on and f"{place}.{number}" not in hidden]
        if numbers:
            address = f"/overlay/{layer.sop_instance_uid}/{one.sop_instance_uid}/{one.frame}/{','.join(map(str, numbers))}.png?"
            found.append(address + urlencode({"edge": int(edge), "v": layer.version}))
        else:
            found.append("")
    return found
