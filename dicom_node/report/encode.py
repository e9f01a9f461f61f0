"""A data set as the bytes of a DICOM file (PS3.10 §7)."""

from io import BytesIO

from pydicom import Dataset


def encode(dataset: Dataset) -> bytes:
    """Return a whole DICOM file: preamble, File Meta Information, data set in Explicit VR Little Endian."""
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()
