"""What a rule or a model asks of one DICOM attribute, and the sentence that says why an attribute does not meet it."""

import math
import re
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator
from pydicom.datadict import dictionary_description, tag_for_keyword

from dicom_node.domain import FACETS

Scalar = str | int | float

# What names a person: a sentence says that such a value does not suit, never the value.
_IDENTITY = re.compile(
    r"^(Patient(Name|ID|BirthDate|Address|TelephoneNumbers|MotherBirthName|BirthName)|OtherPatient.*|IssuerOfPatientID|AccessionNumber|.*Name)$"
)


class Condition(BaseModel):
    """All that is stated must hold; a missing attribute meets nothing except `absent`, or `none` alone.

    Text is compared without regard to case or surrounding spaces. Of an attribute with several values, `equals`, `any`, `matches` and
    `contains` ask for one of them, `none`, `min` and `max` for all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    equals: Scalar | None = None
    any: tuple[Scalar, ...] | None = Field(default=None, min_length=1)
    none: tuple[Scalar, ...] | None = Field(default=None, min_length=1)  # no value may be one of these
    min: float | None = Field(default=None, allow_inf_nan=False)
    max: float | None = Field(default=None, allow_inf_nan=False)
    matches: str | None = None  # a regular expression, found anywhere in the value
    contains: str | None = None
    absent: bool | None = None  # true: may be missing (alone: must be missing); false: any value will do

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self._stated:
            raise ValueError("asks for nothing: give a value, or one of any, none, min, max, matches, contains, absent")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        if self.matches is not None:
            try:
                re.compile(self.matches)
            except re.error as error:
                raise ValueError(f"'{self.matches}' is not a regular expression: {error}") from error
        return self

    @property
    def _stated(self) -> frozenset[str]:
        return frozenset(name for name in type(self).model_fields if getattr(self, name) is not None)

    def objection(self, keyword: str, value: Any) -> str:
        """Return why a value (None when the attribute is missing or empty) does not meet this; an empty text when it does."""
        values = list(value) if isinstance(value, list | tuple) else [value]
        values = [v for v in values if v is not None and str(v).strip()]
        if not values:
            return "" if self.absent or self._stated == {"none"} else f"{keyword} is missing"
        if self.absent and self._stated == {"absent"}:
            return f"{keyword} is {_shown(keyword, values)}, asked to be absent"
        return next((objection for objection in self._objections(keyword, values) if objection), "")

    def _objections(self, keyword: str, values: list[Any]) -> list[str]:
        is_ = f"{keyword} is {_shown(keyword, values)}"
        said = []
        if self.equals is not None and not _one_of(values, (self.equals,)):
            said.append(f"{is_}, not {self.equals}")
        if self.any is not None and not _one_of(values, self.any):
            said.append(f"{is_}, none of {', '.join(map(str, self.any))}")
        if self.none is not None and _one_of(values, self.none):
            said.append(f"{is_}, which is excluded")
        if self.min is not None or self.max is not None:
            numbers = [_as_number(v) for v in values]
            if any(n is None for n in numbers):
                said.append(f"{is_}, not a number")
            elif self.min is not None and min(n for n in numbers if n is not None) < self.min:
                said.append(f"{is_}, below {self.min:g}")
            elif self.max is not None and max(n for n in numbers if n is not None) > self.max:
                said.append(f"{is_}, above {self.max:g}")
        if self.matches is not None and not any(re.search(self.matches, str(v), re.IGNORECASE) for v in values):
            said.append(f"{is_}, does not match '{self.matches}'")
        if self.contains is not None and not any(_text(self.contains) in _text(v) for v in values):
            said.append(f"{is_}, does not contain '{self.contains}'")
        return said


def _text(value: Any) -> str:
    return str(value).strip().casefold()


def _as_number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _same(value: Any, wanted: Scalar) -> bool:
    if isinstance(wanted, int | float) and not isinstance(wanted, bool):
        return _as_number(value) == float(wanted)
    return _text(value) == _text(wanted)


def _one_of(values: list[Any], wanted: tuple[Scalar, ...]) -> bool:
    return any(_same(value, w) for value in values for w in wanted)


def _shown(keyword: str, values: list[Any]) -> str:
    if _IDENTITY.match(keyword):
        return "not shown here"
    return "\\".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)


def _condition_from(value: Any) -> Any:
    return {"equals": value} if isinstance(value, str | int | float) and not isinstance(value, bool) else value


def check_keyword(keyword: str) -> str:
    """Return a DICOM keyword, or raise ValueError when the data dictionary does not know it."""
    if tag_for_keyword(keyword) is None:
        raise ValueError(f"'{keyword}' is not a DICOM keyword; keywords are written like {dictionary_description(0x00180015).replace(' ', '')}")
    return keyword


def _keywords_known(value: Any, info: ValidationInfo) -> Any:
    for keyword in value if isinstance(value, dict) else ():
        check_keyword(keyword)
    return value


ConditionValue = Annotated[Condition, BeforeValidator(_condition_from)]
Conditions = Annotated[dict[str, ConditionValue], BeforeValidator(_keywords_known)]


def _facets_known(value: Any) -> Any:
    """Check conditions over what a series is recognised as: facets and classes that exist, asked for by name; a list is `any`."""
    if not isinstance(value, dict):
        return value
    asked = {facet: {"any": one} if isinstance(one, list | tuple) else one for facet, one in value.items()}
    for facet, one in asked.items():
        if facet not in FACETS:
            raise ValueError(f"'{facet}' is nothing that a series is recognised as; there are {', '.join(FACETS)}")
        condition = Condition.model_validate(_condition_from(one))
        strange = condition.model_fields_set - {"equals", "any", "none", "absent"}
        if strange:
            raise ValueError(f"{facet}: {min(strange)} cannot be asked of a class; name classes, or use any, none, absent")
        named = (*(() if condition.equals is None else (condition.equals,)), *(condition.any or ()), *(condition.none or ()))
        wrong = next((name for name in named if _text(name) not in map(_text, FACETS[facet])), None)
        if wrong is not None:
            raise ValueError(f"'{wrong}' is no class of {facet}; there are {', '.join(FACETS[facet])}")
    return asked


RecognisedConditions = Annotated[dict[str, ConditionValue], BeforeValidator(_facets_known)]


def objections(conditions: dict[str, Condition], header: Any) -> tuple[str, ...]:
    """Return why a header does not meet the conditions, one sentence for each that fails."""
    said = (condition.objection(keyword, header.get(keyword)) for keyword, condition in conditions.items())
    return tuple(sentence for sentence in said if sentence)


def unrecognised(conditions: dict[str, Condition], recognised: Any) -> dict[str, str]:
    """Return why what a series was recognised as does not meet the conditions: facet → sentence, for each that fails."""
    said = {facet: condition.objection(facet, recognised.get(facet)) for facet, condition in conditions.items()}
    return {facet: sentence.replace(f"{facet} is missing", f"{facet} is not recognised") for facet, sentence in said.items() if sentence}
