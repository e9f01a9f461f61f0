"""What results say of the order that their study was made for: what the images lack of it, and nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import Dataset

from dicom_node.config import Model
from dicom_node.report import check, encode
from tests import findings as made
from tests import phantoms
from tests.documents.objects import ORDER, runs
from tests.test_report import results

KINDS = ("SEG", "SR", "DER", "PM", "PR", "KO")


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return made.model(tmp_path / "model")


def bare(**more: object) -> list[Dataset]:
    """Return images that know of no order."""
    return phantoms.series(**({"AccessionNumber": None} | more))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_every_object_names_the_request_and_is_valid(kind: str, tmp_path: Path) -> None:
    """PS3.3 Table 10-9 in images and presentations, Table C.17-3 in documents."""
    dataset, without = (next(one.objects[kind] for one in runs() if one.changed == changed and kind in one.objects) for changed in ("LEDGER", ""))
    (item,) = dataset.ReferencedRequestSequence if kind in ("SR", "KO") else dataset.RequestAttributesSequence
    assert ("ReferencedRequestSequence" in dataset) is not ("RequestAttributesSequence" in dataset)
    assert (item.AccessionNumber, item.RequestedProcedureID, item.RequestedProcedureDescription) == ("A123", "RP1", "CT chest")
    assert (item.ReasonForTheRequestedProcedure, item.RequestedProcedureCodeSequence[0].CodeValue) == ("Cough", "CTCHEST")
    assert problems(dataset, tmp_path) == problems(without, tmp_path), "their images say more of the patient than is valid"


def problems(dataset: Dataset, folder: Path) -> tuple[str, ...]:
    (folder / "object").write_bytes(encode(dataset))
    return check(folder / "object")


def test_what_is_not_known_of_an_order_is_not_said(model: Model, tmp_path: Path) -> None:
    """Type 2 attributes are empty, others are left out."""
    little = replace(ORDER, requested_procedure_description="", requested_procedure_code=None, reason="", scheduled_procedure_step_id="")
    objects = results(model, bare(), order=replace(little, placer_order_number="", filler_order_number=""))
    (request,), (attributes,) = objects["SR"].ReferencedRequestSequence, objects["SEG"].RequestAttributesSequence
    assert (request.RequestedProcedureDescription, request.PlacerOrderNumberImagingServiceRequest) == (None, None)
    assert list(request.RequestedProcedureCodeSequence) == []
    assert {one.keyword for one in attributes} == {"AccessionNumber", "StudyInstanceUID", "RequestedProcedureID"}
    for kind, dataset in objects.items():
        assert problems(dataset, tmp_path) == (), kind


@pytest.mark.parametrize("kind", ["SEG", "SR"])
def test_an_accession_number_that_the_images_lack_is_the_orders(model: Model, kind: str) -> None:
    """The one that they have is theirs, and an order without one leaves it empty."""
    assert results(model, bare(), order=ORDER)[kind].AccessionNumber == "A123"
    assert not results(model, bare(), order=replace(ORDER, accession_number=""))[kind].AccessionNumber
    assert not results(model, bare())[kind].AccessionNumber
    assert results(model, order=replace(ORDER, accession_number=""))[kind].AccessionNumber == "A123"


@pytest.mark.parametrize("kind", ["SEG", "SR"])
def test_an_order_that_says_otherwise_than_the_images_is_not_used(model: Model, kind: str) -> None:
    """Neither its accession number nor anything else of it."""
    item = Dataset()
    item.RequestedProcedureID = "OTHER"
    for images, order in ((phantoms.series(), replace(ORDER, accession_number="A9")), (bare(RequestAttributesSequence=[item]), ORDER)):
        dataset = results(model, images, order=order)[kind]
        assert "ReferencedRequestSequence" not in dataset
        assert "RequestAttributesSequence" not in dataset
        assert dataset.get("AccessionNumber") == images[0].get("AccessionNumber")


def test_words_of_an_order_are_in_the_characters_of_the_images(model: Model) -> None:
    """The character set is the images'; an identifier is never spelled otherwise, and is left out."""
    order = replace(ORDER, requested_procedure_description="Röntgen", requested_procedure_id="RÖ1")
    (item,) = results(model, bare(SpecificCharacterSet="ISO_IR 100"), order=order)["SEG"].RequestAttributesSequence
    assert item.RequestedProcedureDescription == "Rontgen"
    assert "RequestedProcedureID" not in item
