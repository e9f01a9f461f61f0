"""The resource that Prometheus scrapes."""

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dicom_node.web.access import Role, allow
from dicom_node.web.context import Context
from dicom_node.web.metrics.collector import Ledger
from dicom_node.web.metrics.requests import Requests


def routes(context: Context, registry: CollectorRegistry | None = None) -> list[BaseRoute]:
    """Return the resource /metrics."""
    shown = registry if registry is not None else CollectorRegistry()
    shown.register(Ledger(context))

    def metrics(request: Request) -> Response:
        return Response(generate_latest(shown), media_type=CONTENT_TYPE_PLAIN_0_0_4, headers={"Cache-Control": "no-store"})

    return [Route("/metrics", allow(Role.VIEWER, metrics, "api.read"), methods=["GET"])]


def registry_of_process() -> tuple[CollectorRegistry, Requests]:
    """Return a registry of this process's own figures, and what counts its requests."""
    registry = CollectorRegistry()
    for kind in (ProcessCollector, PlatformCollector, GCCollector):
        kind(registry=registry)
    return registry, Requests(registry)
