"""Questions to an archive, drawn from what it holds: every kind of matching, at every level, alone and together (PS3.4 C.2.2.2)."""

import random
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pydicom import DataElement, Dataset, config
from pydicom.datadict import dictionary_VR, tag_for_keyword

Row = Mapping[str, str]  # keyword -> value as text, of one instance

UNIQUE = {"PATIENT": "PatientID", "STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
LEVELS = tuple(UNIQUE)
KEYS = {  # of each level, those that a C-FIND SCP has to match, and some that DCMTK's matches too
    "PATIENT": ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "IssuerOfPatientID"),
    "STUDY": ("StudyInstanceUID", "StudyDate", "StudyTime", "AccessionNumber", "StudyID", "StudyDescription", "ReferringPhysicianName"),
    "SERIES": ("SeriesInstanceUID", "Modality", "SeriesNumber"),
    "IMAGE": ("SOPInstanceUID", "InstanceNumber"),
}
MORE = {  # of studies and series, that DCMTK's does not know
    "STUDY": ("StudyInstanceUID", "ModalitiesInStudy"),
    "SERIES": ("SeriesInstanceUID", "SeriesDescription", "BodyPartExamined", "ProtocolName"),
}
COUNTS = {"STUDY": ("NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances"), "SERIES": ("NumberOfSeriesRelatedInstances",)}
VR = {
    **dict.fromkeys(("PatientName", "ReferringPhysicianName"), "PN"),
    **dict.fromkeys(("PatientBirthDate", "StudyDate"), "DA"),
    **dict.fromkeys(("SeriesNumber", "InstanceNumber"), "IS"),
    **dict.fromkeys(("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"), "UI"),
    **dict.fromkeys(("PatientSex", "Modality", "ModalitiesInStudy", "BodyPartExamined"), "CS"),
    "StudyTime": "TM",
}  # those that are not here are texts


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One C-FIND."""

    root: str  # P or S: Patient Root or Study Root
    level: str
    keys: Mapping[str, str]

    def identifier(self) -> Dataset:
        """Return it as a C-FIND has it."""
        dataset = Dataset()
        for keyword, value in {"SpecificCharacterSet": "ISO_IR 192", "QueryRetrieveLevel": self.level, **self.keys}.items():
            held = value.split("\\") if "\\" in value else value or None
            dataset.add(DataElement(tag_for_keyword(keyword), dictionary_VR(keyword), held, validation_mode=config.IGNORE))
        return dataset


def questions(rows: Sequence[Row], number: int, seed: int = 11) -> Iterator[Question]:
    """Draw questions, always the same; two in three are of patients and studies, as most are."""
    chance = random.Random(seed)
    for _ in range(number):
        root = chance.choice("PS")
        level = chance.choice(
            ("PATIENT", "PATIENT", "STUDY", "STUDY", "SERIES", "IMAGE") if root == "P" else ("STUDY", "STUDY", "STUDY", "SERIES", "IMAGE")
        )
        yield _question(chance, rows, root, level)


def more_questions(rows: Sequence[Row], number: int, seed: int = 12) -> Iterator[Question]:
    """Draw questions in the Study Root model for what not every archive knows; each wants the counts too."""
    chance = random.Random(seed)
    for _ in range(number):
        level = chance.choice(("STUDY", "SERIES"))
        drawn = _question(chance, rows, "S", level, MORE[level])
        yield replace(drawn, keys={**drawn.keys, **dict.fromkeys(COUNTS[level], "")})


def _question(chance: random.Random, rows: Sequence[Row], root: str, level: str, own: Sequence[str] = ()) -> Question:
    like = chance.choice(rows)
    above = LEVELS[LEVELS.index("PATIENT" if root == "P" else "STUDY") : LEVELS.index(level)]
    own = own or [*(KEYS["PATIENT"] if root == "S" and level == "STUDY" else ()), *KEYS[level]]
    keys = {UNIQUE[one]: like[UNIQUE[one]] for one in above} | {UNIQUE[level]: ""}
    for keyword in chance.sample(own, min(len(own), chance.choice((1, 1, 1, 2, 2, 3)))):
        keys[keyword] = _wanted(chance, keyword, like, rows)
    returned = chance.sample(own, chance.randint(0, len(own)))
    return Question(root=root, level=level, keys=dict.fromkeys(returned, "") | keys)


def _wanted(chance: random.Random, keyword: str, like: Row, rows: Sequence[Row]) -> str:
    held = like[keyword] if chance.random() < 0.8 else chance.choice(rows)[keyword]
    kind = VR.get(keyword, "text")
    if not held or chance.random() < 0.05:
        return ""
    return _KINDS[kind](chance, held, [row[keyword] for row in rows])


def _text(chance: random.Random, held: str, _others: Sequence[str]) -> str:
    return chance.choice((_same, _same, _starred, _starred, _masked, _recased, _padded, _star))(chance, held)


def _name(chance: random.Random, held: str, _others: Sequence[str]) -> str:
    forms = (_same, _same, _starred, _starred, _masked, _recased, _plain, _padded, _star, _one_group, _one_group, _any_first_name)
    return chance.choice(forms)(chance, held)


def _code(chance: random.Random, held: str, _others: Sequence[str]) -> str:
    return chance.choice((_same, _same, _starred, _masked, _padded, _star))(chance, held)


def _uid(chance: random.Random, held: str, others: Sequence[str]) -> str:
    more = [*chance.sample(others, min(len(others), chance.choice((0, 0, 1, 2, 4)))), *chance.choice(((), (), ("1.2.3.4",)))]
    return "\\".join(dict.fromkeys([held, *more]))


def _number(chance: random.Random, held: str, _others: Sequence[str]) -> str:
    return chance.choice((held, held, held, f"0{held}", f"+{held}"))


def _date(chance: random.Random, held: str, others: Sequence[str]) -> str:
    other = chance.choice([one for one in others if one])
    first, last = sorted((held, other))
    return chance.choice((held, held, f"{first}-{last}", f"{first}-{last}", f"{held}-", f"-{held}", f"{held}-{held}", f"{last}-{first}"))


def _time(chance: random.Random, held: str, others: Sequence[str]) -> str:
    other = chance.choice([one for one in others if one])
    first, last = sorted((held[: chance.choice((2, 4, 6, 13))].rstrip("."), other[: chance.choice((2, 4, 6, 13))].rstrip(".")))
    return chance.choice((held, held, first, f"{first}-{last}", f"{first}-{last}", f"{first}-", f"-{last}"))


def _same(_chance: random.Random, held: str) -> str:
    return held


def _starred(chance: random.Random, held: str) -> str:
    at, to = sorted(chance.randint(0, len(held)) for _ in range(2))
    return chance.choice((f"{held[:to]}*", f"*{held[at:]}", f"*{held[at:to]}*", f"{held[:at]}*{held[to:]}"))


def _masked(chance: random.Random, held: str) -> str:
    at = chance.randrange(len(held))
    return f"{held[:at]}?{held[at + 1 :]}"


def _recased(_chance: random.Random, held: str) -> str:
    return held.swapcase()


def _plain(_chance: random.Random, held: str) -> str:
    return "".join(sign for sign in unicodedata.normalize("NFKD", held) if not unicodedata.combining(sign))


def _padded(_chance: random.Random, held: str) -> str:
    return f"{held} "


def _star(_chance: random.Random, _held: str) -> str:
    return "*"


def _one_group(chance: random.Random, held: str) -> str:
    return chance.choice(held.split("="))


def _any_first_name(_chance: random.Random, held: str) -> str:
    return f"{held.partition('^')[0]}^*"


_KINDS: Mapping[str, Callable[[random.Random, str, Sequence[str]], str]] = {
    "text": _text,
    "PN": _name,
    "CS": _code,
    "UI": _uid,
    "IS": _number,
    "DA": _date,
    "TM": _time,
}
