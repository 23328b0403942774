// The model: what it is given, and what its probabilities mean, as pipeline/classifier has it.

const FLT_MIN = 1.1754943508222875e-38; // the smallest probability whose logarithm is taken

export class Classifier {
  // mean: of what the net sees of a face, in its order; settings: of the model folder.
  constructor(net, mean, settings) {
    Object.assign(this, { net, mean, settings });
  }

  // How many of a face's size pixels the net does not see, on each side.
  get margin() { return Math.floor((this.settings.size - this.settings.side) / 2); }

  // Of each face of size x size grey values its calibrated `probabilities` by label, with the class prior, and, of a net
  // that has them, its class `maps` by label: rows of values, without the mean of all labels.
  async read(faces) {
    const { side, size, scale, labels, temperature, ratios } = this.settings;
    const offset = this.margin;
    const inputs = new Float32Array(faces.length * side * side);
    faces.forEach((face, number) => {
      for (let y = 0, at = 0; y < side; y += 1) {
        for (let x = 0; x < side; x += 1, at += 1) {
          inputs[number * side * side + at] = (face[(y + offset) * size + x + offset] - this.mean[at]) * scale;
        }
      }
    });
    const outputs = await this.net.run(inputs, [faces.length, 1, side, side]);
    const { data } = outputs[this.net.session.outputNames[0]];
    const maps = outputs[this.settings.class_maps];
    return faces.map((_, number) => {
      const given = [...data.slice(number * labels.length, (number + 1) * labels.length)];
      const logits = given.map((value, at) => Math.log(Math.max(value, FLT_MIN)) / temperature + Math.log(ratios?.[at] ?? 1));
      const greatest = Math.max(...logits);
      const powers = logits.map((logit) => Math.exp(logit - greatest));
      const sum = powers.reduce((total, power) => total + power, 0);
      const probabilities = Object.fromEntries(labels.map((label, at) => [label, powers[at] / sum]));
      return { probabilities, maps: maps && this.#mapsOf(maps, number) };
    });
  }

  // maps: the net's output for all faces, (faces, labels, height, width).
  #mapsOf({ data, dims: [, count, height, width] }, number) {
    const area = height * width;
    const values = data.subarray(number * count * area, (number + 1) * count * area);
    const mean = Array.from({ length: area }, (_, place) => {
      let sum = 0;
      for (let at = place; at < values.length; at += area) sum += values[at];
      return sum / count;
    });
    const row = (first, y) => mean.slice(y * width, (y + 1) * width).map((average, x) => values[first + y * width + x] - average);
    const rows = (first) => Array.from({ length: height }, (_, y) => row(first, y));
    return Object.fromEntries(this.settings.labels.map((label, at) => [label, rows(at * area)]));
  }
}
