"""Who is told when something is wrong or was found, and through which server mail goes."""

import re
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

About = Literal["job", "delivery", "destination", "disk", "worker", "quarantine"]
_MAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9.-]+")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Mail(_Part):
    """The server through which the node sends mail."""

    host: str = ""  # empty: no mail is sent
    port: int = Field(default=587, ge=1, le=65535)
    security: Literal["starttls", "tls", "none"] = "starttls"
    authorities: Path | None = None  # PEM of those who signed its certificate; none: those that the system knows
    user: str = ""
    password_file: Path | None = None  # its first line
    sender: str = ""  # the address that mail comes from
    timeout_s: float = Field(default=30.0, gt=0)

    @model_validator(mode="after")
    def _can_send(self) -> Self:
        if self.host and not _MAIL.fullmatch(self.sender):
            raise ValueError(f"mail.sender '{self.sender}' is no mail address: name the one that mail comes from")
        if self.password_file is not None and self.security == "none":
            raise ValueError('mail.password_file: a password goes over TLS alone; let mail.security be "starttls" or "tls"')
        return self


class FindingWanted(_Part):
    """A result that somebody is told of: a number within bounds, or an answer."""

    concept: str = Field(min_length=1, max_length=64)  # meaning or code value of what is measured or evaluated
    model: str = ""  # empty: any
    min: float | None = None
    max: float | None = None
    answer: str = ""  # meaning or code value; empty: any

    @model_validator(mode="after")
    def _asks_for_one(self) -> Self:
        if self.answer and (self.min is not None or self.max is not None):
            raise ValueError("a finding is a number, with `min` and `max`, or an `answer`")
        return self


class Notify(_Part):
    """Who is told when something is wrong or was found, and how."""

    name: str = Field(min_length=1, max_length=64)
    to: str  # https://…, a mail address, or mllp://host:port and mllps://host:port (HL7 v2)
    about: tuple[About, ...] = ("job", "delivery", "destination", "disk", "worker", "quarantine")
    findings: tuple[FindingWanted, ...] = ()
    secret_file: Path | None = None  # its first line is the key of the signature of what is posted
    authorities: Path | None = None  # PEM of those who signed its certificate (https, mllps); none: those that the system knows
    subject: Path | None = None  # a template of the subject of mail
    body: Path | None = None  # a template of the text of mail
    down_after_s: float = Field(default=900.0, ge=0)  # a destination that is not reached for so long is told of
    patient_identity: bool = False  # whether the patient is named, where it is about one
    application: str = Field(default="", max_length=180)  # Receiving Application of HL7 messages (MSH-5)
    facility: str = Field(default="", max_length=180)  # Receiving Facility (MSH-6)
    timeout_s: float = Field(default=15.0, gt=0, le=300)

    @property
    def is_mail(self) -> bool:
        """Whether it is told by mail."""
        return "://" not in self.to

    @property
    def is_hl7(self) -> bool:
        """Whether it is told by HL7 v2."""
        return self.to.startswith(("mllp://", "mllps://"))

    @model_validator(mode="before")
    @classmethod
    def _tells_findings_alone(cls, given: Any) -> Any:
        """What is told by HL7 v2 is about a patient: nothing else is told so."""
        if isinstance(given, dict) and str(given.get("to", "")).startswith(("mllp://", "mllps://")):
            return {"about": (), **given}
        return given

    @model_validator(mode="after")
    def _is_somebody(self) -> Self:
        if self.is_mail and not _MAIL.fullmatch(self.to):
            raise ValueError(f"notify '{self.name}': to is neither http(s)://… nor mllp(s)://… nor a mail address")
        if self.is_hl7:
            return self._takes_results()
        if not self.is_mail and not re.fullmatch(r"https?://[A-Za-z0-9.\-\[\]:]+(/[!-~]*)?", self.to):
            raise ValueError(f"notify '{self.name}': to is not an address that can be posted to")
        if not self.is_mail and self.patient_identity and not self.to.startswith("https://"):
            raise ValueError(f"notify '{self.name}': patients are named over https alone")
        return self

    def _takes_results(self) -> Self:
        if not re.fullmatch(r"mllps?://([A-Za-z0-9.\-]+|\[[0-9A-Fa-f:]+\]):\d{1,5}/?", self.to) or not (_port(self.to) or 0) > 0:
            raise ValueError(f"notify '{self.name}': to is no address of HL7 v2: write mllp://host:port, or mllps:// over TLS")
        if self.about or not self.findings:
            raise ValueError(f"notify '{self.name}': by HL7 v2 findings alone are told: name some in `findings`, and let about = []")
        if not self.patient_identity:
            raise ValueError(f"notify '{self.name}': a result by HL7 v2 names its patient: set patient_identity = true if that is wanted")
        return self


def _port(address: str) -> int | None:
    try:
        return urlsplit(address).port
    except ValueError:
        return None
