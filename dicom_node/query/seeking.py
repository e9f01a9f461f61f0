"""The thread that finds the earlier studies that jobs wait for, has them fetched, and lets each job run once it has them or time is up.

What it knows stands in the ledger. If it does not get to a job in time, the job runs without: its own `not_before` is the deadline.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from dicom_node.domain import Job, NodeError, Prior, Priors, PriorsState, Study, Transient, fault
from dicom_node.query.priors import Answer, Candidate, Current, candidates, chosen, keys_of
from dicom_node.store import Level, Store, Topic, Watch

Find = Callable[[str, str, Mapping[str, str]], Sequence[Answer]]  # name of a remote, level and keys of a C-FIND → its responses
Fetch = Callable[[Job, str, str], None]  # a job, name of a remote, Study Instance UID: let the study be fetched, unless it is under way
Fate = Callable[[Job, str], str | None]  # a job, Study Instance UID → why a fetch has failed; empty: it is here; none: it is under way
Suits = Callable[[Job, Study], Mapping[str, tuple[int, ...]]]  # what a job's model takes of an earlier study: its input's name → ids of instances

_LOOK_EVERY_S = 1.0
_AGAIN_S, _AGAIN_MAX_S = 2.0, 60.0  # after a remote did not answer; doubles
_BEFORE_S = 1.0  # so long before the deadline a job goes with what there is

log = structlog.get_logger()


@dataclass(slots=True)
class _Silence:
    """A remote that did not answer."""

    until: float
    times: int
    why: str


class Seeking(Watch):
    """Settles the priors of jobs."""

    def __init__(self, store: Store, clock: Callable[[], float], *, find: Find, fetch: Fetch, fate: Fate, suits: Suits) -> None:
        super().__init__(store.bell, Topic.JOBS, name="priors", rest_s=_LOOK_EVERY_S)
        self._store = store
        self._clock = clock
        self._find = find
        self._fetch = fetch
        self._fate = fate
        self._suits = suits
        self._silent: dict[str, _Silence] = {}

    def take_turn(self) -> float:
        """Go on with every job that waits."""
        self.turn()
        return _LOOK_EVERY_S

    def failed(self, error: Exception) -> None:
        """Tell of it; the jobs run at their deadline in any case."""
        log.error("priors.failed", reason=fault(error))

    def turn(self) -> int:
        """Go on with every job that waits; return how many are settled."""
        settled = 0
        for job in self._store.priors.going_on():
            if self._stopping.is_set() or job.priors is None:
                break
            found = self._sought(job, job.priors) if job.priors.state is PriorsState.SOUGHT else self._fetched(job, job.priors)
            if found is not None and self._store.priors.record(job, found, now=self._clock()):
                log.info("priors.found", study=job.study_instance_uid, job=job.id, state=found.state, studies=len(found.studies))
                settled += found.state is PriorsState.SETTLED
        return settled

    # ----------------------------------------------------------------------------------------------------------- finding

    def _sought(self, job: Job, asked: Priors) -> Priors | None:
        """Find what a job asks for, and have it fetched; none: somebody does not answer, and there is time to ask again."""
        study = self._store.studies.view(job.study_instance_uid)
        current = current_of(study) if study is not None else None
        if current is None or not current.patient_id:
            return replace(asked, state=PriorsState.SETTLED, why="No earlier study can be looked for: the images name no patient ID.")
        keys = keys_of(current, asked)
        own = [("", answer) for answer in self._store.holdings.find(Level.STUDY, keys)]
        heard = {name: self._ask(name, Level.STUDY, keys) for name in asked.ask}
        if None in heard.values() and not self._is_due(job):
            return None
        answers = [*own, *((name, answer) for name, said in heard.items() for answer in said or ())]
        taken = chosen(asked, candidates(current, asked, answers), self._series_of)
        held = {str(answer["StudyInstanceUID"]): int(answer["NumberOfStudyRelatedInstances"] or 0) for _, answer in own}
        wanting = [one for one in taken if one.source and held.get(one.study_instance_uid, 0) < (one.instances or 1)]
        for one in wanting:
            self._fetch(job, one.source, one.study_instance_uid)
        fetched = {one.study_instance_uid for one in wanting}
        studies = tuple(
            Prior(
                study_instance_uid=one.study_instance_uid,
                study_date=one.study_date,
                source=one.source if one.study_instance_uid in fetched else "",
            )
            for one in taken
        )
        silent = [f"{name} did not answer" for name, said in heard.items() if said is None]
        found = replace(asked, studies=studies, why="; ".join([f"{len(taken)} of at most {asked.count} found", *silent]))
        return replace(found, state=PriorsState.FETCHING) if wanting else self._settled(job, found, {}, silent)

    def _ask(self, name: str, level: Level, keys: Mapping[str, str]) -> Sequence[Answer] | None:
        """Ask a remote, unless it has been silent a moment ago."""
        now, silence = self._clock(), self._silent.get(name)
        if silence is not None and now < silence.until:
            return None
        try:
            answers = self._find(name, level, keys)
        except Transient as error:
            times = silence.times + 1 if silence else 0
            self._silent[name] = _Silence(until=self._clock() + min(_AGAIN_S * 2.0**times, _AGAIN_MAX_S), times=times, why=str(error))
            log.warning("priors.no_answer", remote=name, reason=str(error))
            return None
        except NodeError as error:  # the same question would be refused again
            log.error("priors.refused", remote=name, reason=str(error))
            return ()
        self._silent.pop(name, None)
        return answers

    def _series_of(self, one: Candidate) -> Sequence[Answer]:
        keys = {"StudyInstanceUID": one.study_instance_uid, "SeriesInstanceUID": "", "Modality": "", "BodyPartExamined": ""}
        if not one.source:
            return tuple(self._store.holdings.find(Level.SERIES, keys))
        return self._ask(one.source, Level.SERIES, keys) or ()

    # ---------------------------------------------------------------------------------------------------------- fetching

    def _fetched(self, job: Job, found: Priors) -> Priors | None:
        """Settle what was found once each study is here or cannot be had; none: something is under way, and there is time."""
        fates = {one.study_instance_uid: self._fate(job, one.study_instance_uid) for one in found.studies if one.source}
        if None in fates.values() and not self._is_due(job):
            return None
        return self._settled(job, found, {uid: "it had not come in time" if fate is None else fate for uid, fate in fates.items()}, ())

    def _settled(self, job: Job, found: Priors, fates: Mapping[str, str], silent: Sequence[str]) -> Priors:
        here, failed = [], []
        for one in found.studies:
            if fates.get(one.study_instance_uid):
                failed.append(f"one of {_written(one.study_date)} was not fetched from {one.source}: {fates[one.study_instance_uid]}")
                continue
            study = self._store.studies.view(one.study_instance_uid)
            if study is not None:
                here.append(replace(one, inputs=self._suits(job, study)))
        dates = ", ".join(f"of {_written(one.study_date)}" + (f" (from {one.source})" if one.source else "") for one in here)
        said = f"Earlier studies of the patient that are here: {dates}" if here else "No earlier study of the patient that suits is here"
        why = "; ".join([said, *failed, *silent]) + "."
        return replace(found, state=PriorsState.SETTLED, studies=tuple(here), why=why)

    def _is_due(self, job: Job) -> bool:
        return self._clock() >= job.not_before - _BEFORE_S


def current_of(study: Study) -> Current | None:
    """Return what priors of a study depend on; none where it holds nothing."""
    first = next(iter(study.instances), None)
    if first is None:
        return None
    keywords = ("PatientID", "IssuerOfPatientID", "PatientBirthDate", "StudyDate", "StudyTime")
    who = [str(first.header.get(keyword) or "").strip() for keyword in keywords]
    return Current(
        study_instance_uid=study.study_instance_uid,
        patient_id=who[0],
        issuer=who[1],
        birth_date=who[2],
        study_date=who[3],
        study_time=who[4],
    )


def _written(study_date: str) -> str:
    """Return a date (VR DA) as a person writes it."""
    return f"{study_date[:4]}-{study_date[4:6]}-{study_date[6:8]}" if len(study_date) == len("YYYYMMDD") else study_date or "an unknown date"
