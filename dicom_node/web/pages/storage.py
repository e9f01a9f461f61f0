"""Storage: how much is kept, how much room there is, and what goes when."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dicom_node.web.pages.showing import Pages


def routes(pages: Pages) -> list[BaseRoute]:
    """Return the page of the storage."""

    def shown(request: Request) -> Response:
        node, store = pages.site.config.node, pages.store
        values = {
            "free_mb": store.archive.free_mb(),
            "reserve_mb": node.disk_reserve_mb,
            "retain_days": node.retain_days,
            "root": str(store.archive.root),
            "database": "SQLite" if store.database.is_sqlite else "PostgreSQL",
            "studies": store.studies.counts(),
            "held": store.overview.held(),
        }
        return pages.page(request, "storage.html", "Storage", values)

    return [Route("/storage", pages.look(shown), methods=["GET"])]
