"""What the node holds, as queries and retrievals ask for it: the same answers from both databases."""

from dataclasses import replace

import pytest

from dicom_node.domain import REJECTION
from dicom_node.store import Level, Store, holdings
from tests.contracts.arrange import NOW, STUDY, arrive, claimed, finished, judged, result_of, waiting, written

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
DOE = {"PatientName": "Müller^Jörg", "PatientID": "MARKED_1", "StudyDate": "20240131", "StudyTime": "101500", "AccessionNumber": "A%1"}
ROE = {"PatientName": "Roe^Richard", "PatientID": "MARKED%1", "StudyDate": "2024.02.01", "StudyTime": "1016", "AccessionNumber": ""}


@pytest.fixture
def two(store):
    """Two studies: of two CT images, and of an MR image that came before without its patient's ID."""
    for number in (1, 2):
        arrive(store, number, study=f"{STUDY}.1", StudyDescription="Chest 50% dose", SeriesDescription="lung", **DOE)
    arrive(store, 1, study=f"{STUDY}.2", **ROE | {"Modality": "MR", "StudyID": "7"})
    return store


def studies(store, level="STUDY", **keys):
    """Return the last figure of the studies that keys mean."""
    return sorted(one["StudyInstanceUID"][-1] for one in store.holdings.find(level, keys))


@pytest.mark.parametrize(
    ("keys", "meant"),
    [
        ({}, "12"),
        ({"PatientName": ""}, "12"),
        ({"PatientName": "MULLER*"}, "1"),
        ({"PatientName": "*^richard"}, "2"),
        ({"PatientName": "muller^jorg"}, "1"),
        ({"PatientName": "muller"}, ""),
        ({"PatientID": "MARKED_1"}, "1"),
        ({"PatientID": "MARKED?1"}, "12"),
        ({"PatientID": "marked_1"}, ""),
        ({"PatientID": "MARKED%*"}, "2"),
        ({"StudyDate": "20240201"}, "2"),
        ({"StudyDate": "20240131-20240201"}, "12"),
        ({"StudyDate": "-20240131"}, "1"),
        ({"StudyDate": "2024.02.01-"}, "2"),
        ({"StudyDate": "20240201", "StudyTime": "1000-1015"}, ""),
        ({"StudyTime": "1000-1015"}, "1"),
        ({"StudyTime": "101630"}, "2"),
        ({"AccessionNumber": "A%1"}, "12"),  # the other has none: a required key
        ({"AccessionNumber": "A%2"}, "2"),
        ({"StudyDescription": "Chest*"}, "1"),
        ({"StudyDescription": "*50% dose"}, "1"),
        ({"StudyDescription": "chest*"}, ""),
        ({"ModalitiesInStudy": "MR\\SR"}, "2"),
        ({"ModalitiesInStudy": ["C?"]}, "1"),
        ({"SOPClassesInStudy": "1.2.840.10008.5.1.4.1.1.2"}, "12"),
        ({"StudyInstanceUID": f"{STUDY}.1\\{STUDY}.3"}, "1"),
        ({"NumberOfStudyRelatedInstances": "2"}, "1"),
        ({"Modality": "MR"}, "12"),  # no key of this level: not supported, and so nothing is asked
    ],
)
def test_studies_are_found_by_every_kind_of_matching(two, keys, meant):
    """PS3.4 C.2.2.2."""
    assert studies(two, **keys) == list(meant)


def test_each_level_has_its_attributes_and_those_above(two):
    """PS3.4 C.6.1.1 and C.6.2.1: counts, modalities and SOP classes among them; what is unknown is there, and empty."""
    [patient] = two.holdings.find(Level.PATIENT, {"PatientID": "MARKED_1"})
    assert patient["NumberOfPatientRelatedStudies"] == 1 and patient["NumberOfPatientRelatedInstances"] == 2
    [study] = two.holdings.find(Level.STUDY, {"PatientID": "MARKED_1"})
    assert (study["PatientName"], study["PatientBirthDate"], study["StudyDate"]) == ("Müller^Jörg", "", "20240131")
    assert (study["ModalitiesInStudy"], study["SOPClassesInStudy"]) == (["CT"], ["1.2.840.10008.5.1.4.1.1.2"])
    assert (study["NumberOfStudyRelatedSeries"], study["NumberOfStudyRelatedInstances"], study["InstanceAvailability"]) == (1, 2, "ONLINE")
    [series] = two.holdings.find(Level.SERIES, {"StudyInstanceUID": f"{STUDY}.1", "Modality": "CT", "SeriesDescription": "l*"})
    assert (series["NumberOfSeriesRelatedInstances"], series["PatientID"], series["SeriesNumber"]) == (2, "MARKED_1", "")
    images = [*two.holdings.find(Level.IMAGE, {"SeriesInstanceUID": f"{STUDY}.1.1", "InstanceNumber": ""})]
    assert [(one["InstanceNumber"], one["SOPInstanceUID"][-4:], one["Modality"]) for one in images] == [(1, ".1.1", "CT"), (2, ".1.2", "CT")]
    assert [one["InstanceNumber"] for one in two.holdings.find(Level.IMAGE, {"SeriesInstanceUID": f"{STUDY}.1.1", "InstanceNumber": "02"})] == [2]


def test_a_patient_is_answered_once_whatever_the_studies(store):
    """Who has no ID is told apart by name."""
    for number in (1, 2, 3):
        arrive(store, study=f"{STUDY}.{number}", **DOE)
    arrive(store, study=f"{STUDY}.4", **DOE | {"PatientID": "", "PatientName": "A"})
    arrive(store, study=f"{STUDY}.5", **DOE | {"PatientID": "", "PatientName": "B"})
    found = {one["PatientName"]: one["NumberOfPatientRelatedStudies"] for one in store.holdings.find("PATIENT", {"PatientName": "*"})}
    assert found == {"A": 1, "B": 1, "Müller^Jörg": 3}


def test_the_index_follows_what_comes_and_what_goes(two):
    """It is brought up to date before a query is answered, and by nobody else."""
    assert two.holdings.refresh() == 2 and two.holdings.refresh() == 0
    arrive(two, 3, study=f"{STUDY}.1", **DOE | {"Modality": "PT"})
    assert two.holdings.refresh() == 1
    [study] = two.holdings.find("STUDY", {"StudyInstanceUID": f"{STUDY}.1"})
    assert study["NumberOfStudyRelatedInstances"] == 3
    two.studies.hide(two.studies.view(f"{STUDY}.2"), [f"{STUDY}.2.1.1"], who="PACS", why="rejected", now=NOW)
    assert studies(two) == ["1"]
    arrive(two, 4, study=f"{STUDY}.1", **DOE)
    judged(two, f"{STUDY}.1")
    [study] = two.holdings.find("STUDY", {"StudyInstanceUID": f"{STUDY}.1"})
    assert study["NumberOfStudyRelatedInstances"] == 4
    two.studies.purge(f"{STUDY}.1", who="test", why="test")
    assert studies(two) == [] and [*two.holdings.find("SERIES", {})] == []


def test_another_version_of_an_instance_takes_the_place_of_the_first(store):
    """The current one is what is held."""
    arrive(store, content=b"first", SeriesDescription="first")
    assert [one["SeriesDescription"] for one in store.holdings.find("SERIES", {})] == ["first"]
    arrive(store, content=b"second", SeriesDescription="second")
    assert [(one["SeriesDescription"], one["NumberOfSeriesRelatedInstances"]) for one in store.holdings.find("SERIES", {})] == [("second", 1)]


def test_valid_results_are_held_with_their_study(store):
    """With their own header; what is invalid, or rejects others, is not."""
    waiting(store)
    store.holdings.refresh()
    job = claimed(store)
    seg = replace(result_of(store, job), header={"Modality": "SEG", "InstanceNumber": 1, "PatientID": "MARKED"})
    assert store.jobs.complete(job, [seg, result_of(store, job, REJECTION)], now=NOW, why="made it")
    [study] = store.holdings.find("STUDY", {"ModalitiesInStudy": "SEG"})
    assert (study["ModalitiesInStudy"], study["NumberOfStudyRelatedInstances"]) == (["CT", "SEG"], 2)
    [image] = store.holdings.find("IMAGE", {"SOPInstanceUID": seg.sop_instance_uid})
    assert (image["SOPClassUID"], image["Modality"], image["StudyInstanceUID"]) == (SEG, "SEG", STUDY)
    [file] = store.holdings.files("IMAGE", {"SOPInstanceUID": seg.sop_instance_uid})
    assert store.archive.path(file.path).stat().st_size == file.size_bytes > 0
    assert store.jobs.results(job.id)[0].header == seg.header


def test_results_in_quarantine_are_not_held(store):
    """None of a job of which one is invalid."""
    waiting(store)
    job = claimed(store)
    store.jobs.reject(job, [result_of(store, job, problem="no"), result_of(store, job, "SR")], now=NOW, why="a result is invalid")
    [study] = store.holdings.find("STUDY", {})
    assert study["NumberOfStudyRelatedInstances"] == 1


def test_a_result_that_came_in_again_is_held_once(store):
    """A PACS sends the study on, results included."""
    job = finished(store, kinds=["SEG"])
    [seg] = store.jobs.results(job.id)
    again = {"sop_instance_uid": seg.sop_instance_uid, "sop_class_uid": SEG, "series_instance_uid": seg.series_instance_uid}
    received = replace(written(store, 2), **again)
    store.instances.record(received)
    assert [one.path for one in store.holdings.files("IMAGE", {"SOPInstanceUID": seg.sop_instance_uid})] == [received.path]
    [study] = store.holdings.find("STUDY", {})
    assert study["NumberOfStudyRelatedInstances"] == 2


def test_what_a_retrieval_sends_is_at_its_place(two):
    """PS3.4 C.4.2: by the unique keys of the level and those above; files that have just come are moved first."""
    files = two.holdings.files
    [first, second] = files("STUDY", {"StudyInstanceUID": f"{STUDY}.1"})
    assert [one.sop_instance_uid for one in (first, second)] == [f"{STUDY}.1.1.1", f"{STUDY}.1.1.2"]
    assert all((two.archive.root / one.path).stat().st_size == one.size_bytes for one in (first, second))
    assert files("SERIES", {"StudyInstanceUID": f"{STUDY}.1", "SeriesInstanceUID": f"{STUDY}.1.1"}) == (first, second)
    assert files("PATIENT", {"PatientID": "MARKED_1", "StudyInstanceUID": f"{STUDY}.2"}) == (first, second)  # a key of a lower level
    assert files("IMAGE", {"SOPInstanceUID": [second.sop_instance_uid, "1.2.3"]}) == (second,)
    assert files("STUDY", {"PatientID": "MARKED%1", "StudyInstanceUID": f"{STUDY}.1"}) == ()
    assert files("STUDY", {"StudyInstanceUID": ""}) == files("IMAGE", {}) == ()


@pytest.fixture
def small_pages(monkeypatch):
    monkeypatch.setattr(holdings, "_PAGE", 3)


@pytest.mark.usefixtures("small_pages")
def test_more_than_a_page_is_given_to_the_last(store):
    """Streamed, newest first; a limit ends it."""
    for number in range(10):
        for image in (1, 2):
            arrive(store, image, study=f"{STUDY}.{number}", **DOE | {"PatientID": number % 4})
    for level, many in {"PATIENT": 4, "STUDY": 10, "SERIES": 10, "IMAGE": 20}.items():
        found = [tuple(map(str, one.values())) for one in store.holdings.find(level, {"PatientName": "mul*"})]
        assert len(found) == len(set(found)) == many
    assert len([*store.holdings.find("STUDY", {}, limit=7)]) == 7
    assert len(store.holdings.files("PATIENT", {"PatientID": "1"})) == 6


@pytest.mark.usefixtures("small_pages")
def test_a_query_under_way_goes_on_while_studies_change(store):
    """Entries keep their numbers; what is gone is left out."""
    for number in range(10):
        arrive(store, 1, study=f"{STUDY}.{number}")
    found = store.holdings.find("STUDY", {})
    seen = [next(found)["StudyInstanceUID"]]
    arrive(store, 2, study=f"{STUDY}.0")
    store.holdings.refresh()
    store.studies.purge(f"{STUDY}.1", who="test", why="test")
    seen += [one["StudyInstanceUID"] for one in found]
    assert len(seen) == 9 and f"{STUDY}.0" in seen


def test_any_number_of_unique_keys_is_answered(two):
    """A database takes only so many parameters."""
    uids = [f"1.2.3.{number}" for number in range(40_000)]
    assert studies(two, StudyInstanceUID=[*uids, f"{STUDY}.2"]) == ["2"]
    assert studies(two, PatientName=[*uids[:200], "roe*"]) == ["2"]
    assert studies(two, StudyDescription="x" * 100_000) == studies(two, StudyDescription="*" + "x" * 100_000) == []


def test_what_another_process_has_received_is_found_at_once(two, storage, address):
    """What is remembered of the index holds only until somebody commits."""
    assert (studies(two), studies(two)) == (["1", "2"], ["1", "2"])
    other = Store.open(storage, address)
    arrive(other, 1, study=f"{STUDY}.3", **ROE)
    other.close()
    assert (studies(two), two.holdings.refresh()) == (["1", "2", "3"], 0)
