// MTCNN, three nets in a cascade, as pipeline/faces/mtcnn.py runs them. A face is {box, score, landmarks}.

import { adjust, clip, nms, sides, square } from "./boxes.js";
import { fixedPlace, sample, scaleArea } from "./pixels.js";

export class Mtcnn {
  // nets: {pnet, rnet, onet}; settings: Python's constants.
  constructor(nets, settings) {
    Object.assign(this, nets, { settings });
  }

  // The faces of an image, the best score first, and how many more were seen than max_faces.
  async detect(image, minFace) {
    const { settings } = this;
    const proposals = await this.#propose(image, minFace);
    const refined = await this.#refine(image, proposals);
    const seen = await this.#look(image, refined);
    const sure = seen.filter((face) => face.score > settings.o_score);
    const faces = nms(sure, settings.overlap, true).map((face) => ({ ...face, box: clip(face.box, image) }));
    const size = ({ box }) => (box[2] - box[0]) * (box[3] - box[1]);
    const largest = new Set([...faces].sort((a, b) => size(b) - size(a)).slice(0, settings.max_faces));
    return { faces: faces.filter((face) => largest.has(face)), more: faces.length - largest.size };
  }

  // One look of R-Net and O-Net at boxes of any origin: as many faces, whose boxes are not clipped.
  async refine(image, boxes) {
    const squares = boxes.map(square);
    const { box: offsets } = await this.#onCrops(this.rnet, image, squares, 24);
    return this.#look(image, squares.map((box, at) => square(adjust(box, offsets[at]))));
  }

  #bounded(found, rank, perFace) {
    const { least_proposals: least, max_faces: faces } = this.settings;
    const kept = new Set([...found].sort((a, b) => rank(b) - rank(a)).slice(0, Math.max(least, perFace * faces)));
    return found.filter((each) => kept.has(each));
  }

  // P-Net over the pyramid: square boxes.
  async #propose(image, minFace) {
    const { settings } = this;
    const levels = new Map();
    for (const band of pyramid(image, minFace, settings)) {
      const found = await this.#proposeBand(image, band);
      levels.set(band.level, [...(levels.get(band.level) ?? []), ...found]);
    }
    const kept = [...levels.values()].flatMap((found) => {
      return nms(this.#bounded(found, ({ score }) => score, settings.level_proposals), settings.p_scale_overlap);
    });
    const widest = this.#bounded(nms(kept, settings.overlap), width, settings.r_proposals);
    return widest.map(({ box }) => square(box));
  }

  async #proposeBand(image, band) {
    const { window, stride, p_score: least } = this.settings;
    const rows = band.last - band.first;
    const pixels = scaleArea(image, band.width, band.height, band);
    for (let at = 0; at < pixels.length; at += 1) pixels[at] = (pixels[at] - 127.5) / 128;
    const { box, probability } = await this.pnet.run(pixels, [1, 3, rows, band.width]);
    const [, , down, across] = probability.dims;
    const plane = down * across;
    const found = [];
    for (let y = 0, at = 0; y < down; y += 1) {
      for (let x = 0; x < across; x += 1, at += 1) {
        const score = probability.data[plane + at];
        if (!(score > least)) continue;
        // A window's pixels count from 1 to `window`, both included.
        const [left, top] = [x * stride, y * stride + band.first];
        const sees = [left + 1, top + 1, left + window, top + window];
        found.push({ score, box: sees.map((value, side) => (value + box.data[side * plane + at] * (window - 1)) / band.scale) });
      }
    }
    return found;
  }

  // R-Net over the proposals: square boxes of those that remain.
  async #refine(image, boxes) {
    const { settings } = this;
    const { box: offsets, probability } = await this.#onCrops(this.rnet, image, boxes, 24);
    const sure = boxes
      .map((box, at) => ({ box: adjust(box, offsets[at]), score: probability[at][1] }))
      .filter(({ score }) => score > settings.r_score);
    return this.#bounded(nms(sure, settings.overlap), width, settings.o_proposals).map(({ box }) => square(box));
  }

  // O-Net at square boxes: a face for each, whose score says whether there is one.
  async #look(image, boxes) {
    const { box: offsets, probability, landmarks } = await this.#onCrops(this.onet, image, boxes, 48);
    return boxes.map((box, at) => {
      const [across, down] = sides(box);
      const [left, top, right, bottom] = adjust(box, offsets[at]);
      const point = (number) => [box[0] + landmarks[at][number] * across - 1, box[1] + landmarks[at][number + 5] * down - 1];
      return {
        box: [left, top, Math.max(right, left), Math.max(bottom, top)],
        score: probability[at][1],
        landmarks: [0, 1, 2, 3, 4].map(point),
      };
    });
  }

  // A net's outputs by name, one array a box, for what is in the boxes.
  async #onCrops(net, image, boxes, size) {
    const { batch } = this.settings;
    const outputs = Object.fromEntries(net.session.outputNames.map((name) => [name, []]));
    for (let start = 0; start < boxes.length; start += batch) {
      const some = boxes.slice(start, start + batch);
      const crops = new Float32Array(some.length * 3 * size * size);
      some.forEach((box, at) => cropBox(image, box, size, crops.subarray(at * 3 * size * size)));
      const found = await net.run(crops, [some.length, 3, size, size]);
      for (const [name, { data, dims: [, length] }] of Object.entries(found)) {
        some.forEach((_, at) => outputs[name].push(data.slice(at * length, (at + 1) * length)));
      }
    }
    return outputs;
  }
}

function width({ box }) { return box[2] - box[0]; }

// The levels at which faces from minFace upwards fill P-Net's window, in bands that P-Net sees one at a time.
function* pyramid(image, minFace, { window, stride, factor, band_pixels: pixels, band_rows: least }) {
  const levels = Math.round(-Math.log(Math.min(image.height, image.width) / window) / Math.log(factor) - 1);
  // P-Net's outputs, n one below the other, see n * stride rows and this many more.
  const overlap = window - stride;
  for (let level = 0; level < levels; level += 1) {
    const scale = (window / minFace) * factor ** level;
    const [wide, high] = [Math.trunc(image.width * scale), Math.trunc(image.height * scale)];
    if (Math.min(wide, high) < window) return;
    const rows = Math.max(least, Math.floor((Math.floor(pixels / wide) - overlap) / stride));
    for (let first = 0; first < high - overlap; first += rows * stride) {
      yield { level, scale, width: wide, height: high, first, last: Math.min(first + rows * stride + overlap, high) };
    }
  }
}

// What is in a box, (3, size, size) into `crop`: (value - 127.5) / 128, zero outside the image. The crop's corner pixels
// are on the box's corners, which are taken relative to the image's size (tensorflow's crop_and_resize).
export function cropBox(image, [left, top, right, bottom], size, crop) {
  const places = (start, end, extent) => {
    const first = (start * (extent - 1)) / extent;
    const step = ((end - start) * (extent - 1)) / extent / (size - 1);
    return Array.from({ length: size }, (_, at) => {
      const inside = first + step * at >= 0 && first + step * at <= extent - 1;
      return inside ? fixedPlace(first, step, at) / 32 : null;
    });
  };
  const columns = places(left, right, image.width);
  places(top, bottom, image.height).forEach((y, row) => {
    columns.forEach((x, column) => {
      if (x === null || y === null) return;
      for (let channel = 0; channel < 3; channel += 1) {
        const value = sample(image.data, image, 4, x, y, channel);
        crop[(channel * size + row) * size + column] = (value - 127.5) / 128;
      }
    });
  });
}
