"""The Native DICOM Model read as the DICOM JSON Model (PS3.19 A.1, PS3.18 F): elements and their texts, and nothing that XML could make more of."""

from dataclasses import dataclass, field
from typing import Any, NoReturn
from xml.parsers import expat

_DEPTH = 64
_COMPONENTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


class NotNative(Exception):
    """Raised when a text is no document of the model; the message quotes nothing of it."""


@dataclass(slots=True)
class _Node:
    name: str
    attributes: dict[str, str]
    children: list["_Node"] = field(default_factory=list)
    text: list[str] = field(default_factory=list)

    @property
    def said(self) -> str:
        return "".join(self.text)


def model_of_xml(document: bytes) -> dict[str, Any]:
    """Return a document as an object of the JSON Model, its numbers as texts.

    Raises
    ------
    NotNative: it is none. A document type, and so an entity, is refused where it begins.
    """
    root = _Node("", {})
    path = [root]

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(path) > _DEPTH:
            raise NotNative("the document is too deep")
        node = _Node(name.rpartition(" ")[2], attributes)
        path[-1].children.append(node)
        path.append(node)

    def refuse(*_: object) -> NoReturn:
        raise NotNative("a document type is not taken")

    def text(said: str) -> None:
        path[-1].text.append(said)

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: path.pop() and None
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    try:
        parser.Parse(document, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise NotNative("the body is no XML") from error
    if [one.name for one in root.children] != ["NativeDicomModel"]:
        raise NotNative("the document is no NativeDicomModel")
    return _attributes(root.children[0])


def _attributes(of: _Node) -> dict[str, Any]:
    found = {}
    for node in of.children:
        if node.name != "DicomAttribute":
            raise NotNative("an element is none of the Native DICOM Model")
        found[node.attributes.get("tag", "")] = _element(node)
    return found


def _element(node: _Node) -> dict[str, Any]:
    element: dict[str, Any] = {"vr": node.attributes.get("vr")}
    for child in node.children:
        if child.name == "BulkData":
            element["BulkDataURI"] = ""
        elif child.name == "InlineBinary":
            element["InlineBinary"] = "".join(child.said.split())
        else:
            element.setdefault("Value", []).append(_value(child))
    return element


def _value(node: _Node) -> Any:
    if node.name == "Value":
        return node.said
    if node.name == "Item":
        return _attributes(node)
    if node.name != "PersonName":
        raise NotNative("an element is none of the Native DICOM Model")
    return {group.name: _group(group) for group in node.children if group.name in _GROUPS}


def _group(node: _Node) -> str:
    said = {part.name: part.said for part in node.children}
    return "^".join(said.get(name, "") for name in _COMPONENTS).rstrip("^")
