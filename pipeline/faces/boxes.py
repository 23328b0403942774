"""Arithmetic of boxes: (..., 4) left, top, right, bottom in pixels, whose first and last pixels both belong to them."""

import numpy as np

MAX_PAIRS = 1 << 20  # of boxes that nms() compares at a time, which bounds its memory


def centres(boxes: np.ndarray) -> np.ndarray:
    """x and y of the middles of boxes (..., 4): (..., 2)."""
    return np.asarray((boxes[..., :2] + boxes[..., 2:]) / 2)


def sides(boxes: np.ndarray) -> np.ndarray:
    """Widths and heights of boxes (..., 4), both borders counted: (..., 2)."""
    return np.asarray(boxes[..., 2:] - boxes[..., :2] + 1)


def clip(boxes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The parts of boxes (..., 4) that lie in an image of this shape, (H, W[, C])."""
    return boxes.clip(0, [shape[1] - 1, shape[0] - 1] * 2)


def square(boxes: np.ndarray) -> np.ndarray:
    """Widen boxes (n, 4) to squares about their centres."""
    half = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
    return np.concatenate([centres(boxes) - half, centres(boxes) + half], axis=1)


def adjust(boxes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Move each side of boxes (n, 4) by a net's offsets (n, 4), which are relative to the box's size."""
    return np.asarray(boxes + offsets * np.tile(sides(boxes), 2))


def iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of every box (n, 4) with every other (m, 4): (n, m)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = (high - low).clip(0).prod(axis=2)
    area, other = ((array[:, 2:] - array[:, :2]).prod(axis=1) for array in (boxes, others))
    return np.asarray(shared / np.maximum(area[:, None] + other - shared, np.finfo(np.float64).tiny))


def nms(
    group: np.ndarray, boxes: np.ndarray, scores: np.ndarray, overlap: float, *, of_smaller: bool = False
) -> np.ndarray:
    """Non-maximum suppression within groups: indices of the boxes kept, by group, the best score first.

    A box goes when one of its group with a better score overlaps it by more than `overlap`, whether that one is kept
    or not (the usual, greedy form asks only those that are kept). group, scores: (n,); boxes: (n, 4). The overlap is
    the intersection over the union, or over the smaller box.
    """
    order = np.lexsort((-scores, group))
    group, boxes = group[order], boxes[order]
    left, top, right, bottom = boxes.T
    area = (right - left) * (bottom - top)
    rivals = np.arange(len(group)) - np.searchsorted(group, group)  # of each box: those of its group before it
    gone = np.zeros(len(group), bool)
    ends = np.cumsum(rivals)
    start = 0
    while start < len(group):
        # All pairs of a box and a rival at once, as many boxes at a time as make MAX_PAIRS.
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + MAX_PAIRS, "right")))
        box = np.repeat(np.arange(start, stop), rivals[start:stop])
        rival = np.arange(len(box)) - np.repeat(ends[start:stop] - done, rivals[start:stop]) + box
        width = np.minimum(right[box], right[rival]) - np.maximum(left[box], left[rival])
        height = np.minimum(bottom[box], bottom[rival]) - np.maximum(top[box], top[rival])
        shared = width.clip(0) * height.clip(0)
        whole = np.minimum(area[box], area[rival]) if of_smaller else area[box] + area[rival] - shared
        gone[box[shared > overlap * whole]] = True
        start = stop
    return order[~gone]
