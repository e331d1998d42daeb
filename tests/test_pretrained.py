"""The committed checkpoints: as small as promised, and as good as they say on the data that they name."""

import json

import pytest
from test_demo_screen import demo

from solution import checkpoint
from solution.demo import PRETRAINED
from solution.runtime import ROOT

PAIRS = ("recycle9", "rendered")
LIMIT_BYTES = {"before": 340_000, "after": 190_000}
UNITS = {"before": (4, 8, 4), "after": (2, 5, 2)}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("role", LIMIT_BYTES)
def test_a_checkpoint_is_small_and_of_the_promised_shape(pair, role):
    path = PRETRAINED / pair / f"{role}.safetensors"
    assert path.stat().st_size < LIMIT_BYTES[role]
    model, header = checkpoint.load(path)
    assert tuple(len(stage) for stage in list(model.features)[1:-1]) == UNITS[role]
    assert header.recipe["name"] == "waste_shufflenet"


@pytest.mark.parametrize("pair", PAIRS)
def test_after_scores_better_than_before(pair):
    headers = {role: checkpoint.read_header(PRETRAINED / pair / f"{role}.safetensors") for role in UNITS}
    assert headers["after"].figures["score"] < headers["before"].figures["score"]
    assert headers["before"].classes == headers["after"].classes


def test_committed_rows_are_those_of_the_checkpoints():
    rows = json.loads((ROOT / "docs" / "rows" / "recycle9" / "seed0" / "rows.json").read_text())
    for role in UNITS:
        (row,) = [row for row in rows if row["step"] == role]
        figures = checkpoint.read_header(PRETRAINED / "recycle9" / f"{role}.safetensors").figures
        assert (figures["macs"], figures["quality"], figures["score"]) == (row["macs"], row["quality"], row["score"])


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


def test_cost_alone_is_that_of_the_photo_pair():
    models = json.loads(demo("--eval", "False", "--json", "-").stdout)["models"]
    assert (models["before"]["macs"], models["after"]["macs"]) == (1688940, 1083210)
    assert (models["before"]["macs_dispatched"], models["after"]["macs_dispatched"]) == (1467600, 937830)
