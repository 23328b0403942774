// Arithmetic of boxes: [left, top, right, bottom] in pixels, whose first and last pixels both belong to them.
// The same as pipeline/faces/boxes.py.

export function centre([left, top, right, bottom]) { return [(left + right) / 2, (top + bottom) / 2]; }

export function sides([left, top, right, bottom]) { return [right - left + 1, bottom - top + 1]; }

export function clip(box, { width, height }) {
  return box.map((value, at) => Math.min(Math.max(value, 0), (at % 2 ? height : width) - 1));
}

// Widened to a square about its centre.
export function square(box) {
  const [x, y] = centre(box);
  const half = Math.max(box[2] - box[0], box[3] - box[1]) / 2;
  return [x - half, y - half, x + half, y + half];
}

// Each side moved by a net's offsets, which are relative to the box's size.
export function adjust(box, offsets) {
  const size = sides(box);
  return box.map((value, at) => value + offsets[at] * size[at % 2]);
}

function area([left, top, right, bottom]) { return (right - left) * (bottom - top); }

function shared(box, other) {
  const width = Math.min(box[2], other[2]) - Math.max(box[0], other[0]);
  const height = Math.min(box[3], other[3]) - Math.max(box[1], other[1]);
  return Math.max(width, 0) * Math.max(height, 0);
}

export function iou(box, other) {
  const both = shared(box, other);
  return both / Math.max(area(box) + area(other) - both, Number.MIN_VALUE);
}

// Those of found ({box, score}) that are kept, the best score first. One goes when another with a better score overlaps
// it by more than `overlap`, whether that one is kept or not. The overlap is the intersection over the union, or over
// the smaller box.
export function nms(found, overlap, ofSmaller = false) {
  const sorted = [...found].sort((a, b) => b.score - a.score);
  return sorted.filter(({ box }, at) => {
    for (let before = 0; before < at; before += 1) {
      const rival = sorted[before].box;
      const both = shared(box, rival);
      const whole = ofSmaller ? Math.min(area(box), area(rival)) : area(box) + area(rival) - both;
      if (both > overlap * whole) return false;
    }
    return true;
  });
}
