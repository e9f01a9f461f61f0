"""The order that a study was made for, as far as a worklist tells of it (PS3.3 C.4.11, C.4.12)."""

from dataclasses import dataclass
from enum import StrEnum


class OrderState(StrEnum):
    """What is known of a study's order. All but WAITING are final."""

    WAITING = "WAITING"  # nobody could be asked yet
    KNOWN = "KNOWN"  # one order was found
    NONE = "NONE"  # nobody has one
    AMBIGUOUS = "AMBIGUOUS"  # several were found: none is used
    CONTRADICTED = "CONTRADICTED"  # what was found is not what the images say: it is not used


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a request says of the procedure; what is empty is not known. Accession number and requested procedure ID are never both empty."""

    study_instance_uid: str  # that the order foresees; the modality may have used another
    accession_number: str = ""
    requested_procedure_id: str = ""
    requested_procedure_description: str = ""
    requested_procedure_code: tuple[str, str, str] | None = None  # value, scheme designator, meaning
    reason: str = ""  # Reason for the Requested Procedure (0040,1002)
    scheduled_procedure_step_id: str = ""
    placer_order_number: str = ""
    filler_order_number: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A study of which the order is sought, by what its images say."""

    study_instance_uid: str
    accession_number: str = ""
    patient_id: str = ""
    modality: str = ""
    study_date: str = ""
    attempts: int = 0
    since: float = 0.0  # when it was first looked for; 0: never
