"""What a series is recognised as by its headers alone: no file is touched and nothing heavy is loaded."""

from dicom_node.assemble.evidence import header_evidence
from dicom_node.domain import Series
from dicom_node.methods.recognition import Recognised, recognise


def recognised(series: Series) -> Recognised:
    """Return what the headers of a series say that it shows, with the evidence for it."""
    return recognise(header_evidence(series.header.get))


def warnings(found: Recognised) -> tuple[str, ...]:
    """Return what a reader should be warned of, one sentence each: what contradicts itself, and what should not be in the pixels."""
    said = list(found.contradictions)
    if found.get("annotation") == "burned-in":
        said.append(f"text is likely to be burned into the pixels, and may name the patient ({found.answers['annotation'].sentence})")
    if found.get("photometric") == "inverted":
        said.append(f"the image is likely to be shown inverted ({found.answers['photometric'].sentence})")
    if found.get("way_up") == "upside-down":
        said.append(f"the image is likely to be upside down ({found.answers['way_up'].sentence})")
    return tuple(said)
