"""Shows the part of Markdown that model cards use: headings, paragraphs, lists, tables, code, bold. Everything is escaped, nothing is a link."""

import re
from collections.abc import Iterator
from itertools import groupby

from markupsafe import Markup, escape

_HEADING = re.compile(r"(#{1,6})\s+(.*)")
_ITEM = re.compile(r"\s*(?:[-*+]|\d+\.)\s+(.*)")
_RULE = re.compile(r"[\s|:-]+")
_INLINE = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*|\[([^\]]+)\]\(([^)\s]+)\)")


def as_html(text: str) -> Markup:
    """Return a document as HTML; its first heading is of the second level, for the page has one of its own."""
    return Markup("\n").join(_blocks(text))


def _blocks(text: str) -> Iterator[Markup]:
    lines: list[str] = []
    code: list[str] | None = None
    for line in [*text.splitlines(), ""]:
        if line.lstrip().startswith("```"):
            yield from _block(lines)
            if code is not None:
                yield Markup("<pre>{}</pre>").format("\n".join(code))
            lines, code = [], [] if code is None else None
        elif code is not None:
            code.append(line)
        elif not line.strip() or _HEADING.match(line):
            yield from _block(lines)
            lines = []
            yield from _heading(line)
        else:
            lines.append(line)
    yield from _block(lines)
    if code:
        yield Markup("<pre>{}</pre>").format("\n".join(code))


def _heading(line: str) -> Iterator[Markup]:
    if match := _HEADING.match(line):
        level = min(len(match[1]) + 1, 6)
        yield Markup("<h{}>{}</h{}>").format(level, _inline(match[2]), level)


def _block(lines: list[str]) -> Iterator[Markup]:
    """Give a run of lines as tables, lists and paragraphs."""
    for kind, some in groupby(_continued(lines), key=_kind):
        part = list(some)
        if kind == "table":
            yield _table(part)
        elif kind == "list":
            items = Markup("").join(Markup("<li>{}</li>").format(_inline(_ITEM.sub(r"\1", line, count=1))) for line in part)
            yield Markup("<ul>{}</ul>").format(items)
        else:
            yield Markup("<p>{}</p>").format(_inline(" ".join(line.strip() for line in part)))


def _continued(lines: list[str]) -> Iterator[str]:
    """Give lines, those of a list's item as one."""
    held = ""
    for line in lines:
        if held and line[:1].isspace() and not _ITEM.match(line):
            held += " " + line.strip()
            continue
        if held:
            yield held
        held = line if _ITEM.match(line) else ""
        if not held:
            yield line
    if held:
        yield held


def _kind(line: str) -> str:
    return "table" if line.lstrip().startswith("|") else "list" if _ITEM.match(line) else "text"


def _table(lines: list[str]) -> Markup:
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines if not _RULE.fullmatch(line)]
    if not rows:
        return Markup()
    head = Markup("").join(Markup('<th scope="col">{}</th>').format(_inline(cell)) for cell in rows[0])
    body = Markup("").join(
        Markup("<tr>{}</tr>").format(Markup("").join(Markup("<td>{}</td>").format(_inline(cell)) for cell in row)) for row in rows[1:]
    )
    table = Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(head, body)
    return Markup('<div class="wide" role="group" aria-label="Table of the card" tabindex="0">{}</div>').format(table)


def _inline(text: str) -> Markup:
    parts, start = [], 0
    for match in _INLINE.finditer(text):
        parts.append(escape(text[start : match.start()]))
        code, bold, label, target = match.groups()
        if code is not None:
            parts.append(Markup("<code>{}</code>").format(code))
        elif bold is not None:
            parts.append(Markup("<strong>{}</strong>").format(bold))
        else:
            parts.append(escape(f"{label} ({target})"))
        start = match.end()
    return Markup("").join([*parts, escape(text[start:])])
