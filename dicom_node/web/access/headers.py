"""What every answer tells a browser: load nothing from elsewhere, guess nothing, keep nothing; and which other origins may read it."""

from collections.abc import Mapping

from starlette.datastructures import Headers

from dicom_node.config import Web

DICOMWEB, API, VIEWER, STATIC = "/dicom-web", "/api", "/ohif", "/static"

_EVERYWHERE = "base-uri 'none'; object-src 'none'; form-action 'self'; frame-ancestors 'self'"
_POLICY = f"default-src 'self'; img-src 'self' data: blob:; {_EVERYWHERE}"
_VIEWERS_POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; style-src 'self' 'unsafe-inline'; "
    f"img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' blob: data:; {_EVERYWHERE}"
)
_ALWAYS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # none at all would make a browser call its own forms' origin "null"
    "cross-origin-resource-policy": "same-origin",
}
_ALONE = {"cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp"}  # shared memory, which decoders want
_YEAR_S = 31_536_000
_METHODS = "GET, HEAD, POST, PUT, DELETE, OPTIONS"
_ASKED_WITH = "Authorization, Accept, Content-Type, If-None-Match, Range, X-Requested-With"
_SHOWN = "Warning, Location, Content-Location, ETag, Retry-After, WWW-Authenticate"


def is_under(path: str, *prefixes: str) -> bool:
    """Say whether a path is one of these or below it."""
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes)


def security(path: str, *, secure: bool) -> Mapping[str, str]:
    """Return the headers of every answer under a path; an endpoint that sets one of them itself knows better."""
    viewer = is_under(path, VIEWER)
    said = _ALWAYS | {"content-security-policy": _VIEWERS_POLICY if viewer else _POLICY}
    said |= {"cache-control": "no-cache" if is_under(path, VIEWER, STATIC) else "no-store"}
    if viewer:
        said |= _ALONE
    if secure:
        said["strict-transport-security"] = f"max-age={_YEAR_S}"
    return said


def is_preflight(method: str, headers: Headers) -> bool:
    """Say whether a browser asks if it may ask."""
    return method == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers


def shared(path: str, headers: Headers, web: Web, *, preflight: bool = False) -> Mapping[str, str]:
    """Return the headers by which a page of another origin may read the answer, if the site named that origin; never with a cookie."""
    origin = headers.get("origin", "").lower()
    if not is_under(path, DICOMWEB, API) or origin not in web.cors:
        return {}
    said = {"access-control-allow-origin": origin, "vary": "Origin"}
    if preflight:
        return said | {"access-control-allow-methods": _METHODS, "access-control-allow-headers": _ASKED_WITH, "access-control-max-age": "600"}
    return said | {"access-control-expose-headers": _SHOWN}
