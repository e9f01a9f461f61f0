"""What goes into an analysis and what it concludes, before any encoding."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dicom_node.domain.received import PROJECTIONS

FRACTION_MAX = 255  # a fraction is held as a byte, rounded: this is 1.0
FRACTION_HALF = 128  # and this is what 0.5 is rounded to: from here on a voxel counts as the segment's
SEGMENT_AXIS = "ReferencedSegmentNumber"  # how highdicom names the axis of a volume that tells segments apart


MARK_POINTS = {"POINT": (1, 1), "CIRCLE": (2, 2), "POLYLINE": (2, 10_000)}  # kind of a mark -> the fewest and most points that it has


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Something drawn over one slice of an input.

    kind: a POINT; a CIRCLE, of its centre and one point on it; a POLYLINE, closed where its last point is its first.
    points: (row, column) in pixels of the slice, 0 being the centre of the first, fractions allowed.
    """

    slice: int  # index in the input's volume
    points: tuple[tuple[float, float], ...]
    kind: Literal["POINT", "CIRCLE", "POLYLINE"] = "POINT"
    text: str = ""  # written beside it


@dataclass(frozen=True, slots=True, kw_only=True)
class Presentation:
    """How the images of an input are to be shown.

    window: centre and width in the input's unit, by PS3.3 C.11.2.1.2 (LINEAR, below a width of 1 LINEAR_EXACT); None: the images' own.
    """

    window: tuple[float, float] | None = None
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What an analysis concluded, before any encoding; the model's manifest says what each name and number means.

    segments: a volume on the input's grid, or a lossless view of it: boolean for one segment, else segment numbers (0 is background).
        Where the manifest says `fractional`: values from 0 to 1, or uint8 from 0 to 255; for one segment (slice, row, column), for several
        (slice, row, column, segment), made by `ct.with_array(values, channels={"ReferencedSegmentNumber": [1, 2]})`.
    measurements: name -> value in the manifest's unit, for a measurement of several segments a mapping segment number -> value;
        None where the segment is empty and nothing can be measured. What is measured on each of what was `found` names the numbers found.
    evaluations: name -> one of the answers that the manifest lists for it.
    images: name -> a volume (slice, row, column) on the exact grid of the input that the manifest names, or a flipped or permuted view of it,
        in that input's unit: a series of derived images, one for each of the input's.
    maps: name -> a volume (slice, row, column) on the grid of the input that the manifest names, in the manifest's unit: a quantity at each voxel.
    presentations: name -> how the images are to be shown; None where it does not apply, and no object is made.
    keys: name -> indices of the slices that a person should look at; none: no object is made.
    notes: sentences for the reader, such as a doubt about the input.
    """

    segments: Any = None  # highdicom.Volume (slice, row, column), of fractions of several segments (slice, row, column, segment)
    measurements: Mapping[str, float | None | Mapping[int, float | None]] = field(default_factory=dict)
    evaluations: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, Any] = field(default_factory=dict)  # highdicom.Volume
    maps: Mapping[str, Any] = field(default_factory=dict)  # highdicom.Volume
    presentations: Mapping[str, Presentation | None] = field(default_factory=dict)
    keys: Mapping[str, Sequence[int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


Term = tuple[str, str, str]  # a coded term: value, scheme, meaning


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """One segment of a received segmentation, or one ROI of a structure set, as it describes itself."""

    number: int  # Segment Number or ROI Number, in its object
    label: str
    category: Term
    type: Term
    modifier: Term | None = None  # of the type, such as a laterality
    drawn: str = ""  # AUTOMATIC, SEMIAUTOMATIC or MANUAL; empty: not stated
    tracking_uid: str = ""
    tracking_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled:
    """One series put together for an analysis."""

    volume: Any  # highdicom.Volume (slice, row, column), float32 or, where the input asks for it, int16, in HU or the unit that the images state
    sources: tuple[Any, ...]  # pydicom Datasets without pixels: the slices in the volume's order, or the one multi-frame instance
    notes: tuple[str, ...] = ()  # what was noticed on the way: a localizer left out, the kernel
    # Of drawn regions: what each is, in the order of the numbers 1, 2, … that the volume holds; where some overlap it holds fractions instead
    # (slice, row, column, region), uint8, 255 being inside. The source is the object that drew them.
    regions: tuple[Region, ...] = ()
    turned: float | None = None  # of a projection stored dark where it is bright: the volume's values are this number less the image's own

    @property
    def projection(self) -> bool:
        """Whether it is one image without a place in the patient's coordinates."""
        return self.sources[0].get("SOPClassUID") in PROJECTIONS and "ImagePositionPatient" not in self.sources[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A pointer to a DICOM object elsewhere."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str


Progress = Callable[[float, str], None]  # fraction done from 0 to 1, and what is being done
