"""What others ask the node to do to a study, by an order of theirs."""

from dataclasses import dataclass, field
from enum import StrEnum

from dicom_node.domain.findings import Term
from dicom_node.domain.names import derived_uid
from dicom_node.domain.states import Priority


class OrderAct(StrEnum):
    """What a message does to an order."""

    NEW = "NEW"  # it is placed
    CHANGE = "CHANGE"  # it is another than before
    CANCEL = "CANCEL"  # it is not wanted any more
    STATUS = "STATUS"  # somebody says how far it is: `order_status`


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One order of a message (HL7 v2 OMI^O23, ORM^O01); what is empty was not said. A message that is sent again asks the same.

    Placer or filler order number is known, and Study Instance UID or accession number.
    """

    control_id: str  # of the message
    message_type: str  # such as OMI^O23
    application: str  # who sent it
    facility: str
    act: OrderAct
    order_control: str  # as it was sent, such as NW
    order_status: str = ""  # such as CM: completed
    placer_order_number: str = ""
    filler_order_number: str = ""
    accession_number: str = field(default="", repr=False)
    requested_procedure_id: str = ""
    study_instance_uid: str = ""
    patient_id: str = field(repr=False)
    issuer_of_patient_id: str = field(default="", repr=False)
    service: Term  # what is to be done
    priority: Priority = Priority.MEDIUM
    reason: str = field(default="", repr=False)

    @property
    def key(self) -> str:
        """Return a UID that is the same for every message about the same order."""
        number = ("placer", self.placer_order_number) if self.placer_order_number else ("filler", self.filler_order_number)
        return derived_uid("order", self.application, self.facility, *number, *self.service[:2])
