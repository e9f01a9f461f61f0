"""What a derived image keeps of its source's technique, by its class: what is said of how an image was acquired holds for what is made of it."""

from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    MRImageStorage,
)

# Radiographs and mammograms (PS3.3 A.2, A.26, A.27): images without a place, unsigned, of so many bits as their detector or their maker chose.
X_RAYS = tuple(
    map(
        str,
        (
            ComputedRadiographyImageStorage,
            DigitalXRayImageStorageForPresentation,
            DigitalXRayImageStorageForProcessing,
            DigitalMammographyXRayImageStorageForPresentation,
            DigitalMammographyXRayImageStorageForProcessing,
        ),
    )
)
# PS3.3 C.8.1.1 and 2, C.8.7.2, C.8.7.5, C.8.11.1 to 8, and of the sequences the anatomy, the view and the context.
_X_RAY = (
    *("ViewPosition", "PresentationIntentType", "PixelIntensityRelationship", "PixelIntensityRelationshipSign", "PixelAspectRatio"),
    *("ImagerPixelSpacing", "PixelSpacingCalibrationType", "PixelSpacingCalibrationDescription", "EstimatedRadiographicMagnificationFactor"),
    *("KVP", "DistanceSourceToDetector", "DistanceSourceToPatient", "ExposureTime", "XRayTubeCurrent", "Exposure", "ExposureInuAs", "Grid"),
    *("ExposureIndex", "TargetExposureIndex", "DeviationIndex", "Sensitivity", "RelativeXRayExposure", "FilterType", "FilterMaterial", "FocalSpots"),
    *("PlateType", "PhosphorType", "PlateID", "CassetteOrientation", "CassetteSize", "FieldOfViewShape", "FieldOfViewDimensions"),
    *("DetectorType", "DetectorConfiguration", "DetectorDescription", "DetectorID", "FieldOfViewOrigin", "FieldOfViewRotation"),
    *("FieldOfViewHorizontalFlip", "PositionerType", "PositionerPrimaryAngle", "PositionerSecondaryAngle", "ColumnAngulation"),
    *("OrganExposed", "AnodeTargetMaterial", "BodyPartThickness", "CompressionForce", "PartialView", "BreastImplantPresent"),
    *("AnatomicRegionSequence", "PrimaryAnatomicStructureSequence", "ViewCodeSequence", "AcquisitionContextSequence", "VOILUTSequence"),
)

# Copied where they are valid: how and when the source was acquired, which holds for what was made of it (PS3.3 C.7.6.1, C.7.6.4, C.8.2.1, C.8.3.1).
ACQUIRED = (
    "AcquisitionDate",
    "AcquisitionTime",
    "AcquisitionNumber",
    "ProtocolName",
    "BodyPartExamined",
    "PatientOrientation",
    "ImageLaterality",
    "ScanOptions",
    "ContrastBolusAgent",
    "ContrastBolusRoute",
    "ContrastBolusVolume",
)
TECHNIQUE = {
    str(CTImageStorage): (
        *("KVP", "DataCollectionDiameter", "ReconstructionDiameter", "DistanceSourceToDetector", "DistanceSourceToPatient", "GantryDetectorTilt"),
        *("TableHeight", "RotationDirection", "ExposureTime", "XRayTubeCurrent", "Exposure", "FilterType", "FocalSpots", "ConvolutionKernel"),
        *("RevolutionTime", "SingleCollimationWidth", "TotalCollimationWidth", "SpiralPitchFactor"),
    ),
    str(MRImageStorage): (
        *("ScanningSequence", "SequenceVariant", "MRAcquisitionType", "SequenceName", "AngioFlag", "RepetitionTime", "EchoTime", "InversionTime"),
        *("NumberOfAverages", "ImagingFrequency", "ImagedNucleus", "EchoNumbers", "MagneticFieldStrength", "NumberOfPhaseEncodingSteps"),
        *("EchoTrainLength", "PercentSampling", "PercentPhaseFieldOfView", "PixelBandwidth", "TriggerTime", "ReceiveCoilName"),
        *("AcquisitionMatrix", "InPlanePhaseEncodingDirection", "FlipAngle", "VariableFlipAngleFlag", "TemporalPositionIdentifier"),
        *("NumberOfTemporalPositions", "TemporalResolution"),
    ),
    **dict.fromkeys(X_RAYS, _X_RAY),
}
TYPE_2 = {
    str(CTImageStorage): ("PositionReferenceIndicator", "InstanceNumber", "SliceThickness", "AcquisitionNumber", "KVP"),
    str(MRImageStorage): (
        *("PositionReferenceIndicator", "InstanceNumber", "SliceThickness", "ScanOptions", "MRAcquisitionType", "EchoTime", "EchoTrainLength"),
    ),
    **dict.fromkeys(X_RAYS, ("InstanceNumber",)),
    str(ComputedRadiographyImageStorage): ("InstanceNumber", "BodyPartExamined", "ViewPosition"),
}
