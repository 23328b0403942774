// Reads beside the page, so that it stays quick. A message is {id, ask, ...}; the answer {id, answer} or {id, problem}.

import { load } from "./nets.js";
import { Problem } from "./problem.js";
import { Reader } from "./reader.js";

let settings = null;
let reader = null;
let session = null;

const ANSWERS = {
  async describe() {
    settings = JSON.parse(new TextDecoder().decode(await load({ path: "reader.json" })));
    reader = await Reader.open(settings);
    return settings.about;
  },
  async picture({ blob }) { return reader.readPicture(await decode(blob)); },
  async start() { session = reader.session(); },
  async frame({ image, time }) {
    const start = performance.now();
    const reading = await session.read(image, time);
    return { reading, milliseconds: performance.now() - start };
  },
};

// An image file's pixels, upright, without opacity, and scaled down to what is searched for faces.
async function decode(blob) {
  let picture;
  try {
    picture = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  } catch {
    throw new Problem({
      code: "unreadable_image",
      title: "This picture cannot be read",
      action: "The file may be damaged or of a rare format. Save it as JPEG or PNG and try again.",
    });
  }
  const scale = Math.min(1, Math.sqrt(settings.max_pixels / (picture.width * picture.height)));
  const canvas = new OffscreenCanvas(Math.max(1, Math.floor(picture.width * scale)), Math.max(1, Math.floor(picture.height * scale)));
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
  picture.close();
  return pen.getImageData(0, 0, canvas.width, canvas.height);
}

function problemOf(error) {
  if (error instanceof Problem) return { ...error };
  return {
    code: "our_fault",
    title: "This page failed",
    detail: `The browser says: ${error.message}.`,
    action: "Load the page anew, or take a smaller picture.",
  };
}

let last = Promise.resolve(); // one after the other: the nets are not for several at once
self.addEventListener("message", ({ data }) => {
  last = last.then(async () => {
    try {
      self.postMessage({ id: data.id, answer: await ANSWERS[data.ask](data) });
    } catch (error) {
      self.postMessage({ id: data.id, problem: problemOf(error) });
    }
  });
});
