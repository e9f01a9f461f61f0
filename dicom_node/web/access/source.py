"""Where a request comes from and by which name it came: what a proxy says counts only when it is one that the site named."""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import Scope

from dicom_node.config import Web, is_loopback

_OF_CHANNELS = {"ws": "http", "wss": "https"}  # a channel is asked for by HTTP (RFC 6455 4.1)
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is known of a request before anybody has said who asks. host: as the caller names the node, with its port."""

    address: str
    scheme: str
    host: str
    by_unknown_proxy: bool  # it says that it was handed on, by somebody whom the site did not name

    @property
    def secure(self) -> bool:
        """Whether it came over TLS all the way to us or to our proxy."""
        return self.scheme == "https"

    @property
    def origin(self) -> str:
        """The origin that a page of ours has (RFC 6454), without the port that its scheme has anyway."""
        return f"{self.scheme}://{_without_usual_port(self.host.lower(), self.scheme)}"


def source(scope: Scope, web: Web) -> Source:
    """Read where a request comes from."""
    headers = Headers(scope=scope)
    address = (scope.get("client") or ("", 0))[0]
    scheme, host = _plain(scope.get("scheme", "http")), headers.get("host", "")
    if not _is_in(address, web.behind_proxy):
        return Source(address=address, scheme=scheme, host=host, by_unknown_proxy=any(name in headers for name in _FORWARDED))
    said = _plain(_last(headers.getlist("x-forwarded-proto")))
    scheme = said if said in ("http", "https") else scheme
    host = _last(headers.getlist("x-forwarded-host")) or host
    address = _client(headers.getlist("x-forwarded-for"), address, web.behind_proxy)
    return Source(address=address, scheme=scheme, host=host, by_unknown_proxy=False)


def is_ours(host: str, web: Web) -> bool:
    """Say whether a Host header names this node: another site's name may lead here, and its pages would then be taken for ours (DNS rebinding)."""
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]{1,253})(:\d{1,5})?", host)
    if not found:
        return False
    name = found[1].lower().removesuffix(".")
    return name in web.names or (is_loopback(web.host) and is_loopback(name.strip("[]")))


def _is_in(address: str, networks: Sequence[str]) -> bool:
    try:
        one = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(one, ipaddress.IPv6Address) and one.ipv4_mapped:
        one = one.ipv4_mapped
    return any(one in ipaddress.ip_network(network, strict=False) for network in networks)


def _client(said: Sequence[str], address: str, proxies: Sequence[str]) -> str:
    """Return the last address that no proxy of ours has; those before it may be anybody's invention."""
    for one in reversed([part.strip() for line in said for part in line.split(",")]):
        try:
            ipaddress.ip_address(one)
        except ValueError:
            return address
        address = one
        if not _is_in(one, proxies):
            return one
    return address


def _last(said: Sequence[str]) -> str:
    return said[-1].rpartition(",")[2].strip() if said else ""


def _plain(scheme: str) -> str:
    return _OF_CHANNELS.get(scheme, scheme)


def _without_usual_port(host: str, scheme: str) -> str:
    return host.removesuffix({"http": ":80", "https": ":443"}.get(scheme, ""))
