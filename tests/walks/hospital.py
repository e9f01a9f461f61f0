"""A small hospital's images, always the same: all that makes queries hard, in few bytes each."""

import random
from collections.abc import Iterator
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

PATIENTS, STUDIES = 40, 80
TWINS = f"N{PATIENTS - 2:05}"  # the ID of the last two patients, one of whom is another hospital's
ROOT = "1.2.826.0.1.3680043.8.498.77"
NAMES = (
    "Müller^Jörg", "MULLER^JORG", "muller^jorg", "Doe^John", "doe^john", "Doe", "Doe^John^Quincy^Dr^MD", "Doe^^^Dr", "Doering^Jane",
    "Yamada^Tarou=山田^太郎=やまだ^たろう", "Hong^Gildong=洪^吉洞=홍^길동", "Wang^XiaoDong=王^小东", "O'Neill^Seán", "100%^Sure",
    "under_score^A", "underXscore^B", "de la Cruz^María José", "Ångström^Åsa", "Straße^Max", "Strasse^Max", "Nguyễn^Văn An", "Éclair^Zoë",
    "Smith^Jo", "Smith^Joan", "SMITH^JO", "[a-z]^Set", "Dash-Name^Ann", "", "Иванова^Анна", "Li",
)  # fmt: skip
PATIENT_IDS = ("P_1", "PX1", "50%", "500", "p_1", "A B", "K'9", "x^y", "0007", "7")  # of the first; the others have plain ones
DESCRIPTIONS = (
    "CT Chest 50% dose",
    "CT Chest 500 dose",
    "MR_Brain",
    "MR Brain",
    "Knie li.",
    "Thorax pa/lat",
    "",
    "ct chest 50% dose",
    "Größe",
    "A?B",
)
TIMES = ("101500", "1015", "10", "101530.5", "101530.123456", "235959.999999", "000000", "", "120000.000", "101559.99")
REFERRERS = ("Referrer^Anna", "Weiß^Rolf", "", "Doe^John")
_CLASSES = {  # modality -> SOP class
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "US": "1.2.840.10008.5.1.4.1.1.6.1",
    "OT": "1.2.840.10008.5.1.4.1.1.7",
}
MODALITIES = tuple(_CLASSES)


def write(folder: Path) -> list[Path]:
    """Write all of it; a file for each instance."""
    folder.mkdir(parents=True)
    files = []
    for number, dataset in enumerate(instances()):
        files.append(folder / f"{number:04}.dcm")
        dataset.save_as(files[-1], enforce_file_format=True)
    return files


def instances() -> Iterator[Dataset]:
    """Give some five hundred instances, of 40 patients, two of whom share an ID, of 80 studies and twice as many series."""
    chance = random.Random(7)
    patients = [_patient(number, chance) for number in range(PATIENTS)]
    for number in range(STUDIES):
        study = patients[number % PATIENTS] | _study(number, chance)
        for of_study in range(chance.choice((1, 1, 2, 2, 2, 3, 3))):
            series = study | _series(study["StudyInstanceUID"], of_study, chance)
            for image in range(chance.choice((1, 2, 3, 4, 4, 6))):
                yield _instance(series, image, chance.choice((ExplicitVRLittleEndian, ImplicitVRLittleEndian)))


def _patient(number: int, chance: random.Random) -> dict[str, object]:
    name = NAMES[number % len(NAMES)]
    return {
        "SpecificCharacterSet": "ISO_IR 100" if name.isascii() or name in ("Müller^Jörg", "Straße^Max", "Ångström^Åsa") else "ISO_IR 192",
        "PatientName": name,
        "PatientID": PATIENT_IDS[number] if number < len(PATIENT_IDS) else f"N{min(number, PATIENTS - 2):05}",
        "IssuerOfPatientID": "OTHER" if number == PATIENTS - 1 else "HOSPITAL",
        "PatientBirthDate": "" if number % 7 == 3 else f"{chance.randint(1930, 2015)}{chance.randint(1, 12):02}{chance.randint(1, 28):02}",
        "PatientSex": ("M", "F", "O", "")[number % 4],
    }


def _study(number: int, chance: random.Random) -> dict[str, object]:
    long = "." + "9" * (63 - len(ROOT) - len(str(number)) - 1) if number % 9 == 4 else ""  # the longest UID that there may be, 64
    return {
        "StudyInstanceUID": f"{ROOT}.{number}{long}"[:64],
        "StudyDate": "" if number % 11 == 5 else f"202{chance.randint(3, 5)}{chance.randint(1, 3):02}{chance.choice((1, 15, 28)):02}",
        "StudyTime": chance.choice(TIMES),
        "AccessionNumber": ("", f"A{number:04}", f"A{number:04}", f"a_{number % 5}", f"aX{number % 5}")[number % 5],
        "StudyID": str(number % 13) if number % 6 else "",
        "StudyDescription": chance.choice(DESCRIPTIONS),
        "ReferringPhysicianName": chance.choice(REFERRERS),
    }


def _series(study: object, number: int, chance: random.Random) -> dict[str, object]:
    modality = chance.choice(MODALITIES)
    return {
        "SeriesInstanceUID": f"{str(study)[:58]}.8{number}.1",
        "SOPClassUID": _CLASSES[modality],
        "Modality": modality,
        "SeriesNumber": None if chance.random() < 0.1 else chance.choice((1, 2, 3, 10, 100)),
        "SeriesDescription": chance.choice(("axial", "Axial", "cor_5mm", "cor 5mm", "", "Übersicht", "100%")),
        "SeriesDate": chance.choice(("", "20240131", "20231231")),
        "SeriesTime": chance.choice(TIMES),
        "BodyPartExamined": chance.choice(("CHEST", "HEAD", "")),
        "ProtocolName": chance.choice(("routine", "Routine*", "")),
    }


def _instance(series: dict[str, object], image: int, syntax: str) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    own = {
        "SOPInstanceUID": f"{str(series['SeriesInstanceUID'])[:61]}.{image + 1}",
        "InstanceNumber": image + 1,
        "ImageType": ["ORIGINAL", "PRIMARY", ("AXIAL", "LOCALIZER")[image % 2]],
    }
    picture = {"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "Rows": 8, "Columns": 8, "BitsAllocated": 8, "BitsStored": 8}
    for keyword, value in (series | own | picture | {"HighBit": 7, "PixelRepresentation": 0}).items():
        setattr(dataset, keyword, value)
    dataset.PixelData = bytes((image + at) % 256 for at in range(64))
    return dataset
