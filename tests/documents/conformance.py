"""The tables of the conformance statement, asked of the program: its negotiation, its door, its decisions, its models."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import BaseModel
from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, MRImageStorage
from pynetdicom import build_context
from pynetdicom.presentation import negotiate_unrestricted
from pynetdicom.sop_class import _STORAGE_CLASSES

from dicom_node import serve
from dicom_node.config import Code, Model, Node, NodeConfig, bundled, load_model
from dicom_node.deliver import decisions
from dicom_node.domain import Refused, Result
from dicom_node.query import services as query_services
from dicom_node.query.retrieving import GET, MOVE
from dicom_node.query.scu import FIND
from dicom_node.receive import Door, Receiver, door, visit
from dicom_node.receive.header import split_file
from dicom_node.report.technique import X_RAYS
from dicom_node.store import Store
from dicom_node.store.holdings import ATTRIBUTES, UNIQUE_KEYS
from dicom_node.store.match import REQUIRED_KEYS
from dicom_node.wire import Requestor, peer, status_of
from dicom_node.wire.peer import CONNECT_TIMEOUT_S
from tests import phantoms
from tests.documents.objects import runs
from tests.documents.text import table

_PRIVATE = "1.2.826.0.1.3680043.8.498.1.2"
_PROPOSED = {
    "Verification": "1.2.840.10008.1.1",
    "CT Image Storage": "1.2.840.10008.5.1.4.1.1.2",
    "Segmentation Storage": "1.2.840.10008.5.1.4.1.1.66.4",
    "a private SOP class": _PRIVATE,
    "a SOP class unknown to the node": "1.2.840.10008.5.1.4.1.1.9999",
    "Storage Commitment Push Model": "1.2.840.10008.1.20.1",
    "Study Root Query/Retrieve - FIND": "1.2.840.10008.5.1.4.1.2.2.1",
    "Study Root Query/Retrieve - MOVE": "1.2.840.10008.5.1.4.1.2.2.2",
    "Study Root Query/Retrieve - GET": "1.2.840.10008.5.1.4.1.2.2.3",
    "Modality Worklist - FIND": "1.2.840.10008.5.1.4.31",
    "Modality Performed Procedure Step": "1.2.840.10008.3.1.2.3.3",
    "Unified Procedure Step - Push": "1.2.840.10008.5.1.4.34.6.1",
    "Instance Availability Notification": "1.2.840.10008.5.1.4.33",
    "Basic Grayscale Print Management Meta": "1.2.840.10008.5.1.1.9",
}
_ASKED = frozenset({*FIND, *GET, *MOVE})  # by the Query/Retrieve SCU
_RESULTS = {0: "accepted", 3: "refused: abstract syntax not supported (3)", 4: "refused: transfer syntaxes not supported (4)"}


LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"


def results() -> list[Result]:
    """Return what the objects of a run look like to the deliverer, the segmentation and derived images both ways."""
    made = runs()[0].objects | {kind: next(one.objects[kind] for one in runs() if kind in one.objects) for kind in ("DER", "PM", "PR", "KO")}
    plain = [
        Result(
            job_id=1,
            kind=kind,
            sop_class_uid=str(one.SOPClassUID),
            sop_instance_uid=str(one.SOPInstanceUID),
            series_instance_uid=str(one.SeriesInstanceUID),
            study_instance_uid=str(one.StudyInstanceUID),
            path="",
            digest="",
            transfer_syntax_uid=str(one.file_meta.TransferSyntaxUID),
        )
        for kind, one in made.items()
    ]
    derived = next(one for one in plain if one.kind == "DER")
    others = [replace(derived, sop_class_uid=uid) for uid in (str(MRImageStorage), *X_RAYS)]
    return [plain[0], replace(plain[0], sop_class_uid=LABEL_MAP), *plain[1:], *others]


def services() -> str:
    """Which SOP classes are provided and used."""
    rows: list[tuple[str, ...]] = [("Verification", "`1.2.840.10008.1.1`", "yes", "yes")]
    rows += [(decisions.class_name(one.sop_class_uid), f"`{one.sop_class_uid}`", "yes, as results", "yes") for one in results()]
    rows.append((f"the other {len(_STORAGE_CLASSES) - len(results())} storage classes that the program knows by name", "", "no", "yes"))
    rows.append(("private storage classes, and storage classes that it does not know", "", "no", "yes"))
    rows += [(UID(uid).name.replace(" Information Model", ""), f"`{uid}`", "yes" if uid in _ASKED else "no", "yes") for uid in scp_models()]
    return table(("SOP class", "UID", "SCU", "SCP"), rows)


def scp_models() -> tuple[str, ...]:
    """Return the SOP classes of the Query/Retrieve SCP."""
    return query_services(NodeConfig(), _Nothing(), None, lambda: 0.0)[0].abstract_syntaxes  # type: ignore[arg-type]


def query_keys() -> str:
    """Which keys are supported, from which level down, and how each is matched; asked of the ledger."""
    levels, keys = list(ATTRIBUTES), list(dict.fromkeys(keyword for known in ATTRIBUTES.values() for keyword in known))
    rows = []
    for keyword in keys:
        at = [level for level in levels if keyword in ATTRIBUTES[level]]
        vr = dictionary_VR(keyword).partition(" ")[0]
        kind = "unique" if keyword in UNIQUE_KEYS.values() else "required" if keyword in REQUIRED_KEYS else "optional"
        matched = _MATCHED.get(vr, "single value") if keyword != "TimezoneOffsetFromUTC" else "none: it is told"
        rows.append((f"`{keyword}`", vr, ", ".join(at), kind, matched))
    return table(("key", "VR", "levels", "type", "matching beside universal"), rows)


_MATCHED = dict.fromkeys(("AE", "CS", "LO", "LT", "SH", "ST", "UC", "UR", "UT"), "single value, wildcard") | {
    "UI": "single value, list of UIDs",
    "DA": "single value, range",
    "TM": "single value, range",
    "DT": "single value, range",
    "PN": "single value, wildcard; without regard to case and accents",
    "IS": "single value, as numbers",
    "DS": "single value, as numbers",
    "US": "single value, as numbers",
}


def negotiation() -> str:
    """What becomes of a proposed presentation context: asked of the receiver itself."""
    entity = _receiver()._entity()
    rows = []
    for name, uid in _PROPOSED.items():
        proposed = build_context(uid, ["1.2.840.10008.1.2.4.90", ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        proposed.context_id = 1
        answered = negotiate_unrestricted([proposed], entity.supported_contexts)[0][0]
        syntax = UID(answered.transfer_syntax[0]).name if answered.result == 0 else ""
        rows.append((name, f"`{uid}`", _RESULTS[answered.result or 0], syntax))
    return table(("proposed in JPEG 2000 lossless, Explicit and Implicit VR Little Endian", "UID", "answer", "transfer syntax accepted"), rows)


def verification_syntaxes() -> str:
    """In which transfer syntaxes Verification is accepted."""
    context = _receiver()._entity().supported_contexts[0]
    return table(("transfer syntax", "UID"), [(UID(uid).name, f"`{uid}`") for uid in context.transfer_syntax])


def association() -> str:
    """How associations are accepted and requested."""
    node, entity, requestor = Node(), _receiver()._entity(), Requestor("X")
    rows = [
        ("Application Context Name", "`1.2.840.10008.3.1.1.1`", "the same"),
        ("AE title", f"`node.ae_title`, default `{node.ae_title}`", "the same"),
        ("listens on, or calls", f"`node.host`, default `{node.host}`; `node.port`, default {node.port}", "`ae` of the remote"),
        ("associations at once", f"`node.max_associations`, default {entity.maximum_associations}", "`associations` of the remote, default 1"),
        ("maximum length of a received PDU", f"`node.max_pdu_bytes`, default {entity.maximum_pdu_size} bytes", "the same"),
        ("Implementation Class UID", f"`{entity.implementation_class_uid}`", f"`{requestor.implementation_class_uid}`"),
        ("Implementation Version Name", f"`{entity.implementation_version_name}`", f"`{requestor.implementation_version_name}`"),
        ("connection time-out", "–", f"`timeout_s` of the remote, at most {CONNECT_TIMEOUT_S:g} s"),
        ("time-out of association messages", f"`node.acse_timeout_s`, default {entity.acse_timeout:g} s", "`timeout_s` of the remote, default 60 s"),
        (
            "time-out of DIMSE messages",
            f"`node.dimse_timeout_s`, default {entity.dimse_timeout:g} s",
            f"the same and {1_000_000 / peer._SLOWEST_BYTES_PER_S:g} s for each megabyte of the object",
        ),
        ("time-out of a silent network", f"`node.network_timeout_s`, default {entity.network_timeout:g} s", "`timeout_s` of the remote"),
        ("Asynchronous Operations Window", 'as proposed, up to 8 operations of the requestor; with `store_path = "stock"` 1, 1', "not proposed"),
        ("SOP Class (Common) Extended Negotiation, User Identity", "not supported, not answered", "not proposed"),
        ("SCP/SCU Role Selection", "the proposed roles are accepted for storage classes and not used", "not proposed"),
    ]
    return table(("parameter", "as acceptor", "as requestor"), rows)


class _Nothing:
    """Stands for a store that nobody asks."""

    holdings = bell = None


@dataclass(frozen=True)
class _Site:
    config: NodeConfig
    models: Mapping[str, Model] = field(default_factory=dict)


def _receiver() -> Receiver:
    """Return what listens, with the services of every room; it is not started, and stores nothing."""
    config = NodeConfig()
    rooms = serve.services(_Site(config), _Nothing(), lambda: 0.0)  # type: ignore[arg-type]
    return Receiver(config, None, services=rooms)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------- statuses, SCP


def scp_statuses() -> str:
    """What C-STORE is answered, tried at the door itself, one case after another."""
    image = phantoms.series()[0]
    other = phantoms.series(StudyDescription="Another description")[0]
    cases: list[tuple[str, Callable[[Door], object], str]] = [
        ("an instance, for the first time", lambda door: _take(door, image), "Kept; bytes and row are on disk before the answer."),
        ("the same data set again", lambda door: _take(door, image), "Nothing is kept twice and no work is started."),
        (
            "the same SOP Instance UID with another data set",
            lambda door: _take(door, other),
            "Both are kept; the newer is current; the journal has it.",
        ),
        ("less free space than `node.disk_reserve_mb`", _when_full, "Nothing is kept. The sender may try again."),
        (
            "an Affected SOP Class or Instance UID that is not the data set's",
            lambda door: _take(door, image, said="1.2.3"),
            "Nothing is kept.",
        ),
        (
            "a data set that cannot be parsed",
            lambda door: _bytes(door, b"\x08\x00\x05\x00CS\xff\x00ISO"),
            "The bytes lie in quarantine with the reason.",
        ),
        (
            "SOP Class, SOP Instance, Study or Series Instance UID missing, or none",
            lambda door: _take(door, _without(image, "StudyInstanceUID")),
            "The bytes lie in quarantine with the reason.",
        ),
    ]
    rows = []
    with TemporaryDirectory() as folder:
        store = Store.open(Path(folder))
        for what, act, becomes in cases:
            status, comment = _status(act, Door(store, Node(disk_reserve_mb=0)))
            rows.append((f"`{status:04X}`", what, comment, becomes))
        store.close()
    rows.append((f"`{visit.NOT_AUTHORISED:04X}`", "the calling AE is known but may not send", "Not authorised to send", "Nothing is kept."))
    rows.append(
        (f"`{door.OUT_OF_RESOURCES:04X}`", "the disk, the ledger or the program fails", "what failed", "Nothing is kept. The sender may try again.")
    )
    return table(("status", "when", "Error Comment (0000,0902)", "what the node does"), sorted(rows, key=lambda row: row[0]))


def _status(act: Callable[[Door], object], door: Door) -> tuple[int, str]:
    try:
        act(door)
        return visit.SUCCESS, ""
    except Refused as refused:
        return refused.status, str(status_of(refused.status, str(refused)).ErrorComment)


def _take(door: Door, image: Dataset, said: str = "") -> object:
    file = BytesIO()
    image.save_as(file, enforce_file_format=True)
    return _bytes(door, file.getvalue()[split_file(file.getvalue())[1] :], said)


def _bytes(door: Door, data: bytes, said: str = "") -> object:
    syntax = str(ExplicitVRLittleEndian)
    return door.take(data, sop_class_uid=None, sop_instance_uid=said or None, transfer_syntax_uid=syntax, calling_ae="CT_ER", received_at=1.7e9)


def _without(image: Dataset, keyword: str) -> Dataset:
    found = deepcopy(image)
    delattr(found, keyword)
    return found


def _when_full(door: Door) -> object:
    return _bytes(Door(door._store, Node(disk_reserve_mb=1 << 40)), b"")


# ------------------------------------------------------------------------------------------------------- statuses, SCU

_DOES = {
    decisions.Verdict.SENT: "the object counts as delivered",
    decisions.Verdict.SENT_WITH_WARNING: "the object counts as delivered; the warning is kept and shown",
    decisions.Verdict.LATER: "tried again with back-off, at most `deliver.attempts` times",
    decisions.Verdict.DEAD: "not tried again: a dead letter that a person may replay",
}


def scu_contexts() -> str:
    """What is proposed for each result."""
    rows = []
    for one in results():
        for sop_class, syntax in decisions.contexts(one, deflate=True):
            named = UID(syntax).name + (", where the remote has `deflate`" if syntax not in {s for _, s in decisions.contexts(one)} else "")
            rows.append((decisions.class_name(sop_class), f"`{sop_class}`", named, f"`{syntax}`", "SCU", "none"))
    rows.append(
        ("Verification (verbs `echo` and `check` only)", "`1.2.840.10008.1.1`", "Implicit VR Little Endian", "`1.2.840.10008.1.2`", "SCU", "none")
    )
    return table(("abstract syntax", "UID", "transfer syntax", "UID", "role", "extended negotiation"), rows)


def scu_statuses() -> str:
    """What the node makes of each answer to its C-STORE."""
    rows = [(f"`{status:04X}`", *_said(meaning)) for status, meaning in decisions._MEANINGS.items()]
    rows += [(f"`{family:X}xxx`, any other", *_said(meaning)) for family, meaning in decisions._MEANING_OF_FAMILY.items()]
    rows.append(("any other", *_said(decisions._UNKNOWN)))
    return table(("status", "meaning", "what the node does"), rows)


def _said(meaning: tuple[str, decisions.Verdict]) -> tuple[str, str]:
    return meaning[0], _DOES[meaning[1]]


def scu_rejections() -> str:
    """What the node says of a rejected association."""
    rows = [(source, reason, why, hint) for (source, reason), (why, hint) in peer._REJECTIONS.items()]
    return table(("source", "reason", "what it tells the operator", "and advises"), rows)


# --------------------------------------------------------------------------------------------------------------- codes


_ROLES = {
    "concept": "measurement",
    "family": "algorithm family",
    "procedure": "procedure reported",
    "category": "segment category",
    "type": "segment type",
    "laterality": "segment type modifier",
    "site": "finding site",
}


def codes() -> str:
    """Every code that the bundled models use: private ones first."""
    found: dict[tuple[str, str, str], dict[str, None]] = {}
    for folder in sorted(path.parent for path in bundled("models").glob("*/model.toml")):
        manifest = load_model(folder).manifest
        for role, code in _codes(manifest, "model"):
            found.setdefault((code.scheme, code.value, code.meaning), {})[f"{manifest.name}: {_ROLES.get(role, role)}"] = None
    ordered = sorted(found, key=lambda code: (not code[0].startswith("99"), code))
    return table(("scheme", "value", "meaning", "used as"), [(*code, "; ".join(found[code])) for code in ordered])


def _codes(part: object, role: str) -> list[tuple[str, Code]]:
    if isinstance(part, Code):
        return [(role, part)]
    if isinstance(part, BaseModel):
        return [one for name in type(part).model_fields for one in _codes(getattr(part, name), name)]
    if isinstance(part, dict):
        return [one for value in part.values() for one in _codes(value, role)]
    if isinstance(part, tuple):
        return [one for value in part for one in _codes(value, role)]
    return []
