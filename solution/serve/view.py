"""Nets that classify one photo at a time, and what the page shows of them: facts, predictions, whether they agree; and
its text: HTML, CSS and script.
"""

from __future__ import annotations

import base64
import io
import math
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from solution.data.decode import decode
from solution.data.views import as_batch
from solution.evaluate.classify import prepared, softmax
from solution.evaluate.cost import macs
from solution.export import files
from solution.export.files import Model
from solution.export.runtimes import form_for, is_checkpoint, open_in, own_runtime
from solution.formats.exported import Exported
from solution.report.style import css_variables

MOST_PIXELS = 25_000_000
"""Of a photo as it is decoded, which takes a dozen bytes a pixel; a large JPEG is decoded at a fraction of its size."""
_SECONDS, _MOST_ROUNDS, _CALLS = 0.8, 25, 3
"""How long all nets together are timed for one photo, in how many turns at most, and the calls of one turn."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Net:
    """A file of ours, opened.

    role       what it is called on the page: "Before", "After", or its file's name
    file       the file as it was named; `num_bytes` are its own, not those of a form made for a runtime
    macs       of one image, competition's count; None for an exported file, whose graph is not counted
    """

    role: str
    file: Path
    exported: Exported
    num_bytes: int
    macs: int | None


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """{class: probability} of one photo, the likeliest first, and the time of the net's quickest call."""

    classes: dict[str, float]
    ms: float

    @property
    def best(self) -> str:
        """The likeliest class."""
        return next(iter(self.classes))


def open_nets(paths: Sequence[Model], runtime: str | None, folder: Path) -> tuple[Net, ...]:
    """The nets, each in `runtime` or its file's own; forms that must be made for it go into `folder`.

    Two are called Before and After. `InputError` for what is no file of ours or does not run there.
    """
    roles = ("Before", "After") if len(paths) == 2 else tuple(Path(str(path)).name for path in paths)
    return tuple(
        _opened(role, path, runtime or own_runtime(path), folder / str(index))
        for index, (role, path) in enumerate(zip(roles, paths, strict=True))
    )


def _opened(role: str, model: Model, runtime: str, folder: Path) -> Net:
    exported, file = open_in(form_for(model, runtime, folder), runtime), Path(str(model))
    if not is_checkpoint(model):
        return Net(role=role, file=file, exported=exported, num_bytes=exported.num_bytes, macs=None)
    net, header = files.load(model)
    example = torch.zeros(1, len(header.mean), header.size, header.size)
    return Net(
        role=role, file=file, exported=exported, num_bytes=files.listing(model).num_bytes, macs=macs(net, example)
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Panel:
    """Nets that share the processor, so that they classify one photo at a time: else no time would be true.

    quickest_ms   of all calls so far, per net: what else the machine does only ever slows, and photos differ in nothing
                  that takes time
    """

    nets: tuple[Net, ...]
    lock: threading.Lock = field(default_factory=threading.Lock)
    quickest_ms: dict[Net, float] = field(default_factory=dict)

    def predict(self, photo: bytes, name: str) -> list[Prediction]:
        """One prediction per net; they are timed in turns after one warm-up. Raises `UnreadableImage`."""
        with self.lock:
            inputs = [_input(net.exported, photo, name) for net in self.nets]
            logits = [net.exported.run(images) for net, images in zip(self.nets, inputs, strict=True)]
            self._time(inputs)
        return [
            Prediction(classes=_ranked(net.exported.metadata.labels, own), ms=self.quickest_ms[net])
            for net, own in zip(self.nets, logits, strict=True)
        ]

    def _time(self, inputs: Sequence[np.ndarray]) -> None:
        end = time.perf_counter() + _SECONDS
        for _ in range(_MOST_ROUNDS):
            for net, images in zip(self.nets, inputs, strict=True):
                times = [_call_ms(net.exported, images) for _ in range(_CALLS)]
                self.quickest_ms[net] = min(self.quickest_ms.get(net, math.inf), *times)
            if time.perf_counter() >= end:
                return


def _call_ms(exported: Exported, images: np.ndarray) -> float:
    start = time.perf_counter()
    exported.run(images)
    return 1e3 * (time.perf_counter() - start)


def _input(exported: Exported, photo: bytes, name: str) -> np.ndarray:
    """(1, 3, size, size) float32, normalized."""
    metadata = exported.metadata
    images = as_batch(prepared(photo, name, metadata, MOST_PIXELS)[None], (metadata.mean, metadata.std))
    return np.ascontiguousarray(images.numpy())


def _ranked(classes: tuple[str, ...], logits: np.ndarray) -> dict[str, float]:
    shares = softmax(torch.from_numpy(np.array(logits, dtype=np.float32)))[0].tolist()
    return dict(sorted(zip(classes, shares, strict=True), key=lambda pair: -pair[1]))


_SHOWN_CLASSES, _SHOWN_SIDE = 5, 480


def too_large(limit_bytes: int) -> str:
    """The message about a file over the limit."""
    return f"This file is larger than {limit_bytes / 1e6:g} MB, the most that is taken."


def always(panel: Panel, limit_bytes: int) -> dict[str, Any]:
    """What every form of the page shows."""
    return {
        "css": css_variables() + CSS,
        "script": SCRIPT,
        "limit_bytes": limit_bytes,
        "limit": f"{limit_bytes / 1e6:g} MB",
        "too_large": too_large(limit_bytes),
        "nets": [_facts(net) for net in panel.nets],
    }


def _facts(net: Net) -> dict[str, str]:
    return {
        "role": net.role,
        "look": net.role.lower() if net.role in ("Before", "After") else "after",
        "file": str(net.file),
        "runtime": net.exported.runtime,
        "macs": "not counted" if net.macs is None else f"{net.macs:,}",
        "bytes": f"{net.num_bytes:,}",
    }


def answered(panel: Panel, data: bytes, name: str) -> dict[str, Any]:
    """The photo and the predictions of all nets. Raises `UnreadableImage`."""
    predictions = panel.predict(data, name)
    shown = [{"ms": f"{own.ms:.3g}", "classes": list(own.classes.items())[:_SHOWN_CLASSES]} for own in predictions]
    with panel.lock:  # decoding a very large photo takes memory: one at a time
        photo = {"name": name, "source": _preview(data, name)}
    return {"photo": photo, "predictions": shown, "verdict": " ".join(_verdict(panel.nets, predictions))}


def _preview(data: bytes, name: str) -> str:
    """A small copy as a data URI, whatever format was sent."""
    image = Image.fromarray(decode(data, name, _SHOWN_SIDE, MOST_PIXELS))
    image.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE))
    target = io.BytesIO()
    image.save(target, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(target.getvalue()).decode()}"


def _verdict(nets: tuple[Net, ...], predictions: list[Prediction]) -> Iterator[str]:
    """Whether the nets agree; of two, what After saves."""
    if len({own.best for own in predictions}) > 1:
        each = (f"{net.role} predicts {own.best}" for net, own in zip(nets, predictions, strict=True))
        yield f"They differ: {', '.join(each)}."
    elif len(nets) > 1:
        yield f"{'Both' if len(nets) == 2 else 'All'} predict {predictions[0].best}."
    if len(nets) == 2:
        yield f"After against Before: {', '.join(_saved(*nets, predictions[0].ms / predictions[1].ms))}."


def _saved(before: Net, after: Net, speedup: float) -> Iterator[str]:
    if before.macs and after.macs:
        yield f"{before.macs / after.macs:.1f} times fewer MACs"
    yield f"{before.num_bytes / after.num_bytes:.1f} times fewer bytes"
    yield f"{speedup:.1f} times as fast"


CSS = """
*{box-sizing:border-box}
:root{color-scheme:light dark;--shade:#f4f6f8;--wrong:#a1260d}
@media (prefers-color-scheme:dark){:root{--shade:#1b222a;--wrong:#ff9b84}}
html{font:clamp(16px,0.35vw + 14.5px,21px)/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
body{margin:0 auto;max-width:72rem;padding:1.25rem 1rem 3rem;background:var(--paper);color:var(--ink)}
h1{font-size:1.9rem;line-height:1.15;margin:0.2rem 0} h2{font-size:1.25rem;margin:0}
p{margin:0.4rem 0;max-width:70ch} .faint{color:var(--faint)} .file{overflow-wrap:anywhere;font-size:0.85rem}
.drop{display:grid;grid-template-columns:minmax(0,1fr);justify-items:center;gap:0.3rem;margin:0.9rem 0;
padding:0.9rem 1rem;text-align:center;border:2px dashed var(--faint);border-radius:0.7rem;background:var(--shade)}
.drop.over{border-style:solid;border-color:var(--after)} .drop strong{font-size:1.15rem}
.drop.busy{opacity:0.55} .drop.busy strong::after{content:" ..."}
input,button{font:inherit;max-width:100%} input[type=file]{color:var(--faint)}
input:focus-visible,button:focus-visible{outline:3px solid var(--after);outline-offset:2px}
.problem{margin:1rem 0;border-left:0.35rem solid var(--wrong);padding:0.5rem 0.9rem;background:var(--shade);
overflow-wrap:anywhere}
.problem:empty{display:none}
.answer{display:grid;gap:1.2rem} figure{margin:0} .panels{display:grid;gap:1.2rem}
img{display:block;width:100%;max-width:18rem;max-height:14rem;object-fit:contain;object-position:left top}
figcaption{color:var(--faint);font-size:0.85rem;overflow-wrap:anywhere}
@media (min-width:44rem){.panels{grid-template-columns:repeat(auto-fit,minmax(18rem,1fr))}}
@media (min-width:64rem){img{max-height:22rem} .answer.seen{grid-template-columns:18rem 1fr}
.answer.seen>.verdict{grid-column:span 2}}
.net{background:var(--shade);border-radius:0.7rem;padding:1rem;min-width:0}
.facts{display:grid;grid-template-columns:repeat(3,auto);gap:0.2rem 0.7rem;margin:0.7rem 0}
.facts dt{color:var(--faint);font-size:0.85rem} .facts div{min-width:0}
.facts dd{margin:0;font-size:0.95rem;font-variant-numeric:tabular-nums;font-weight:600}
ol{list-style:none;padding:0;margin:0.6rem 0 0;display:grid;gap:0.5rem}
.row{display:flex;justify-content:space-between;gap:1rem;font-variant-numeric:tabular-nums}
.row span:first-child{overflow-wrap:anywhere} li:first-child .row{font-weight:650}
.track{height:0.75rem;border-radius:0.2rem;background:var(--paper);overflow:hidden}
.bar{height:100%;min-width:2px;border-radius:0.2rem} .after .bar{background:var(--after)}
.before .bar{border:2px solid var(--before)}
.verdict{font-weight:600}
"""

SCRIPT = """
const form = document.querySelector("form"), input = form.elements.photo, problem = document.querySelector(".problem");
const drop = form.querySelector(".drop");
form.querySelector("button").hidden = true;
function send(files) {
  if (!files.length) return;
  if (files[0].size > Number(form.dataset.limit)) {
    problem.textContent = form.dataset.tooLarge;
    input.value = "";
    return;
  }
  if (files !== input.files) input.files = files;
  problem.textContent = "";
  drop.classList.add("busy");
  form.requestSubmit();
}
input.addEventListener("change", () => send(input.files));
document.addEventListener("paste", event => send(event.clipboardData.files));
document.addEventListener("dragover", event => { event.preventDefault(); drop.classList.add("over"); });
document.addEventListener("dragleave", () => drop.classList.remove("over"));
document.addEventListener("drop", event => {
  event.preventDefault();
  drop.classList.remove("over");
  send(event.dataTransfer.files);
});
window.addEventListener("pageshow", () => drop.classList.remove("busy"));
"""

PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{{ nets | map(attribute="role") | join(" and ") }} - Featherweight</title>
<style>{{ css | safe }}</style>
</head>
<body>
<h1>{{ nets | map(attribute="role") | join(" and ") }}</h1>
<p class="faint">Drop a photo: every net classifies it. Milliseconds are those of its quickest call so far. The photo
stays on this machine and is not kept.</p>
<form method="post" enctype="multipart/form-data" data-limit="{{ limit_bytes }}" data-too-large="{{ too_large }}">
<label class="drop"><strong>Drop a photo here, paste it, or choose a file</strong>
<span class="faint">JPEG, PNG, WebP and others, up to {{ limit }}</span>
<input type="file" name="photo" accept="image/*" required>
<button>Classify</button></label>
</form>
<p class="problem" role="alert">{{ problem }}</p>
<main class="answer{{ ' seen' if photo }}">
{% if photo %}
<p class="verdict" role="status">{{ verdict }}</p>
<figure><img src="{{ photo.source }}" alt="The photo that was sent"><figcaption>{{ photo.name }}</figcaption></figure>
{% endif %}
<div class="panels">
{% for net in nets %}
<section class="net {{ net.look }}" aria-labelledby="net{{ loop.index }}">
<h2 id="net{{ loop.index }}">{{ net.role }}</h2>
<p class="faint file">{{ net.file }}, in {{ net.runtime }}</p>
<dl class="facts">
<div><dt>milliseconds</dt><dd>{{ predictions[loop.index0].ms if predictions else "-" }}</dd></div>
<div><dt>MACs</dt><dd>{{ net.macs }}</dd></div>
<div><dt>bytes</dt><dd>{{ net.bytes }}</dd></div>
</dl>
{% if predictions %}
<ol>
{% for name, share in predictions[loop.index0].classes %}
<li><div class="row"><span>{{ name }}</span><span>{{ "%.1f" | format(100 * share) }} %</span></div>
<div class="track" aria-hidden="true">\
<div class="bar" style="width:{{ "%.2f" | format(100 * share) }}%"></div></div></li>
{% endfor %}
</ol>
{% endif %}
</section>
{% endfor %}
</div>
</main>
<script>{{ script | safe }}</script>
</body>
</html>
"""
