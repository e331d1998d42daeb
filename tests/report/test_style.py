import re
import xml.etree.ElementTree as ET

import pytest

from solution.report.style import COLORS, canvas, color, css_variables, drawn


def luminance(code):
    """WCAG's relative luminance of "#rrggbb"."""
    parts = [int(code[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.fixture(scope="module")
def drawings():
    made = []
    for name in ("one", "two"):
        with canvas(2.0) as (figure, axes):
            axes.plot([0, 1], [0, 1], marker="o", color=color("after"), label="line <&>")
            axes.legend()
            made.append(drawn(figure, name, f'A "{name}" < line', "caption"))
    return made


@pytest.mark.parametrize("paper", [0, 1])
def test_words_and_marks_stand_out_on_both_papers_and_in_gray(paper):
    shown = {name: pair[paper] for name, pair in COLORS.items()}
    assert contrast(shown["ink"], shown["paper"]) >= 12
    assert contrast(shown["faint"], shown["paper"]) >= 4.5
    assert contrast(shown["ink"], shown["cell"]) >= 4.5
    assert all(contrast(code, shown["paper"]) >= 3 for name, code in shown.items() if name.startswith("hue"))
    assert min(contrast(shown[name], shown["paper"]) for name in ("before", "after")) >= 3
    assert contrast(shown["before"], shown["after"]) >= 1.9


def test_colors_are_variables_that_the_style_defines(drawings):
    used = set(re.findall(r"var\(--(\w+)\)", drawings[0].svg))
    assert {"after", "ink", "faint"} <= used <= COLORS.keys()
    assert not re.search(r"#[0-9a-f]{6}", drawings[0].svg)
    assert css_variables().count("--after:") == 2
    assert "prefers-color-scheme: dark" in css_variables()


def test_a_drawing_has_words_scales_and_shares_no_id(drawings):
    one, two = drawings
    assert 'role="img" aria-label="A &quot;one&quot; &lt; line"' in one.svg
    assert "<text" in one.svg
    assert "line &lt;&amp;&gt;" in one.svg
    head = one.svg[: one.svg.index(">")]
    assert "viewBox" in head
    assert "width=" not in head
    ids = [set(re.findall(r'id="([^"]+)"', some.svg)) for some in (one, two)]
    assert ids[0]
    assert not ids[0] & ids[1]
    targets = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', one.svg))
    assert targets <= ids[0]


def test_the_same_drawing_is_the_same_text(drawings):
    with canvas(2.0) as (figure, axes):
        axes.plot([0, 1], [0, 1], marker="o", color=color("after"), label="line <&>")
        axes.legend()
        assert drawn(figure, "one", 'A "one" < line', "caption") == drawings[0]


def test_a_file_stands_alone_in_literal_colors_that_every_viewer_knows(drawings):
    text = drawings[0].file_text()
    root = ET.fromstring(text.split("\n", 1)[1])
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(" not in text
    light, dark = COLORS["after"]
    assert f"stroke: {light}" in text
    assert "prefers-color-scheme: dark" in root[0].text
    assert f'[style*="stroke: {light}"]{{stroke:{dark}!important}}' in root[0].text


def test_names_that_look_like_formulas_are_text():
    with canvas(2.0) as (figure, axes):
        axes.set_title("$frac{1}{$")
        axes.set_xticks([0, 1], ["$x^2$", "a"])
        text = str(drawn(figure, "formula", "formula", ""))
    assert "$frac{1}{$" in text
    assert "$x^2$" in text
