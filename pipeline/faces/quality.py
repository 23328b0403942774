"""What about a face makes its reading worth less: that it is tiny, turned, or cut by the frame."""

import numpy as np

from pipeline.faces.boxes import sides
from pipeline.faces.detector import Detections

# Measured on the 3,004 faces of FER2013's PublicTest that MTCNN finds, read by FaceEmotionNet:
# shrunk until the box's longer side is 29 pixels, 29% of the faces get another label, and 58% a right one, not 67%.
TINY = 30  # pixels
# Past it, the outer 5% of the faces, 50% of the labels are right. With a nose that stands out by 0.55 of the distance
# between the eyes, it is a head turned by about 32 degrees.
TURNED = 0.35  # of the distance between the eyes
ROLLED = 30  # degrees: alignment turns faces upright, but only 1% of those that the net has seen were further over


def assess_quality(detections: Detections, shape: tuple[int, ...]) -> list[tuple[str, ...]]:
    """What makes the reading of each face in an image of this shape, (H, W[, C]), worth less, in this order.

    `tiny`: the box's longer side is under TINY pixels. `turned`: the nose is further than TURNED from the midpoint of
    the eyes, along the line through them and in units of their distance, or that line leans by more than ROLLED
    degrees; never without landmarks. `edge`: the box ends at the frame's edge, so that some of the face may lie
    outside. A box that is the whole frame, as of an image that is taken for a face, ends nowhere.
    """
    height, width = shape[:2]
    boxes, landmarks = detections.boxes, detections.landmarks
    edges = np.concatenate([boxes[:, :2] <= 0, boxes[:, 2:] >= (width - 1, height - 1)], axis=1)
    left_eye, right_eye, nose = landmarks[:, 0], landmarks[:, 1], landmarks[:, 2]
    across = right_eye - left_eye
    ahead = nose - (left_eye + right_eye) / 2
    # Products instead of quotients: eyes that coincide count as turned, and NaN compares as false.
    offset, distance = np.abs((ahead * across).sum(axis=1)), (across**2).sum(axis=1)
    leaning = np.abs(np.degrees(np.arctan2(across[:, 1], across[:, 0]))) > ROLLED
    holds = {
        "tiny": sides(boxes).max(axis=1, initial=0) < TINY,
        "turned": (offset > TURNED * distance) | (distance == 0) | leaning,
        "edge": edges.any(axis=1) & ~edges.all(axis=1),
    }
    return [tuple(name for name, faces in holds.items() if faces[index]) for index in range(len(detections))]
