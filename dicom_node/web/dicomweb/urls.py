"""Where the resources of DICOMweb are, as a client can use it."""

from starlette.requests import Request

PREFIX = "/dicom-web"


def service_url(request: Request) -> str:
    """Return the URL that all resources are below, as the client that asks knows this node."""
    try:
        base, server = request.base_url, request.scope.get("server")
        if server and base.port is None and base.hostname in (server[0], "localhost"):
            base = base.replace(port=server[1])  # dicomweb-client names the host without its port
    except ValueError:  # what should be a host is none
        return PREFIX
    return f"{str(base).rstrip('/')}{PREFIX}"


def accepted(request: Request) -> tuple[str | None, str | None]:
    """Return what a client says it accepts: in its headers, and in the query that takes their place (PS3.18 8.3.3.1)."""
    said = request.headers.getlist("accept")
    return (",".join(said) if said else None), request.query_params.get("accept")


def instance_url(service: str, study: str, series: str, instance: str) -> str:
    """Return the URL of an instance."""
    return f"{service}/studies/{study}/series/{series}/instances/{instance}"
