"""What a workitem must say when it is created, changed and ended (PS3.4 Table CC.2.5-3), and what nobody is shown (CC.2.7)."""

import json
from datetime import datetime
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given as over
from hypothesis import settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.tag import Tag

from dicom_node.domain import JobState, Refused
from dicom_node.worklist.ups.attributes import (
    SOP_CLASS,
    changed,
    code,
    coded,
    codes_of,
    created,
    dataset_of,
    hidden,
    inputs_of,
    model_of,
    start_of,
    study_of,
    unfinished,
)
from tests.workitems import but, given, performed, progress, setting, step, transaction, unspoken
from tests.workitems import code as term

NOW = 1_800_000_000.0
UID = "1.2.3.4"
TYPE_2 = (
    *("ScheduledProcessingParametersSequence", "ScheduledStationNameCodeSequence", "ScheduledStationClassCodeSequence"),
    *("ScheduledStationGeographicLocationCodeSequence", "CommentsOnTheScheduledProcedureStep", "ScheduledWorkitemCodeSequence"),
    *("InputInformationSequence", "PatientName", "PatientBirthDate", "PatientSex", "AdmissionID", "ReferencedRequestSequence"),
    *("ProcedureStepProgressInformationSequence", "UnifiedProcedureStepPerformedProcedureSequence"),
)


def made(said: Dataset) -> tuple[Dataset, bool]:
    return created(said, uid_given=UID, now=NOW, worklist_label="AI")


def refused(said: Dataset) -> int:
    """Return the status that a creation is refused with; 0: it is not."""
    try:
        made(said)
    except Refused as error:
        return error.status
    return 0


# -------------------------------------------------------------------------------------------------------------- creation


@pytest.mark.parametrize(
    ("keyword", "value", "status"),
    [
        ("ProcedureStepState", None, 0x0120),
        ("ProcedureStepState", "", 0x0121),
        *(("ProcedureStepState", state, 0xC309) for state in ("IN PROGRESS", "COMPLETED", "CANCELED", "DONE")),
        ("ScheduledProcedureStepPriority", None, 0x0120),
        ("ScheduledProcedureStepPriority", "", 0x0121),
        ("ScheduledProcedureStepPriority", "URGENT", 0x0106),
        ("ProcedureStepLabel", None, 0x0120),
        ("ProcedureStepLabel", "", 0x0121),
        ("ScheduledProcedureStepStartDateTime", None, 0x0120),
        ("ScheduledProcedureStepStartDateTime", "", 0x0121),
        ("InputReadinessState", None, 0x0120),
        ("InputReadinessState", "", 0x0121),
        ("InputReadinessState", "SOON", 0x0106),
        ("TransactionUID", "1.2.3", 0x0106),
        ("ProcedureStepProgressInformationSequence", [progress()], 0x0106),
        ("UnifiedProcedureStepPerformedProcedureSequence", [performed()], 0x0106),
        ("ScheduledWorkitemCodeSequence", [Dataset()], 0x0121),
        ("InputInformationSequence", [given(TypeOfInstances=None)], 0x0120),
        ("InputInformationSequence", [given(TypeOfInstances="")], 0x0121),
        ("InputInformationSequence", [given(StudyInstanceUID=None)], 0x0120),
        ("InputInformationSequence", [given(StudyInstanceUID="")], 0x0121),
        ("InputInformationSequence", [given(SeriesInstanceUID="")], 0x0121),
        ("InputInformationSequence", [given(ReferencedSOPSequence=None)], 0x0120),
        ("InputInformationSequence", [given(ReferencedSOPSequence=[])], 0x0121),
        ("InputInformationSequence", [given(ReferencedSOPSequence=[Dataset()])], 0x0120),
        ("InputInformationSequence", [given(DICOMRetrievalSequence=None)], 0x0120),
        ("InputInformationSequence", [given(DICOMRetrievalSequence=[])], 0x0120),
    ],
)
def test_what_a_step_must_say_it_says_or_it_is_not_created(keyword: str, value: Any, status: int) -> None:
    """PS3.4 Table CC.2.5-3 and CC.2.5.3.1: 0120 missing, 0121 without a value, 0106 of no allowed value, C309 of a state other than SCHEDULED."""
    assert refused(step(**{keyword: value})) == status


@pytest.mark.parametrize(
    "wrong",
    [
        "yesterday",
        "2026-01-10",
        "20261301",
        "20260132",
        "202601012",
        "2026010124",
        "202601011260",
        "20260101120000.",
        "2026010112+9999",
        "20260101 12",
    ],
)
def test_a_start_that_is_no_moment_is_refused(wrong: str) -> None:
    """PS3.5 Table 6.2-1, DT."""
    said = step()
    said.add_new("ScheduledProcedureStepStartDateTime", "LO", wrong)
    assert refused(said) == 0x0106


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026", datetime(2026, 1, 1)),
        ("202611", datetime(2026, 11, 1)),
        ("20261127", datetime(2026, 11, 27)),
        ("2026112712", datetime(2026, 11, 27, 12)),
        ("202611271230", datetime(2026, 11, 27, 12, 30)),
        ("20261127123015", datetime(2026, 11, 27, 12, 30, 15)),
        ("20261127123015.5", datetime(2026, 11, 27, 12, 30, 15, 500_000)),
        ("20261127123015.123456", datetime(2026, 11, 27, 12, 30, 15, 123_456)),
        ("20261127123060", datetime(2026, 11, 27, 12, 30, 59)),
        ("2026112712+0000", datetime.fromisoformat("2026-11-27T12:00:00+00:00")),
        ("202611271230-0530", datetime.fromisoformat("2026-11-27T12:30:00-05:30")),
        ("20261127123015.5+0100", datetime.fromisoformat("2026-11-27T12:30:15.5+01:00")),
    ],
)
def test_a_moment_is_read_to_the_precision_that_it_has(text: str, expected: datetime) -> None:
    """PS3.5 Table 6.2-1, DT: components may be left out from the right."""
    assert start_of(step(ScheduledProcedureStepStartDateTime=text)) == expected.timestamp()


def test_a_step_is_kept_with_what_the_manager_says_of_it() -> None:
    """PS3.4 CC.3.1: the class of every step is UPS Push; Table CC.2.5-3: the manager says when it was changed."""
    kept, is_changed = made(step(SOPClassUID="1.2", SOPInstanceUID="1.3"))
    assert (kept.SOPClassUID, kept.SOPInstanceUID, kept.ProcedureStepState) == (SOP_CLASS, UID, "SCHEDULED")
    assert start_of(but(step(), ScheduledProcedureStepStartDateTime=kept.ScheduledProcedureStepModificationDateTime)) == NOW
    assert "TransactionUID" not in kept
    assert not is_changed


@pytest.mark.parametrize("keyword", [*TYPE_2, "WorklistLabel"])
def test_what_a_requester_leaves_out_the_manager_fills_in(keyword: str) -> None:
    """PS3.4 CC.2.5.3.2: created with modifications (B300); a Worklist Label is the manager's to give."""
    kept, is_changed = made(step(**{keyword: None}))
    assert keyword in kept
    assert is_changed
    assert kept.WorklistLabel == "AI"


def test_an_empty_worklist_label_is_filled_in() -> None:
    """Table CC.2.5-3: type 2 of the requester, 1 of the manager."""
    kept, is_changed = made(step(WorklistLabel=""))
    assert (kept.WorklistLabel, is_changed) == ("AI", True)


@pytest.mark.parametrize("priority", ["HIGH", "MEDIUM", "LOW"])
@pytest.mark.parametrize("readiness", ["INCOMPLETE", "UNAVAILABLE", "READY"])
def test_every_priority_and_readiness_of_the_standard_is_taken(priority: str, readiness: str) -> None:
    """Table CC.2.5-3."""
    assert refused(step(ScheduledProcedureStepPriority=priority, InputReadinessState=readiness)) == 0


def test_a_code_may_be_long_or_a_urn() -> None:
    """PS3.3 8.1: more than 16 characters are a Long Code Value; a URN names its scheme by itself."""
    long, urn = Dataset(), Dataset()
    long.LongCodeValue, long.CodingSchemeDesignator, long.CodeMeaning = "lung-nodules-of-low-dose-ct", "99SITE", "Nodules"
    urn.URNCodeValue, urn.CodeMeaning = "urn:oid:1.2.3", "Nodules"
    kept, _ = made(step(ScheduledWorkitemCodeSequence=[long, urn]))
    assert codes_of(kept, "ScheduledWorkitemCodeSequence")[0] == ("lung-nodules-of-low-dose-ct", "99SITE", "Nodules")
    assert code(urn)[0] == "urn:oid:1.2.3"
    assert coded("a" * 17, "99X", "m").LongCodeValue == "a" * 17
    assert coded("a" * 16, "99X", "m").CodeValue == "a" * 16


def test_an_input_that_is_no_dicom_object_needs_no_uids() -> None:
    """Table CC.2.5-2c: Study and Series Instance UID are 1C, of DICOM instances."""
    item = given(TypeOfInstances="CDA", StudyInstanceUID=None, SeriesInstanceUID=None, DICOMRetrievalSequence=None)
    item.XDSRetrievalSequence = [but(Dataset(), RepositoryUniqueID="1.2")]
    assert refused(step(InputInformationSequence=[item])) == 0


def test_a_request_of_a_hundred_thousand_is_refused() -> None:
    """Anybody may send it; a study has fewer series."""
    assert refused(step(InputInformationSequence=[given() for _ in range(1001)])) == 0x0106


def test_sequences_lie_within_one_another_so_deep_and_no_deeper() -> None:
    """What is read by going into it is bounded."""
    for depth, is_kept in ((16, True), (17, False), (60, False)):
        inner = Dataset()
        for _ in range(depth - 1):
            inner = but(Dataset(), ConceptCodeSequence=[inner])
        said = but(Dataset(), ScheduledProcessingParametersSequence=[inner])
        if is_kept:
            assert dataset_of(model_of(said)) == said
            continue
        with pytest.raises(Refused) as refusal:
            model_of(said)
        assert refusal.value.status == 0x0106


@pytest.mark.parametrize(
    ("keyword", "vr", "value"),
    [
        *((keyword, "LO", "a text") for keyword in ("InputInformationSequence", "OutputDestinationSequence", "ReferencedRequestSequence")),
        *((keyword, "LO", "a text") for keyword in ("ScheduledStationGeographicLocationCodeSequence", "ScheduledWorkitemCodeSequence")),
        *((keyword, "SQ", [Dataset()]) for keyword in ("PatientID", "ProcedureStepLabel", "AdmissionID")),
    ],
)
def test_what_is_no_sequence_is_refused_where_one_belongs_and_the_other_way_round(keyword: str, vr: str, value: Any) -> None:
    """With Explicit VR a peer says what a value is; who reads it later goes by the dictionary."""
    said = step(**{keyword: None})
    said.add_new(keyword, vr, value)
    with pytest.raises(Refused) as refusal:
        model_of(made(said)[0])
    assert refusal.value.status == 0x0106


def test_the_inputs_and_the_study_of_a_step_are_read() -> None:
    """A step is about the study it names, or the only one of its inputs, or of its requests."""
    two = step(InputInformationSequence=[given(), given("1.2.4")], StudyInstanceUID=None)
    assert inputs_of(two) == {"1.2.3": {"1.2.3.1": ("1.2.3.1.1",)}, "1.2.4": {"1.2.4.1": ("1.2.4.1.1",)}}
    assert study_of(two) == ""
    assert study_of(step(StudyInstanceUID=None)) == "1.2.3"
    assert study_of(step(StudyInstanceUID="1.2.9")) == "1.2.9"
    asked = but(Dataset(), StudyInstanceUID="1.2.7")
    assert study_of(step(StudyInstanceUID=None, InputInformationSequence=[], ReferencedRequestSequence=[asked])) == "1.2.7"


# ---------------------------------------------------------------------------------------------------------------- change


def test_a_change_replaces_whole_sequences_and_leaves_the_rest() -> None:
    """PS3.4 CC.2.6.2."""
    held, _ = made(step(ScheduledStationNameCodeSequence=[term("A"), term("B")]))
    after = changed(held, setting(ScheduledStationNameCodeSequence=[term("C")], CommentsOnTheScheduledProcedureStep="soon"), NOW + 60)
    assert [item.CodeValue for item in after.ScheduledStationNameCodeSequence] == ["C"]
    assert (after.CommentsOnTheScheduledProcedureStep, after.ProcedureStepLabel, after.PatientID) == ("soon", "Lungs", "P1")
    assert start_of(but(step(), ScheduledProcedureStepStartDateTime=after.ScheduledProcedureStepModificationDateTime)) == NOW + 60
    assert [item.CodeValue for item in held.ScheduledStationNameCodeSequence] == ["A", "B"]


def test_a_change_twice_is_the_same_as_once() -> None:
    """CC.2.6: idempotent."""
    held, _ = made(step())
    said = setting(ProcedureStepProgressInformationSequence=[progress()])
    assert changed(changed(held, said, NOW), said, NOW) == changed(held, said, NOW)


@pytest.mark.parametrize(
    ("keyword", "value", "status"),
    [
        *(("ProcedureStepState", state, 0x0106) for state in ("SCHEDULED", "IN PROGRESS", "COMPLETED", "")),
        ("ScheduledProcedureStepPriority", "URGENT", 0x0106),
        ("ScheduledProcedureStepPriority", "", 0x0121),
        ("InputReadinessState", "SOON", 0x0106),
        ("ScheduledProcedureStepStartDateTime", "", 0x0121),
        ("InputInformationSequence", [given(ReferencedSOPSequence=[])], 0x0121),
    ],
)
def test_a_change_that_a_step_cannot_take_is_refused(keyword: str, value: Any, status: int) -> None:
    """PS3.4 CC.2.6: the state is changed by an action; what must have a value keeps one."""
    held, _ = made(step())
    with pytest.raises(Refused) as refusal:
        changed(held, setting(**{keyword: value}), NOW)
    assert refusal.value.status == status


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        *(("TransactionUID", "1.9"), ("SOPInstanceUID", "1.9"), ("SOPClassUID", "1.9"), ("PatientID", "P9"), ("PatientName", "Roe^R")),
        *(("StudyInstanceUID", "1.9"), ("ScheduledProcedureStepModificationDateTime", "2000")),
    ],
)
def test_what_names_the_step_or_its_patient_does_not_change(keyword: str, value: str) -> None:
    """Table CC.2.5-3: not allowed in N-SET."""
    held, _ = made(step())
    after = changed(held, but(Dataset(), **{keyword: value}), NOW)
    assert after.get(keyword) == held.get(keyword)


# ------------------------------------------------------------------------------------------------------------ final states


def ended_with(to: str, **said: Any) -> tuple[tuple[str, ...], Dataset]:
    held, _ = made(step())
    held = but(held, **said)
    return unfinished(held, JobState(to), NOW), held


@pytest.mark.parametrize(
    "keyword",
    [
        *("PerformedStationNameCodeSequence", "PerformedProcedureStepStartDateTime", "PerformedWorkitemCodeSequence"),
        *("PerformedProcedureStepEndDateTime", "OutputInformationSequence"),
    ],
)
def test_a_completed_step_says_what_was_performed(keyword: str) -> None:
    """Table CC.2.5-3, final state P: each alone is missed."""
    assert ended_with("COMPLETED", UnifiedProcedureStepPerformedProcedureSequence=[performed(**{keyword: None})])[0] == (keyword,)


def test_a_completed_step_without_any_of_it_does_not_end() -> None:
    """As above."""
    assert ended_with("COMPLETED")[0] == ("UnifiedProcedureStepPerformedProcedureSequence",)
    assert ended_with("COMPLETED", UnifiedProcedureStepPerformedProcedureSequence=[performed()])[0] == ()


def test_a_completed_step_may_have_made_nothing() -> None:
    """Output Information: zero items, but it is there."""
    assert ended_with("COMPLETED", UnifiedProcedureStepPerformedProcedureSequence=[performed(OutputInformationSequence=[])])[0] == ()


@pytest.mark.parametrize("reasons", [None, [], [Dataset()]])
def test_a_canceled_step_says_why(reasons: Any) -> None:
    """Table CC.2.5-3, final state X: a term, not an empty item."""
    said = [progress(ProcedureStepDiscontinuationReasonCodeSequence=reasons)]
    assert ended_with("CANCELED", ProcedureStepProgressInformationSequence=said)[0] == ("ProcedureStepDiscontinuationReasonCodeSequence",)


def test_when_a_step_was_canceled_the_manager_fills_in() -> None:
    """Table CC.2.5-3, final state X: the manager says when, unless the performer did."""
    why = [term("110501", "DCM")]
    missing, held = ended_with("CANCELED", ProcedureStepProgressInformationSequence=[progress(ProcedureStepDiscontinuationReasonCodeSequence=why)])
    (item,) = held.ProcedureStepProgressInformationSequence
    assert missing == ()
    assert start_of(but(step(), ScheduledProcedureStepStartDateTime=item.ProcedureStepCancellationDateTime)) == NOW
    said = progress(ProcedureStepDiscontinuationReasonCodeSequence=why, ProcedureStepCancellationDateTime="20260101")
    _, held = ended_with("CANCELED", ProcedureStepProgressInformationSequence=[said])
    assert held.ProcedureStepProgressInformationSequence[0].ProcedureStepCancellationDateTime == "20260101"


def test_a_step_canceled_without_progress_lacks_a_reason() -> None:
    """As above."""
    assert ended_with("CANCELED")[0] == ("ProcedureStepDiscontinuationReasonCodeSequence",)


# ------------------------------------------------------------------------------------------------------------ what is hidden


def test_the_transaction_uid_is_hidden_at_every_depth() -> None:
    """PS3.4 CC.2.7: shown to nobody."""
    secret = transaction()
    deep = but(Dataset(), TransactionUID=secret, CodeMeaning="kept")
    said = step(TransactionUID=secret, ScheduledProcessingParametersSequence=[but(Dataset(), TransactionUID=secret, ConceptCodeSequence=[deep])])
    shown = hidden(said)
    unspoken([shown], [secret])
    assert shown.ScheduledProcessingParametersSequence[0].ConceptCodeSequence[0].CodeMeaning == "kept"
    assert said.TransactionUID == secret


# ------------------------------------------------------------------------------------------------------- texts of the world


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        (None, "Doe^Jane"),
        ("ISO_IR 100", "Müller^Jürg"),
        ("ISO_IR 144", "Люкceмбypг"),
        ("ISO_IR 126", "Διονυσιος"),
        ("ISO_IR 192", "Wang^XiaoDong=王^小東"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    ],
)
def test_a_name_in_whatever_characters_is_kept_and_told_again(charset: Any, name: str) -> None:
    """PS3.5 6.1: what came in one character set goes out in it."""
    said = sent(step(SpecificCharacterSet=charset, PatientName=name))
    kept, _ = made(said)
    again = sent(dataset_of(model_of(kept)))
    assert str(again.PatientName) == name


def test_a_change_in_other_characters_spoils_none_of_those_that_are_there() -> None:
    """A request in UTF-8 and a performer in Latin-1: both are read again."""
    held, _ = made(sent(step(SpecificCharacterSet="ISO_IR 192", PatientName="Wang^XiaoDong=王^小東")))
    said = sent(setting(SpecificCharacterSet="ISO_IR 100", CommentsOnTheScheduledProcedureStep="für Jürg"))
    again = sent(dataset_of(model_of(changed(dataset_of(model_of(held)), said, NOW))))
    assert str(again.PatientName) == "Wang^XiaoDong=王^小東"
    assert again.CommentsOnTheScheduledProcedureStep == "für Jürg"


def test_a_change_without_a_character_set_is_told_in_that_of_the_step() -> None:
    """ASCII is in every one."""
    held, _ = made(sent(step(SpecificCharacterSet="ISO_IR 100", PatientName="Müller")))
    again = sent(dataset_of(model_of(changed(held, sent(setting(ProcedureStepLabel="Now")), NOW))))
    assert (str(again.PatientName), again.ProcedureStepLabel) == ("Müller", "Now")


def sent(said: Dataset) -> Dataset:
    """Return a data set as it arrives at the other end."""
    buffer = BytesIO()
    said.save_as(buffer, implicit_vr=False, little_endian=True)
    buffer.seek(0)
    arrived = dcmread(buffer, force=True)
    arrived.decode()
    return arrived


KEYWORDS = st.sampled_from(
    [
        *("ScheduledProcedureStepStartDateTime", "ProcedureStepLabel", "WorklistLabel", "PatientName", "PatientID", "PatientBirthDate"),
        *("CommentsOnTheScheduledProcedureStep", "PatientWeight", "SeriesNumber", "AdmissionID", "ReferencedFrameNumber", "TimezoneOffsetFromUTC"),
    ]
)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=200, deadline=None)
@over(KEYWORDS, st.binary(max_size=70))
def test_whatever_bytes_a_value_has_a_step_is_refused_or_can_be_told_again(keyword: str, value: bytes) -> None:
    """A step that could be created and not be read again would stop every worklist search."""
    said = step()
    said.pop(keyword, None)
    raw = (
        written(said)
        + bytes.fromhex(tag_of(keyword))
        + vr_of(keyword)
        + len(padded := value + b" " * (len(value) % 2)).to_bytes(2, "little")
        + padded
    )
    arrived = dcmread(BytesIO(raw), force=True)
    try:
        arrived.decode()
        for element in arrived.iterall():
            _ = element.value
    except Exception:  # such a request is refused before anything else
        return
    try:
        kept, _ = made(arrived)
        model = model_of(kept)
    except Refused:
        return
    json.dumps(model, allow_nan=False)  # a database takes no other
    for implicit in (True, False):
        dataset_of(model).save_as(BytesIO(), implicit_vr=implicit, little_endian=True)


def written(said: Dataset) -> bytes:
    buffer = BytesIO()
    said.save_as(buffer, implicit_vr=False, little_endian=True)
    return buffer.getvalue()


def vr_of(keyword: str) -> bytes:
    vr = dictionary_VR(keyword).encode()
    return vr if len(vr) == 2 else b"LO"


def tag_of(keyword: str) -> str:
    tag = Tag(keyword)
    return (tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little")).hex()
