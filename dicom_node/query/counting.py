"""How many instances of a study remotes say they have: asked beside everything else, and remembered while it matters."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import structlog

from dicom_node.domain import Count, fault

Ask = Callable[[str, str], int | None]  # name of a remote, Study Instance UID → how many it has; None: it does not say

_STUDIES = 1000  # of so many the answers are remembered, those asked for last
_ANSWERS = 16  # of each study

log = structlog.get_logger()


class Counting:
    """Asks each remote about one study at a time, and nobody waits for it: one that does not answer keeps only its own questions waiting.

    What was answered is lost with the process, and asked again.
    """

    def __init__(self, ask: Ask, clock: Callable[[], float]) -> None:
        self._ask = ask
        self._clock = clock
        self._lock = threading.Lock()
        self._answers: OrderedDict[str, tuple[Count, ...]] = OrderedDict()
        self._asked: set[tuple[str, str]] = set()  # and not yet answered
        self._askers: dict[str, ThreadPoolExecutor] = {}
        self._stopped = False

    def of(self, study_instance_uid: str) -> tuple[Count, ...]:
        """Return what was answered about a study, oldest first."""
        with self._lock:
            return self._answers.get(study_instance_uid, ())

    def ask(self, study_instance_uid: str, sources: Iterable[str]) -> None:
        """Ask remotes about a study, unless they are being asked."""
        with self._lock:
            for source in sources:
                if self._stopped or (source, study_instance_uid) in self._asked or len(self._asked) >= _STUDIES:
                    continue
                self._asked.add((source, study_instance_uid))
                asker = self._askers.setdefault(source, ThreadPoolExecutor(1, thread_name_prefix=f"count {source}"))
                asker.submit(self._hear, source, study_instance_uid)

    def stop(self) -> None:
        """Ask nothing more; what is being asked ends by its own time-out."""
        with self._lock:
            self._stopped = True
            askers = list(self._askers.values())
        for asker in askers:
            asker.shutdown(wait=True, cancel_futures=True)

    def _hear(self, source: str, study_instance_uid: str) -> None:
        try:
            instances = self._ask(source, study_instance_uid)
        except Exception as error:  # the outermost frame of a question: a remote that does not answer is an answer, too
            log.warning("remote did not count", source=source, study=study_instance_uid, reason=fault(error))
            instances = None
        said = Count(source=source, at=self._clock(), instances=instances)
        with self._lock:
            self._asked.discard((source, study_instance_uid))
            self._answers[study_instance_uid] = (*self._answers.get(study_instance_uid, ()), said)[-_ANSWERS:]
            self._answers.move_to_end(study_instance_uid)
            while len(self._answers) > _STUDIES:
                self._answers.popitem(last=False)
