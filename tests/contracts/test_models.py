"""Every folder in models/ is a model that a stranger can judge: it loads, its manifest is complete, its code imports only what it may."""

import ast
import sys
from pathlib import Path

import pytest

import dicom_node.methods
from dicom_node import __all__ as public
from dicom_node.config import bundled, load_model, load_site

FOLDERS = sorted(path for path in bundled("models").iterdir() if path.is_dir() and not path.name.startswith(("_", ".")))
LIBRARIES = {"dicom_node", "numpy", "scipy", "SimpleITK", "skimage", "sklearn", "torch", "monai"}
STANDARD = set(sys.stdlib_module_names) - {"socket", "subprocess", "urllib", "http", "ctypes", "importlib", "multiprocessing"}
METHODS = Path(dicom_node.methods.__file__).parent
CARD = ("research use", "## How", "## Limits", "## It declines", "pytest")  # what a model card has to say

every_model = pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)


def imported(path: Path) -> list[tuple[str, list[str]]]:
    """Return each module that a file imports from elsewhere, and the names it takes from it; what lies beside it is looked at by itself."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    whole = [(alias.name, []) for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return whole + [
        (node.module or "", [alias.name for alias in node.names]) for node in nodes if isinstance(node, ast.ImportFrom) and not node.level
    ]


def needs_torch(module: str) -> bool:
    """Say whether importing a module loads torch: by itself, or through a method that does."""
    root, _, method = module.partition("dicom_node.methods.")
    if not method:
        return root.partition(".")[0] in ("torch", "monai")
    source = METHODS.joinpath(*method.split(".")).with_suffix(".py")
    return source.is_file() and any(needs_torch(one) for one, _ in imported(source))


def test_there_are_models_and_the_default_configuration_names_each():
    """A bundled model that the default leaves out would never run unasked."""
    assert {load_model(folder).name for folder in FOLDERS} == set(load_site().models) != set()


@every_model
def test_folder_and_name_agree(folder):
    """`models/lung_ct` holds "lung-ct"."""
    assert load_model(folder).name == folder.name.replace("_", "-")


@every_model
def test_manifest_is_complete(folder):
    """Intended use and what it is not for, licence, citations, figures with the data and the command that measured them."""
    manifest = load_model(folder).manifest
    assert "not for diagnosis" in manifest.intended_use
    assert manifest.not_for and manifest.licence and manifest.citations
    assert manifest.performance
    for figure in manifest.performance:
        assert set(figure) == {"figure", "value", "data", "command"} and all(figure.values())


@every_model
def test_every_measurement_has_a_plausible_range_and_a_place(folder):
    """A number without limits cannot be doubted; one without segment or site cannot be found.

    Of what an image's values are when any image may be measured nobody knows the limits.
    """
    for name, measurement in load_model(folder).manifest.measurements.items():
        assert measurement.unit_of or (measurement.plausible is not None and measurement.plausible[0] < measurement.plausible[1]), name
        assert measurement.on or measurement.site or measurement.of, name


@every_model
def test_one_code_has_one_meaning(folder):
    """PS3.16 §8: a private code says everywhere the same."""
    measurements = load_model(folder).manifest.measurements.values()
    private = {(m.concept.value, m.concept.meaning) for m in measurements if m.concept.private}
    assert len({value for value, _ in private}) == len(private)
    assert all(m.concept.scheme == "99DICOMNODE" for m in measurements if m.concept.private)


@every_model
def test_segments_are_told_apart_by_colour(folder):
    """No two alike, none close to black."""
    colours = [segment.colour for segment in load_model(folder).manifest.segments]
    assert len(set(colours)) == len(colours) and all(max(colour) > 100 for colour in colours)


@every_model
def test_commands_of_the_figures_name_tests_that_exist(folder):
    """A figure that nobody can measure again is a rumour."""
    for figure in load_model(folder).manifest.performance:
        paths = [word for word in figure["command"].split() if word.startswith("tests/")]
        assert all((Path(__file__).parents[2] / path).is_file() for path in paths), figure["command"]


@every_model
def test_card_says_what_a_reader_must_know(folder):
    """How it works, what it was measured on, its limits, when it declines."""
    card = (folder / "README.md").read_text()
    assert [wanted for wanted in CARD if wanted.casefold() not in card.casefold()] == []


@every_model
def test_code_imports_only_what_a_model_may(folder):
    """The public names and the methods of dicom_node and the numerical libraries: no DICOM network, no data sets, no rooms, no way out."""
    for path in folder.rglob("*.py"):
        for module, names in imported(path):
            root = module.partition(".")[0]
            assert root in LIBRARIES | STANDARD, f"{path.name} imports {module}"
            if root == "dicom_node" and not module.startswith("dicom_node.methods."):
                assert module == "dicom_node" and names and set(names) <= set(public), f"{path.name} imports {names} from {module}"


@every_model
def test_torch_is_imported_where_it_is_declared(folder):
    """A model that needs no network must not make its process load torch."""
    uses = any(needs_torch(module) for path in folder.rglob("*.py") for module, _ in imported(path))
    assert uses == ("torch" in load_model(folder).manifest.resources.libraries)


@every_model
def test_weights_are_not_in_the_folder(folder):
    """They are fetched by hash; nobody else's weights are committed."""
    assert {path.suffix for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts} <= {".toml", ".py", ".md"}
