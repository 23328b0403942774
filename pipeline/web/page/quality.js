// What about a face makes its reading worth less, as pipeline/faces/quality.py finds it.

import { sides } from "./boxes.js";

export function assessQuality({ box, landmarks }, { width, height }, { tiny, turned, rolled }) {
  const [leftEye, rightEye, nose] = landmarks;
  const across = [0, 1].map((axis) => rightEye[axis] - leftEye[axis]);
  const ahead = [0, 1].map((axis) => nose[axis] - (leftEye[axis] + rightEye[axis]) / 2);
  const offset = Math.abs(ahead[0] * across[0] + ahead[1] * across[1]);
  const distance = across[0] ** 2 + across[1] ** 2;
  const leaning = Math.abs((Math.atan2(across[1], across[0]) * 180) / Math.PI) > rolled;
  const edges = [box[0] <= 0, box[1] <= 0, box[2] >= width - 1, box[3] >= height - 1];
  const holds = {
    tiny: Math.max(...sides(box)) < tiny,
    turned: offset > turned * distance || distance === 0 || leaning,
    edge: edges.some(Boolean) && !edges.every(Boolean),
  };
  return Object.keys(holds).filter((name) => holds[name]);
}
