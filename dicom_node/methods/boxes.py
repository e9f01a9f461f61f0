"""Boxes about what was found: their form, how overlapping ones are thinned out, and how well they agree with the truth.

A box is its lower and its upper corner in voxels, in the array's order of axes: (row, column, row, column), or with the slice before each.
Voxel n spans from n to n + 1, so that what fills voxels 3 to 5 reaches from 3 to 6.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.apps.detection.metrics.coco import COCOMetric
from monai.apps.detection.metrics.matching import matching_batch
from monai.data.box_utils import batched_nms, box_iou
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Boxes:
    """Boxes of one image (box, corner), what each is, and for detections how likely, from the likeliest on."""

    corners: Tensor
    labels: Tensor
    scores: Tensor

    def above(self, score: float) -> "Boxes":
        """Return the boxes with at least this score."""
        kept = self.scores >= score
        return Boxes(self.corners[kept], self.labels[kept], self.scores[kept])


def true_boxes(corners: Tensor, labels: Tensor | None = None) -> Boxes:
    """Return boxes that are known, all of class 0 if nothing else is said."""
    labels = torch.zeros(len(corners), dtype=torch.long, device=corners.device) if labels is None else labels
    return Boxes(corners, labels, torch.ones(len(corners), device=corners.device))


def thinned(boxes: Boxes, *, overlap: float, most: int) -> Boxes:
    """Return the likeliest boxes, at most so many, of which no two of a class have an intersection over union above `overlap`."""
    kept = batched_nms(boxes.corners, boxes.scores, boxes.labels, overlap, most)
    return Boxes(boxes.corners[kept], boxes.labels[kept], boxes.scores[kept])


@dataclass(frozen=True, slots=True)
class Agreement:
    """How detections agree with the truth: a box is found if one with its label has the wanted overlap with it."""

    average_precision: float  # area under precision against recall, over all scores, mean over the classes
    sensitivity: float  # at the score that was asked for
    false_per_image: float  # at that score


def agreement(found: Sequence[Boxes], true: Sequence[Boxes], *, score: float, overlap: float = 0.1) -> Agreement:
    """Compare the detections in some images with the truth; each true box counts for one detection, the likeliest.

    overlap: the intersection over union from which a detection is right. Small lesions are usually judged at 0.1: a voxel more on each side
    of a ball three voxels across leaves 0.2.
    """
    classes = sorted({int(label) for one in true for label in one.labels})
    coco = COCOMetric([str(n) for n in classes], iou_list=(overlap,), iou_range=(overlap, overlap, 1.0), max_detection=(100,), verbose=False)
    precision = coco(_matched(found, true, overlap))[0][f"AP_IoU_{overlap:.2f}_MaxDet_100"]
    chosen = _matched([one.above(score) for one in found], true, overlap)
    right = sum(int(of_class["dtMatches"][0].sum()) for image in chosen for of_class in image.values())
    given = sum(of_class["dtMatches"].shape[1] for image in chosen for of_class in image.values())
    wanted = sum(len(one.labels) for one in true)
    return Agreement(float(precision), right / max(wanted, 1), (given - right) / max(len(true), 1))


def _matched(found: Sequence[Boxes], true: Sequence[Boxes], overlap: float) -> list[dict[int, dict[str, np.ndarray]]]:
    plain = [[(one.corners.cpu().numpy(), one.labels.cpu().numpy(), one.scores.cpu().numpy()) for one in some] for some in (found, true)]
    (boxes, classes, scores), (true_corners, true_classes, _) = (list(zip(*some, strict=True)) for some in plain)
    return matching_batch(box_iou, (overlap,), boxes, classes, scores, true_corners, true_classes, max_detections=100)
