"""What a series can be recognised as: for each facet its classes, of which it is one or none that is listed."""

from collections.abc import Mapping

# Facet -> its classes. Modalities and projections are written as in DICOM; CR counts as DX, RF as XA.
FACETS: Mapping[str, tuple[str, ...]] = {
    "modality": ("CT", "MR", "PT", "NM", "US", "DX", "MG", "XA"),
    "body_part": (
        "head",  # with the neck, if both are there
        "neck",
        "chest",
        "heart",
        "breast",
        "abdomen",  # with the pelvis, if both are there
        "pelvis",
        "trunk",  # chest and abdomen
        "spine",
        "upper-limb",
        "lower-limb",
        "whole-body",
    ),
    "plane": ("axial", "coronal", "sagittal", "oblique"),
    "laterality": ("left", "right", "both"),
    "projection": ("PA", "AP", "lateral", "oblique"),
    "contrast": ("none", "arterial", "portal-venous", "delayed", "given"),  # given: in a phase that is not said
    "kernel": ("smooth", "sharp"),
    "sequence": ("T1", "T2", "FLAIR", "PD", "STIR", "DWI", "ADC", "SWI", "MRA", "perfusion", "BOLD"),
    "kind": ("original", "derived", "localizer", "capture"),  # capture: of a screen or of paper
    "photometric": ("plain", "inverted"),  # inverted: bone is shown dark
    "way_up": ("upright", "upside-down"),
    "annotation": ("none", "burned-in"),  # burned-in: text is drawn into the pixels
}

# What the ledger does not keep of a header and recognising asks for: read from one file of each series, where a rule or a model asks.
RECOGNITION_KEYWORDS = ("ViewPosition", "ImageLaterality", "PatientOrientation", "AcquisitionContrast")
