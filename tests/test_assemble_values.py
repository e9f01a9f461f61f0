"""What stored values mean: Hounsfield units, real-world values, or a sentence that says why there are none (PS3.3 C.7.6.16.2.11, C.11.1)."""

import highdicom as hd
import numpy as np
import pytest

from tests import phantoms
from tests.assembling import ANY, HU, each, item, put_together, reason


def by_highdicom(images):
    """The values that highdicom makes of single-frame images, rounded once; presentation, which changes no meaning, left out."""
    return hd.get_volume_from_series(images, apply_presentation_lut=False).array.astype(np.float32)


def test_each_slice_is_rescaled_by_its_own_slope_exactly_as_highdicom_does(tmp_path):
    """As in PET, where every slice has another slope; rounded to float32 once."""
    images = each(phantoms.series(modality="MR"), "RescaleSlope", [0.1, 1.37, 2, 0.333333, 5.5, 1e-3, 7, 12.25])
    each(images, "RescaleIntercept", [0, -1.5, 0.1, 3, 7, 1e3, -1024, 0])
    assert np.array_equal(put_together(images, tmp_path, ANY).volume.array, by_highdicom(images))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"rescale": None}, "image 1 is CT without rescale slope and intercept: its values are not Hounsfield units"),
        ({"modality": "MR"}, "the images are MR, not CT: they hold no Hounsfield units"),
        ({"RescaleType": "MGML"}, "the values of image 1 are MGML, not Hounsfield units"),
        ({"RescaleType": "US", "ImageType": ["DERIVED", "PRIMARY", "AXIAL"]}, "the values of image 1 are of no stated unit, not Hounsfield units"),
        ({"RescaleType": "US", "MultienergyCTAcquisition": "YES"}, "the values of image 1 are of no stated unit, not Hounsfield units"),
        ({"RescaleSlope": 0}, "what the values of image 1 mean cannot be understood from its header"),
    ],
)
def test_hounsfield_units_are_refused_where_there_are_none(how, said, tmp_path):
    assert reason(phantoms.series(**how)[::-1], tmp_path).replace("image 8", "image 1") == said


@pytest.mark.parametrize("stated", ["HU", None, "US"])
def test_an_original_ct_image_is_in_hounsfield_units_whatever_rescale_type_leaves_unsaid(stated, tmp_path):
    """PS3.3 C.8.2.1.1: of an original, not multi-energy CT image the rescale leads to Hounsfield units."""
    assembled = put_together(phantoms.series(RescaleType=stated), tmp_path)
    assert "values are in HU" in assembled.notes
    assert assembled.volume.array.max() == 0


def test_a_real_world_value_mapping_goes_before_the_rescale_unless_hounsfield_units_are_asked_for(tmp_path):
    unit = item(CodeValue="mg/mL", CodingSchemeDesignator="UCUM", CodeMeaning="mg/mL")
    mapping = item(
        RealWorldValueFirstValueMapped=0,
        RealWorldValueLastValueMapped=1000,
        RealWorldValueSlope=0.25,
        RealWorldValueIntercept=3.0,
        LUTLabel="iodine",
        LUTExplanation="iodine",
        MeasurementUnitsCodeSequence=[unit],
    )
    images = phantoms.series(RealWorldValueMappingSequence=[mapping])
    assembled = put_together(images, tmp_path / "any", ANY)
    assert np.array_equal(assembled.volume.array[::-1], phantoms.marked() * 0.25 + 3)
    assert "values are in mg/mL" in assembled.notes
    assert "2 slices hold values that the real-world value mapping is not defined for" in assembled.notes
    assert put_together(images, tmp_path / "hu", HU).volume.array.max() == 0


def test_real_world_values_may_come_from_a_table(tmp_path):
    table = [float(value) ** 2 for value in range(1100)]
    mapping = item(RealWorldValueFirstValueMapped=0, RealWorldValueLastValueMapped=1099, RealWorldValueLUTData=table)
    images = phantoms.series(modality="MR", RealWorldValueMappingSequence=[mapping])
    assert np.array_equal(put_together(images, tmp_path, ANY).volume.array[::-1], (phantoms.marked() ** 2.0).astype(np.float32))


def test_a_modality_look_up_table_is_applied(tmp_path):
    lut = item(LUTDescriptor=[1100, 0, 16], ModalityLUTType="US", LUTData=(3 * np.arange(1100)).astype("<u2").tobytes())
    images = phantoms.series(modality="MR", rescale=None, ModalityLUTSequence=[lut])
    assert np.array_equal(put_together(images, tmp_path, ANY).volume.array[::-1], phantoms.marked() * 3.0)


def test_slices_of_different_units_make_no_volume(tmp_path):
    images = each(phantoms.series(modality="MR"), "RescaleType", ["US"] * 4 + ["PCT"] * 4)
    assert reason(images, tmp_path, ANY) == "slices state different units: PCT, none"


def test_images_without_rescale_keep_their_stored_values(tmp_path):
    assembled = put_together(phantoms.series(modality="MR", rescale=None), tmp_path, ANY)
    assert np.array_equal(assembled.volume.array[::-1], phantoms.marked())


def test_padding_inverted_display_loss_and_kernel_are_told_and_change_no_value(tmp_path):
    how = {"PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": -2000, "LossyImageCompression": "01", "ConvolutionKernel": ["I30f", "3"]}
    assembled = put_together(phantoms.series(**how), tmp_path)
    assert np.array_equal(assembled.volume.array, by_highdicom(phantoms.series()))
    told = "\n".join(assembled.notes)
    for word in ("-2000 are padding", "MONOCHROME1", "compressed with loss", "kernel I30f/3"):
        assert word in told
