// Pictures in, readings out, in the form of the server's answers: what pipeline/predictor.py does in Python.

import { alignFace, alignedPlace, cutFace, cutPlace } from "./alignment.js";
import { Classifier } from "./classifier.js";
import { Mtcnn } from "./mtcnn.js";
import { Runtime, load } from "./nets.js";
import { assessQuality } from "./quality.js";
import { Tracker } from "./tracking.js";

export class Reader {
  // settings: reader.json, which `expressions web` wrote.
  static async open(settings) {
    const { files, model, mtcnn, alignment } = settings;
    const runtime = await Runtime.open(settings.runtime);
    const mean = await load(files.mean);
    // One after the other: the runtime is not for several at once.
    const pnet = await runtime.net(files.pnet);
    const rnet = await runtime.net(files.rnet);
    const onet = await runtime.net(files.onet);
    const net = await runtime.net(files.model);
    const reader = new Reader();
    reader.settings = settings;
    reader.mtcnn = new Mtcnn({ pnet, rnet, onet }, mtcnn);
    reader.classifier = new Classifier(net, new Float32Array(mean), { ...model, size: alignment.size });
    return reader;
  }

  async readPicture(image) {
    const { faces, more } = await this.mtcnn.detect(image, this.settings.min_face.picture);
    return { ...(await this.read(image, faces)), more };
  }

  session() { return new Session(this); }

  // A reading of faces that were found. smooth: what becomes of a face's probabilities.
  async read(image, found, smooth = (_, probabilities) => probabilities) {
    const { alignment, model, quality } = this.settings;
    const size = ({ box }) => (box[2] - box[0]) * (box[3] - box[1]);
    const faces = [...found].sort((a, b) => size(b) - size(a) || b.score - a.score);
    const cut = ({ box, landmarks }) => (model.aligned ? alignFace(image, landmarks, alignment) : cutFace(image, box, alignment));
    const read = faces.length ? await this.classifier.read(faces.map(cut)) : [];
    return {
      width: image.width,
      height: image.height,
      faces: faces.map((face, at) => ({
        track: face.track ?? null,
        box: face.box,
        score: face.score,
        status: "found",
        conditions: assessQuality(face, image, quality),
        ...this.#judge(image, face, smooth(face, read[at].probabilities), read[at].maps),
      })),
    };
  }

  // What probabilities say: the label, whether it is uncertain and, where there are class maps, what spoke for it.
  #judge(image, face, probabilities, maps) {
    const label = Object.keys(probabilities).reduce((best, name) => (probabilities[name] > probabilities[best] ? name : best));
    const explanation = maps && { corners: this.#corners(image, face), heat: heatOf(maps[label]) };
    return { probabilities, label, uncertain: probabilities[label] < this.settings.model.uncertain, explanation };
  }

  // Of what the net sees of a face, in the image: the outer edges of its outermost pixels.
  #corners(image, { box, landmarks }) {
    const { alignment, model } = this.settings;
    const low = this.classifier.margin - 0.5;
    const high = low + model.side;
    const place = (point) => (model.aligned ? alignedPlace(point, landmarks, alignment) : cutPlace(point, image, box, alignment));
    return [[low, low], [high, low], [high, high], [low, high]].map(place);
  }
}

// What speaks for a label: its map without what speaks against it, the greatest value being 1.
function heatOf(map) {
  const greatest = Math.max(...map.flat());
  return map.map((row) => row.map((value) => (greatest > 0 ? Math.max(value, 0) / greatest : 0)));
}

// One moving picture: faces keep their numbers, and their probabilities are smoothed over time.
class Session {
  constructor(reader) {
    this.reader = reader;
    this.tracker = new Tracker(reader.mtcnn, reader.settings.min_face.moving, reader.settings.tracking);
    this.smooth = new Map(); // of each face the time and probabilities of its last reading
  }

  async read(image, time) {
    const { forget } = this.reader.settings.tracking;
    const found = await this.tracker.update(image, time);
    const reading = await this.reader.read(image, found, ({ track }, probabilities) => this.#smoothed(track, probabilities, time));
    for (const [track, seen] of this.smooth) if (time - seen.time >= forget) this.smooth.delete(track);
    return reading;
  }

  #smoothed(track, probabilities, time) {
    const before = this.smooth.get(track);
    let mixed = probabilities;
    if (before) {
      const weight = Math.exp(-Math.max(0, time - before.time) / this.reader.settings.tracking.smoothing);
      const entries = Object.entries(probabilities).map(([label, value]) => [label, value + (before.probabilities[label] - value) * weight]);
      mixed = Object.fromEntries(entries);
    }
    this.smooth.set(track, { time, probabilities: mixed });
    return mixed;
  }
}
