"""What headers say of a series, vendor by vendor; and what rules and inputs make of it."""

from pathlib import Path

import pydicom.data
import pytest

from dicom_node.assemble import select
from dicom_node.assemble.recognition import recognised, warnings
from dicom_node.assemble.wording import WORDS, named
from dicom_node.config import Input, Manifest, Model, Rule
from dicom_node.domain import FACETS, HEADER_KEYWORDS, RECOGNITION_KEYWORDS, Instance, Series, Study
from dicom_node.receive import study_of
from dicom_node.route import route
from dicom_node.simulate.samples import PROTOCOLS

AXIAL, CORONAL, SAGITTAL = [1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1]
CT, MR, CR, DX, SC, US = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("2", "4", "1", "1.1", "7", "6.1"))


def series(number=1, **header):
    """Return a series of one image with this header and no more; what the ledger does not keep is as if read from the file."""
    said = {"SeriesNumber": number, "Rows": 512, "Columns": 512} | {keyword: value for keyword, value in header.items() if value is not None}
    image = Instance(
        sop_instance_uid=f"1.{number}",
        sop_class_uid=str(said.get("SOPClassUID", CT)),
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        study_instance_uid="1.2",
        series_instance_uid=f"1.2.{number}",
        path="a",
        size_bytes=1,
        digest=f"{number}",
        calling_ae="CT",
        received_at=0.0,
        id=number,
        header={keyword: value for keyword, value in said.items() if keyword in HEADER_KEYWORDS},
    )
    return Series(
        series_instance_uid=f"1.2.{number}",
        instances=(image,),
        more={k: v for k, v in said.items() if k not in HEADER_KEYWORDS},
    )


def ct(**header):
    return {"SOPClassUID": CT, "Modality": "CT", "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "KVP": 120, "ImageOrientationPatient": AXIAL} | header


def mr(te, tr, ti=None, scanning="SE", **header):
    times = {"EchoTime": te, "RepetitionTime": tr, "InversionTime": ti, "ScanningSequence": scanning, "MagneticFieldStrength": 3.0}
    return {"SOPClassUID": MR, "Modality": "MR", "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"], "ImageOrientationPatient": AXIAL} | times | header


# Headers as the consoles of several makers write them, and what a radiographer would call the series. None of them is a patient's.
HEADERS = [
    (
        ct(BodyPartExamined="CHEST", SeriesDescription="Thorax  1.0  B60f", ProtocolName="ThoraxRoutine", ConvolutionKernel="B60f"),
        {"modality": "CT", "body_part": "chest", "plane": "axial", "kernel": "sharp", "kind": "original"},
    ),
    (
        ct(SeriesDescription="Thx-Abd pv 5.0 Br40", ConvolutionKernel=["Br40d", "3"]),
        {"body_part": "trunk", "contrast": "portal-venous", "kernel": "smooth"},
    ),
    (
        ct(BodyPartExamined="CHESTABDPELVIS", ContrastBolusAgent="Omnipaque", ConvolutionKernel="STANDARD"),
        {"body_part": "trunk", "kernel": "smooth", "contrast": None},
    ),
    (
        ct(BodyPartExamined="HEAD", SeriesDescription="Axial Brain WO", ConvolutionKernel="SOFT"),
        {"body_part": "head", "contrast": "none", "kernel": "smooth"},
    ),
    (ct(SeriesDescription="CCT nativ 4mm", ConvolutionKernel="H30s"), {"body_part": "head", "contrast": "none", "kernel": "smooth"}),
    (ct(BodyPartExamined="LSPINE", ConvolutionKernel="BONEPLUS"), {"body_part": "spine", "kernel": "sharp"}),
    (ct(SeriesDescription="Coronaries CTA 0.6 Bv40", ProtocolName="CorCTA"), {"body_part": "heart", "contrast": "given"}),
    (ct(SeriesDescription="腹部 平扫 5mm", ConvolutionKernel="FC08"), {"body_part": "abdomen", "contrast": "none", "kernel": "smooth"}),
    (ct(SeriesDescription="TÓRAX CON CONTRASTE"), {"body_part": "chest", "contrast": "given"}),
    (ct(SeriesDescription="Abdomen art.Phase", ContrastBolusAgent="Ultravist 370"), {"body_part": "abdomen", "contrast": "arterial"}),
    (
        ct(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], SeriesDescription="Topogram  0.6  T80s", ImageOrientationPatient=CORONAL),
        {"kind": "localizer", "plane": "coronal"},
    ),
    (
        ct(ImageType=["DERIVED", "SECONDARY", "MPR"], SeriesDescription="Cor MPR Lung", ImageOrientationPatient=CORONAL),
        {"kind": "derived", "plane": "coronal"},
    ),
    (ct(SeriesDescription="Doe, John", BodyPartExamined=None), {"body_part": None}),
    (
        mr(2.3, 1900, 900, ["GR", "IR"], SeriesDescription="t1_mprage_sag_p2_iso", ImageOrientationPatient=SAGITTAL),
        {"sequence": "T1", "plane": "sagittal"},
    ),
    (mr(3.2, 8.2, 450, "GR", SeriesDescription="Sag 3D BRAVO"), {"sequence": "T1"}),
    (mr(96, 5000, None, "SE", SeriesDescription="t2_tse_tra_320", BodyPartExamined="BRAIN"), {"sequence": "T2", "body_part": "head"}),
    (mr(120, 9000, 2500, ["SE", "IR"], SeriesDescription="Ax T2 FLAIR FS", BodyPartExamined="HEAD"), {"sequence": "FLAIR"}),
    (mr(388, 5000, 1800, ["SE", "IR"], SeriesDescription="t2_spc_da-fl_sag"), {"sequence": "FLAIR"}),
    (mr(22, 2100, 860, ["SE", "IR"], SeriesDescription="SAG T1 FLAIR"), {"sequence": "T1"}),
    (mr(20, 28, None, "GR", SeriesDescription="SWI_Images", ImageType=["ORIGINAL", "PRIMARY", "M", "SWI"]), {"sequence": "SWI"}),
    (mr(85, 5200, None, "EP", SeriesDescription="ep2d_diff_3scan_trace_TRACEW"), {"sequence": "DWI"}),
    (
        mr(85, 5200, None, "EP", SeriesDescription="ep2d_diff_3scan_ADC", ImageType=["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]),
        {"sequence": "ADC", "kind": "derived"},
    ),
    (mr(3.6, 21, None, "GR", SeriesDescription="TOF_3D_multi-slab"), {"sequence": "MRA"}),
    (mr(30, 2000, None, "EP", SeriesDescription="BOLD_restingstate"), {"sequence": "BOLD"}),
    (mr(42, 4500, 160, ["SE", "IR"], SeriesDescription="t2_tirm_sag", ImageOrientationPatient=SAGITTAL), {"sequence": "STIR"}),
    (mr(30, 3000, None, "SE", SeriesDescription="sPDW_SPAIR_sag KNEE LT"), {"sequence": "PD", "body_part": "lower-limb", "laterality": "left"}),
    (mr(4.0, 9.7, None, "GR"), {"sequence": "T1", "modality": "MR"}),  # no words at all: the times decide
    (mr(4.6, 25, None, "GR"), {"sequence": None}),  # a T1 in 3-D or an angiography: times cannot tell
    (mr(110, 8800, 2500, ["SE", "IR"]), {"sequence": "FLAIR"}),
    (mr(95, 4200, None, "SE"), {"sequence": "T2"}),
    (mr(None, None, None, None, AcquisitionContrast="FLUID_ATTENUATED"), {"sequence": "FLAIR"}),
    (
        {"SOPClassUID": DX, "Modality": "DX", "BodyPartExamined": "CHEST", "ViewPosition": "PA", "SeriesDescription": "W Thorax p.a."},
        {"modality": "DX", "body_part": "chest", "projection": "PA"},
    ),
    (
        {"SOPClassUID": CR, "Modality": "CR", "SeriesDescription": "Thorax lat", "PatientOrientation": ["A", "F"]},
        {"modality": "DX", "projection": "lateral"},
    ),
    (
        {"SOPClassUID": CR, "Modality": "CR", "SeriesDescription": "Chest AP bedside", "BodyPartExamined": "CHEST"},
        {"projection": "AP", "body_part": "chest"},
    ),
    ({"SOPClassUID": DX, "Modality": "DX", "BodyPartExamined": "HAND", "ImageLaterality": "R"}, {"body_part": "upper-limb", "laterality": "right"}),
    ({"SOPClassUID": SC, "Modality": "CT"}, {"kind": "capture", "modality": "CT"}),
    ({"SOPClassUID": US, "Modality": "US", "BurnedInAnnotation": "YES"}, {"modality": "US", "annotation": "burned-in"}),
    ({}, {facet: None for facet in FACETS}),
]


@pytest.mark.parametrize(("header", "expected"), HEADERS, ids=[str(h.get("SeriesDescription", h.get("BodyPartExamined"))) for h, _ in HEADERS])
def test_a_header_of_a_maker_is_recognised(header, expected):
    found = recognised(series(**header))
    assert {facet: found.get(facet) for facet in expected} == expected, found.as_detail()


@pytest.mark.parametrize(("name", "expected"), [("chest-ct", ("CT", "chest", "axial")), ("head-mr", ("MR", "head", "sagittal"))])
def test_the_sample_studies_are_recognised_by_their_headers(name, expected):
    protocol = PROTOCOLS[name]
    header = {keyword: value for keyword, value in protocol.header.items() if keyword in HEADER_KEYWORDS}
    orientation = {"ImageOrientationPatient": AXIAL} if protocol.orientation == "HPL" else {}
    found = recognised(series(**header | orientation | {"SOPClassUID": protocol.sop_class_uid}))
    assert (found.get("modality"), found.get("body_part"), found.get("plane")) == expected
    assert warnings(found) == ()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("CT_small.dcm", {"modality": "CT", "plane": "axial", "kind": "original", "kernel": "smooth", "body_part": None}),
        ("MR_small.dcm", {"modality": "MR", "plane": "axial", "sequence": "T2", "kind": "derived"}),
        ("693_J2KI.dcm", {"modality": "CT", "contrast": "none", "kernel": "smooth"}),
        ("J2K_pixelrep_mismatch.dcm", {"modality": "CT", "body_part": "head"}),
        ("examples_overlay.dcm", {"modality": "MR", "body_part": "abdomen", "sequence": "T1"}),
        ("SC_rgb_rle.dcm", {"kind": "capture", "modality": None}),
        ("rtplan.dcm", dict.fromkeys(FACETS)),
    ],
)
def test_files_of_pydicom_are_recognised(name, expected):
    """What the standard library of test files says in its headers; where a file says nothing, nothing is recognised."""
    [one] = study_of([Path(pydicom.data.get_testdata_file(name, download=False))], RECOGNITION_KEYWORDS).series
    found = recognised(one)
    assert {facet: found.get(facet) for facet in expected} == expected


def test_a_patients_name_in_free_text_is_never_repeated():
    """Evidence names classes, not what somebody typed."""
    found = recognised(series(**ct(SeriesDescription="Marked^Patient chest 4711", BodyPartExamined="CHEST Marked", ContrastBolusAgent="Marked")))
    assert found.get("body_part") == "chest"
    assert "arked" not in str(found.as_detail()) and "4711" not in str(found.as_detail())


def test_a_wrong_body_part_is_outweighed_by_the_descriptions_or_at_least_doubted():
    """A chest CT whose BodyPartExamined is wrong: what the series calls itself counts more, but not so much that it is certain."""
    wrong = recognised(series(**ct(BodyPartExamined="HEAD", SeriesDescription="Thorax 1.0")))
    answer = wrong.answers["body_part"]
    assert wrong.get("body_part") is None and answer.most_probable == "chest"
    assert "BodyPartExamined: is head" in answer.why and "SeriesDescription: names chest" in answer.why


def test_every_facet_with_words_names_its_own_classes():
    for facet, table in WORDS.items():
        assert {name for name, _ in table} <= set(FACETS[facet])


@pytest.mark.parametrize("text", ["", "DOE JOHN", "1234", "scan", "Series 5", "\x1b$B", "a" * 1000])
def test_what_says_nothing_names_nothing(text):
    assert not any(named(facet, text) for facet in ("body_part", "sequence", "plane", "laterality"))


# ------------------------------------------------------------------------------------------------------ inputs and rules


def wanted(**asked):
    return Input.model_validate(asked)


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        ({"SeriesDescription": "t1_mprage_sag", "EchoTime": 2.3, "RepetitionTime": 1900}, True),
        ({"SeriesDescription": "t2_tse_tra", "EchoTime": 96, "RepetitionTime": 5000}, False),
        ({"SeriesDescription": "Ax FLAIR", "EchoTime": 120, "RepetitionTime": 9000}, False),
        ({}, True),
    ],
)
def test_a_brain_t1_is_told_from_t2_and_flair(header, taken):
    """`absent = true`: a series that does not tell is taken; one that tells otherwise is not, and the sentence says by what evidence."""
    common = {"SOPClassUID": MR, "Modality": "MR", "BodyPartExamined": "BRAIN", "ImageOrientationPatient": AXIAL, "ImagePositionPatient": [0, 0, 0]}
    selection = select([series(**common | header)], wanted(recognised={"sequence": {"any": ["T1"], "absent": True}}))
    assert (selection.series is not None) is taken
    if not taken:
        assert selection.why.startswith("no series suits; series 1: sequence is ")
        assert "none of T1 (SeriesDescription: names " in selection.why and "TE " in selection.why


def test_an_input_that_needs_a_class_refuses_a_series_that_does_not_tell():
    selection = select([series(**ct(ImagePositionPatient=[0, 0, 0]))], wanted(recognised={"body_part": ["chest", "trunk"]}))
    assert selection.rejected["1.2.1"] == "body_part is not recognised"


@pytest.fixture
def model(tmp_path):
    said = {"name": "lungs", "version": "1", "task": "x", "inputs": {"ct": {"Modality": "CT"}}}
    return Model(tmp_path, Manifest.model_validate(said | {"measurements": {"volume": {"concept": "SCT.Volume", "unit": "mL"}}}), Path("none"))


def routed(model, *many, **rule):
    study = Study(
        study_instance_uid="1.2", instances=tuple(i for one in many for i in one.instances), more={s.series_instance_uid: s.more for s in many}
    )
    asked = Rule.model_validate({"name": "chest", "analyse": ["lungs"]} | rule)
    return route(study, [asked], {"lungs": model}, select, recognised, now=5.0)


@pytest.mark.parametrize(
    ("header", "runs"),
    [
        ({"BodyPartExamined": "CHEST"}, True),
        ({"BodyPartExamined": "THORAX"}, True),
        ({"SeriesDescription": "Thorax 1.0"}, True),  # missing
        ({"BodyPartExamined": "ABDOMEN", "SeriesDescription": "Thorax 1.0", "ProtocolName": "Lunge"}, True),  # wrong
        ({}, True),
        ({"BodyPartExamined": "HEAD"}, False),
        ({"BodyPartExamined": "KNEE", "SeriesDescription": "Knie links"}, False),
    ],
)
def test_a_rule_asks_for_what_was_recognised(model, header, runs):
    made = routed(
        model, series(**ct(ImagePositionPatient=[0, 0, 0], **header)), recognised={"body_part": {"any": ["chest", "trunk"], "absent": True}}
    )
    assert bool(made.jobs) is runs
    if not runs:
        assert made.traces[0].objections["1.2.1"][0].startswith("body_part is ")


def test_how_each_series_was_recognised_is_kept_with_the_routing(model):
    """The journal of the study holds it: what, how probable, by what evidence."""
    detail = routed(model, series(**ct(BodyPartExamined="CHEST"))).as_detail()["recognised"]
    assert detail["1.2.1"]["body_part"] == "chest, P 0.77: BodyPartExamined: is chest (0.85 where it is chest, 0.083 on average)"


def test_what_is_recognised_leaves_the_identity_of_a_job_alone(model):
    """The same images and the same build are the same job, whatever is asked of them."""
    plain, asked = (
        routed(model, series(**ct(BodyPartExamined="CHEST", ImagePositionPatient=[0, 0, 0])), **rule)
        for rule in ({}, {"recognised": {"body_part": "chest"}})
    )
    assert [job.identity for job in plain.jobs] == [job.identity for job in asked.jobs] != []


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"bodypart": "head"}, "'bodypart' is nothing that a series is recognised as; there are modality, body_part"),
        ({"body_part": ["brain"]}, "'brain' is no class of body_part; there are head, neck"),
        ({"sequence": {"matches": "T1"}}, "sequence: matches cannot be asked of a class; name classes, or use any, none, absent"),
        ({"sequence": []}, "any"),
    ],
)
def test_what_cannot_be_recognised_cannot_be_asked_for(asked, message):
    with pytest.raises(ValueError, match=message):
        wanted(recognised=asked)
    with pytest.raises(ValueError, match=message):
        Rule.model_validate({"name": "x", "analyse": ["lungs"], "recognised": asked})


def test_recognising_reads_what_the_ledger_does_not_keep_only_where_it_is_asked_for():
    """A file is opened when a study is judged only if a rule or a model needs it."""
    manifest = {"name": "lungs", "version": "1", "task": "x", "measurements": {"volume": {"concept": "SCT.Volume", "unit": "mL"}}}
    asks = Manifest.model_validate(manifest | {"inputs": {"ct": {"recognised": {"body_part": ["chest"]}}}})
    assert set(RECOGNITION_KEYWORDS) <= asks.keywords
    assert not set(RECOGNITION_KEYWORDS) & Manifest.model_validate(manifest | {"inputs": {"ct": {}}}).keywords
