"""Whether a study is whole, judged from evidence at a given time, and the sentence that says why.

DICOM has no end-of-study signal in C-STORE (PS3.4 Annex B), so the weakest evidence, which is always there, decides: nothing new for a while.
Better evidence makes it quicker, or more patient. Who vouches for the whole (the modality's performed procedure steps, an archive's count) ends
the wait early; a sign that images are missing prolongs it, up to a limit, at which the study is taken as it is. Of contradictions the missing
image counts. Nothing that somebody says, or does not say, makes a study wait for ever.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from dicom_node.domain import Count, Notice, PerformedStep, StepState

COUNTS_APART_S = 30.0  # two equal counts vouch for each other when an archive that is still receiving would have counted on between them
_ANSWER_S = 2.0  # after so long the answer to a question is looked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known about a study's arrival; times are seconds since the epoch, by the same clock as `now`."""

    instances: int  # all that came, rejected ones too
    last_received_at: float
    first_received_at: float = 0.0
    series: int = 0
    rejected: int = 0  # of the instances, those that a rejection note hides: an archive may count them, or not
    received: frozenset[str] = frozenset()  # SOP Instance UIDs of the instances
    ended_at: float = 0.0  # when the last association that brought some of it ended: now, while it is open; 0: not known
    steps: tuple[PerformedStep, ...] = ()
    notices: tuple[Notice, ...] = ()
    counts: tuple[Count, ...] = ()
    shortfalls: tuple[str, ...] = ()  # what the images themselves tell of others that are not there, each a sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How patient the node is."""

    complete_after_s: float
    wait_at_most_s: float = 0.0  # since the last instance, while images are known to be missing; never less than `complete_after_s`
    early_after_s: float = 5.0  # since the last instance, when others vouch for the whole
    ask: frozenset[str] = frozenset()  # names of remotes that may be asked for their count


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a study is whole, why, and when to ask again; no time when only another instance could change the answer."""

    complete: bool
    why: str
    look_again_at: float | None = None
    short: tuple[str, ...] = ()  # what is missing, each a sentence; of a complete study: it is taken although it is not whole
    ask: frozenset[str] = frozenset()  # remotes whose count is worth asking for now


def judge(evidence: Evidence, policy: Policy, now: float) -> Verdict:
    """Say whether a study is whole at the time `now`.

    A clock that was set back counts as no time gone by: the study waits, it is never taken for whole too early.
    """
    if evidence.instances == 0:
        return Verdict(complete=False, why="nothing has been received")
    quiet_s = max(0.0, now - evidence.last_received_at)
    have = f"{counted(evidence.instances, 'instance')} in {counted(max(evidence.series, 1), 'series')}"
    missing = tuple(_missing(evidence, now))
    vouched = "" if missing else _vouched(evidence, now)
    due_at = _due_at(evidence, policy, missing=bool(missing), vouched=bool(vouched))
    if now >= due_at:
        ended = f"; after {quiet_s:.0f} s it is taken although images are missing: {'; '.join(missing)}" if missing else ""
        return Verdict(complete=True, why=have + (ended or (f"; {vouched}" if vouched else f"; nothing new for {quiet_s:.0f} s")), short=missing)
    ask, again_at = (frozenset[str](), due_at) if vouched else _questions(evidence, policy, now)
    state = f"waits at most {due_at - now:.0f} s more for images that are missing: {'; '.join(missing)}" if missing else ""
    state = state or f"the last came {quiet_s:.0f} s ago, whole after {due_at - max(now, evidence.last_received_at):.0f} s more of silence"
    return Verdict(complete=False, why=f"{have}; {state}", look_again_at=min(due_at, again_at), short=missing, ask=ask)


def _due_at(evidence: Evidence, policy: Policy, *, missing: bool, vouched: bool) -> float:
    """Return when the study is taken for whole on this evidence; an association that stays open is waited for as missing images are."""
    latest_at = evidence.last_received_at + max(policy.complete_after_s, policy.wait_at_most_s)
    if missing:
        return latest_at
    patience_s = min(policy.early_after_s, policy.complete_after_s) if vouched else policy.complete_after_s
    return min(_quiet_from(evidence) + patience_s, latest_at)


def _quiet_from(evidence: Evidence) -> float:
    return max(evidence.last_received_at, evidence.ended_at)


# ------------------------------------------------------------------------------------------------------- what is missing


def _missing(evidence: Evidence, now: float) -> Iterator[str]:
    listed = frozenset[str]().union(*(step.instances for step in evidence.steps))
    if absent := len(listed - evidence.received):
        yield f"{absent} of {counted(len(listed), 'instance')} that the modality lists did not come"
    if under_way := sum(step.state is StepState.IN_PROGRESS for step in evidence.steps):
        yield f"{counted(under_way, 'performed procedure step')} in progress"
    noticed = frozenset[str]().union(*(notice.instances for notice in evidence.notices)) - listed
    if absent := len(noticed - evidence.received):
        yield f"{absent} of {counted(len(noticed), 'instance')} that are said to be available did not come"
    for source in sorted({count.source for count in evidence.counts}):
        told = _told(evidence, source, now)
        if told and told[-1][1] > evidence.instances:
            yield f"{source} has {counted(told[-1][1], 'instance')}"
    yield from evidence.shortfalls


def _told(evidence: Evidence, source: str, now: float) -> list[tuple[float, int]]:
    """Return when a remote told a count, and which, oldest first; what was asked in the future is not believed: the clock was set back."""
    return sorted((one.at, one.instances) for one in evidence.counts if one.source == source and one.instances is not None and one.at <= now)


# ----------------------------------------------------------------------------------------------- who vouches for the whole


def _vouched(evidence: Evidence, now: float) -> str:
    """Return who says that this is all, as a sentence; empty when nobody does. Asked only when nothing is known to be missing."""
    states = {step.state for step in evidence.steps}
    listed = frozenset[str]().union(*(step.instances for step in evidence.steps))
    if StepState.COMPLETED in states and StepState.IN_PROGRESS not in states and listed == evidence.received:
        return f"all that {counted(len(evidence.steps), 'performed procedure step')} made"
    held = {evidence.instances, evidence.instances - evidence.rejected}
    for source in sorted({count.source for count in evidence.counts}):
        told = _told(evidence, source, now)
        lately = told[-1][1] if told else -1
        since = min((at for at, number in told if all(n == lately for t, n in told if t >= at)), default=0.0)
        if lately in held and told[-1][0] - since >= COUNTS_APART_S:
            return f"{source} counted as many twice"
    return ""


def _questions(evidence: Evidence, policy: Policy, now: float) -> tuple[frozenset[str], float]:
    """Return which remotes to ask for their count now, and when there is something to ask, or an answer to look for, next."""
    ask, again_at = set(), float("inf")
    for source in policy.ask:
        asked = [count.at for count in evidence.counts if count.source == source and count.at <= now]
        ask_at = max([_quiet_from(evidence) + policy.early_after_s, *(at + COUNTS_APART_S for at in asked)])
        if now >= ask_at:
            ask.add(source)
        again_at = min(again_at, now + _ANSWER_S if now >= ask_at else ask_at)
    return frozenset(ask), again_at


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as "1 instance", "3 series"."""
    return f"{number} {noun}" if number == 1 or noun == "series" else f"{number} {noun}s"
