import json
import pickle
import random
import struct
import subprocess
import sys
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from solution import PruneChannels, PruneWeights, checkpoint
from solution.compress.prune_layers import PruneLayers
from solution.contracts import InputError, StepContext, plans_of
from solution.export.files import listing
from solution.models.classifiers import Classifier
from solution.models.shufflenet import ShuffleNet
from solution.runtime import ROOT

ABOUT = {"classes": ("a", "b", "c"), "mean": (0.5,) * 3, "std": (0.2,) * 3, "size": 32, "data": "toy"}


@pytest.fixture
def saved(small_net, tmp_path):
    path = tmp_path / "net.safetensors"
    checkpoint.save(path, small_net, checkpoint.header_of(small_net, **ABOUT))
    return path


def test_a_cut_net_reloads_in_a_fresh_process_to_the_same_bits(small_net, toy, tmp_path):
    cut = PruneLayers(units=(1, 2, 1))(small_net, toy)
    path = tmp_path / "cut.safetensors"
    checkpoint.save(path, cut, checkpoint.header_of(cut, **ABOUT))
    torch.save((toy.example, cut(toy.example)), tmp_path / "pair.pt")
    code = (
        "import sys, torch; from pathlib import Path; from solution import checkpoint;"
        "from solution.runtime import set_threads; set_threads();"
        "net, header = checkpoint.load(Path(sys.argv[1]));"
        "x, y = torch.load(sys.argv[2], weights_only=True); print(torch.equal(net(x), y), header.classes)"
    )
    words = [sys.executable, "-c", code, str(path), str(tmp_path / "pair.pt")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "True ('a', 'b', 'c')", done.stderr


def test_the_header_says_everything_needed_to_build_and_feed_the_net(saved):
    header = checkpoint.read_header(saved)
    assert header.spec.settings == ShuffleNet(units=(3, 3, 2), width=0.1)
    assert (header.classes, header.mean, header.size, header.data) == (ABOUT["classes"], (0.5,) * 3, 32, "toy")


def test_a_classifier_by_name_reloads_too(tmp_path):
    net = Classifier(name="timm:lcnet_035").build(num_classes=3).eval()
    checkpoint.save(tmp_path / "x.safetensors", net, checkpoint.header_of(net, **ABOUT))
    again, _ = checkpoint.load(tmp_path / "x.safetensors")
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(net(x), again(x))


def own_net():
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3)
    )


def test_a_net_of_ones_own_reloads_into_a_fresh_module(tmp_path):
    net, x = own_net().eval(), torch.randn(2, 3, 16, 16)
    small = PruneWeights(sparsity=0.5)(PruneChannels(ratio=0.5)(net, x), x)
    checkpoint.save(tmp_path / "x.safetensors", small, checkpoint.header_of(small))
    again, header = checkpoint.load(tmp_path / "x.safetensors", into=own_net())
    assert torch.equal(small(x), again(x))
    assert plans_of(again) == plans_of(small) == header.plans
    assert header.code == "torch.nn.modules.container:Sequential"
    with pytest.raises(InputError, match=r"into=MyNet\(\)"):
        checkpoint.load(tmp_path / "x.safetensors")


def test_a_net_of_ones_own_is_not_loaded_into_another(tmp_path):
    small = PruneChannels(ratio=0.5)(own_net(), torch.randn(2, 3, 16, 16))
    checkpoint.save(tmp_path / "x.safetensors", small, checkpoint.header_of(small))
    with pytest.raises(InputError, match="made for another net"):
        checkpoint.load(tmp_path / "x.safetensors", into=torch.nn.Sequential(torch.nn.Linear(2, 2)))


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 0.999))
def test_a_truncated_file_is_refused(share, tmp_path_factory):
    torch.manual_seed(0)
    net = ShuffleNet(units=(1,), width=0.1).build(num_classes=3)
    path = tmp_path_factory.mktemp("cut") / "net.safetensors"
    checkpoint.save(path, net, checkpoint.header_of(net, **ABOUT))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError, match="cut short"):
        checkpoint.load(path)


def test_a_pickle_in_disguise_is_never_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "fired"), "w"))

    path = tmp_path / "net.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError, match="pickle"):
        checkpoint.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(Bomb()))
    with pytest.raises(InputError, match="pickle"):
        checkpoint.load(path)
    assert not (tmp_path / "fired").exists()


def rewritten(path, change):
    """The file with its header changed, as version 2 wrote it, which had no checksum."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    fields = json.loads(header["__metadata__"]["featherweight"])
    fields["version"] = 2
    del header["__metadata__"]["sha256"]
    change(header, fields)
    if "__metadata__" in header:
        header["__metadata__"]["featherweight"] = json.dumps(fields)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header, fields: fields["net"]["settings"].update(units=[3, 2, 2]), "of another net"),
        (lambda header, fields: fields["net"]["settings"].update(units=[3, 0, 2]), "broken header|at least 1"),
        (lambda header, fields: fields["net"].update(kind="unheard"), "'unheard', .*newer, so update"),
        (lambda header, fields: fields["net"].update(num_classes=10**10), "3 classes are named"),
        (lambda header, fields: fields["net"]["settings"].update(width=10**8), "it would be larger than any net"),
        (lambda header, fields: fields["net"]["settings"].update(width=1e999), "width must be a number above 0"),
        (lambda header, fields: fields.update(version=99), "newer"),
        (lambda header, fields: header.pop("__metadata__"), "not written by this project"),
        (lambda header, fields: header.update({"output.bias": {"shape": [3]}}), "is not a checkpoint"),
        (lambda header, fields: header.update({"output.bias": [1]}), "is not a checkpoint"),
        (lambda header, fields: header.update({"output.bias": {"data_offsets": ["a", "b"]}}), "is not a checkpoint"),
    ],
)
def test_a_header_that_does_not_fit_is_explained(saved, change, message):
    rewritten(saved, change)
    with pytest.raises(InputError, match=message):
        checkpoint.load(saved)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(fields=ANY_JSON, within=st.sampled_from(["featherweight", "net", "plans", "classes", "version", "size", "mean"]))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_header_of_any_type_is_refused_by_a_line_or_is_one(saved, fields, within):
    def change(header, own):
        if within == "featherweight":
            header["__metadata__"][within] = json.dumps(fields)
        else:
            header["__metadata__"]["featherweight"] = json.dumps(own | {within: fields})

    path = saved.with_name("changed.safetensors")
    raw = saved.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    change(header, json.loads(header["__metadata__"]["featherweight"]))
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])
    with pytest.raises(InputError):
        checkpoint.load(path)


def test_a_file_of_before_there_were_checksums_is_read(saved, small_net):
    rewritten(saved, lambda header, fields: None)
    again, _ = checkpoint.load(saved)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in small_net.state_dict().items())


def test_every_flipped_bit_is_refused(saved):
    chance, data = random.Random(0), saved.read_bytes()
    header = 8 + struct.unpack("<Q", data[:8])[0]
    places = [*chance.sample(range(header), 250), *chance.sample(range(header, len(data)), 250), len(data) - 1]
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 1 << chance.randrange(8)
        saved.write_bytes(changed)
        with pytest.raises(InputError):
            checkpoint.load(saved)
        with pytest.raises(InputError):
            listing(saved)


@pytest.mark.parametrize("text", [b"[]", b"3", b'{"__metadata__": [3]}', b"[" * 100_000])
def test_a_header_of_another_kind_is_no_checkpoint(tmp_path, text):
    path = tmp_path / "net.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + b" ")
    with pytest.raises(InputError, match=f"{path} is not a checkpoint"):
        checkpoint.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path} is a folder: name a checkpoint"):
        checkpoint.load(tmp_path)
    with pytest.raises(InputError, match=r"no checkpoint .*absent"):
        checkpoint.load(tmp_path / "absent.safetensors")


def test_a_failed_write_leaves_the_old_file(saved, small_net, monkeypatch):
    import safetensors.torch

    old = saved.read_bytes()

    def full_disk(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(safetensors.torch, "save", full_disk)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save(saved, small_net, checkpoint.header_of(small_net, **ABOUT))
    assert saved.read_bytes() == old
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_plans_of_another_net_are_refused(small_net, toy):
    plan = PruneLayers(units=(1, 2, 1)).plan(small_net, toy)
    with pytest.raises(InputError, match="made for another net"):
        plan.apply(Classifier(name="timm:lcnet_035").build(num_classes=3))
    assert isinstance(toy, StepContext)
