"""What the site decides: `node.toml`. Every key has a default that works; with no file the node serves on loopback in `./data`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from dicom_node.config.access import Host, Network, Oidc, Origin, WebTls, askers_unknown, is_loopback
from dicom_node.config.conditions import Conditions, RecognisedConditions
from dicom_node.config.notify import Mail, Notify
from dicom_node.config.remotes import Encoding, May, Remote
from dicom_node.config.triage import Triage, objection
from dicom_node.domain import RECOGNITION_KEYWORDS, Priority, is_ae_title

Late = Literal["supersede", "rerun", "ignore"]
Incomplete = Literal["run", "wait"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _priority_from(value: Any) -> Any:
    if isinstance(value, str):
        if value not in Priority.__members__:
            raise ValueError(f"'{value}' is not a priority: HIGH, MEDIUM or LOW")
        return Priority[value]
    return value


PriorityName = Annotated[Priority, BeforeValidator(_priority_from), PlainSerializer(lambda p: p.name, when_used="json")]


class Tls(_Part):
    """How the node shows who it is, and who may call, when DICOM is spoken over TLS (PS3.15 B.12 and B.13, BCP 195)."""

    certificate: Path  # of the node, with the chain above it, PEM; shown to who calls, and to those that it calls
    key: Path  # of the certificate, PEM, not encrypted
    clients: Path | None = None  # PEM of the authorities whose certificates a caller must show
    anonymous: bool = False  # whether who shows no certificate may call, too
    profile: Literal["bcp195", "modified"] = "bcp195"  # PS3.15 B.12, or B.13

    @model_validator(mode="after")
    def _is_mutual(self) -> Self:
        if self.clients is None and not self.anonymous:
            raise ValueError("a caller must show a certificate: name the authorities in `clients`, or let anybody call by anonymous = true")
        return self


class Node(_Part):
    """This application entity, and its patience."""

    ae_title: str = "DICOM_NODE"
    host: str = "127.0.0.1"  # the address it listens on; 0.0.0.0 for every interface
    port: int = Field(default=11112, ge=0, le=65535)
    storage: Path = Path("data")
    database: str = ""  # an SQLAlchemy address; empty: SQLite inside `storage`
    complete_after_s: float = Field(default=60.0, ge=0)
    accept_unknown: bool = False  # whether an AE that no remote names may send; always so while listening on loopback without remotes
    check_called_ae: bool = True
    max_associations: int = Field(default=256, ge=1)
    max_pdu_bytes: int = Field(default=131072, ge=4096, le=1048576)
    acse_timeout_s: float = Field(default=30.0, gt=0)
    dimse_timeout_s: float = Field(default=60.0, gt=0)
    network_timeout_s: float = Field(default=60.0, gt=0)
    store_path: Literal["fast", "stock"] = "fast"  # how C-STORE is received and sent: by the node's own path, or by pynetdicom's
    tls: Tls | None = None  # none: DICOM without TLS
    receivers: int = Field(default=1, ge=1, le=32)  # processes that receive on the one port; more than one where cores allow
    disk_reserve_mb: int = Field(default=2048, ge=0)  # below this much free space C-STORE is answered A700
    retain_days: float = Field(default=30.0, gt=0)  # how long a finished study stays
    max_reruns: int = Field(default=5, ge=0)  # how often late instances may start a model again on one study

    @model_validator(mode="after")
    def _title_is_one(self) -> Self:
        if not is_ae_title(self.ae_title):
            raise ValueError(f"ae_title '{self.ae_title}' is not an AE title: 1 to 16 characters, no backslash")
        return self

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the node."""
        return is_loopback(self.host)


class ModelChoice(_Part):
    """A model that this site runs."""

    folder: Path
    device: str = "cpu"
    timeout_s: float | None = Field(default=None, gt=0)  # none: the manifest's
    memory_mb: int | None = Field(default=None, ge=64)
    workitem_codes: tuple[tuple[str, str], ...] = ()  # value and scheme of codes by which others ask for it, beside its name


class PriorsWanted(_Part):
    """Earlier studies of the same patient that a rule's models wait for."""

    ask: tuple[str, ...] = ()  # names of remotes that are queried; what the node holds counts in any case
    count: int = Field(default=1, ge=1, le=20)  # at most so many studies, the newest
    within_days: float = Field(default=1825.0, gt=0)  # before the study
    modality: tuple[str, ...] = ()  # one of which they have; empty: that of the images that are analysed
    same_body_part: bool = True  # whether they must show the body part of the images that are analysed, where both say one
    wait_at_most_s: float = Field(default=600.0, ge=0)  # since the study was judged complete; then the models run without


class Rule(_Part):
    """Which series start which models, and who gets the results."""

    name: str = Field(min_length=1)
    when: Conditions = Field(default_factory=dict)
    recognised: RecognisedConditions = Field(default_factory=dict)  # conditions over what the headers say that a series shows
    derived: bool = False  # whether derived objects (segmentations, reformats, the node's own results) may match
    analyse: tuple[str, ...] = Field(min_length=1)
    deliver: tuple[str, ...] = ()
    priority: PriorityName = Priority.MEDIUM
    late: Late = "supersede"  # what becomes of its models when images come after they were asked for
    incomplete: Incomplete = "run"  # whether its models run on a study of which images are known to be missing
    priors: PriorsWanted | None = None  # none: its models wait for no earlier studies


class Complete(_Part):
    """How evidence beside silence decides that a study is complete; `node.complete_after_s` is the silence."""

    wait_at_most_s: float = Field(default=300.0, ge=0)  # since the last instance, while images are known to be missing
    early_after_s: float = Field(default=5.0, ge=0)  # since the last instance, when others vouch for the whole
    ask: tuple[str, ...] = ()  # names of remotes that are asked how many instances of a study they have


class Worklists(_Part):
    """What the node tells others that is to be done, or is done here."""

    folder: Path | None = None  # of worklist files, NAME.wl; none: Modality Worklist is not offered
    label: str = Field(default="AI", min_length=1, max_length=64)  # Worklist Label of the workitems of this node that have none
    address: str = ""  # of this node's web as others reach it, https://host: workitems name it; empty: they name none
    wait_for_inputs_s: float = Field(default=86400.0, gt=0)  # that a workitem waits for images which nobody can be asked for


class Hl7(_Part):
    """How others ask for analyses by HL7 v2 over MLLP."""

    port: int | None = Field(default=None, ge=0, le=65535)  # none: nothing listens
    host: str = "127.0.0.1"  # the address it listens on
    from_addresses: tuple[Network, ...] = ("127.0.0.0/8", "::1/128")  # addresses or networks that may send
    tls: Tls | None = None  # none: MLLP without TLS
    connections: int = Field(default=16, ge=1, le=256)  # at most so many at once
    timeout_s: float = Field(default=30.0, gt=0)  # for the whole of a message, and for its answer to be taken
    idle_s: float = Field(default=3600.0, gt=0)  # a connection on which nothing comes for so long is closed

    @model_validator(mode="after")
    def _is_sent_to(self) -> Self:
        if self.port is not None and not is_loopback(self.host) and all(map(is_loopback, (one.partition("/")[0] for one in self.from_addresses))):
            raise ValueError(f"hl7.host is {self.host} but nobody there may send: name addresses or networks in hl7.from_addresses")
        return self


class Work(_Part):
    """The analysing process."""

    start: bool = True  # whether `serve` starts and supervises one on this host
    at_once: int = Field(default=1, ge=1, le=64)  # analyses at the same time
    threads: int = Field(default=0, ge=0)  # of each model's process; 0: the processors shared out
    lease_s: float = Field(default=30.0, gt=0)  # a job whose worker has been silent for this long is taken back
    attempts: int = Field(default=3, ge=1)
    backoff_s: float = Field(default=10.0, ge=0)  # before the second attempt; doubles
    poll_s: float = Field(default=2.0, gt=0)  # how often an idle worker looks for a job of which it was not told


class Deliver(_Part):
    """How results are sent."""

    backoff_s: float = Field(default=5.0, gt=0)  # before the second attempt; doubles
    backoff_max_s: float = Field(default=86400.0, gt=0)
    attempts: int = Field(default=20, ge=1)  # refusals before a delivery is given up; an unreachable peer never counts
    poll_s: float = Field(default=2.0, gt=0)  # how often deliveries are looked for of which nobody was told
    commit_hold_s: float = Field(default=5.0, ge=0)  # how long an association is kept open for the report on storage commitment
    commit_after_s: float = Field(default=86400.0, gt=0)  # without a report for so long, it is asked for again
    commit_attempts: int = Field(default=3, ge=1)  # requests without a report before a person must look


class Web(_Part):
    """The HTTP door: DICOMweb, the dashboard, the viewer."""

    start: bool = True  # whether `serve` starts and keeps it on this host
    host: str = "127.0.0.1"  # the address it listens on
    port: int = Field(default=8080, ge=0, le=65535)

    names: tuple[Host, ...] = ()  # hosts by which it is called; on loopback its names need not be said
    tls: WebTls | None = None  # none: HTTP without TLS, as behind a proxy and on loopback
    behind_proxy: tuple[Network, ...] = ()  # addresses of proxies, which may say by X-Forwarded-* who asks
    local_users: bool = True  # whether people log in with a password of this node's (`dicom-node people`)
    oidc: Oidc | None = None  # the identity provider of the house
    anonymous_on_loopback: bool = True  # whether this machine may do everything as long as nobody is known
    session_idle_s: float = Field(default=3600.0, gt=0)  # a person who does nothing for so long logs in again
    session_s: float = Field(default=43200.0, gt=0)  # and in any case after so long
    cors: tuple[Origin, ...] = ()  # other origins whose pages may use DICOMweb and the API, with a bearer token

    @model_validator(mode="after")
    def _knows_who_asks(self) -> Self:
        if missing := askers_unknown(self):
            raise ValueError(missing)
        return self

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine asks, and no proxy for others."""
        return is_loopback(self.host) and not self.behind_proxy


class Feedback(_Part):
    """What readers say of results."""

    verified_reports: bool = True  # whether the report of an accepted result is sent again as verified by the reader
    organization: str = Field(default="", max_length=64)  # Verifying Organization in such a report; empty: the node's AE title


class NodeConfig(_Part):
    """The whole of `node.toml`."""

    node: Node = Node()
    remotes: dict[str, Remote] = Field(default_factory=dict)
    models: dict[str, ModelChoice] = Field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    complete: Complete = Complete()
    worklist: Worklists = Worklists()
    hl7: Hl7 = Hl7()
    work: Work = Work()
    deliver: Deliver = Deliver()
    web: Web = Web()
    feedback: Feedback = Feedback()
    mail: Mail = Mail()
    notify: tuple[Notify, ...] = ()
    triage: tuple[Triage, ...] = ()

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for rule in self.rules:
            for model in rule.analyse:
                if model not in self.models:
                    raise ValueError(f"rule '{rule.name}' analyses with '{model}', which is not among [models]: {', '.join(self.models) or 'none'}")
            for name in rule.deliver:
                if name not in self.remotes:
                    raise ValueError(f"rule '{rule.name}' delivers to '{name}', which is not among [remotes]: {', '.join(self.remotes) or 'none'}")
                if "receive" not in self.remotes[name].may:
                    raise ValueError(f"rule '{rule.name}' delivers to '{name}', which may not receive: add \"receive\" to its `may`")
        asked = [("complete.ask", name) for name in self.complete.ask]
        asked += [(f"priors.ask of rule '{rule.name}'", name) for rule in self.rules if rule.priors for name in rule.priors.ask]
        for where, name in asked:
            if name not in self.remotes:
                raise ValueError(f"{where} names '{name}', which is not among [remotes]: {', '.join(self.remotes) or 'none'}")
            if self.remotes[name].retrieve == "none":
                raise ValueError(f"{where} names '{name}', which is not queried: give it `retrieve`")
        codes = [code for model in self.models.values() for code in model.workitem_codes]
        if twice := next((code for code in codes if codes.count(code) > 1), None):
            raise ValueError(f"workitem_codes: '{twice[0]}' of {twice[1]} stands there twice; a code means one model")
        names = [rule.name for rule in self.rules]
        if len(set(names)) < len(names):
            raise ValueError(f"two rules have the name '{next(n for n in names if names.count(n) > 1)}'")
        titles = [remote.ae for remote in self.remotes.values()]
        if len(set(titles)) < len(titles):
            raise ValueError(f"two remotes have the address '{next(t for t in titles if titles.count(t) > 1)}'")
        return self

    @model_validator(mode="after")
    def _can_be_told(self) -> Self:
        names = [one.name for one in self.notify]
        if len(set(names)) < len(names):
            raise ValueError(f"two of [[notify]] have the name '{next(n for n in names if names.count(n) > 1)}'")
        for one in self.notify:
            if one.is_mail and not self.mail.host:
                raise ValueError(f"notify '{one.name}' is told by mail: name the server, mail.host")
        return self

    @model_validator(mode="after")
    def _can_be_raised(self) -> Self:
        names = [one.name for one in self.triage]
        if len(set(names)) < len(names):
            raise ValueError(f"two of [[triage]] have the name '{next(n for n in names if names.count(n) > 1)}'")
        codes = {code for choice in self.models.values() for code in choice.workitem_codes}
        for one in self.triage:
            if missing := objection(one, self.models, codes, has_worklist=self.worklist.folder is not None):
                raise ValueError(f"triage '{one.name}' {missing}")
        return self

    @model_validator(mode="after")
    def _known_off_loopback(self) -> Self:
        if not self.node.on_loopback and not self.node.accept_unknown and not any("send" in r.may for r in self.remotes.values()):
            raise ValueError(f'node.host is {self.node.host} but nobody may send: name a remote with may = ["send"], or set accept_unknown = true')
        return self

    @model_validator(mode="after")
    def _takes_what_is_moved(self) -> Self:
        for name, remote in self.remotes.items():
            if remote.retrieve == "move" and not self.may(remote.ae.title, "send"):
                raise ValueError(f'remote \'{name}\' is asked to send by C-MOVE but may not send: add "send" to its `may`, or let retrieve = "get"')
        return self

    @model_validator(mode="after")
    def _can_be_shown(self) -> Self:
        tls = self.node.tls
        for name, remote in self.remotes.items():
            if remote.certificate and (tls is None or tls.clients is None):
                raise ValueError(f"remote '{name}' must show a certificate, for which nobody asks: add node.tls with `clients`")
            if remote.must_show is not None and remote.must_show.passcode_file is not None and tls is None:
                raise ValueError(f"remote '{name}' must show a passcode, which goes over TLS alone: add node.tls")
        return self

    def may(self, calling_ae: str, what: May) -> bool:
        """Say whether an AE, by its title, may do something here."""
        if any(remote.ae.title == calling_ae.strip() and what in remote.may for remote in self.remotes.values()):
            return True
        return what == "send" and (self.node.accept_unknown or (self.node.on_loopback and not self.remotes))

    def encoding(self, destinations: Iterable[str]) -> Encoding:
        """Return how a segmentation for these remotes is encoded: as a label map where every one of them takes that."""
        taken = {self.remotes[name].segmentation if name in self.remotes else "BINARY" for name in destinations}
        return "LABELMAP" if taken == {"LABELMAP"} else "BINARY"

    @property
    def committing(self) -> tuple[str, ...]:
        """The remotes that are asked to keep what they took."""
        return tuple(name for name, remote in self.remotes.items() if remote.storage_commitment and "receive" in remote.may)

    @property
    def asked(self) -> tuple[str, ...]:
        """The models that some rule asks for, in the order of the rules; others run when a person asks."""
        return tuple(dict.fromkeys(name for rule in self.rules for name in rule.analyse))

    @property
    def keywords(self) -> frozenset[str]:
        """The DICOM keywords that the rules ask for."""
        return frozenset(keyword for rule in self.rules for keyword in (*rule.when, *(RECOGNITION_KEYWORDS if rule.recognised else ())))
