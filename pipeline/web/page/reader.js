// Pictures in, readings out, in the form of the server's answers: what pipeline/predictor.py does in Python.

import { alignFace, cutFace } from "./alignment.js";
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

  // A reading of faces that were found.
  async read(image, found) {
    const { alignment, model, quality } = this.settings;
    const size = ({ box }) => (box[2] - box[0]) * (box[3] - box[1]);
    const faces = [...found].sort((a, b) => size(b) - size(a) || b.score - a.score);
    const cut = ({ box, landmarks }) => (model.aligned ? alignFace(image, landmarks, alignment) : cutFace(image, box, alignment));
    const probabilities = faces.length ? await this.classifier.read(faces.map(cut)) : [];
    return {
      width: image.width,
      height: image.height,
      faces: faces.map((face, at) => ({
        track: face.track ?? null,
        box: face.box,
        score: face.score,
        status: "found",
        conditions: assessQuality(face, image, quality),
        ...this.judge(probabilities[at]),
      })),
    };
  }

  // What probabilities say: the label, and whether it is uncertain.
  judge(probabilities) {
    const label = Object.keys(probabilities).reduce((best, name) => (probabilities[name] > probabilities[best] ? name : best));
    return { probabilities, label, uncertain: probabilities[label] < this.settings.model.uncertain };
  }
}

// One moving picture: faces keep their numbers, and their probabilities are smoothed over time.
class Session {
  constructor(reader) {
    this.reader = reader;
    this.tracker = new Tracker(reader.mtcnn, reader.settings.min_face.moving, reader.settings.tracking);
    this.smooth = new Map(); // of each face the time and probabilities of its last reading
  }

  async read(image, time) {
    const { smoothing, forget } = this.reader.settings.tracking;
    const reading = await this.reader.read(image, await this.tracker.update(image, time));
    for (const face of reading.faces) {
      const before = this.smooth.get(face.track);
      if (before) {
        const weight = Math.exp(-Math.max(0, time - before.time) / smoothing);
        const mixed = Object.entries(face.probabilities).map(([label, value]) => [label, value + (before.probabilities[label] - value) * weight]);
        Object.assign(face, this.reader.judge(Object.fromEntries(mixed)));
      }
      this.smooth.set(face.track, { time, probabilities: face.probabilities });
    }
    for (const [track, seen] of this.smooth) if (time - seen.time >= forget) this.smooth.delete(track);
    return reading;
  }
}
