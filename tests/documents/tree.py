"""The content tree of the reports that the experiment made: items of one kind told once."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydicom import Dataset

from tests.documents.objects import FACETS, first_of_families, runs


@dataclass(slots=True)
class Node:
    """Content items of one kind under one parent."""

    label: str
    values: dict[int, list[str]] = field(default_factory=dict)  # run -> values
    counts: list[int] = field(default_factory=list)  # under each parent
    below: dict[str, "Node"] = field(default_factory=dict)


def content_tree() -> str:
    """Return the report's content tree, items of one kind told once."""
    root = Node("")
    for run, one in enumerate(runs()):
        _grow(root, [one.objects["SR"]], run)
    lines: list[tuple[str, str, str]] = []
    _list(root, 0, lines)
    width = [max(len(line[column]) for line in lines) for column in (0, 1)]
    said = "\n".join(f"{label:<{width[0]}}  {times:<{width[1]}}  {from_}".rstrip() for label, times, from_ in lines)
    return f"```text\n{said}\n```"


def _grow(node: Node, items: Sequence[Dataset], run: int) -> None:
    kinds: dict[str, list[Dataset]] = {}
    for item in items:
        kinds.setdefault(_label(item), []).append(item)
    for label in dict.fromkeys((*node.below, *kinds)):
        child = node.below.setdefault(label, Node(label))
        child.counts.append(len(kinds.get(label, ())))
        for item in kinds.get(label, ()):
            child.values.setdefault(run, []).append(_value_of(item))
        for item in kinds.get(label, ()):
            _grow(child, item.get("ContentSequence", ()), run)


def _label(item: Dataset) -> str:
    concept = item.ConceptNameCodeSequence[0]
    relation = item.get("RelationshipType", "")
    of_model = item.ValueType == "NUM" or concept.CodingSchemeDesignator.startswith("99")
    name = "concept from MODEL" if of_model else f'({concept.CodeValue}, {concept.CodingSchemeDesignator}, "{concept.CodeMeaning}")'
    template = f" TID {item.ContentTemplateSequence[0].TemplateIdentifier}" if "ContentTemplateSequence" in item else ""
    return f"{relation.lower()} {item.ValueType} {name}{template}".strip()


def _value_of(item: Dataset) -> str:
    for keyword in ("ConceptCodeSequence", "MeasuredValueSequence", "ReferencedSOPSequence"):
        if item.get(keyword):
            return str(item[keyword].value[0].to_json(suppress_invalid_tags=True))
    return str(item.get("TextValue") or item.get("UID") or "")


def _list(node: Node, depth: int, lines: list[tuple[str, str, str]]) -> None:
    for child in node.below.values():
        lines.append(("  " * depth + child.label, _times(child), _from(child)))
        _list(child, depth + 1, lines)


def _times(node: Node) -> str:
    low, high = min(node.counts), max(node.counts)
    return str(low) if low == high else f"{min(low, 1)}-{'n' if high > 1 else high}"


def _from(node: Node) -> str:
    if node.label.split()[0] == "CONTAINER" or " CONTAINER " in node.label:
        return ""
    of_run = {run: node.values.get(run, []) for run in range(len(runs()))}
    firsts = first_of_families(runs())
    changed = {one.changed for run, one in enumerate(runs()) if one.changed and of_run[run] != of_run[firsts[one.family]]}
    if changed:
        return ", ".join(facet for facet in FACETS if facet in changed)
    value = next((values[0] for values in of_run.values() if values), "")
    if value.startswith("{"):
        said = json.loads(value)
        value = f'({said["00080100"]["Value"][0]}, {said["00080102"]["Value"][0]}, "{said["00080104"]["Value"][0]}")' if "00080100" in said else ""
    return f"FIXED {value}"
