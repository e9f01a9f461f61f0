"""Who asks, and what they may.

`Gate` finds out who asks (see `gate` for what an endpoint finds in `request.state`), `allow` and `anyone` say before every endpoint who may use it,
and `login` has the pages by which people log in and out.
"""

from dicom_node.web.access.gate import Access, Gate
from dicom_node.web.access.headers import security
from dicom_node.web.access.roles import Person, Role, ScopeName, allow, anyone, demand, may, person
from dicom_node.web.access.source import Source

__all__ = ["Access", "Gate", "Person", "Role", "ScopeName", "Source", "allow", "anyone", "demand", "may", "person", "security"]
