// The model: what it is given, and what its probabilities mean, as pipeline/classifier has it.

const FLT_MIN = 1.1754943508222875e-38; // the smallest probability whose logarithm is taken

export class Classifier {
  // mean: of what the net sees of a face, in its order; settings: of the model folder.
  constructor(net, mean, settings) {
    Object.assign(this, { net, mean, settings });
  }

  // Calibrated probabilities by label, with the class prior, for each face of size x size grey values.
  async read(faces) {
    const { side, size, scale, labels, temperature, ratios } = this.settings;
    const offset = Math.floor((size - side) / 2);
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
    return faces.map((_, number) => {
      const given = [...data.slice(number * labels.length, (number + 1) * labels.length)];
      const logits = given.map((value, at) => Math.log(Math.max(value, FLT_MIN)) / temperature + Math.log(ratios?.[at] ?? 1));
      const greatest = Math.max(...logits);
      const powers = logits.map((logit) => Math.exp(logit - greatest));
      const sum = powers.reduce((total, power) => total + power, 0);
      return Object.fromEntries(labels.map((label, at) => [label, powers[at] / sum]));
    });
  }
}
