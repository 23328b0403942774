// What is drawn: boxes, labels and emoji over the picture, and the time line below it.

const [SHORTEST, WINDOW] = [15, 60]; // seconds of a camera's time line: at first, and in the end
const STEP = 0.1; // seconds that one point of the time line stands for
// Of a heat map, as pipeline/drawing/heat.py draws it: its opacity where it is greatest, the pixels across it before it is
// laid over the picture, and OpenCV's colour map "inferno" in eighths.
const OPACITY = 0.6;
const STEPS = 64;
const INFERNO = [[0, 0, 4], [33, 12, 74], [87, 16, 110], [138, 34, 106], [188, 55, 84], [227, 89, 51], [249, 140, 10], [249, 201, 50], [252, 255, 164]];

// Black or white, whichever is legible on a colour (relative luminance of WCAG 2.2, threshold 0.179).
export function inkOn(colour) {
  const [r, g, b] = [1, 3, 5].map((at) => {
    const value = parseInt(colour.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
}

function fit(canvas) {
  const ratio = Math.min(window.devicePixelRatio || 1, 2);
  const width = Math.round(canvas.clientWidth * ratio);
  const height = Math.round(canvas.clientHeight * ratio);
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
  return pen;
}

const mixNumbers = (one, other, share) => one + (other - one) * share;
const mixLists = (one, other, share) => one.map((value, at) => mixNumbers(value, other[at], share));

// What a list has at a place between two elements, which `mix` mixes; beyond its ends it has its first or last element.
function between(list, place, mix) {
  const at = Math.min(Math.max(place, 0), list.length - 1);
  const low = Math.floor(at);
  return mix(list[low], list[Math.min(low + 1, list.length - 1)], at - low);
}

// What spoke for the label, the brighter and the more opaque the more it did, between four corners.
function drawHeat(pen, heat, [start, across, , down]) {
  const picture = new ImageData(STEPS, STEPS);
  for (let y = 0, at = 0; y < STEPS; y += 1) {
    const row = between(heat, ((y + 0.5) / STEPS) * heat.length - 0.5, mixLists);
    for (let x = 0; x < STEPS; x += 1, at += 4) {
      const warmth = between(row, ((x + 0.5) / STEPS) * row.length - 0.5, mixNumbers);
      picture.data.set([...between(INFERNO, warmth * (INFERNO.length - 1), mixLists), 255 * OPACITY * warmth], at);
    }
  }
  const square = new OffscreenCanvas(STEPS, STEPS);
  square.getContext("2d").putImageData(picture, 0, 0);
  pen.save();
  pen.transform((across[0] - start[0]) / STEPS, (across[1] - start[1]) / STEPS, (down[0] - start[0]) / STEPS, (down[1] - start[1]) / STEPS, ...start);
  pen.drawImage(square, 0, 0);
  pen.restore();
}

export class Overlay {
  constructor(canvas, model, emoji) {
    this.canvas = canvas;
    this.model = model; // label -> {colour, emoji}
    this.emoji = emoji; // path -> Image
  }

  clear() { fit(this.canvas); }

  // size: of the frame that was read, in pixels; faces: those to draw; mirrored: as the video is; why: whether heat is
  // drawn where a face has an explanation.
  draw(size, faces, mirrored, why) {
    const pen = fit(this.canvas);
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const scale = Math.min(width / size.width, height / size.height);
    const x0 = (width - size.width * scale) / 2;
    const y0 = (height - size.height * scale) / 2;
    const area = { left: Math.max(0, x0), top: Math.max(0, y0), right: Math.min(width, width - x0), bottom: Math.min(height, height - y0) };
    const taken = [];
    for (const { explanation } of why ? faces : []) {
      if (!explanation) continue;
      drawHeat(pen, explanation.heat, explanation.corners.map(([x, y]) => {
        const across = (x + 0.5) * scale;
        return [x0 + (mirrored ? size.width * scale - across : across), y0 + (y + 0.5) * scale];
      }));
    }
    faces.forEach((face, index) => {
      let [left, top, right, bottom] = face.box.map((value) => value * scale);
      if (mirrored) [left, right] = [size.width * scale - right, size.width * scale - left];
      const number = faces.length > 1 ? `${face.track ?? index + 1}` : "";
      this.#face(pen, face, number, { left: left + x0, top: top + y0, right: right + x0, bottom: bottom + y0 }, area, taken);
    });
  }

  // number: that the list of faces has for this one, "" where it is the only one.
  #face(pen, face, number, box, area, taken) {
    const entry = this.model.get(face.label);
    const side = box.right - box.left;
    const line = Math.max(2, Math.min(4, side / 60));
    const corner = Math.min(14, side / 6);
    pen.lineJoin = "round";
    for (const [width, colour] of [[line + 3, "rgb(0 0 0 / 70%)"], [line, entry.colour]]) {
      pen.lineWidth = width;
      pen.strokeStyle = colour;
      pen.setLineDash(face.uncertain ? [10, 8] : []);
      pen.beginPath();
      pen.roundRect(box.left, box.top, side, box.bottom - box.top, corner);
      pen.stroke();
    }
    pen.setLineDash([]);

    const text = Math.max(13, Math.min(20, side / 7));
    const size = Math.round(text * 2.1);
    const label = face.uncertain ? `${face.label}?` : face.label;
    const value = `${Math.round(100 * face.probabilities[face.label])}%`;
    pen.font = `650 ${text}px system-ui, "Liberation Sans", sans-serif`;
    pen.textBaseline = "middle";
    // Among several faces a plate must not hide the neighbours: it says less on a small face.
    const room = number ? Math.max(1.7 * side, 2.2 * size) : Infinity;
    const choices = [`${number} ${label}  ${value}`, `${number} ${label}`, number].map((words) => words.trim());
    const widthOf = (words) => size + pen.measureText(words).width + text * 0.9;
    const words = choices.find((each) => widthOf(each) <= room) ?? number;
    const width = widthOf(words);
    let left = Math.min(Math.max(area.left + 2, box.left - line), area.right - width - 2);
    let top = box.top - size - line - 3;
    if (top < area.top) top = Math.min(box.bottom + line + 3, area.bottom - size - 2);
    for (const other of taken) { // plates of neighbours are stacked
      if (left < other.right && other.left < left + width && top < other.bottom && other.top < top + size) top = other.bottom + 2;
    }
    taken.push({ left, right: left + width, top, bottom: top + size });
    pen.fillStyle = entry.colour;
    pen.beginPath();
    pen.roundRect(left, top, width, size, size / 2);
    pen.fill();
    pen.lineWidth = 1.5;
    pen.strokeStyle = "rgb(0 0 0 / 70%)";
    pen.stroke();
    const picture = this.emoji.get(face.uncertain ? this.model.unknown : entry.emoji);
    if (picture?.complete && picture.naturalWidth) pen.drawImage(picture, left + 1.5, top + 1.5, size - 3, size - 3);
    pen.fillStyle = inkOn(entry.colour);
    pen.fillText(words, left + size + text * 0.25, top + size / 2 + 0.5);
  }
}

// Probabilities over time, a lane for each expression. Points are kept for each face and for the largest one (0).
export class TimeLine {
  constructor(canvas, model) {
    this.canvas = canvas;
    this.model = model;
    this.clear(null);
  }

  // duration: of a video, in seconds; null for a camera, of which the last minute is shown.
  clear(duration) {
    this.duration = duration;
    this.points = new Map([[0, new Map()]]);
    this.now = 0;
  }

  add(time, faces) {
    this.now = time;
    const key = Math.round(time / STEP);
    const lanes = faces.map((face) => [face.track ?? 0, face]);
    if (faces.length) lanes.unshift([0, faces[0]]);
    for (const [track, face] of lanes) {
      if (!this.points.has(track)) this.points.set(track, new Map());
      this.points.get(track).set(key, face.probabilities);
    }
    if (this.duration === null) {
      for (const [track, points] of this.points) {
        for (const old of points.keys()) {
          if (old < key - WINDOW / STEP) points.delete(old);
          else break; // they are in order
        }
        if (track && !points.size) this.points.delete(track);
      }
    }
  }

  // The time at a place in the canvas; null where there is none.
  timeAt(x) {
    const { start, length, left, width } = this.#axis();
    const time = start + ((x - left) / width) * length;
    return x >= left && this.duration !== null ? Math.min(Math.max(time, 0), this.duration) : null;
  }

  #axis() {
    const left = 84;
    const length = this.duration ?? Math.min(WINDOW, Math.max(SHORTEST, this.now));
    const start = this.duration === null ? this.now - length : 0;
    return { left, width: Math.max(1, this.canvas.clientWidth - left - 1), start, length };
  }

  draw(track) {
    const pen = fit(this.canvas);
    const style = getComputedStyle(this.canvas);
    const [soft, sunken, ink] = ["--soft", "--sunken", "--ink"].map((name) => style.getPropertyValue(name));
    const { left, width, start, length } = this.#axis();
    const labels = [...this.model.keys()];
    const axis = 18;
    const gap = 4;
    const lane = (this.canvas.clientHeight - axis) / labels.length;
    const points = [...(this.points.get(track) ?? new Map())].sort((a, b) => a[0] - b[0]);
    const x = (key) => left + ((key * STEP - start) / length) * width;
    pen.font = `13px ${style.fontFamily}`;
    pen.textBaseline = "middle";
    labels.forEach((label, row) => {
      const base = (row + 1) * lane - gap / 2;
      const full = lane - gap;
      pen.fillStyle = sunken;
      pen.globalAlpha = 0.55;
      pen.beginPath();
      pen.roundRect(left, base - full, width, full, 4);
      pen.fill();
      pen.globalAlpha = 1;
      pen.fillStyle = soft;
      pen.textAlign = "left";
      pen.fillText(label, 0, base - full / 2);
      pen.save();
      pen.beginPath();
      pen.rect(left, base - full - 1, width, full + 2);
      pen.clip();
      this.#lane(pen, points, label, x, base, full, this.model.get(label).colour, ink);
      pen.restore();
    });
    pen.fillStyle = soft;
    pen.textBaseline = "alphabetic";
    const bottom = this.canvas.clientHeight - 3;
    const marks = this.duration === null ? [`${Math.round(length)} s ago`, "", "now"] : [0, length / 2, length].map(clock);
    marks.forEach((mark, index) => {
      pen.textAlign = ["left", "center", "right"][index];
      pen.fillText(mark, left + (index / 2) * width, bottom);
    });
    if (this.duration !== null) {
      pen.fillStyle = ink;
      pen.fillRect(left + (this.now / length) * width - 1, 0, 2, this.canvas.clientHeight - axis);
    }
  }

  // An area for each stretch without a gap of more than a second.
  #lane(pen, points, label, x, base, full, colour, ink) {
    let stretch = [];
    const flush = () => {
      if (stretch.length) {
        const last = stretch[stretch.length - 1][0];
        const top = stretch.map(([key, value]) => [x(key), base - value * full]);
        pen.beginPath();
        pen.moveTo(x(stretch[0][0]), base);
        top.forEach(([px, py]) => pen.lineTo(px, py));
        pen.lineTo(x(last + 1), top[top.length - 1][1]);
        pen.lineTo(x(last + 1), base);
        pen.fillStyle = colour;
        pen.fill();
        pen.beginPath();
        top.forEach(([px, py], at) => (at ? pen.lineTo(px, py) : pen.moveTo(px, py)));
        pen.lineTo(x(last + 1), top[top.length - 1][1]);
        pen.strokeStyle = ink;
        pen.globalAlpha = 0.55;
        pen.lineWidth = 1;
        pen.stroke();
        pen.globalAlpha = 1;
      }
      stretch = [];
    };
    let before = null;
    for (const [key, probabilities] of points) {
      if (before !== null && (key - before) * STEP > 1) flush();
      stretch.push([key, probabilities[label]]);
      before = key;
    }
    flush();
  }
}

export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}
