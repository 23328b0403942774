// The page: a camera, a picture or a video goes to what reads it, which api.js stands for, and the readings are shown.

import { Live, STATES, describe, hasToken, readPicture, useToken } from "./api.js";
import { Overlay, TimeLine, clock } from "./drawing.js";
import { Problem } from "./problem.js";

const $ = (id) => document.getElementById(id);
const [stage, video, picture, overlay] = ["stage", "video", "picture", "overlay"].map($);

const FRAME_WIDTH = 640; // pixels of what is sent: faces in it are read at 48x48
const IN_FLIGHT = 2; // frames that are on their way at once
const SHOWN_FACES = 6;
const NO_FACE_AFTER = 1500; // milliseconds without a face until the page says so
const SPEAK_EVERY = 5000; // milliseconds at least between two announcements
const RETRY = [1, 2, 4, 8, 15]; // seconds
const LARGEST_PICTURE = 2400; // pixels of the longer side, where a file is too large to be sent as it is
const CONDITIONS = { tiny: "too small to be read well", turned: "turned away", edge: "cut off at the edge" };

const state = {
  mode: "idle", // idle, camera, picture, video
  file: null, // of the picture that is shown
  about: null, // what /v1/model says
  model: new Map(), // label -> {colour, emoji}
  emoji: new Map(), // path -> Image
  live: null,
  stream: null,
  paused: false,
  reading: null,
  followed: null, // a face's track; null for the largest
  times: new Map(), // frame -> seconds on the time line
  started: 0,
  lastFace: 0,
  recent: [], // when the last readings came
  retries: 0,
  run: 0, // counts sources and readings of a picture, so that what comes late from an earlier one is left alone
};
const painter = new Overlay(overlay, state.model, state.emoji);
const timeLine = new TimeLine($("timeline"), state.model);

// ---- what is said ----------------------------------------------------------------------------------------------

function connection(name) {
  $("connection").dataset.state = name;
  $("connection").querySelector(".text").textContent = STATES[name];
}

function trouble(title, text, again = null, label = "Try again") {
  $("trouble").querySelector("h2").textContent = title;
  $("trouble").querySelector("p").textContent = text;
  $("again").hidden = !again;
  $("again").textContent = label;
  $("again").onclick = again;
  $("welcome").hidden = true;
  $("hint").hidden = true;
  $("trouble").hidden = false;
  stage.classList.add("troubled");
}

function noTrouble() {
  $("trouble").hidden = true;
  stage.classList.remove("troubled");
}

function hint(text) {
  if ($("hint").textContent !== text) $("hint").textContent = text;
  $("hint").hidden = !text;
}

let spokenAt = -Infinity;
function speak(text, now = false) {
  if (!now && performance.now() - spokenAt < SPEAK_EVERY) return;
  if ($("spoken").textContent === text) return;
  spokenAt = performance.now();
  $("spoken").textContent = text;
}

function percent(value) { return `${Math.round(100 * value)}%`; }

function nameOf(face, index) { return face.track === null ? `Face ${index + 1}` : `Person ${face.track}`; }

function sentence(face, index) {
  const value = percent(face.probabilities[face.label]);
  return face.uncertain ? `${nameOf(face, index)}: uncertain, perhaps ${face.label}, ${value}` : `${nameOf(face, index)}: ${face.label}, ${value}`;
}

// ---- one source at a time ---------------------------------------------------------------------------------------

function begin(mode) {
  leave();
  state.mode = mode;
  stage.dataset.mode = mode;
  noTrouble();
  hint("");
  $("welcome").hidden = true;
  $("controls").hidden = false;
  video.hidden = mode === "picture";
  picture.hidden = mode !== "picture";
  overlay.hidden = false;
  $("camera-field").hidden = mode !== "camera";
  $("mirror-field").hidden = mode !== "camera";
  $("play").hidden = mode !== "video";
  $("pause").hidden = mode === "picture";
  $("stop").textContent = mode === "camera" ? "Stop" : "Close";
  $("replace").hidden = mode === "camera";
  $("line").hidden = true;
  $("timeline").classList.toggle("seekable", mode === "video");
  video.classList.toggle("mirrored", mirrored());
  timeLine.clear(null);
  showFaces([]);
  setPaused(false);
  stage.focus({ preventScroll: true });
  return state.run;
}

function leave() {
  state.run += 1;
  state.live?.close();
  state.stream?.getTracks().forEach((track) => track.stop());
  for (const element of [video, picture]) {
    if (element.src.startsWith("blob:")) URL.revokeObjectURL(element.src);
    element.removeAttribute("src");
  }
  video.srcObject = null;
  stage.style.removeProperty("--shape");
  Object.assign(state, { live: null, stream: null, file: null, reading: null, followed: null, retries: 0, recent: [], mode: "idle" });
  state.times.clear();
  $("rate").textContent = "";
  painter.clear();
  overlay.setAttribute("aria-label", "No reading");
  showFaces([]);
}

function stop() {
  leave();
  stage.dataset.mode = "idle";
  noTrouble();
  hint("");
  for (const element of [video, picture, overlay, $("controls")]) element.hidden = true;
  $("welcome").hidden = false;
  $("line").hidden = true;
  $("timeline").classList.remove("seekable");
  timeLine.clear(null);
  drawTimeLine();
  $("start").focus();
}

function setPaused(paused) {
  state.paused = paused;
  $("pause").textContent = paused ? "Resume" : "Pause";
  $("pause").setAttribute("aria-pressed", String(paused));
}

function mirrored() { return state.mode === "camera" && $("mirror").checked; }

// ---- camera -----------------------------------------------------------------------------------------------------

const CAMERA_TROUBLE = {
  NotAllowedError: ["The camera was not allowed", "Allow it for this page, by the camera sign in the address bar or in the browser's settings, and try again."],
  NotFoundError: ["No camera was found", "Connect one and try again, or choose a picture or video instead."],
  NotReadableError: ["The camera is busy", "Another program or tab seems to use it. Close that and try again."],
  OverconstrainedError: ["That camera is gone", "Connect it again, or start another one."],
};
CAMERA_TROUBLE.SecurityError = CAMERA_TROUBLE.NotAllowedError;
CAMERA_TROUBLE.AbortError = CAMERA_TROUBLE.NotReadableError;

async function startCamera(device = null) {
  const run = begin("camera");
  const again = () => startCamera();
  if (!navigator.mediaDevices?.getUserMedia) {
    trouble("This page may not use a camera", "Browsers give a camera only to pages that come by https, or from this very computer by http://localhost.");
    return;
  }
  hint("Waiting for the camera");
  let stream;
  try {
    const size = { width: { ideal: 1280 }, height: { ideal: 720 } };
    stream = await navigator.mediaDevices.getUserMedia({
      audio: false,
      video: device ? { ...size, deviceId: { exact: device } } : { ...size, facingMode: "user" },
    });
  } catch (error) {
    if (run !== state.run) return;
    const [title, text] = CAMERA_TROUBLE[error.name] ?? ["The camera cannot be started", `The browser says: ${error.message || error.name}.`];
    $("controls").hidden = true;
    trouble(title, text, again);
    return;
  }
  if (run !== state.run) {
    stream.getTracks().forEach((track) => track.stop());
    return;
  }
  state.stream = stream;
  stream.getVideoTracks()[0].addEventListener("ended", () => {
    if (run === state.run) trouble("The camera was lost", "It was unplugged or taken by another program.", again);
  });
  video.srcObject = stream;
  await video.play().catch(() => {});
  if (run !== state.run) return;
  hint("");
  fitStage(video.videoWidth, video.videoHeight);
  listCameras(stream.getVideoTracks()[0]);
  state.started = performance.now();
  openLive(run);
}

async function listCameras(current) {
  const cameras = (await navigator.mediaDevices.enumerateDevices()).filter((device) => device.kind === "videoinput");
  $("camera").replaceChildren(...cameras.map((camera, index) => {
    const option = new Option(camera.label || `Camera ${index + 1}`, camera.deviceId);
    option.selected = camera.deviceId === current.getSettings().deviceId;
    return option;
  }));
  $("camera-field").hidden = state.mode !== "camera" || cameras.length < 2;
}

// ---- frames of a camera or video --------------------------------------------------------------------------------

async function openLive(run) {
  if (state.about?.token && !hasToken() && !(await askToken(false))) {
    if (run === state.run) trouble("A token is needed", "Without it this server reads nothing.", () => openLive(run), "Enter the token");
    return;
  }
  if (run !== state.run) return;
  connection("waiting");
  state.lastFace = performance.now();
  state.times.clear();
  state.live = new Live({
    ready() {
      if (run !== state.run) return;
      connection("ready");
      state.retries = 0;
      state.lastFace = performance.now();
      $("line").hidden = false;
      noTrouble();
      drawTimeLine();
    },
    reading(message) { if (run === state.run) took(message); },
    problem(problem) { if (run === state.run) hint(problem.detail || problem.title); },
    closed(problem) { if (run === state.run) lost(problem, run); },
  });
  pump(run, state.live);
}

async function lost(problem, run) {
  state.live = null;
  overlay.setAttribute("aria-label", "No reading");
  if (problem.code === "idle" && state.paused) return; // opened again on resuming
  connection("lost");
  if (problem.code === "no_token") {
    useToken("");
    if (await askToken(true)) openLive(run);
    else if (run === state.run) trouble("A token is needed", "Without it this server reads nothing.", () => openLive(run), "Enter the token");
    return;
  }
  const wait = RETRY[Math.min(state.retries, RETRY.length - 1)];
  state.retries += 1;
  painter.clear();
  trouble(problem.title, `${problem.action} Trying again in ${wait} s.`.trim(), () => openLive(run), "Try now");
  setTimeout(() => { if (run === state.run && !state.live) openLive(run); }, 1000 * wait);
}

const grabber = document.createElement("canvas");
const grabberPen = grabber.getContext("2d", { willReadFrequently: true });

// Sends a frame whenever few enough are on their way, for as long as this connection is the page's.
function pump(run, live) {
  if (run !== state.run || live !== state.live) return;
  let due = true;
  const next = () => {
    if (due) pump(run, live);
    due = false;
  };
  const told = video.requestVideoFrameCallback && !video.paused && !document.hidden; // of each new frame
  if (told) video.requestVideoFrameCallback(next);
  setTimeout(next, told ? 250 : 60); // a video that stops here tells of no further frame
  if (!live.open || live.waiting >= IN_FLIGHT || live.grabbing || !video.videoWidth || video.readyState < 2 || video.seeking) return;
  if (video.paused && video.currentTime === live.last) return; // nothing new to see
  const scale = Math.min(1, FRAME_WIDTH / Math.max(video.videoWidth, video.videoHeight));
  grabber.width = Math.round(video.videoWidth * scale);
  grabber.height = Math.round(video.videoHeight * scale);
  grabberPen.drawImage(video, 0, 0, grabber.width, grabber.height);
  live.last = video.currentTime;
  sendFrame(run, live, state.mode === "video" ? video.currentTime : (performance.now() - state.started) / 1000);
}

async function sendFrame(run, live, time) {
  live.grabbing = true;
  const frame = await live.send(grabber, time, $("why").checked);
  live.grabbing = false;
  if (run === state.run && frame >= 0) state.times.set(frame, time);
}

function took(message) {
  const time = state.times.get(message.frame);
  for (const frame of state.times.keys()) if (frame <= message.frame) state.times.delete(frame);
  const now = performance.now();
  state.recent.push(now);
  while (state.recent[0] < now - 2000) state.recent.shift();
  show(message.reading);
  timeLine.add(time ?? timeLine.now, message.reading.faces);
  drawTimeLine();
  if (message.reading.faces.length) state.lastFace = now;
  const missing = now - state.lastFace > NO_FACE_AFTER;
  hint(missing ? "No face found. Come closer, face the camera, or turn on a light." : "");
  if (missing) speak("No face found");
  const dropped = message.dropped ? `, ${message.dropped} dropped` : "";
  $("rate").textContent = `${Math.round(state.recent.length / 2)} readings/s, ${Math.round(message.milliseconds)} ms${dropped}`;
}

// ---- files ------------------------------------------------------------------------------------------------------

function open(files) {
  const [file] = files;
  if (!file) return;
  if (file.type.startsWith("video/")) openVideo(file);
  else if (file.type.startsWith("image/") || !file.type) openPicture(file);
  else {
    leave();
    trouble("Neither a picture nor a video", `${file.name} is of type ${file.type}. Choose a JPEG, PNG, WebP or GIF picture, or an MP4 or WebM video.`);
  }
  if (files.length > 1) speak(`Of ${files.length} files the first was opened`, true);
}

async function openPicture(file) {
  const run = begin("picture");
  picture.src = URL.createObjectURL(file);
  picture.alt = file.name || "The picture that you chose";
  try {
    await picture.decode();
  } catch {
    if (run === state.run) {
      picture.hidden = true;
      trouble("This is no picture that the browser can show", "The file may be damaged or of a rare format. Save it as JPEG or PNG and try again.");
    }
    return;
  }
  if (run !== state.run) return;
  fitStage(picture.naturalWidth, picture.naturalHeight);
  state.file = file;
  readShown();
}

// Reads the picture that is shown, even if it was read before.
async function readShown() {
  state.run += 1;
  const { run, file } = state;
  const again = () => openPicture(file);
  noTrouble();
  hint("Reading");
  try {
    const reading = await readPicture(await small(file), file.name || "picture", $("why").checked);
    if (run !== state.run) return;
    connection("ready");
    hint(reading.faces.length ? "" : "No face found in this picture.");
    if (!reading.faces.length) speak("No face found in this picture", true);
    show(reading, true);
  } catch (error) {
    if (run !== state.run || !(error instanceof Problem)) throw error;
    hint("");
    if (error.code === "unreachable") connection("lost");
    if (error.code === "no_token") {
      if (await askToken(hasToken())) {
        again();
        return;
      }
    }
    trouble(error.title, `${error.detail ? `${error.detail} ` : ""}${error.action}`, again);
  }
}

// The file itself, or where it is more than the server takes, the picture scaled down.
async function small(file) {
  const limits = state.about?.limits;
  const pixels = picture.naturalWidth * picture.naturalHeight;
  if (!limits || (file.size < limits.body_bytes - 4096 && pixels <= limits.pixels)) return file;
  const scale = Math.min(1, LARGEST_PICTURE / Math.max(picture.naturalWidth, picture.naturalHeight));
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(picture.naturalWidth * scale);
  canvas.height = Math.round(picture.naturalHeight * scale);
  canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
}

function openVideo(file) {
  const run = begin("video");
  video.src = URL.createObjectURL(file);
  video.onerror = () => {
    if (run === state.run && video.error) trouble("This video cannot be played", "The browser does not know its format, or the file is damaged. MP4 (H.264) and WebM play almost everywhere.");
  };
  video.onloadeddata = async () => {
    if (run !== state.run) return;
    if (!video.videoWidth) {
      trouble("There is no picture in this file", "It holds sound only. Choose a video.");
      return;
    }
    fitStage(video.videoWidth, video.videoHeight);
    timeLine.clear(Number.isFinite(video.duration) ? video.duration : null);
    $("position").max = Number.isFinite(video.duration) ? video.duration : 0;
    openLive(run);
    await video.play().catch(() => setPaused(true));
  };
}

function seek(time) {
  video.currentTime = time;
  timeLine.now = time;
  drawTimeLine();
}

// ---- what was read ----------------------------------------------------------------------------------------------

function facesShown(reading) {
  const single = document.querySelector("input[name=faces]:checked").value === "single";
  return single ? reading.faces.slice(0, 1) : reading.faces;
}

function show(reading, now = false) {
  state.reading = reading;
  const faces = facesShown(reading);
  painter.draw(reading, faces, mirrored(), $("why").checked);
  showFaces(faces);
  const text = faces.length ? faces.slice(0, 3).map(sentence).join(". ") : "No face found";
  overlay.setAttribute("aria-label", text);
  if (faces.length) speak(text, now);
}

// Cards are kept from reading to reading, so that the focus stays and bars move.
function showFaces(faces) {
  const list = $("faces");
  const shown = faces.slice(0, SHOWN_FACES).sort((a, b) => a.track - b.track); // cards that stay where they are
  list.classList.toggle("several", shown.length > 1);
  if (!shown.length) {
    if (!list.querySelector(".empty")) {
      const empty = document.createElement("li");
      empty.className = "face";
      empty.append(emptyCard());
      list.replaceChildren(empty);
    }
    const unread = state.mode === "idle" ? "Every face gets a probability for each of these expressions." : "Not read yet";
    list.querySelector(".empty").textContent = state.reading ? "No face found" : unread;
    fillBars(list.querySelector(".bars"), null);
  } else {
    list.querySelector(".empty")?.closest("li").remove();
    const keys = shown.map((face, index) => String(face.track ?? `face ${index}`));
    for (const card of [...list.children]) if (!keys.includes(card.dataset.key)) card.remove();
    shown.forEach((face, index) => {
      let card = [...list.children].find((child) => child.dataset.key === keys[index]);
      if (!card) {
        card = newCard(keys[index], face);
        list.append(card);
      }
      if (list.children[index] !== card) list.insertBefore(card, list.children[index]);
      fillCard(card, face, index, shown.length);
    });
  }
  $("more").hidden = faces.length <= SHOWN_FACES;
  $("more").textContent = `and ${faces.length - SHOWN_FACES} more`;
}

function element(name, className, text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

function newBars() {
  const bars = element("ul", "bars");
  for (const [label, { colour }] of state.model) {
    const row = element("li", "");
    row.dataset.label = label;
    row.style.setProperty("--colour", colour);
    const track = element("span", "track");
    track.setAttribute("aria-hidden", "true");
    track.append(element("span", "fill"));
    row.append(element("span", "", label), track, element("span", "value"));
    bars.append(row);
  }
  return bars;
}

function emptyCard() {
  const fragment = document.createDocumentFragment();
  fragment.append(element("p", "empty"), newBars());
  return fragment;
}

function newCard(key, face) {
  const card = element("li", "face");
  card.dataset.key = key;
  const who = element("button", "who");
  who.type = "button";
  who.disabled = face.track === null;
  const image = new Image();
  image.alt = "";
  who.append(image, element("span", "name"), element("span", "label"));
  who.addEventListener("click", () => {
    state.followed = state.followed === face.track ? null : face.track;
    if (state.reading) showFaces(facesShown(state.reading));
    drawTimeLine();
  });
  card.append(who, newBars(), element("p", "conditions note"));
  return card;
}

function fillCard(card, face, index, number) {
  const who = card.querySelector(".who");
  const emoji = face.uncertain ? state.about.unknown : state.model.get(face.label).emoji;
  const image = who.querySelector("img");
  if (image.getAttribute("src") !== emoji) image.src = emoji;
  who.querySelector(".name").textContent = nameOf(face, index);
  const value = percent(face.probabilities[face.label]);
  who.querySelector(".label").replaceChildren(
    face.uncertain ? "uncertain " : `${face.label} `,
    element("small", "", face.uncertain ? `perhaps ${face.label}, ${value}` : value),
  );
  if (number > 1 && face.track !== null) who.setAttribute("aria-pressed", String(state.followed === face.track));
  else who.removeAttribute("aria-pressed");
  who.title = number > 1 && face.track !== null ? "Show this person's time line" : "";
  who.classList.toggle("uncertain", face.uncertain);
  fillBars(card.querySelector(".bars"), face);
  const reasons = face.conditions.map((name) => CONDITIONS[name] ?? name);
  if (face.status === "whole") reasons.push("no face found: the whole picture was read");
  const text = reasons.length ? `Worth less: ${reasons.join(", ")}.` : "";
  const note = card.querySelector(".conditions");
  if (note.textContent !== text) note.textContent = text;
  note.hidden = !text;
}

function fillBars(bars, face) {
  for (const row of bars.children) {
    const value = face ? face.probabilities[row.dataset.label] : 0;
    row.classList.toggle("most", face !== null && row.dataset.label === face.label);
    row.querySelector(".fill").style.width = `${100 * value}%`;
    row.querySelector(".value").textContent = face ? percent(value) : "";
  }
}

function drawTimeLine() {
  const followed = state.followed !== null && timeLine.points.has(state.followed) ? state.followed : 0;
  $("line-of").textContent = state.mode === "idle" ? "" : followed ? `Person ${followed}` : "Largest face";
  timeLine.draw(followed);
}

function redraw() {
  if (state.reading) painter.draw(state.reading, facesShown(state.reading), mirrored(), $("why").checked);
  drawTimeLine();
}

// On a phone the picture has the media's own shape, on a desk it is as high as the window allows.
function fitStage(width, height) {
  if (width && height) stage.style.setProperty("--shape", `${width} / ${height}`);
}

// ---- the token --------------------------------------------------------------------------------------------------

// Whether the visitor gave one.
async function askToken(wrong) {
  $("token-text").textContent = wrong
    ? "That was not this server's token. Ask whoever runs it."
    : "Ask whoever runs it. It is kept until you close this page.";
  $("token-value").value = "";
  $("token").returnValue = "";
  $("token").showModal();
  await new Promise((resolve) => $("token").addEventListener("close", resolve, { once: true }));
  useToken($("token").returnValue === "use" ? $("token-value").value.trim() : "");
  return hasToken();
}

// ---- wiring -----------------------------------------------------------------------------------------------------

$("start").addEventListener("click", () => startCamera());
for (const id of ["choose", "other", "replace"]) $(id).addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => {
  open($("file").files);
  $("file").value = "";
});
$("stop").addEventListener("click", stop);
$("camera").addEventListener("change", () => startCamera($("camera").value));
$("mirror").addEventListener("change", () => {
  video.classList.toggle("mirrored", mirrored());
  redraw();
});
$("why").addEventListener("change", () => {
  redraw();
  if (!$("why").checked || state.reading?.faces.every((face) => face.explanation)) return;
  if (state.file) readShown();
  else if (state.live) state.live.last = null; // the frame that is shown is sent again, even if the video is paused
  else if (state.paused) openLive(state.run); // the server closed the last one, as nothing was sent
});
for (const choice of document.querySelectorAll("input[name=faces]")) {
  choice.addEventListener("change", () => { if (state.reading) show(state.reading); });
}
$("pause").addEventListener("click", () => {
  if (state.mode === "video") {
    if (video.paused) video.play();
    else video.pause();
    return;
  }
  setPaused(!state.paused);
  if (state.paused) video.pause();
  else {
    video.play();
    if (!state.live) openLive(state.run);
  }
});
video.addEventListener("play", () => {
  if (state.mode !== "video") return;
  setPaused(false);
  if (!state.live && state.retries === 0) openLive(state.run);
});
video.addEventListener("pause", () => { if (state.mode === "video") setPaused(true); });
video.addEventListener("timeupdate", () => {
  if (state.mode !== "video") return;
  $("position").value = video.currentTime;
  $("clock").textContent = `${clock(video.currentTime)} / ${clock(video.duration || 0)}`;
});
$("position").addEventListener("input", () => seek(Number($("position").value)));
$("timeline").addEventListener("click", (event) => {
  const time = state.mode === "video" ? timeLine.timeAt(event.offsetX) : null;
  if (time !== null) seek(time);
});

let dragged = 0;
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    if (![...(event.dataTransfer?.types ?? [])].includes("Files")) return;
    event.preventDefault();
    if (kind === "dragenter") dragged += 1;
    if (kind === "dragleave") dragged -= 1;
    if (kind === "drop") dragged = 0;
    document.body.classList.toggle("dropping", dragged > 0);
    if (kind === "drop") open(event.dataTransfer.files);
  });
}
document.addEventListener("paste", (event) => {
  if (event.clipboardData?.files.length) open(event.clipboardData.files);
});
new ResizeObserver(redraw).observe(stage);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
navigator.mediaDevices?.addEventListener?.("devicechange", () => {
  if (state.stream) listCameras(state.stream.getVideoTracks()[0]);
});

async function meet() {
  connection("waiting");
  try {
    state.about = await describe();
  } catch (problem) {
    connection("lost");
    trouble(problem.title, `${problem.detail} ${problem.action}`.trim(), () => location.reload());
    return;
  }
  connection("ready");
  $("why").disabled = !state.about.explain;
  $("why-not").hidden = state.about.explain;
  for (const { label, colour, emoji } of state.about.expressions) state.model.set(label, { colour, emoji });
  state.model.unknown = state.about.unknown;
  for (const path of [...state.about.expressions.map((entry) => entry.emoji), state.about.unknown]) {
    const image = new Image();
    image.src = path;
    state.emoji.set(path, image);
  }
  document.querySelector(".row-of-faces").append(...state.about.expressions.map(({ emoji }) => {
    const image = new Image();
    image.src = emoji;
    image.alt = "";
    return image;
  }));
  $("faces").replaceChildren(); // a picture that was opened before has made a card without bars
  showFaces([]);
  drawTimeLine();
}

await meet();
