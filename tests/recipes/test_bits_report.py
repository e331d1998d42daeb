import dataclasses
import json

from solution.contracts import Row
from solution.recipes.bits import Net, bits_drawing, bits_table, note_zipped, report
from solution.report.results import pictures, results
from solution.report.sections import RecipeInfo
from solution.run_folder import write_rows

BASE = Row(step="base", macs=1000, params=1000, bytes=4800, packed_bytes=3600, quality={"f1": 0.8})


def fewer(losses):
    return [
        dataclasses.replace(BASE, step=f"bits{bits}", packed_bytes=150 * bits, quality={"f1": 0.8 - lost})
        for bits, lost in losses.items()
    ]


NETS = {
    "one": Net(base=BASE, fewer=fewer({16: -0.001, 8: 0.0, 4: 0.004}), zipped_bytes=4000),
    "other": Net(base=BASE, fewer=fewer({8: 0.002, 1: 0.5})),
}


def test_the_table_tells_bytes_and_points():
    table = bits_table(NETS, "zipped")
    assert table.headings[3] == "fp32 file, zip -9"
    assert table.rows[0] == ("one", "32, float", "3,600", "4,000", "3.600", "1.3", "0.8000", "")
    assert table.rows[1] == ("one", "16", "2,400", "4,000", "2.400", "2.0", "0.8010", "-0.10")
    assert table.rows[-1] == ("other", "1", "150", "-", "0.150", "32.0", "0.3000", "+50.00")
    assert len(table.rows) == 7
    assert table.note.endswith("against that net. zipped")


def test_the_drawing_names_every_mark_and_says_it_in_words():
    drawing = bits_drawing(NETS)
    assert "one in 4 bits: 8.0 times smaller, 0.40 points lost; other in 8 bits" in drawing.alt
    assert "other in 1 bit: " in drawing.alt
    for words in ("one", "other", "times smaller than the float net's file", ">16<", ">1<"):
        assert words in drawing.svg
    assert bits_drawing(NETS).svg == drawing.svg


def saved(folder, settings, rows):
    folder.mkdir(parents=True)
    (folder / "recipe.json").write_text(json.dumps({"name": "bits", "seed": 3, "settings": settings}))
    write_rows(folder, rows)


def test_the_documentation_tells_all_nets_in_one_table_with_the_command_of_each(tmp_path):
    data = {"data.path": "photos.tar", "data.batch_size": 64, "data.most_images": 0}
    learned = {"bits4.train.epochs": 7, "bits4.train.lr": 0.02, "bits4.ends_from": 0, "bits4.train.precision": "auto"}
    ours = {**data, "base.path": "net.safetensors", **learned}
    learned["bits4.train.precision"] = "bf16"
    theirs = {**data, "start.path": "resnet.th", "base.epochs": 2, "prune_weights.sparsity": 0.6, **learned}
    saved(tmp_path / "photos" / "ours", ours, [BASE, *fewer({16: 0.0, 4: 0.01})])
    start = dataclasses.replace(BASE, step="start", quality={"f1": 0.805})
    sparse = dataclasses.replace(BASE, step="sparse", sparsity=60.0, quality={"f1": 0.81})
    saved(tmp_path / "photos" / "theirs", theirs, [start, BASE, sparse, *fewer({4: 0.02})])
    note_zipped(tmp_path / "photos" / "theirs", 4321)
    lookup = lambda _: RecipeInfo(report=report, together=True)  # noqa: E731
    text = results(tmp_path, lookup)
    assert text.count("## Bits of a weight") == 1
    assert "| ours | 4 | 600 | - | 0.600 | 8.0 | 0.7900 | +1.00 |" in text
    assert "| theirs | 32, as published | 3,600 | 4,321 | 3.600 | 1.3 | 0.8050 | -0.50 |" in text
    assert "| theirs | 32, 60 % zero | 3,600 | 4,321 | 3.600 | 1.3 | 0.8100 | -1.00 |" in text
    assert "| theirs | 4 | 600 | 4,321 | 0.600 | 8.0 | 0.7800 | +2.00 |" in text
    assert (
        "benchmarks.bits net.safetensors photos.tar --bits 16 4 --epochs 7 --lr 0.02 --ends-from 0 --batch 64" in text
    )
    assert "benchmarks.bits resnet.th photos.tar --bits 4 --sparsity 0.6 --epochs 7" in text
    assert "ours in 4 bits: 8.0 times smaller" in pictures(tmp_path, lookup)["bits.svg"].alt
    assert text.count("--precision") == text.count("--precision bf16 --seed 3") == 1
