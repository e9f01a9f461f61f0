"""What the bundled models get right on real images, in figures; the model cards quote these tests."""

import importlib.util
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from highdicom import Volume

from dicom_node.analyse import fetch_weights
from dicom_node.analyse.contract import settle
from dicom_node.config import Model, bundled, load_model
from dicom_node.domain import Findings, Transient
from dicom_node.simulate.samples import nifti
from tests.peers import missing


@cache
def model(folder: str) -> Model:
    """Return a bundled model."""
    return load_model(bundled("models") / folder)


@cache
def code(folder: str) -> Any:
    """Return a bundled model's `analysis.py`, imported as a package, so that it finds the files beside it."""
    home, name = model(folder).folder, f"proof_{folder}"
    spec = importlib.util.spec_from_file_location(name, home / "analysis.py", submodule_search_locations=[str(home)])
    assert spec and spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fetched(folder: str) -> Path:
    """Return the folder of a model's weights, or skip this test where they cannot be had."""
    try:
        fetch_weights(model(folder))
    except Transient as error:
        missing(str(error))
    return model(folder).weights_folder


def published(name: str) -> Path:
    """Return the file of a published image by name, or skip this test where it cannot be had."""
    try:
        return nifti(name)
    except Transient as error:
        return Path(missing(str(error)))


def sample(name: str) -> Volume:
    """Return a published NIfTI image by name, or skip this test where it cannot be had."""
    return read(published(name))


def read(path: Path) -> Volume:
    """Return a NIfTI file as a volume in patient coordinates (LPS), float32."""
    return Volume.from_simpleitk(sitk.Cast(sitk.ReadImage(str(path)), sitk.sitkFloat32), coordinate_system="PATIENT")


def volume(array: Any, affine: Any) -> Volume:
    """Return an array as a contiguous float32 volume, as an analysis gets it."""
    return Volume(np.ascontiguousarray(array, np.float32), affine, coordinate_system="PATIENT")


def scanned(image: Volume, orientation: str) -> Volume:
    """Return the same image as if it had been scanned in another orientation: the bytes in another order, the patient where he was."""
    turned = image.to_patient_orientation(orientation)
    return volume(turned.array, turned.affine)


def settled(folder: str, findings: Findings, image: Volume) -> Findings:
    """Return findings as the contract leaves them: on the input's grid, every name and number checked."""
    return settle(findings, model(folder).manifest, {next(iter(model(folder).manifest.inputs)): image})


def dice(one: Any, other: Any) -> float:
    """Return how far two masks agree: twice the overlap over the sum."""
    return float(2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other)))
