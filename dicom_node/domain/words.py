"""How a person is told: moments, states and answers as short words, the same at a terminal and on a page."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from dicom_node.domain.jobs import Job
from dicom_node.domain.states import JobState


def moment(at: float | None) -> str:
    """Write a moment in this machine's time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) if at else ""


def ago(at: float | None, now: float) -> str:
    """Write how long ago a moment is."""
    return f"{span(max(now - at, 0.0))} ago" if at else "never"


def span(seconds: float) -> str:
    """Write how long something lasts, in the largest unit of which there is one."""
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def step_of(kind: str, detail: Mapping[str, Any] | None) -> str:
    """Name what happened; of a delivery also what went where."""
    said = detail or {}
    return f"{kind}: {said['kind']} to {said['destination']}" if "destination" in said and "kind" in said else kind


def state_of(job: Job) -> str:
    """Name a job's state, and why it was canceled."""
    return f"{job.state} ({job.discontinuation})" if job.discontinuation else str(job.state)


def took(job: Job) -> str:
    """Say how long a job ran."""
    return f"{job.ended_at - job.started_at:.1f} s" if job.ended_at and job.started_at else ""


def says(job: Job) -> str:
    """Return what a job says of itself: why it ended, or what it is doing."""
    return job.reason or (f"{job.progress:.0%} {job.note}" if job.state is JobState.IN_PROGRESS else job.note)


def counted(states: Mapping[str, int]) -> str:
    """Say how many there are in each state."""
    return ", ".join(f"{number} {state}" for state, number in sorted(states.items())) or "none"


def answers(rules: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str, str]]:
    """Return how rules answered, as the journal keeps it, a row each: rule, end of the series' UID, answer, why."""
    rows = []
    for rule in rules:
        rows += [(rule["rule"], uid[-12:], "matches", "") for uid in rule["matched"]]
        rows += [(rule["rule"], uid[-12:], "no", "; ".join(said)) for uid, said in rule["objections"].items()]
        for model in rule["models"]:
            rows.append((rule["rule"], "", f"{model['model']} {'runs' if model['runs'] else 'does not run'}", model["why"]))
            rows += [(rule["rule"], uid[-12:], f"not for {model['model']}", why) for uid, why in model["rejected"].items()]
    return rows
