"""Earlier studies of a patient: which are asked for, how they are found, and what a job does without them."""

from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.assemble.selection import select
from dicom_node.config import PriorsWanted
from dicom_node.domain import PeerUnavailable, Prior, Priors, PriorsState
from dicom_node.query.priors import Candidate, Current, candidates, chosen, keys_of
from dicom_node.query.seeking import Seeking
from dicom_node.serve import suiting
from tests import phantoms
from tests.reported import NOW, Node

FAKES = Path(__file__).parent / "models"
HERE = Current(study_instance_uid="1.9", patient_id="P1", issuer="", birth_date="19500101", study_date="20240301", study_time="101500")
ASKED = Priors(ask=("pacs",), count=1, within_days=365.0, modalities=frozenset({"CT"}), body_parts=frozenset({"CHEST"}), wait_at_most_s=600.0)


def _study(uid="1.1", date="20230901", **said):
    told = {"PatientID": "P1", "StudyInstanceUID": uid, "StudyDate": date, "ModalitiesInStudy": ["CT", "SR"], "NumberOfStudyRelatedInstances": "9"}
    return told | said


def _found(*answers, asked=ASKED, current=HERE):
    return [one.study_instance_uid for one in candidates(current, asked, [("pacs", answer) for answer in answers])]


# -------------------------------------------------------------------------------------------------------------- choosing


def test_a_patient_is_asked_for_by_id_and_window_and_never_by_name():
    """PS3.4 C.6.2.1: two patients may share a name."""
    keys = keys_of(HERE, ASKED)
    assert (keys["PatientID"], keys["StudyDate"]) == ("P1", "20230302-20240301") and "PatientName" not in keys


def test_what_an_archive_answers_beside_the_question_is_not_believed():
    """A key that it does not support it ignores."""
    strange = [
        _study(PatientID="P2"),
        _study(date="20200101"),
        _study(date="20240302"),
        _study(ModalitiesInStudy="MR"),
        _study(PatientBirthDate="19600101"),
        _study(uid="1.9"),
        _study(uid=""),
    ]
    assert _found(*strange) == []


def test_issuers_that_differ_are_two_patients():
    """One number of two hospitals (PS3.3 C.2.2)."""
    ours = replace(HERE, issuer="A")
    assert _found(_study(IssuerOfPatientID="B"), current=ours) == []
    assert _found(_study(IssuerOfPatientID="A"), _study(uid="1.2"), current=ours) == ["1.2", "1.1"]


def test_the_newest_come_first_and_of_the_same_day_only_earlier_ones():
    """A study of this morning is a prior of this afternoon's."""
    answers = [_study("1.1"), _study("1.2", "20240301", StudyTime="080000"), _study("1.3", "20240301", StudyTime="120000"), _study("1.4", "20231001")]
    assert _found(*answers) == ["1.2", "1.4", "1.1"]


def test_the_body_part_is_compared_where_it_is_said():
    """Body Part Examined is optional: a study that does not say what it shows is taken."""
    said = {"1.1": ["HEAD"], "1.2": ["HEAD", "chest"], "1.3": [""]}
    asked_for = []

    def series_of(one: Candidate):
        asked_for.append(one.study_instance_uid)
        return [{"Modality": "CT", "BodyPartExamined": part} for part in said[one.study_instance_uid]]

    found = candidates(HERE, ASKED, [("pacs", _study("1.1", "20240101")), ("pacs", _study("1.2", "20231201")), ("pacs", _study("1.3", "20231101"))])
    assert [one.study_instance_uid for one in chosen(ASKED, found, series_of)] == ["1.2"]
    assert asked_for == ["1.1", "1.2"]
    assert [one.study_instance_uid for one in chosen(replace(ASKED, count=5), found, series_of)] == ["1.2", "1.3"]


def test_what_the_ledger_keeps_of_priors_is_what_was_known():
    """Round trip, as JSON."""
    known = replace(ASKED, state=PriorsState.FETCHING, studies=(Prior(study_instance_uid="1.1", study_date="", source="pacs", inputs={"a": (1, 2)}),))
    assert Priors.of_row(known.as_row(), "FETCHING") == known


# ------------------------------------------------------------------------------------------------------------ in a node


@pytest.fixture
def node(tmp_path):
    made = Node(tmp_path, {"compares": FAKES / "compares"})
    (rule,) = made.site.config.rules
    asking = rule.model_copy(update={"priors": PriorsWanted(ask=("pacs",), within_days=4000)})
    made.site = replace(made.site, config=made.site.config.model_copy(update={"rules": (asking,)}))
    yield made
    made.close()


def _images(date, number):
    said = {"StudyDate": date, "StudyInstanceUID": f"2.25.{number}", "SeriesInstanceUID": f"2.25.{number}1", "FrameOfReferenceUID": f"2.25.{number}2"}
    made = phantoms.series(**said)
    for index, image in enumerate(made):
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"2.25.{number}3.{index}"
    return made


class _Archive:
    """What a remote would answer."""

    def __init__(self, node: Node, *answers, fate: str | None = "") -> None:
        self.answers = list(answers)
        self.fate = fate
        self.away = False
        self.fetched: list[str] = []
        self._node = node

    def seeking(self, now) -> Seeking:
        site = self._node.site
        return Seeking(
            self._node.store,
            lambda: now,
            find=self._find,
            fetch=lambda _job, _remote, uid: self.fetched.append(uid),
            fate=lambda _job, _uid: self.fate,
            suits=suiting(site.models, select),
        )

    def _find(self, remote, level, _keys):
        if self.away:
            raise PeerUnavailable(f"{remote} refuses the connection")
        return self.answers if level == "STUDY" else [{"Modality": "CT", "BodyPartExamined": ""}]


def _told(node, job):
    return " ".join(item.value for item in dcmread(node.file(job)).iterall() if item.keyword == "TextValue")


def test_a_job_waits_for_an_earlier_study_that_is_fetched_and_compares_with_it(node):
    """The model sees both; the report names the other study's images as pertinent other evidence (PS3.3 C.17.2)."""
    earlier, now = _images("20230101", 71), _images("20240101", 72)
    node.receive(now)
    assert node.work() == ()
    archive = _Archive(node, _study("2.25.71", "20230101", PatientID=str(now[0].PatientID)), fate=None)
    assert archive.seeking(NOW + 120).turn() == 0 and archive.fetched == ["2.25.71"]
    assert archive.seeking(NOW + 121).turn() == 0  # it is under way
    node.receive(earlier)
    archive.fate = ""
    assert archive.seeking(NOW + 122).turn() == 1
    job = next(one for one in node.work() if one.study_instance_uid == "2.25.72")
    report = dcmread(node.file(job))
    assert {one.StudyInstanceUID for one in report.CurrentRequestedProcedureEvidenceSequence} == {"2.25.72"}
    assert {one.StudyInstanceUID for one in report.PertinentOtherEvidenceSequence} == {"2.25.71"}
    assert "Earlier studies of the patient that are here: of 2023-01-01 (from pacs)." in _told(node, job)


def test_an_earlier_study_that_is_here_is_not_fetched(node):
    """Nothing is done twice."""
    uid = node.receive(_images("20230101", 71))
    node.receive(_images("20240101", 72))
    node.work()
    archive = _Archive(node)
    assert archive.seeking(NOW + 210).turn() >= 1 and archive.fetched == []
    job = next(one for one in node.work() if one.study_instance_uid == "2.25.72")
    assert job.priors.studies[0].study_instance_uid == uid and job.priors.studies[0].inputs["before"]


def test_without_an_answer_the_job_runs_at_its_deadline_and_says_so(node):
    """A dead archive keeps nobody waiting."""
    node.receive(_images("20240101", 72))
    node.work()
    archive = _Archive(node)
    archive.away = True
    assert archive.seeking(NOW + 200).turn() == 0
    (job,) = node.store.priors.going_on()
    assert job.not_before == NOW + 110 + 600
    assert node.store.jobs.claim("here", ["compares"], now=job.not_before - 1, lease_s=60) is None
    node._now = job.not_before
    (done,) = node.work()
    assert "Earlier studies were asked for; they had not come after 600 s, and the analysis was made without them." in _told(node, done)


def test_shortly_before_the_deadline_a_job_goes_with_what_there_is(node):
    """What is held is used, and who did not answer is named."""
    node.receive(_images("20230101", 71))
    node.receive(_images("20240101", 72))
    node.work()
    archive = _Archive(node)
    archive.away = True
    (job,) = (one for one in node.store.priors.going_on() if one.study_instance_uid == "2.25.72")
    archive.seeking(job.not_before - 0.5).turn()
    priors = node.store.jobs.get(job.id).priors
    assert priors.why == "Earlier studies of the patient that are here: of 2023-01-01; pacs did not answer." and priors.inputs["before"]


def test_a_study_that_cannot_be_fetched_is_named_with_its_reason(node):
    """Every study can explain itself."""
    (first, *_) = now = _images("20240101", 72)
    node.receive(now)
    node.work()
    archive = _Archive(node, _study("2.25.71", "20230101", PatientID=str(first.PatientID)), fate="the peer refuses")
    archive.seeking(NOW + 118).turn()
    assert archive.seeking(NOW + 119).turn() == 1
    (done,) = node.work()
    assert "one of 2023-01-01 was not fetched from pacs: the peer refuses." in _told(node, done)


def test_a_job_that_is_repeated_looks_for_its_priors_anew(node):
    """The archive may be back."""
    node.receive(_images("20240101", 72))
    node.work()
    _Archive(node).seeking(NOW + 120).turn()
    (done,) = node.work()
    again = node.store.jobs.again(done.id, who="me", now=NOW + 500)
    assert (again.priors.state, again.not_before) == (PriorsState.SOUGHT, NOW + 1100)


def test_an_archive_that_was_silent_is_not_asked_at_once_again(node):
    """It doubles, up to a minute."""
    node.receive(_images("20240101", 72))
    node.work()
    archive, now = _Archive(node), [NOW + 120]
    archive.away = True
    asked = []
    seeking = Seeking(
        node.store,
        lambda: now[0],
        find=lambda *of: asked.append(of) or archive._find(*of),
        fetch=lambda *_: None,
        fate=lambda *_: "",
        suits=lambda *_: {},
    )
    for second in (0, 1, 2.5, 3, 7):
        now[0] = NOW + 120 + second
        seeking.turn()
    assert len(asked) == 3
