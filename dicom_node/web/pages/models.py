"""Models: what each is for, its card, its build, how long it takes here, and which rules use it."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dicom_node.config import Model
from dicom_node.domain import Rejected
from dicom_node.web.pages.markdown import as_html
from dicom_node.web.pages.showing import Pages

_CARD_CHARACTERS = 200_000


def routes(pages: Pages) -> list[BaseRoute]:
    """Return the pages of models."""

    def listed(request: Request) -> Response:
        return pages.page(request, "models.html", "Models", {"rows": [told(pages, *one) for one in pages.site.models.items()]})

    def one(request: Request) -> Response:
        name = str(request.path_params["name"])
        model = pages.site.models.get(name)
        if model is None:
            raise Rejected("there is no such model here", hint="Name it in [models].")
        values = {"row": told(pages, name, model), "model": model, "card": card(model.folder), "agreement": pages.store.feedback.agreement(name)}
        return pages.page(request, "model.html", f"Model {name}", values)

    return [Route("/models", pages.look(listed), methods=["GET"]), Route("/models/{name}", pages.look(one), methods=["GET"])]


def told(pages: Pages, name: str, model: Model) -> dict[str, Any]:
    """Return what is told of a model, with how long it took here."""
    seconds, ways = pages.store.overview.runs(name)
    return {
        "name": name,
        "version": model.manifest.version,
        "build": model.build,
        "device": pages.site.config.models[name].device,
        "weights": "missing" if model.missing_weights else "ready" if model.manifest.weights else "none needed",
        "task": model.manifest.task,
        "rules": [rule.name for rule in pages.site.config.rules if name in rule.analyse],
        "runs": len(seconds),
        "median_s": share(seconds, 0.5),
        "p95_s": share(seconds, 0.95),
        "ways": ways,
    }


def share(seconds: tuple[float, ...], part: float) -> float | None:
    """Return the time within which this part of the runs ended (nearest rank); `seconds` are sorted."""
    return seconds[max(-(-int(part * 1000) * len(seconds) // 1000) - 1, 0)] if seconds else None


@lru_cache(64)
def card(folder: Path) -> Markup:
    """Return a model's card as HTML, empty when it has none."""
    try:
        return as_html((folder / "README.md").read_text(encoding="utf-8", errors="replace")[:_CARD_CHARACTERS])
    except OSError:
        return Markup()
