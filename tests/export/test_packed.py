import contextlib
import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from solution import checkpoint
from solution.compress.channels.step import PruneChannels
from solution.compress.decompose import Decompose
from solution.compress.prune_layers import PruneLayers
from solution.compress.prune_weights import PruneWeights
from solution.compress.quantize import Quantize
from solution.contracts import InputError
from solution.export.packed import container, packed
from solution.export.packed.container import parse
from solution.models.shufflenet import ShuffleNet
from solution.runtime import ROOT

ABOUT = {"classes": ("a", "b", "c"), "mean": (0.5,) * 3, "std": (0.2,) * 3, "size": 32, "data": "toy"}
MOST_BYTES, MOST_SECONDS = 256 << 20, 5


def same(wanted, got):
    return list(wanted) == list(got) and all(
        tensor.dtype == got[name].dtype
        and tensor.shape == got[name].shape
        and torch.equal(
            tensor.contiguous().reshape(-1).view(torch.uint8), got[name].contiguous().reshape(-1).view(torch.uint8)
        )
        for name, tensor in wanted.items()
    )


def quantized(weight, bits):
    step = weight.abs().amax((1, 2, 3), keepdim=True) / (2 ** (bits - 1) - 1)
    return (weight / step).round(), step.flatten().bfloat16()


def as_quantized(state, bits):
    """What a quantize step leaves: integers and a scale per channel, norms folded into half-precision shifts."""
    small = {}
    for name, tensor in state.items():
        if tensor.dim() == 4:
            codes, scale = quantized(tensor, bits)
            small[f"{name}.codes"], small[f"{name}.scale"] = codes.to(torch.int8), scale
        elif name.endswith("bias"):
            small[name] = tensor.bfloat16()
    return small


def tensors():
    torch.manual_seed(0)
    return {
        "conv.weight": torch.randn(8, 4, 3, 3),
        "conv.sparse": torch.where(torch.rand(32, 16, 3, 3) < 0.2, torch.randn(32, 16, 3, 3), 0.0),
        "conv.clustered": torch.randn(4)[torch.randint(0, 4, (8, 4, 3, 3))],
        "conv.quantized": torch.randint(-7, 8, (8, 4, 3, 3)) * torch.rand(8, 1, 1, 1),
        "bn.running_var": torch.rand(8),
        "bn.num_batches_tracked": torch.tensor(1234),
        "mask": torch.rand(8, 4) < 0.5,
        "half": torch.randn(5, 5).half(),
        "brain": torch.randn(5, 5).bfloat16(),
        "odd": torch.tensor([float("nan"), -0.0, 0.0, float("inf"), 1e-45, -3.4e38]),
        "double": torch.randn(3, dtype=torch.float64),
        "codes": torch.randint(-8, 8, (6, 6), dtype=torch.int8),
        "nothing": torch.zeros(0, 3),
    }


@pytest.fixture(scope="module")
def data():
    return packed.pack(tensors(), {"name": "toy"})


@pytest.fixture
def saved(small_net, tmp_path):
    path = tmp_path / "net.packed"
    packed.save(path, small_net, checkpoint.header_of(small_net, **ABOUT))
    return path


def test_all_kinds_of_tensors_come_back_bit_by_bit(data):
    found = parse(data)
    assert found.header == {"name": "toy"}
    assert same(tensors(), packed.unpacked(found))


def test_each_tensor_takes_the_form_that_suits_it(data):
    codes = {entry.name: entry.code[0] for entry in parse(data).entries}
    assert codes["conv.weight"] == "bytes"
    assert codes["conv.sparse"] == "sparse"
    assert codes["conv.clustered"] == "codebook"
    assert codes["conv.quantized"] == "grid"


def test_sizes_add_up_to_the_file(data):
    found = parse(data)
    assert sum(packed.coded_bytes(found).values()) + found.frame_bytes == pytest.approx(len(data))


def test_a_net_comes_back_whole_in_a_fresh_process(small_net, saved, tmp_path):
    images = torch.randn(2, 3, 32, 32)
    torch.save((images, small_net(images)), tmp_path / "pair.pt")
    code = (
        "import sys, torch; from pathlib import Path; from solution.export import files;"
        "from solution.runtime import set_threads; set_threads();"
        "net, header = files.load(Path(sys.argv[1]));"
        "x, y = torch.load(sys.argv[2], weights_only=True); print(torch.equal(net(x), y), header.classes, header.size)"
    )
    words = [sys.executable, "-c", code, str(saved), str(tmp_path / "pair.pt")]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "True ('a', 'b', 'c') 32", done.stderr


def test_the_header_says_what_the_checkpoint_says(small_net, saved):
    assert packed.read_header(saved) == checkpoint.header_of(small_net, **ABOUT)


@pytest.mark.parametrize(("bits", "most"), [(8, 1.15), (4, 0.75), (2, 0.5)])
def test_a_quantized_shufflenet_is_small_with_everything_included(bits, most):
    torch.manual_seed(0)
    net = ShuffleNet(units=(2, 5, 2)).build(num_classes=9)
    header = checkpoint.header_of(net, **(ABOUT | {"classes": tuple("abcdefghi")})).to_fields()
    data = packed.pack(as_quantized(net.state_dict(), bits), header)
    assert len(data) <= most * sum(parameter.numel() for parameter in net.parameters())


def test_float_nets_shrink_too(small_net, saved, tmp_path):
    plain = tmp_path / "net.safetensors"
    checkpoint.save(plain, small_net, checkpoint.header_of(small_net, **ABOUT))
    assert saved.stat().st_size < 0.75 * plain.stat().st_size


def refused(data, match, tmp_path):
    path = tmp_path / "bad.packed"
    path.write_bytes(data)
    with pytest.raises(InputError, match=match):
        packed.load(path)


def test_damage_is_named(data, tmp_path):
    refused(data[:-1], "bytes and should have", tmp_path)
    refused(data + b"x", "bytes and should have", tmp_path)
    refused(data[:20], "cut short", tmp_path)
    refused(data[:4] + b"\x02" + data[5:], "format version 2, newer than 1: update", tmp_path)
    refused(data[:-5] + bytes([data[-5] ^ 1]) + data[-4:], "SHA-256", tmp_path)
    refused(b"other" + data, "not a packed file", tmp_path)
    with pytest.raises(InputError, match="no packed file"):
        packed.load(tmp_path / "nowhere.packed")


def test_a_header_of_nothing_is_damage(data, tmp_path):
    refused(data, "broken header", tmp_path)


def test_tensors_that_cannot_be_packed_are_named():
    with pytest.raises(InputError, match="wave: numbers of dtype complex64 cannot be packed"):
        packed.pack({"wave": torch.zeros(2, dtype=torch.complex64)}, {})


def resigned(data, change):
    """The file with its table changed, and with the hash that fits."""
    table, streams = container.unframed(data, "file")
    change(table)
    return container.framed(table, bytes(streams))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda table: table["shapes"].__setitem__(0, [1 << 40]), "cannot hold"),
        (lambda table: table["shapes"].__setitem__(0, [-1]), "describes no tensor"),
        (lambda table: table["shapes"].__setitem__(0, [8, 4, 3, 2]), "damaged|stored|does not hold"),
        (lambda table: table["streams"][0].__setitem__(1, 1 << 40), "cannot hold"),
        (lambda table: table["streams"][0].__setitem__(2, 3), "not as long as the file"),
        (lambda table: table["planes"][0].__setitem__(0, 999), "past the end"),
        (lambda table: table["planes"][0].append(0), "too many planes"),
        (lambda table: table["planes"][0].pop(), "too few planes"),
        (lambda table: table["names"].__setitem__(0, table["names"][1]), "occurs twice"),
        (lambda table: table["dtypes"].__setitem__(0, "float128"), "cannot be packed"),
        (lambda table: table.__setitem__("crc", 1), "not those that were stored"),
        (lambda table: table.pop("codes"), "damaged"),
    ],
)
def test_a_table_that_lies_is_not_believed(data, change, match):
    with pytest.raises(InputError, match=match):
        packed.unpacked(parse(resigned(data, change)))


def mutated(data, chance):
    """The bytes after one to four flips, cuts, insertions or copies."""
    data = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(data))
        kind = chance.choice(("flip", "set", "cut", "insert", "copy", "end"))
        if kind == "flip":
            data[place] ^= 1 << chance.randrange(8)
        elif kind == "set":
            data[place] = chance.choice((0, 255, chance.randrange(256)))
        elif kind == "cut":
            del data[place : place + chance.randint(1, 64)]
        elif kind == "insert":
            data[place:place] = chance.randbytes(chance.randint(1, 64))
        elif kind == "copy":
            data[place : place + 8] = data[chance.randrange(len(data)) :][:8]
        else:
            del data[place:]
        data = data or bytearray(b"\0")
    return bytes(data)


def nested(value, chance):
    """The JSON value with one of its parts replaced by something else."""
    if isinstance(value, list | dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value) if isinstance(value, dict) else range(len(value)))
        value[key] = nested(value[key], chance)
        return value
    odd = (-1, 0, 1, 2, 255, 256, 1 << 31, 1 << 63, 10**30, 0.5, None, True, "", "bytes", "ans", [], {}, [[]], "é")
    return chance.choice([*odd, value + 1 if isinstance(value, int | float) else "x"])


def survives(data, wanted):
    """Unpacks to the very tensors, or is refused."""
    try:
        got = packed.unpacked(parse(data))
    except InputError:
        return
    assert same(wanted, got)


def survives_loading(path, wanted):
    """Loads the very tensors into a net of as many answers as classes, or is refused before memory is short."""
    try:
        net, header = packed.load(path)
    except InputError as error:
        causes = [error, error.__cause__, getattr(error.__cause__, "__cause__", None)]
        assert not any(isinstance(cause, MemoryError) or "allocate" in str(cause) for cause in causes), causes
        return
    assert same(wanted, net.state_dict())
    assert len(header.classes) in (0, header.spec.num_classes)


@contextlib.contextmanager
def bounded():
    """No more memory than `MOST_BYTES` above what the process has, whoever asks for it, and a clock of its own time."""
    resource = pytest.importorskip("resource", reason="this system cannot limit a process's memory")
    held = 4096 * int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGPROF, too_long)
    resource.setrlimit(resource.RLIMIT_AS, (held + MOST_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


class TooLong(BaseException):
    """No reader takes it for a fault of the file."""


def too_long(*_):
    raise TooLong(f"a mutation was not dealt with in {MOST_SECONDS} s")


def fuzz(data, count, seed):
    """`count` mutated files, of which a third are whole files, a third tables and a third streams that are signed."""
    chance, wanted = random.Random(seed), tensors()
    table, streams = container.unframed(data, "file")
    text, streams = json.dumps(table), bytes(streams)
    with bounded():
        for number in range(count):
            signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
            if number % 3 == 0:
                survives(mutated(data, chance), wanted)
            elif number % 3 == 1:
                survives(container.framed(nested(json.loads(text), chance) or {}, streams), wanted)
            else:
                survives(container.framed(table, mutated(streams, chance)), wanted)


def cut_net(toy):
    """A net that was cut in many ways, so that its header has plans of many kinds."""
    torch.manual_seed(0)
    net = ShuffleNet(units=(2, 1), width=0.1).build(num_classes=3)
    steps = (
        PruneLayers(units=(1, 1)),
        PruneChannels(macs="90%"),
        PruneWeights(sparsity=0.5, layers=("features.stage1.*",)),
        Decompose(rank=2, layers=("output",), method="svd"),
        Quantize(fold_norms=True, other_dtype="bfloat16"),
    )
    for step in steps:
        net = step(net, toy)
    return net.eval()


def fuzz_loading(path, count, seed):
    """`count` mutated files of a net: half of them signed with another header, a quarter with another table."""
    data, wanted = path.read_bytes(), packed.load(path)[0].state_dict()
    chance, (table, streams) = random.Random(seed), container.unframed(data, "file")
    text, streams = json.dumps(table), bytes(streams)
    with bounded():
        for number in range(count):
            signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
            changed = json.loads(text)
            if number % 4 == 0:
                path.write_bytes(mutated(data, chance))
            elif number % 4 == 1:
                path.write_bytes(container.framed(nested(changed, chance) or {}, streams))
            else:
                changed["header"] = nested(changed["header"], chance)
                path.write_bytes(container.framed(changed, streams))
            survives_loading(path, wanted)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's own account of a process's memory")
@pytest.mark.parametrize(
    ("count", "seed"), [(300, 0), pytest.param(30_000, 1, marks=pytest.mark.slow)], ids=["fast", "whole"]
)
def test_no_mutation_crashes_hangs_allocates_or_lies(data, count, seed):
    fuzz(data, count, seed)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's own account of a process's memory")
@pytest.mark.parametrize(
    ("count", "seed"), [(150, 0), pytest.param(10_000, 1, marks=pytest.mark.slow)], ids=["fast", "whole"]
)
def test_no_mutation_of_a_net_crashes_hangs_allocates_or_lies(toy, tmp_path, monkeypatch, count, seed):
    monkeypatch.setattr(checkpoint, "_SLACK_BYTES", MOST_BYTES // 4)
    net, path = cut_net(toy), tmp_path / "net.packed"
    packed.save(path, net, checkpoint.header_of(net, **ABOUT))
    fuzz_loading(path, count, seed)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda header: header["net"].update(num_classes=10**10), "3 classes are named, and the net has 10000000000"),
        (lambda header: header.update(classes=["a"]), "1 classes are named, and the net has 3"),
        (lambda header: header.update(classes=[], net=header["net"] | {"num_classes": 10**10}), "it would be larger"),
        (lambda header: header["net"]["settings"].update(width=255), "it would be larger"),
        (lambda header: header["net"]["settings"].update(units=[1 << 31, 1]), "it would be larger"),
        (lambda header: header["net"]["settings"].update(units=[3, 1]), "of another net than its header names"),
        (lambda header: header["net"].update(kind="ssdlite", settings={"weights": "own"}), "weights of elsewhere"),
        (lambda header: header.update(size="48"), "size must be the side"),
        (lambda header: header.update(std=[0.2, 0.2, 0]), "mean and std must be"),
        (lambda header: header.update(version=99), "version 99, newer than 4: update the project"),
        (lambda header: header.update(plans=[{"kind": "fold_space"}]), "'fold_space', .*newer, so update"),
        (lambda header: header.update(net=[]), "broken header"),
    ],
)  # fmt: skip
def test_a_header_that_lies_is_not_believed(saved, monkeypatch, change, match):
    monkeypatch.setattr(checkpoint, "_SLACK_BYTES", MOST_BYTES // 4)
    saved.write_bytes(resigned(saved.read_bytes(), lambda table: change(table["header"])))
    with pytest.raises(InputError, match=match) as caught:
        packed.load(saved)
    assert str(saved) in str(caught.value)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's own account of a process's memory")
def test_the_bounds_hold():
    with bounded(), pytest.raises(MemoryError):
        bytearray(2 * MOST_BYTES)
    with bounded(), pytest.raises(TooLong, match="not dealt with"):
        signal.setitimer(signal.ITIMER_PROF, 0.01)
        while True:
            pass
