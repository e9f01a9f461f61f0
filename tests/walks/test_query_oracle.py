"""The node, DCMTK's archive and Orthanc hold the same images, and are asked the same: what they answer differently is explained, or wrong."""

import io
import os
import re
import subprocess
import unicodedata
import urllib.request
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.multival import MultiValue
from pynetdicom.association import Association
from pynetdicom.dsutils import split_dataset

from dicom_node.domain import AE
from tests.asking import FIND, asking
from tests.dcmtk import dcmqrscp, storescp
from tests.orthanc import orthanc
from tests.peers import need
from tests.walks import hospital
from tests.walks.holding import holding
from tests.walks.questions import KEYS, LEVELS, MORE, UNIQUE, VR, Question, Row, more_questions, questions

QUESTIONS = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Both:
    """The two archives, and what they hold."""

    node: AE
    dcmtk: AE
    workstation: Path  # where its files are
    folder: Path
    rows: Sequence[Row]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("oracle")
    files = hospital.write(folder / "hospital")
    with (
        storescp(folder / "workstation", title="WS") as workstation,
        dcmqrscp(folder / "dcmtk", files, moves_to={"workstation": workstation}) as dcmtk,
        holding(folder / "node", files, workstation) as node,
    ):
        rows = [row_of(one) for one in hospital.instances()]
        yield Both(node=node, dcmtk=dcmtk, workstation=folder / "workstation", folder=folder, rows=rows)


def row_of(dataset: Dataset) -> Row:
    """Return what an instance says of each key."""
    keywords = {keyword for keys in (*KEYS.values(), *MORE.values()) for keyword in keys}
    return {keyword: text_of(dataset.get(keyword)) for keyword in keywords} | {"ModalitiesInStudy": text_of(dataset.Modality)}


def text_of(value: object) -> str:
    """Return a value without its padding, several in the order of their letters."""
    if isinstance(value, MultiValue):
        return "\\".join(sorted(map(text_of, value)))
    return "" if value is None else str(value).rstrip(" \0")


# ---------------------------------------------------------------------------------------------------------------- asking


def answers(association: Association, question: Question) -> list[Row]:
    """Return the responses to a question, each with the keys that it has."""
    found = []
    for status, identifier in association.send_c_find(question.identifier(), FIND[question.root]):
        assert status.Status in (0x0000, 0xFF00), f"{status.Status:04X} to {question}"
        if identifier is not None:
            found.append({keyword: text_of(identifier[keyword].value) for keyword in question.keys if keyword in identifier})
    return found


# ---------------------------------------------------------------------------------------------------- what may be different


def literally(keyword: str, wanted: str, held: str) -> bool:
    """Compare as DCMTK does: letter by letter, times as if what they leave out were zero, and nothing matches what is missing."""
    vr, asked = VR.get(keyword, ""), wanted.rstrip()
    if not asked.strip("*"):
        return True
    if vr == "UI":
        return held in asked.split("\\")
    if vr in ("DA", "TM"):
        first, dash, last = asked.partition("-")
        ends = _ticks(first), _ticks(last) if last or not dash else "~", _ticks(held)
        return bool(held) and (ends[0] <= ends[2] <= ends[1] if dash else ends[0] == ends[2])
    if vr == "IS":
        return asked == held
    return _globbed(asked, held)


def _ticks(text: str) -> str:
    """Return a date or time so that texts compare as moments do."""
    whole, _, fraction = text.partition(".")
    return f"{whole:0<6}.{fraction:0<6}" if len(whole) <= 6 else text


def _globbed(pattern: str, text: str) -> bool:
    parts = (".*" if sign == "*" else "." if sign == "?" else re.escape(sign) for sign in pattern)
    return re.fullmatch("".join(parts), text) is not None


def _folded(text: str) -> str:
    return "".join(sign for sign in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(sign))


def _span(text: str) -> tuple[str, str]:
    """Return the first and the last moment that a time means: what it leaves out is not known (PS3.5 Table 6.2-1)."""
    whole, _, fraction = text.partition(".")
    return f"{whole:0<6}.{fraction:0<6}", f"{whole}{'235959'[len(whole) :]}.{fraction:9<6}"


def _missing(keyword: str, _wanted: str, held: str) -> bool:
    return not held and keyword in ("PatientName", "StudyDate", "StudyTime", "AccessionNumber", "StudyID", "Modality", "SeriesNumber")


def _any_letters(keyword: str, wanted: str, held: str) -> bool:
    return VR.get(keyword) == "PN" and _globbed(_folded(wanted.rstrip()), _folded(held))


def _left_out(keyword: str, wanted: str, held: str) -> bool:
    """A first name and more may be left out, and the delimiters with them (PS3.5 6.2.1)."""
    return VR.get(keyword) == "PN" and "^" not in held and _globbed(_folded(wanted.rstrip()), f"{_folded(held)}^^^^")


def _same_number(keyword: str, wanted: str, held: str) -> bool:
    return VR.get(keyword) == "IS" and bool(held) and int(wanted) == int(held)


def _part_of_a_time(keyword: str, wanted: str, held: str) -> bool:
    if VR.get(keyword) != "TM" or not held:
        return False
    first, dash, last = wanted.partition("-")
    ends = _span(first)[0] if first else "", _span(last if dash else first)[1] if last or not dash else "~"
    return ends[0] <= _span(held)[1] and _span(held)[0] <= ends[1]


# What the node finds and DCMTK does not. Nothing is found the other way round, and no value is told differently.
EXPLAINED = {
    "required key without a value": _missing,  # PS3.4 C.2.2.1.2: all matching against it is successful; the node is right
    "names without case and accents": _any_letters,  # C.2.2.2.1 and C.2.2.2.4 allow both
    "components left out": _left_out,  # PS3.5 6.2.1: Doe and Doe^^^^ are one name; the node is right
    "a number written otherwise": _same_number,  # PS3.5 Table 6.2-1: IS is a number, which may have a sign and zeros before it; the node is right
    "part of a time": _part_of_a_time,  # PS3.5 Table 6.2-1: what a TM leaves out is not known, and not zero; the node is right
}
TWINS = "two patients of one ID"  # PS3.3 C.7.1.1: Issuer of Patient ID says whose; the node is right


def explanations(question: Question, row: Row) -> list[str]:
    """Return why the node finds this and DCMTK does not: for each key that DCMTK's way of comparing rejects; "" where nothing explains it."""
    found = []
    for keyword, wanted in question.keys.items():
        if wanted and not literally(keyword, wanted, row[keyword]):
            found.append(next((name for name, means in EXPLAINED.items() if means(keyword, wanted, row[keyword])), ""))
    if not found and question.level == "PATIENT" and row["PatientID"] == hospital.TWINS:
        return [TWINS]
    return found or [""]


def held_row(rows: Sequence[Row], question: Question, answer: Row) -> Row:
    """Return what an answer is of: the one that says all that it says."""
    return next(row for row in rows if all(row[keyword] == value for keyword, value in answer.items()))


def counted(found: Sequence[Row]) -> Counter[tuple[tuple[str, str], ...]]:
    """Return answers as a set that knows how often it has each."""
    return Counter(tuple(sorted(one.items())) for one in found)


def test_the_node_finds_what_dcmtk_finds_and_what_it_finds_beside_is_explained(both: Both) -> None:
    """PS3.4 C.2.2.2 and C.4.1: both roots, every level, every kind of matching; the keys that come back, and their values."""
    asked = [*questions(both.rows, QUESTIONS)]
    said = []
    for archive in (both.node, both.dcmtk):
        with asking(archive) as association:
            said.append([answers(association, one) for one in asked])
    used: Counter[str] = Counter()
    unexplained = []
    for question, ours, theirs in zip(asked, *said, strict=True):
        if lost := counted(theirs) - counted(ours):
            unexplained.append(f"only DCMTK: {question}: {[*lost]}")
        for more in counted(ours) - counted(theirs):
            why = explanations(question, held_row(both.rows, question, dict(more)))
            used.update(why)
            unexplained += [f"only the node: {question}: {more}"] * ("" in why)
    assert not unexplained, "\n".join(unexplained[:10])
    assert {*used} == {*EXPLAINED, TWINS}, "an explanation that explains nothing is stale"
    assert sum(map(bool, said[0])) > QUESTIONS // 2, "too few questions have answers"


def test_the_node_finds_and_counts_what_orthanc_does(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """PS3.4 Tables C.6-2 and C.6-3: modalities, counts, and what describes a series, of which DCMTK's archive knows nothing; without a difference."""
    monkeypatch.setenv("TCP_NODELAY", "1")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in (both.folder / "hospital").iterdir():
            archive.write(path, path.name)
    asked, said = [*more_questions(both.rows, 200)], []
    with orthanc(both.folder / "orthanc", DicomAlwaysAllowFind=True, DefaultEncoding="Utf8") as (other, url):
        urllib.request.urlopen(urllib.request.Request(f"{url}/instances", data=packed.getvalue()), timeout=60).close()
        for whom in (both.node, other):
            with asking(whom) as association:
                said.append([counted(answers(association, one)) for one in asked])
    different = [f"{question}: {ours - theirs} {theirs - ours}" for question, ours, theirs in zip(asked, *said, strict=True) if ours != theirs]
    assert not different, "\n".join(different[:10])
    assert sum(map(bool, said[0])) > len(asked) // 2, "too few questions have answers"


def test_findscu_gets_the_same_answers(both: Both) -> None:
    """Of the questions a few, asked by another program."""
    few = [*questions(both.rows, QUESTIONS)][:: QUESTIONS // 10]
    with asking(both.node) as association:
        expected = [answers(association, one) for one in few]
    for number, (question, those) in enumerate(zip(few, expected, strict=True)):
        folder = both.folder / f"found-{number}"
        folder.mkdir()
        keys = {"SpecificCharacterSet": "ISO_IR 192", "QueryRetrieveLevel": question.level, **question.keys}
        by_scu(both.node, "findscu", question.root, keys, "-X", "-od", folder)
        found = [dcmread(path, force=True) for path in sorted(folder.iterdir())]
        assert counted([{keyword: text_of(one[keyword].value) for keyword in question.keys} for one in found]) == counted(those)


# ------------------------------------------------------------------------------------------------------------- retrieval


def by_scu(whom: AE, program: str, root: str, keys: Mapping[str, str], *more: object) -> None:
    """Ask by one of DCMTK's programs."""
    options = [word for keyword, value in keys.items() for word in ("-k", f"{keyword}={value}")]
    command = [need(program), "-v", "-aet", "ASKER", "-aec", whom.title, f"-{root}", *map(str, more), *options, whom.host, str(whom.port)]
    environment = {**os.environ, "TCP_NODELAY": "1"}
    said = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False)
    assert said.returncode == 0, said.stdout


@dataclass(frozen=True, slots=True)
class Kept:
    """An object in a file."""

    dataset: Dataset
    syntax: str
    data: bytes  # of the data set


def kept(folder: Path) -> dict[str, Kept]:
    """Return the objects of a folder, by their SOP Instance UIDs."""
    read = ((path, dcmread(path)) for path in folder.iterdir())
    return {
        str(dataset.SOPInstanceUID): Kept(dataset, str(dataset.file_meta.TransferSyntaxUID), path.read_bytes()[split_dataset(path)[1] :])
        for path, dataset in read
    }


def wanted(rows: Sequence[Row], root: str, level: str) -> Iterator[dict[str, str]]:
    """Give what to retrieve at a level: of an ordinary study, of one whose UIDs are as long as may be, and of the twins; or several at once."""
    of_twins = next(row for row in rows if row["PatientID"] == hospital.TWINS)
    above = LEVELS[LEVELS.index("PATIENT" if root == "P" else "STUDY") : LEVELS.index(level)]
    for like in (rows[0], next(row for row in rows if len(row["StudyInstanceUID"]) == 64), of_twins):
        yield {UNIQUE[one]: like[UNIQUE[one]] for one in (*above, level)}
    if level != "PATIENT":
        key, like = UNIQUE[level], rows[0]
        same = [row[key] for row in rows if all(row[UNIQUE[one]] == like[UNIQUE[one]] for one in above)]
        yield {UNIQUE[one]: like[UNIQUE[one]] for one in above} | {key: "\\".join(list(dict.fromkeys(same))[:3])}


@pytest.mark.parametrize("program", ["movescu", "getscu"])
def test_what_is_retrieved_is_what_dcmtk_sends(both: Both, program: str) -> None:
    """PS3.4 C.4.2 and C.4.3: at each level the same instances; the same bytes where the transfer syntax is the same, and the same values else."""
    sources, as_they_lie = kept(both.folder / "hospital"), 0
    for root, level in [("P", level) for level in LEVELS] + [("S", level) for level in LEVELS[1:]]:
        for keys in wanted(both.rows, root, level):
            ours, theirs = (retrieved(both, archive, program, root, {"QueryRetrieveLevel": level, **keys}) for archive in (both.node, both.dcmtk))
            meant = {row["SOPInstanceUID"] for row in both.rows if all(row[key] in value.split("\\") for key, value in keys.items())}
            assert {*ours} == {*theirs} == meant, f"{root} {level} {keys}"
            for uid, one in ours.items():
                assert one.dataset == sources[uid].dataset == theirs[uid].dataset
                assert all(one.data == other.data for other in (sources[uid], theirs[uid]) if one.syntax == other.syntax)
                assert program == "getscu" or one.syntax == sources[uid].syntax, "it goes out as it lies where the peer takes that"
                as_they_lie += one.syntax == sources[uid].syntax
    assert as_they_lie > 40


def retrieved(both: Both, archive: AE, program: str, root: str, keys: Mapping[str, str]) -> dict[str, Kept]:
    """Retrieve from an archive, and take away what came."""
    folder = both.workstation if program == "movescu" else both.folder / "got"
    folder.mkdir(exist_ok=True)
    by_scu(archive, program, root, keys, *(("-aem", "WS") if program == "movescu" else ("+B", "-od", folder)))
    found = kept(folder)
    for path in folder.iterdir():
        path.unlink()
    return found
