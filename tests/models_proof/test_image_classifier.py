"""image-classifier with a network that is taught here on drawn volumes, packaged as a site would, and read back as DICOM."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch

from dicom_node import Unsuitable
from dicom_node.analyse.contract import settle
from dicom_node.analyse.weights import require_weights
from dicom_node.cli.operate import _check_models
from dicom_node.config import Model, load_model, load_site
from dicom_node.domain import ConfigError, ModelFailed
from dicom_node.learn.network import _toml, description_of, package, told_of
from dicom_node.methods.calibration import operating_point, probabilities, temperature, trust
from dicom_node.methods.classification import Classifier, Description, Preparation, laid_back, prepared
from dicom_node.methods.training import fit
from dicom_node.work import try_model
from tests import phantoms, projections
from tests.models_proof import code, scanned, volume
from tests.models_proof.drawn_lesions import Drawn, drawn
from tests.verbs import run

SHAPE, SPACING_MM = (20, 40, 40), (2.0, 2.0, 2.0)
AFFINE = np.array([[0, 0, 2.0, -39], [0, 2, 0, -39], [2, 0, 0, 0], [0, 0, 0, 1]])  # axes to head, back and left
SMALL = {"spatial_dims": 3, "in_channels": 1, "out_channels": 1, "init_features": 8, "growth_rate": 8, "block_config": [4, 4], "bn_size": 2}
SAID: Mapping[str, Any] = {
    "name": "drawn-lesion",
    "version": "1.0.0",
    "task": "Says whether a drawn volume shows a ball among tubes.",
    "inputs": {"image": {"Modality": "CT", "units": "HU", "min_slices": 8}},
    "network": {"name": "DenseNet", "arguments": SMALL, "layer": "class_layers.relu"},
    "image": {"size": list(SHAPE), "spacing_mm": list(SPACING_MM), "window": [-10, 160]},
    "labels": [{"name": "lesion", "concept": ["52988006", "SCT", "Lesion"], "site": "SCT.Chest"}],
}


def described(**changed: Any) -> Description:
    labels = [{"name": label["name"]} for label in changed.get("labels", SAID["labels"])]
    return Description.model_validate({key: changed.get(key, SAID[key]) for key in ("network", "image")} | {"labels": labels})


def cases(seed: int, count: int) -> list[tuple[Drawn, bool]]:
    """Return so many volumes, half of them with one or two lesions, the others with tubes only."""
    rng = np.random.default_rng(seed)
    return [(drawn(rng, SHAPE, lesions=int(rng.integers(1, 3)) if n % 2 else 0), bool(n % 2)) for n in range(count)]


def ready(some: list[tuple[Drawn, bool]]) -> torch.Tensor:
    return torch.cat([prepared(one.image, SPACING_MM, described().image) for one, _ in some])


def kinds(some: list[tuple[Drawn, bool]]) -> np.ndarray:
    return np.array([kind for _, kind in some])


@dataclass(frozen=True)
class Taught:
    """A network with what was chosen for it on cases that it did not learn from, and cases that neither saw."""

    network: torch.nn.Module
    temperature: float
    threshold: float
    tested: list[tuple[Drawn, bool]]

    def classifier(self) -> Classifier:
        return Classifier(described(), self.network.state_dict())

    def logits(self) -> np.ndarray:
        return self.classifier().logits(ready(self.tested))[:, 0].numpy()


@cache
def taught() -> Taught:
    """Teach on 300 volumes, choose temperature and operating point on 80 others, keep 100 for the test."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network, rng, samples = described().network.build(), np.random.default_rng(0), cases(1, 300)
    images, wanted = ready(samples), torch.from_numpy(kinds(samples)).float()
    measure = torch.nn.BCEWithLogitsLoss()

    def loss(step: int) -> torch.Tensor:
        chosen = rng.choice(len(samples), 8, replace=False)
        turned = images[chosen].flip([axis for axis in (2, 3, 4) if rng.random() < 0.5])
        return measure(network(turned)[:, 0], wanted[chosen])

    fit(network, loss, steps=400, rate=1e-2)
    chosen_on = cases(2, 80)
    logits = Classifier(described(), network.state_dict()).logits(ready(chosen_on))[:, 0].numpy()
    torch.set_num_threads(before)
    heat = temperature(logits, kinds(chosen_on))
    return Taught(network, heat, operating_point(probabilities(logits, heat), kinds(chosen_on)).threshold, cases(3, 100))


def write(folder: Path, said: Mapping[str, Any], state: Any) -> tuple[Path, Path]:
    """Write a description and weights as a site has them."""
    (folder / "said.toml").write_text(_toml(said))
    torch.save(state, folder / "weights.pt")
    return folder / "said.toml", folder / "weights.pt"


def written(folder: Path, said: Mapping[str, Any], state: Any) -> tuple[Mapping[str, Any], Path]:
    """Write a description and weights, and read the description."""
    description, weights = write(folder, said, state)
    return description_of(description), weights


def packaged(folder: Path) -> Model:
    one = taught()
    label = SAID["labels"][0] | {"temperature": one.temperature, "threshold": one.threshold, "validation": "Chosen on 80 drawn volumes."}
    return package(*written(folder, {**SAID, "labels": [label]}, one.network.state_dict()), folder / "drawn_lesion")


def dicom(one: Drawn, folder: Path) -> list[Path]:
    """Write a drawn volume as a CT series."""
    stored = np.round(one.image).astype(np.int16) + 1024
    return phantoms.write(phantoms.series(stored, spacing_mm=SPACING_MM), folder)


# ------------------------------------------------------------------------------------------------- the network taught here


@pytest.mark.slow
def test_a_network_taught_here_tells_volumes_with_lesions_from_those_without():
    """AUC at least 0.85 on 100 unseen volumes; at the operating point sensitivity and specificity at least 0.7."""
    one = taught()
    likely, truth = probabilities(one.logits(), one.temperature), kinds(one.tested)
    found, raw = trust(likely, truth), trust(probabilities(one.logits()), truth)
    sensitivity, specificity = (likely[truth] >= one.threshold).mean(), (likely[~truth] < one.threshold).mean()
    print(f"AUC {found.auc:.3f}; sensitivity {sensitivity:.2f}, specificity {specificity:.2f} from {one.threshold:.3f} on")
    print(f"temperature {one.temperature:.2f}: error {raw.calibration_error:.3f}, then {found.calibration_error:.3f}; Brier {found.brier:.3f}")
    assert found.auc >= 0.85 and sensitivity >= 0.7 and specificity >= 0.7
    assert found.auc == raw.auc and found.brier <= raw.brier + 0.01


@pytest.mark.slow
def test_what_speaks_for_a_lesion_lies_at_it():
    """Of volumes that are rightly called positive, the map's peak lies within 4 voxels of a lesion in at least half, by chance in few."""
    one, classifier, rng = taught(), taught().classifier(), np.random.default_rng(0)
    likely = probabilities(one.logits(), one.temperature)
    hits, chance = [], []
    for image, (case, kind), probability in zip(ready(one.tested), one.tested, likely, strict=True):
        if kind and probability >= one.threshold:
            peak = np.unravel_index(classifier.activation(image[None], 0).argmax(), SHAPE)
            places = np.argwhere(case.lesion)
            hits.append(np.linalg.norm(places - peak, axis=1).min() <= 4)
            chance.append(np.linalg.norm(places - rng.integers(0, SHAPE), axis=1).min() <= 4)
    print(f"peak at a lesion in {sum(hits)} of {len(hits)}; a random place in {sum(chance)}")
    assert np.mean(hits) >= 0.5 > 2 * np.mean(chance)


@pytest.mark.slow
def test_a_packaged_classifier_says_in_dicom_what_the_network_said(tmp_path):
    """Report and parametric map of a series with a lesion and of one without are valid and hold the network's own numbers."""
    model = packaged(tmp_path)
    assert model.name == "drawn-lesion" and model.missing_weights == ()
    likely = probabilities(taught().logits(), taught().temperature)
    for number in (int(likely.argmax()), int(likely.argmin())):
        case, home = taught().tested[number][0], tmp_path / str(number)
        trial = try_model(model, dicom(case, home / "in"), home / "out")
        assert trial.problems == ()
        assert trial.findings.measurements["lesion"] == pytest.approx(likely[number], abs=0.02)  # values are whole HU in DICOM
        assert trial.findings.evaluations == {"lesion": "yes" if likely[number] >= taught().threshold else "no"}
        report, map_ = (pydicom.dcmread(next(path for path in trial.objects if kind in path.name)) for kind in ("sr.dcm", "pm.dcm"))
        said = json.dumps(report.to_json_dict())
        assert all(word in said for word in ("122157", "Lesion", "Chosen on 80 drawn volumes.", "not for diagnosis"))
        assert map_.NumberOfFrames == SHAPE[0] and "130403" in json.dumps(map_.to_json_dict())
        assert 0 <= trial.findings.maps["lesion"].array.min() <= trial.findings.maps["lesion"].array.max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("orientation", ["FAR", "AHR", "RFP"])
def test_the_same_patient_scanned_otherwise_is_as_likely_to_have_a_lesion(orientation, tmp_path):
    """In other orders of slices, rows and columns: the same probability, and the map where it was in the patient."""
    model = packaged(tmp_path)
    analyse = code("image_classifier").load(model.folder, "cpu")
    image = volume(taught().tested[1][0].image, AFFINE)
    plain, turned = (settle(analyse(one), model.manifest, {"image": one}) for one in (image, scanned(image, orientation)))
    assert turned.measurements["lesion"] == pytest.approx(plain.measurements["lesion"], abs=1e-4)
    assert np.allclose(scanned(turned.maps["lesion"], "HPL").array, plain.maps["lesion"].array, atol=1e-3)


# ---------------------------------------------------------------------------------------------------- an image made ready


@pytest.mark.parametrize("spacing_mm", [(5.0, 1.0, 1.0), (2.0, 2.0, 2.0), (1.0, 3.0, 0.5)])
def test_a_ball_lies_where_it_lay_on_the_networks_grid_and_back(spacing_mm):
    """Its middle, in mm from the image's middle, within a tenth of a cell; its mass too, whatever the spacing."""
    shape = tuple(round(mm / s) for mm, s in zip((90, 84, 78), spacing_mm, strict=True))
    axes = np.meshgrid(*((np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing_mm, strict=True)), indexing="ij")
    middle_mm, how = (10.0, -6.0, 4.0), Preparation(size=(30, 28, 26), spacing_mm=(3.0, 3.0, 3.0), window=(0, 100))
    image = 100 * np.exp(-sum((axis - at) ** 2 for axis, at in zip(axes, middle_mm, strict=True)) / 2 / 8**2)
    cells = prepared(image, spacing_mm, how)[0, 0].numpy()
    back = laid_back(cells, shape, spacing_mm, how)
    assert cells.shape == how.size and back.shape == shape
    for array, spacing in ((cells, how.spacing_mm), (back, spacing_mm)):
        where = [
            np.average((np.arange(n) - (n - 1) / 2) * s, weights=array.sum(tuple({0, 1, 2} - {a})))
            for a, (n, s) in enumerate(zip(array.shape, spacing, strict=True))
        ]
        assert where == pytest.approx(middle_mm, abs=0.3)
        assert array.sum() * np.prod(spacing) == pytest.approx(image.sum() / 100 * np.prod(spacing_mm), rel=0.02)


def test_without_a_spacing_the_whole_image_fits_in():
    """A wide image keeps its proportions; above and below it nothing was scanned."""
    cells = prepared(np.full((40, 80), 7.0), (1.0, 1.0), Preparation(size=(20, 20), window=(0, 7)))[0, 0].numpy()
    assert cells[10] == pytest.approx(1, abs=0.3) and not cells[:4].any() and cells[6:14, 2:-2] == pytest.approx(1)


def test_without_a_window_brightness_has_no_unit():
    """Percentiles of each image: scaled by a thousand it is the same; what is no number counts as 0."""
    rng, how = np.random.default_rng(0), Preparation(size=(8, 16, 16), spacing_mm=(2, 2, 2), mean=0.5, sd=0.25)
    image = rng.normal(5, 2, (8, 16, 16))
    plain, scaled = prepared(image, SPACING_MM, how), prepared(image * 1000, SPACING_MM, how)
    assert torch.allclose(plain, scaled, atol=1e-4) and plain.min() == -2 and plain.max() == 2
    image[0, 0, 0] = np.nan
    assert torch.isfinite(prepared(image, SPACING_MM, how)).all()


# ------------------------------------------------------------------------------------------------------------ calibration


def test_a_temperature_undoes_what_made_the_scores_too_sure():
    """Scores three times too large: 3, within a tenth; calibration error falls under 0.02."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, 20000)
    truth = rng.random(20000) < probabilities(logits)
    found = temperature(3 * logits, truth)
    assert found == pytest.approx(3, rel=0.1)
    before, after = trust(probabilities(3 * logits), truth), trust(probabilities(3 * logits, found), truth)
    assert after.calibration_error < 0.02 < before.calibration_error and after.brier < before.brier


def test_a_few_cases_told_apart_without_an_error_are_no_certainty():
    """Ten of each kind: the probabilities come near (n + 1) / (n + 2), not 1."""
    logits, truth = [-9.0] * 10 + [9.0] * 10, [False] * 10 + [True] * 10
    assert probabilities([9.0], temperature(logits, truth))[0] == pytest.approx(11 / 12, abs=0.01)


def test_the_operating_point_is_what_trying_all_of_them_finds():
    """Youden's index, and the best specificity at a least sensitivity."""
    rng = np.random.default_rng(1)
    truth = rng.random(300) < 0.4
    likely = np.clip(rng.normal(np.where(truth, 0.6, 0.4), 0.15), 0.01, 0.99)
    tried = [((likely[truth] >= one).mean(), (likely[~truth] < one).mean()) for one in likely]
    youden, sure = operating_point(likely, truth), operating_point(likely, truth, sensitivity=0.95)
    assert youden.sensitivity + youden.specificity == pytest.approx(max(a + b for a, b in tried))
    assert sure.specificity == pytest.approx(max(b for a, b in tried if a >= 0.95)) and sure.sensitivity >= 0.95
    for point in (youden, sure):
        assert ((likely[truth] >= point.threshold).mean(), (likely[~truth] < point.threshold).mean()) == (point.sensitivity, point.specificity)


def test_cases_of_one_kind_choose_nothing():
    for choose in (temperature, operating_point):
        with pytest.raises(ValueError, match="both kinds"):
            choose([0.2, 0.8], [True, True])


# ------------------------------------------------------------------------------------------------- what is packaged, or not


def test_the_bundled_slot_says_that_it_is_empty(tmp_path):
    """Visible as such, and no job of it starts."""
    slot = load_model(Path(code("image_classifier").__file__).parent)
    assert [one.file for one in slot.missing_weights] == ["classifier.toml", "network.pt"]
    with pytest.raises(ModelFailed, match=r"folder does not hold its weights: classifier.toml, network.pt"):
        require_weights(slot)


def test_an_empty_slot_harms_no_check_until_a_rule_asks_for_it(tmp_path):
    """`dicom-node check` and `dicom-node models` say what is missing and where it comes from."""
    rule = '[[rules]]\nname = "all CT"\nwhen.Modality = "CT"\nanalyse = ["image-classifier"]\n'
    (tmp_path / "node.toml").write_text(f'[models.image-classifier]\nfolder = "models/image_classifier"\n{rule}')
    asked = load_site(tmp_path / "node.toml")
    for site, fine in ((load_site(), True), (asked, False)):
        row = next(row for row in _check_models(site) if row[0] == "model image-classifier")
        assert row == ("model image-classifier", fine, "weights missing: classifier.toml, network.pt", "The model's card says how a site makes them.")
    assert next(row for row in run("models", "--json").json if row["name"] == "image-classifier")["weights"] == "missing"


def test_the_verb_says_how_a_site_names_what_was_packaged(tmp_path):
    """And where it lies."""
    description, weights = write(tmp_path, tiny(), state_of(tiny()))
    said = run("package", str(description), str(weights), "-o", str(tmp_path / "made"))
    assert said.code == 0 and "[models.drawn-lesion]" in said.out and load_model(tmp_path / "made").missing_weights == ()


def tiny(**changed: Any) -> dict[str, Any]:
    """Return a description of a small network that has learnt nothing."""
    network = {"name": "DenseNet", "arguments": SMALL | {"block_config": [1]} | changed.pop("arguments", {}), "layer": "class_layers.relu"}
    return {**SAID, "network": network, **changed}


def state_of(said: Mapping[str, Any]) -> Any:
    return described(network=said["network"], labels=said["labels"]).network.build().state_dict()


def test_several_labels_have_probabilities_that_are_told_apart(tmp_path):
    """Each has a term of its own, an answer and a map; the folder is whole and is another build with other weights."""
    labels = [{"name": name, "concept": [name.upper(), "99SITE", name.title()]} for name in ("effusion", "nodule")]
    said = tiny(labels=labels, arguments={"out_channels": 2})
    model = package(*written(tmp_path, said, state_of(said)), tmp_path / "two")
    assert {one.concept.value for one in model.manifest.measurements.values()} == {"P_EFFUSION", "P_NODULE"}
    assert set(model.manifest.maps) == set(model.manifest.evaluations) == {"effusion", "nodule"}
    assert model.manifest.inputs["image"].units == "HU" and model.manifest.citations
    other = package(*written(tmp_path, said, state_of(said)), tmp_path / "other")
    assert other.build != model.build


def test_a_volume_without_contrast_or_a_single_image_is_declined(tmp_path):
    """In a sentence."""
    said = tiny()
    model = package(*written(tmp_path, said, state_of(said)), tmp_path / "one")
    analyse = code("image_classifier").load(model.folder, "cpu")
    with pytest.raises(Unsuitable, match="empty"):
        analyse(volume(np.full(SHAPE, -1000), AFFINE))
    with pytest.raises(Unsuitable, match="looks at volumes, and this is a single image"):
        analyse(volume(np.zeros((1, 40, 40)), AFFINE))


@pytest.mark.parametrize("kind", ["CR", "DX"])
def test_a_radiograph_is_classified_by_itself(kind, tmp_path):
    """A network of single images: a valid report and no map, for a radiograph names no frame of reference; dark or bright, the answer is one."""
    plane = SMALL | {"spatial_dims": 2, "block_config": [1]}
    network = {"name": "DenseNet", "arguments": plane, "layer": "class_layers.relu"}
    inputs = {"image": {"kind": "projection", "photometric": "MONOCHROME2", "Modality": kind}}
    said = {**SAID, "network": network, "image": {"size": [32, 32], "mean": 0.5, "sd": 0.25}, "inputs": inputs}
    model = package(*written(tmp_path, said, told_of(said).network.build().state_dict()), tmp_path / "made")
    likely = []
    for photometric, stored in (("MONOCHROME2", projections.wedge()), ("MONOCHROME1", 4095 - projections.wedge())):
        image = projections.image(kind, stored, PhotometricInterpretation=photometric)
        trial = try_model(model, phantoms.write([image], tmp_path / photometric), tmp_path / f"{photometric} out")
        assert trial.problems == () and [path.name for path in trial.objects] == ["1-sr.dcm"]
        likely.append(trial.findings.measurements["lesion"])
    assert likely[0] == pytest.approx(likely[1], abs=1e-4) and 0 < likely[0] < 1


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"labels": [{"name": "lesion"}]}, "label 'lesion' has no concept"),
        ({"labels": "lesion"}, "labels are no tables"),
        ({"inputs": {"ct": {"Modality": "CT"}}}, "a classifier has one input, .inputs.image., not ct"),
        ({"labels": [{"name": "Big Lesion", "concept": ["A", "99SITE", "A"]}]}, "String should match pattern"),
        ({"labels": [SAID["labels"][0], {"name": "other", "concept": ["B", "99SITE", "B"]}]}, "the network has outputs .1,. for 2 labels"),
        ({"image": {"size": [20, 40], "window": [0, 1]}}, "the network has 3 dimensions, the image's size 2"),
        ({"image": {"size": [20, 40, 40], "window": [1, 0]}}, "does not rise"),
        ({"network": {"name": "os", "layer": "x"}}, "'os' is no network"),
        ({"network": SAID["network"] | {"layer": "nowhere"}}, "has no layer 'nowhere'"),
        ({"network": SAID["network"] | {"arguments": SMALL | {"colour": 1}}}, "does not take these arguments"),
        ({"network": SAID["network"] | {"arguments": SMALL | {"growth_rate": 4}}}, "weights are not those of this network"),
        ({"inputs": {"image": {"Modalty": "CT"}}}, "'Modalty' is not a DICOM keyword"),
    ],
)
def test_what_cannot_run_is_not_packaged(changed, why, tmp_path):
    """One sentence, and no folder is left."""
    description, weights = write(tmp_path, tiny(**changed), state_of(tiny()))
    with pytest.raises(ConfigError, match=why):
        package(description_of(description), weights, tmp_path / "made")
    assert {path.name for path in tmp_path.iterdir()} == {"said.toml", "weights.pt"}


def test_the_description_on_the_card_can_be_packaged(tmp_path):
    """What is shown works."""
    card = (Path(code("image_classifier").__file__).parent / "README.md").read_text()
    said = tomllib.loads(card.split("```toml\n")[1].split("```")[0])
    state = told_of(said).network.build().state_dict()
    model = package(*written(tmp_path, said, state), tmp_path / "made")
    assert model.name == "ct-lesion" and model.manifest.not_for == tuple(said["not_for"])


class Evil:
    """What unpickling runs if it is let."""

    def __reduce__(self):
        return (print, ("ran",))


@pytest.mark.parametrize("weights", [Evil(), [1, 2]], ids=["code", "no state dictionary"])
def test_weights_that_are_no_tensors_are_refused_and_not_run(weights, tmp_path, capsys):
    """`weights_only`: a pickle may hold a program."""
    with pytest.raises(ConfigError, match="weights are not those"):
        package(*written(tmp_path, tiny(), weights), tmp_path / "made")
    assert "ran" not in capsys.readouterr().out


def test_a_model_in_use_is_not_written_over(tmp_path):
    (tmp_path / "made").mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        package(*written(tmp_path, tiny(), {}), tmp_path / "made")
