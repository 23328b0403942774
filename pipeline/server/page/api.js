// The server as the page sees it: one function for pictures, one class for moving ones.

import { Problem } from "./problem.js";

export const STATES = { waiting: "Connecting", ready: "Connected", lost: "Not connected" };
const QUALITY = 0.82; // of a frame's JPEG
const UNREACHABLE = {
  code: "unreachable",
  title: "The server cannot be reached",
  action: "Check that it runs and that this device is connected to it.",
};
// What the server says by closing; see the table of close codes in the API's description.
const CLOSED = {
  1009: { code: "too_large", title: "The frame is too large for the server" },
  1011: { code: "our_fault", title: "The server failed", action: "Try again." },
  1012: { code: "stopped", title: "The server was stopped", action: "Try again once it runs." },
  4400: { code: "not_understood", title: "The server did not understand this page", action: "Load the page anew." },
  4401: { code: "no_token", title: "The token is not the server's" },
  4403: { code: "explain_off", title: "The server gives no heat maps any more", action: "Load the page anew." },
  4408: { code: "idle", title: "Nothing was sent for a while" },
  4429: { code: "too_often", title: "Too much was sent in a short time", action: "Wait a little." },
  4503: { code: "busy", title: "The server is busy", action: "Others are using it. Try again in a little while." },
};

let token = "";
export function useToken(value) { token = value; }
export function hasToken() { return token !== ""; }

export async function describe() {
  const answer = await ask("/v1/model");
  return answer.json();
}

// explain: whether the faces shall say where their labels come from.
export async function readPicture(blob, name, explain) {
  const form = new FormData();
  form.append("image", blob, name);
  const answer = await ask(`/v1/read?explain=${explain}`, { method: "POST", body: form });
  return answer.json();
}

async function ask(path, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let answer;
  try {
    answer = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch {
    throw new Problem(UNREACHABLE);
  }
  if (answer.ok) return answer;
  let told = { code: "unknown", title: `The server answered ${answer.status}` };
  if (answer.headers.get("content-type")?.startsWith("application/problem+json")) told = await answer.json();
  throw new Problem(told);
}

// Frames out, readings in. `waiting` tells how many frames are not answered yet: send the next when it is low.
export class Live {
  constructor({ ready, reading, problem, closed }) {
    this.sent = 0;
    this.answered = 0;
    this.open = false;
    this.left = false;
    this.explain = false; // what the server was told last
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    this.socket = new WebSocket(`${scheme}//${location.host}/v1/live`);
    this.socket.addEventListener("open", () => { if (token) this.socket.send(JSON.stringify({ token })); });
    this.socket.addEventListener("message", (event) => {
      const message = JSON.parse(event.data);
      if (message.type === "ready") {
        this.open = true;
        ready();
        return;
      }
      this.answered = message.frame + 1;
      if (message.type === "reading") reading(message);
      else problem(new Problem(message.problem));
    });
    this.socket.addEventListener("close", (event) => {
      this.open = false;
      if (!this.left) closed(new Problem(CLOSED[event.code] ?? UNREACHABLE));
    });
  }

  get waiting() { return this.sent - this.answered; }

  // The number of the frame that a canvas holds, -1 where it could not be sent. The server takes the time itself.
  async send(canvas, _time, explain) {
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
    if (!this.open || this.left || !blob) return -1;
    if (explain !== this.explain) this.socket.send(JSON.stringify({ explain }));
    this.explain = explain;
    this.socket.send(blob);
    return this.sent++;
  }

  close() {
    this.left = true;
    this.socket.close(1000);
  }
}
