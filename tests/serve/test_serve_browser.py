"""The whole way: the command serves, Chromium opens the page, a photo is dropped, both nets answer."""

import base64
import json
import queue
import re
import shutil
import subprocess
import threading
import time
from html import unescape

import pytest

from solution.__main__ import main
from solution.serve import web

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
LIMIT_BYTES = 300_000
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: the page is not tested in a browser"),
]

HARNESS = """<!doctype html><link rel="icon" href="data:,">
<iframe width=380 height=900 src="/"></iframe><iframe width=1600 height=900 src="/"></iframe>
<script>
const files = FILES, limit = LIMIT;
const loaded = frame => new Promise(done => frame.addEventListener("load", done, { once: true }));
function drop(frame, parts, name) {
  const { DataTransfer, File, DragEvent } = frame.contentWindow, data = new DataTransfer();
  data.items.add(new File(parts, name));
  const event = new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
  frame.contentDocument.querySelector(".drop").dispatchEvent(event);
}
async function sent(frame, parts, name) { const done = loaded(frame); drop(frame, parts, name); await done; }
const all = (frame, query) => [...frame.contentDocument.querySelectorAll(query)];
const texts = (frame, query) => all(frame, query).map(node => node.textContent.trim());
async function visit(frame) {
  await loaded(frame);
  const photo = Uint8Array.from(atob(files.photo), letter => letter.charCodeAt(0));
  await sent(frame, [photo], "photo.jpg");
  const root = frame.contentDocument.documentElement, image = all(frame, "img")[0];
  await image.decode();
  const said = { roles: texts(frame, "h2"), verdict: texts(frame, ".verdict")[0], figures: texts(frame, "dd"),
    classes: texts(frame, ".row span:first-child"), overflow: root.scrollWidth - root.clientWidth,
    bars: all(frame, ".bar").map(bar => bar.getBoundingClientRect().width), image: image.naturalWidth,
    tops: all(frame, ".net").map(net => Math.round(net.getBoundingClientRect().top)) };
  drop(frame, [new Uint8Array(limit + 1)], "large.jpg");
  said.large = texts(frame, ".problem")[0];
  await sent(frame, ["no picture"], "notes.txt");
  said.notes = texts(frame, ".problem")[0];
  return said;
}
Promise.all([...document.querySelectorAll("iframe")].map(visit)).then(said => {
  const told = document.createElement("pre");
  told.id = "said";
  told.textContent = JSON.stringify(said);
  document.body.replaceChildren(told);
});
</script>"""


def with_harness(app, photo):
    """`app`, and beside it a page that uses it as a visitor would."""
    files = json.dumps({"photo": base64.b64encode(photo).decode()})
    harness = HARNESS.replace("FILES", files).replace("LIMIT", str(LIMIT_BYTES)).encode()

    def both(environ, start_response):
        if environ["PATH_INFO"] != "/harness":
            return app(environ, start_response)
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
        return [harness]

    return both


@pytest.fixture
def key(photo, monkeypatch):
    """Where `python -m solution serve` answers, with the harness beside its page."""
    pytest.importorskip("flask", reason='the page needs the extra web: pip install -e ".[web]"')
    original, servers = web.server, queue.Queue()

    def server(app, *where):
        servers.put(original(with_harness(app, photo), *where))
        return servers.queue[0]

    monkeypatch.setattr(web, "server", server)
    words = ["serve", "--port", "0", "--limit-mb", str(LIMIT_BYTES / 1e6)]
    thread = threading.Thread(target=main, args=(words,), daemon=True)
    thread.start()
    deadline = time.monotonic() + 120
    while servers.empty():
        assert thread.is_alive(), "the command ended before it served"
        assert time.monotonic() < deadline, "the command does not serve"
        time.sleep(0.05)
    made = servers.queue[0]
    assert made.effective_host == "127.0.0.1"
    yield f"http://127.0.0.1:{made.effective_port}"
    made.close()
    thread.join(30)


def visited(key, folder):
    """What the harness found out, and what the browser had to complain of."""
    words = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--no-first-run", f"--user-data-dir={folder / 'user'}",
             "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--enable-logging=stderr",
             "--virtual-time-budget=60000", "--dump-dom", f"{key}/harness"]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    found = re.search(r'<pre id="said">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(unescape(found[1])), done.stderr


def test_a_photo_dropped_in_a_real_browser_is_answered_by_both(key, tmp_path):
    (phone, wide), complaints = visited(key, tmp_path)
    for seen in (phone, wide):
        assert seen["roles"] == ["Before", "After"]
        assert seen["figures"][1::3] == ["1,688,940", "667,404"]
        assert all(float(ms) > 0 for ms in seen["figures"][::3])
        assert len(seen["classes"]) == len(seen["bars"]) == 10
        assert seen["bars"][0] > 20
        assert re.match(r"(Both predict|They differ)", seen["verdict"])
        assert seen["image"] > 50
        assert seen["overflow"] == 0
        assert seen["large"] == "This file is larger than 0.3 MB, the most that is taken."
        assert seen["notes"].startswith("notes.txt: not an image")
    assert phone["tops"][0] < phone["tops"][1]
    assert wide["tops"][0] == wide["tops"][1]
    assert "CONSOLE" not in complaints
