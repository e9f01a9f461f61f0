"""How it is said: the object that is posted, and subject and text of mail, by the site's templates where it has some."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import SandboxedEnvironment

from dicom_node.domain import ConfigError, Message

RESEARCH_USE = "Research use only; not for diagnosis."
_LONGEST = 64 * 1024  # characters of a text; of a subject 200
_SUBJECT = "{{ node }}: {{ about }}{% if what == 'ended' %} (over){% endif %}"
_BODY = """{{ says }}
{% if study_instance_uid %}
study {{ study_instance_uid }}{% endif %}{% if patient %}
patient {{ patient.id }} {{ patient.name }}{% endif %}

{{ research_use }}
"""
_KNOWN: Mapping[str, Any] = dict.fromkeys(("says", "what", "study_instance_uid", "job_id", "model", "concept", "value", "unit", "answer"), "")


def said(one: Message, node: str, patient: Mapping[str, str] | None) -> dict[str, Any]:
    """Return what is said, as an object. patient: only where the site wants the patient to be named."""
    named = {"patient": dict(patient)} if patient else {}
    return {"id": one.key, "node": node, **one.facts, **named, "research_use": RESEARCH_USE}


def posted(facts: Mapping[str, Any]) -> bytes:
    """Return the body of a post."""
    return json.dumps(facts, ensure_ascii=False, sort_keys=True).encode()


def mailed(facts: Mapping[str, Any], subject: Path | None, body: Path | None) -> tuple[str, str]:
    """Return subject and text of a mail.

    Raises
    ------
    ConfigError: a template cannot be read, or cannot be filled in.
    """
    known = {**_KNOWN, "patient": None, **facts}
    words = " ".join(_filled(_text(subject) or _SUBJECT, known, subject).split())
    return words[:200], _filled(_text(body) or _BODY, known, body)[:_LONGEST]


def _text(file: Path | None) -> str:
    if file is None:
        return ""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the template {file} cannot be read", hint="Give a text file in UTF-8.") from error


def _filled(template: str, facts: Mapping[str, Any], file: Path | None) -> str:
    try:
        return SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True).from_string(template).render(facts)
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise ConfigError(f"the template {file or 'of the program'} cannot be filled in: {type(error).__name__}", hint="Correct it.") from error
