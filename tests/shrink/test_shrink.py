"""The verb: from a trained net to the smallest that keeps its quality, by Python and by the command line."""

import json
import re

import numpy as np
import pytest
import torch
from torch import nn
from toy_batches import toy_batches

import solution as fw
from solution import checkpoint
from solution.__main__ import main
from solution.evaluate.cost import macs
from solution.export import files
from solution.run_folder import read_run

pytestmark = pytest.mark.long

CODE = """
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes=3):
        super().__init__()
        layers = []
        for inside, outside, stride in ((3, 16, 2), (16, 24, 2), (24, 24, 1)):
            layers += [nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(24, num_classes)

    def forward(self, x):
        return self.classifier(self.features(x))
"""


def hand_written():
    names = {}
    exec(CODE, names)
    torch.manual_seed(0)
    return names["Net"]()


def taught(net, batches, epochs=6):
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    for images, labels in batches * epochs:
        loss = nn.functional.cross_entropy(net.train()(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


TRAIN = toy_batches(12, seed=0)
SPLITS = {"dev": toy_batches(4, seed=1), "val": toy_batches(6, seed=2)}


@pytest.fixture(scope="module")
def net():
    return taught(hand_written(), TRAIN)


def shrunk(net, out, train=TRAIN, **options):
    options = {"passes": 2, "log": lambda _: None, **SPLITS, **options}
    return fw.shrink(net, TRAIN[0][0][:2], train=train, out=out, **options)


@pytest.fixture(scope="module")
def result(net, tmp_path_factory):
    return shrunk(net, tmp_path_factory.mktemp("shrunk") / "out", classes=("red", "green", "blue"))


def test_a_net_becomes_smaller_and_keeps_its_quality(net, result):
    before, chosen = result.lines[:2]
    assert result.passed
    assert result.verdict.startswith("PASS at most 1 points")
    assert chosen.macs < 0.6 * before.macs
    assert chosen.bytes < before.bytes
    assert chosen.drop <= 1.0
    assert before.figure == pytest.approx(fw.evaluate(net, SPLITS["val"])["f1"])
    low, high = chosen.interval
    assert low <= chosen.figure <= high


def test_the_exported_file_is_the_one_in_the_table(result):
    exported = files.open_file(result.file)
    assert exported.metadata.classes == ("red", "green", "blue")
    hits = [(exported(images).argmax(1) == labels).float().mean() for images, labels in SPLITS["val"]]
    assert float(np.mean(hits)) == pytest.approx(result.chosen.quality["accuracy"])
    assert exported.num_bytes == result.chosen.bytes


def test_the_checkpoint_reloads_into_fresh_code_and_shrinks_it(result):
    again = fw.load(result.out / "smaller.safetensors", into=hand_written())
    images = SPLITS["val"][0][0]
    assert torch.equal(again(images), result.net(images))
    assert fw.read_header(result.out / "smaller.safetensors").plans


def test_everything_is_shown_as_text_and_in_a_notebook(result):
    shown, html = str(result), result._repr_html_()
    for text in (
        "as it came",
        "chosen: ",
        "MACs",
        "parameters",
        "bytes",
        "macro F1",
        "95 % interval",
        "change",
        "PASS",
    ):
        assert text in shown
        assert text in html
    assert "<table>" in html
    assert "<svg" in html


def test_the_folder_is_one_that_report_reads(result, capsys):
    run = read_run(result.out)
    assert run.row("before").macs > run.row("after").macs
    assert run.row("after").exported
    page = (result.out / "report.html").read_text()
    assert result.verdict in page
    assert (result.out / "front.svg").read_text().startswith("<?xml")
    assert main(["report", str(result.out)]) == 0
    assert "as it came" in capsys.readouterr().out


class Stopping(list):
    """Batches that a Ctrl-C ends once, after so many."""

    left = 60

    def __iter__(self):
        for batch in super().__iter__():
            Stopping.left -= 1
            if Stopping.left == 0:
                raise KeyboardInterrupt
            yield batch


def test_a_stopped_search_goes_on_and_ends_as_if_it_had_not_been_stopped(net, result, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        shrunk(net, out, Stopping(TRAIN), classes=("red", "green", "blue"))
    assert not (out / "rows.json").exists()
    finished = [path.parent.name for path in (out / "work").glob("*/model.safetensors")]
    assert finished
    shrunk(net, out, classes=("red", "green", "blue"), resume=True)
    journals = [json.loads((folder / "work" / "journal.json").read_text()) for folder in (out, result.out)]
    first, second = (
        {key: value for key, value in one.items() if key.endswith((": dev", ": plan"))} for one in journals
    )
    assert first == second
    for path in sorted((out / "work").glob("[0-9]*/model.safetensors")):
        there = checkpoint.load(result.out / "work" / path.parent.name / path.name, hand_written())[0].state_dict()
        here = checkpoint.load(path, hand_written())[0].state_dict()
        assert all(torch.equal(here[name], there[name]) for name in there), path


def test_a_finished_search_with_other_words_is_not_taken_for_this_one(net, result):
    with pytest.raises(fw.InputError, match="already holds a result"):
        shrunk(net, result.out)
    with pytest.raises(fw.InputError, match="begun with another net or goal"):
        shrunk(net, result.out, max_drop=3.0, resume=True)


def test_limits_are_kept(net, tmp_path):
    result = shrunk(net, tmp_path / "out", passes=8, macs="40%", size="60%", max_drop=60.0)
    assert result.passed
    assert result.chosen.macs <= 0.4 * result.lines[0].macs
    assert result.chosen.bytes <= 0.6 * result.lines[0].bytes
    assert "macs 40%, size 60%" in result.verdict


def strict(splits):
    """Quality that is 1 on batches of `splits` for outputs as near to the net's as int8's are, and 1 on all others."""

    def evaluate(predict, batches):
        images = torch.cat([images for images, _ in batches])
        if not any(torch.equal(images, torch.cat([images for images, _ in SPLITS[split]])) for split in splits):
            return 1.0
        with torch.inference_mode():
            wanted, got = hand_written().eval()(images), predict(images)
        return float((wanted - got).square().mean() < 0.025**2 * (wanted - wanted.mean(0)).square().mean())

    return evaluate


def fresh(out, evaluate, **options):
    """A search from a net of random weights, all of which count."""
    return shrunk(hand_written().eval(), out, evaluate=evaluate, **{"passes": 2, "for_": "packed", **options})


def test_where_no_cut_keeps_the_quality_the_net_comes_back_in_fewer_bits(tmp_path):
    result = fresh(tmp_path / "out", strict(("dev", "val")))
    assert result.passed
    assert result.verdict.startswith("PASS")
    before, chosen = result.lines[:2]
    assert (chosen.precision, chosen.macs) == ("int8", before.macs)
    assert chosen.bytes < before.bytes
    assert result.file.stat().st_size == chosen.bytes


def test_what_val_refuses_gives_way_to_the_net_as_it_came(tmp_path):
    result = fresh(tmp_path / "out", strict(("val",)), passes=6)
    before, chosen = result.lines[:2]
    assert result.passed
    assert (chosen.precision, chosen.macs) == ("int8", before.macs)
    assert any("which val refused" in note for note in result.notes)
    assert result.lines[2].drop == 100.0  # what dev had chosen is a runner-up


def test_where_nothing_smaller_is_as_good_the_net_is_given_back(tmp_path):
    result = fresh(tmp_path / "out", strict(("dev", "val")), for_="eager")
    assert result.passed
    assert result.chosen.macs == result.lines[0].macs
    assert any("given back as it came" in note for note in result.notes)


def test_a_limit_that_costs_too_much_is_a_fail(tmp_path):
    result = fresh(tmp_path / "out", strict(("dev", "val")), macs="50%", for_="eager")
    assert not result.passed
    assert result.verdict.startswith("FAIL")
    assert result.file.is_file()


def test_without_labels_quality_is_agreement(net, tmp_path):
    alone = {"train": [images for images, _ in TRAIN], "dev": [images for images, _ in SPLITS["dev"]],
             "val": [images for images, _ in SPLITS["val"]]}  # fmt: skip
    result = shrunk(net, tmp_path / "out", **alone, passes=8, max_drop=20.0, for_="eager")
    assert result.lines[0].figure == 1.0
    assert "agreement" in result.table().headings[-3]
    assert any("no labels" in note for note in result.notes)


def test_without_pictures_a_limit_is_met_and_nothing_is_promised(net, tmp_path):
    quiet = {"log": lambda _: None, "for_": "eager"}
    result = fw.shrink(net, TRAIN[0][0][:2], macs="50%", out=tmp_path / "out", **quiet)
    assert result.chosen.macs <= 0.5 * result.lines[0].macs
    assert result.chosen.figure is None
    assert "NOT JUDGED" in result.verdict
    assert any("nobody knows" in note for note in result.notes)
    with pytest.raises(fw.InputError, match="name a limit such as --macs 50%"):
        fw.shrink(net, TRAIN[0][0][:2], out=tmp_path / "other", **quiet)
    assert not (tmp_path / "other").exists()


class Pixels(nn.Module):
    """A class for each pixel, as a dictionary."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.last = nn.Conv2d(16, 2, 1)

    def forward(self, x):
        return {"out": self.last(self.second(self.first(x).relu()).relu())}


def test_a_task_of_ones_own(tmp_path):
    """Which pixels are bright: a net of pixels, its own loss, its own figure."""
    torch.manual_seed(0)
    net = Pixels()

    def pairs(batches):
        return [(images, (images.mean(1) > 0).long()) for images, _ in batches]

    def accuracy(predict, batches):
        with torch.inference_mode():
            return float(np.mean([(predict(x)["out"].argmax(1) == y).float().mean() for x, y in batches]))

    def loss(outputs, targets):
        return nn.functional.cross_entropy(outputs["out"], targets)

    train = pairs(TRAIN)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-2)
    for images, targets in train * 4:
        optimizer.zero_grad()
        loss(net(images), targets).backward()
        optimizer.step()
    splits = {name: pairs(batches) for name, batches in SPLITS.items()}
    options = {"evaluate": accuracy, "loss": loss, "passes": 2, "max_drop": 5.0, "log": lambda _: None}
    result = fw.shrink(net.eval(), train[0][0][:2], train=train, **splits, out=tmp_path / "out", **options)
    assert any("cannot be exported for onnxruntime" in note for note in result.notes)
    assert result.passed
    assert result.chosen.macs < result.lines[0].macs
    assert result.lines[0].figure == pytest.approx(accuracy(net, splits["val"]))
    assert result.net(train[0][0])["out"].shape == (16, 2, 32, 32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"macs": "0.01%"}, "these limits cannot be reached by cutting channels: the least is macs"),
        ({"hours": 1e-6}, "leaves no time for a single candidate"),
        ({"passes": 0.01, "macs": "30%"}, "leave no step for a candidate"),
        ({"max_drop": -1}, "max_drop is in points"),
        ({"for_": "abacus"}, "for is one of onnxruntime"),
        ({"macs": 0.3}, "could mean two things"),
        ({"speed": 3}, "shrink has no option 'speed'"),
        ({"evaluate": lambda predict, batches: 50}, "a fraction of 1"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(net, tmp_path, options, message):
    with pytest.raises(fw.InputError, match=message) as caught:
        shrunk(net, tmp_path / "out", **{"for_": "eager", **options})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_least_that_cutting_reaches_is_named(net, tmp_path):
    with pytest.raises(fw.InputError, match="cannot be reached") as caught:
        shrunk(net, tmp_path / "out", macs="1000", for_="eager")
    least = float(re.search(r"the least is macs ([\d,.e+]+) \(limit 1,000\)", str(caught.value))[1].replace(",", ""))
    assert 1000 < least < 0.05 * macs(net, TRAIN[0][0][:1])


@pytest.fixture(scope="module")
def user(photos, tmp_path_factory):
    """A folder with my_model.py and best.pth, trained on the photos of three colors."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "my_model.py").write_text(CODE)
    loaders = fw.datasets(photos, size=32, batch_size=8, workers=0, mean=(0.5,) * 3, std=(0.5,) * 3)
    net = taught(hand_written(), list(loaders.train))
    torch.save({"state_dict": net.state_dict()}, folder / "best.pth")
    return folder


def words(user, photos, out):
    named = ["shrink", f"{user / 'my_model.py'}:Net", "--weights", str(user / "best.pth"), "--pixels", "32"]
    fed = ["--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5", "--data", str(photos)]
    return [*named, *fed, "--set", "data.batch_size=8", "--set", "data.workers=0", "--out", str(out)]


def test_the_command_ends_with_a_file_that_answers_without_this_package(user, photos, tmp_path, capsys):
    import onnxruntime

    out = tmp_path / "out"
    assert main([*words(user, photos, out), "--passes", "4", "--max-drop", "5"]) == 0
    said = capsys.readouterr().out
    assert "PASS at most 5 points" in said
    assert "best so far" in said
    session = onnxruntime.InferenceSession(out / "smaller.onnx")
    answer = session.run(None, {"images": np.zeros((1, 3, 32, 32), dtype=np.float32)})[0]
    assert answer.shape == (1, 3)
    assert main(["predict", str(out / "smaller.onnx"), str(next((photos / "val" / "red").iterdir()))]) == 0


def test_a_fail_is_an_exit_code_that_scripts_see_and_the_files_are_there(user, photos, tmp_path, capsys):
    out, limits = tmp_path / "out", ["--macs", "3%", "--max-drop", "0", "--passes", "2", "--for", "eager"]
    assert main([*words(user, photos, out), *limits]) == 1
    assert "FAIL at most 0 points, macs 3%, the closest was" in capsys.readouterr().out
    assert (out / "smaller.safetensors").is_file()
    assert (out / "report.html").is_file()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--mean", "9,9,9"], "the net is at chance on these pictures"),
        (["--for", "abacus"], "for is one of onnxruntime"),
        (["--size", "100"], "size"),
        (["--set", "train.epochs=3"], "--set takes data.KEY=VALUE"),
        (["--set", "data.batchsize=3"], "did you mean data.batch_size"),
    ],
)
def test_bad_words_end_in_one_line(user, photos, tmp_path, capsys, more, message):
    assert main([*words(user, photos, tmp_path / "out"), *more]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_packed_file_holds_weights_in_fewer_bits(net, tmp_path):
    result = shrunk(net, tmp_path / "out", passes=8, max_drop=30.0, for_="packed")
    assert result.chosen.precision in ("int4", "int8")
    assert result.file.suffix == ".packed"
    assert result.file.stat().st_size == result.chosen.bytes < 0.5 * result.lines[0].bytes
