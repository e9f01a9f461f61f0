"""What MR times say of a series' contrast: echo, repetition and inversion time are what makes a T1 differ from a T2.

For each kind of sequence that is in use, where its times lie at 1.5 and 3 T. A class' likelihood is that of its likeliest kind, the product of
log-normal densities of its times: protocols differ by factors, not by sums.
What times cannot tell, such as a T1 in 3-D from an angiography, stays open.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from dicom_node.domain import FACETS
from dicom_node.methods.recognition import Evidence, stating

_STATES_TI = {True: 0.7, False: 0.03}  # how often an inversion time is stated: of sequences that invert, and of those that do not
_STATES_IR = {True: 0.75, False: 0.05}  # and how often IR is among the values of Scanning Sequence
_AS_DESCRIBED = 0.9  # how often Scanning Sequence (0018,0020) is what the kind is
_ANY_TE, _ANY_TR, _ANY_TI = (1 / math.log(high / low) for low, high in ((1, 500), (2, 15000), (50, 4000)))  # per factor e: nothing is known
_ANYTHING = 0.02  # of each density is this: the table does not know every protocol


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of sequence: each time in ms, as its middle and the factor of one standard deviation."""

    name: str  # the class
    scanning: str  # a value of Scanning Sequence: SE, GR or EP
    te: tuple[float, float]
    tr: tuple[float, float]
    ti: tuple[float, float] | None = None


KINDS = (
    Kind("T1", "SE", (12, 1.5), (550, 1.5)),  # spin echo
    Kind("T1", "GR", (3, 1.8), (9, 2.0)),  # spoiled gradient echo in 3-D
    Kind("T1", "GR", (1.8, 1.4), (4.2, 1.3)),  # the same on the trunk, in one breath
    Kind("T1", "GR", (5, 1.6), (28, 1.35)),  # the same as it was made before inversion came into use
    Kind("T1", "GR", (3, 1.6), (180, 1.5)),  # the same in 2-D, in and out of phase
    Kind("T1", "GR", (3, 1.4), (2000, 1.3), (950, 1.3)),  # MPRAGE
    Kind("T1", "GR", (3, 1.4), (8, 1.3), (500, 1.4)),  # the same where TR is stated from pulse to pulse
    Kind("T1", "SE", (20, 1.6), (2200, 1.3), (850, 1.3)),  # inversion recovery, "T1 FLAIR"
    Kind("T2", "SE", (100, 1.35), (4500, 1.6)),  # turbo spin echo
    Kind("T2", "SE", (300, 1.4), (3000, 1.3)),  # 3-D with variable flip angles
    Kind("FLAIR", "SE", (110, 1.4), (8500, 1.3), (2400, 1.2)),
    Kind("FLAIR", "SE", (350, 1.4), (5500, 1.4), (1800, 1.2)),  # 3-D
    Kind("PD", "SE", (25, 1.5), (3000, 1.5)),
    Kind("STIR", "SE", (50, 1.6), (4500, 1.5), (165, 1.3)),
    Kind("DWI", "EP", (80, 1.3), (5500, 1.7)),
    Kind("ADC", "EP", (80, 1.3), (5500, 1.7)),
    Kind("SWI", "GR", (22, 1.4), (40, 1.6)),
    Kind("SWI", "GR", (20, 1.4), (650, 1.5)),  # T2* in 2-D
    Kind("MRA", "GR", (4, 1.6), (24, 1.3)),  # time of flight
    Kind("MRA", "GR", (1.3, 1.3), (3.5, 1.3)),  # with contrast agent
    Kind("perfusion", "EP", (32, 1.25), (1600, 1.3)),
    Kind("BOLD", "EP", (32, 1.2), (2200, 1.3)),
)
_CONTRASTS = {  # Acquisition Contrast (PS3.3 C.8.13.3.1.1)
    "T1": ("T1",),
    "T2": ("T2",),
    "T2_STAR": ("SWI",),
    "FLUID_ATTENUATED": ("FLAIR",),
    "DIFFUSION": ("DWI", "ADC"),
    "PROTON_DENSITY": ("PD",),
    "PERFUSION": ("perfusion",),
    "STIR": ("STIR",),
    "TOF": ("MRA",),
    "FLOW_ENCODED": ("MRA",),
    "TAGGING": (),
}


def times_evidence(te: float | None, tr: float | None, ti: float | None, scanning: Iterable[str]) -> Evidence | None:
    """Return what times (ms) and Scanning Sequence say of a series' contrast; None without an echo and a repetition time."""
    if te is None or tr is None or te <= 0 or tr <= 0:
        return None
    stated, codes = ti if ti and ti > 0 else None, frozenset(scanning)
    by_class: dict[str, list[float]] = {name: [] for name in FACETS["sequence"]}
    for kind in KINDS:
        by_class[kind.name].append(_density(kind, te, tr, stated, codes))
    said = f"TE {te:.4g} ms, TR {tr:.5g} ms" + (f", TI {stated:.4g} ms" if stated else "")
    said += f", {'/'.join(sorted(codes & _CODES))}" if codes & _CODES else ""
    likelihood = {name: max(found) for name, found in by_class.items()}
    return Evidence(facet="sequence", source="EchoTime, RepetitionTime", said=said, likelihood=likelihood)


def contrast_evidence(acquisition_contrast: str) -> Evidence | None:
    """Return what Acquisition Contrast of an enhanced image says; None where it says nothing."""
    classes = _CONTRASTS.get(acquisition_contrast.strip().upper(), ())
    return stating("sequence", "AcquisitionContrast", " or ".join(classes), classes, 0.95) if classes else None


_CODES = frozenset({"SE", "IR", "GR", "EP", "RM"})


def _density(kind: Kind, te: float, tr: float, ti: float | None, codes: frozenset[str]) -> float:
    density = _log_normal(te, kind.te, _ANY_TE) * _log_normal(tr, kind.tr, _ANY_TR)
    often = _STATES_TI[kind.ti is not None]
    density *= 1 - often if ti is None else often * (_ANY_TI if kind.ti is None else _log_normal(ti, kind.ti, _ANY_TI))
    if codes & _CODES:
        described = kind.scanning in codes and ("EP" in codes) is (kind.scanning == "EP")
        inverting = _STATES_IR[kind.ti is not None]
        density *= (_AS_DESCRIBED if described else 1 - _AS_DESCRIBED) * (inverting if "IR" in codes else 1 - inverting)
    return density


def _log_normal(value: float, around: tuple[float, float], anywhere: float) -> float:
    middle, factor = around
    deviation = math.log(factor)
    density = math.exp(-0.5 * (math.log(value / middle) / deviation) ** 2) / (deviation * math.sqrt(2 * math.pi))
    return (1 - _ANYTHING) * density + _ANYTHING * anywhere
