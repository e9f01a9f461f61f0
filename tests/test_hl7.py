"""HL7 v2: an order is read as the standard says, and whatever comes is acknowledged or not answered at all; no patient is named in an answer."""

from dataclasses import replace
from typing import Any

import hl7
import pytest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.parser import parse_message
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from dicom_node.config import Hl7, Notify
from dicom_node.domain import Asked, Message, Order, OrderAct, Priority, Refused, Rejected, Transient, Unacceptable
from dicom_node.notify.results import UNVERIFIED, Whose, control_id, refusal, result
from dicom_node.wire.hl7 import Part, begun, escaped, head_of, joined, parts_of, segment, written
from dicom_node.wire.mllp import Frames, Unframed, framed
from dicom_node.worklist.hl7.orders import SEGMENTS, asked_in
from dicom_node.worklist.hl7.taking import answer
from tests.contracts.arrange import NOW
from tests.hl7v2 import OMI, ORM, STUDY, changed, message, without

MARKS = ("MARKED", "Märked", "19430721", "ACC1", "cough")


def asked(data: bytes) -> tuple[Asked, ...]:
    head = head_of(data)
    return asked_in(head, parts_of(data, head, SEGMENTS))


def answered(data: bytes, request: Any = lambda _: "1.2.3") -> hl7.Message:
    """Return the acknowledgment, as another implementation reads it."""
    said = answer(data, request, "DICOM_NODE", NOW)
    assert said is not None
    return hl7.parse(said.decode())


# -------------------------------------------------------------------------------------------------------------- framing


@given(st.lists(st.binary(max_size=40).filter(lambda one: b"\x1c\r" not in one and not one.endswith(b"\x1c")), max_size=5), st.data())
def test_messages_are_found_however_the_line_cuts_them(messages: list[bytes], data: st.DataObject) -> None:
    """Law: what was framed comes out again, whatever stands between messages."""
    stream = b"".join(b"\r\n" * data.draw(st.integers(0, 2)) + framed(one) for one in messages)
    frames, found = Frames(), []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        frames.feed(stream[:cut])
        stream = stream[cut:]
        while (one := frames.next()) is not None:
            found.append(one)
    assert found == messages and frames.is_empty


def test_what_is_too_long_or_not_framed_ends_the_connection() -> None:
    frames = Frames(most_bytes=100)
    frames.feed(b"\x0b" + b"x" * 200)
    with pytest.raises(Unframed, match="longer"):
        frames.next()
    frames = Frames()
    frames.feed(b"GET / HTTP/1.1\r\n" * 100)
    with pytest.raises(Unframed, match="not framed"):
        frames.next()


# -------------------------------------------------------------------------------------------------------------- reading


def test_an_imaging_order_is_read() -> None:
    """OMI^O23 (HL7 v2.5.1 4.4.11; IHE RAD-4): the study stands in IPC-3, the priority in TQ1-9."""
    (one,) = asked(message(OMI))
    assert one == Asked(
        control_id="M1",
        message_type="OMI^O23",
        application="RIS",
        facility="HOSPITAL",
        act=OrderAct.NEW,
        order_control="NW",
        order_status="SC",
        placer_order_number="PL1",
        filler_order_number="FI1",
        accession_number="ACC1",
        requested_procedure_id="RP1",
        study_instance_uid=STUDY,
        patient_id="MARKED-1",
        issuer_of_patient_id="HOSPITAL",
        service=("LUNGVOL", "99HOSP", "Lung volumes"),
        priority=Priority.HIGH,
        reason="cough & fever",
    )
    assert not any(mark in repr(one) for mark in MARKS)


def test_a_general_order_is_read() -> None:
    """ORM^O01 (HL7 v2.3.1; IHE RAD-4): the study stands in ZDS-1, the accession number in OBR-18, the priority in ORC-7."""
    (omi,), (orm,) = asked(message(OMI)), asked(message(ORM, codec="latin-1"))
    same = replace(omi, control_id="M2", message_type="ORM^O01", priority=Priority.MEDIUM, reason="")
    assert orm == same and orm.key == omi.key


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
def test_segments_may_end_as_lines_of_text_do(end: str) -> None:
    assert asked(message(OMI, end=end)) == asked(message(OMI))


@pytest.mark.parametrize(
    ("named", "codec"),
    [
        ("UNICODE UTF-8", "utf-8"),
        ("8859/1", "latin-1"),
        ("8859/15", "iso8859-15"),
        ("", "utf-8"),
        ("", "latin-1"),
        ("GB 18030-2000", "gb18030"),
        ("~ISO IR87", "iso2022_jp"),
    ],
)
def test_text_is_decoded_by_the_character_set_that_the_message_names(named: str, codec: str) -> None:
    """MSH-18, HL7 table 0211; without one UTF-8 where it can be that, else ISO 8859-1."""
    reason = "肺" if codec in ("gb18030", "iso2022_jp") else "Müdigkeit"
    lines = changed(OMI, MSH_18=named, OBR_31=f"^{reason}", PID_5="Marked")
    assert asked(message(lines, codec=codec))[0].reason == reason


@pytest.mark.parametrize(
    ("fields", "priority"),
    [
        ({"TQ1_9": "A"}, Priority.HIGH),
        ({"TQ1_9": "R^Routine"}, Priority.MEDIUM),
        ({"TQ1_9": "P"}, Priority.LOW),
        ({"TQ1_9": ""}, Priority.MEDIUM),
        ({"TQ1_9": "", "ORC_7": "^^^^^STAT"}, Priority.HIGH),
        ({"TQ1_9": "", "OBR_27": "^^^^^S"}, Priority.HIGH),
        ({"TQ1_9": "", "OBR_5": "ASAP"}, Priority.HIGH),
        ({"TQ1_9": "R", "ORC_7": "^^^^^S"}, Priority.MEDIUM),
    ],
)
def test_how_urgent_it_is_stands_in_several_places(fields: dict[str, str], priority: Priority) -> None:
    """TQ1-9 since HL7 2.5, ORC-7, OBR-27 and OBR-5 before (table 0485); without any, routine."""
    assert asked(message(changed(OMI, **fields)))[0].priority is priority


@pytest.mark.parametrize(
    ("control", "act"), [("NW", "NEW"), ("XO", "CHANGE"), ("CA", "CANCEL"), ("OC", "CANCEL"), ("DC", "CANCEL"), ("SC", "STATUS")]
)
def test_an_order_control_says_what_becomes_of_the_order(control: str, act: str) -> None:
    """HL7 table 0119; whatever becomes of it, it is the same order."""
    (one,) = asked(message(changed(OMI, ORC_1=control, MSH_10="M9")))
    assert (one.act, one.key) == (OrderAct(act), asked(message(OMI))[0].key)


def test_several_orders_of_a_message_are_told_apart_and_steps_of_one_are_not() -> None:
    """IHE: an ORC and OBR for each step, one ZDS for all."""
    again = ORM[3:5]
    other = tuple(line.replace("LUNGVOL", "NODULES") for line in again)
    found = asked(message((*ORM[:5], *again, *other, ORM[5]), codec="latin-1"))
    assert [one.service[0] for one in found] == ["LUNGVOL", "NODULES"]
    assert {one.study_instance_uid for one in found} == {STUDY} and len({one.key for one in found}) == 2


def test_a_patients_number_is_the_one_of_the_department() -> None:
    """PID-3 of several: a medical record number before what comes first; another issuer by its universal ID."""
    (one,) = asked(message(changed(OMI, PID_3="S1^^^STATE^SS~M1^^^&1.2.3&ISO^MR")))
    assert (one.patient_id, one.issuer_of_patient_id) == ("M1", "1.2.3")


def test_other_marks_than_the_usual_ones_are_read() -> None:
    """MSH-1 and MSH-2 say what divides a message."""
    other = message(OMI).decode().translate(str.maketrans({"|": "#", "^": "*", "~": "!", "\\": "/", "&": "@"})).encode()
    (one,) = asked(other)
    assert (one,) == asked(message(changed(OMI, OBR_31="^cough @ fever")))
    assert answered(other).segment("MSA")[1][0] == "AA"


# ---------------------------------------------------------------------------------------------------------- answering


def test_what_is_taken_is_acknowledged() -> None:
    """Original mode (HL7 v2.5.1 2.9.2): AA, the control ID, sender and receiver exchanged."""
    said = answered(message(OMI))
    assert [str(said.segment("MSA")[n]) for n in (1, 2)] == ["AA", "M1"]
    assert [str(said.segment("MSH")[n]) for n in (3, 4, 5, 6, 9, 11, 12)] == [
        *("DICOM_NODE", "DICOM_NODE", "RIS", "HOSPITAL", "ACK^O23^ACK", "P", "2.5.1")
    ]
    assert parse_message(str(said), validation_level=VALIDATION_LEVEL.STRICT).validate()


@pytest.mark.parametrize(
    ("lines", "code", "field", "condition"),
    [
        (changed(OMI, MSH_9="ADT^A08"), "AR", "MSH^1^9", "200"),
        (changed(OMI, MSH_9="OMI^O22"), "AR", "MSH^1^9", "201"),
        (changed(OMI, MSH_12="3.0"), "AR", "MSH^1^12", "203"),
        (changed(OMI, MSH_11="T"), "AR", "MSH^1^11", "202"),
        (changed(OMI, MSH_10=""), "AE", "MSH^1^10", "101"),
        (changed(OMI, MSH_18="KLINGON"), "AE", "MSH^1^18", "103"),
        (changed(OMI, MSH_18="ASCII"), "AE", "MSH^1^18", "102"),
        (changed(OMI, PID_3=""), "AE", "PID^1^3", "101"),
        (changed(OMI, PID_3="M" * 65), "AE", "PID^1^3", "102"),
        (without(OMI, "PID"), "AE", "PID^1^3", "101"),
        ((*OMI, "PID|2||OTHER"), "AE", "PID^1", "100"),
        (without(OMI, "ORC", "TQ1", "OBR", "IPC"), "AE", "ORC^1", "100"),
        (without(OMI, "ORC"), "AE", "TQ1^1", "100"),
        (without(OMI, "OBR"), "AE", "OBR^1", "100"),
        ((*OMI, OMI[5]), "AE", "OBR^1", "100"),
        (changed(OMI, ORC_1="ZZ"), "AE", "ORC^1^1", "103"),
        (changed(OMI, ORC_2="", ORC_3="", OBR_2="", OBR_3=""), "AE", "ORC^1^2", "101"),
        (changed(OMI, OBR_4="^Lung volumes"), "AE", "OBR^1^4", "101"),
        (changed(OMI, OBR_4='""'), "AE", "OBR^1^4", "101"),
        (changed(OMI, IPC_3="1.02.3"), "AE", "IPC^1^3", "102"),
        (changed(OMI, IPC_3="MARKED"), "AE", "IPC^1^3", "102"),
        ((*OMI, "IPC|ACC1||1.2.3"), "AE", "IPC^1^3", "102"),
        (changed(OMI, IPC_1="MARKED" * 3), "AE", "IPC^1^1", "102"),
        (without(OMI, "IPC"), "AE", "IPC^1^3", "101"),
        ((*OMI, "OBR|" + "&" * 7000), "AE", "OBR^1", "102"),
        ((*OMI[:4], "TQ1X|1", *OMI[5:]), "AE", "TQ1^1", "102"),
        ((*OMI, *(OMI[3].replace("PL1", f"P{n}") for n in range(60))), "AE", "ORC^1", "100"),
        ((*OMI, *changed(OMI, ORC_1="CA")[3:]), "AE", "ORC^1^2", "102"),
    ],
)
def test_what_is_wrong_is_acknowledged_with_the_field_and_no_patient(lines: tuple[str, ...], code: str, field: str, condition: str) -> None:
    """AR for what a message is, AE for what it says (table 0008); ERR-2 says where, ERR-3 what is wrong (table 0357)."""
    asked_for: list[Asked] = []
    with capture_logs() as logs:
        said = answered(message(lines), lambda one: asked_for.append(one) or "")
    err, msa = said.segment("ERR"), said.segment("MSA")
    assert (str(msa[1]), str(err[2]), str(err[3][0][0]), str(err[4])) == (code, field, condition, "E") and not asked_for
    assert not any(mark in f"{said}{logs}" for mark in MARKS)
    assert len(msa) == 2 or parse_message(str(said), validation_level=VALIDATION_LEVEL.STRICT).validate()


def test_before_2_5_an_error_is_said_as_it_was_said_then() -> None:
    """HL7 v2.3.1: ERR-1 with place and code, the words in MSA-3."""
    said = answered(message(changed(ORM, ZDS_1="no UID"), codec="latin-1"))
    assert str(said.segment("ERR")[1]) == "ZDS^1^1^102&Data type error&HL70357" and "UID" in str(said.segment("MSA")[3])


@pytest.mark.parametrize(
    ("raised", "code", "field"),
    [
        (Unacceptable("no model does this", field="OBR-4", condition=103), "AE", "OBR^1^4"),
        (Rejected("it was canceled"), "AE", "ORC^1"),
        (Refused("it is not known", status=0xC307), "AE", "ORC^1"),
        (Transient("the ledger is away"), "AR", "ORC^1"),
        (RuntimeError("MARKED"), "AR", "MSH^1"),
    ],
)
def test_what_the_node_objects_to_is_acknowledged(raised: Exception, code: str, field: str) -> None:
    """AE: the same would fail again; AR: it may be sent again."""

    def request(_: Asked) -> str:
        raise raised

    with capture_logs() as logs:
        said = answered(message(OMI), request)
    assert (str(said.segment("MSA")[1]), str(said.segment("ERR")[2])) == (code, field)
    assert not any(mark in f"{said}{logs}" for mark in MARKS)


def test_a_message_that_is_sent_again_asks_the_same() -> None:
    """Who does what is asked can know it by that."""
    found: list[Asked] = []
    for _ in range(2):
        answered(message(OMI), lambda one: found.append(one) or "1.2.3")
    assert found[0] == found[1] and found[0].key == found[1].key


def known(data: bytes) -> None:
    """See that bytes are not answered, or with one acknowledgment."""
    said = answer(data, lambda _: "1.2.3", "DICOM_NODE", NOW)
    if said is not None:
        read = hl7.parse(said.decode())
        assert str(read.segment("MSH")[9]).startswith("ACK") and str(read.segment("MSA")[1]) in ("AA", "AE", "AR")
        assert b"\x0b" not in said and b"\x1c" not in said and len(said) < 4000


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_make_anything_but_an_acknowledgment_or_silence(data: bytes, with_head: bool) -> None:
    """Law."""
    known(message(OMI[:1]) + data if with_head else data)


@settings(max_examples=250, deadline=None)
@given(st.sampled_from([message(OMI), message(ORM, codec="latin-1")]), st.data())
def test_no_change_of_a_message_makes_anything_but_an_acknowledgment_or_silence(data: bytes, draw: st.DataObject) -> None:
    """Law: bytes of a good message replaced, left out and put in."""
    for _ in range(draw.draw(st.integers(1, 4))):
        start = draw.draw(st.integers(0, len(data)))
        cut = draw.draw(st.integers(0, 20))
        put = draw.draw(st.one_of(st.binary(max_size=12), st.sampled_from([b"|", b"^", b"~", b"\\", b"&", b"\r", b'""', b"\\X0D\\", b"\xff"])))
        data = data[:start] + put + data[start + cut :]
    known(data)


@pytest.mark.parametrize("fill_with", [b"|", b"&", b"~", b"\\X41\\", b"x", b"\rOBR", b"\rORC|NW"])
def test_the_longest_message_does_not_take_the_node_along(fill_with: bytes) -> None:
    known(message(OMI) + b"OBR|" + fill_with * ((1 << 20) // len(fill_with)))
    known(message(OMI[:1]).rstrip() + fill_with * ((1 << 20) // len(fill_with)))


# -------------------------------------------------------------------------------------------------------------- writing


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(alphabet=st.characters(codec="utf-8"), max_size=30), min_size=1, max_size=3))
def test_what_is_written_is_read_again(values: list[str]) -> None:
    """Law: any text stands in a field, on one line; what divides is escaped (2.7)."""
    plain = [" ".join("".join(one if one.isprintable() else " " for one in value).split()) for value in values]
    made = begun("ACK", {9: "ACK", 10: "1"})
    made.add(segment("MSA", {1: "AA", 3: joined(*values), 2: escaped(values[0])}))
    data = written(made)
    (msa,) = parts_of(data, head_of(data), {"MSA"})
    expected = [one if one != '""' else "" for one in plain]
    assert [msa.value(3, number) for number in range(1, len(values) + 1)] == expected and msa.value(2) == expected[0]


FACTS = {
    "about": "finding",
    "says": "lung-ct found: Volume 7200 ml; Nodule: Present",
    "at": NOW,
    "model": "lung-ct",
    "study_instance_uid": STUDY,
    "findings": [
        {"code": ["118565006", "SCT", "Volume"], "of": ["ml", "UCUM", "milliliter"], "value": 7.2e-07},
        {"code": ["27925004", "SCT", "Nodule"], "of": ["52101004", "SCT", "Present"], "value": None},
    ],
}
FOUND = Message(recipient="ris", key="0123456789abcdef0123456789", about="finding", facts=FACTS, created_at=NOW)
HEADER = {
    "PatientID": "MARKED^1",
    "IssuerOfPatientID": "HOSPITAL",
    "PatientName": "Märked^Patient^M^Dr^Jr=印",
    "PatientBirthDate": "19430721",
    "PatientSex": "F",
    "AccessionNumber": "ACC1",
    "StudyDate": "20261127",
    "StudyTime": "101500.25",
}


def read_back(data: bytes) -> dict[str, list[Part]]:
    found: dict[str, list[Part]] = {}
    for part in parts_of(data, head_of(data), {"PID", "ORC", "OBR", "OBX"}):
        found.setdefault(part.name, []).append(part)
    return found


def test_a_finding_becomes_a_preliminary_result() -> None:
    """ORU^R01 (HL7 v2.5.1 7.3.1), by the structure that a second implementation knows: P, A, and the words that nobody has verified it."""
    data = result(FOUND, Whose(header=HEADER), node="DICOM_NODE", application="RIS", facility="RAD", now=NOW)
    assert parse_message(data.decode(), validation_level=VALIDATION_LEVEL.STRICT).validate()
    said = read_back(data)
    (pid,), (obr,), obx = said["PID"], said["OBR"], said["OBX"]
    assert [pid.value(3), pid.value(3, 4), pid.value(7), pid.value(8)] == ["MARKED^1", "HOSPITAL", "19430721", "F"]
    assert [pid.value(5, n) for n in range(1, 6)] == ["Märked", "Patient", "M", "Jr", "Dr"]
    assert [obr.value(3), obr.value(18), obr.value(25), obr.value(4), obr.value(4, 3)] == ["ACC1", "ACC1", "P", "126000", "DCM"]
    rows = [(one.value(2), one.value(3), one.value(5), one.value(6), one.value(8), one.value(11)) for one in obx]
    assert rows == [
        ("TX", "121106", UNVERIFIED, "", "", "P"),
        ("ST", "110180", STUDY, "", "", "P"),
        ("TX", "121071", FACTS["says"], "", "A", "P"),
        ("NM", "118565006", "0.00000072", "ml", "A", "P"),
        ("CWE", "27925004", "52101004", "", "A", "P"),
    ]
    assert {obr.value(7), *(one.value(14) for one in obx)} == {"20261127101500"}
    assert head_of(data).value(10) == control_id(FOUND) == "0123456789abcdef0123"


def test_a_result_names_its_order_where_that_is_known() -> None:
    order = Order(
        study_instance_uid=STUDY,
        accession_number="ACC2",
        requested_procedure_id="RP1",
        requested_procedure_code=("CTTHORAX", "99HOSP", "CT thorax"),
        placer_order_number="PL1",
        filler_order_number="FI1",
    )
    data = result(FOUND, Whose(header=HEADER, order=order), node="N", application="", facility="", now=NOW)
    (obr,), (orc,) = (read_back(data)[name] for name in ("OBR", "ORC"))
    assert [obr.value(n) for n in (2, 3, 4, 18, 19)] == ["PL1", "FI1", "CTTHORAX", "ACC2", "RP1"]
    assert [orc.value(n) for n in (1, 2, 3)] == ["RE", "PL1", "FI1"]


@pytest.mark.parametrize(("code", "says"), [("AA", ""), ("CA", ""), ("AE", "answered AE"), ("AR", "answered AR"), ("", "answered no code")])
def test_an_acknowledgment_is_read(code: str, says: str) -> None:
    assert refusal(f"MSH|^~\\&|R|R|||||ACK|1|P|2.5.1\rMSA|{code}|{control_id(FOUND)}\r".encode(), FOUND) == says


@pytest.mark.parametrize("said", [b"", b"OK", b"MSH|^~\\&|R|R|||||ACK|1|P|2.5.1\r", b"MSH|^~\\&|R|R|||||ACK|1|P|2.5.1\rMSA|AA|another\r"])
def test_what_is_no_acknowledgment_of_it_tells_nobody(said: bytes) -> None:
    with pytest.raises(Rejected, match="no acknowledgment"):
        refusal(said, FOUND)


# ------------------------------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("to", "more", "says"),
    [
        ("mllp://ris", {}, "write mllp://host:port"),
        ("mllp://ris:99999", {}, "write mllp://host:port"),
        ("mllp://ris:0", {}, "write mllp://host:port"),
        ("mllp://ris:2575", {"findings": []}, "findings alone"),
        ("mllp://ris:2575", {"about": ["disk"]}, "findings alone"),
        ("mllp://ris:2575", {"patient_identity": False}, "names its patient"),
    ],
)
def test_a_system_that_cannot_be_told_results_is_said_at_once(to: str, more: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Notify.model_validate({"name": "ris", "to": to, "findings": [{"concept": "Volume"}], "patient_identity": True, **more})


def test_off_loopback_somebody_must_be_named() -> None:
    with pytest.raises(ValueError, match="nobody there may send"):
        Hl7(port=2575, host="0.0.0.0")
    assert Hl7(port=2575, host="0.0.0.0", from_addresses=("10.0.0.0/8",)).port == 2575
