"""Operations that image nets of torchvision, timm and transformers use: each has a rule, or is named here.

`aten_operations.json` holds {library: {operation: a net that calls it}}, noted from a small net of every family.
"""

import json
from pathlib import Path

import pytest
import torch

from solution.compress.coupling.analysis import TraceRequest, analyze
from solution.compress.coupling.rules import RULES

NOTED = json.loads(Path(__file__).with_name("aten_operations.json").read_text())
WITHOUT_RULE = {"meshgrid": "coordinates", "one_hot": "classes"}
"""Operations on positions and labels: what they return stands for no channels, and what enters them stays."""


def has_rule(name):
    """A rule of its own, the one of element-wise operations, or no tensors that enter it."""
    packet = getattr(torch.ops.aten, name, None) or getattr(torch.ops.aten, f"{name}_", None)
    packet = packet or getattr(torch.ops.torchvision, name)
    overloads = [getattr(packet, overload) for overload in packet.overloads()]
    pointwise = any(torch.Tag.pointwise in overload.tags for overload in overloads)
    without_tensors = not any("Tensor" in str(one.type) for one in overloads[0]._schema.arguments)
    return name in RULES or pointwise or without_tensors


@pytest.mark.parametrize("library", NOTED)
def test_every_operation_has_a_rule_or_is_named(library):
    missing = {name for name in NOTED[library] if not has_rule(name)}
    assert missing <= set(WITHOUT_RULE)


def test_what_is_named_is_used_and_has_no_rule():
    used = set().union(*NOTED.values())
    assert all(name in used and not has_rule(name) for name in WITHOUT_RULE)


@pytest.mark.parametrize("name", ["resnet10t", "test_vit", "test_efficientnet", "test_convnext", "test_byobnet"])
def test_the_list_holds_what_a_net_calls(name):
    import timm

    full = analyze(TraceRequest(model=timm.create_model(name).eval(), example=torch.randn(1, 3, 160, 160)))
    called = {call.op._overloadpacket.__name__.rstrip("_") for trace in full.traces for call in trace.calls}
    assert called <= set().union(*NOTED.values())
