"""How the site knows who asks by HTTP: certificates, and an identity provider (OpenID Connect Core 1.0, RFC 9068)."""

import ipaddress
import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

RoleName = Literal["service", "viewer", "operator", "admin"]
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"]  # no key is shared: no HS


@lru_cache(256)
def is_loopback(host: str) -> bool:
    """Say whether an address or name is this machine's alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _network(value: str) -> str:
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError(f"'{value}' is neither an address nor a network: write 10.0.0.5 or 10.0.0.0/24") from None
    return value


def _host(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\]", value):
        raise ValueError(f"'{value}' is no host: write it without scheme and port, such as node.hospital.example")
    return value.lower()


def _origin(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.netloc or value != f"{parts.scheme}://{parts.netloc}" or "@" in parts.netloc:
        raise ValueError(f"'{value}' is no origin: write it like https://viewer.hospital.example, without a path")
    return value.lower()


def _issuer(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        raise ValueError(f"'{value}' is not reached over https: whoever stands between could let anybody in")
    if not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"'{value}' is no issuer: write the address under which it has .well-known/openid-configuration")
    return value


Network = Annotated[str, AfterValidator(_network)]
Host = Annotated[str, AfterValidator(_host)]
Origin = Annotated[str, AfterValidator(_origin)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WebTls(_Part):
    """How the web shows who it is."""

    certificate: Path  # with the chain above it, PEM
    key: Path  # of the certificate, PEM, not encrypted


class Oidc(_Part):
    """The identity provider of the house, which says who a person or a program is."""

    issuer: Annotated[str, AfterValidator(_issuer)]  # https, as its tokens name it
    client_id: str = Field(min_length=1)  # of this node, for people who log in by a browser
    client_secret_file: Path | None = None  # its first line; none: a public client, which PKCE alone protects
    audience: str = ""  # whom bearer tokens must be made for; empty: none are taken
    roles_claim: str = "roles"  # where tokens name roles or groups; a path with dots, such as realm_access.roles
    roles: dict[str, RoleName] = Field(default_factory=dict)  # what each of those is here; of several the highest counts
    name_claim: str = "preferred_username"  # what the journal calls a person; without it, the subject
    request: tuple[str, ...] = ("openid", "profile")  # scopes that are asked for when a person logs in
    algorithms: tuple[Algorithm, ...] = Field(default=("RS256", "PS256", "ES256"), min_length=1)
    skew_s: int = Field(default=60, ge=0, le=600)  # by how much the clocks may differ
    authorities: Path | None = None  # PEM of those who signed its certificate; none: those that this machine trusts

    @model_validator(mode="after")
    def _asks_for_openid(self) -> Self:
        if "openid" not in self.request:
            raise ValueError('oidc.request must contain "openid"')
        return self


def askers_unknown(web: Any) -> str:
    """Say what keeps a web that others than this machine reach from knowing who asks; "" when nothing does."""
    if is_loopback(web.host):
        return ""
    where = f"web.host is {web.host}, which others than this machine reach"
    if web.tls is None and not web.behind_proxy:
        return f"{where}: add web.tls with `certificate` and `key`, or name the proxy that speaks TLS in web.behind_proxy"
    if not web.local_users and web.oidc is None:
        return f"{where}, and nobody could say who they are: set web.local_users = true, or add web.oidc"
    if not web.names:
        return f"{where}: say by which names it is called in web.names, so that no other site's name leads here"
    return ""
