"""What was measured leaves as a table: the reports' numbers, their codes and units, and nobody's name."""

import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet
from pydicom import Dataset, dcmread

from dicom_node.config import bundled
from dicom_node.export import COLUMNS, RESEARCH_USE, export_measurements, read_table, rows_of
from tests import drawn, phantoms
from tests.models_proof.test_measure import walk
from tests.reported import NOW, Node
from tests.test_cli import failed

FAKES = Path(__file__).parent / "models"
PATIENT = {
    "PatientName": "Quixotry^Zephyrine",
    "PatientID": "PID-7Q4X9Z",
    "PatientBirthDate": "19430721",
    "AccessionNumber": "ACC7Q4X9Z",
    "StudyID": "SID7Q4X9Z",
    "ReferringPhysicianName": "Zephyrine^Doctor",
    "InstitutionName": "Zephyrine Hospital",
    "StudyDate": "20230719",
}
MARKS = ("quixotry", "zephyrine", "7q4x9z", "19430721", "20230719", "2023-07-19")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with reports of two models: `measure` on regions that somebody drew, and `good`, which names its segments itself."""
    running = Node(tmp_path_factory.mktemp("node"), {"measure": bundled("models") / "measure", "good": FAKES / "good"})
    for name in ("first", "second"):
        images = phantoms.series(phantoms.marked(value=2000), seed=name, **PATIENT)
        masks = np.zeros((*phantoms.marked().shape, 2), np.uint8)
        masks[2:4, 4:12, 5:15, 0], masks[5, 16, 16, 1] = 1, 1
        regions = drawn.segmentation(images, masks, seed=f"{name} regions")
        for item in regions.SegmentSequence:
            item.SegmentLabel = f"{PATIENT['PatientName']} {item.SegmentNumber}"
            item.TrackingID = f"Zephyrine {item.SegmentNumber}"
        running.receive([*images, regions])
    running.done = running.work()
    yield running
    running.close()


def numbers(report: Dataset) -> list[tuple[str, float]]:
    """Return the code and the value of each number of a report, by another reader's way through the tree."""
    items = (item for item in walk(report) if item.get("ValueType") == "NUM" and item.get("MeasuredValueSequence"))
    return [(item.ConceptNameCodeSequence[0].CodeValue, float(item.MeasuredValueSequence[0].NumericValue)) for item in items]


def table_of(node: Node, file: Path, *options: object) -> list[dict[str, str]]:
    """Export into a file, and read it back."""
    said = node.verb("export", "--measurements", file, *options)
    assert said.code == 0, said
    return list(read_table(file))


def test_the_jobs_are_done(node: Node) -> None:
    """Two studies by two models."""
    assert sorted(job.model for job in node.done) == ["good", "good", "measure", "measure"]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_every_number_of_every_report_is_in_the_table(node: Node, tmp_path: Path, ending: str) -> None:
    """With the report's value, digit for digit, and in its order; newest report first. No number more, none less."""
    rows = table_of(node, tmp_path / f"table.{ending}")
    assert [list(row) for row in rows] == [[column.name for column in COLUMNS]] * len(rows)
    newest_first = sorted(node.done, key=lambda job: -job.id)
    expected = [(str(job.id), code, value) for job in newest_first for code, value in numbers(dcmread(node.file(job)))]
    assert [(row["job_id"], row["concept_code"], float(row["value"])) for row in rows if row["value"]] == expected
    assert {row["use"] for row in rows} == {RESEARCH_USE} and {row["verification"] for row in rows} == {"UNVERIFIED"}


def test_a_row_says_what_was_measured_on_what_by_whom(node: Node, tmp_path: Path) -> None:
    """Every column of the volume of one drawn region, against what was drawn and what the ledger knows."""
    job = next(job for job in node.done if job.model == "measure")
    report = dcmread(node.file(job))
    rows = table_of(node, tmp_path / "table.csv", "--study", job.study_instance_uid, "--model", "measure")
    (row,) = [row for row in rows if row["concept_code"] == "118565006" and row["segment_number"] == "1"]
    seg = next(item for item in walk(report) if item.get("ConceptNameCodeSequence") and item.ConceptNameCodeSequence[0].CodeValue == "121191")
    assert row == dict.fromkeys(row, "") | {
        "study_instance_uid": job.study_instance_uid,
        "series_instance_uid": str(node.store.studies.view(job.study_instance_uid).series[0].series_instance_uid),
        "job_id": str(job.id),
        "completed_at": "2023-11-14T22:17:10+00:00",
        "model": "measure",
        "model_version": job.model_version,
        "device_uid": job.device_uid,
        "segmentation_sop_instance_uid": seg.ReferencedSOPSequence[0].ReferencedSOPInstanceUID,
        "segment_number": "1",
        "tracking_uid": row["tracking_uid"],
        "finding_code": "10200004",
        "finding_scheme": "SCT",
        "finding_meaning": "Liver",
        "site_code": "10200004",
        "site_scheme": "SCT",
        "site_meaning": "Liver",
        "concept_code": "118565006",
        "concept_scheme": "SCT",
        "concept_meaning": "Volume",
        "value": row["value"],
        "unit": "mL",
        "sop_instance_uid": str(report.SOPInstanceUID),
        "verification": "UNVERIFIED",
        "use": RESEARCH_USE,
    }
    assert float(row["value"]) == pytest.approx(2 * 8 * 10 * 2.5 * 0.8 * 0.7 / 1000, abs=0.001)


def test_parquet_has_types_and_says_what_it_is_for(node: Node, tmp_path: Path) -> None:
    """Numbers are numbers, what is missing is null, columns say what they mean, and the file says that it is for research."""
    table_of(node, tmp_path / "table.parquet")
    found = parquet.read_table(tmp_path / "table.parquet")
    kinds = {str: "string", int: "int64", float: "double"}
    assert [(field.name, str(field.type)) for field in found.schema] == [(column.name, kinds[column.kind]) for column in COLUMNS]
    assert found.schema.metadata[b"use"].decode() == RESEARCH_USE
    assert found.schema.field("unit").metadata[b"meaning"].decode().endswith("UCUM")
    assert found.column("laterality").null_count == found.num_rows


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_nobody_is_named(node: Node, tmp_path: Path, ending: str) -> None:
    """A marked patient, in every attribute that the reports carry and in what somebody called the regions, is in no cell; nor are his dates."""
    for job in node.done:
        assert any(mark in str(dcmread(node.file(job))).casefold() for mark in MARKS), "else nothing is looked for"
    said = node.verb("export", "--measurements", tmp_path / f"table.{ending}")
    cells = " ".join(value for row in read_table(tmp_path / f"table.{ending}") for value in row.values())
    assert [mark for mark in MARKS if mark in (cells + said.all).casefold()] == []
    assert [mark for mark in MARKS if mark.encode() in (tmp_path / f"table.{ending}").read_bytes().lower()] == []


def test_what_a_model_calls_its_own_segments_is_told(node: Node, tmp_path: Path) -> None:
    """What others called theirs is told only when it is asked for."""
    called = {row["model"]: row["segment_label"] for row in table_of(node, tmp_path / "table.csv")}
    assert called == {"good": "Spleen", "measure": ""}
    asked = {row["segment_label"] for row in table_of(node, tmp_path / "table.csv", "--labels") if row["model"] == "measure"}
    assert asked == {"Zephyrine 1", "Zephyrine 2"}


def test_a_table_is_of_one_study_of_one_model_or_since_a_moment(node: Node, tmp_path: Path) -> None:
    """As JSON the verb says how much it wrote; nothing is a table too."""
    uid = node.done[0].study_instance_uid
    assert {row["study_instance_uid"] for row in table_of(node, tmp_path / "table.csv", "--study", uid[-12:])} == {uid}
    assert {row["model"] for row in table_of(node, tmp_path / "table.csv", "--model", "good")} == {"good"}
    assert table_of(node, tmp_path / "table.csv", "--since", "2100-01-01") == []
    said = node.verb("export", "--measurements", tmp_path / "table.csv", "--model", "good", "--json").json
    assert (set(said), said["reports"], said["unreadable"]) == ({"file", "rows", "reports", "replaced", "unreadable"}, 2, [])
    assert failed(node.verb("export", "--measurements", tmp_path / "table.csv", "--study", "99")).startswith("no study's UID")


def test_a_report_that_was_replaced_is_left_out(tmp_path: Path) -> None:
    """A job that ran again names its predecessor's report: its numbers would be there twice."""
    node = Node(tmp_path, {"good": FAKES / "good"})
    node.receive(phantoms.series(phantoms.marked(value=2000)))
    (job,) = node.work()
    again = node.store.jobs.again(job.id, who="test", now=NOW)
    (second,) = node.work()
    rows = table_of(node, tmp_path / "table.csv")
    assert (second.id, {row["job_id"] for row in rows}) == (again.id, {str(again.id)})
    assert node.verb("export", "--measurements", tmp_path / "table.csv").out.endswith("1 reports that were replaced are left out\n")
    node.close()


def test_a_report_that_is_gone_is_told_and_the_others_are_written(tmp_path: Path) -> None:
    """The exit status is 1, since the table is not whole."""
    node = Node(tmp_path, {"good": FAKES / "good"})
    for name in ("one", "two"):
        node.receive(phantoms.series(phantoms.marked(value=2000), seed=name))
    first, second = node.work()
    node.file(first).unlink()
    said = node.verb("export", "--measurements", tmp_path / "table.csv")
    assert (said.code, said.err) == (1, f"the report of job {first.id} cannot be read\n")
    assert {row["job_id"] for row in read_table(tmp_path / "table.csv")} == {str(second.id)}
    node.close()


def test_a_file_of_another_kind_and_a_missing_library_are_told(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one sentence with what to do; a table that was there stays as it was, and no part of a new one is left."""
    (tmp_path / "table.parquet").write_text("older")
    assert failed(node.verb("export", "--measurements", tmp_path / "table.xlsx")) == "'.xlsx' is no table that can be written"
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    said = node.verb("export", "--measurements", tmp_path / "table.parquet")
    assert failed(said) == "Parquet needs pyarrow, which is not installed"
    assert "pip install 'dicom-node[parquet]'" in said.err
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("table.parquet", "older")]
    assert node.verb("export", "--measurements", tmp_path / "table.csv").code == 0


def test_many_reports_take_no_more_memory_than_few(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 000 rows in groups: what the peak grows by is a small part of what the rows would take in memory."""
    few = [row for job in node.done for row in rows_of(dcmread(node.file(job)), {"use": RESEARCH_USE}, labels=False)]
    monkeypatch.setattr("dicom_node.export.table._Reports.rows", lambda self, wanted: (dict(row) for n in range(200_000 // len(few)) for row in few))
    tracemalloc.start()
    done = export_measurements(node.store, tmp_path / "table.parquet", own_labels=())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    found = parquet.ParquetFile(tmp_path / "table.parquet")
    assert found.metadata.num_rows == done.rows > 190_000 and found.metadata.num_row_groups == -(-done.rows // 16384)
    assert peak < 60e6  # one group's rows; all of them take ten times as much
