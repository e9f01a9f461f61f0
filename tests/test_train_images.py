"""`dicom-node train-images`: from labelled folders of DICOM files to a model's folder, with figures on patients that were kept back."""

import json
import tomllib

import numpy as np
import pytest
import torch

from dicom_node.config import load_model
from dicom_node.domain import ConfigError
from dicom_node.learn.images import Cases, parts, teach
from dicom_node.learn.network import _toml, told_of
from dicom_node.work import try_model
from tests import phantoms
from tests.models_proof.drawn_lesions import drawn
from tests.verbs import run

SHAPE, SPACING_MM = (12, 24, 24), (2.0, 2.0, 2.0)
SMALL = {"spatial_dims": 3, "in_channels": 1, "out_channels": 1, "init_features": 8, "growth_rate": 8, "block_config": [1], "bn_size": 2}
SAID = {
    "name": "drawn-ball",
    "version": "1.0.0",
    "task": "Says whether a drawn volume shows a ball.",
    "inputs": {"image": {"Modality": "CT", "units": "HU", "min_slices": 8}},
    "network": {"name": "DenseNet", "arguments": SMALL, "layer": "class_layers.relu"},
    "image": {"size": list(SHAPE), "spacing_mm": list(SPACING_MM), "window": [-10, 160]},
    "labels": [{"name": "ball", "concept": ["BALL", "99SITE", "Ball"]}],
}


def drawings(count):
    """Return so many volumes, every second with a ball, and no tubes: what a small network learns in a few steps."""
    rng = np.random.default_rng(7)
    return [drawn(rng, SHAPE, lesions=n % 2, tubes=0, radii=(3.0, 4.5)).image for n in range(count)]


def laid_out(folder, answers=("no", "yes"), count=30):
    """Write a description, a table, and a folder of CT images for each case; each patient has two cases."""
    (folder / "said.toml").write_text(_toml(SAID))
    rows = ["folder,patient,ball"]
    for n, image in enumerate(drawings(count)):
        stored = np.round(image).astype(np.int16) + 1024
        phantoms.write(phantoms.series(stored, spacing_mm=SPACING_MM, seed=f"case {n}"), folder / f"case{n}")
        rows.append(f"case{n},p{n // 2},{answers[n % 2]}")
    (folder / "cases.csv").write_text("\n".join(rows))
    return folder / "said.toml", folder / "cases.csv"


@pytest.mark.slow
def test_labelled_folders_become_a_model_that_runs(tmp_path):
    """Its figures are of patients kept back, stand in its manifest and in every report; what it is taught it tells apart."""
    said = run("train-images", *laid_out(tmp_path), "-o", tmp_path / "made", "--steps", "80", "--rate", "0.01", "--json")
    assert said.code == 0, said.all
    model = load_model(tmp_path / "made")
    print(said.json["figures"])
    assert said.json["name"] == model.name == "drawn-ball" and model.missing_weights == ()
    assert said.json["figures"]["ball"]["AUC"] >= 0.9
    assert {one["figure"] for one in model.manifest.performance} >= {"AUC, ball", "sensitivity, ball"}
    assert all("6 images of 3 patients that were kept back; taught on 18 images" in one["data"] for one in model.manifest.performance)
    likely = [try_model(model, sorted((tmp_path / f"case{n}").iterdir()), tmp_path / f"out{n}").findings for n in (0, 1)]
    assert likely[0].measurements["ball"] < likely[1].measurements["ball"]
    assert "Both were chosen on 6 images; on 6 of other patients: AUC" in likely[0].notes[0]


def test_no_patient_is_parted():
    """Every case has one part; three fifths to learn from; the same each time."""
    patients = [f"p{n % 20}" for n in range(70)]
    learn, choose, judge = parts(patients)
    assert sorted([*learn, *choose, *judge]) == list(range(70))
    whose = [{patients[n] for n in part} for part in (learn, choose, judge)]
    assert [len(one) for one in whose] == [12, 4, 4] and len(set.union(*whose)) == 20
    assert all(np.array_equal(one, other) for one, other in zip(parts(patients), (learn, choose, judge), strict=True))


def test_cases_that_cannot_teach_are_refused():
    """Too few patients, or one kind only."""
    with pytest.raises(ConfigError, match="3 patients cannot be parted"):
        parts(["a", "b", "c"])
    cases = Cases(images=torch.zeros(10, 1, *SHAPE), truth=np.ones((10, 1), bool), patients=[str(n) for n in range(10)])
    with pytest.raises(ConfigError, match="all have the same answer to 'ball'"):
        teach(SAID, told_of(SAID), cases, steps=1, rate=0.01)


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ("folder,ball\ncase0,maybe\n", "'maybe' is no answer to 'ball'"),
        ("folder,patient\ncase0,p\n", "has no 'ball' in each row"),
        ("folder,ball\ncase0,yes\n", "no series of case0 suits the classifier"),
        ("folder,ball\n", "names no cases"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_a_sentence(table, why, tmp_path):
    """And nothing is written."""
    (tmp_path / "said.toml").write_text(_toml(SAID))
    (tmp_path / "cases.csv").write_text(table)
    mr = phantoms.series(modality="MR")
    phantoms.write(mr, tmp_path / "case0")
    said = run("train-images", tmp_path / "said.toml", tmp_path / "cases.csv", "-o", tmp_path / "made")
    assert said.code == 1 and why in said.err and not (tmp_path / "made").exists()


def test_what_is_written_as_toml_is_read_back():
    """Tables in tables, lists of tables, quotes, letters of all kinds."""
    said = json.loads(json.dumps(SAID)) | {"odd key": 1.5, "task": 'a "quoted" \\ größer\n', "performance": [{"value": [1, 2.5], "x": {"y": True}}]}
    assert tomllib.loads(_toml(said)) == said
