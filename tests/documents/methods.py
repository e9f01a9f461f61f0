"""The methods of medical image analysis that the program has, and the tests that prove each: a row names both, or says that it is open."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.documents.text import table

_ROOT = Path(__file__).parents[2]
_MODELS_PROOF = "tests/models_proof"


@dataclass(frozen=True, slots=True)
class Method:
    """One method. analyses: folders of `models/`, or the package's files that have it. proofs: "file: beginning of a test's name"."""

    number: str
    name: str
    analyses: tuple[str, ...] = ()
    proofs: tuple[str, ...] = ()
    note: str = ""


METHODS = (
    Method(
        "F001",
        "analysing images to measure, compare and follow",
        ("models/lung_ct", "models/measure"),
        ("tests/walks/test_walk.py: test_a_study_sent",),
    ),
    Method(
        "F002",
        "modalities: CT, MR and their enhanced forms as volumes; radiographs, ultrasound and other single images",
        ("dicom_node/assemble",),
        ("tests/test_assemble.py: test_", "tests/test_projections.py: test_"),
        "images of many frames without a place (ultrasound and angiography runs) are stored and routed, not analysed",
    ),
    Method(
        "F003",
        "more dimensions: time, echo, diffusion, energy",
        ("dicom_node/assemble/stack.py",),
        (
            "tests/test_assemble.py: test_of_several_phases",
            "tests/test_assemble.py: test_phases_told_apart",
            "tests/test_assemble.py: test_of_an_enhanced_image_with_two",
        ),
        "a series is parted by time, echo, b-value or tube voltage and the first complete part is analysed; dose reports are kept, not read",
    ),
    Method(
        "F004",
        "large amounts: on disk, in patches, in a queue",
        ("dicom_node/store", "dicom_node/schedule.py"),
        ("tests/walks/test_store_path.py: test_",),
    ),
    Method("F005", "images, waveforms and video are kept as they come", ("dicom_node/receive",), ("tests/test_receive.py: test_",)),
    Method(
        "F006",
        "several time points of one patient",
        ("dicom_node/query",),
        ("tests/test_priors.py: test_",),
        "earlier studies are found, fetched and given to a model as an input; no bundled model compares them yet",
    ),
    Method(
        "F007",
        "features, then a decision",
        ("models/radiomics", "dicom_node/learn", "models/lung_nodules"),
        (
            f"{_MODELS_PROOF}/test_radiomics.py: test_texture_of_the_phantom",
            "tests/test_learn.py: test_a_new_patient",
            f"{_MODELS_PROOF}/test_lung_nodules.py: test_free_nodules",
        ),
    ),
    Method("F008", "features that a network learns", ("models/brain_mr",), (f"{_MODELS_PROOF}/test_brain_mr.py: test_",)),
    Method(
        "F009",
        "processing, analysis, recognition, generation",
        (
            "dicom_node/analyse",
            "dicom_node/report",
        ),
        ("tests/test_analyse.py: test_",),
        "one interface for all; generation is not there yet",
    ),
    Method(
        "F010",
        "before and after the analysis itself",
        (
            "models/lung_ct",
            "models/brain_mr",
        ),
        (
            f"{_MODELS_PROOF}/test_lung_ct.py: test_",
            f"{_MODELS_PROOF}/test_brain_mr.py: test_",
        ),
    ),
    Method(
        "F011",
        "contrast: window, gamma, equalisation",
        ("dicom_node/methods/windows.py", "models/smart_windows", "models/contrast_window", "models/enhance"),
        (
            f"{_MODELS_PROOF}/test_smart_windows.py: test_",
            f"{_MODELS_PROOF}/test_enhance.py: test_equalisation",
        ),
        "windows as presentation states, and limited equalisation; gamma is the viewer's",
    ),
    Method(
        "F012", "sharpening: unsharp mask, Laplacian", ("models/enhance",), (f"{_MODELS_PROOF}/test_enhance.py: test_a_blurred_edge",), "unsharp mask"
    ),
    Method("F013", "smoothing: Gaussian, mean, median", ("models/denoise",), (f"{_MODELS_PROOF}/test_denoise.py: test_each_method",)),
    Method(
        "F014",
        "adaptive enhancement: limited equalisation by tiles",
        ("models/enhance",),
        (
            f"{_MODELS_PROOF}/test_enhance.py: test_equalisation",
            f"{_MODELS_PROOF}/test_enhance.py: test_an_edge_in_noise",
        ),
    ),
    Method("F015", "a blend of the image and its background", ("models/enhance",), (f"{_MODELS_PROOF}/test_enhance.py: test_a_factor_of_one",)),
    Method(
        "F016",
        "grey from colour",
        ("dicom_node/assemble/projection.py",),
        (
            "tests/test_projections.py: test_colour_becomes",
            "tests/test_projections.py: test_a_palette",
            "tests/test_projections.py: test_every_way_to_store_colour",
        ),
        "of 8 bits",
    ),
    Method("F017", "erosion", ("dicom_node/methods/morphology.py",), ("tests/test_methods_morphology.py: test_erosion",)),
    Method("F018", "dilation, opening, closing", ("dicom_node/methods/morphology.py",), ("tests/test_methods_morphology.py: test_closing",)),
    Method("F019", "noise by averaging neighbours", ("models/denoise",), (f"{_MODELS_PROOF}/test_denoise.py: test_the_mean_of_nine",)),
    Method(
        "F020",
        "denoising: median, total variation, wavelets, non-local means, diffusion",
        ("models/denoise",),
        (f"{_MODELS_PROOF}/test_denoise.py: test_each_method",),
    ),
    Method("F021", "steps in a chain, recorded", ("dicom_node/work",), ("tests/walks/test_walk.py: test_a_study_sent",)),
    Method("F022", "standardising features", ("dicom_node/methods/tabular.py",), (f"{_MODELS_PROOF}/test_tabular.py: test_the_scaler",)),
    Method(
        "F023",
        "thresholds and region growing",
        (
            "dicom_node/methods/lungs.py",
            "models/lung_ct",
            "models/body_composition",
            "models/calcium_score",
            "models/head_hyperdensity",
        ),
        (
            "tests/test_methods_lungs.py: test_",
            f"{_MODELS_PROOF}/test_lung_ct.py: test_",
            f"{_MODELS_PROOF}/test_body_composition.py: test_a_drawn_torso",
            f"{_MODELS_PROOF}/test_calcium_score.py: test_rods",
            f"{_MODELS_PROOF}/test_head_hyperdensity.py: test_two_lesions",
        ),
    ),
    Method(
        "F024",
        "edges, watershed, contours that evolve",
        ("models/lung_nodules",),
        (f"{_MODELS_PROOF}/test_lung_nodules.py: test_volumes_of_nodules",),
        "watershed of the gradient; contours that evolve are open",
    ),
    Method(
        "F025",
        "texture",
        ("models/lung_texture", "models/radiomics"),
        (
            f"{_MODELS_PROOF}/test_lung_texture.py: test_textures_of_equal_mean",
            f"{_MODELS_PROOF}/test_radiomics.py: test_texture_of_the_phantom",
        ),
    ),
    Method("F026", "segmentation by a network", ("models/brain_mr",), (f"{_MODELS_PROOF}/test_brain_mr.py: test_",)),
    Method(
        "F027",
        "U-Net",
        ("models/brain_mr", "dicom_node/methods/training.py"),
        (f"{_MODELS_PROOF}/test_brain_mr.py: test_", f"{_MODELS_PROOF}/test_networks.py: test_a_u_net"),
        "deepbet's on T1; MONAI's is taught here on drawn lesions among look-alikes: Dice 0.805, a threshold 0.202",
    ),
    Method(
        "F028",
        "fully convolutional network",
        ("dicom_node/methods/networks.py",),
        (f"{_MODELS_PROOF}/test_networks.py: test_a_fully_convolutional_network",),
        "FCN-8s, taught on the same: Dice 0.689; no analysis of patients has it",
    ),
    Method("F029", "one class for each voxel", ("dicom_node/report/seg.py",), ("tests/test_report.py: test_",)),
    Method(
        "F030",
        "recognition by features",
        ("models/lung_texture", "models/head_hyperdensity", "dicom_node/learn"),
        (
            f"{_MODELS_PROOF}/test_lung_texture.py: test_a_drawn_texture",
            f"{_MODELS_PROOF}/test_head_hyperdensity.py: test_a_head_without_lesion",
            "tests/test_learn.py: test_a_new_patient",
        ),
        "of the lung's texture by Bayes' rule, learned from drawings; in the head by density; a classifier of regions is trained by the site",
    ),
    Method(
        "F031",
        "recognition by a network",
        ("models/image_classifier",),
        (f"{_MODELS_PROOF}/test_image_classifier.py: test_a_network_taught_here",),
        "a slot: the site supplies the network; one that is taught on drawn volumes has an AUC of 0.896",
    ),
    Method(
        "F032",
        "what a candidate is, by Bayes' rule",
        ("models/lung_nodules",),
        (
            f"{_MODELS_PROOF}/test_lung_nodules.py: test_the_probability_is_bayes_rule",
            f"{_MODELS_PROOF}/test_lung_nodules.py: test_the_nodule_that_four_experts",
        ),
        "learnt from simulated chests, not from patients",
    ),
    Method(
        "F033",
        "what a series shows, by Bayes' rule",
        ("dicom_node/methods/recognition.py", "dicom_node/assemble/recognition.py", "dicom_node/assemble/looking.py", "models/recognise"),
        (
            "tests/test_recognition.py: test_a_header_of_a_maker",
            "tests/test_looking.py: test_real_ct",
            "tests/properties/test_recognition_laws.py: test_",
        ),
        "likelihoods of words, times and anatomy; no network learns them",
    ),
    Method(
        "F034",
        "detection by features",
        (
            "models/head_hyperdensity",
            "models/calcium_score",
            "models/lung_nodules",
        ),
        (
            f"{_MODELS_PROOF}/test_head_hyperdensity.py: test_two_lesions",
            f"{_MODELS_PROOF}/test_calcium_score.py: test_rods",
            f"{_MODELS_PROOF}/test_lung_nodules.py: test_nodules_of_a_simulated_chest",
        ),
        "by density and size; blobs at seven scales",
    ),
    Method(
        "F035",
        "tumours",
        ("models/lung_nodules",),
        (f"{_MODELS_PROOF}/test_lung_nodules.py: test_the_nodule_that_four_experts",),
        "candidates for lung nodules; proved on one patient",
    ),
    Method(
        "F036",
        "fibrosis and gliosis",
        ("models/lung_texture", "models/white_matter_lesions"),
        (
            f"{_MODELS_PROOF}/test_lung_texture.py: test_a_drawn_texture",
            f"{_MODELS_PROOF}/test_white_matter_lesions.py: test_",
            f"{_MODELS_PROOF}/test_white_matter_lesions_in_heads.py: test_",
        ),
        "a net of lines in the lung, white matter lesions on FLAIR; drawn or planted ones alone, and what causes them is not told",
    ),
    Method(
        "F037",
        "detection by a network",
        ("dicom_node/methods/anchors.py", "dicom_node/methods/centres.py"),
        (f"{_MODELS_PROOF}/test_networks.py: test_a_detector",),
        "taught on drawn lesions; no analysis of patients has them",
    ),
    Method(
        "F038",
        "one-stage detection without anchors",
        ("dicom_node/methods/centres.py",),
        (f"{_MODELS_PROOF}/test_networks.py: test_a_detector_without_anchors", f"{_MODELS_PROOF}/test_networks.py: test_middles"),
        "middles and sizes, in the place of YOLO: average precision 0.891 on drawn lesions",
    ),
    Method(
        "F039",
        "one-stage detection with anchors",
        ("dicom_node/methods/anchors.py",),
        (f"{_MODELS_PROOF}/test_networks.py: test_a_detector_with_anchors", f"{_MODELS_PROOF}/test_networks.py: test_anchors"),
        "SSD on a pyramid: average precision 0.855 on drawn lesions",
    ),
    Method(
        "F040",
        "classification by features",
        ("dicom_node/methods/tabular.py", "dicom_node/methods/feature_classifier.py"),
        (f"{_MODELS_PROOF}/test_tabular.py: test_probabilities_are", "tests/test_learn.py: test_a_classifier_is_judged"),
        "logistic regression, naive Bayes, a small network; calibrated",
    ),
    Method(
        "F041",
        "classification by a network",
        ("models/image_classifier", "dicom_node/methods/classification.py"),
        (f"{_MODELS_PROOF}/test_image_classifier.py: test_a_packaged_classifier",),
        "a slot: the site supplies the network",
    ),
    Method(
        "F042",
        "normal or not, at an operating point",
        ("models/image_classifier", "dicom_node/methods/calibration.py"),
        (f"{_MODELS_PROOF}/test_image_classifier.py: test_the_operating_point", f"{_MODELS_PROOF}/test_image_classifier.py: test_a_temperature"),
        "a slot: the site supplies the network",
    ),
    Method(
        "F043",
        "Bayes' rule: for each voxel, and for a row of features",
        ("models/brain_tissue", "dicom_node/methods/tabular.py"),
        (
            f"{_MODELS_PROOF}/test_tabular.py: test_probabilities_are",
            f"{_MODELS_PROOF}/test_brain_tissue.py: test_an_oblique",
            f"{_MODELS_PROOF}/test_brain_tissue.py: test_mni152",
        ),
    ),
    Method(
        "F058",
        "mean, minimum, maximum of a region",
        (
            "models/measure",
            "models/radiomics",
        ),
        (
            f"{_MODELS_PROOF}/test_measure.py: test_values_are",
            f"{_MODELS_PROOF}/test_radiomics.py: test_the_phantom",
        ),
    ),
    Method(
        "F059",
        "median, standard deviation, percentiles",
        (
            "models/measure",
            "models/radiomics",
        ),
        (
            f"{_MODELS_PROOF}/test_measure.py: test_values_are",
            f"{_MODELS_PROOF}/test_radiomics.py: test_the_phantom",
        ),
    ),
    Method(
        "F060",
        "analysis by what a network has learnt",
        ("models/image_classifier",),
        (f"{_MODELS_PROOF}/test_image_classifier.py: test_what_speaks_for_a_lesion",),
        "what speaks for an answer (Grad-CAM); nearest cases are open",
    ),
    Method(
        "F061",
        "features by filters",
        ("models/radiomics", "models/radiomics_mr"),
        (
            f"{_MODELS_PROOF}/test_filters.py: test_the_laplacian",
            f"{_MODELS_PROOF}/test_filters.py: test_the_mean_filter",
            f"{_MODELS_PROOF}/test_filters.py: test_the_gabor_filter",
            f"{_MODELS_PROOF}/test_filters.py: test_the_energy_of_laws",
        ),
        "mean, Laplacian of Gaussian, Gabor, Laws",
    ),
    Method(
        "F062",
        "matching by weighted correlation",
        ("dicom_node/methods/matching.py",),
        ("tests/test_methods_matching.py: test_",),
        "a method that an analysis may stand on; none does yet",
    ),
    Method("F063", "classes of images, by features of their regions", ("dicom_node/learn",), ("tests/test_learn.py: test_a_study_walks",)),
    Method(
        "F067",
        "tables: read, and written from what was measured",
        ("dicom_node/export",),
        ("tests/test_export.py: test_every_number", "tests/test_export.py: test_nobody_is_named"),
    ),
    Method("F068", "training and test apart, by patient", ("dicom_node/methods/tabular.py",), (f"{_MODELS_PROOF}/test_tabular.py: test_no_patient",)),
    Method("F069", "scaled by the training data alone", ("dicom_node/methods/tabular.py",), (f"{_MODELS_PROOF}/test_tabular.py: test_the_scaler",)),
    Method(
        "F070",
        "a network of 64, 32 and 1 neurons",
        ("dicom_node/methods/tabular.py",),
        (f"{_MODELS_PROOF}/test_tabular.py: test_the_breast_cancer",),
    ),
    Method(
        "F078",
        "an operating point, chosen on held-out patients",
        ("dicom_node/methods/tabular.py",),
        (f"{_MODELS_PROOF}/test_tabular.py: test_the_operating_point",),
    ),
    Method(
        "F082",
        "accuracy, recall, precision, F1, confusion matrix (to F086)",
        ("dicom_node/methods/tabular.py",),
        (f"{_MODELS_PROOF}/test_tabular.py: test_the_figures_are",),
    ),
)


def methods() -> str:
    """Return the table; a folder or a test that is not there is an error."""
    rows = [(one.number, one.name, _analyses(one), _proofs(one), one.note or ("" if one.analyses else "open")) for one in METHODS]
    done = sum(bool(one.analyses) for one in METHODS)
    return f"{done} of {len(METHODS)} have an analysis.\n\n" + table(("#", "method", "where", "proved by", "note"), rows)


def _analyses(one: Method) -> str:
    for place in one.analyses:
        if not (_ROOT / place).exists():
            raise FileNotFoundError(f"{one.number} names {place}, which is not there")
    return ", ".join(f"[{place}](../{place})" for place in one.analyses)


def _proofs(one: Method) -> str:
    if bool(one.proofs) is not bool(one.analyses):
        raise ValueError(f"{one.number} names an analysis without a proof, or a proof without an analysis")
    return ", ".join(dict.fromkeys(_proof(one.number, *proof.split(": ")) for proof in one.proofs))


def _proof(number: str, file: str, beginning: str) -> str:
    found = [name for name in _tests(_ROOT / file) if name.startswith(beginning)]
    if not found:
        raise LookupError(f"{number} names a test '{beginning}' of {file}, which is not there")
    what = f"{len(found)} tests" if len(found) > 1 else f"`{found[0]}`"
    return f"[{file}](../{file}): {what}"


@cache
def _tests(path: Path) -> tuple[str, ...]:
    return tuple(_functions(ast.parse(path.read_text())))


def _functions(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node.name
