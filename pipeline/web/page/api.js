// The reader as the page sees it, in a worker of this browser: one function for pictures, one class for moving ones.

import { checkBrowser } from "./nets.js";
import { Problem } from "./problem.js";

export const STATES = { waiting: "Loading", ready: "Ready", lost: "Not ready" };

// There is no server here that could want a token.
export function useToken() {}
export function hasToken() { return false; }

let worker = null;
let count = 0;
const open = new Map(); // id -> {resolve, reject} of what the worker was asked

function ask(what, content = {}, transfer = []) {
  worker ??= startWorker();
  count += 1;
  const id = count;
  worker.postMessage({ id, ask: what, ...content }, transfer);
  return new Promise((resolve, reject) => open.set(id, { resolve, reject }));
}

function startWorker() {
  const started = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  started.addEventListener("message", ({ data: { id, answer, problem } }) => {
    const { resolve, reject } = open.get(id);
    open.delete(id);
    if (problem) reject(new Problem(problem));
    else resolve(answer);
  });
  started.addEventListener("error", () => {
    const problem = new Problem({
      code: "no_worker",
      title: "The reader cannot be started",
      detail: "A script of this page is missing or damaged, or the browser is too old.",
      action: "Load the page anew, or take a browser of 2023 or later.",
    });
    for (const { reject } of open.values()) reject(problem);
    open.clear();
  });
  return started;
}

export async function describe() {
  checkBrowser();
  return ask("describe");
}

// Whatever is read has heat maps where the model has class maps: the nets give them by the way.
export function readPicture(blob) { return ask("picture", { blob }); }

// Frames out, readings in. `waiting` tells how many frames are not answered yet: send the next when it is low.
export class Live {
  constructor({ ready, reading, problem, closed }) {
    Object.assign(this, { reading, problem, sent: 0, answered: 0, open: false, left: false });
    ask("start").then(() => {
      this.open = !this.left;
      if (this.open) ready();
    }, closed);
  }

  get waiting() { return this.sent - this.answered; }

  // The number of the frame that a canvas holds. time: in seconds.
  async send(canvas, time) {
    if (!this.open) return -1;
    const image = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const frame = this.sent;
    this.sent += 1;
    this.#read(frame, image, time);
    return frame;
  }

  async #read(frame, { data, width, height }, time) {
    try {
      const answer = await ask("frame", { image: { data, width, height }, time }, [data.buffer]);
      this.answered += 1;
      if (!this.left) this.reading({ frame, dropped: 0, ...answer });
    } catch (problem) {
      this.answered += 1;
      if (!this.left) this.problem(problem);
    }
  }

  close() {
    this.left = true;
    this.open = false;
  }
}
