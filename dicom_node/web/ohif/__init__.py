"""The OHIF viewer, where a site has fetched it: served beside the node's own DICOMweb, with a configuration of ours, and asking nobody else."""

from dicom_node.web.ohif.package import PREFIX, fetch
from dicom_node.web.ohif.serving import is_here, routes

__all__ = ["PREFIX", "fetch", "is_here", "routes"]
