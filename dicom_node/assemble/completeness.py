"""Whether a study is whole, judged from evidence at a given time, and the sentence that says why.

DICOM has no end-of-study signal in C-STORE (PS3.4 Annex B), so the weakest evidence, which is always there, decides: nothing new for a while.
Better evidence (a performed procedure step, counts that the images state, a person) becomes further optional fields of `Evidence`.
"""

from dataclasses import dataclass

from dicom_node.domain import Study


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known about a study's arrival; times are seconds since the epoch, by the same clock as `now`."""

    instances: int
    last_received_at: float
    first_received_at: float = 0.0
    series: int = 0

    @classmethod
    def of(cls, study: Study) -> "Evidence":
        """Return what a study's own record says."""
        return cls(
            instances=len(study.instances),
            series=len({instance.series_instance_uid for instance in study.instances}),
            first_received_at=study.first_received_at,
            last_received_at=study.last_received_at,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How patient the node is."""

    complete_after_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a study is whole, why, and when to ask again; no time when only another instance could change the answer."""

    complete: bool
    why: str
    look_again_at: float | None = None


def judge(evidence: Evidence, policy: Policy, now: float) -> Verdict:
    """Say whether a study is whole at the time `now`.

    A clock that was set back counts as no time gone by: the study waits, it is never taken for whole too early.
    """
    if evidence.instances == 0:
        return Verdict(complete=False, why="nothing has been received")
    quiet_s = max(0.0, now - evidence.last_received_at)
    have = f"{_count(evidence.instances, 'instance')} in {_count(max(evidence.series, 1), 'series')}"
    due_at = evidence.last_received_at + policy.complete_after_s
    if now >= due_at:
        return Verdict(complete=True, why=f"{have}; nothing new for {quiet_s:.0f} s")
    wait_s = policy.complete_after_s - quiet_s
    return Verdict(complete=False, why=f"{have}; the last came {quiet_s:.0f} s ago, whole after {wait_s:.0f} s more of silence", look_again_at=due_at)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 or noun == "series" else f"{number} {noun}s"
