// Classifies a dropped, pasted or chosen photo, or what the camera sees, by the net beside this page.

import { decoded, normalized, pixelsOf, squared } from "./pictures.js";

const RUNTIME = new URL("node_modules/onnxruntime-web/dist/", location.href).href;
const MOST_BYTES = 50e6, SHOWN = 5, PAUSE_MS = 150;
const find = (query) => document.querySelector(query);
const drop = find(".drop"), input = find("input"), camera = find(".camera"), main = find("main");
const image = find("img"), video = find("video"), problem = find(".problem"), status = find(".status");
let net = null, runtime = null, session = null, stream = null;

async function begin() {
  net = await (await fetch("net.json")).json();
  runtime = await import(`${RUNTIME}ort.wasm.bundle.min.mjs`).catch(() => {
    throw new Error("onnxruntime-web is not here. Type npm install in this folder, then load the page again.");
  });
  runtime.env.wasm.numThreads = 1;
  runtime.env.wasm.wasmPaths = RUNTIME;
  session = await runtime.InferenceSession.create(net.file, { executionProviders: ["wasm"] });
  input.disabled = camera.disabled = false;
  status.textContent = `Ready: ${net.labels.length} classes, pictures of ${net.size} x ${net.size} pixels.`;
}

// Probabilities by class, likeliest first, and the milliseconds that the net took.
async function classified(pixels) {
  const values = normalized(squared(pixels, net), net), shape = [1, net.mean.length, net.size, net.size];
  const start = performance.now();
  const outputs = await session.run({ [net.input]: new runtime.Tensor("float32", values, shape) });
  const ms = performance.now() - start, logits = outputs[net.output].data, most = Math.max(...logits);
  const shares = Array.from(logits, (logit) => Math.exp(logit - most));
  const total = shares.reduce((sum, share) => sum + share, 0);
  if (!Number.isFinite(total)) throw new Error("The net answers with numbers that are none: export it again.");
  const ranked = net.labels.map((label, index) => [label, shares[index] / total]);
  return { ranked: ranked.sort((one, other) => other[1] - one[1]), ms };
}

function element(name, looks, text = "") {
  const made = document.createElement(name);
  made.className = looks;
  made.textContent = text; // names of classes and files are never read as HTML
  return made;
}

function show({ ranked, ms }, caption) {
  find(".best").textContent = ranked[0][0];
  find("ol").replaceChildren(...ranked.slice(0, SHOWN).map(([label, share]) => {
    const line = document.createElement("li"), row = element("div", "row"), track = element("div", "track");
    row.append(element("span", "", label), element("span", "", `${(100 * share).toFixed(1)} %`));
    const bar = element("div", "bar");
    bar.style.width = `${100 * share}%`;
    track.append(bar);
    track.setAttribute("aria-hidden", "true");
    line.append(row, track);
    return line;
  }));
  find(".time").textContent = `The net took ${ms < 0.1 ? "less than 0.1" : ms.toPrecision(2)} ms in this browser.`;
  find("figcaption").textContent = caption;
  image.hidden = stream !== null;
  video.hidden = stream === null;
  main.hidden = false;
}

async function take(files) {
  if (!files.length || session === null) return;
  const file = files[0];
  stop();
  problem.textContent = "";
  try {
    if (file.size > MOST_BYTES) throw new Error(`larger than ${MOST_BYTES / 1e6} MB, the most that is taken`);
    const pixels = await decoded(file).catch(() => {
      throw new Error("no picture that this browser can read");
    });
    const answer = await classified(pixels);
    URL.revokeObjectURL(image.src);
    image.src = URL.createObjectURL(file);
    show(answer, file.name);
  } catch (error) {
    problem.textContent = `${file.name}: ${error.message}`;
  }
}

async function watch() {
  problem.textContent = "";
  try {
    if (!navigator.mediaDevices) throw new Error("browsers lend it to pages of this machine and of https alone");
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    video.srcObject = stream;
    await video.play();
    camera.textContent = "Stop the camera";
    while (stream !== null) {
      const answer = await classified(pixelsOf(video, video.videoWidth, video.videoHeight));
      if (stream !== null) show(answer, "What the camera sees");
      await new Promise((done) => setTimeout(done, PAUSE_MS));
    }
  } catch (error) {
    stop();
    problem.textContent = `There is no camera: ${error.message}`;
  }
}

function stop() {
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = video.srcObject = null;
  camera.textContent = "Use the camera";
}

input.addEventListener("change", () => take(input.files));
camera.addEventListener("click", () => (stream === null ? watch() : stop()));
document.addEventListener("paste", (event) => take(event.clipboardData.files));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
document.addEventListener("dragleave", () => drop.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  take(event.dataTransfer.files);
});
begin().catch((error) => {
  status.textContent = "";
  problem.textContent = error.message;
});
