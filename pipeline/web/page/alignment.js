// Aligning a face: the similarity transform that lays its landmarks nearest to the template's, as
// pipeline/faces/alignment.py does it.

import { fixedPlace, grey, sample, scaleGrey } from "./pixels.js";

const MARGIN = 2; // pixels around what an aligned face covers that its samples may touch

// [a, b, x, y] for (a + ib) z + (x + iy) in complex numbers.
export function similarity(landmarks, template) {
  const mean = (points) => [0, 1].map((axis) => points.reduce((sum, point) => sum + point[axis], 0) / points.length);
  const [from, to] = [mean(landmarks), mean(template)];
  let [a, b, spread] = [0, 0, 0];
  landmarks.forEach((point, at) => {
    const [zx, zy] = [point[0] - from[0], point[1] - from[1]];
    const [wx, wy] = [template[at][0] - to[0], template[at][1] - to[1]];
    a += zx * wx + zy * wy;
    b += zx * wy - zy * wx;
    spread += zx * zx + zy * zy;
  });
  a /= spread;
  b /= spread;
  return [a, b, to[0] - a * from[0] + b * from[1], to[1] - b * from[0] - a * from[1]];
}

// Where a place [x, y] of the face that alignFace() makes is in the image.
export function alignedPlace([x, y], landmarks, { template }) {
  const [a, b, x0, y0] = similarity(landmarks, template);
  const [u, v, power] = [x - x0, y - y0, a * a + b * b];
  return [(u * a + v * b) / power, (v * a - u * b) / power];
}

// The face in an image as size x size grey values, by its landmarks.
export function alignFace(image, landmarks, { size, template }) {
  const [a, b, x0, y0] = similarity(landmarks, template);
  // A large face is sampled several times a pixel and averaged: one bilinear sample would pick lone pixels out of it.
  const samples = Math.max(1, Math.trunc(1 / Math.hypot(a, b)));
  const side = samples * size;
  // From a sample back to the image: the inverse of the transform to side x side, a place [x, y] and the steps from it.
  const power = (a * a + b * b) * samples;
  const [across, down] = [a / power, b / power];
  const [u, v] = [0.5 / samples - 0.5 - x0, 0.5 / samples - 0.5 - y0];
  const start = [(u * across + v * down) * samples, (v * across - u * down) * samples];
  const back = (x, y) => [start[0] + across * x + down * y, start[1] - down * x + across * y];
  // Only what the face is made of becomes grey: of a large image that is little.
  const corners = [[0, 0], [side, 0], [0, side], [side, side]].map(([x, y]) => back(x, y));
  const bound = (axis, choose, end) => Math.min(Math.max(choose(...corners.map((corner) => corner[axis])), 0), end);
  const left = bound(0, (...all) => Math.floor(Math.min(...all)) - MARGIN, image.width - 1);
  const top = bound(1, (...all) => Math.floor(Math.min(...all)) - MARGIN, image.height - 1);
  const right = bound(0, (...all) => Math.ceil(Math.max(...all)) + MARGIN, image.width - 1) + 1;
  const bottom = bound(1, (...all) => Math.ceil(Math.max(...all)) + MARGIN, image.height - 1) + 1;
  const part = grey(image, left, top, right, bottom);
  const data = new Uint8Array(side * side);
  for (let y = 0, at = 0; y < side; y += 1) {
    for (let x = 0; x < side; x += 1, at += 1) {
      const px = fixedPlace(start[0] - left + down * y, across, x) / 32;
      const py = fixedPlace(start[1] - top + across * y, -down, x) / 32;
      data[at] = Math.round(sample(part.data, part, 1, px, py));
    }
  }
  return samples === 1 ? data : scaleGrey({ data, width: side, height: side }, size);
}

// The face in a box as size x size grey values, for models that learned from faces that were not aligned.
export function cutFace(image, box, { size }) { return scaleGrey(grey(image, ...cutEdges(image, box)), size); }

// Where a place [x, y] of the face that cutFace() makes is in the image.
export function cutPlace([x, y], image, box, { size }) {
  const [left, top, right, bottom] = cutEdges(image, box);
  return [left + ((x + 0.5) * (right - left)) / size - 0.5, top + ((y + 0.5) * (bottom - top)) / size - 0.5];
}

// The first column and row of what is cut out, and those behind its last ones.
function cutEdges(image, box) {
  const [left, top] = [Math.max(Math.floor(box[0]), 0), Math.max(Math.floor(box[1]), 0)];
  const right = Math.min(Math.max(Math.ceil(box[2]), left) + 1, image.width);
  const bottom = Math.min(Math.max(Math.ceil(box[3]), top) + 1, image.height);
  return [left, top, right, bottom];
}
