"""The house style: every drawing is one SVG that reads on light and on dark paper, in gray, and for the color-blind.

Drawings are made in stand-in colors. On a page they become CSS variables with a light and a dark value; in a file of
its own they become literal colors, which every viewer shows; a style sheet changes them where the reader has chosen
dark. Color alone never carries meaning: Before is dashed or hollow and the paler ink, After is solid and filled;
classes have markers and names. Hues are after Okabe and Ito (2008), "Color Universal Design".
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_INCHES = 4.7
"""Drawn as narrow as a phone, so that letters stay legible there; a projector enlarges."""

COLORS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "paper": ("#ffffff", "#12171c"),
        "ink": ("#1b1f24", "#e9edf1"),
        "faint": ("#57606a", "#a3adb8"),
        "grid": ("#d8dee4", "#343d46"),
        "before": ("#d97500", "#cc7a1a"),
        "after": ("#004c7f", "#8fd0fb"),
        "cell": ("#3d8fc9", "#2f6f9f"),
        "hue1": ("#0072b2", "#56b4e9"),
        "hue2": ("#d55e00", "#ff8a3d"),
        "hue3": ("#00805d", "#2cc79b"),
        "hue4": ("#b9558f", "#eba6cd"),
        "hue5": ("#7a6a00", "#f0e442"),
        "hue6": ("#5b3fa0", "#b39df0"),
        "hue7": ("#57606a", "#c3cbd3"),
    }
)
"""{name: (on light paper, on dark paper)}."""

HUES = tuple(name for name in COLORS if name.startswith("hue"))
MARKERS = ("o", "^", "s", "x", "D", "+", "v", "*", "P", "<", "X", ">")
DASHES = ("-", "--", ":", "-.")

_STAND_INS = {name: f"#0000{index:02x}" for index, name in enumerate(COLORS, start=1)}
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A finished drawing.

    svg      markup to put into a page that defines the variables of `css_variables`
    alt      what it shows, in words, for those who cannot see it
    caption  one sentence below it
    """

    svg: str
    alt: str
    caption: str = ""

    def file_text(self) -> str:
        """The same as an SVG file that stands alone: literal colors on its own paper, others where dark is chosen."""
        head, end, rest = self.svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).partition(">")
        body = re.sub(r"var\(--(\w+)\)", lambda found: COLORS[found[1]][0], rest)
        dark = "".join(
            f'[style*="{use}: {light}"]{{{use}:{dark}!important}}'
            for light, dark in COLORS.values()
            for use in ("fill", "stroke")
        )
        style = f"<style>@media (prefers-color-scheme: dark){{{dark}}}</style>"
        paper = f'<rect width="100%" height="100%" style="fill: {COLORS["paper"][0]}"/>'
        return f'<?xml version="1.0" encoding="utf-8"?>\n{head}{end}{style}{paper}{body}\n'


def color(name: str) -> str:
    """The stand-in for the color called `name`, to be given to matplotlib."""
    return _STAND_INS[name]


def css_variables(selector: str = ":root") -> str:
    """CSS that gives the drawings' variables their values in light and in dark."""
    light, dark = (";".join(f"--{name}:{pair[index]}" for name, pair in COLORS.items()) for index in (0, 1))
    return f"{selector}{{{light}}}@media (prefers-color-scheme: dark){{{selector}{{{dark}}}}}"


@contextlib.contextmanager
def canvas(height_inches: float, rows: int = 1, **options: Any) -> Iterator[tuple[Figure, Any]]:
    """A figure in the house style with its axes; draw and call `drawn` before the block ends."""
    import matplotlib
    from matplotlib.figure import Figure

    settings: Any = _settings()
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
        yield figure, figure.subplots(rows, 1, **options)


def _settings() -> dict[str, Any]:
    lines = {"axes.edgecolor": "faint", "axes.labelcolor": "ink", "text.color": "ink", "grid.color": "grid",
             "xtick.color": "faint", "ytick.color": "faint", "xtick.labelcolor": "ink",
             "ytick.labelcolor": "ink"}  # fmt: skip
    return {
        **{name: color(value) for name, value in lines.items()},
        "font.family": "DejaVu Sans",
        "font.size": 11,
        "text.parse_math": False,  # names hold what they like
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "lines.linewidth": 1.8,
        "legend.frameon": False,
        "legend.fontsize": 10,
        "savefig.transparent": True,
        "svg.fonttype": "none",
        "svg.image_inline": True,
    }


def quiet(axes: Axes, grid: Literal["x", "y", "both"] = "y") -> None:
    """Light lines behind the marks along `grid` ("x", "y" or "both"), and no ticks."""
    axes.grid(axis=grid, linewidth=0.8)
    axes.tick_params(length=0, which="both")


def drawn(figure: Figure, name: str, alt: str, caption: str = "") -> Drawing:
    """`figure` as a drawing. `name` is unique on a page: it keeps the parts of several drawings apart."""
    import matplotlib

    target = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(target, format="svg", metadata=nothing)
    return Drawing(svg=_cleaned(target.getvalue(), name, alt), alt=alt, caption=caption)


def _cleaned(text: str, name: str, alt: str) -> str:
    """The markup from <svg> on: fluid, with a text alternative, with variables, with no id that another may have."""
    text = text[text.index("<svg") :].strip()
    ((box,),) = [found.groups() for found in [re.search(r'viewBox="([^"]+)"', text)] if found]
    body = text[text.index(">") + 1 :]
    body = re.sub(r"<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', body))
    body = re.sub(r' id="([^"]+)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", body)
    body = re.sub(r'(url\(#|xlink:href="#)', lambda found: f"{found[1]}{name}-".replace("xlink:", ""), body)
    body = re.sub(r"(font: [\d.]+px|font: \w+ [\d.]+px) [^;\"]+", rf"\1 {_FONT}", body)
    for part, stand_in in _STAND_INS.items():
        body = body.replace(stand_in, f"var(--{part})")
    opening = f'<svg class="drawing" viewBox="{box}" role="img" aria-label="{escape(alt)}" stroke-linejoin="round">'
    return opening + re.sub(r"\n\s*", "\n", body)
