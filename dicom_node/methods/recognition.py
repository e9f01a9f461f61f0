"""What a series shows, by Bayes' rule: prior times the likelihood of each piece of evidence, and what nobody listed is a class of its own.

For each facet P(class | evidence) is proportional to P(class) times the product of P(evidence | class): pieces of evidence are taken to be
independent, given the class. An attribute that says nothing is no evidence.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from dicom_node.domain import FACETS

UNKNOWN = "unknown"
UNLISTED = 0.1  # prior probability that a series shows something that is not listed, or that cannot be told
UNLISTED_OF_TWO = 0.01  # the same where the classes are one thing and its opposite
SURE = 0.6  # posterior probability from which a class is the answer
PIXELS = "pixels"  # the source of evidence that was seen, not read
CONTRADICTED = 25.0  # by the pixels another class is so many times as probable as the one that is stated: they contradict it
_SEEN = frozenset({"modality", "body_part", "sequence"})  # facets of which pixels may contradict a header
_NAMED = 0.1  # posterior probability from which a class is named among those that the pixels look like

# Body parts that are imaged together, or are parts of one another: of these none contradicts another.
_TOGETHER = (
    frozenset({"head", "neck", "spine", "whole-body"}),
    frozenset({"chest", "heart", "breast", "trunk", "spine", "whole-body"}),
    frozenset({"abdomen", "pelvis", "trunk", "spine", "whole-body"}),
    frozenset({"chest", "neck", "upper-limb", "whole-body"}),
    frozenset({"pelvis", "lower-limb", "whole-body"}),
)

# Of facets that are one thing or its opposite, how frequent each is: most images are plain, upright and clean.
_PRIORS: Mapping[str, Mapping[str, float]] = {
    "photometric": {"plain": 0.97, "inverted": 0.03},
    "way_up": {"upright": 0.97, "upside-down": 0.03},
    "annotation": {"none": 0.95, "burned-in": 0.05},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One thing that was read or seen, and how likely it is to be met where each class is the truth."""

    facet: str
    source: str  # a DICOM keyword, several of them, or `PIXELS`
    said: str  # in words of this program: never a header's own text, which may name a patient
    likelihood: Mapping[str, float]  # class -> P(said | class), or a density; of each class of the facet, all above 0
    stated: str = ""  # the one class that it states, if it does

    def of(self, name: str) -> float:
        """Return the likelihood of a class; where none of those listed is the truth, the mean of theirs by how frequent each is."""
        if name != UNKNOWN:
            return self.likelihood[name]
        return math.fsum(share * self.likelihood[each] for each, share in _shares(self.facet).items())


def stating(facet: str, source: str, said: str, classes: Iterable[str], reliability: float) -> Evidence:
    """Return evidence that states one class or leaves the choice of several.

    reliability: the probability that such a source states the truth; when it errs, each of the other classes is as likely as another.
    """
    stated, listed = tuple(classes), FACETS[facet]
    wrong = (1 - reliability) / max(1, len(listed) - len(stated))
    likelihood = {name: reliability if name in stated else wrong for name in listed}
    return Evidence(facet=facet, source=source, said=said, likelihood=likelihood, stated=stated[0] if len(stated) == 1 else "")


def prior(facet: str) -> dict[str, float]:
    """Return the probability of each class, and of none of them, before anything is known."""
    unlisted = UNLISTED_OF_TWO if facet in _PRIORS else UNLISTED
    return {name: (1 - unlisted) * share for name, share in _shares(facet).items()} | {UNKNOWN: unlisted}


def _shares(facet: str) -> Mapping[str, float]:
    return _PRIORS.get(facet) or dict.fromkeys(FACETS[facet], 1 / len(FACETS[facet]))


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the evidence says of one facet."""

    facet: str
    evidence: tuple[Evidence, ...]

    @cached_property
    def posterior(self) -> Mapping[str, float]:
        """The probability of each class, and of none that is listed; they add up to 1, whatever the order of the evidence."""
        logs = {name: math.log(p) + math.fsum(math.log(one.of(name)) for one in self.evidence) for name, p in prior(self.facet).items()}
        largest = max(logs.values())
        shares = {name: math.exp(log - largest) for name, log in logs.items()}
        total = math.fsum(shares.values())
        return {name: share / total for name, share in shares.items()}

    @property
    def most_probable(self) -> str:
        """The class with the highest probability, unknown among them."""
        return max(self.posterior, key=self.posterior.__getitem__)

    @property
    def value(self) -> str | None:
        """The class that was recognised; None: nothing speaks of it, or nothing is sure."""
        best = self.most_probable
        return best if self.evidence and best != UNKNOWN and self.posterior[best] >= SURE else None

    @property
    def why(self) -> str:
        """The evidence, each with its likelihood under the most probable class and the mean over all classes."""
        best = self.most_probable
        said = (f"{one.source}: {one.said} ({one.of(best):.2g} where it is {best}, {one.of(UNKNOWN):.2g} on average)" for one in self.evidence)
        return "; ".join(said)

    @property
    def sentence(self) -> str:
        """The answer, its probability and its reasons."""
        best = self.most_probable
        return f"{self.value or f'not certain, most probably {best}'}, P {self.posterior[best]:.2f}: {self.why}"

    def only(self, *, pixels: bool) -> "Answer":
        """Return what the pixels alone, or what the header alone says."""
        return Answer(facet=self.facet, evidence=tuple(one for one in self.evidence if (one.source == PIXELS) is pixels))


@dataclass(frozen=True, slots=True)
class Recognised:
    """What a series was recognised as: for each facet of which something speaks, the answer. It reads like a header: facet -> class or None."""

    answers: Mapping[str, Answer]

    def get(self, facet: str) -> str | None:
        """Return the class that a facet was recognised as; None when it was not."""
        return self.answers[facet].value if facet in self.answers else None

    def as_detail(self) -> dict[str, str]:
        """Return each answer with its probability and its evidence, in words."""
        return {facet: answer.sentence for facet, answer in self.answers.items()}

    @property
    def contradictions(self) -> tuple[str, ...]:
        """A sentence for each attribute that the pixels contradict."""
        return tuple(said for answer in self.answers.values() for said in _contradictions(answer))


def recognise(evidence: Iterable[Evidence]) -> Recognised:
    """Return what the evidence says, facet by facet."""
    by_facet: dict[str, list[Evidence]] = {}
    for one in evidence:
        by_facet.setdefault(one.facet, []).append(one)
    return Recognised({facet: Answer(facet=facet, evidence=tuple(by_facet[facet])) for facet in FACETS if facet in by_facet})


def worded(facet: str) -> str:
    """Return a facet's name as a sentence has it."""
    return facet.replace("_", " ")


def _contradictions(answer: Answer) -> list[str]:
    """Name the attributes that state a class which, by what is seen, it is not."""
    seen = answer.only(pixels=True)
    if answer.facet not in _SEEN or not seen.evidence or seen.most_probable == UNKNOWN:
        return []
    listed = sorted((-p, name) for name, p in seen.posterior.items() if name != UNKNOWN and p >= _NAMED)
    like, best = " or ".join(name for _, name in listed), seen.posterior[seen.most_probable]
    return [
        f"{one.source} says {worded(answer.facet)} {one.stated}, but the pixels look like {like}: {', '.join(part.said for part in seen.evidence)}"
        for one in answer.evidence
        if one.source != PIXELS and one.stated and seen.posterior[one.stated] * CONTRADICTED < best and not _together(one.stated, seen.most_probable)
    ]


def _together(one: str, other: str) -> bool:
    return any({one, other} <= region for region in _TOGETHER)
