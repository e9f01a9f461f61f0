"""Metrics: what Prometheus reads is what happened, and nothing of it names a patient."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from dicom_node.config import load_site
from dicom_node.serve.web import context
from dicom_node.store import Event, Store
from dicom_node.store.latencies import BOUNDS_S, Stage, counted
from dicom_node.web import Context, build
from tests.contracts.arrange import NOW, STUDY, arrive, finished, in_quarantine, sending, waiting

HOUR_S = 3600.0


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Context]:
    site = load_site(None, node={"storage": tmp_path / "data", "disk_reserve_mb": 7, "port": 0})
    store = Store.of(site.config.node)
    store.latencies.look()  # the counts begin now
    yield context(site, store, lambda: NOW + HOUR_S)
    store.close()


def scraped(web: Context, client: TestClient | None = None) -> dict[tuple, float]:
    """Return every sample: name and labels, and its value."""
    answer = (client or TestClient(build(web), base_url="http://127.0.0.1:8080")).get("/metrics")
    assert answer.status_code == 200, answer.text
    families = list(text_string_to_metric_families(answer.text))
    names = [family.name for family in families]
    assert len(names) == len(set(names)), "each family is told once"
    return {(s.name, *sorted(s.labels.items())): s.value for family in families for s in family.samples}


def a_walk(store: Store, study: str = STUDY) -> None:
    """A study that came, was judged, analysed, sent and committed."""
    job = finished(store, study=study, kinds=("SEG",))
    (one,) = sending(store, at=NOW + 2)
    assert store.deliveries.sent(one, "sender-1", now=NOW + 2, status=0)
    said = {"delivery": one.id, "destination": "pacs", "kind": "SEG"}
    store.journal.write(
        Event(at=NOW + 9, study_instance_uid=study, job_id=job.id, kind="delivery committed", who="pacs", why="it said so", detail=said)
    )


def test_each_step_of_a_walk_is_counted_once(web: Context) -> None:
    """The histograms hold from the last instance to the destination's word, by model and by destination."""
    a_walk(web.store)
    found = scraped(web)
    assert found["dicom_node_received_to_complete_seconds_count",] == 1
    assert found["dicom_node_complete_to_started_seconds_count",] == 1
    assert found["dicom_node_started_to_ended_seconds_count", ("model", "lung-ct")] == 1
    assert found["dicom_node_ended_to_delivered_seconds_sum", ("destination", "pacs")] == 2
    assert found["dicom_node_delivered_to_committed_seconds_sum", ("destination", "pacs")] == 7
    again = scraped(web)
    assert all(again[key] == value for key, value in found.items() if "_to_" in key[0])


def test_the_buckets_of_a_histogram_never_fall_and_end_at_the_count(web: Context) -> None:
    """Law of a cumulative histogram; its sum lies between what its buckets allow."""
    for number in range(3):
        a_walk(web.store, f"{STUDY}.{number}")
    samples = scraped(web)
    for stage in Stage:
        of = {key: value for key, value in samples.items() if key[0] == f"dicom_node_{stage}_seconds_bucket"}
        assert len(of) == len(BOUNDS_S) + 1
        ordered = sorted(of.items(), key=lambda item: float(dict(item[0][1:])["le"]))
        values = [value for _, value in ordered]
        (total,) = [value for key, value in samples.items() if key[0] == f"dicom_node_{stage}_seconds_count"]
        assert values == sorted(values) and values[-1] == total == 3


def test_counting_in_portions_is_counting_at_once() -> None:
    """Law: counts are added, in whatever portions; each second falls into one bucket, the first whose bound it does not pass."""
    seconds = [0.0, 0.1, 0.100001, 3.0, 86400.0, 1e9]
    whole = counted((), seconds)
    assert counted(counted((), seconds[:2]), seconds[2:]) == whole
    assert (sum(whole), whole[0], whole[1], whole[-2], whole[-1]) == (6, 2, 1, 1, 1)


def test_the_counts_survive_a_restart_and_a_second_process(web: Context) -> None:
    """They are the ledger's, so that no counter falls: who asks counts what nobody has counted."""
    a_walk(web.store)
    assert scraped(web)["dicom_node_started_to_ended_seconds_count", ("model", "lung-ct")] == 1
    again = Store.of(web.site.config.node)
    a_walk(again, f"{STUDY}.2")
    assert scraped(replace(web, store=again))["dicom_node_started_to_ended_seconds_count", ("model", "lung-ct")] == 2
    again.close()
    web.store.studies.purge(STUDY, who="clock", why="old", now=NOW)
    assert scraped(web)["dicom_node_started_to_ended_seconds_count", ("model", "lung-ct")] == 2


def test_what_waits_is_told_with_its_age(web: Context) -> None:
    """By state and model; what does not wait has no age."""
    waiting(web.store, study=f"{STUDY}.1")
    arrive(web.store, study=f"{STUDY}.2")
    finished(web.store, study=f"{STUDY}.3", kinds=("SEG",))
    web.store.instances.quarantine(in_quarantine(web.store, b"no DICOM", at=NOW), at=NOW, source="SCANNER", reason="C001")
    web.store.deliveries.unreachable("pacs", until=NOW + HOUR_S + 30, reason="no route")
    found = scraped(web)
    assert found["dicom_node_jobs", ("model", "lung-ct"), ("state", "SCHEDULED")] == 1
    assert found["dicom_node_oldest_waiting_seconds", ("of", "job"), ("state", "SCHEDULED")] == HOUR_S
    assert found["dicom_node_studies", ("state", "OPEN")] == 1
    assert found["dicom_node_deliveries", ("destination", "pacs"), ("state", "PENDING")] == 1
    assert not any(key[0] == "dicom_node_oldest_waiting_seconds" and ("state", "COMPLETED") in key for key in found)
    assert (found["dicom_node_destination_up", ("destination", "pacs")], found["dicom_node_quarantined",]) == (0, 1)
    assert found["dicom_node_destination_backoff_seconds", ("destination", "pacs")] == 30
    assert (found["dicom_node_disk_reserve_bytes",], found["dicom_node_workers_alive",]) == (7 << 20, 0)
    assert found["dicom_node_archive_bytes",] > 0


def test_requests_are_counted_by_the_template_of_their_route(web: Context) -> None:
    """What a client wrote into a path is in no label, whatever it wrote."""
    client = TestClient(build(web), base_url="http://127.0.0.1:8080")
    for path in ("/api/v1/studies/1.2.3", "/health/live", "/MARKED^PATIENT", "/api/v1/jobs/77"):
        client.get(path)
    client.request("MARKED", "/health/live")
    found = scraped(web, client)
    counts = {key[1:]: value for key, value in found.items() if key[0] == "dicom_node_http_requests_total"}
    assert counts[("method", "GET"), ("route", "/api/v1/studies/{study_instance_uid}"), ("status", "404")] == 1
    assert counts[("method", "GET"), ("route", "/health/live"), ("status", "200")] == 1
    assert sum(value for key, value in counts.items() if ("method", "other") in key) == 1
    assert not re.search("MARKED|1\\.2\\.3", str(list(found)))


def test_a_ledger_that_does_not_answer_is_told_as_such(web: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process itself is still measured."""
    web.store.database.close()
    with web.store.database.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE latency")
    found = scraped(web)
    assert found["dicom_node_ledger_up",] == 0
    assert "process_cpu_seconds_total" in {key[0] for key in found}
