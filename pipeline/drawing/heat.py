"""A heat map over a face: what speaks for its label."""

import cv2
import numpy as np

from pipeline.readings import FaceReading

STEPS = 64  # pixels across the map before it is laid over the frame
OPACITY = 0.6  # where the map is greatest


def draw_heat(image: np.ndarray, face: FaceReading, factor: int, top: int) -> None:
    """Draw a face's heat on (H, W, 3) uint8 RGB, in place; nothing where the face has no explanation.

    factor, top: of the frame on the image, how much it is enlarged and where it begins.
    """
    heat = face.heat
    if heat is None or face.explanation is None:
        return
    corners = (np.array(face.explanation.corners, np.float32) + 0.5) * factor - 0.5 + [0, top]
    left, upper = np.floor(corners.min(axis=0)).astype(int).clip(0)
    right, lower = np.ceil(corners.max(axis=0)).astype(int) + 1
    part = image[upper:lower, left:right]
    if not part.size:
        return
    smooth = cv2.resize(np.array(heat, np.float32), (STEPS, STEPS), interpolation=cv2.INTER_LINEAR)
    edges = np.array([(-0.5, -0.5), (STEPS - 0.5, -0.5), (STEPS - 0.5, STEPS - 0.5)], np.float32)
    matrix = cv2.getAffineTransform(edges, (corners[:3] - [left, upper]).astype(np.float32))
    warmth = cv2.warpAffine(smooth, matrix, (part.shape[1], part.shape[0]), flags=cv2.INTER_LINEAR)
    colour = cv2.applyColorMap(np.rint(warmth * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    opacity = OPACITY * warmth[..., None]
    part[:] = np.rint(part * (1 - opacity) + colour * opacity).astype(np.uint8)
