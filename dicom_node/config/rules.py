"""The rules alone, as text that a person edits: written as TOML, and read back beside the rest of the site's configuration."""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from dicom_node.config.node import NodeConfig, Rule
from dicom_node.domain import ConfigError

_LONGEST = 100_000  # characters
_HEADING = re.compile(r"^\s*\[\[\s*rules\s*\]\]")
_HINT = "Nothing was changed. docs/rules.md tells what a rule may say."


def rules_text(rules: Sequence[Rule]) -> str:
    """Write rules as `node.toml` has them, without the keys that are at their defaults."""
    return "\n".join(_written(rule) for rule in rules)


def rules_from(text: str, beside: NodeConfig) -> NodeConfig:
    """Return a site's configuration with the rules of a text in the place of its own.

    Raises
    ------
    ConfigError: it is no TOML, or a rule cannot run; the message names the line.
    """
    if len(text) > _LONGEST:
        raise ConfigError(f"the rules are longer than {_LONGEST} characters", hint=_HINT)
    try:
        said = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_not_toml(text, str(error)), hint=_HINT) from error
    except RecursionError as error:
        raise ConfigError("this is nested too deeply", hint=_HINT) from error
    strange = next((key for key in said if key != "rules"), None)
    if strange is not None:
        raise ConfigError(f"line {_line_of_key(text, strange)}: '{strange}' is no rule; write [[rules]] and its keys alone", hint=_HINT)
    others = {name: getattr(beside, name) for name in NodeConfig.model_fields if name != "rules"}
    try:
        return NodeConfig.model_validate(others | {"rules": said.get("rules", [])})
    except ValidationError as error:
        raise ConfigError("; ".join(_told(text, one) for one in error.errors()), hint=_HINT) from error


def _not_toml(text: str, said: str) -> str:
    at = re.search(r" \(at line (\d+), column \d+\)$", said)
    line = int(at[1]) if at else len(text.splitlines()) or 1  # or "at end of document"
    return f"line {line}: this is not TOML: {said}"


def _written(rule: Rule) -> str:
    values = rule.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    for conditions in ("when", "recognised"):
        if conditions in values:
            values[conditions] = {key: _shortest(one) for key, one in values[conditions].items()}
    return "[[rules]]\n" + "".join(f"{key} = {_inline(value)}\n" for key, value in values.items())


def _shortest(condition: Mapping[str, Any]) -> Any:
    """Return a condition that asks for one value as that value."""
    return condition["equals"] if set(condition) == {"equals"} else condition


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key if key.isidentifier() else json.dumps(key)} = {_inline(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _told(text: str, error: Any) -> str:
    """Say one error with its line: the key that it is about, or the rule."""
    place = error["loc"]
    rule = "there is no such key" if error["type"] == "extra_forbidden" else error["msg"].removeprefix("Value error, ")
    if place[:1] != ("rules",) or len(place) < 2:
        named = re.search(r"rule '([^']*)'", rule)
        return f"line {_line_named(text, named[1])}: {rule}" if named else rule
    line = _line_of_rule(text, int(place[1]), str(place[2]) if len(place) > 2 else "")
    return f"line {line}: {'.'.join(map(str, place[2:])) or 'the rule'}: {rule}"


def _line_of_rule(text: str, index: int, key: str) -> int:
    """Return the line of a key of a rule, or of the rule's heading, counted from 1."""
    lines = text.splitlines()
    headings = [number for number, line in enumerate(lines) if _HEADING.match(line)]
    if index >= len(headings):
        return 1
    end = headings[index + 1] if index + 1 < len(headings) else len(lines)
    keyed = re.compile(rf"^\s*(\[+\s*rules\s*\.\s*)?[\"']?{re.escape(key)}\b")
    return next((n for n in range(headings[index] + 1, end) if key and keyed.match(lines[n])), headings[index]) + 1


def _line_named(text: str, name: str) -> int:
    written = (json.dumps(name, ensure_ascii=False), f"'{name}'")
    return next((number for number, line in enumerate(text.splitlines(), 1) if any(one in line for one in written)), 1)


def _line_of_key(text: str, key: str) -> int:
    return next((number for number, line in enumerate(text.splitlines(), 1) if re.match(rf"^\s*\[*\s*[\"']?{re.escape(key)}\b", line)), 1)
