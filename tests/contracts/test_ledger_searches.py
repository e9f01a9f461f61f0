"""Searches, a page at a time: what they mean is what queries mean, in an order that stays, and what is not on a page is counted."""

import random
from dataclasses import replace

import pytest

from dicom_node.domain import HEADER_KEYWORDS
from dicom_node.store import UNIQUE_KEYS, Level, Store, searches
from dicom_node.store.match import span
from tests.contracts.arrange import STUDY, arrive, finished, instance_of, sealed
from tests.walks import hospital
from tests.walks.questions import questions
from tests.walks.test_query_oracle import row_of

QUESTIONS = 60


def admitted(store: Store) -> list[dict[str, str]]:
    """Let a small hospital's images come in, and return what each says of what is asked for."""
    rows = []
    for number, dataset in enumerate(hospital.instances()):
        header = {
            keyword: plain(dataset[keyword].value) for keyword in HEADER_KEYWORDS if keyword in dataset and dataset[keyword].value not in (None, "")
        }
        data, study = f"image {number}".encode(), str(dataset.StudyInstanceUID)
        names = {"sop_instance_uid": str(dataset.SOPInstanceUID), "sop_class_uid": str(dataset.SOPClassUID)}
        one = replace(instance_of(data, sealed(store, data, study), study=study), series_instance_uid=str(dataset.SeriesInstanceUID), **names)
        store.instances.record(replace(one, header=header))
        rows.append(row_of(dataset))
    return rows


def plain(value: object) -> object:
    if isinstance(value, int):
        return int(value)
    return str(value) if isinstance(value, str) or hasattr(value, "components") else [str(one) for one in value]


def place(level: str, one: dict[str, object]) -> tuple[str, ...]:
    """Return what searches are ordered by, with the newest last day first."""
    day = span("DA", str(one["StudyDate"]))
    newest = "".join(chr(ord("9") - ord(figure) + ord("0")) for figure in day[0]) if day else "~"
    return newest, *(
        str(one[UNIQUE_KEYS[each]]) for each in (Level.STUDY, Level.SERIES, Level.IMAGE)[: ("STUDY", "SERIES", "IMAGE").index(level) + 1]
    )


def of_one_moment(keys: dict[str, str]) -> bool:
    """Say whether date and time are compared each by itself, as queries do."""
    return not all("-" in keys.get(keyword, "") for keyword in ("StudyDate", "StudyTime"))


def test_a_search_means_what_a_query_means_page_by_page(store, monkeypatch):
    """The same questions as of the archives that are compared; whatever the pages' size, and with little read at a time."""
    monkeypatch.setattr(searches, "_PAGE", 7)
    monkeypatch.setattr(searches, "_LEAST", 2)
    rows, chance, answered = admitted(store), random.Random(3), 0
    asked = [(one.level, {**one.keys}) for one in questions(rows, QUESTIONS) if one.level != "PATIENT" and of_one_moment(one.keys)]
    asked += [("SERIES", {}), ("IMAGE", {}), ("IMAGE", {"Modality": "CT"}), ("SERIES", {"Modality": "M*"}), ("IMAGE", {"PatientName": "*o*"})]
    asked += [
        ("IMAGE", {"InstanceNumber": "2"}),
        ("IMAGE", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "Modality": "CT"}),
        ("STUDY", {"ModalitiesInStudy": "CT"}),
    ]
    for level, keys in asked:
        meant = sorted(store.holdings.find(level, keys), key=lambda one, at=level: place(at, one))
        limit, found, offset = chance.choice((1, 3, 10, 1000)), [], 0
        for _ in range(4):
            page = store.searches.page(level, keys, offset=offset, limit=limit)
            assert [*page.found] == meant[offset : offset + limit], (level, keys)
            assert page.all_counted and not page.too_broad
            assert page.remaining == max(len(meant) - offset - limit, 0), (level, keys)
            found += page.found
            offset = min(offset + limit, max(len(meant) - limit, 0))
        answered += bool(found)
    assert answered > len(asked) // 2


def test_a_range_of_dates_and_one_of_times_are_one_range_of_moments(store):
    """PS3.18 8.3.4.1; C-FIND takes each by itself unless it is negotiated (PS3.4 C.5)."""
    moments = [("20240101", "0900"), ("20240101", "1100"), ("20240102", "0800"), ("20240103", "2000"), ("20240103", ""), ("", "1200")]
    for number, (date, time) in enumerate(moments):
        arrive(store, study=f"{STUDY}.{number}", StudyDate=date, StudyTime=time)
    for dates, times, meant in (
        ("20240101-20240103", "1000-1900", "1245"),
        ("20240101-", "1000-", "12345"),
        ("-20240102", "-0830", "0125"),
        ("20240101-20240103", "1000-", "12345"),
        ("20240101-20240103", "*", "012345"),
        ("20240101", "1000-1900", "15"),
    ):
        page = store.searches.page("STUDY", {"StudyDate": dates, "StudyTime": times}, limit=9)
        assert sorted(one["StudyInstanceUID"][-1] for one in page.found) == [*meant], (dates, times)


def test_results_are_found_among_the_images(store):
    """By series, and then by UID."""
    finished(store, kinds=["SEG"])
    page = store.searches.page("IMAGE", {}, limit=1)
    assert (len(page.found), page.remaining) == (1, 1)
    [other] = store.searches.page("IMAGE", {}, offset=1, limit=5).found
    assert {page.found[0]["SOPInstanceUID"], other["SOPInstanceUID"]} == {one["SOPInstanceUID"] for one in store.holdings.find("IMAGE", {})}
    assert store.searches.page("IMAGE", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}, limit=5).found[0]["StudyInstanceUID"] == STUDY


def test_what_is_behind_a_page_is_counted_up_to_a_bound_and_what_is_before_it_is_searched_up_to_one(store, monkeypatch):
    """Whoever asks by what only the headers say does not make the node read all of them."""
    for number in range(12):
        arrive(store, number, study=f"{STUDY}.{number}", StudyDescription=f"a description {number}")
    monkeypatch.setattr(searches, "_PAGE", 2)
    monkeypatch.setattr(searches, "_COUNTED", 4)
    page = store.searches.page("STUDY", {"StudyDescription": "a*"}, limit=2)
    assert (len(page.found), page.all_counted, page.too_broad) == (2, False, False) and 0 < page.remaining < 10
    assert store.searches.page("STUDY", {}, limit=2).remaining == 10, "that costs nothing"
    monkeypatch.setattr(searches, "_LOOKED_AT", 6)
    page = store.searches.page("IMAGE", {"InstanceNumber": "11"}, limit=2)
    assert (page.found, page.too_broad) == ((), True)


@pytest.mark.parametrize("level", ["STUDY", "SERIES", "IMAGE"])
def test_pages_are_cut_out_of_the_same_order(store, level):
    """By date, the newest first, then by UID; without a date last."""
    for number, day in enumerate(("20240101", "", "20250101", "20240101")):
        for image in (1, 2):
            arrive(store, image, study=f"{STUDY}.{number}", StudyDate=day)
    whole = store.searches.page(level, {}, limit=100).found
    assert [*whole] == [one for at in range(len(whole)) for one in store.searches.page(level, {}, offset=at, limit=1).found]
    assert [*dict.fromkeys(one["StudyInstanceUID"][-1] for one in whole)] == ["2", "0", "3", "1"]
    page = store.searches.page(level, {}, offset=len(whole), limit=3)
    assert (page.found, page.remaining) == ((), 0)
    assert store.searches.page(level, {"StudyInstanceUID": f"{STUDY}.1\\{STUDY}.2"}, limit=0).remaining == len(whole) // 2
