"""Markdown as far as the documents need it: generated parts, tables, blocks of code, links."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

_PART = re.compile(r"(<!-- generated: (?P<name>[a-z0-9-]+) -->\n)(?P<body>.*?)(<!-- end -->)", re.DOTALL)
_BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of code."""

    language: str
    body: str
    line: int  # of its fence


def parts(text: str) -> list[str]:
    """Return the names of a document's generated parts."""
    return [match["name"] for match in _PART.finditer(text)]


def rendered(text: str, generators: Mapping[str, Callable[[], str]]) -> str:
    """Return a document with each part between markers as the program would write it now."""
    return _PART.sub(lambda match: f"{match[1]}\n{generators[match['name']]().strip()}\n\n{match[4]}", text)


def by_hand(text: str) -> str:
    """Return what of a document is neither generated nor code."""
    return _BLOCK.sub("", _PART.sub("", text))


def blocks(text: str, language: str) -> list[Block]:
    """Return a document's blocks of one language."""
    found = (Block(m["language"], m["body"], text.count("\n", 0, m.start()) + 1) for m in _BLOCK.finditer(text))
    return [block for block in found if block.language == language]


def links(text: str) -> list[str]:
    """Return the targets of a document's links and pictures, code aside."""
    return _LINK.findall(_CODE.sub("", _BLOCK.sub("", text)))


def inline_code(text: str) -> list[str]:
    """Return what stands between single backquotes."""
    return _CODE.findall(_BLOCK.sub("", text))


def anchors(text: str) -> set[str]:
    """Return the names by which a document's headings can be linked to."""
    headings = (line.lstrip("#").strip() for line in _BLOCK.sub("", text).splitlines() if re.match(r"#+ ", line))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines)


def code(value: object) -> str:
    """Return a value as code, or nothing for nothing."""
    return f"`{value}`" if str(value) else ""
