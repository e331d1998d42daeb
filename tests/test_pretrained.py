"""The committed checkpoints: as small as promised, and as good as they say on the data that they name."""

import json
import subprocess
import sys

import pytest
from test_demo_screen import demo

from solution import checkpoint
from solution.data.loaders import Data
from solution.demo import PRETRAINED
from solution.evaluate.classify import classify
from solution.evaluate.cost import params
from solution.export import files
from solution.runtime import ROOT

PAIRS = ("recycle9", "rendered")
FOUR_BITS = "after_four_bits.packed"
LIMIT_BYTES = {"before": 340_000, "after": 190_000}
PLAIN, TAUGHT = "waste_shufflenet", "waste_distilled"
MADE = {
    ("recycle9", "before"): (PLAIN, (4, 8, 4), "seed0"),
    ("recycle9", "after"): (TAUGHT, (1, 2, 1), "distilled/seed0"),
    ("rendered", "before"): (PLAIN, (4, 8, 4), "seed0"),
    ("rendered", "after"): (PLAIN, (2, 5, 2), "seed0"),
}
"""{(pair, role): (recipe, units, folder of its rows in docs/rows/PAIR)}."""


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("role", LIMIT_BYTES)
def test_a_checkpoint_is_small_and_of_the_promised_shape(pair, role):
    path = PRETRAINED / pair / f"{role}.safetensors"
    assert path.stat().st_size < LIMIT_BYTES[role]
    model, header = checkpoint.load(path)
    name, units, _ = MADE[pair, role]
    assert tuple(len(stage) for stage in list(model.features)[1:-1]) == units
    assert header.recipe["name"] == name


@pytest.mark.parametrize("pair", PAIRS)
def test_after_scores_better_than_before(pair):
    headers = {role: checkpoint.read_header(PRETRAINED / pair / f"{role}.safetensors") for role in LIMIT_BYTES}
    assert headers["after"].figures["score"] < headers["before"].figures["score"]
    assert headers["before"].classes == headers["after"].classes


@pytest.mark.parametrize(("pair", "role"), MADE)
def test_committed_rows_are_those_of_the_checkpoints(pair, role):
    rows = json.loads((ROOT / "docs" / "rows" / pair / MADE[pair, role][-1] / "rows.json").read_text())
    (row,) = [row for row in rows if row["step"] == role]
    figures = checkpoint.read_header(PRETRAINED / pair / f"{role}.safetensors").figures
    assert (figures["macs"], figures["quality"], figures["score"]) == (row["macs"], row["quality"], row["score"])


@pytest.mark.long
@pytest.mark.real_data
def test_the_demo_on_photos_shows_the_committed_figures(real_data):
    done = demo("--data", real_data / "recycle9.tar", "--json", "-")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["data"], said["images"]) == ("recycle9", 1770)
    for role, figures in said["models"].items():
        stored = checkpoint.read_header(PRETRAINED / "recycle9" / f"{role}.safetensors").figures
        # Another processor may sum in another order and flip a photo on the edge between two classes.
        assert figures["f1"] == pytest.approx(stored["quality"]["f1"], abs=0.003)
        assert figures["macs"] == stored["macs"]


@pytest.mark.long
def test_cost_alone_is_that_of_the_photo_pair():
    models = json.loads(demo("--eval", "False", "--json", "-").stdout)["models"]
    assert (models["before"]["macs"], models["after"]["macs"]) == (1688940, 667404)
    assert (models["before"]["macs_dispatched"], models["after"]["macs_dispatched"]) == (1467600, 650364)


@pytest.mark.parametrize("pair", PAIRS)
def test_the_packed_after_is_small_and_says_what_after_says(pair, tmp_path):
    """In a fresh process, without data: both answer the same photos alike."""
    folder = PRETRAINED / pair
    code = (
        "import sys, torch; from pathlib import Path; from solution.evaluate.cost import params;"
        "from solution.export import files; from solution.runtime import set_threads; set_threads();"
        "folder = Path(sys.argv[1]); torch.manual_seed(0);"
        "(small, header), (whole, about) = (files.load(folder / f'after.{end}') for end in ('packed', 'safetensors'));"
        "x = torch.nn.functional.interpolate(torch.randn(32, 3, 10, 10), about.size, mode='bicubic');"
        "said, wanted = small(x).detach(), whole(x).detach();"
        "error = ((said - wanted).square().mean().sqrt() / wanted.std()).item();"
        "print(params(small), params(whole), error, header.figures['f1'])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    left, parameters, error, f1 = map(float, done.stdout.split())
    size = (folder / "after.packed").stat().st_size
    assert size <= 1.15 * min(left, parameters)
    assert error < 0.1
    assert f1 >= checkpoint.read_header(folder / "after.safetensors").figures["quality"]["f1"] - 0.005


def test_the_after_in_four_bits_takes_six_tenths_of_a_byte_a_parameter_and_half_a_point_of_f1():
    folder = PRETRAINED / "recycle9"
    whole, about = checkpoint.load(folder / "after.safetensors")
    small = folder / FOUR_BITS
    assert small.stat().st_size <= 0.6 * params(whole)
    assert f1_of(files.read_header(small)) >= f1_of(about) - 0.005


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["after.packed", FOUR_BITS])
def test_a_packed_after_is_as_good_as_it_says(real_data, name):
    small, header = PRETRAINED / "recycle9" / name, files.read_header(PRETRAINED / "recycle9" / name)
    data = Data(path=str(real_data / "recycle9.tar"), size=header.size)
    val = data.open(splits=("val",), normalization=(header.mean, header.std)).val
    f1 = classify(files.open_file(small), val).f1
    assert f1 == pytest.approx(f1_of(header), abs=0.003)


def f1_of(header):
    """Of a run's file or of `compress`' file."""
    return header.figures.get("quality", header.figures)["f1"]
