"""The page that classifies photos: pixels as in Python, and answers in a real browser, without any other server."""

import base64
import functools
import http.server
import io
import json
import queue
import shutil
import subprocess
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from solution import checkpoint
from solution.__main__ import main
from solution.contracts import InputError
from solution.data.decode import resize
from solution.evaluate.classify import prepared, probabilities
from solution.export import files
from solution.export.config import ExportConfig
from solution.export.exporter import make
from solution.export.web import RUNTIME, RUNTIME_VERSION, page_files
from solution.runtime import ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: the page is not tested in a browser"),
]
SECONDS = 150
PREPARE = """
const { decoded, squared, normalized } = await import("/pictures.js");
const said = [];
for (const { photo, spec } of given) {
  const square = squared(await decoded(new Blob([bytes(photo)])), spec);
  said.push({ pixels: Array.from(square.data), values: Array.from(normalized(square, spec)) });
}
"""
VISIT = """
const frame = document.createElement("iframe");
frame.allow = "camera";
frame.width = 900;
frame.src = "/index.html";
const ready = new Promise(done => frame.addEventListener("load", done, { once: true }));
document.body.append(frame);
await ready;
const page = frame.contentDocument, find = query => page.querySelector(query);
const text = query => find(query).textContent.trim();
const until = async fine => { while (!fine()) await new Promise(done => setTimeout(done, 20)); };
const said = { answers: [] };
await until(() => text(".problem") || /Ready/.test(text(".status")));
said.problem = text(".problem");
said.status = text(".status");
const { DataTransfer, File, DragEvent } = frame.contentWindow;
async function drop(name, parts) {
  const data = new DataTransfer();
  data.items.add(new File(parts, name));
  find("figcaption").textContent = find(".problem").textContent = "";
  find(".drop").dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
  await until(() => text("figcaption") || text(".problem"));
  const rows = [...page.querySelectorAll(".row")].map(row => [...row.children].map(cell => cell.textContent));
  return { best: text(".best"), rows, caption: text("figcaption"), problem: text(".problem"),
    bar: find(".bar") && find(".bar").getBoundingClientRect().width };
}
if (!said.problem) {
  for (const { name, photo } of given) said.answers.push(await drop(name, [bytes(photo)]));
  said.notes = await drop("notes.txt", ["no picture"]);
  find(".problem").textContent = "";
  find(".camera").click();
  await until(() => text("figcaption") === "What the camera sees" || text(".problem"));
  said.camera = [text(".best"), text(".problem"), find("video").videoWidth];
  find(".camera").click();
  said.images = page.querySelectorAll("img").length;
  await frame.contentWindow.fetch("http://127.0.0.2:9/").then(() => (said.elsewhere = "reached"),
    () => (said.elsewhere = "refused"));
}
"""
HARNESS = """<!doctype html><link rel="icon" href="data:,"><body><script type="module">
const given = GIVEN, bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
const tell = said => fetch("/said", { method: "POST", body: JSON.stringify(said) });
try {
  SCRIPT
  await tell(said);
} catch (error) { await tell({ error: `${error}` }); }
</script></body>"""


def quiet(_):
    return None


def encoded(pixels, kind="PNG"):
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, kind, quality=95)
    return target.getvalue()


def in_browser(folder, script, given, profile):
    """What the script found out in a browser that has `folder` as its site and reaches nothing else."""
    said = queue.Queue()
    plain = [{name: base64.b64encode(part).decode() if isinstance(part, bytes) else part for name, part in one.items()}
             for one in given]  # fmt: skip
    page = HARNESS.replace("SCRIPT", script).replace("GIVEN", json.dumps(plain))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            if self.path != "/harness":
                return super().do_GET()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            return self.wfile.write(page.encode())

        def do_POST(self):
            said.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    words = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--no-first-run", f"--user-data-dir={profile}",
             "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", "--enable-logging=stderr",
             "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--remote-debugging-port=0",
             f"http://127.0.0.1:{server.server_port}/harness"]  # fmt: skip
    with (profile.parent / "complaints.txt").open("wb") as complaints:
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=complaints)
        try:
            found = said.get(timeout=SECONDS)
        finally:
            process.terminate()
            process.wait(30)
            server.shutdown()
            server.server_close()
    assert "error" not in found, found
    return found


@pytest.fixture(scope="module")
def page(color_net, photos, tmp_path_factory):
    """The color net's page and what its export said."""
    said, folder = [], tmp_path_factory.mktemp("web") / "<colors> & more"
    config = ExportConfig(file=color_net, format="web", out=folder, data=str(photos))
    return make(config, said.append), "\n".join(said)


@pytest.fixture(scope="session")
def runtime(tmp_path_factory):
    """What npm installs for a page."""
    folder = tmp_path_factory.mktemp("npm")
    (folder / "package.json").write_text(json.dumps({"private": True, "dependencies": {RUNTIME: RUNTIME_VERSION}}))
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm on this machine: the net is not run in a browser")
    words = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
    try:
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        pytest.skip("npm's registry does not answer: the net is not run in a browser")
    if done.returncode:
        pytest.skip(f"npm installs nothing here ({done.stderr[-200:]}): the net is not run in a browser")
    return folder / "node_modules"


def test_the_folder_is_whole_names_its_runtime_and_forbids_all_other_origins(page):
    folder, said = page
    assert "top-1 agrees on" in said
    assert "npm install" in said
    assert {file.name for file in folder.iterdir()} == {file.name for file in page_files(folder)}
    assert json.loads((folder / "package.json").read_text())["dependencies"] == {"onnxruntime-web": RUNTIME_VERSION}
    text = (folder / "index.html").read_text()
    assert "&lt;colors&gt; &amp; more" in text
    assert "<colors>" not in text
    assert "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'" in text
    assert not any("http:" in file.read_text() or "https:" in file.read_text() for file in folder.glob("*.[hjc]*s*"))


def test_a_net_that_fails_leaves_no_folder(color_net, photos, tmp_path):
    with pytest.raises(InputError):
        make(ExportConfig(file=color_net, format="web", out=tmp_path / "page", data=str(photos), max_loss=-2.0), quiet)
    assert list(tmp_path.iterdir()) == []


def test_pictures_are_prepared_as_in_python(page, tmp_path):
    chance, given = np.random.default_rng(0), []
    ways = [("area", 0.0), ("area", 0.875), *((name, 0.0) for name in ("nearest", "box", "bilinear", "hamming")),
            ("bicubic", 0.9), ("lanczos", 0.7)]  # fmt: skip
    for interpolation, crop in ways:
        for width, height in ((90, 71), (33, 200), (17, 20), (64, 48)):
            small = chance.integers(0, 256, (height // 3 + 1, width // 3 + 1, 3), dtype=np.uint8)
            photo = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
            spec = {"size": 32, "crop": crop, "interpolation": interpolation, "mean": [0.5, 0.4, 0.3],
                    "std": [0.2, 0.3, 0.25]}  # fmt: skip
            given.append({"photo": photo, "spec": spec})
    gray = {**given[0], "spec": {**given[0]["spec"], "mean": [0.5], "std": [0.25]}}
    given.append(gray)
    sent = [{**one, "photo": encoded(one["photo"])} for one in given]
    answers = in_browser(page[0], PREPARE, sent, tmp_path / "profile")
    for one, answer in zip(given, answers, strict=True):
        spec = one["spec"]
        wanted = resize(one["photo"], 32, spec["crop"], spec["interpolation"]).astype(int)
        got = np.array(answer["pixels"]).reshape(wanted.shape)
        assert np.abs(got - wanted).max() <= 1, spec
        values = got @ [[0.299], [0.587], [0.114]] if len(spec["mean"]) == 1 else got
        normal = (values / 255 - spec["mean"]) / spec["std"]
        assert np.array(answer["values"]).reshape(len(spec["mean"]), -1) == pytest.approx(
            normal.reshape(-1, len(spec["mean"])).T, abs=1e-5
        )


def test_a_transparent_and_a_turned_picture_are_seen_as_in_python(page, color_net, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (40, 60, 4), dtype=np.uint8)
    pixels[..., 3] = np.where(np.arange(60) < 30, 255, 0)[None]
    turned, target = Image.fromarray(pixels[..., :3]), io.BytesIO()
    exif = Image.Exif()
    exif[274] = 6
    turned.save(target, "PNG", exif=exif)
    spec = checkpoint.read_header(color_net)
    about = {"size": spec.size, "crop": 0, "interpolation": "area", "mean": spec.mean, "std": spec.std}
    sent = [{"photo": photo, "spec": about} for photo in (encoded(pixels), target.getvalue())]
    for one, answer in zip(sent, in_browser(page[0], PREPARE, sent, tmp_path / "profile"), strict=True):
        wanted = prepared(one["photo"], "photo", spec).astype(int)
        assert np.abs(np.array(answer["pixels"]).reshape(wanted.shape) - wanted).max() <= 1


def test_without_the_runtime_the_page_says_what_to_type(page, tmp_path):
    found = in_browser(page[0], VISIT, [], tmp_path / "profile")
    assert found["problem"].startswith("onnxruntime-web is not here. Type npm install")


def check_answers(found, net, paths):
    """Python's answers for the same photos."""
    opened = files.open_file(net)
    for answer, (path, wanted) in zip(found["answers"], probabilities(opened, paths, opened.metadata), strict=True):
        assert answer["problem"] == ""
        labels, shares = zip(*answer["rows"], strict=True)
        assert answer["best"] == labels[0]
        by_label = dict(zip(opened.metadata.labels, wanted, strict=True))
        assert [float(share.removesuffix(" %")) for share in shares] == pytest.approx(
            [100 * by_label[label] for label in labels], abs=2.0
        ), path
        assert answer["bar"] > 10


def test_dropped_photos_and_the_camera_are_classified(page, runtime, photos, tmp_path):
    folder = tmp_path / "site"
    shutil.copytree(page[0], folder)
    (folder / "node_modules").symlink_to(runtime)
    paths = sorted(photos.rglob("*.png"))[::7][:6] or sorted(file for file in photos.rglob("*") if file.is_file())[:6]
    names = ["<img src=x onerror=alert(1)>.png", *(path.name for path in paths[1:])]
    given = [{"name": name, "photo": path.read_bytes()} for name, path in zip(names, paths, strict=True)]
    found = in_browser(folder, VISIT, given, tmp_path / "profile")
    assert found["problem"] == ""
    assert found["status"] == "Ready: 3 classes, pictures of 32 x 32 pixels."
    check_answers(found, page[0] / "net.onnx", paths)
    assert [answer["caption"] for answer in found["answers"]] == names
    assert found["images"] == 1
    assert found["notes"]["problem"] == "notes.txt: no picture that this browser can read"
    best, problem, width = found["camera"]
    assert best in ("blue", "green", "red")
    assert problem == ""
    assert width > 0
    assert found["elsewhere"] == "refused"
    complaints = (tmp_path / "complaints.txt").read_text(errors="replace").splitlines()
    assert [line for line in complaints if "CONSOLE" in line and "127.0.0.2" not in line] == []


@pytest.mark.long
@pytest.mark.real_data
def test_ten_real_photos_are_answered_as_in_python(runtime, real_data, tmp_path):
    folder, data = tmp_path / "site", real_data / "recycle9.tar"
    main(["export", str(ROOT / "pretrained/recycle9/after.safetensors"), "--format", "web", "--data", str(data),
          "--out", str(folder)])  # fmt: skip
    (folder / "node_modules").symlink_to(runtime)
    with tarfile.open(data) as archive:
        members = [member for member in archive if member.isfile() and member.name.endswith((".jpg", ".png"))]
        for number, member in enumerate(members[:: len(members) // 10][:10]):
            (tmp_path / f"{number}{Path(member.name).suffix}").write_bytes(archive.extractfile(member).read())
    paths = sorted(tmp_path.glob("[0-9].*"))
    given = [{"name": path.name, "photo": path.read_bytes()} for path in paths]
    found = in_browser(folder, VISIT, given, tmp_path / "profile")
    assert len(found["answers"]) == 10
    check_answers(found, folder / "net.onnx", paths)
