"""What readers say of results, and the reports that they verified."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from dicom_node.domain.jobs import Result

VERIFIED = "VSR"  # the kind of a result that is a report a person verified


class Verdict(StrEnum):
    """What a reader says of a job's results."""

    ACCEPTED = "ACCEPTED"  # they are right as they are
    REJECTED = "REJECTED"  # they are wrong, or of no use
    COMMENTED = "COMMENTED"  # neither; the comment says more


class VerificationState(StrEnum):
    """Where the verified report of an accepted result stands."""

    PENDING = "PENDING"  # to be written, now or after `not_before`
    WRITTEN = "WRITTEN"  # recorded as a result, and on its way
    DROPPED = "DROPPED"  # the reader thought better of it before it was written
    FAILED = "FAILED"  # it cannot be written; the reason says why


VERIFICATION_TRANSITIONS: Mapping[VerificationState, frozenset[VerificationState]] = {
    VerificationState.PENDING: frozenset({VerificationState.WRITTEN, VerificationState.DROPPED, VerificationState.FAILED}),
    VerificationState.WRITTEN: frozenset(),
    VerificationState.DROPPED: frozenset(),
    VerificationState.FAILED: frozenset(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """What one reader said of a job's results, once."""

    job_id: int
    verdict: Verdict
    who: str  # as the node knows the person
    display_name: str  # as a report names the person
    at: float
    comment: str = field(default="", repr=False)  # free text
    result_id: int | None = None  # the report that it is about; none: the job made none
    verification: VerificationState | None = None  # of an acceptance: where the verified report stands; none: none is made
    reason: str = ""  # why there is no verified report
    id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """A report that is to be written again, as verified by a person."""

    id: int  # of the opinion
    job_id: int
    identity: str  # of the job
    report: Result
    observer: str  # name of the person
    at: float  # when the person accepted it
    attempts: int
    holder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How often readers agreed with one version of a model: of each job the latest verdict counts."""

    model: str
    model_version: str
    accepted: int
    rejected: int
    commented: int  # jobs on which somebody said more, whatever the verdict

    @property
    def share(self) -> float | None:
        """The share of the judged jobs that were accepted; None where none was judged."""
        judged = self.accepted + self.rejected
        return self.accepted / judged if judged else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Where the share lies with 95 % confidence."""
        judged = self.accepted + self.rejected
        return wilson(self.accepted, judged) if judged else None


_Z = 1.959963984540054  # of 95 %, two-sided


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the score interval of a proportion, 95 % (Wilson EB. J Am Stat Assoc 22:209-212, 1927); there is at least one trial."""
    share, squared = successes / trials, _Z * _Z
    middle = (share + squared / (2 * trials)) / (1 + squared / trials)
    half = _Z / (1 + squared / trials) * math.sqrt(share * (1 - share) / trials + squared / (4 * trials * trials))
    return max(0.0, middle - half), min(1.0, middle + half)
