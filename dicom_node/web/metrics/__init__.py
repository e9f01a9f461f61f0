"""What the node measures of itself, as Prometheus reads it; no label names a patient or a UID."""

from dicom_node.web.metrics.requests import Counted
from dicom_node.web.metrics.serving import registry_of_process, routes

__all__ = ["Counted", "registry_of_process", "routes"]
