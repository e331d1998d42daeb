"""README and docs: every code block runs, every link leads somewhere.

Python blocks of a page run one after the other in one namespace. Shell blocks run line by line in this process,
trainings cut short: photos of three colors stand for every data set, one epoch a training, small pictures.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile

import pytest
import torch
from models.foreign import clever, net_of, write_code

from solution.__main__ import main
from solution.runtime import ROOT

pytestmark = pytest.mark.long

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "input" / "README.md", ROOT / "pretrained" / "README.md",
         *sorted((ROOT / "docs").rglob("*.md"))]  # fmt: skip
LANGUAGES = {"python", "sh", "text"}
SHORT = ["every.epochs=1", "data.size=32", "data.batch_size=16", "data.workers=0", "data.calibration_images=8"]
HEAVY = {
    "recipes.md": "four reference systems, each with a training a stage",
    "search.md": "a search is many trainings",
    "deploy.md": "exports are proved on the rendered demo data, which must be drawn first",
    "export.md": "exports are proved on the rendered demo data, which must be drawn first",
    "shrink.md": "a search is many trainings, each net exported",
    "own_model.md": "trains on the rendered demo data, which must be drawn first",
}


def blocks(path, language):
    """The code blocks of a page in `language`, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), flags=re.MULTILINE | re.DOTALL)


def marked(paths):
    return [
        pytest.param(path, id=str(path.relative_to(ROOT)), marks=[pytest.mark.slow] if path.name in HEAVY else [])
        for path in paths
    ]


@pytest.fixture
def place(tmp_path, photos, monkeypatch):
    """A folder with what the pages name: photos as folder and zip, pretrained nets, the example program, a teacher."""
    for name in ("pretrained", "docs", "test_demo.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "input").mkdir()
    shutil.copytree(photos, tmp_path / "input" / "data")
    shutil.copytree(photos / "val" / "red", tmp_path / "my_photos")
    shutil.copy(next((photos / "val" / "red").iterdir()), tmp_path / "photo.jpg")
    torch.save(clever(net_of(write_code(tmp_path))).state_dict(), tmp_path / "best.pth")
    with zipfile.ZipFile(tmp_path / "my_photos.zip", "w") as archive:
        for path in sorted(photos.rglob("*.png")):
            archive.write(path, path.relative_to(photos))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def shortened(words, photos):
    """The words of a command, cut short: small data, one epoch."""
    words = [str(photos) if word.startswith("../shared/data/") and word != words[0] else word for word in words]
    if words[0] == "run":
        own = {word.partition("=")[0] for word in words}
        short = [setting for setting in SHORT if setting.partition("=")[0] not in own]
        words = [re.sub(r"epochs=\d+", "epochs=1", word) for word in words]
        return [*words, *(word for setting in short for word in ("--set", setting)), "--exports", ""]
    if words[0] == "shrink":  # by its weights alone: no training
        own = [word for at, word in enumerate(words) if "--data" not in words[at - 1 : at + 1]]
        return [*own, "--macs", "50%"]
    if words[0] == "compress":
        words = [re.sub(r"epochs=\d+", "epochs=1 warmup_epochs=0", word) for word in words]
        return words if "--size" in words else [*words, "--size", "64"]
    if words[0] == "search":
        return [*words, *(word for setting in SHORT for word in ("--set", setting)), "--first-epochs", "1"]
    if words[0] == "bench":  # once, in place of ten rounds in every runtime
        models = shlex.split(shlex.join(words[1:]).partition(" --")[0])
        return [
            "bench",
            *models,
            "--rounds",
            "1",
            "--threads",
            "1",
            "--batch",
            "1",
            "--runtimes",
            "eager",
            "onnxruntime",
        ]
    if words[0] == "prepare" and os.path.lexists(words[2]):
        shutil.rmtree(words[2])
    return words


def run_line(line, photos):
    """Run one command of a shell block, if it is one of this project's."""
    for command in line.split(" && "):
        words = shlex.split(command, comments=True)
        if words[:3] == ["python", "-m", "solution"]:
            assert main(shortened(words[3:], photos)) == 0, command
        elif words[:2] == ["python", "test_demo.py"] and "--data" not in words:
            pass  # it draws the demo data, minutes long: `.ci/run` runs this very command
        elif words[:1] == ["python"] and words[1].endswith(".py"):
            words += ["--customized_model", "False"] if words[1] == "test_demo.py" else []
            done = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True)
            assert done.returncode == 0, f"{command}\n{done.stderr}"
        elif words[:2] == ["pip", "install"]:
            assert all((ROOT / word).is_file() for word in words if word.endswith(".txt"))
        else:
            assert words[:3] == ["python", "-m", "pytest"], command


@pytest.mark.parametrize("path", marked([path for path in PAGES if blocks(path, "python")]))
def test_python_blocks_run(path, place):
    torch.manual_seed(0)
    names = {"__name__": "page"}
    for block in blocks(path, "python"):
        exec(compile(block, str(path), "exec"), names)


@pytest.mark.parametrize("path", marked([path for path in PAGES if blocks(path, "sh")]))
def test_shell_blocks_run(path, place, photos):
    for block in blocks(path, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            run_line(line, photos)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere_and_every_block_names_its_language(path):
    text = path.read_text()
    if path.name != "results.md":  # made from rows, with commands of hours
        opened = re.findall(r"^```(.*)$", text, flags=re.MULTILINE)[::2]
        assert set(opened) <= LANGUAGES, f"{path}: blocks without a language are run by nobody"
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http://", "https://")):
            file, _, anchor = target.partition("#")
            found = (path.parent / file) if file else path
            assert found.exists(), f"{path}: no {target}"
            if anchor:
                titles = re.findall(r"^#+ (.+)$", found.read_text(), flags=re.MULTILINE)
                assert anchor in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}, target


def test_readme_is_short_and_opens_with_a_command():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 110
    assert next(number for number, line in enumerate(lines, 1) if line.startswith("pip install")) < 25


def test_every_page_says_first_what_it_is_for():
    for path in (ROOT / "docs").rglob("*.md"):
        title, blank, purpose = path.read_text().splitlines()[:3]
        assert title.startswith("# ")
        assert not blank
        assert purpose[:1].isalpha() or purpose.startswith("`"), path


def test_every_method_has_its_page_and_its_line():
    from solution.registry import STEPS

    pages = {path.stem: path.read_text() for path in (ROOT / "docs" / "methods").glob("*.md")}
    plain = {"train", "train_detector", "start", "unchanged"}  # they make no net smaller or better by an idea
    readme = (ROOT / "README.md").read_text()
    for name, step in STEPS.items():
        if name not in plain:
            assert any(f"`{step.__name__}`" in text for text in pages.values()), name
            assert f"`{step.__name__}`" in readme, name
    for name in pages:
        assert f"docs/methods/{name}.md" in readme
