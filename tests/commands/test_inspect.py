import pytest

from solution.__main__ import main
from solution.commands.inspect import table
from solution.demo import PRETRAINED
from solution.export import files
from solution.export.exporter import ExportConfig, write_unproven
from solution.export.files import listing
from solution.export.packed import container, packed
from solution.formats import exported
from solution.formats.base import Listing

NET = PRETRAINED / "rendered/after.safetensors"


@pytest.fixture(scope="module")
def packed_net(tmp_path_factory):
    path = tmp_path_factory.mktemp("packed") / "after.packed"
    packed.save(path, *files.load(NET))
    return path


def shown(path, capsys):
    assert main(["inspect", str(path)]) == 0
    return capsys.readouterr().out


def row(said, layer):
    (line,) = [line.split() for line in said.splitlines() if line.startswith(f"{layer} ")]
    return line


def test_a_checkpoint_is_listed_by_layer(capsys):
    said = shown(NET, capsys)
    assert f"checkpoint, 169 tensors, 37,690 numbers, {NET.stat().st_size:,} bytes" in said
    size = f"{4 * 9 * 240:,}"
    assert row(said, "output")[:9] == ["output", "9", "x", "240", "x", "1", "x", "1", "32.00"]
    assert row(said, "output")[9] == size


def test_a_packed_file_takes_fewer_bits(packed_net, capsys):
    said = shown(packed_net, capsys)
    assert "packed, 169 tensors, 37,690 numbers" in said
    assert 20 < float(row(said, "output")[8]) < 29
    assert row(said, "all")[-2:] == ["100.0", "%"]


@pytest.mark.parametrize("kind", ["checkpoint", "packed"])
def test_shares_add_up(packed_net, kind):
    found = listing(packed_net if kind == "packed" else NET)
    layers = sum(line.num_bytes for line in found.layers())
    assert layers + found.description_bytes == pytest.approx(found.num_bytes)
    assert 0 < found.description_bytes < 0.15 * found.num_bytes


def test_a_missing_or_foreign_file_is_bad_input(tmp_path, capsys):
    assert main(["inspect", str(tmp_path / "nowhere.packed")]) == 2
    assert "there is no file" in capsys.readouterr().err
    (tmp_path / "notes.txt").write_text("x")
    assert main(["inspect", str(tmp_path / "notes.txt")]) == 2
    assert "is no file of ours" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda header: header.update(version=99), "version 99, newer than 4: update the project"),
        (lambda header: header["plans"].append({"kind": "fold_space"}), "'fold_space', which this project does"),
    ],
)
def test_a_newer_file_asks_for_an_update(packed_net, tmp_path, capsys, change, said):
    table, streams = container.unframed(packed_net.read_bytes(), packed_net)
    change(table["header"])
    (tmp_path / "new.packed").write_bytes(container.framed(table, bytes(streams)))
    assert main(["inspect", str(tmp_path / "new.packed")]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("format_", "suffix"), [("onnx", ".onnx"), ("openvino", ".xml"), ("pt2", ".pt2")])
def test_a_newer_exported_file_asks_for_an_update(tmp_path, monkeypatch, capsys, format_, suffix):
    with monkeypatch.context() as later:
        later.setattr(exported, "VERSION", 99)
        path = write_unproven(ExportConfig(file=NET, format=format_, out=tmp_path / f"new{suffix}"))
    assert main(["inspect", str(path)]) == 2
    assert f"{path}: its description has version 99, newer than 3: update the project" in capsys.readouterr().err


def test_a_folder_is_named_as_one(tmp_path, capsys):
    assert main(["inspect", str(tmp_path)]) == 2
    assert f"{tmp_path} is a folder without config.json" in capsys.readouterr().err


def test_a_file_whose_tensors_cannot_be_listed_has_bytes_and_no_bits():
    *_, last = table(Listing(kind="sealed", lines=(), num_bytes=1234))
    assert last.split() == ["all", "1,234", "100.0", "%"]
