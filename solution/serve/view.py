"""What the page shows: facts of the nets, the photo, the predictions, whether they agree."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

from PIL import Image

from solution.data.decode import decode
from solution.report.style import css_variables
from solution.serve.inference import MOST_PIXELS, Net, Panel, Prediction
from solution.serve.template import CSS, SCRIPT

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
