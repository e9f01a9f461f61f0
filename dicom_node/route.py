"""A pure function: study × rules → jobs, and for every no a reason.

Nothing here reads a file, a socket, the ledger or the clock. Which series suits a model's input is decided by the function that is passed in.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from dicom_node.config import Input, Late, Manifest, Model, PriorsWanted, Rule, objections, unrecognised
from dicom_node.domain import DERIVED_MODALITIES, DRAWN_ON, Job, Priors, Series, Study, job_identity


class Choice(Protocol):
    """The series chosen for one input, and why; or None, with a reason for each that was not."""

    @property
    def series(self) -> Series | None:
        """The series, or None."""

    @property
    def why(self) -> str:
        """What speaks for it, or against all of them."""

    @property
    def rejected(self) -> Mapping[str, str]:
        """Series UID → why it was not chosen."""


_LATE: tuple[Late, ...] = ("supersede", "rerun", "ignore")  # where rules ask for the same with different words, the first of these holds

Choose = Callable[[Sequence[Series], Input], Choice]


class Recognised(Protocol):
    """What a series shows, as far as its headers tell: it reads like a header, facet → class or None."""

    def get(self, facet: str) -> str | None:
        """Return the class that a facet was recognised as."""

    def as_detail(self) -> dict[str, str]:
        """Return each answer with its probability and its evidence, in words."""


Recognise = Callable[[Series], Recognised]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTrace:
    """What a rule that matched made of one of its models."""

    model: str
    runs: bool
    why: str
    rejected: Mapping[str, str] = field(default_factory=dict)  # series UID → why it is not the input


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleTrace:
    """What one rule made of a study."""

    rule: str
    matched: tuple[str, ...]  # UIDs of the series that meet it
    objections: Mapping[str, tuple[str, ...]]  # series UID → why it does not
    models: tuple[ModelTrace, ...] = ()

    @property
    def runs(self) -> bool:
        """Whether the rule starts anything."""
        return any(trace.runs for trace in self.models)


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """The jobs of a study, and how every rule came to its answer."""

    jobs: tuple[Job, ...]
    traces: tuple[RuleTrace, ...]
    recognised: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # series UID → facet → what it is, and why
    late: Mapping[str, Late] = field(default_factory=dict)  # identity of a job → what it is to earlier ones of its model
    short: tuple[str, ...] = ()  # which images were known to be missing
    unasked: str = ""  # why no rule was asked

    @property
    def why(self) -> str:
        """One sentence for a person."""
        if self.unasked:
            return f"no analysis: {self.unasked}"
        if self.jobs:
            return "; ".join(f"{job.model}: {job.why}" for job in self.jobs)
        if not self.traces:
            return "no analysis: there are no rules"
        declined = [f"'{t.rule}' matched, but {m.model} does not run: {m.why}" for t in self.traces for m in t.models]
        return f"no analysis: {'; '.join(declined) or 'no rule matches this study'}"

    def as_detail(self) -> dict[str, Any]:
        """The same for the journal: plain values."""
        return {
            "recognised": {uid: dict(facets) for uid, facets in self.recognised.items()},
            "rules": [
                {
                    "rule": trace.rule,
                    "matched": list(trace.matched),
                    "objections": {uid: list(said) for uid, said in trace.objections.items()},
                    "models": [{"model": m.model, "runs": m.runs, "why": m.why, "rejected": dict(m.rejected)} for m in trace.models],
                }
                for trace in self.traces
            ],
        }


def route(
    study: Study,
    rules: Sequence[Rule],
    models: Mapping[str, Model],
    choose: Choose,
    recognise: Recognise,
    *,
    now: float,
    short: Sequence[str] = (),
) -> Routing:
    """Decide which jobs a study gets, asking every rule.

    Two rules that ask for the same analysis of the same series make one job, with the higher priority and the destinations of both.

    short: which images of the study are known to be missing, each a sentence.
    """
    jobs: dict[str, Job] = {}
    late: dict[str, Late] = {}
    traces = []
    recognised = {series.series_instance_uid: recognise(series) for series in study.series}
    for rule in rules:
        against = {uid: _objections(rule, series, recognised[uid], short) for series in study.series for uid in (series.series_instance_uid,)}
        candidates = [series for series in study.series if not against[series.series_instance_uid]]
        asked = []
        for name in rule.analyse if candidates else ():
            for trace, job in _ask(study, rule, models[name], candidates, choose, now):
                asked.append(trace)
                if job is not None:
                    jobs[job.identity] = _merged(jobs.get(job.identity), replace(job, short="; ".join(short)))
                    late[job.identity] = min(late.get(job.identity, rule.late), rule.late, key=_LATE.index)
        traces.append(
            RuleTrace(
                rule=rule.name,
                matched=tuple(series.series_instance_uid for series in candidates),
                objections={uid: said for uid, said in against.items() if said},
                models=tuple(asked),
            )
        )
    told = {uid: facets for uid, found in recognised.items() if (facets := found.as_detail())}
    return Routing(jobs=tuple(jobs.values()), traces=tuple(traces), recognised=told, late=late, short=tuple(short))


def _objections(rule: Rule, series: Series, recognised: Recognised, short: Sequence[str]) -> tuple[str, ...]:
    said = (*objections(rule.when, series.header), *unrecognised(rule.recognised, recognised).values())
    if short and rule.incomplete == "wait":
        said = (*said, f"images are missing, and the rule waits for them: {'; '.join(short)}")
    if series.derived and not rule.derived:
        return (*said, "it is derived from images, and the rule does not ask for derived objects")
    return said


def _ask(study: Study, rule: Rule, model: Model, candidates: Sequence[Series], choose: Choose, now: float) -> Iterator[tuple[ModelTrace, Job | None]]:
    """Give what comes of a model: one job, or for drawn regions one for each object that holds some."""
    for taking in takings(study.series, candidates, model.manifest, choose):
        trace = ModelTrace(model=model.name, runs=taking.series is not None, why=taking.why, rejected=taking.rejected)
        yield trace, None if taking.series is None else _job(study, rule, model, taking.series, taking.why, now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taking:
    """The series that a model's inputs take, by name, and why; or None, with a reason for each that was not taken."""

    series: Mapping[str, Series] | None
    reasons: tuple[str, ...]  # of the inputs in their order as far as series were found, then why one was not
    rejected: Mapping[str, str] = field(default_factory=dict)  # series UID → why it was not taken
    lacks: str = ""  # the input that found none

    @property
    def why(self) -> str:
        """One sentence for a person."""
        return "; ".join(self.reasons)


def takings(all_series: Sequence[Series], candidates: Sequence[Series], manifest: Manifest, choose: Choose) -> Iterator[Taking]:
    """Give the ways in which a model's inputs take series.

    candidates: those that a rule lets through. Of projections each is taken by itself. Of drawn regions there may be several objects, and each
    takes the series that it was drawn on, whatever the rule says of that.
    """
    if manifest.regions is None:
        parts = _apart(candidates) if any(one.projections for one in manifest.inputs.values()) else []
        ways = [taking for part in parts if (taking := _taken(part, manifest.inputs, choose, {}, {})).series is not None]
        yield from ways or [_taken(candidates, manifest.inputs, choose, {}, {})]
        return
    wanted, left, found = manifest.inputs[manifest.regions], list(candidates), False
    while (choice := choose(left, wanted)).series is not None:
        regions, found = choice.series, True
        left = [series for series in left if series is not regions]
        named = regions.header[DRAWN_ON]
        drawn_on = [series for series in all_series if series.series_instance_uid in (named if isinstance(named, list) else [named])]
        yield _taken(drawn_on, manifest.inputs, choose, {manifest.regions: regions}, {manifest.regions: choice.why})
    if not found:
        yield Taking(series=None, reasons=(choice.why,), rejected=choice.rejected, lacks=manifest.regions)


def _apart(candidates: Sequence[Series]) -> list[list[Series]]:
    """Return the series of slices, of which one is to be chosen, then each projection image by itself."""
    return [[one for one in candidates if not one.projection], *([image] for one in candidates if one.projection for image in one.each)]


def _taken(
    candidates: Sequence[Series], inputs: Mapping[str, Input], choose: Choose, before: Mapping[str, Series], reasons: Mapping[str, str]
) -> Taking:
    chosen, why = dict(before), dict(reasons)
    for name, wanted in inputs.items():
        if name in chosen or wanted.prior:
            continue
        taken = {series.series_instance_uid for series in chosen.values()}
        choice = choose([series for series in candidates if series.series_instance_uid not in taken], wanted)
        if choice.series is None:
            return Taking(series=None, reasons=(*why.values(), choice.why), rejected=choice.rejected, lacks=name)
        chosen[name], why[name] = choice.series, choice.why
    return Taking(series={name: chosen[name] for name in inputs if name in chosen}, reasons=tuple(why[name] for name in inputs if name in why))


def _job(study: Study, rule: Rule, model: Model, chosen: Mapping[str, Series], why: str, now: float) -> Job:
    return Job(
        study_instance_uid=study.study_instance_uid,
        model=model.name,
        model_version=model.manifest.version,
        device_uid=model.device_uid,
        identity=job_identity({name: series.instances for name, series in chosen.items()}, model.device_uid),
        inputs={name: tuple(instance.id for instance in series.instances) for name, series in chosen.items()},
        why=f"rule '{rule.name}'; {why}",
        deliver=rule.deliver,
        created_at=now,
        not_before=now + rule.priors.wait_at_most_s if rule.priors else 0.0,
        priors=_priors(rule.priors, chosen) if rule.priors else None,
        priority=rule.priority,
        revision=study.revision + 1,
    )


def _priors(wanted: PriorsWanted, chosen: Mapping[str, Series]) -> Priors:
    """Return which earlier studies a job asks for: those that show what its images show, where these say it."""
    shown = (str(series.header.get("BodyPartExamined") or "").strip().upper() for series in chosen.values())
    modalities = wanted.modality or [str(series.header.get("Modality") or "") for series in chosen.values()]
    return Priors(
        ask=wanted.ask,
        count=wanted.count,
        within_days=wanted.within_days,
        modalities=frozenset(modalities) - {"", *DERIVED_MODALITIES},
        body_parts=frozenset(shown) - {""} if wanted.same_body_part else frozenset(),
        wait_at_most_s=wanted.wait_at_most_s,
    )


def _merged(first: Job | None, second: Job) -> Job:
    if first is None:
        return second
    return replace(
        first,
        deliver=tuple(dict.fromkeys(first.deliver + second.deliver)),
        priority=max(first.priority, second.priority),
        not_before=max(first.not_before, second.not_before),
        priors=first.priors or second.priors,
        why=first.why if first.why == second.why else f"{first.why}; also {second.why}",
    )
