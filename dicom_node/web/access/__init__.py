"""Who asks, and what they may."""

from dicom_node.web.access.gate import Gate
from dicom_node.web.access.roles import Person, Role, allow, anyone, person

__all__ = ["Gate", "Person", "Role", "allow", "anyone", "person"]
