"""The identity provider's documents: fetched over https, bounded in length and time, and never from where they would send us on."""

import base64
import json
import ssl
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from dicom_node.config import is_loopback
from dicom_node.domain import ConfigError, Transient

_TIMEOUT_S = 10.0
_MOST_BYTES = 262_144


class Fetcher:
    """Speaks HTTP to one identity provider.

    Raises
    ------
    ConfigError: the authorities cannot be read.
    """

    def __init__(self, authorities: Path | None) -> None:
        try:
            context = ssl.create_default_context(cafile=authorities)
        except OSError as error:  # ssl.SSLError is one
            raise ConfigError(f"web.oidc.authorities: {authorities} holds no certificates", hint="Name a PEM file of certificates.") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._opener = build_opener(HTTPSHandler(context=context), _Stay())

    def get(self, address: str) -> dict[str, Any]:
        """Return the JSON object at an address.

        Raises
        ------
        Transient: it cannot be had, or is none.
        """
        return self._json(address, None, {"Accept": "application/json"})

    def post(self, address: str, form: Mapping[str, str], client: tuple[str, str] | None) -> dict[str, Any]:
        """Send a form and return the JSON object that is answered. client: name and secret, for HTTP Basic (RFC 6749 2.3.1).

        Raises
        ------
        Transient: as `get`.
        """
        headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
        if client is not None:
            said = ":".join(quote(part, safe="") for part in client)
            headers["Authorization"] = f"Basic {base64.b64encode(said.encode()).decode()}"
        return self._json(address, urlencode(form).encode(), headers)

    def _json(self, address: str, data: bytes | None, headers: Mapping[str, str]) -> dict[str, Any]:
        where = _reach(address)
        try:
            request = Request(address, data=data, headers=dict(headers))  # noqa: S310 — `_reach` has seen to the scheme
            with self._opener.open(request, timeout=_TIMEOUT_S) as answer:
                body = answer.read(_MOST_BYTES + 1)
        except HTTPError as error:
            error.close()
            raise _no(where, f"it answers {error.code}") from None
        except (URLError, HTTPException, OSError, ValueError) as error:
            raise _no(where, str(getattr(error, "reason", "")) or type(error).__name__) from None
        if len(body) > _MOST_BYTES:
            raise _no(where, "its answer is too long")
        try:
            found = json.loads(body)
        except ValueError:
            raise _no(where, "its answer is not JSON") from None
        if not isinstance(found, dict):
            raise _no(where, "its answer is no JSON object")
        return found


class _Stay(HTTPRedirectHandler):
    def redirect_request(self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


def _reach(address: str) -> str:
    """Return what to call an address in a message, if it may be reached at all."""
    try:
        parts = urlsplit(address)
    except ValueError:
        raise _no("somewhere", "its address is none") from None
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        raise _no(parts.hostname or "somewhere", "its address is not https")
    return parts.hostname or ""


def _no(where: str, why: str) -> Transient:
    return Transient(f"the identity provider at {where} is of no use now: {why}", hint="Look at [web.oidc] and whether the provider is reached.")
