"""The front door: every kind of net and file of weights, made here as their own tools make them."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from models.foreign import BombNet, clever, lying, net_of, wrapped, write_code
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import solution as fw
from solution import checkpoint
from solution.compress.channels.step import PruneChannels
from solution.contracts import InputError
from solution.data.decode import resize
from solution.models.classifiers import Classifier, fed_as_preprocessor
from solution.models.shufflenet import ShuffleNet
from solution.opening import open_model

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
FED = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "size": 32}


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    return write_code(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def trained(code):
    return clever(net_of(code))


def opened(name, **about):
    return open_model(str(name), feed=FED, **about)


# What a file of weights may look like.


@pytest.mark.parametrize("name", wrapped(nn.Linear(1, 1)))
@pytest.mark.parametrize("zipped", [True, False])
def test_weights_are_found_in_every_wrapping(code, trained, tmp_path, name, zipped):
    path = tmp_path / name
    torch.save(wrapped(trained)[name], path, _use_new_zipfile_serialization=zipped)
    net = opened(f"{code}:Net", weights=path).net
    assert torch.equal(net(X), trained(X))


def test_weights_in_safetensors(code, trained, tmp_path):
    save_file({f"module.{name}": value for name, value in trained.state_dict().items()}, tmp_path / "net.safetensors")
    assert torch.equal(opened(f"{code}:Net", weights=tmp_path / "net.safetensors").net(X), trained(X))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrap", [lambda net: net, lambda net: {"model": net, "epoch": 1}])
def test_a_whole_module_is_refused_with_the_lines_that_convert_it(code, tmp_path, monkeypatch, zipped, wrap):
    path = tmp_path / "whole.pt"
    torch.save(wrap(Classifier(name="timm:lcnet_035").build(3)), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match="whole module") as caught:
        opened(f"{code}:Net", weights=path)
    _, *lines = str(caught.value).splitlines()
    assert len(lines) == 2
    if "or a part of it" in lines[0]:  # an older file, which does not tell without running it
        return
    names = {"torch": torch}
    exec("\n".join(lines), names)
    assert (tmp_path / "whole.weights.pth").is_file()
    assert opened("timm:lcnet_035", weights=tmp_path / "whole.weights.pth").net(X).shape == (2, 3)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", ["state", "module", "top"])
def test_no_file_of_weights_runs_code(code, tmp_path, kind, zipped):
    flag = tmp_path / "flag"
    bomb = BombNet(2, 2)
    bomb.flag = str(flag)
    content = {"state": lying(flag), "module": {"model": bomb}, "top": bomb}[kind]
    torch.save(content, tmp_path / "evil.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError):
        opened(f"{code}:Net", weights=tmp_path / "evil.pth")
    assert not flag.exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert flag.exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b""), "net.pth is empty"),
        (lambda path: path.write_bytes(b"not a net at all, but long enough"), "cannot be read as weights"),
        (lambda path: torch.save({"epoch": 3, "note": "x"}, path), r"holds no state dict \(it has: epoch, note\)"),
        (lambda path: torch.save([1, 2], path), "holds no state dict"),
        (lambda path: torch.jit.script(nn.Linear(2, 2)).save(path), "TorchScript archive"),
        (lambda path: None, "there are no weights at"),
    ],
)
def test_what_holds_no_weights_is_named(code, tmp_path, make, message):
    make(tmp_path / "net.pth")
    with pytest.raises(InputError, match=message):
        opened(f"{code}:Net", weights=tmp_path / "net.pth")


def test_weights_of_another_net_are_told_by_their_names(code, trained, tmp_path):
    state = {name.replace("stem", "steam"): value for name, value in trained.state_dict().items()}
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(InputError, match=r"stem\.0\.weight, the file has steam\.0\.weight"):
        opened(f"{code}:Net", weights=tmp_path / "net.pth")
    torch.save(trained.state_dict(), tmp_path / "net.pth")
    with pytest.raises(InputError, match=r"stem\.0\.weight \(8, 3, 3, 3\) in the file, \(16, 3, 3, 3\) in the net"):
        opened(f"{code}:Net(width=16)", weights=tmp_path / "net.pth")


def test_a_smaller_net_does_not_take_part_of_a_larger_ones_weights(tmp_path):
    larger = Classifier(name="torchvision:resnet34").build(3).state_dict()
    torch.save({f"module.{name}": value for name, value in larger.items()}, tmp_path / "net.pth")
    with pytest.raises(InputError, match="not of the net"):
        opened("torchvision:resnet18", weights=tmp_path / "net.pth")


def test_another_number_of_classes_offers_a_new_head(code, trained, tmp_path):
    torch.save(trained.state_dict(), tmp_path / "net.pth")
    with pytest.raises(InputError, match=r"has 3 outputs, and the data have 5 classes: add --new-head"):
        opened(f"{code}:Net", weights=tmp_path / "net.pth", num_classes=5)
    net = opened(f"{code}:Net", weights=tmp_path / "net.pth", num_classes=5, new_head=True).net
    assert net(X).shape == (2, 5)
    assert torch.equal(net.features(X), trained.features(X))


@pytest.mark.parametrize("whose", ["ours", "own"])
def test_a_file_of_ours_takes_a_new_head_after_its_cuts(code, trained, tmp_path, whose):
    """It is built again with the plans and the new number of classes, also from what is saved then."""
    name = f"{code}:Net" if whose == "own" else str(tmp_path / "cut.safetensors")
    about = {"weights": tmp_path / "cut.safetensors"} if whose == "own" else {}
    net = trained if whose == "own" else ShuffleNet(units=(1, 1, 1), width=0.3).build(3).eval()
    cut = PruneChannels(ratio=0.5)(net, X)
    fields = {"classes": ("blue", "green", "red"), **FED}
    checkpoint.save(tmp_path / "cut.safetensors", cut, checkpoint.header_of(cut, **fields))
    with pytest.raises(InputError, match=r"(3 outputs, and )?5 classes are named"):
        open_model(name, **about, num_classes=5, feed={"classes": tuple("abcde")})
    fresh = open_model(name, **about, num_classes=5, new_head=True)
    assert fresh.net(X).shape == (2, 5)
    assert fresh.header.classes == ()
    kept = {one: value for one, value in cut.state_dict().items() if value.shape == fresh.net.state_dict()[one].shape}
    assert {one.partition(".")[0] for one in cut.state_dict().keys() - kept} <= {"head", "output"}
    assert all(torch.equal(fresh.net.state_dict()[one], value) for one, value in kept.items())
    header = dataclasses.replace(fresh.header, classes=tuple("abcde"))
    checkpoint.save(tmp_path / "again.safetensors", fresh.net, header)
    again = open_model(name if whose == "own" else str(tmp_path / "again.safetensors"),
                       **({"weights": tmp_path / "again.safetensors"} if whose == "own" else {}))  # fmt: skip
    assert torch.equal(again.net(X), fresh.net(X))
    same = open_model(name, **about, num_classes=3, new_head=True)
    assert torch.equal(same.net(X), cut(X)), "as many classes: the head stays"


@pytest.mark.parametrize("name", ["timm:lcnet_035", "torchvision:shufflenet_v2_x0_5", "pytorchcv:shufflenet_g3_wd4"])
def test_a_librarys_net_takes_the_number_of_classes_of_its_weights(tmp_path, name):
    torch.manual_seed(0)
    net = Classifier(name=name).build(7).eval()
    torch.save({"state_dict": net.state_dict()}, tmp_path / "net.ckpt")
    again = open_model(name, weights=tmp_path / "net.ckpt", feed={"size": 64}).net
    assert torch.equal(again(torch.ones(1, 3, 64, 64)), net(torch.ones(1, 3, 64, 64)))


# Code of the user.


@pytest.mark.parametrize(
    "name", ["Net", "Net(width=8)", "Net(3, 8)", "make_net", "make_net(width=8)", "ready", "Answers"]
)
def test_code_is_named_by_class_function_or_net(code, name, trained, tmp_path):
    torch.save(trained.state_dict(), tmp_path / "net.pth")
    net = opened(f"{code}:{name}", weights=tmp_path / "net.pth").net
    assert torch.equal(net(X), trained(X))


def test_code_is_named_by_a_module_that_python_finds(code, monkeypatch):
    (code.parent / "package").mkdir(exist_ok=True)
    (code.parent / "package" / "__init__.py").write_text("")
    (code.parent / "package" / "nets.py").write_text(
        "from torch import nn\n\ndef make_net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 4))\n"
    )
    monkeypatch.chdir(code.parent)
    assert opened("package.nets:make_net").net(X).shape == (2, 4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Nett", r"has no Nett \(did you mean Net\?\)"),
        ("Needs", r"write '.*my_model\.py:Needs\(width=\.\.\., deep=\.\.\.\)'"),
        ("Net(depth=3)", r"got an unexpected keyword argument 'depth'"),
        ("make_nothing", "gives a str, no torch"),
        ("broken", r"my_model\.py, line 12: .*nn\.Conv2d"),
        ("Net(width=__import__('os').getpid())", "must be literals"),
        ("Net(width=open('flag', 'w'))", "must be literals"),
        ("Net(**{'width': 8})", "must be"),
        ("Net(", r"names no net of .*: write .*my_model\.py:Net$"),
    ],
)  # fmt: skip
def test_code_that_cannot_be_called_like_this_is_told_how(code, name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        opened(f"{code}:{name}")
    assert not (tmp_path / "flag").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import torch\nimport no_such_package\n", r"line 2: import no_such_package: ModuleNotFoundError"),
        ("def net(:\n", r"line 1: def net\(:: SyntaxError"),
        ("import sys\n\n\nsys.exit(3)\n", r"line 4: sys\.exit\(3\): SystemExit"),
        ("x = 1\ny = x / 0\n", r"line 2: y = x / 0: ZeroDivisionError"),
        ("def helper():\n    raise ValueError('no')\n\nhelper()\n", r"line 4|line 2"),
    ],
)
def test_code_that_fails_shows_its_own_line(tmp_path, text, message):
    (tmp_path / "bad.py").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        opened(f"{tmp_path / 'bad.py'}:Net")
    assert "bad.py" in str(caught.value)


def test_a_file_or_module_that_is_nowhere(tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        opened(f"{tmp_path / 'none.py'}:Net")
    with pytest.raises(InputError, match="Python finds no module"):
        opened("no_such_package_here.nets:Net")


def test_a_net_of_ones_own_comes_back_after_surgery(code, trained, tmp_path, monkeypatch):
    torch.save(trained.state_dict(), tmp_path / "best.pth")
    for name in ("Net", "Answers"):
        found = opened(f"{code}:{name}", weights=tmp_path / "best.pth")
        smaller = PruneChannels(ratio=0.5)(found.net, X)
        fields = {name: getattr(found.header, name) for name in ("mean", "std", "size")}
        fw.save(smaller, tmp_path / "small.safetensors", **fields)
        again = open_model(f"{code}:{name}", weights=tmp_path / "small.safetensors")
        assert torch.equal(again.net(X), smaller(X))
        assert again.header.mean == FED["mean"]
        assert torch.equal(fw.load(tmp_path / "small.safetensors", into=net_of(code, name))(X), smaller(X))
        monkeypatch.delenv("FEATHERWEIGHT_NAMED_CODE")  # as in another process, whose user has named no code
        with pytest.raises(InputError, match="a net of your own"):
            open_model(str(tmp_path / "small.safetensors"))


# Folders.


@pytest.mark.parametrize("safe", [True, False])
def test_a_folder_that_timm_saved(tmp_path, safe):
    import timm

    torch.manual_seed(0)
    net = timm.create_model("lcnet_035", num_classes=4).eval()
    config = {"label_names": ["a", "b", "c", "d"], "mean": (0.4, 0.5, 0.6), "input_size": (3, 64, 64), "crop_pct": 0.8}
    net.pretrained_cfg.update(config)
    timm.models.save_for_hf(net, tmp_path / "net", model_config={"label_names": config["label_names"]},
                            safe_serialization=safe)  # fmt: skip
    found = open_model(str(tmp_path / "net"))
    assert torch.equal(found.net(torch.ones(1, 3, 64, 64)), net(torch.ones(1, 3, 64, 64)))
    header = found.header
    assert (header.classes, header.mean, header.size, header.crop) == (("a", "b", "c", "d"), (0.4, 0.5, 0.6), 64, 0.8)
    (tmp_path / "net" / "model.safetensors").unlink(missing_ok=True)
    (tmp_path / "net" / "pytorch_model.bin").unlink(missing_ok=True)
    with pytest.raises(InputError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        open_model(str(tmp_path / "net"))


def test_a_folder_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.MobileViTConfig(
        image_size=64, neck_hidden_sizes=[8, 8, 16, 16, 24, 24, 32], hidden_sizes=[16, 24, 32],
        id2label={0: "cat", 1: "dog"}, label2id={"cat": 0, "dog": 1},
    )  # fmt: skip
    net = transformers.MobileViTForImageClassification(config).eval()
    net.save_pretrained(tmp_path / "net")
    told = {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 64}, "do_center_crop": True,
            "do_flip_channel_order": True, "do_normalize": False, "resample": 2}  # fmt: skip
    (tmp_path / "net" / "preprocessor_config.json").write_text(json.dumps(told))
    found = open_model(str(tmp_path / "net"))
    images = torch.rand(2, 3, 64, 64)
    assert torch.allclose(found.net(images), net(images.flip(1)).logits, atol=1e-6)
    header = found.header
    assert (header.classes, header.size, header.mean) == (("cat", "dog"), 64, (0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "without config.json"),
        ("[1", "cannot be read as JSON"),
        ('{"architectures": ["BertForMaskedLM"]}', "BertForMaskedLM"),
        ('{"architecture": "no_such_net"}', "timm has no classifier called"),
        ('{"architecture": "../../evil"}', "timm has no classifier called"),
    ],
)
def test_folders_that_hold_no_classifier_are_named(tmp_path, config, message):
    if config is not None:
        (tmp_path / "config.json").write_text(config)
        save_file({"x": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=message):
        open_model(str(tmp_path))


# Libraries, and how nets are fed.


def test_a_name_of_timm_may_have_a_tag():
    import timm

    name = next(name for name in timm.list_models("resnet18*", pretrained=True) if name.startswith("resnet18."))
    assert open_model(f"timm:{name}", num_classes=3, feed={"size": 32}).net(X).shape == (2, 3)
    with pytest.raises(InputError, match=r"close to it: resnet18\."):
        open_model("timm:resnet18.no_such_tag")


def test_a_side_that_a_net_cannot_take_is_told_with_one_that_it_can():
    with pytest.raises(InputError, match=r"takes no pictures of 64 px .* it takes 224: --size 224"):
        open_model("timm:vit_tiny_patch16_224", num_classes=3, feed={"size": 64})


def test_published_weights_without_a_network_are_one_line(monkeypatch):
    def nowhere(*_, **__):
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", nowhere)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for name in ("timm:resnet18.a3_in1k", "torchvision:mnasnet0_75"):
        with pytest.raises(InputError, match=r"cannot be had .* --weights FILE"):
            open_model(name, pretrained=True)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "resnet50", "vit_b_16"])
@pytest.mark.parametrize("shape", [(300, 200), (180, 400), (57, 61)])
def test_pictures_are_cropped_as_torchvision_crops_them(name, shape):
    from torchvision.models import get_model_weights
    from torchvision.transforms.functional import pil_to_tensor

    from solution.models.classifiers import fed_as_published

    preset = list(get_model_weights(name))[-1].transforms()
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    fed = fed_as_published(f"torchvision:{name}")
    ours = resize(picture, fed["size"], fed["crop"], fed["interpolation"])
    ours = (ours / 255 - np.array(fed["mean"])) / np.array(fed["std"])
    wanted = preset(Image.fromarray(picture))  # (3, S, S)
    assert np.abs(ours.transpose(2, 0, 1) - wanted.numpy()).max() < 1e-5
    assert pil_to_tensor(Image.fromarray(picture)).shape[1:] == shape


@pytest.mark.parametrize(
    ("told", "fed"),
    [
        ({"size": 224}, {"size": 224, "crop": 1.0, "mean": (0.485, 0.456, 0.406)}),
        ({"size": {"height": 96, "width": 96}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3},
         {"size": 96, "crop": 0.0, "mean": (0.5,) * 3, "interpolation": "bicubic"}),
        ({"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}},
         {"size": 224, "crop": 0.875}),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, {"size": 224, "crop": 0.875}),
        ({"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3},
         {"mean": (0.5,) * 3, "std": (0.5,) * 3}),
        ({"do_normalize": False}, {"mean": (0.0,) * 3, "std": (1.0,) * 3}),
    ],
)  # fmt: skip
def test_preprocessors_of_hugging_face_are_read(tmp_path, told, fed):
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(told))
    found, bgr = fed_as_preprocessor(path)
    assert not bgr
    for name, value in fed.items():
        assert found[name] == (value if isinstance(value, str) else pytest.approx(value))


def test_a_net_made_for_bgr_takes_rgb_from_then_on(code, trained, tmp_path):
    torch.save(trained.state_dict(), tmp_path / "net.pth")
    net = opened(f"{code}:Net", weights=tmp_path / "net.pth", bgr=True).net
    assert torch.allclose(net(X), trained(X.flip(1)), atol=1e-6)


def test_a_net_of_gray_pictures(tmp_path, photos):
    (tmp_path / "gray.py").write_text(
        "from torch import nn\n\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(784, 3))\n"
    )
    found = open_model(f"{tmp_path / 'gray.py'}:net", feed={"mean": (0.5,), "std": (0.5,), "size": 28})
    val = fw.Data(path=str(photos)).fed_as(found.header).open(splits=("val",)).val
    assert set(fw.evaluate(found.net, val)) >= {"accuracy", "macs"}
