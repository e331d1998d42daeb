"""The switches of `benchmarks/ablation.py`: each a recipe that can run, at the budget of the base."""

import pytest
from shell import SMALL

from benchmarks import ablation
from solution.report.tables import read_ablation
from solution.search.trainer import epochs_of, foreseen_macs
from solution.settings import settings_of, with_setting

SWITCHES = ablation.switches("teacher.safetensors", "pictures.tar")
BASE = ablation.base("photos.tar")


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_changes_the_base_and_keeps_its_epochs(name):
    recipe = SWITCHES[name](BASE)
    assert (recipe == BASE) == (name == "base")
    spent = sum(epochs_of(stage) for stage in recipe.stages if stage.name != "head_start")
    assert spent == ablation.EPOCHS
    assert recipe.stages[-1].name == recipe.after
    assert settings_of(recipe)["data.path"] == "photos.tar"


def test_nets_that_were_cut_cost_what_the_base_costs():
    wanted = foreseen_macs(BASE, 9)
    assert foreseen_macs(SWITCHES["layer_pruning"](BASE), 9) == wanted
    assert foreseen_macs(SWITCHES["channel_pruning"](BASE), 9) == pytest.approx(wanted, rel=0.05)
    assert foreseen_macs(SWITCHES["decomposition"](BASE), 9) <= 0.85 * wanted


def test_rows_land_where_the_report_reads_them_and_are_not_made_twice(photos, tmp_path, monkeypatch):
    recipe = ablation.base(str(photos), epochs=1)
    for setting in SMALL:
        recipe = with_setting(recipe, *setting.split("="))
    for name in ("base", "drop_path"):
        ablation.run(SWITCHES[name](recipe), tmp_path / "work" / name, tmp_path / "rows" / name / "seed0")
    assert [*read_ablation(tmp_path / "rows")] == ["base", "drop_path"]
    assert sorted(path.name for path in (tmp_path / "rows" / "base" / "seed0").iterdir()) == [
        "recipe.json", "rows.csv", "rows.json",
    ]  # fmt: skip
    monkeypatch.setattr(ablation.pipeline, "run", lambda *_, **__: pytest.fail("run again"))
    ablation.run(recipe, tmp_path / "work" / "base", tmp_path / "rows" / "base" / "seed0")
