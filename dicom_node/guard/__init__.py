"""Who is who, and who may do what: certificates, user identities, permissions.

`server_context` and `credentials` read the site's certificates and secrets when they are needed, and again when the files have changed. `denied`
decides whether a caller is who it says; `probe` tries what the node needs of a peer.
"""

from dicom_node.guard.access import Denial, Shown, denied
from dicom_node.guard.certificate import Certificate, days_left
from dicom_node.guard.credentials import credentials
from dicom_node.guard.probe import Finding, probe, probe_node, probe_web
from dicom_node.guard.tls import Reloading, server_context

__all__ = [
    "Certificate",
    "Denial",
    "Finding",
    "Reloading",
    "Shown",
    "credentials",
    "days_left",
    "denied",
    "probe",
    "probe_node",
    "probe_web",
    "server_context",
]
