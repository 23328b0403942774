// Following faces from frame to frame: a full detection now and then, and between detections two small nets a face. It
// does less than pipeline/faces/tracking.py: it knows a face by its place alone.

import { centre, clip, iou } from "./boxes.js";

export class Tracker {
  // settings: Python's constants.
  constructor(mtcnn, minFace, settings) {
    Object.assign(this, { mtcnn, minFace, settings });
    this.tracks = []; // of faces that are there
    this.gone = []; // of faces that may come back
    this.count = 0;
    this.now = -Infinity;
    this.detected = -Infinity; // time of the last detection
  }

  // The faces in a frame, each with its number (`track`). time: of the frame, in seconds.
  async update(image, time) {
    const { every, away, followed, max_lost: maxLost } = this.settings;
    const step = time - this.now;
    this.now = time;
    const wasThere = (track) => time - track.time <= away + Math.max(every, 2 * step);
    this.gone = this.gone.filter(wasThere);
    const lost = step <= followed && (await this.#follow(image));
    const since = time - this.detected;
    if (step > followed || step < 0 || since >= every || (lost && since > maxLost)) {
      await this.#detect(image);
      this.detected = time;
    }
    this.#lose((track) => time - track.time > maxLost);
    return this.tracks.map((track) => ({ ...track, box: clip(track.box, image) }));
  }

  #lose(isLost) {
    this.gone.push(...this.tracks.filter(isLost));
    this.tracks = this.tracks.filter((track) => !isLost(track));
  }

  // Looks for every face where it was. Returns whether one is not seen.
  async #follow(image) {
    const { min_score: least, one_face: oneFace } = this.settings;
    const seen = await this.mtcnn.refine(image, this.tracks.map(({ box }) => box));
    const taken = [];
    this.tracks.forEach((track, at) => {
      const face = seen[at];
      if (face.score < least || !inside(face.box, image) || taken.some((box) => iou(box, face.box) > oneFace)) return;
      taken.push(face.box);
      Object.assign(track, face, { time: this.now });
    });
    return taken.length < this.tracks.length;
  }

  // Finds all faces and tells which ones they are.
  async #detect(image) {
    const { min_score: least, match_iou: match, reappear_iou: reappear, one_face: oneFace } = this.settings;
    const { faces } = await this.mtcnn.detect(image, this.minFace);
    const closer = await this.mtcnn.refine(image, faces.map(({ box }) => box));
    const free = faces.map((face, at) => (closer[at].score >= least ? closer[at] : face));
    this.#match(this.tracks, free, match);
    const back = this.#match(this.gone, free, reappear);
    this.gone = this.gone.filter((track) => !back.includes(track));
    this.tracks.push(...back);
    for (const face of free.sort((a, b) => b.score - a.score)) {
      if (this.tracks.some((track) => iou(track.box, face.box) > oneFace)) continue;
      this.count += 1;
      this.tracks.push({ ...face, track: this.count, time: this.now });
    }
  }

  // Gives tracks their faces, those that overlap most first, and takes these out of `free`. Returns the tracks seen.
  #match(tracks, free, least) {
    const pairs = tracks.flatMap((track) => free.map((face) => ({ track, face, overlap: iou(track.box, face.box) })));
    const seen = [];
    for (const { track, face, overlap } of pairs.sort((a, b) => b.overlap - a.overlap)) {
      if (overlap < least || seen.includes(track) || !free.includes(face)) continue;
      free.splice(free.indexOf(face), 1);
      seen.push(track);
      Object.assign(track, face, { time: this.now });
    }
    return seen;
  }
}

function inside(box, { width, height }) {
  const [x, y] = centre(box);
  return x >= 0 && y >= 0 && x < width && y < height;
}
