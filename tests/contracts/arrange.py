"""Studies that arrived, jobs that they ask for, results that came of them: in as few words as a test can spare."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from dicom_node.domain import Delivery, Instance, Job, Priority, Result, Study, derived_uid, job_identity
from dicom_node.store import Recorded, Store, instance_name
from tests.files import size_bytes

NOW = 1_800_000_000.0
LEASE_S = 30.0
STUDY = "1.2.826.0.1.3680043.8.498.1"


def written(store: Store, number: int = 1, *, study: str = STUDY, content: bytes = b"", at: float = NOW, **header: object) -> Instance:
    """Return an instance whose bytes are in `incoming` and whose row is not there yet."""
    data = content or f"pixels of {study} {number}".encode()
    return instance_of(data, sealed(store, data, study, at=at), number, study=study, at=at, **header)


def instance_of(data: bytes, path: str, number: int = 1, *, study: str = STUDY, at: float = NOW, **header: object) -> Instance:
    """Return the instance whose bytes are these and lie there."""
    return Instance(
        sop_instance_uid=f"{study}.1.{number}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        study_instance_uid=study,
        series_instance_uid=f"{study}.1",
        path=path,
        size_bytes=len(data),
        digest=sha256(data).hexdigest(),
        calling_ae="CT_ER",
        received_at=at,
        header={"Modality": "CT", "InstanceNumber": number, "PatientID": "MARKED"} | header,
    )


def sealed(store: Store, data: bytes, study: str = STUDY, *, at: float = NOW) -> str:
    """Return the name of an instance that was written and flushed; the receipt is another room's, and these bytes have none."""
    draft = store.archive.draft()
    draft.write(data)
    return draft.seal(b"", 0, study, received_at=at)


def in_quarantine(store: Store, data: bytes, *, at: float = NOW) -> str:
    """Return the name of a file that was put in quarantine."""
    draft = store.archive.draft()
    draft.write(data)
    return store.archive.put_in_quarantine(draft, at=at)


def recover(file: Path) -> Instance | None:
    """Read an instance out of its file, as `written` made it; whatever else the file holds is no whole one."""
    words = file.read_bytes().decode(errors="replace").split()
    if len(words) != 4 or words[:2] != ["pixels", "of"]:
        return None
    return instance_of(file.read_bytes(), instance_name(file.name, words[2], NOW), int(words[3]), study=words[2])


def unsettled(store: Store) -> list[Path]:
    """Return the files that still wait in `incoming` when all is settled; empty ones are there for what is to come."""
    store.instances.settle()
    return [path for path in store.archive.incoming.iterdir() if size_bytes(path)]


def arrive(store: Store, number: int = 1, **how: object) -> Recorded:
    """Let an instance come in."""
    return store.instances.record(written(store, number, **how))


def job_of(seen: Study, model: str = "lung-ct", *, at: float = NOW, priority: Priority = Priority.MEDIUM, deliver: Sequence[str] = ("pacs",)) -> Job:
    """Return the job that routing would ask for: one model on every instance of a study."""
    device_uid = derived_uid("device", model)
    return Job(
        study_instance_uid=seen.study_instance_uid,
        model=model,
        model_version="1.0",
        device_uid=device_uid,
        identity=job_identity({"ct": seen.instances}, device_uid),
        inputs={"ct": tuple(one.id for one in seen.instances)},
        why="the rule 'chest CT' asks for it",
        deliver=tuple(deliver),
        created_at=at,
        priority=priority,
    )


def judged(store: Store, study: str = STUDY, *, at: float = NOW, models: Sequence[str] = ("lung-ct",), max_reruns: int = 5, **of_job: object) -> Job:
    """Judge a study complete with a job for each model; return the last job that is new."""
    seen = store.studies.view(study)
    jobs = [job_of(seen, model, at=at, **of_job) for model in models]
    made = store.studies.complete(seen, why="quiet", jobs=jobs, detail={}, now=at, max_reruns=max_reruns)
    return made[-1] if made else None


def waiting(store: Store, *, study: str = STUDY, **of_job: object) -> Job:
    """Return a job that waits, on a study of its own."""
    arrive(store, study=study)
    return judged(store, study, **of_job)


def claimed(store: Store, who: str = "worker-1", *, at: float = NOW, models: Sequence[str] = ("lung-ct",)) -> Job:
    """Claim the next job."""
    return store.jobs.claim(who, models, now=at, lease_s=LEASE_S)


def result_of(store: Store, job: Job, kind: str = "SEG", *, problem: str = "") -> Result:
    """Return a result of a job, its file written."""
    data = f"{kind} of {job.identity}".encode()
    return Result(
        job_id=job.id,
        kind=kind,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4",
        sop_instance_uid=derived_uid(job.identity, kind),
        series_instance_uid=derived_uid(job.identity, kind, "series"),
        study_instance_uid=job.study_instance_uid,
        path=store.archive.write_result(data, job.identity, kind, made_at=job.created_at),
        digest=sha256(data).hexdigest(),
        problem=problem,
    )


def finished(store: Store, *, study: str = STUDY, kinds: Sequence[str] = ("SEG", "SR"), at: float = NOW, **of_job: object) -> Job:
    """Return a job that is COMPLETED on a study of its own, its results waiting for delivery."""
    waiting(store, study=study, at=at, **of_job)
    job = claimed(store, at=at)
    assert store.jobs.complete(job, [result_of(store, job, kind) for kind in kinds], now=at, why="made it")
    return store.jobs.get(job.id)


def sending(store: Store, who: str = "sender-1", *, at: float = NOW, **how: object) -> tuple[Delivery, ...]:
    """Claim what is due to the PACS."""
    return store.deliveries.claim("pacs", who, now=at, lease_s=LEASE_S, **how)


def kinds(store: Store, study: str = STUDY) -> list[str]:
    """Return what the journal tells of a study, in order."""
    return [event.kind for event in store.journal.of_study(study)]


def last(store: Store, kind: str, study: str = STUDY) -> tuple[str, str]:
    """Return who did this last, and why."""
    event = [event for event in store.journal.of_study(study) if event.kind == kind][-1]
    return event.who, event.why
