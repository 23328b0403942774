// Scaling and sampling of pixels, as OpenCV does them for pipeline/faces. An image is {data, width, height} with red,
// green, blue and opacity of 0..255, as a canvas gives it; grey ones are {data, width, height} of one value a pixel.

// What each scaled pixel covers: the first pixel and the share of each pixel from there on (INTER_AREA).
function coverage(from, to) {
  const step = from / to;
  return Array.from({ length: to }, (_, at) => {
    const start = at * step;
    const end = Math.min(start + step, from);
    const first = Math.floor(start);
    const shares = [];
    for (let pixel = first; pixel < end; pixel += 1) {
      shares.push((Math.min(end, pixel + 1) - Math.max(start, pixel)) / (end - start));
    }
    return { first, shares };
  });
}

// Rows first to last (without) of an image that is scaled down to width x height by area, as planes: `channels` of the
// image's `stride` values a pixel. Gives a Float32Array (channels, last - first, width) of 0..255.
export function scaleArea(image, width, height, { channels = 3, stride = 4, first = 0, last = height } = {}) {
  const columns = coverage(image.width, width);
  const rows = coverage(image.height, height);
  const size = (last - first) * width;
  const scaled = new Float32Array(channels * size);
  const reduced = new Float32Array(channels * width); // a row of the image, its columns scaled
  let held = -1; // which row that is: two scaled rows may share one
  for (let row = first; row < last; row += 1) {
    rows[row].shares.forEach((share, below) => {
      const source = rows[row].first + below;
      if (source !== held) reduceRow(image.data, source * image.width * stride, stride, channels, columns, reduced);
      held = source;
      for (let channel = 0; channel < channels; channel += 1) {
        const to = channel * size + (row - first) * width;
        for (let x = 0; x < width; x += 1) scaled[to + x] += share * reduced[channel * width + x];
      }
    });
  }
  return scaled;
}

function reduceRow(data, start, stride, channels, columns, reduced) {
  const width = columns.length;
  for (let x = 0; x < width; x += 1) {
    const { first, shares } = columns[x];
    for (let channel = 0; channel < channels; channel += 1) {
      let sum = 0;
      for (let at = 0, from = start + first * stride + channel; at < shares.length; at += 1, from += stride) {
        sum += shares[at] * data[from];
      }
      reduced[channel * width + x] = sum;
    }
  }
}

// A grey image scaled to width x height between its pixels (INTER_LINEAR).
function scaleLinear(image, width, height) {
  const scaled = new Float32Array(width * height);
  const [across, down] = [image.width / width, image.height / height];
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      scaled[y * width + x] = sample(image.data, image, 1, (x + 0.5) * across - 0.5, (y + 0.5) * down - 0.5);
    }
  }
  return scaled;
}

// A grey image scaled to a square of whole values, by area where it gets smaller.
export function scaleGrey(image, side) {
  const smaller = Math.min(image.width, image.height) >= side;
  const scaled = smaller ? scaleArea(image, side, side, { channels: 1, stride: 1 }) : scaleLinear(image, side, side);
  // OpenCV rounds halves to even, but the means of 2x2 pixels up.
  return Uint8Array.from(scaled, smaller && image.width === 2 * side && image.height === 2 * side ? Math.round : roundToEven);
}

function roundToEven(value) {
  const below = Math.floor(value);
  const rest = value - below;
  return rest === 0.5 ? below + (below % 2) : Math.round(value);
}

// The grey of a part of an image, with OpenCV's weights.
export function grey(image, left = 0, top = 0, right = image.width, bottom = image.height) {
  const [width, height] = [right - left, bottom - top];
  const data = new Uint8Array(width * height);
  for (let y = 0, to = 0; y < height; y += 1) {
    let from = 4 * ((top + y) * image.width + left);
    for (let x = 0; x < width; x += 1, from += 4, to += 1) {
      data[to] = (9798 * image.data[from] + 19235 * image.data[from + 1] + 3735 * image.data[from + 2] + 16384) >> 15;
    }
  }
  return { data, width, height };
}

// Where OpenCV's warpAffine samples, in 32nds of a pixel: for a whole number `at` the place start + step * at, in its
// fixed-point arithmetic.
export function fixedPlace(start, step, at) {
  return (Math.round(step * at * 1024) + Math.round(start * 1024) + 16) >> 5;
}

// A value between four pixels; the image's edge is repeated outside of it.
export function sample(data, { width, height }, stride, x, y, channel = 0) {
  const [left, top] = [Math.floor(x), Math.floor(y)];
  const [across, down] = [x - left, y - top];
  const clamp = (value, end) => Math.min(Math.max(value, 0), end - 1);
  const [x0, x1] = [clamp(left, width), clamp(left + 1, width)];
  const [y0, y1] = [clamp(top, height) * width, clamp(top + 1, height) * width];
  const at = (row, column) => data[(row + column) * stride + channel];
  const upper = at(y0, x0) + (at(y0, x1) - at(y0, x0)) * across;
  const lower = at(y1, x0) + (at(y1, x1) - at(y1, x0)) * across;
  return upper + (lower - upper) * down;
}
