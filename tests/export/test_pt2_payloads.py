"""Code hidden in a .pt2: each payload is live where nothing is checked, and never runs here."""

import contextlib
import io
import json
import random
import re
import subprocess
import sys
import zipfile

import pytest
import torch
from torch import nn

from solution.contracts import InputError
from solution.export import files
from solution.formats.exported import Metadata
from solution.formats.pt2 import PT2
from solution.formats.pt2_check import check_expression, checked
from solution.runtime import ROOT

MODEL = "archive/models/model.json"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The members of the file of a small net."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval().requires_grad_(False)
    path = tmp_path_factory.mktemp("pt2") / "net.pt2"
    metadata = Metadata(classes=tuple("abcd"), mean=(0.5,) * 3, std=(0.2,) * 3, size=16)
    PT2.write(PT2.floating(net, torch.zeros(2, 3, 16, 16), "fp32"), metadata, path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def written(members, path, **changes):
    """The archive at `path`, with changed or added members."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED) as archive:
        for name, content in (members | changes).items():
            archive.writestr(name, content)
    path.write_bytes(whole.getvalue())
    return path


def planted(sound, path, change):
    """The file with its graph changed."""
    model = json.loads(sound[MODEL])
    change(model)
    return written(sound, path, **{MODEL: json.dumps(model)})


def graph(model):
    return model["graph_module"]["graph"]


def sizes(model, text):
    values = graph(model)["tensor_values"]
    values[next(iter(values))]["sizes"][0] = {"as_expr": {"expr_str": text, "hint": {"as_int": 2}}}


def calls(model, target, **arguments):
    node = graph(model)["nodes"][-1]
    node["target"] = target
    if arguments:
        node["inputs"] = [{"name": name, "arg": value, "kind": 1} for name, value in arguments.items()]


def makes_file(model, flag):
    size, shared = {"as_int": 4}, {"as_bool": True}
    calls(model, "torch.ops.aten.from_file.default", filename={"as_string": str(flag)}, shared=shared, size=size)


def touch(flag):
    return f"__import__('pathlib').Path({str(flag)!r}).touch()"


def signature(model):
    return model["graph_module"]["module_call_graph"][0]["signature"]


PAYLOADS = {
    "a shape's expression": lambda model, flag: sizes(model, touch(flag)),
    "an operator that writes a file": makes_file,
}
OTHERS = {
    "guards": lambda model, flag: model.update(guards_code=[f"{touch(flag)} is None"]),
    "a function of the system": lambda model, flag: calls(
        model, "torch.os.system", command={"as_string": f"touch {flag}"}
    ),
    "an expression within Symbol": lambda model, flag: sizes(model, f"Symbol('s1', positive={touch(flag)})"),
    "an attribute": lambda model, flag: sizes(model, "s1.__class__"),
    "a lambda": lambda model, flag: sizes(model, "lambda: 0"),
    "another operator that writes a file": lambda model, flag: calls(model, "torch.ops.aten.save.default"),
    "torch.load": lambda model, flag: calls(model, "torch.load"),
    "a caller of methods": lambda model, flag: calls(model, "_operator.methodcaller"),
    "an operator's own attributes": lambda model, flag: calls(model, "torch.ops.aten.add.__class__"),
    "other libraries' operators": lambda model, flag: calls(model, "torch.ops.profiler._record_function_enter.default"),
    "a name": lambda model, flag: graph(model)["inputs"][0]["as_tensor"].update(name=f"x): {touch(flag)}\n#"),
    "names of arguments": lambda model, flag: signature(model).update(forward_arg_names=[f"x={touch(flag)}"]),
    "notes on a node": lambda model, flag: graph(model)["nodes"][0].update(metadata={"source_fn_stack": "a,os.system"}),
    "a container": lambda model, flag: signature(model).update(
        in_spec='[1, {"type": "collections.OrderedDict", "context": "[]", "children_spec": []}]'
    ),
    "keys of a container": lambda model, flag: signature(model).update(
        in_spec='[1, {"type": "builtins.dict", "context": "[{\\"__enum__\\": true, \\"fqn\\": \\"os:system\\"}]", '
        '"children_spec": []}]'
    ),
    "an object": lambda model, flag: graph(model).update(custom_obj_values={"a": {"name": "a", "class_fqn": "b"}}),
    "a subgraph": lambda model, flag: graph(model)["nodes"][0]["inputs"].append(
        {"name": "", "arg": {"as_graph": {"name": "g", "graph": {}}}, "kind": 1}
    ),
}


@pytest.mark.parametrize("change", (PAYLOADS | OTHERS).values(), ids=(PAYLOADS | OTHERS).keys())
def test_no_payload_is_loaded(sound, tmp_path, change):
    path = planted(sound, tmp_path / "net.pt2", lambda model: change(model, tmp_path / "flag"))
    with pytest.raises(InputError, match=r"net\.pt2 holds what no export of this project writes .*never loaded"):
        files.open_file(path)(torch.zeros(1, 3, 16, 16))
    assert not (tmp_path / "flag").exists()


@pytest.mark.parametrize("change", PAYLOADS.values(), ids=PAYLOADS.keys())
def test_these_payloads_run_where_nothing_is_checked(sound, tmp_path, change):
    path = planted(sound, tmp_path / "net.pt2", lambda model: change(model, tmp_path / "flag"))
    code = "import sys, torch; torch.export.load(sys.argv[1]).module()(torch.zeros(2, 3, 16, 16))"
    subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, cwd=tmp_path, check=False)
    assert (tmp_path / "flag").exists()


@pytest.mark.parametrize("name", ["archive/data/aotinductor/m/m.so", "archive/code/x.py", "archive/models/other.json"])
def test_members_of_other_kinds_are_refused(sound, tmp_path, name):
    path = written(sound, tmp_path / "net.pt2", **{name: b"x"})
    with pytest.raises(InputError, match="holds a pickle or code"):
        files.open_file(path)


def test_a_sound_file_is_opened_and_what_lies_around_it_never_reaches_pytorch(sound, tmp_path):
    path = written(sound, tmp_path / "net.pt2")
    wanted = files.open_file(path)(torch.ones(1, 3, 16, 16))
    path.write_bytes(b"PK\x03\x04 more" + path.read_bytes())  # readers differ in what they make of a beginning
    assert torch.equal(files.open_file(path)(torch.ones(1, 3, 16, 16)), wanted)


def test_int8_is_opened_in_a_process_that_has_quantized_nothing(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval().requires_grad_(False)
    graph = PT2.quantized(net, [torch.randn(1, 3, 16, 16)], [], fine_outputs=False)
    metadata = Metadata(classes=tuple("abcd"), mean=(0.5,) * 3, std=(0.2,) * 3, size=16, precision="int8")
    PT2.write(graph, metadata, tmp_path / "net.pt2")
    code = "import sys; from pathlib import Path; from solution.export import files; "
    code += "print(files.open_file(Path(sys.argv[1])).metadata.precision)"
    words = [sys.executable, "-c", code, str(tmp_path / "net.pt2")]
    assert subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=True).stdout.strip() == "int8"


@pytest.mark.parametrize(
    "text",
    [
        "Symbol('s77', positive=True, integer=True)",
        "Min(Integer(32), Mul(Integer(32), Symbol('s77', positive=True, integer=True)))",
        "Add(Integer(-1), FloorDiv(s0, 2))",
        "2*s0 + (s1 // 3) % 4 - -1",
        "s0 >= 2",
        "Max(1, u0)",
        "True",
        "Pow(Symbol('s0'), Integer(-1))",
        "s0**2",
    ],
)
def test_expressions_as_pytorch_writes_them_are_accepted(text):
    check_expression(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "(", "s0 s1", "Symbol(s0)", "Symbol('__import__')", "Symbol('s0', positive=s1)", "print(1)", "eval('1')",
        "s0.a", "s0[0]", "s0; s1", "lambda: 0", "[s0]", "{1}", "f'{s0}'", "s0 if s1 else s2", "x", "exit", "1e400",
        "s0 := 1", "Integer(1", "Integer(1))", "Mul(a=1)", "'s0'", "s0\n;s1", "\u017f0", "(" * 100 + "1" + ")" * 100,
        "Symbol(" * 100, "1" * 20_000, "9**9**9**9", "9**9", "Pow(9, Pow(9, 9))", "((((9**8)**8)**8)**8)**8",
        "PowByNatural(9, 999999999)", "LShift(1, Integer(99999999))", "2**s0", "---1", "s0 + " * 900 + "1",
        "Max(s0, s1, s2, s3, s4, s5, s6, s7, s8)",
    ],
)  # fmt: skip
def test_nothing_else_is(text):
    with pytest.raises(InputError, match="never loaded"):
        check_expression(text)


ODD = (None, True, -1, 1 << 70, 1e999, "", "x" * 300, "a b", "()", "\x00", "__import__('os')", "torch.os.system", [],
       {}, [[]], {"metadata": {"a": "b"}}, {"as_expr": {"expr_str": "exit()"}})  # fmt: skip


def mutated(value, chance):
    """`value` with one of its parts replaced, removed or renamed."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        name = chance.choice(sorted(value))
        if chance.random() < 0.1:
            return {chance.choice(("target", "expr_str", "in_spec", "name", "a b")): value[name]}
        return value | {name: mutated(value[name], chance)}
    if isinstance(value, list) and value and chance.random() < 0.9:
        place = chance.randrange(len(value))
        return [*value[:place], mutated(value[place], chance), *value[place + 1 :]]
    return chance.choice(ODD)


def test_a_mutated_graph_is_refused_by_a_line_or_holds_nothing_but_names(sound, tmp_path):
    chance, model = random.Random(0), json.loads(sound[MODEL])
    refused = 0
    for _ in range(1500):
        data = written(sound, tmp_path / "net.pt2", **{MODEL: json.dumps(mutated(model, chance))}).read_bytes()
        try:
            passed = checked(data, tmp_path / "net.pt2")
        except InputError:
            refused += 1
        else:
            with zipfile.ZipFile(io.BytesIO(passed)) as archive:
                text = archive.read(MODEL).decode()
            assert "__import__" not in text
            assert "exit" not in text
            assert re.search(r'"target": \[*"(?!torch\.ops\.aten\.\w+\.\w+")', text) is None
    assert refused > 300


def test_a_damaged_archive_is_refused_by_a_line_or_is_one(sound, tmp_path):
    chance, data = random.Random(0), written(sound, tmp_path / "net.pt2").read_bytes()
    for _ in range(500):
        changed = bytearray(data)
        for _ in range(chance.randrange(1, 4)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        with contextlib.suppress(InputError):
            checked(bytes(changed[: chance.choice((None, chance.randrange(len(changed))))]), tmp_path / "net.pt2")
