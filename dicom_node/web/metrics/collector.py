"""What the ledger says, as metrics: read when it is asked for, at most once in a while, by questions that group rows.

The latencies are counted in the ledger itself (`store.latencies`): they are the same from whatever process they are asked, and survive a restart.
All else of the ledger is a gauge. A gauge is missing where nothing is there to be counted; a label is a name of the site's configuration.
"""

import threading
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any

from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from dicom_node import __version__
from dicom_node.domain import NodeError
from dicom_node.store.backlog import WAITING, Group
from dicom_node.store.latencies import BOUNDS_S, Histogram, Stage
from dicom_node.store.telling import workers
from dicom_node.web.context import Context

_FRESH_S = 5.0  # what was read is told again for so long
_SIZES_FRESH_S = 600.0  # how many bytes instances have, which goes through all of them
_LABEL = {Stage.ENDED: "model", Stage.DELIVERED: "destination", Stage.COMMITTED: "destination"}


class Ledger(Collector):
    """Reads the ledger when metrics are asked for."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._told: list[Any] = []
        self._at = self._sized_at = float("-inf")
        self._size_bytes = 0

    def describe(self) -> list[Any]:
        """Say nothing of what there will be: the ledger is not read before it is asked for."""
        return []

    def collect(self) -> Iterator[Any]:
        """Give the metrics; where the ledger does not answer, that alone."""
        with self._lock:
            now = self._context.clock()  # here, not before: who waited for a reading that took long makes none of its own
            if not 0 <= now - self._at < _FRESH_S:
                try:
                    self._told = [*self._read(now), GaugeMetricFamily("dicom_node_ledger_up", "Whether the ledger answers", 1)]
                except NodeError:
                    self._told = [GaugeMetricFamily("dicom_node_ledger_up", "Whether the ledger answers", 0)]
                self._at = self._context.clock()
            yield from self._told

    def _read(self, now: float) -> Iterator[Any]:
        info = GaugeMetricFamily("dicom_node_info", "The program", labels=("version",))
        info.add_metric((__version__,), 1)
        yield info
        yield from _latencies(self._context.store.latencies.look())
        yield from self._backlog(now)
        yield from self._destinations(now)
        yield from self._house(now)

    def _backlog(self, now: float) -> Iterator[Any]:
        backlog = self._context.store.backlog
        questions: tuple[tuple[str, str, tuple[str, ...], Callable[[], tuple[Group, ...]]], ...] = (
            ("study", "studies", ("state",), backlog.studies),
            ("job", "jobs", ("state", "model"), backlog.jobs),
            ("delivery", "deliveries", ("state", "destination"), backlog.deliveries),
            ("retrieval", "retrievals", ("state", "remote"), backlog.retrievals),
        )
        oldest = GaugeMetricFamily("dicom_node_oldest_waiting_seconds", "Age of the oldest that waits", labels=("of", "state"))
        for of, many, labels, ask in questions:
            numbers = GaugeMetricFamily(f"dicom_node_{many}", f"How many {many} there are", labels=labels)
            ages: dict[str, float] = {}
            for group in ask():
                numbers.add_metric(group.labels, group.number)
                state = group.labels[0]
                if state in WAITING[of] and group.oldest is not None:
                    ages[state] = max(ages.get(state, 0.0), now - group.oldest)
            for state, age_s in sorted(ages.items()):
                oldest.add_metric((of, state), age_s)
            yield numbers
        yield oldest

    def _destinations(self, now: float) -> Iterator[Any]:
        up = GaugeMetricFamily("dicom_node_destination_up", "Whether it is sent to; 0: it could not be reached", labels=("destination",))
        failures = GaugeMetricFamily("dicom_node_destination_failures", "Failures in a row to reach it", labels=("destination",))
        backing = GaugeMetricFamily("dicom_node_destination_backoff_seconds", "Until it is tried again", labels=("destination",))
        success = GaugeMetricFamily("dicom_node_destination_last_success_timestamp_seconds", "When it answered last", labels=("destination",))
        known = {one["name"]: one for one in self._context.store.backlog.destinations()}
        receiving = {name for name, remote in self._context.site.config.remotes.items() if "receive" in remote.may}
        for name in sorted(receiving | set(known)):
            one = known.get(name, {"failures": 0, "not_before": 0.0, "succeeded_at": None})
            up.add_metric((name,), float(one["failures"] == 0))
            failures.add_metric((name,), one["failures"])
            backing.add_metric((name,), max(0.0, one["not_before"] - now) if one["failures"] else 0.0)
            if one["succeeded_at"] is not None:
                success.add_metric((name,), one["succeeded_at"])
        yield from (up, failures, backing, success)

    def _house(self, now: float) -> Iterator[Any]:
        store, reserve_mb = self._context.store, self._context.site.config.node.disk_reserve_mb
        alive = sum(bool(one["alive"]) for one in workers(store, now))
        if not 0 <= now - self._sized_at < _SIZES_FRESH_S:
            self._size_bytes, self._sized_at = store.backlog.size_bytes(), now
        for name, said, value in (
            ("workers_alive", "Analysing processes that were seen recently", alive),
            ("quarantined", "What lies in quarantine", store.backlog.quarantined()),
            ("disk_free_bytes", "Free space of the storage", store.archive.free_mb() << 20),
            ("disk_reserve_bytes", "Below it C-STORE is answered A700", reserve_mb << 20),
            ("archive_bytes", "Instances in the archive; ten minutes old at most", self._size_bytes),
        ):
            yield GaugeMetricFamily(f"dicom_node_{name}", said, value)


def _latencies(found: tuple[Histogram, ...]) -> Iterator[Any]:
    """Give a histogram for each stage (cumulative, as Prometheus has them)."""
    for stage in Stage:
        labels = (_LABEL[stage],) if stage in _LABEL else ()
        family = HistogramMetricFamily(f"dicom_node_{stage}_seconds", f"Latency: {stage.replace('_', ' ')}", labels=labels)
        ones = [one for one in found if one.stage is stage]
        if not ones and not labels:
            ones = [Histogram(stage=stage, label="", counts=(0,) * (len(BOUNDS_S) + 1), total_s=0.0)]
        for one in ones:
            cumulative = [float(number) for number in accumulate(one.counts)]
            buckets = list(zip([*(f"{bound:g}" for bound in BOUNDS_S), "+Inf"], cumulative, strict=True))
            family.add_metric((one.label,) if labels else (), buckets, one.total_s)
        yield family
