"""What the tests of assemble share: series of phantoms put together, and the sentence that declines one."""

import pytest
from pydicom import Dataset

from dicom_node.assemble.volume import assemble
from dicom_node.config import Input
from dicom_node.domain import Unsuitable
from tests import phantoms

HU = Input(units="HU")
ANY = Input()


def put_together(images, folder, wanted=HU):
    return assemble(phantoms.write(images, folder), wanted)


def reason(images, folder, wanted=HU):
    with pytest.raises(Unsuitable) as caught:
        put_together(images, folder, wanted)
    assert caught.value.hint
    assert str(folder) not in str(caught.value)
    return str(caught.value)


def item(**attributes):
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def each(images, keyword, values):
    for image, value in zip(images, values, strict=True):
        setattr(image, keyword, value)
    return images
