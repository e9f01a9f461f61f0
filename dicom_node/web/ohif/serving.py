"""The files of the OHIF viewer and its configuration, below /ohif."""

import json
import re
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route

from dicom_node.web.access import Role, allow
from dicom_node.web.context import Context
from dicom_node.web.dicomweb.urls import PREFIX as DICOMWEB
from dicom_node.web.ohif.package import PREFIX, installed

_KINDS = {
    ".css": "text/css",
    ".html": "text/html",
    ".ico": "image/x-icon",
    ".js": "text/javascript",
    ".json": "application/json",
    ".mjs": "text/javascript",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".webapp": "application/manifest+json",
    ".woff2": "font/woff2",
    ".xml": "application/xml",
    "": "text/plain",
}
_HASHED = re.compile(r"(.+\.)?[0-9a-f]{16}\.[a-z0-9]+")  # a name that changes with the content
_POLICY = "; ".join(  # unsafe-eval: what reads segmentations compiles functions
    (
        "default-src 'none'",
        "script-src 'self' 'unsafe-eval' blob:",
        "worker-src 'self' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "manifest-src 'self'",
        "frame-src 'self' blob:",
        "object-src 'self' blob:",
        "frame-ancestors 'self'",
    )
)
_APART = {  # what shared memory between its workers asks for
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": _POLICY,
}
_HOW = "The OHIF viewer is not here. Who administers the node fetches it with: dicom-node web --fetch-ohif\n"

_CONFIGURATION: dict[str, Any] = {
    "name": "dicom-node",
    "routerBasename": PREFIX.rstrip("/"),
    "extensions": [],
    "modes": [],
    "customizationService": {},
    "showStudyList": True,
    "maxNumberOfWebWorkers": 3,
    "showWarningMessageForCrossOrigin": True,
    "showCPUFallbackMessage": True,
    "showLoadingIndicator": True,
    "strictZSpacingForVolumeViewport": True,
    "groupEnabledModesFirst": True,
    "maxNumRequests": {"interaction": 100, "thumbnail": 5, "prefetch": 10},
    "showErrorDetails": "always",
    "investigationalUseDialog": {"option": "always"},
    "defaultDataSourceName": "dicom-node",
    "dataSources": [
        {
            "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
            "sourceName": "dicom-node",
            "configuration": {
                "friendlyName": "dicom-node",
                "name": "dicom-node",
                "qidoRoot": DICOMWEB,
                "wadoRoot": DICOMWEB,
                "wadoUriRoot": DICOMWEB,
                "qidoSupportsIncludeField": True,
                "imageRendering": "wadors",
                "thumbnailRendering": "thumbnail",
                "thumbnailRequestStrategy": "fetch",
                "enableStudyLazyLoad": True,
                "supportsFuzzyMatching": False,
                "supportsWildcard": True,
                "staticWado": False,
                "singlepart": "bulkdata,video,pdf",
                "bulkDataURI": {"enabled": True, "relativeResolution": "studies"},
                "omitQuotationForMultipartRequest": True,
            },
        }
    ],
}


def routes(context: Context) -> list[BaseRoute]:
    """Return the resources under /ohif."""
    folder = context.store.archive.root / "ohif"

    def answer(request: Request) -> Response:
        place = installed(folder)
        if place is None:
            return Response(_HOW, status_code=404, media_type="text/plain")
        return _file(request, place, request.path_params.get("path", ""))

    guarded = allow(Role.VIEWER, answer)
    return [Route("/ohif", guarded, methods=["GET"]), Route("/ohif/{path:path}", guarded, methods=["GET"])]


def is_here(context: Context) -> bool:
    """Say whether a study can be opened in OHIF."""
    return installed(context.store.archive.root / "ohif") is not None


def configuration() -> str:
    """Return app-config.js: where studies come from, and what the page's own scripts would have said."""
    said = json.dumps(_CONFIGURATION, indent=1)
    load = "function browserImportFunction(moduleId) { return import(moduleId); }"
    return f'window.PUBLIC_URL = "{PREFIX}";\n{load}\nwindow.config = {said};\n'


def _file(request: Request, place: Path, name: str) -> Response:
    if name == "app-config.js":
        return Response(configuration(), media_type="text/javascript", headers={**_APART, "Cache-Control": "no-cache"})
    files = _files(place)
    if name not in files and PurePosixPath(name).suffix in (_KINDS.keys() - {""}):
        return Response(status_code=404, headers=_APART)
    name = name if name in files else "index.html"  # its own routes
    kept = "private, max-age=31536000, immutable" if _HASHED.fullmatch(PurePosixPath(name).name) else "no-cache"
    headers = {**_APART, "Cache-Control": kept, "Vary": "Accept-Encoding"}
    kind = _KINDS.get(PurePosixPath(name).suffix, "application/octet-stream")
    if f"{name}.gz" in files and "gzip" in request.headers.get("accept-encoding", ""):
        return FileResponse(place / f"{name}.gz", media_type=kind, headers={**headers, "Content-Encoding": "gzip"})
    return FileResponse(place / name, media_type=kind, headers=headers)


@lru_cache(maxsize=2)
def _files(place: Path) -> frozenset[str]:
    """Return what there is: nothing else is served, whatever a path says."""
    return frozenset(str(one.relative_to(place)) for one in place.rglob("*") if one.is_file())
