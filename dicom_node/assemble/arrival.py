"""The evidence of a study's arrival, gathered from its record and from what others said of it.

What images tell of others that are missing is medium evidence: a device may mean its numbers otherwise. So of each sign only the clear case
counts (a few gaps in an even stack, a few numbers left out), and a series without signs is not thereby whole.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from dicom_node.assemble.completeness import Evidence, counted
from dicom_node.domain import Count, Instance, Notice, PerformedStep, Series, Study

_FEWEST = 5  # places or numbers, from which on a gap among them is one
_FEW = 0.2  # the part of steps or numbers that may be missing: where more are, they are not counted one by one
_SAME_PLACE_MM = 0.01
_SAME_DIRECTION = 1e-3  # of a direction cosine
_ROUNDED = 0.1  # of the spacing: how far a slice may lie from even because positions were written rounded
_MOST = 0.75  # the part of the places that must hold equally many images for the others to lack some
_LOCALIZERS = frozenset({"LOCALIZER", "SCOUT"})


def gathered(
    study: Study,
    *,
    steps: Sequence[PerformedStep] = (),
    notices: Sequence[Notice] = (),
    counts: Sequence[Count] = (),
    ended_at: float = 0.0,
) -> Evidence:
    """Return all that is known of a study's arrival."""
    return Evidence(
        instances=len(study.instances) + len(study.rejected),
        series=len({instance.series_instance_uid for instance in study.instances}),
        first_received_at=study.first_received_at,
        last_received_at=study.last_received_at,
        rejected=len(study.rejected),
        received=study.rejected.union(instance.sop_instance_uid for instance in study.instances),
        ended_at=ended_at,
        steps=tuple(steps),
        notices=tuple(notices),
        counts=tuple(counts),
        shortfalls=() if study.rejected else tuple(shortfalls(study)),  # what was rejected leaves a gap that nothing is to fill
    )


def shortfalls(study: Study) -> Iterator[str]:
    """Give what the images of a study tell of others that are not there (PS3.3 C.7.6.1, C.7.6.2, C.12.2)."""
    yield from _acquisitions(study)
    for series in study.series:
        if series.derived or series.projection or any(_is_whole(one) for one in series.instances):
            continue
        name = f"series {number}" if isinstance(number := series.header.get("SeriesNumber"), int) else "a series"
        phases, gaps = _phases(series), _gaps(series)
        if phases:
            yield f"{name}: {phases}"
        elif gaps:
            yield f"{name}: {counted(gaps, 'slice')} missing between others"
        elif gaps is None and (holes := _holes(series)):
            yield f"{name}: {counted(holes, 'instance number')} left out"


def _is_whole(instance: Instance) -> bool:
    """Say whether an image needs no other: it holds many frames, or is a localizer."""
    kind = instance.header.get("ImageType")
    return (_integer(instance.header.get("NumberOfFrames")) or 1) > 1 or bool(
        _LOCALIZERS.intersection(kind if isinstance(kind, list) else [str(kind)])
    )


def _acquisitions(study: Study) -> Iterator[str]:
    """Tell acquisitions that made more images than came, over all series: Images in Acquisition (0020,1002)."""
    made: dict[int, int] = {}
    came: Counter[int] = Counter()
    for instance in study.instances:
        acquisition, images = (_integer(instance.header.get(keyword)) for keyword in ("AcquisitionNumber", "ImagesInAcquisition"))
        if acquisition is not None:
            came[acquisition] += max(1, _integer(instance.header.get("NumberOfFrames")) or 1)
            made[acquisition] = max(made.get(acquisition, 0), images or 0)
    for acquisition in sorted(made):
        if came[acquisition] < made[acquisition]:
            yield f"acquisition {acquisition}: {came[acquisition]} of {counted(made[acquisition], 'image')}"


def _phases(series: Series) -> str:
    """Tell phases that did not come: Number of Temporal Positions (0020,0105), or places that hold fewer images than most."""
    number = _integer(series.header.get("NumberOfTemporalPositions")) or 0
    phases = {_integer(one.header.get("TemporalPositionIdentifier")) for one in series.instances}
    if None not in phases and len(phases) < number:
        return f"{len(phases)} of {counted(number, 'temporal position')}"
    places = _places(series)
    sizes = Counter(len(place) for place in places)
    usual = max(sizes, key=lambda size: (sizes[size], size), default=1)
    fewer = sum(count for size, count in sizes.items() if size < usual)
    if usual > 1 and fewer and max(sizes) == usual and sizes[usual] >= _MOST * len(places):
        return f"fewer images at {counted(fewer, 'place')} than at the others"
    return ""


def _gaps(series: Series) -> int | None:
    """Return how many slices are missing between others of an even stack; None when its slices make no even stack."""
    places = _places(series)
    if len(places) < _FEWEST or any(len(place) > 1 for place in places):
        return None
    steps = [after[0] - before[0] for before, after in zip(places, places[1:], strict=False)]
    usual = sorted(steps)[len(steps) // 2]
    times = [max(1, round(step / usual)) for step in steps]
    if any(abs(step - n * usual) > _ROUNDED * usual for step, n in zip(steps, times, strict=True)):
        return None
    gaps = [n - 1 for n in times if n > 1]
    return sum(gaps) if len(gaps) <= _FEW * len(steps) else None


def _places(series: Series) -> list[list[float]]:
    """Return where slices of one direction lie along their normal, in mm, parted by place; nothing when they have no common direction."""
    seats = [_seat(instance) for instance in series.instances]
    first = seats[0]
    if first is None:
        return []
    found = []
    for seat in seats:
        if seat is None or any(abs(p - q) > _SAME_DIRECTION for p, q in zip(seat[1], first[1], strict=True)):
            return []
        found.append(sum(p * n for p, n in zip(seat[0], _normal(first[1]), strict=True)))
    places: list[list[float]] = []
    for place in sorted(found):
        if places and place - places[-1][-1] <= _SAME_PLACE_MM:
            places[-1].append(place)
        else:
            places.append([place])
    return places


def _seat(instance: Instance) -> tuple[list[float], list[float]] | None:
    position, orientation = _numbers(instance, "ImagePositionPatient", 3), _numbers(instance, "ImageOrientationPatient", 6)
    return (position, orientation) if position and orientation else None


def _numbers(instance: Instance, keyword: str, length: int) -> list[float]:
    value = instance.header.get(keyword)
    whole = isinstance(value, list) and len(value) == length and all(isinstance(one, int | float) and math.isfinite(one) for one in value)
    return [float(one) for one in value] if isinstance(value, list) and whole else []


def _normal(orientation: Sequence[float]) -> tuple[float, float, float]:
    a, b, c, d, e, f = orientation
    return b * f - c * e, c * d - a * f, a * e - b * d


def _holes(series: Series) -> int:
    """Return how many Instance Numbers (0020,0013) are left out between others; 0 where so many are that they do not count one by one."""
    numbers = {_integer(one.header.get("InstanceNumber")) for one in series.instances} - {None}
    found = sorted(number for number in numbers if number is not None)
    if len(found) < _FEWEST or len(found) < len(series.instances):
        return 0
    holes = found[-1] - found[0] + 1 - len(found)
    return holes if holes <= _FEW * len(found) else 0


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
