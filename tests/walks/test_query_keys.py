"""Keys of every kind, asked by DCMTK's findscu: character sets, wildcards, ranges, sequences, and what is not supported."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread

from dicom_node.domain import derived_uid
from tests.peers import need
from tests.walks.held import Keeping, keeping, written

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR")  # a wildcard, or what ACR-NEMA wrote

NAMES: dict[str, tuple[Any, str]] = {  # who -> character set of the stored object, name
    "latin": ("ISO_IR 100", "Müller^Jörg"),
    "utf": ("ISO_IR 192", "Müller^Jürgen"),
    "japanese": (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "katakana": (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾊﾅｺ=山田^花子=やまだ^はなこ"),
    "korean": (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    "chinese": ("GB18030", "Wang^XiaoDong=王^小东"),
    "cyrillic": ("ISO_IR 144", "Люксембург^Роза"),
}
ASKED: list[tuple[str, Any, set[str]]] = [  # name, character set of the request, who is meant
    ("Müller^Jörg", "ISO_IR 100", {"latin"}),
    ("Müller^Jörg", "ISO_IR 192", {"latin"}),
    ("Müller*", "ISO_IR 100", {"latin", "utf"}),
    ("MULLER*", None, {"latin", "utf"}),
    ("Müller^J?r*", "GB18030", {"latin", "utf"}),
    ("*=山田*", ["", "ISO 2022 IR 87"], {"japanese", "katakana"}),
    ("*=山田*", "ISO_IR 192", {"japanese", "katakana"}),
    ("山田^太郎", "GB18030", {"japanese"}),
    ("Yamada*", None, {"japanese"}),
    ("ﾔﾏﾀﾞ^ﾊﾅｺ", "ISO_IR 13", {"katakana"}),
    ("ﾔﾏﾀﾞ*", ["ISO 2022 IR 13", "ISO 2022 IR 87"], {"katakana"}),
    ("*=*=やまだ^たろう", "ISO_IR 192", {"japanese"}),
    ("Hong^Gildong=洪^吉洞=홍^길동", ["", "ISO 2022 IR 149"], {"korean"}),
    ("홍^*", "ISO_IR 192", {"korean"}),
    ("王^小东", "GB18030", {"chinese"}),
    ("Люксембург*", "ISO_IR 144", {"cyrillic"}),
    ("люксембург^роза", "ISO_IR 192", {"cyrillic"}),
]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keeping]:
    """Return a node that holds a study of each of those, and some whose description, date and time are told apart."""
    folder = tmp_path_factory.mktemp("keys")
    files = []
    for number, (who, (character_set, name)) in enumerate(NAMES.items()):
        about = {"SpecificCharacterSet": character_set, "PatientName": name, "PatientID": who, "StudyDate": f"2024010{number + 1}"}
        files.append(written(folder, number, **about, **own(who), StudyTime=f"{10 + number}3000", StudyDescription="plain"))
    for number, text in enumerate(("100%_a", "100x_a", "100%xa", "UPPER"), 100):
        more = {"PatientID": f"d{number}", "StudyDate": "2023.12.31", "StudyTime": "0915", "StudyDescription": text, "AccessionNumber": ""}
        files.append(written(folder, number, PatientName=f"Doe^{number}", **own(text), **more))
    with keeping(folder, "fast") as opened:
        opened.take(files)
        yield opened


def own(what: str) -> dict[str, str]:
    return {"StudyInstanceUID": derived_uid("keys", what), "SeriesInstanceUID": derived_uid("keys", what, "series")}


def find(node: Keeping, folder: Path, level: str = "STUDY", **keys: Any) -> tuple[list[Dataset], str]:
    """Return the responses to an identifier, and what findscu says."""
    asked, responses = Dataset(), folder / "responses"
    responses.mkdir()
    asked.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(asked, keyword, value)
    asked.save_as(folder / "asked.dcm", implicit_vr=False, little_endian=True)
    command = [
        need("findscu"),
        "-d",
        "-S",
        "-X",
        "-od",
        responses,
        "-aet",
        "RIS",
        "-aec",
        "DICOM_NODE",
        "127.0.0.1",
        str(node.port),
        folder / "asked.dcm",
    ]
    said = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False)
    assert said.returncode == 0, said.stdout
    return [dcmread(path, force=True) for path in sorted(responses.iterdir())], said.stdout.decode("ascii", "replace").lower()


@pytest.mark.parametrize(("name", "character_set", "meant"), ASKED)
def test_a_name_is_found_whatever_it_is_written_in(node: Keeping, tmp_path: Path, name: str, character_set: Any, meant: set[str]) -> None:
    """PS3.5 6.1.2 and PS3.4 C.2.2.2: characters are compared, not bytes; what is answered reads as it was stored."""
    keys = {} if character_set is None else {"SpecificCharacterSet": character_set}
    found, _ = find(node, tmp_path, PatientName=name, PatientID="", **keys)
    assert {one.PatientID for one in found} == meant
    for one in found:
        assert str(one.PatientName) == NAMES[one.PatientID][1]
        assert one.get("SpecificCharacterSet", "") in ("", "ISO_IR 192", character_set)


def test_who_asks_in_a_character_set_is_answered_in_it_where_it_has_every_character(node: Keeping, tmp_path: Path) -> None:
    """PS3.4 C.4.1.1.3.1: else in UTF-8; and without any where it needs none."""
    asked = (("latin", "ISO_IR 100", "ISO_IR 100"), ("cyrillic", "ISO_IR 100", "ISO_IR 192"), ("japanese", ["", "ISO 2022 IR 87"], "ISO_IR 192"))
    for number, (who, character_set, answered) in enumerate((*asked, ("chinese", "GB18030", "GB18030"), ("d100", "ISO_IR 100", None))):
        (tmp_path / str(number)).mkdir()
        (found,), _ = find(node, tmp_path / str(number), PatientID=who, PatientName="", SpecificCharacterSet=character_set)
        assert found.get("SpecificCharacterSet") == answered
        assert str(found.PatientName) == (NAMES[who][1] if who in NAMES else "Doe^100")


@pytest.mark.parametrize(
    ("keys", "meant"),
    [
        ({"StudyDescription": "100%_a"}, {"d100"}),
        ({"StudyDescription": "100%*"}, {"d100", "d102"}),
        ({"StudyDescription": "100?_a"}, {"d100", "d101"}),
        ({"StudyDescription": "%"}, set()),
        ({"StudyDescription": "_PPER"}, set()),
        ({"StudyDescription": "upper"}, set()),
        ({"StudyDescription": ["UPPER", "100%xa"]}, {"d103", "d102"}),
        ({"StudyDescription": "100*", "StudyDate": "20231231"}, {"d100", "d101", "d102"}),
        ({"StudyDate": "20240101-20240102"}, {"latin", "utf"}),
        ({"StudyDate": "20240106-"}, {"chinese", "cyrillic"}),
        ({"StudyDate": "-20231231"}, {"d100", "d101", "d102", "d103"}),
        ({"StudyDate": "20240101-", "StudyTime": "-113000"}, {"latin", "utf"}),
        ({"StudyTime": "0900-0930"}, {"d100", "d101", "d102", "d103"}),
        ({"StudyTime": "103000"}, {"latin"}),
        ({"PatientID": "D100"}, set()),
        ({"PatientID": "l*"}, {"latin"}),
        ({"StudyInstanceUID": [derived_uid("keys", "utf"), derived_uid("keys", "korean"), "1.2.3"]}, {"utf", "korean"}),
        ({"ModalitiesInStudy": "CT", "PatientID": "utf"}, {"utf"}),
        ({"ModalitiesInStudy": "MR"}, set()),
    ],
)
def test_wildcards_ranges_and_lists_mean_what_the_standard_says(node: Keeping, tmp_path: Path, keys: dict[str, Any], meant: set[str]) -> None:
    """PS3.4 C.2.2.2.1 to C.2.2.2.5: signs of SQL are characters like others; texts have case; dates and times are values."""
    found, said = find(node, tmp_path, **({"PatientID": ""} | keys))
    assert {one.PatientID for one in found} == meant
    assert "0xff01" not in said


@pytest.mark.parametrize("level", ["STUDY", "SERIES", "IMAGE"])
@pytest.mark.parametrize(
    "keyword",
    ["RequestAttributesSequence", "ProcedureCodeSequence", "AnatomicRegionSequence", "ReferencedStudySequence", "ConceptNameCodeSequence"],
)
def test_a_sequence_that_is_not_supported_excludes_nothing(node: Keeping, tmp_path: Path, level: str, keyword: str) -> None:
    """PS3.4 C.2.2.1.3 and Table C.4-1: FF01, whether it asks for something or for nothing; the attribute is not in the response."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = "T-28000", "SRT"
    unique = {"STUDY": {}, "SERIES": {"StudyInstanceUID": ""}, "IMAGE": {"StudyInstanceUID": "", "SeriesInstanceUID": "", "SOPInstanceUID": ""}}[
        level
    ]
    above = {"STUDY": {"PatientID": "utf"}, "SERIES": own("utf") | {"SeriesInstanceUID": ""}, "IMAGE": own("utf")}[level]
    for number, value in enumerate(([], [Dataset()], [item])):
        (tmp_path / str(number)).mkdir()
        found, said = find(node, tmp_path / str(number), level, **(unique | above | {keyword: value}))
        assert len(found) == 1
        assert keyword not in found[0]
        assert "0xff01" in said


def test_each_level_answers_what_it_is_asked_for_and_no_more(node: Keeping, tmp_path: Path) -> None:
    """PS3.4 C.4.1.1.3.2 and Tables C.6-1 to C.6-5: also those attributes of the levels above, and zero length where there is no value."""
    asked = {
        "STUDY": {"PatientID": "utf", "StudyInstanceUID": "", "AccessionNumber": "", "NumberOfStudyRelatedInstances": None, "StudyID": ""},
        "SERIES": own("utf") | {"SeriesInstanceUID": "", "Modality": "", "SeriesNumber": None, "PatientName": "", "BodyPartExamined": ""},
        "IMAGE": own("utf") | {"SOPInstanceUID": "", "SOPClassUID": "", "InstanceNumber": None, "Rows": None, "AvailableTransferSyntaxUID": ""},
    }
    for level, keys in asked.items():
        (tmp_path / level).mkdir()
        (found,), said = find(node, tmp_path / level, level, **keys)
        told = {"QueryRetrieveLevel", "RetrieveAETitle"} | ({"SpecificCharacterSet"} if "PatientName" in keys else set())
        assert {element.keyword for element in found} == {*keys} | told
        assert "0xff01" not in said
