"""Chests that never were, with nodules whose place, size and density are known: what the probabilities are learnt from, and what proves them.

Drawn after anatomy and physics, not after any one patient: two lungs in a chest with heart, diaphragm, ribs and trachea; arteries and veins that
fork by Murray's law (the cubes of the daughters' radii add up to the mother's) down to less than a voxel, with bronchi beside the arteries;
fissures, scars, and lung that is denser where it hangs lowest. Then a scanner: blur in the plane, slices that average over their thickness, noise.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Point = NDArray[np.float64]  # mm (up, back, left) from the chest's middle
Points = tuple[Any, Any, Any]  # up, back, left, each an array that broadcasts with the others
Image = NDArray[np.float32]

LUNG_HU, FAT_HU, TISSUE_HU, BONE_HU, AIR_HU = -860.0, -100.0, 40.0, 350.0, -1000.0
SCAR_HU, FISSURE_HU = -150.0, -600.0
HANG_HU = 0.6  # per mm to the back: lung that lies lowest holds more blood
FIELD_MM = (270.0, 232.0, 340.0)  # what is imaged: up, back, left
BODY_MM, FAT_MM = (105.0, 160.0), 14.0  # half axes (back, left) of the trunk, and how thick its fat is
LUNG_MM = np.array((120.0, 82.0, 56.0))  # half axes of one lung
ASIDE_MM, MIDLINE_MM = 70.0, 14.0  # of a lung's middle to the side, and how far both stay off the midline
HEART, HEART_MM = np.array((-45.0, -28.0, 18.0)), 50.0
DOME_MM, DOME_UP_MM = 95.0, -150.0  # of the diaphragm: radius, and how high its middle lies
RIB_MM, RIB_STEP_MM, RIB_FALL_MM = 5.0, 26.0, 18.0
TRACHEA_MM, CARINA = 9.0, np.array((50.0, 5.0, 0.0))
GREAT = (  # aorta behind, its arch, superior vena cava: from, to, radius
    ((60.0, 42.0, 12.0), (-140.0, 46.0, 12.0), 12.5),
    ((60.0, -10.0, 4.0), (60.0, 42.0, 12.0), 13.0),
    ((10.0, -12.0, -15.0), (130.0, -12.0, -17.0), 9.0),
)
STEMS = 5  # of arteries, veins and nodes at each hilum
HILUM = np.array((15.0, 0.0, 26.0))
TRUNKS, TRUNK_MM = 4, 4.0  # vessels of a kind that enter a lung, and their radius
TWIG_MM = 0.6  # below this radius a vessel is lost in the noise
LENGTH = 6.0  # of a vessel between two forks, in radii
ROOM_MM = 4.0  # between two nodules
LAYER_MM = 1.25  # a slice is drawn in layers of about this thickness


@dataclass(frozen=True, slots=True)
class Nodule:
    """One nodule as drawn: where its middle is, how wide (mm, of the ball of its volume), how dense, and what it hangs on."""

    middle: Point
    diameter_mm: float
    hu: float
    place: str  # "free", "vessel" or "pleura"
    volume_ml: float  # of what lies within the lung


@dataclass(frozen=True, slots=True)
class Scanner:
    """How the chest is imaged: spacing (slice, row, column), blur of a point as a Gaussian's sigma in the plane, noise, tilt of the patient."""

    spacing_mm: tuple[float, float, float] = (1.25, 1.0, 1.0)
    blur_mm: float = 0.6
    noise_hu: float = 20.0
    tilt_rad: float = 0.0  # about the axis from right to left


@dataclass(frozen=True, slots=True)
class Chest:
    """What the scanner gives, (slice, row, column) in HU with an affine to LPS, and the nodules in it."""

    hu: Image
    affine: NDArray[np.float64]
    nodules: tuple[Nodule, ...]

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Of slices, rows, columns."""
        return tuple(float(s) for s in np.linalg.norm(self.affine[:3, :3], axis=0))

    def voxel(self, nodule: Nodule) -> NDArray[np.float64]:
        """Return where a nodule's middle lies, in voxels."""
        return np.asarray(np.linalg.inv(self.affine) @ (*nodule.middle[::-1], 1.0))[:3]


def chest(seed: int, scanner: Scanner, diameters_mm: Any, *, ground_glass: float = 0.2, bare: bool = False) -> Chest:
    """Return a chest with nodules of these diameters.

    ground_glass: the share of nodules above 6 mm that are no denser than that. bare: without vessels, bronchi, fissures and scars.
    """
    random = np.random.default_rng(seed)
    canvas = _Canvas(scanner)
    _draw_trunk(canvas)
    blood_hu = random.uniform(30, 200)  # without contrast medium, or with
    vessels: list[tuple[Point, float]] = []
    if not bare:
        _draw_great_vessels(canvas, random, blood_hu)
        vessels = _draw_vessels(canvas, random, blood_hu)
        _draw_scars(canvas, random)
    nodules: list[Nodule] = []
    for diameter_mm in sorted(diameters_mm, reverse=True):
        middle, place = _room(random, diameter_mm, vessels, nodules)
        faint = diameter_mm > 6 and random.random() < ground_glass
        hu = random.uniform(-600, -350) if faint else random.uniform(-20, 80)
        nodules.append(_draw_nodule(canvas, random, middle, float(diameter_mm), hu, place))
    return Chest(canvas.scanned(random), canvas.affine, tuple(nodules))


class _Canvas:
    """The voxels in the making: each slice in layers, each edge as the share of a voxel that it leaves."""

    def __init__(self, scanner: Scanner) -> None:
        self.scanner = scanner
        self.layers = max(1, round(scanner.spacing_mm[0] / LAYER_MM))
        self.step_mm = np.array(scanner.spacing_mm) / (self.layers, 1, 1)
        slices, rows, columns = (int(mm / s) for mm, s in zip(FIELD_MM, scanner.spacing_mm, strict=True))
        self.shape = (slices * self.layers, rows, columns)
        self.hu = np.full(self.shape, AIR_HU, np.float32)
        cos, sin = np.cos(scanner.tilt_rad), np.sin(scanner.tilt_rad)
        self.turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])  # from the scanner's axes to the patient's

    @property
    def affine(self) -> NDArray[np.float64]:
        """From (slice, row, column) to the patient's millimetres, LPS."""
        result = np.eye(4)
        result[:3, :3] = (self.turn * self.scanner.spacing_mm)[::-1]
        middle = np.array([((self.layers - 1) / 2 - (self.shape[0] - 1) / 2) / self.layers, *(-(n - 1) / 2 for n in self.shape[1:])])
        result[:3, 3] = result[:3, :3] @ middle
        return result

    def everywhere(self) -> Iterator[tuple[tuple[slice, ...], Points]]:
        """Yield the voxels some layers at a time, which bounds the memory, and where they lie."""
        for first in range(0, self.shape[0], 32):
            box = (slice(first, min(first + 32, self.shape[0])), slice(0, self.shape[1]), slice(0, self.shape[2]))
            yield box, self.points(box)

    def about(self, points: NDArray[np.float64], reach_mm: float) -> tuple[slice, ...]:
        """Return the box of the voxels within reach of some points."""
        at = (points @ self.turn) / self.step_mm + (np.array(self.shape) - 1) / 2
        low, high = at.min(0) - reach_mm / self.step_mm, at.max(0) + reach_mm / self.step_mm
        return tuple(slice(max(0, int(a)), max(0, min(n, int(b) + 2))) for a, b, n in zip(low, high, self.shape, strict=True))

    def points(self, box: tuple[slice, ...]) -> Points:
        """Return where the voxels of a box lie: up, back, left; arrays that broadcast to the box's shape."""
        steps = zip(box, self.shape, self.step_mm, strict=True)
        z, y, x = ((np.arange(side.start, side.stop, dtype=np.float32) - (n - 1) / 2) * step for side, n, step in steps)
        z, y, x = z[:, None, None], y[None, :, None], x[None, None, :]
        (a, b, _), (c, d, _), _ = self.turn
        return a * z + b * y, c * z + d * y, x

    def paint(self, box: tuple[slice, ...], outside_mm: Any, hu: Any) -> Image:
        """Give what is inside (negative distance) its density; return the share of each voxel that is."""
        share = np.clip(0.5 - outside_mm / float(self.step_mm.mean()), 0, 1).astype(np.float32)
        self.hu[box] += share * (hu - self.hu[box])
        return share

    def scanned(self, random: np.random.Generator) -> Image:
        """Return the slices as the scanner gives them."""
        slices = self.hu.reshape(-1, self.layers, *self.shape[1:]).mean(1)
        sigma = [0, *(self.scanner.blur_mm / self.step_mm[1:])]
        grain = ndimage.gaussian_filter(random.standard_normal(slices.shape, np.float32), [0, 0.7, 0.7])
        blurred = ndimage.gaussian_filter(slices, sigma, mode="nearest")
        return np.asarray(np.rint(blurred + grain * (self.scanner.noise_hu / grain.std())), np.float32)


# ---------------------------------------------------------------------------------------------------------- what is drawn


def _ball(points: Points, middle: Any, radius: float) -> Any:
    return np.sqrt(sum((p - m) ** 2 for p, m in zip(points, middle, strict=True))) - radius


def _ellipse(points: Any, half: Any) -> Any:
    """Return about how far points lie outside of an ellipse or ellipsoid about the origin."""
    first = np.sqrt(sum((p / a) ** 2 for p, a in zip(points, half, strict=True)))
    second = np.sqrt(sum((p / a**2) ** 2 for p, a in zip(points, half, strict=True)))
    return first * (first - 1) / np.maximum(second, 1e-6)


def outside_lungs(points: Any) -> Any:
    """Return about how far points (up, back, left) lie outside of both lungs in mm; negative inside."""
    up, back, left = points
    aside = np.abs(left) - ASIDE_MM
    lung = _ellipse((up, back, aside), LUNG_MM)
    others = _ball(points, HEART, HEART_MM), _ball((up, back, aside), (DOME_UP_MM, 0, 0), DOME_MM), MIDLINE_MM - np.abs(left)
    for other in (-others[0], -others[1], others[2]):
        lung = np.maximum(lung, other)
    return lung


def _draw_trunk(canvas: _Canvas) -> None:
    """Draw skin, fat, muscle, lungs, the trachea with both main bronchi, and the ribs, which bulge into the lungs."""
    for box, points in canvas.everywhere():
        trunk = _ellipse(points[1:], BODY_MM) + 0 * points[0]
        canvas.paint(box, trunk, FAT_HU)
        canvas.paint(box, trunk + FAT_MM, TISSUE_HU)
        canvas.paint(box, outside_lungs(points), LUNG_HU + HANG_HU * points[1])
    for rib in _ribs():
        for radius, hu in ((RIB_MM + 2, TISSUE_HU), (RIB_MM, BONE_HU)):
            for start, end in zip(rib[:-1], rib[1:], strict=True):
                _draw_tube(canvas, start, end, radius, hu)
    top = np.array((FIELD_MM[0], 0.0, 0.0))
    for wall, hu in ((2.0, TISSUE_HU), (0.0, AIR_HU)):
        _draw_tube(canvas, CARINA, CARINA + top, TRACHEA_MM + wall, hu)
        for side in (-1, 1):
            _draw_tube(canvas, CARINA, HILUM * (1, 1, side), 0.6 * TRACHEA_MM + wall, hu)


def _ribs() -> Iterator[NDArray[np.float64]]:
    """Yield each rib as points along its middle, just outside of the lung, from the spine about the side to the front, where it hangs lower."""
    around = np.linspace(-2.3, 2.3, 25)
    for height in np.arange(-LUNG_MM[0] + 20, LUNG_MM[0], RIB_STEP_MM):
        up = height + RIB_FALL_MM * np.sin(around) / 2
        wide = np.sqrt(np.clip(1 - (up / LUNG_MM[0]) ** 2, 0.05, 1))
        for side in (-1, 1):
            left = side * (ASIDE_MM + (wide * LUNG_MM[2] + 4) * np.cos(around))
            yield np.stack([up, -(wide * LUNG_MM[1] + 4) * np.sin(around), left], 1)


def _draw_tube(canvas: _Canvas, start: Point, end: Point, radius: float, hu: float) -> None:
    box = canvas.about(np.stack([start, end]), radius + 2)
    if all(side.stop > side.start for side in box):
        canvas.paint(box, _from_line(canvas.points(box), start, end) - radius, hu)


def _from_line(points: Points, start: Point, end: Point) -> Any:
    along = end - start
    share = sum((p - s) * a for p, s, a in zip(points, start, along, strict=True)) / float(along @ along)
    share = np.clip(share, 0, 1)
    return np.sqrt(sum((p - s - share * a) ** 2 for p, s, a in zip(points, start, along, strict=True)))


def _draw_great_vessels(canvas: _Canvas, random: np.random.Generator, hu: float) -> None:
    """Draw aorta and superior vena cava, which bulge into the lungs, and the stems of the hila, of which some end in fat and nodes."""
    for start, end, radius in GREAT:
        _draw_tube(canvas, np.array(start), np.array(end), radius * random.uniform(0.85, 1.15), hu)
    for side in (-1, 1):
        for _ in range(STEMS):
            start, end = random.uniform((-15, -15, 8), (35, 20, 12)), random.uniform((-22, -22, 20), (38, 22, 38))
            _draw_tube(canvas, start * (1, 1, side), end * (1, 1, side), random.uniform(4, 9), hu if random.random() < 0.7 else TISSUE_HU)


def _draw_vessels(canvas: _Canvas, random: np.random.Generator, hu: float) -> list[tuple[Point, float]]:
    """Draw arteries with bronchi beside them, and veins; return points on vessels and the radius there."""
    places = []
    for side in (-1, 1):
        for trunk in range(2 * TRUNKS):
            aim = random.normal(size=3) * (60, 45, 30) + (0, 0, side * ASIDE_MM)
            growing = [(HILUM * (1, 1, side), _unit(aim - HILUM * (1, 1, side)), TRUNK_MM * random.uniform(0.7, 1.2))]
            while growing:
                start, direction, radius = growing.pop()
                end = _end(random, start, direction, radius)
                if end is None:
                    continue
                _draw_tube(canvas, start, end, radius, hu)
                if trunk < TRUNKS and radius > 1:
                    _draw_bronchus(canvas, start, end, radius)
                places.append(((start + end) / 2, radius))
                growing += _fork(random, end, _unit(end - start), radius)
    return places


def _end(random: np.random.Generator, start: Point, direction: Point, radius: float) -> Point | None:
    """Return where a vessel forks next: within the lung, or it ends here."""
    for spread in (0.1, 0.5, 1.0):
        end = start + _unit(direction + spread * random.normal(size=3)) * min(30.0, LENGTH * radius * random.uniform(0.7, 1.4))
        if outside_lungs(end) < -1 - radius or (radius > 2.5 and np.abs(end[2]) < 40):
            return np.asarray(end)
    return None


def _fork(random: np.random.Generator, place: Point, direction: Point, radius: float) -> list[tuple[Point, Point, float]]:
    """Return both daughters of a vessel with radii and angles by Murray's law; a twig has none."""
    share = random.uniform(0.15, 0.5)
    aside = _unit(np.cross(direction, random.normal(size=3)))
    daughters = []
    for part, sign in ((share, 1), (1 - share, -1)):
        own, other = radius * part ** (1 / 3), radius * (1 - part) ** (1 / 3)
        cosine = np.clip((radius**4 + own**4 - other**4) / (2 * radius**2 * own**2), -1, 1)
        if own > TWIG_MM:
            daughters.append((place, cosine * direction + sign * np.sqrt(1 - cosine**2) * aside, own))
    return daughters


def _draw_bronchus(canvas: _Canvas, start: Point, end: Point, radius: float) -> None:
    """Draw a bronchus as wide as the artery that it runs beside."""
    beside = _unit(np.cross(end - start, (0.3, 1.0, 0.2))) * 2.1 * radius
    _draw_tube(canvas, start + beside, end + beside, 1.1 * radius, TISSUE_HU)
    _draw_tube(canvas, start + beside, end + beside, 0.8 * radius, AIR_HU)


def _draw_scars(canvas: _Canvas, random: np.random.Generator) -> None:
    """Draw a fissure through each lung, and flat scars, some at the pleura."""
    for side in (-1, 1):
        normal = _unit(np.array([0.6, 0.8, 0.05 * side]) + 0.1 * random.normal(size=3))
        for box, points in canvas.everywhere():
            off = np.abs(sum(p * n for p, n in zip(points, normal, strict=True))) - 0.3
            canvas.paint(box, np.maximum(np.maximum(off, outside_lungs(points)), -side * points[2]), FISSURE_HU)
    for _ in range(6):
        middle, normal = _within(random, 3.0), _unit(random.normal(size=3))
        long, thick = random.uniform(6, 20), random.uniform(0.6, 1.5)
        box = canvas.about(middle[None], long + 2)
        points = canvas.points(box)
        off = np.abs(sum((p - m) * n for p, m, n in zip(points, middle, normal, strict=True))) - thick
        canvas.paint(box, np.maximum(np.maximum(off, _ball(points, middle, long)), outside_lungs(points)), SCAR_HU)


# -------------------------------------------------------------------------------------------------------------- nodules


def _room(random: np.random.Generator, diameter_mm: float, vessels: list[tuple[Point, float]], others: list[Nodule]) -> tuple[Point, str]:
    """Return where a nodule can be, and what it hangs on there: nothing, a vessel or the pleura, each as often as the others."""
    while True:
        place = str(random.choice(["free", "vessel", "pleura"] if vessels else ["free", "pleura"]))
        if place == "free":
            middle = _within(random, diameter_mm / 2 + 2)
        elif place == "vessel":
            on, radius = vessels[random.integers(len(vessels))]
            middle = on + _unit(random.normal(size=3)) * random.uniform(0, diameter_mm / 2 + radius)
        else:
            middle = _at_pleura(random, diameter_mm / 2 * random.uniform(0.1, 0.8))
        outside_mm = outside_lungs(middle)
        apart = all(np.linalg.norm(middle - o.middle) > (diameter_mm + o.diameter_mm) / 2 + ROOM_MM for o in others)
        if apart and outside_mm < 0 and (place == "pleura" or outside_mm < -diameter_mm / 2):
            return middle, place


def _within(random: np.random.Generator, deep_mm: float) -> Point:
    """Return a point that lies this deep in a lung."""
    while True:
        point = random.uniform(-1, 1, 3) * (LUNG_MM + (0, 0, ASIDE_MM))
        if outside_lungs(point) < -deep_mm:
            return np.asarray(point)


def _at_pleura(random: np.random.Generator, deep_mm: float) -> Point:
    """Return a point this deep under the surface of a lung, found on a straight way out of it."""
    start, direction = _within(random, 15.0), _unit(random.normal(size=3))
    way = start + np.arange(0, 150, 0.5)[:, None] * direction
    return np.asarray(way[np.argmax(outside_lungs(way.T) > -deep_mm)])


def _draw_nodule(canvas: _Canvas, random: np.random.Generator, middle: Point, diameter_mm: float, hu: float, place: str) -> Nodule:
    """Draw a lobulated ellipsoid, every third with spicules, and say how much of it lies in the lung."""
    half = np.exp(random.normal(0, 0.12, 3))
    half *= diameter_mm / 2 / np.prod(half) ** (1 / 3)
    waves, phases = random.normal(0, 2.0, (4, 3)), random.uniform(0, 2 * np.pi, 4)
    box = canvas.about(middle[None], 2 * diameter_mm)
    points = canvas.points(box)
    away = [p - m for p, m in zip(points, middle, strict=True)]
    far = np.sqrt(sum(a**2 for a in away)) + 1e-6
    lobes = sum(np.cos(sum(w * a for w, a in zip(wave, away, strict=True)) / far + phase) for wave, phase in zip(waves, phases, strict=True))
    outside_mm = _ellipse(away, half) - random.uniform(0, 0.06) * diameter_mm / 2 * lobes
    if random.random() < 1 / 3 and diameter_mm > 8:
        for _ in range(6):
            tip = middle + _unit(random.normal(size=3)) * diameter_mm * random.uniform(0.6, 0.9)
            spicule = np.maximum(_from_line(points, middle, tip) - 0.6, outside_lungs(points))
            canvas.paint(box, spicule, hu)
    share = canvas.paint(box, outside_mm, hu)
    within = np.clip(0.5 - outside_lungs(points) / float(canvas.step_mm.mean()), 0, 1)
    cube_ml = float(np.prod(canvas.step_mm)) / 1000
    width_mm = float((6 * share.sum() * cube_ml * 1000 / np.pi) ** (1 / 3))
    return Nodule(middle, width_mm, hu, place, float((share * within).sum()) * cube_ml)


def _unit(vector: Any) -> Point:
    return np.asarray(vector / np.linalg.norm(vector))
