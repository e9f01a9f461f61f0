"""Words only: values that cannot be wrong once built.

The nouns of the node, the tables of states, and the tree of errors. Nothing here reads a file, a socket or the clock.

    NodeError
    ├── ConfigError       the site's or a model's file says something that cannot run
    ├── Refused           a peer's request is answered with a DIMSE status
    ├── Unsuitable        the analysis declines this input, in a sentence for a radiographer
    ├── Transient         try again later
    │   └── PeerUnavailable   a remote application entity does not answer
    ├── Canceled          a person asked for the job to stop
    ├── Rejected          a person must look: the same attempt would fail again
    │   └── Unacceptable      another system's message is not taken as it is
    └── ModelFailed       the model's own process raised, hung, overran its memory or died
"""

from dicom_node.domain.announcements import ANNOUNCEMENT_TRANSITIONS, Announcement, AnnouncementState
from dicom_node.domain.arrival import Availability, Available, Count, Notice, Notification, standing
from dicom_node.domain.commitments import (
    COMMITMENT_TRANSITIONS,
    Commitment,
    CommitmentItem,
    CommitmentRole,
    CommitmentState,
    Fate,
)
from dicom_node.domain.errors import (
    Canceled,
    ConfigError,
    ModelFailed,
    NodeError,
    PeerUnavailable,
    Refused,
    Rejected,
    Transient,
    Unacceptable,
    Unsuitable,
    cause_of,
    fault,
)
from dicom_node.domain.facets import FACETS, RECOGNITION_KEYWORDS
from dicom_node.domain.feedback import (
    VERIFICATION_TRANSITIONS,
    VERIFIED,
    Agreement,
    Opinion,
    Verdict,
    Verification,
    VerificationState,
    wilson,
)
from dicom_node.domain.findings import (
    FRACTION_HALF,
    FRACTION_MAX,
    MARK_POINTS,
    SEGMENT_AXIS,
    Assembled,
    Findings,
    Mark,
    Presentation,
    Progress,
    Reference,
    Region,
    Term,
)
from dicom_node.domain.jobs import (
    REJECTION,
    Delivery,
    Job,
    Result,
    job_identity,
)
from dicom_node.domain.messages import MESSAGE_TRANSITIONS, Message, MessageState, Trouble
from dicom_node.domain.names import (
    AE,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    derived_uid,
    is_ae_title,
    is_uid,
)
from dicom_node.domain.orders import Order, OrderState, Subject
from dicom_node.domain.people import PERSON_ROLES, SCOPES, Account, Bearer, is_person_name
from dicom_node.domain.plain import plain
from dicom_node.domain.priors import Prior, Priors, PriorsState
from dicom_node.domain.received import (
    DERIVED_MODALITIES,
    DRAWN_ON,
    HEADER_KEYWORDS,
    PROJECTIONS,
    SEGMENTATIONS,
    Header,
    Instance,
    Series,
    Study,
    drawn_on,
)
from dicom_node.domain.requests import Asked, OrderAct
from dicom_node.domain.retrievals import RETRIEVAL_TRANSITIONS, Retrieval, RetrievalState
from dicom_node.domain.states import (
    DELIVERY_TRANSITIONS,
    JOB_TRANSITIONS,
    Cause,
    DeliveryState,
    Discontinuation,
    JobState,
    Priority,
    StudyState,
)
from dicom_node.domain.steps import PerformedStep, StepState
from dicom_node.domain.stuck import Stuck, stuck
from dicom_node.domain.triage import Raising
from dicom_node.domain.workitems import (
    FILTERED_SUBSCRIPTION,
    GLOBAL_SUBSCRIPTION,
    Attributes,
    Channel,
    EventReport,
    Readiness,
    ReportKind,
    Subscription,
    Workitem,
    state_seen,
)

__all__ = [
    "Attributes",
    "Cause",
    "FILTERED_SUBSCRIPTION",
    "GLOBAL_SUBSCRIPTION",
    "Channel",
    "EventReport",
    "Raising",
    "Readiness",
    "ReportKind",
    "Subscription",
    "Workitem",
    "state_seen",
    "PERSON_ROLES",
    "SCOPES",
    "Account",
    "Bearer",
    "is_person_name",
    "VERIFICATION_TRANSITIONS",
    "VERIFIED",
    "Agreement",
    "Opinion",
    "Verdict",
    "Verification",
    "VerificationState",
    "wilson",
    "AE",
    "ANNOUNCEMENT_TRANSITIONS",
    "Announcement",
    "AnnouncementState",
    "Asked",
    "Assembled",
    "Availability",
    "Available",
    "COMMITMENT_TRANSITIONS",
    "Canceled",
    "Commitment",
    "CommitmentItem",
    "CommitmentRole",
    "CommitmentState",
    "ConfigError",
    "Count",
    "DELIVERY_TRANSITIONS",
    "DERIVED_MODALITIES",
    "DRAWN_ON",
    "Delivery",
    "DeliveryState",
    "Discontinuation",
    "FACETS",
    "FRACTION_HALF",
    "FRACTION_MAX",
    "Fate",
    "Findings",
    "HEADER_KEYWORDS",
    "Header",
    "IMPLEMENTATION_CLASS_UID",
    "IMPLEMENTATION_VERSION_NAME",
    "Instance",
    "JOB_TRANSITIONS",
    "Job",
    "JobState",
    "MARK_POINTS",
    "MESSAGE_TRANSITIONS",
    "Mark",
    "Message",
    "MessageState",
    "ModelFailed",
    "NodeError",
    "Notice",
    "Notification",
    "Order",
    "OrderAct",
    "OrderState",
    "PROJECTIONS",
    "PeerUnavailable",
    "PerformedStep",
    "Presentation",
    "Prior",
    "Priority",
    "Priors",
    "PriorsState",
    "Progress",
    "RECOGNITION_KEYWORDS",
    "REJECTION",
    "RETRIEVAL_TRANSITIONS",
    "Reference",
    "Refused",
    "Region",
    "Rejected",
    "Result",
    "Retrieval",
    "RetrievalState",
    "SEGMENTATIONS",
    "SEGMENT_AXIS",
    "Series",
    "StepState",
    "Study",
    "StudyState",
    "Stuck",
    "Subject",
    "Term",
    "Transient",
    "Trouble",
    "Unacceptable",
    "Unsuitable",
    "cause_of",
    "derived_uid",
    "drawn_on",
    "fault",
    "is_ae_title",
    "is_uid",
    "job_identity",
    "plain",
    "standing",
    "stuck",
]
