// ONNX Runtime Web, which runs the nets in WebAssembly.

import { Problem } from "./problem.js";

// A module with one SIMD instruction, which ONNX Runtime's own cannot do without.
const SIMD = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11);

const NO_WASM = {
  code: "no_webassembly",
  title: "This browser cannot run the nets",
  detail: "It has no WebAssembly with SIMD, or that is turned off.",
  action: "Take a browser of 2023 or later, or allow WebAssembly in its settings.",
};
const NO_FILE = {
  code: "no_file",
  title: "A file of this page cannot be loaded",
  action: "Check the connection and load the page anew. If that does not help, whoever runs the page has to copy its folder again.",
};

export function checkBrowser() {
  if (typeof WebAssembly === "undefined" || !WebAssembly.validate(SIMD)) throw new Problem(NO_WASM);
}

// The bytes of one of the page's files. The browser compares their hash with `integrity`.
export async function load({ path, integrity }) {
  let answer;
  try {
    answer = await fetch(new URL(path, import.meta.url), { integrity });
  } catch {
    throw new Problem({ ...NO_FILE, detail: `${path} is missing, damaged or cannot be reached.` });
  }
  if (!answer.ok) throw new Problem({ ...NO_FILE, detail: `${path}: the server answered ${answer.status}.` });
  return answer.arrayBuffer();
}

export class Runtime {
  // script, binary: the runtime's files.
  static async open({ script, binary }) {
    checkBrowser();
    const runtime = new Runtime();
    const wasmBinary = await load(binary);
    try {
      runtime.ort = await import(new URL(script, import.meta.url).href);
    } catch {
      throw new Problem({ ...NO_FILE, detail: `${script} is missing or damaged.` });
    }
    Object.assign(runtime.ort.env.wasm, { numThreads: 1, wasmBinary }); // more threads take a page that is isolated
    return runtime;
  }

  // A net by its file.
  async net(file) {
    const bytes = new Uint8Array(await load(file));
    const options = { executionProviders: ["wasm"], enableMemPattern: false };
    try {
      return new Net(this.ort, await this.ort.InferenceSession.create(bytes, options));
    } catch (error) {
      throw new Problem({ ...NO_FILE, detail: `${file.path} cannot be opened: ${error.message}` });
    }
  }
}

class Net {
  constructor(ort, session) {
    Object.assign(this, { ort, session });
  }

  // The outputs by name for one input, a Float32Array of this shape.
  run(values, shape) {
    const [name] = this.session.inputNames;
    return this.session.run({ [name]: new this.ort.Tensor("float32", values, shape) });
  }
}
