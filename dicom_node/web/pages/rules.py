"""Rules: what the site asks for, how they answer for a study, and what edited ones would make of the last studies, without doing it."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dicom_node.config import rules_text
from dicom_node.domain import ConfigError, Rejected
from dicom_node.domain.words import answers
from dicom_node.web.access import Role
from dicom_node.web.context import Tried
from dicom_node.web.forms import Form
from dicom_node.web.pages.acting import act, field
from dicom_node.web.pages.showing import Pages, asked

_MOST_STUDIES = 200


def routes(pages: Pages) -> list[BaseRoute]:
    """Return the pages of rules."""

    def listed(request: Request) -> Response:
        return _shown(request, study=asked(request, "study"))

    def _shown(request: Request, *, study: str = "", text: str | None = None, studies: int = 20, status: int = 200, **more: Any) -> Response:
        rules = pages.site.config.rules
        shared = {"rules": rules, "study": study, "studies": studies, "most": _MOST_STUDIES, "text": rules_text(rules) if text is None else text}
        return pages.page(request, "rules.html", "Rules", shared | explained(pages, study) | {"tried": None, "problem": ""} | more, status=status)

    def dry_run(request: Request, form: Form) -> Response:
        text, count = next(iter(form.get("rules", ())), ""), field(form, "studies", 4)
        studies = min(max(int(count), 1), _MOST_STUDIES) if count.isascii() and count.isdecimal() else 20
        try:
            tried = pages.context.try_rules(text, studies)
        except ConfigError as error:
            return _shown(request, text=text, studies=studies, problem=str(error), status=400)
        return _shown(request, text=text, studies=studies, tried=tried, summary=summary(tried))

    return [
        Route("/rules", pages.look(listed), methods=["GET"]),
        Route("/rules/dry-run", act(pages, Role.OPERATOR, dry_run), methods=["POST"]),
    ]


def explained(pages: Pages, text: str) -> dict[str, Any]:
    """Return how the rules of now answer for the study that a person means."""
    if not text:
        return {"explanation": None, "rows": [], "uid": ""}
    found = pages.store.studies.find(text)
    if len(found) != 1:
        said = f"{len(found)} studies end" if found else "no study's UID is or ends"
        raise Rejected(f"{said} with that", hint="Type more of the UID, or copy it from the study's page.")
    explanation = pages.context.explain(found[0])
    return {"explanation": explanation, "rows": answers(explanation.rules) if explanation else [], "uid": found[0]}


def summary(tried: tuple[Tried, ...]) -> str:
    """Say in one sentence what edited rules would change."""
    more, less = sum(len(one.more) for one in tried), sum(len(one.less) for one in tried)
    moved, same = sum(len(one.moved) for one in tried), sum(len(one.same) for one in tried)
    return f"Of {len(tried)} studies {sum(one.differs for one in tried)} differ. Jobs: {more} more, {less} fewer, {moved} otherwise, {same} the same."
