"""From regions in DICOM to a table, from the table to a model's folder, and from the folder to a report on a patient that nobody trained on."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from dicom_node.config import bundled, load_model
from dicom_node.export import read_table
from dicom_node.methods.feature_classifier import classifier_of_regions
from dicom_node.methods.radiomics import CT_BINS, describe, features
from dicom_node.methods.tabular import Classifier
from dicom_node.work import try_model
from tests import drawn, phantoms, verbs
from tests.contracts import test_models as contract
from tests.models_proof import textures, volume
from tests.models_proof.test_measure import walk
from tests.orthanc import free_ports
from tests.reported import Node
from tests.test_cli import failed
from tests.walks.node import serving

PATIENTS, REGIONS = 30, 3


def study(seed: int, coarse: list[bool]) -> tuple[list[Dataset], Dataset, np.ndarray, np.ndarray]:
    """Return a patient's CT and the segmentation that somebody drew on it, and both as arrays."""
    stored, regions = textures.image(np.random.default_rng(seed), coarse)
    images = phantoms.series(stored, seed=f"textures {seed}", spacing_mm=textures.SPACING_MM, PatientID=f"P{seed}")
    masks = np.stack([regions == number for number in range(1, len(coarse) + 1)], axis=-1).astype(np.uint8)
    return images, drawn.segmentation(images, masks, seed=f"regions {seed}"), stored, regions


@dataclass(frozen=True)
class Cohort:
    """What was exported of the training patients, their labels, and the model's folder that was trained on both."""

    table: Path
    labels: Path
    model: Path
    said: verbs.Said


def rows_of(seed: int, coarse: list[bool]) -> list[dict[str, str]]:
    """Return a patient's rows as they are exported, as far as training reads them; a test holds them to those of a report."""
    manifest = load_model(bundled("models") / "radiomics").manifest
    images, drawn_on_it, stored, regions = study(seed, coarse)
    image = volume(stored.astype(np.float32) - 1024, np.diag([*textures.SPACING_MM, 1.0]))
    rows = []
    for name, of_region in describe(image, image.with_array(regions), CT_BINS).measurements.items():
        said = manifest.measurements[name]
        for number, value in of_region.items():
            item = drawn_on_it.SegmentSequence[number - 1]
            rows.append(
                {
                    "study_instance_uid": str(images[0].StudyInstanceUID),
                    "model": manifest.name,
                    "model_version": manifest.version,
                    "segmentation_sop_instance_uid": str(drawn_on_it.SOPInstanceUID),
                    "segment_number": str(number),
                    "tracking_uid": str(item.TrackingUID),
                    "concept_code": said.concept.value,
                    "concept_scheme": said.concept.scheme,
                    "derivation": said.derivation.meaning if said.derivation else "",
                    "method": said.method.meaning if said.method else "",
                    "value": f"{value:.{said.digits}f}",
                    "sop_instance_uid": f"report {seed}",
                }
            )
    return rows


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Thirty patients with three regions each, described as `radiomics` does, in a table, labelled by what was drawn; one region has no label."""
    folder, rng = tmp_path_factory.mktemp("cohort"), np.random.default_rng(42)
    rows, labels = [], []
    for patient in range(PATIENTS):
        coarse = [bool(one) for one in rng.random(REGIONS) < 0.5]
        rows += rows_of(patient, coarse)
        of_region = {row["segment_number"]: row for row in rows if row["sop_instance_uid"] == f"report {patient}"}
        for number, is_coarse in enumerate(coarse, start=1):
            uids = (of_region[str(number)][name] for name in ("study_instance_uid", "tracking_uid"))
            labels.append((*uids, f"P{patient}", "coarse" if is_coarse else "fine"))
    with (folder / "features.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("study_instance_uid", "tracking_uid", "patient", "label"), *labels[:-1]])
    said = verbs.run(
        "train", folder / "features.csv", "--labels", folder / "labels.csv", "--positive", "coarse", "-o", folder / "coarse_texture", "--json"
    )
    return Cohort(folder / "features.csv", folder / "labels.csv", folder / "coarse_texture", said)


@pytest.mark.slow
def test_the_rows_are_those_that_a_node_exports(tmp_path: Path) -> None:
    """One patient through a node: received, described, reported, exported to Parquet: the same rows, but for the report's UID."""
    images, regions, _, _ = study(7, [True, False])
    node = Node(tmp_path, {"radiomics": bundled("models") / "radiomics"})
    node.receive([*images, regions])
    node.work()
    assert node.verb("export", "--measurements", tmp_path / "table.parquet", "--model", "radiomics").code == 0
    node.close()
    expected = rows_of(7, [True, False])
    columns = [name for name in expected[0] if name not in ("value", "sop_instance_uid")]
    found, wanted = (
        {tuple(row[name] for name in columns): float(row["value"]) for row in rows} for rows in (read_table(tmp_path / "table.parquet"), expected)
    )
    assert found == pytest.approx(wanted, rel=1e-4, abs=1e-4) and len(found) == len(expected)


def test_a_classifier_is_judged_on_patients_that_it_has_not_seen(cohort: Cohort) -> None:
    """24 of 30 patients train it, 6 test it; the textures have the same mean and spread, and are told apart all the same."""
    assert cohort.said.code == 0, cohort.said
    said = cohort.said.json
    assert set(said) == {"unlabelled", "trained_on", "tested_on", "folder", "positive", "figures"}
    assert said["unlabelled"] == 1 and said["trained_on"][1] + said["tested_on"][1] == PATIENTS
    assert said["trained_on"][0] + said["tested_on"][0] == PATIENTS * REGIONS - 1
    print({name: round(value, 3) for name, value in said["figures"].items()})
    assert said["figures"]["auc"] > 0.9 and said["figures"]["brier"] < 0.15


def test_the_folder_is_a_model_like_any_other(cohort: Cohort) -> None:
    """What a bundled model must satisfy it satisfies; its numbers are JSON, and nothing in it is pickled."""
    for check in (
        contract.test_folder_and_name_agree,
        contract.test_manifest_is_complete,
        contract.test_every_measurement_has_a_plausible_range_and_a_place,
        contract.test_card_says_what_a_reader_must_know,
        contract.test_code_imports_only_what_a_model_may,
        contract.test_torch_is_imported_where_it_is_declared,
    ):
        check(cohort.model)
    assert sorted(path.name for path in cohort.model.iterdir()) == ["README.md", "analysis.py", "classifier.json", "model.toml"]
    said = json.loads((cohort.model / "classifier.json").read_text())
    assert (said["kind"], len(said["features"])) == ("logistic", len(said["mean"]))
    assert load_model(cohort.model).manifest.evaluations["found"].concept.meaning == "A region is coarse"


def expected(stored: np.ndarray, regions: np.ndarray, number: int, model: Path) -> float:
    """Return the probability of a region, reckoned here: its features, and the classifier's numbers."""
    box = tuple(slice(int(place.min()), int(place.max()) + 1) for place in np.nonzero(regions == number))
    found = features(stored.astype(np.float32) - 1024, regions[box] == number, box, textures.SPACING_MM, CT_BINS)
    classifier = Classifier.read(model / "classifier.json")
    return float(classifier.probabilities(np.array([[found[name] for name in classifier.features]]))[0])


def test_a_new_patient_gets_a_valid_report_with_probabilities_and_how_far_to_trust_them(cohort: Cohort, tmp_path: Path) -> None:
    """`try` on two regions: the probabilities are those of the classifier's numbers, each sentence is there, the coded answer says present."""
    images, drawn_on_it, stored, regions = study(1001, [True, False])
    phantoms.write([*images, drawn_on_it], tmp_path / "in")
    trial = try_model(load_model(cohort.model), sorted((tmp_path / "in").iterdir()), tmp_path / "out")
    assert trial.problems == ()
    items = list(walk(dcmread(trial.objects[0])))
    given = [float(item.MeasuredValueSequence[0].NumericValue) for item in items if item.get("ValueType") == "NUM"]
    assert given == pytest.approx([expected(stored, regions, number, cohort.model) for number in (1, 2)], abs=1e-4)
    assert given[0] > given[1]
    told = " ".join(item.TextValue for item in items if item.get("ValueType") == "TEXT")
    assert "Region 1: coarse, probability" in told and "held-out regions" in told and "not for diagnosis" in told
    assert answer_of(items) == "Present"


def answer_of(items: list[Dataset]) -> str:
    """Return the coded answer of a report to whether a region is of the class."""
    (answer,) = [item for item in items if item.get("ValueType") == "CODE" and item.ConceptNameCodeSequence[0].CodeValue == "CLASS"]
    return str(answer.ConceptCodeSequence[0].CodeMeaning)


def test_a_region_without_a_texture_gets_no_probability(cohort: Cohort, tmp_path: Path) -> None:
    """One voxel has no neighbours: no number, and a sentence that says why; the answer is that it is undetermined, not that there is nothing."""
    stored = np.full((4, 8, 8), 1064, np.int16)
    images = phantoms.series(stored, seed="one voxel", spacing_mm=textures.SPACING_MM)
    mask = np.zeros((4, 8, 8, 1), np.uint8)
    mask[2, 4, 4] = 1
    node = Node(tmp_path, {"coarse-texture": cohort.model})
    node.receive([*images, drawn.segmentation(images, mask)])
    (job,) = node.work()
    items = list(walk(dcmread(node.file(job))))
    node.close()
    (number,) = [item for item in items if item.get("ValueType") == "NUM"]
    assert number.NumericValueQualifierCodeSequence[0].CodeMeaning == "Not a number"
    assert any("Region 1: no probability" in item.TextValue for item in items if item.get("ValueType") == "TEXT")
    assert answer_of(items) == "Undetermined"


@pytest.mark.slow
def test_a_study_walks_through_a_node_that_has_the_folder_in_its_configuration(cohort: Cohort, tmp_path: Path) -> None:
    """Pushed by C-STORE, routed by a rule, run in a process of its own, reported: what `train` made serves."""
    images, drawn_on_it, stored, regions = study(1002, [False, True, True])
    rule = {"name": "regions", "when": {"Modality": "SEG"}, "derived": True, "analyse": ["coarse-texture"]}
    remotes = {"scanner": {"ae": "SCANNER@127.0.0.1:104", "may": ["send"]}}
    with serving(tmp_path, remotes=remotes, rules=[rule], models={"coarse-texture": cohort.model}, port=free_ports(1)[0]) as node:
        node.send(phantoms.write([*images, drawn_on_it], tmp_path / "sent"))
        (job,) = node.settled(str(images[0].StudyInstanceUID))
        assert str(job.state) == "COMPLETED", job.reason
        report = dcmread(node.file(node.results(job)["SR"]))
        said = node.verb("export", "--measurements", tmp_path / "table.csv", "--json").json
    given = [float(item.MeasuredValueSequence[0].NumericValue) for item in walk(report) if item.get("ValueType") == "NUM"]
    assert given == pytest.approx([expected(stored, regions, number, cohort.model) for number in (1, 2, 3)], abs=1e-4)
    assert said["rows"] == 3 and [float(row["value"]) for row in read_table(tmp_path / "table.csv")] == given


@pytest.mark.parametrize("kind", ["bayes", "network"])
def test_the_other_classifiers_are_trained_and_written_alike(cohort: Cohort, tmp_path: Path, kind: str) -> None:
    """By the same verb; as a table for a person."""
    said = verbs.run("train", cohort.table, "--labels", cohort.labels, "-o", tmp_path / "other", "--kind", kind)
    assert said.code == 0 and f"written to {tmp_path / 'other'}" in said.out, said
    assert Classifier.read(tmp_path / "other" / "classifier.json").kind == kind


def changed(labels: Path, to: Path, change: str) -> Path:
    """Return the labels with their header or their rows changed."""
    lines = labels.read_text().splitlines()
    if change == "no label":
        lines[0] = lines[0].replace("label", "class")
    elif change == "strange column":
        lines = [f"{line},x" if line is not lines[0] else f"{line},shoe_size" for line in lines]
    elif change == "one class":
        lines = [line.replace("coarse", "fine") for line in lines]
    elif change == "few patients":
        lines = lines[:10]
    elif change == "two labels":
        lines.append(lines[1].rsplit(",", 1)[0] + ("," + ("fine" if lines[1].endswith("coarse") else "coarse")))
    elif change == "nobody":
        lines = [lines[0], *(line.replace("2.25.", "2.26.") for line in lines[1:])]
    to.write_text("\n".join(lines) + "\n")
    return to


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("no label", "the labels have no column 'label'"),
        ("strange column", "the labels have a column 'shoe_size', which the measurements have not"),
        ("one class", "the regions have the labels fine"),
        ("few patients", "one class has"),
        ("two labels", "one region has the labels"),
        ("nobody", "no label names a region of the table"),
    ],
)
def test_tables_that_do_not_fit_are_told(cohort: Cohort, tmp_path: Path, change: str, said: str) -> None:
    """What is wrong and what to do; no folder is left."""
    labels = changed(cohort.labels, tmp_path / "labels.csv", change)
    assert failed(verbs.run("train", cohort.table, "--labels", labels, "-o", tmp_path / "model")).startswith(said)
    assert not (tmp_path / "model").exists()


def test_features_of_another_version_and_a_folder_that_is_there_are_refused(cohort: Cohort, tmp_path: Path) -> None:
    """A feature may have changed its meaning between versions; and a model is not changed in place."""
    older = rewritten(cohort.table, tmp_path / "older.csv", model_version=("1.1.0", "1.0.0"))
    said = verbs.run("train", older, "--labels", cohort.labels, "-o", tmp_path / "model")
    assert failed(said) == "the table holds features of radiomics 1.0.0, and this program has 1.1.0"
    assert failed(verbs.run("train", cohort.table, "--labels", cohort.labels, "-o", cohort.model)) == f"{cohort.model} is there already"


def rewritten(table: Path, to: Path, **replaced: tuple[str, str]) -> Path:
    """Return a table with a text in the place of another in some columns."""
    rows = list(read_table(table))
    with to.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row | {column: row[column].replace(*texts) for column, texts in replaced.items()} for row in rows)
    return to


def test_features_of_mr_make_a_model_for_mr(cohort: Cohort, tmp_path: Path) -> None:
    """The folder takes what the model of its features takes, in that model's bins; a region of an MR gets a probability, and CT is not asked for."""
    other = {"model": ("radiomics", "radiomics-mr"), "method": ("Bins of 25 HU from -1000 HU", "32 bins over the region's values")}
    table = rewritten(cohort.table, tmp_path / "mr.csv", **other)
    assert verbs.run("train", table, "--labels", cohort.labels, "-o", tmp_path / "mr_texture").code == 0
    assert load_model(tmp_path / "mr_texture").manifest.inputs["image"].when["Modality"].any == ("MR", "PT")
    images = phantoms.series(textures.image(np.random.default_rng(3), [True])[0], modality="MR", spacing_mm=textures.SPACING_MM)
    (tmp_path / "node").mkdir()
    node = Node(tmp_path / "node", {"mr-texture": tmp_path / "mr_texture"})
    node.receive([*images, drawn.segmentation(images, np.ones((len(images), images[0].Rows, images[0].Columns, 1), np.uint8))])
    (job,) = node.work()
    (number,) = [item for item in walk(dcmread(node.file(job))) if item.get("ValueType") == "NUM"]
    node.close()
    assert 0 <= float(number.MeasuredValueSequence[0].NumericValue) <= 1


def test_features_of_two_models_and_names_that_cannot_be_are_refused(cohort: Cohort, tmp_path: Path) -> None:
    """Bins of one kind are not mixed with those of another; a model's name and a code's meaning have their limits. Nothing is left behind."""
    none = rewritten(cohort.table, tmp_path / "none.csv", model=("radiomics", "lung-ct"))
    assert failed(verbs.run("train", none, "--labels", cohort.labels, "-o", tmp_path / "m")).startswith("the table holds no features of")
    assert "name" in failed(verbs.run("train", cohort.table, "--labels", cohort.labels, "-o", tmp_path / "Bad Name"))
    long = rewritten(cohort.labels, tmp_path / "long.csv", label=("coarse", "very " * 9 + "coarse"))
    assert "too long" in failed(verbs.run("train", cohort.table, "--labels", long, "-o", tmp_path / "m"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["long.csv", "none.csv"]


def test_a_classifier_that_was_tampered_with_is_not_run(cohort: Cohort, tmp_path: Path) -> None:
    """Another format or kind, numbers that do not fit together, no JSON, a feature that nobody knows: refused when it is read."""
    good = json.loads((cohort.model / "classifier.json").read_text())
    zero, short = [0.0] * len(good["mean"]), good["parameters"][0][1:]
    changes = [{"format": "pickle"}, {"kind": "boosting"}, {"mean": [0.0]}, {"deviation": zero}, {"parameters": [short, [0.0]]}, {"calibration": []}]
    for text in [*(json.dumps(good | change) for change in changes), json.dumps(good).replace("-", "NaN", 1), "\x80\x04K\x01.", "[]"]:
        (tmp_path / "classifier.json").write_text(text)
        with pytest.raises(ValueError, match=r"classifier.json is no classifier that can be read here"):
            Classifier.read(tmp_path / "classifier.json")
    (tmp_path / "classifier.json").write_text(json.dumps(good | {"features": ["shoe_size", *good["features"][1:]]}))
    with pytest.raises(ValueError, match="asks for the feature shoe_size"):
        classifier_of_regions(tmp_path / "classifier.json", features_of="radiomics", positive="coarse", calibration="")
