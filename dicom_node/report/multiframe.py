"""What segmentations and parametric maps have alike: multi-frame objects that highdicom builds over one plane, and whose frames are put in after."""

from pydicom import Dataset
from pydicom.uid import CTImageStorage
from pydicom.valuerep import format_number_as_ds

from dicom_node.domain import Assembled
from dicom_node.report.evidence import nobody
from dicom_node.report.frames import referenced_series, source_images, spacing_mm
from dicom_node.report.grid import Plane
from dicom_node.report.header import is_sound


def standin(plane: Plane, assembled: Assembled, columns: int) -> Dataset:
    """Return a plain CT image of one row that holds the geometry of a plane and nothing of the patient.

    Single-frame, multi-frame and unknown classes then take one road, and what is odd or missing in a header cannot stop the building.
    One orientation for all: images of one series may differ in its last decimals.
    """
    source = assembled.sources[0]
    image = nobody()
    image.SOPClassUID, image.SOPInstanceUID, image.Modality = CTImageStorage, plane.sop_instance_uid, "CT"
    image.StudyInstanceUID, image.SeriesInstanceUID = source.StudyInstanceUID, source.SeriesInstanceUID
    image.FrameOfReferenceUID = source.FrameOfReferenceUID
    image.PositionReferenceIndicator = source.PositionReferenceIndicator if is_sound(source, "PositionReferenceIndicator") else None
    image.Rows, image.Columns = 1, columns
    image.LossyImageCompression = source.get("LossyImageCompression") or "00"
    image.ImageOrientationPatient = list(plane.orientation)
    image.ImagePositionPatient = list(plane.position_mm)
    image.PixelSpacing = list(plane.spacing_mm)
    image.SliceThickness = plane.thickness_mm or float(assembled.volume.spacing[0])
    return image


def space(measures: Dataset, shown: list[Plane]) -> None:
    """State the distance between slices over all images, also those without a frame: receivers lay out the volume by it."""
    spacing = spacing_mm(shown)
    if spacing is None:
        del measures.SpacingBetweenSlices
    else:
        measures.SpacingBetweenSlices = format_number_as_ds(spacing)


def name_sources(built: Dataset, shown: list[Plane], series_instance_uid: str) -> None:
    """Name every image once for the series (PS3.3 C.7.6.1, C.12.2)."""
    for element in (source_images(shown), referenced_series(shown, series_instance_uid)):
        built[element.tag] = element


def name_dimensions(built: Dataset, uid: str) -> None:
    """Give the dimensions of an object their UID (PS3.3 C.7.6.17), which highdicom would roll."""
    for item in (*built.DimensionOrganizationSequence, *built.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid
