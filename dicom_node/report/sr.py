"""Findings as a Comprehensive 3D SR (PS3.3 A.35.13) by template 1500, as displays and readers of results take it in."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    Comprehensive3DSR,
    ContainerContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    ImageContentItem,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    ReferencedSegment,
    RelationshipTypeValues,
    SourceImageForMeasurement,
    SourceImageForMeasurementGroup,
    SourceSeriesForSegmentation,
    TextContentItem,
    TrackingIdentifier,
    UIDRefContentItem,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom import Dataset
from pydicom.sr.codedict import Code as Term
from pydicom.sr.codedict import codes

from dicom_node.config import Code, Segment
from dicom_node.domain import Assembled, ModelFailed, Reference
from dicom_node.report.evidence import identified
from dicom_node.report.grid import images
from dicom_node.report.header import serial_number, settle
from dicom_node.report.outcome import Outcome, Reading
from dicom_node.report.run import Run
from dicom_node.report.seg import tracking_uid
from dicom_node.report.words import Words, rounded, spelled

_SR_CLASSES = "1.2.840.10008.5.1.4.1.1.88."
_QUALITATIVE_EVALUATIONS = Term("C0034375", "UMLS", "Qualitative Evaluations")
_LONGEST_DS = 16  # PS3.5 Table 6.2-1
_SOURCE = Term("260753009", "SCT", "Source")
_CONTAINS, _ACQUIRED = RelationshipTypeValues.CONTAINS, RelationshipTypeValues.HAS_ACQ_CONTEXT
_Group: TypeAlias = VolumetricROIMeasurementsAndQualitativeEvaluations | MeasurementsAndQualitativeEvaluations


class Report:
    """The parts of one report, which all speak of the same outcome, images and run."""

    def __init__(
        self,
        outcome: Outcome,
        inputs: Mapping[str, Assembled],
        run: Run,
        segmentation: Dataset | None,
        derived: Mapping[str, Sequence[Dataset]],
        beside: Sequence[Dataset] = (),
    ) -> None:
        self.outcome = outcome
        self.run = run
        self.manifest = run.model.manifest
        self.segmentation = segmentation
        self.derived = derived  # by the name of the image, each series with at least one
        self.beside = beside  # parametric maps, presentation states and key objects
        self.first = inputs[next(iter(self.manifest.inputs))].sources[0]
        regions = self.manifest.regions
        self.images = [image for name, assembled in inputs.items() if name != regions for image in images(assembled)]
        self.drawn = inputs[regions] if regions else None
        self.words = Words.of(self.first)

    def dataset(self) -> Comprehensive3DSR:
        """Return the whole object (PS3.3 C.17.2): unverified, preliminary, with every image and segmentation it refers to as evidence."""
        groups = self._groups()
        measured = MeasurementReport(
            observation_context=self._observer(),
            procedure_reported=self.words.concept(self.manifest.procedure),
            imaging_measurements=groups,
        )
        beside = {one.SOPInstanceUID: one for one in (self.segmentation, *(self.drawn.sources if self.drawn else ())) if one is not None}
        evidence = [identified(image) for image in (*self.images, *beside.values())]
        sr = Comprehensive3DSR(
            evidence=evidence,
            content=measured[0],
            series_instance_uid=self.run.uid("SR series"),
            series_number=1,
            sop_instance_uid=self.run.uid("SR"),
            instance_number=1,
            manufacturer=self.words.say(self.manifest.manufacturer, 64),
            is_complete=not self.outcome.missing,
            is_final=False,
            is_verified=False,
            previous_versions=[_predecessor(p) for p in self.run.predecessors if p.sop_class_uid.startswith(_SR_CLASSES)] or None,
        )
        self._complete(measured[0].ContentSequence, groups)
        if self.outcome.missing:
            sr.CompletionFlagDescription = self.words.say(f"Not produced: {', '.join(self.outcome.missing)}", 64)
        settle(sr, self.first, self.run, "SR")
        return sr

    def _complete(self, content: ContentSequence, groups: list[_Group]) -> None:
        """Add what highdicom would not take, or take long over: it copies and searches the whole tree, a second for 300 images."""
        content.insert(len(content) - 1, self._image_library())
        content.append(self._remarks())
        for group in groups:
            for item in group[0].ContentSequence:
                if "NumericValueQualifierCodeSequence" in item:
                    item.MeasuredValueSequence = []  # PS3.3 C.18.1: there is no value, and the qualifier says why
        made = [series[0].SeriesInstanceUID for series in self.derived.values()] + [one.SeriesInstanceUID for one in self.beside]
        for series_instance_uid, group in zip(made, groups[len(groups) - len(made) :], strict=True):
            uid = UIDRefContentItem(name=codes.DCM.SeriesInstanceUID, value=series_instance_uid, relationship_type=_CONTAINS)
            group[0].ContentSequence.append(uid)
        without_segment = [group for group in groups if isinstance(group, MeasurementsAndQualitativeEvaluations)]
        if without_segment:
            sources = [SourceImageForMeasurementGroup(image.SOPClassUID, image.SOPInstanceUID) for image in self.images]
            for group in without_segment:
                group[0].ContentSequence.extend(sources)

    # ----------------------------------------------------------------------------------------------------- who and on what

    def _observer(self) -> ObservationContext:
        """TID 1001-1004: the device; the person who may have started it is in the audit trail, not here."""
        device = DeviceObserverIdentifyingAttributes(
            uid=self.run.model.device_uid,
            name=self.manifest.name,
            manufacturer_name=self.words.say(self.manifest.manufacturer, 64),
            model_name=self.manifest.name,
            serial_number=serial_number(self.run),
            physical_location=self.words.say(self.run.station) or None,
        )
        return ObservationContext(
            observer_device_context=ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device),
        )

    def _image_library(self) -> ContainerContentItem:
        """TID 1600 with one group that holds every image: a viewer reads the first group only. What all images share stands once."""
        group = ContainerContentItem(name=codes.DCM.ImageLibraryGroup, relationship_type=_CONTAINS)
        group.ContentSequence = ContentSequence(self._shared())
        group.ContentSequence.extend(
            ImageContentItem(
                name=_SOURCE,
                referenced_sop_class_uid=image.SOPClassUID,
                referenced_sop_instance_uid=image.SOPInstanceUID,
                relationship_type=_CONTAINS,
            )
            for image in self.images
        )
        library = ContainerContentItem(name=codes.DCM.ImageLibrary, relationship_type=_CONTAINS)
        library.ContentSequence = ContentSequence([group])
        return library

    def _shared(self) -> list[CodeContentItem | UIDRefContentItem]:
        shared: list[CodeContentItem | UIDRefContentItem] = []
        modality = next((code for code in codes.cid29.concepts.values() if code.value == self.first.get("Modality")), None)
        if modality and len({image.get("Modality") for image in self.images}) == 1:
            shared.append(CodeContentItem(name=codes.DCM.Modality, value=modality, relationship_type=_ACQUIRED))
        frames = {image.get("FrameOfReferenceUID") for image in self.images}
        if len(frames) == 1 and None not in frames:
            shared.append(UIDRefContentItem(name=codes.DCM.FrameOfReferenceUID, value=frames.pop(), relationship_type=_ACQUIRED))
        return shared

    # --------------------------------------------------------------------------------------------------------------- what

    def _groups(self) -> list[_Group]:
        groups: list[_Group] = [self._found(segment, number) for number, segment in enumerate(self.outcome.present, start=1)]
        groups += [self._not_found(segment) for segment in self.outcome.absent]
        groups += [self._without_segment(site) for site in self._sites()]
        groups += [self._made(name) for name in self.derived]
        groups += [self._pointed(one) for one in self.beside]
        if not groups:
            raise ModelFailed(
                "the analysis returned nothing that its model.toml describes", hint="Return segments, measurements, evaluations or images."
            )
        return groups

    def _found(self, segment: Segment, number: int) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
        """TID 1411: a segment of the segmentation and what was measured on it."""
        if self.segmentation is None:
            raise ValueError("a segment with voxels needs its segmentation")
        series = SourceSeriesForSegmentation(self.first.SeriesInstanceUID)
        series.ConceptNameCodeSequence[0].CodeMeaning = "Source series for segmentation"  # as PS3.16 writes it
        reference = ReferencedSegment(
            sop_class_uid=self.segmentation.SOPClassUID,
            sop_instance_uid=self.segmentation.SOPInstanceUID,
            segment_number=self._number(segment, number),
            source_series=series,
        )
        return VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=reference,
            **self._group_of(segment),
        )

    def _number(self, segment: Segment, place: int) -> int:
        """Return a segment's number in the segmentation: a received one has its own, ours leaves none out."""
        if self.drawn is None or self.segmentation is not self.drawn.sources[0]:
            return place
        return self.drawn.regions[segment.number - 1].number

    def _tracked(self, segment: Segment) -> TrackingIdentifier:
        """Return what a segment is tracked by: as it was received, or of this run."""
        region = self.drawn.regions[segment.number - 1] if self.drawn else None
        if region is not None and region.tracking_uid:
            return self._tracking(region.tracking_id or segment.label, region.tracking_uid)
        return self._tracking(segment.label, tracking_uid(self.run, segment))

    def _group_of(self, segment: Segment) -> dict[str, Any]:
        """Say what a group about a segment says whether or not the segment was found."""
        site = self._site_of(segment)
        return {
            "tracking_identifier": self._tracked(segment),
            "finding_category": self.words.concept(segment.category),
            "finding_type": self.words.concept(segment.type),
            "finding_sites": [site],
            "algorithm_id": self._algorithm(),
            "measurements": [
                self._measurement(r, self._site_of(segment, r.meaning.site)) for r in self.outcome.readings if r.segment == segment.number
            ],
        }

    def _not_found(self, segment: Segment) -> MeasurementsAndQualitativeEvaluations:
        """TID 1501: a segment that was looked for and has no voxel: absent, in a code, with what was measured nevertheless."""
        return MeasurementsAndQualitativeEvaluations(
            **self._group_of(segment),
            qualitative_evaluations=[QualitativeEvaluation(codes.DCM.PresenceOfProperty, codes.SCT.Absent)],
        )

    def _sites(self) -> list[Code | None]:
        """Return the sites of measurements and evaluations that belong to no segment, in the manifest's order."""
        sites = [r.meaning.site for r in self.outcome.readings if r.segment is None]
        return list({_key(site): site for site in (*sites, *(evaluation.site for evaluation, _ in self.outcome.answers))}.values())

    def _without_segment(self, site: Code | None) -> MeasurementsAndQualitativeEvaluations:
        """TID 1501: measurements and answers that belong to one site, or to the images as a whole."""
        item = None if site is None else FindingSite(self.words.concept(site))
        name = self.manifest.name if site is None else f"{site.meaning}, {self.manifest.name}"
        return MeasurementsAndQualitativeEvaluations(
            tracking_identifier=self._tracking(name, self.run.uid("group", 1) if site is None else self.run.uid(f"group {_key(site)}")),
            finding_type=None if site is None else self.words.concept(site),
            finding_sites=None if item is None else [item],
            algorithm_id=self._algorithm(),
            measurements=[self._measurement(r, item) for r in self.outcome.readings if r.segment is None and _key(r.meaning.site) == _key(site)],
            qualitative_evaluations=[
                QualitativeEvaluation(self.words.concept(evaluation.concept), self.words.concept(answer))
                for evaluation, answer in self.outcome.answers
                if _key(evaluation.site) == _key(site)
            ],
        )

    def _made(self, name: str) -> MeasurementsAndQualitativeEvaluations:
        """TID 1501: a series of derived images, how it was derived and which one it is."""
        return MeasurementsAndQualitativeEvaluations(
            tracking_identifier=self._tracking(f"{name}, {self.manifest.name}", self.run.uid(f"image {name}")),
            algorithm_id=self._algorithm(),
            qualitative_evaluations=[
                QualitativeEvaluation(codes.DCM.Derivation, self.words.concept(code)) for code in self.manifest.images[name].derivation
            ],
        )

    def _pointed(self, one: Dataset) -> MeasurementsAndQualitativeEvaluations:
        """TID 1501: a parametric map, a presentation state or key objects, and in which series it is."""
        name = str(one.get("ContentLabel", "")) if one.Modality == "PR" else one.SeriesDescription
        identifier = self._tracking(f"{name}, {self.manifest.name}", self.run.uid(f"beside {one.SOPInstanceUID}"))
        return MeasurementsAndQualitativeEvaluations(tracking_identifier=identifier, algorithm_id=self._algorithm())

    def _measurement(self, reading: Reading, site: FindingSite | None) -> Measurement:
        """TID 300. Each number has at least one content item of its own: OHIF fails to load a report with a number that has none."""
        meaning, finite = reading.meaning, math.isfinite(reading.value)
        plain = meaning.derivation is None and meaning.method is None
        in_part = reading.segment is not None and meaning.site is not None
        measurement = Measurement(
            name=self.words.concept(meaning.concept),
            value=rounded(reading.value, meaning.digits) if finite else 0.0,
            unit=self.words.concept(meaning.unit),
            qualifier=None if finite else codes.DCM.NotANumber,
            derivation=self.words.concept(meaning.derivation) if meaning.derivation else None,
            method=self.words.concept(meaning.method) if meaning.method else None,
            finding_sites=[site] if site and (plain or in_part) else None,
            referenced_images=[SourceImageForMeasurement(self.first.SOPClassUID, self.first.SOPInstanceUID)] if plain and not site else None,
        )
        text = spelled(reading.value, meaning.digits)
        if finite and len(text) <= _LONGEST_DS:
            measurement[0].MeasuredValueSequence[0].NumericValue = text  # with the manifest's decimals, no more and no less
        return measurement

    def _remarks(self) -> ContainerContentItem:
        """The sentences for the reader, which template 1500 allows among the qualitative evaluations (row 14)."""
        manifest = self.manifest
        sentences = [f"{manifest.name} {manifest.version}, an algorithm: {manifest.task}", manifest.intended_use, *self.outcome.remarks]
        for name, series in self.derived.items():
            sentences.append(f"Made {len(series)} images, series '{series[0].SeriesDescription}': {manifest.images[name].description}.")
        sentences += [_said_of(one) for one in self.beside]
        if self.outcome.absent:
            sentences.append(f"Looked for and not found: {', '.join(segment.label for segment in self.outcome.absent)}.")
        if self.outcome.missing:
            sentences.append(f"Not produced: {', '.join(self.outcome.missing)}.")
        container = ContainerContentItem(name=_QUALITATIVE_EVALUATIONS, relationship_type=_CONTAINS)
        container.ContentSequence = ContentSequence(
            [TextContentItem(name=codes.DCM.Comment, value=self.words.say(text), relationship_type=_CONTAINS) for text in sentences if text.strip()]
        )
        return container

    # --------------------------------------------------------------------------------------------------------- small parts

    def _tracking(self, name: str, uid: str) -> TrackingIdentifier:
        return TrackingIdentifier(uid=uid, identifier=self.words.say(name, 64))

    def _algorithm(self) -> AlgorithmIdentification:
        """TID 4019, equal to the contributing equipment (IHE AIR Table 6.5.3.1-1)."""
        return AlgorithmIdentification(name=self.manifest.name, version=self.words.say(self.manifest.version, 64))

    def _site_of(self, segment: Segment, part: Code | None = None) -> FindingSite:
        """Return where a segment is, or a part of it, on the segment's side."""
        laterality = self.words.concept(segment.laterality) if segment.laterality else None
        return FindingSite(self.words.concept(part or segment.site or segment.type), laterality=laterality)


def _key(code: Code | None) -> str:
    return "" if code is None else f"{code.scheme} {code.value}"


def _said_of(made: Dataset) -> str:
    """Return a sentence on what was made beside segmentation and report, and where a person finds it."""
    kind = {"PR": "a presentation state", "KO": "a selection of key images"}.get(made.Modality, "a parametric map")
    label = f" '{made.ContentLabel}'" if made.Modality == "PR" else ""
    return f"Made {kind}{label}, series '{made.SeriesDescription}'."


def _predecessor(reference: Reference) -> Dataset:
    item = Dataset()
    item.SOPClassUID = reference.sop_class_uid
    item.SOPInstanceUID = reference.sop_instance_uid
    item.SeriesInstanceUID = reference.series_instance_uid
    item.StudyInstanceUID = reference.study_instance_uid
    return item
