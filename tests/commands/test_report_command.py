"""`python -m solution report`: the page of a run, and a documentation that fits its rows."""

import dataclasses
import json
import re
import shutil
import subprocess
from html import escape, unescape
from html.parser import HTMLParser

import pytest
import torch

from solution import checkpoint
from solution.__main__ import main
from solution.commands.report import write_docs
from solution.contracts import Row
from solution.models.shufflenet import ShuffleNet
from solution.recipes.catalogue import info_of
from solution.recipes.waste.report import PICTURE
from solution.report.results import pictures, results
from solution.run_folder import read_rows, write_rows
from solution.runtime import ROOT

VOID = {"meta", "link", "img", "br"}
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
ROW = Row(step="train", macs=20_000, params=900, bytes=4000, quality={"f1": 0.6, "accuracy": 0.7}, score=0.3, seconds=9)


class Outline(HTMLParser):
    """Every element with its attributes; unbalanced tags raise."""

    def __init__(self):
        super().__init__()
        self.open, self.found = [], []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag):
        return [attrs for name, attrs in self.found if name == tag]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A finished run of two nets, as the pipeline leaves it."""
    folder = tmp_path_factory.mktemp("runs") / "small <&>"
    torch.manual_seed(0)
    for role, units in (("before", (2, 2, 1)), ("after", (1, 1, 1))):
        net = ShuffleNet(units=units, width=0.1).build(num_classes=3).eval()
        header = checkpoint.header_of(
            net, classes=("blue", "green", "red"), mean=(0.5,) * 3, std=(0.25,) * 3, size=32, recipe={"stage": role}
        )
        checkpoint.save(folder / f"{role}.safetensors", net, header)
        (folder / role).mkdir()
        (folder / role / "history.csv").write_text("epoch,loss,dev_f1\n1,2.0,0.4\n2,1.0,0.6\n")
    (folder / "after" / "plan.txt").write_text("stage1  2 -> 1\n")
    rows = [dataclasses.replace(ROW, step=name) for name in ("train", "before", "after")]
    write_rows(folder, [*rows[:2], dataclasses.replace(rows[2], macs=10_000, quality={"f1": 0.55, "accuracy": 0.6})])
    settings = {"data.path": "photos <&>.tar", "model.width": 0.1}
    (folder / "recipe.json").write_text(json.dumps({"name": "waste_shufflenet", "seed": 0, "settings": settings}))
    for switch, score in (("base", 0.3), ("mixup", 0.2)):
        write_rows(folder / "ablation" / switch, [dataclasses.replace(ROW, step="after", score=score)])
    return folder


@pytest.fixture(scope="module")
def html(run_folder, photos, tmp_path_factory):
    target = tmp_path_factory.mktemp("page") / "page.html"
    assert main(["report", str(run_folder), "--html", str(target), "--data", str(photos)]) == 0
    return target.read_text()


def test_the_page_is_whole_and_fetches_nothing(html):
    outline = Outline()
    outline.feed(html)
    assert outline.open == []
    assert not outline.all("script")
    sources = [attrs.get("src") or attrs.get("href") for _, attrs in outline.found]
    assert all(source.startswith(("data:", "#")) for source in sources if source)
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)


def test_everything_has_words_for_those_who_do_not_see_it(html):
    outline = Outline()
    outline.feed(html)
    drawings = [attrs for attrs in outline.all("svg") if attrs.get("role") == "img"]
    assert len(drawings) == len(outline.all("svg")) == 8
    assert all(len(attrs["aria-label"]) > 20 for attrs in drawings)
    assert outline.all("img")
    assert all("labeled" in attrs["alt"] for attrs in outline.all("img"))
    assert len(outline.all("table")) == len([a for a in outline.all("div") if a.get("role") == "region"])
    ids = [attrs["id"] for _, attrs in outline.found if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {attrs["href"][1:] for attrs in outline.all("a")} <= set(ids)


@pytest.mark.parametrize(
    "words",
    [
        "-50.0%",
        "Before and After",
        "Step by step",
        "Cost and quality",
        "One switch at a time",
        "one seed",
        "Worst images",
        "Judged now on the 18 images",
        "python -m solution run waste_shufflenet --data 'photos <&>.tar' --seed 0 --set model.width=0.1 --out '",
        "stage1  2 -> 1",
        "model.width = 0.1",
    ],
)
def test_the_page_says(html, words):
    assert "<&>" not in html
    assert words in unescape(html)


def test_a_net_at_chance_level_is_called_so(run_folder, tmp_path):
    folder = shutil.copytree(run_folder, tmp_path / "run")
    about = json.loads((folder / "recipe.json").read_text())
    counts = {"val": dict.fromkeys(("blue", "green", "red"), 30)}
    (folder / "recipe.json").write_text(json.dumps(about | {"data": {"counts": counts}}))
    rows = read_rows(folder)
    write_rows(folder, [*rows[:2], dataclasses.replace(rows[2], quality={"f1": 0.17, "accuracy": 1 / 3})])
    assert main(["report", str(folder)]) == 0
    text = (folder / "report.html").read_text()
    assert "After: at chance level, a guess does as well." in text
    assert "Before and After: at chance level" not in text


def test_without_photos_the_page_lies_in_the_folder_and_says_what_is_missing(run_folder, tmp_path, capsys):
    folder = shutil.copytree(run_folder, tmp_path / "run")
    assert main(["report", str(folder)]) == 0
    text = (folder / "report.html").read_text()
    assert "need the photos: add --data PATH" in text
    assert "Worst images" not in text
    assert f"page: {folder / 'report.html'}" in capsys.readouterr().out


def test_several_seeds_give_the_spread_and_no_page_unless_asked(run_folder, tmp_path, capsys):
    folders = [str(shutil.copytree(run_folder, tmp_path / f"seed{seed}")) for seed in (0, 1)]
    assert main(["report", *folders]) == 0
    assert "| before | 20,000 | 900 | 4,000 | 0.6000 ± 0.0000 |" in capsys.readouterr().out
    assert not list(tmp_path.rglob("*.html"))
    assert main(["report", *folders, "--html", str(tmp_path / "page.html")]) == 0
    assert "Mean ± sample standard deviation over seeds" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name the folders of finished runs, or give --docs alone"),
        (["--docs", "x"], "name the folders of finished runs, or give --docs alone"),
        (["nowhere"], "nowhere holds no rows.json"),
    ],
)
def test_bad_words(words, message, capsys):
    assert main(["report", *words]) == 2
    assert message in capsys.readouterr().err


def test_photos_need_checkpoints(tmp_path, photos, capsys):
    write_rows(tmp_path, [ROW])
    assert main(["report", str(tmp_path), "--data", str(photos)]) == 2
    assert "holds no before.safetensors" in capsys.readouterr().err


def test_the_documentation_fits_the_committed_rows():
    folder = ROOT / "docs"
    said = "docs/results.md is stale: run `python -m solution report --docs` and commit what it writes"
    assert (folder / "results.md").read_text() == results(folder / "rows", info_of), said
    for name, drawing in pictures(folder / "rows", info_of).items():
        assert escape(drawing.alt) in (folder / name).read_text(), said


def test_documentation_is_grouped_by_seeds(run_folder, tmp_path):
    for name in ("photos/seed0", "photos/seed10", "photos/seed2", "photos/distilled/seed0", "alone"):
        (tmp_path / "rows" / name).mkdir(parents=True)
        for file in ("rows.json", "recipe.json"):
            shutil.copy(run_folder / file, tmp_path / "rows" / name / file)
    shutil.copytree(run_folder / "ablation", tmp_path / "rows" / "photos" / "ablation")
    write_docs(tmp_path)
    text = (tmp_path / "results.md").read_text()
    for group in ("photos", "photos/distilled", "alone"):
        assert text.count(f"## waste_shufflenet on {group}\n") == 1
    assert "3 run(s)" in text
    assert "## One switch at a time: photos" in text
    assert "alone After: 10,000 MACs" in text
    assert (tmp_path / PICTURE).exists()


def test_no_rows_no_documentation(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("solution.commands.report.ROOT", tmp_path)
    assert main(["report", "--docs"]) == 2
    assert "copy recipe.json and rows.json of finished runs there" in capsys.readouterr().err
    assert not (tmp_path / "docs" / "results.md").exists()


MEASURE = """<!doctype html><iframe width=380 height=800></iframe><iframe width=1600 height=900></iframe>
<script>const page = PAGE; const frames = [...document.querySelectorAll("iframe")];
Promise.all(frames.map(frame => new Promise(done => { frame.onload = done; frame.srcdoc = page; }))).then(() => {
  document.body.dataset.said = frames.map(frame => { const root = frame.contentDocument.documentElement;
    return "width " + frame.width + " overflow " + (root.scrollWidth - root.clientWidth); }).join("; "); });
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_nothing_overflows_in_a_real_browser_and_it_has_nothing_to_complain_of(html, tmp_path):
    harness = tmp_path / "measure.html"
    harness.write_text(MEASURE.replace("PAGE", json.dumps(html).replace("</", "<\\/")))
    words = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--no-first-run", f"--user-data-dir={tmp_path / 'user'}",
             "--enable-logging=stderr", "--virtual-time-budget=20000", "--dump-dom", str(harness)]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert 'data-said="width 380 overflow 0; width 1600 overflow 0"' in done.stdout
    assert "CONSOLE" not in done.stderr


def exported_run(folder, bytes_of_file, **fields):
    """A run of two steps, whose exported files have so many bytes."""
    file = {"bytes": bytes_of_file, "f1": 0.5, "accuracy": 0.6}
    times = {"onnxruntime": 1.0} | fields.pop("times", {})
    shared = {"exported": {"onnxruntime": file}, "latency_ms": times, **fields}
    write_rows(folder, [dataclasses.replace(ROW, step=name, bytes=1000, **shared) for name in ("before", "after")])
    (folder / "recipe.json").write_text(json.dumps({"name": "waste_shufflenet", "seed": 0, "settings": {}}))
    return folder


def test_rows_of_files_that_ship_are_not_called_checkpoints(tmp_path, capsys):
    assert main(["report", str(exported_run(tmp_path / "shrunk", 1000))]) == 0
    shown = capsys.readouterr().out + (tmp_path / "shrunk" / "report.html").read_text()
    assert "checkpoint" not in shown
    assert "file, bytes" in shown
    assert main(["report", str(exported_run(tmp_path / "run", 900, times={"eager": 3.0}))]) == 0
    assert "| before | checkpoint, eager | 1,000 |" in capsys.readouterr().out


def test_every_file_stands_on_the_page_once(tmp_path):
    for number in range(2):
        exported_run(tmp_path / f"run{number}", 900, seed=number)
    runs = [str(tmp_path / f"run{number}") for number in range(2)]
    for folders in (runs[:1], runs):
        assert main(["report", *folders, "--html", str(tmp_path / "page.html")]) == 0
        assert (tmp_path / "page.html").read_text().count("<caption>Every form that can be shipped") == 1


def test_steps_are_described_with_the_epochs_that_were_trained(tmp_path):
    folder = exported_run(tmp_path / "run", 900)
    about = {"name": "waste_shufflenet", "seed": 0, "settings": {"before.epochs": 7}}
    (folder / "recipe.json").write_text(json.dumps(about))
    assert main(["report", str(folder)]) == 0
    text = (folder / "report.html").read_text()
    assert "before: 7 epochs more" in text
    assert "after: 170 epochs more" in text


def test_a_search_shows_its_files_once(tmp_path):
    """A folder as `shrink` leaves it: one table and one drawing of its own, and nothing of it again."""
    folder = exported_run(tmp_path / "shrunk", 1000)
    (folder / "recipe.json").write_text(json.dumps({"name": "shrink", "seed": 0, "settings": {}}))
    line = {"name": "as it came", "role": "before", "precision": "fp32", "size": 32, "macs": 20_000, "params": 900,
            "bytes": 1000, "ms": 1.0, "ram": 1, "figure": 0.5, "interval": None, "drop": None}  # fmt: skip
    lines = [line, {**line, "name": "01 uniform 50%, fp32", "role": "chosen", "figure": 0.52, "drop": -2.0}]
    points = [{"name": name, "macs": macs, "dev": dev} for name, macs, dev in
              (("as it came", 20_000, 1.0), ("01 uniform 50%", 10_000, 1.0))]  # fmt: skip
    facts = {"lines": lines, "verdict": "PASS", "runtime": "onnxruntime", "title": "macro F1", "points": points,
             "notes": []}  # fmt: skip
    (folder / "shrink.json").write_text(json.dumps(facts))
    assert main(["report", str(folder)]) == 0
    text = (folder / "report.html").read_text()
    assert text.count("onnxruntime") == 1
    assert "Step by step" not in text
    assert "Cost and quality" not in text
    assert "change, points" in text
    assert "+2.00" in text
    assert "pixels" not in text
    assert "1.02" not in text  # no quality is above 1, on no axis either
