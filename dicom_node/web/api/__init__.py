"""The JSON API: what the node's verbs say with `--json`, for programs, with its description in OpenAPI."""

from dicom_node.web.api.serving import routes

__all__ = ["routes"]
