"""The remote application entities of a site: where each is, what it may do here, and what is asked of it."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from dicom_node.config.access import is_loopback
from dicom_node.domain import AE

May = Literal["send", "receive", "query", "move", "commit", "worklist", "watch", "request", "perform"]
Tasks = Literal["none", "pull", "triggered"]
Encoding = Literal["BINARY", "LABELMAP"]  # of a segmentation (PS3.3 A.51, A.90)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _ae_from(value: Any) -> Any:
    return AE.parse(value) if isinstance(value, str) else value


def _hours_from(value: Any) -> Any:
    if isinstance(value, str) and not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d", value):
        raise ValueError(f"'{value}' is no span of the day: write it like \"19:00-06:30\"")
    return value


Hours = Annotated[str, BeforeValidator(_hours_from)]  # a span of the day, local time; over midnight where the end is not after the beginning
AEAddress = Annotated[AE, BeforeValidator(_ae_from), PlainSerializer(str, when_used="json")]


class RemoteTls(_Part):
    """How a remote is called over TLS; the node shows it the certificate of `node.tls`, if there is one."""

    authorities: Path  # PEM of those who signed its certificate, or that certificate
    server_name: str = ""  # the name that its certificate must have; empty: the host of its address


class User(_Part):
    """Who a peer says it is (PS3.7 D.3.3.7)."""

    name: str = Field(min_length=1, max_length=64)
    passcode_file: Path | None = None  # its first line; none: the name alone


class Remote(_Part):
    """A remote application entity and what it may do."""

    ae: AEAddress
    may: frozenset[May] = frozenset()  # send: to us; receive: from us; query, move (C-MOVE, C-GET), commit, worklist (MWL, MPPS, IAN): ask us;
    # of workitems (UPS) watch: find, read, subscribe; request: create, ask to cancel; perform: claim, change, complete
    storage_commitment: bool = False  # whether it is asked to commit itself to every result that it took
    retrieve: Literal["none", "move", "get", "web"] = "none"  # how studies are fetched from it; none: it is not queried
    retrieves_at_once: int = Field(default=1, ge=1, le=16)
    retrieve_hours: tuple[Hours, ...] = ()  # when the node fetches by itself, local time; empty: always. A person may always
    fetch_notified: bool = False  # whether what a notification says it has, and the node has not, is fetched from it
    orders: bool = False  # whether it is asked, by Modality Worklist, for the order of a study
    notify: bool = False  # whether it is told, by Instance Availability Notification, that results exist
    tasks: Tasks = "none"  # whether the node takes work from its worklist (UPS): by looking, or also by being told of what is new
    tasks_every_s: float = Field(default=60.0, gt=0)  # how often its worklist is looked through
    reject_superseded: bool = False  # whether results that newer ones replace are rejected there by a Key Object (IHE IOCM)
    associations: int = Field(default=1, ge=1, le=16)  # at most so many at once, for sending to it
    timeout_s: float = Field(default=60.0, gt=0)
    segmentation: Encoding = "BINARY"  # LABELMAP where it stores Label Map Segmentations, which few archives and viewers do yet
    deflate: bool = False  # whether Deflated Explicit VR Little Endian is proposed first: a segmentation shrinks a hundredfold on the wire
    web_url: str = ""  # of its DICOMweb services, the address before /studies and /workitems; its worklist is then asked there, too
    web_token_file: Path | None = None  # its first line is the bearer token that they are asked with; none: without one
    tls: RemoteTls | None = None  # none: it is called without TLS
    certificate: str = ""  # the one it must show when it calls: "sha256:" and its fingerprint, or a name in it; empty: any that is known
    user: User | None = None  # presented to it
    must_show: User | None = None  # what it must present when it calls

    @model_validator(mode="after")
    def _keeps_its_secrets(self) -> Self:
        if self.certificate.startswith("sha256:") and not re.fullmatch(r"sha256:([0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}", self.certificate):
            raise ValueError('certificate: "sha256:" and 64 hexadecimal digits, as `openssl x509 -fingerprint -sha256` prints them')
        if self.user is not None and self.user.passcode_file is not None and self.tls is None:
            raise ValueError("user.passcode_file: a passcode goes over TLS alone; add `tls` to this remote")
        if self.fetch_notified and self.retrieve == "none":
            raise ValueError("fetch_notified: nothing is fetched from this remote; give it `retrieve`")
        return self

    @model_validator(mode="after")
    def _can_be_asked_by_http(self) -> Self:
        if self.web_token_file is not None and not self.web_url:
            raise ValueError("web_token_file: a token is shown to DICOMweb services alone; give this remote `web_url`")
        if self.retrieve == "web" and not self.web_url:
            raise ValueError('retrieve = "web": say where; give this remote `web_url`')
        if self.web_url:
            address = urlsplit(self.web_url)
            if address.scheme not in ("http", "https") or not address.hostname or address.query or address.fragment or "@" in address.netloc:
                raise ValueError(f"'{self.web_url}' is no address of DICOMweb services: write it like https://archive.hospital.example/dicom-web")
            if self.web_token_file is not None and address.scheme == "http" and not is_loopback(address.hostname):
                raise ValueError("web_token_file: a token goes over https alone")
        return self
