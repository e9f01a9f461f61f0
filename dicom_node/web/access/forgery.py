"""Requests that another site had a browser make (CSRF): told by where they come from, and by a token that only our pages hold.

For pages: a form has `<input type="hidden" name="csrf_token" value="{{ request.state.csrf }}">` and is sent as application/x-www-form-urlencoded;
a script sends the same value as header X-CSRF-Token. Requests with a bearer token need none: no browser adds that by itself.
"""

import hashlib
import hmac
from urllib.parse import parse_qs

from starlette.datastructures import Headers

FIELD, HEADER = "csrf_token", "x-csrf-token"
SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110 9.2.1
_OF_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain")  # what a form can send, to any site


def token(secret: str) -> str:
    """Return the token of a session, or of whatever else the secret stands for."""
    return hmac.new(secret.encode(), b"dicom-node csrf", hashlib.sha256).hexdigest()


def is_token(shown: str, wanted: str) -> bool:
    """Say whether it is the one, in constant time."""
    return bool(wanted) and hmac.compare_digest(shown.encode(errors="replace"), wanted.encode())


def is_foreign(headers: Headers, origin: str) -> bool:
    """Say whether a browser tells that a page of another origin made the request: Sec-Fetch-Site is its judgement, Origin what it judges by."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    said = headers.get("origin")
    return said is not None and said.lower() != origin


def by_browser(headers: Headers) -> bool:
    """Say whether a browser made an unsafe request: it then says from where."""
    return "origin" in headers or "sec-fetch-site" in headers


def is_beyond_forms(method: str, headers: Headers) -> bool:
    """Say whether no page of another origin could send it without being asked first (Fetch, CORS-preflight), and a browser says that none did."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return by_browser(headers) and (method != "POST" or bool(kind and kind not in _OF_FORMS))


def is_form(headers: Headers) -> bool:
    """Say whether the body may hold the token."""
    return headers.get("content-type", "").partition(";")[0].strip().lower() == _OF_FORMS[0]


def field(body: bytes, name: str = FIELD) -> str:
    """Return a field of a form; "" when it has none, or several."""
    try:
        found = parse_qs(body.decode("ascii", errors="replace"), max_num_fields=1000, keep_blank_values=True).get(name, [])
    except ValueError:
        return ""
    return found[0] if len(found) == 1 else ""
