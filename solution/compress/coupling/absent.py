"""A second way to run a cut: the full net, in which NaN marks every number that the cut takes away.

What moves, joins or maps numbers one by one carries the mark along by itself. What adds up over several numbers passes
the absent ones by: a product reads them as zero, a mean, norm or softmax is taken over those that are present. A result
is absent when nothing that it is made of is left. Nothing here knows about channels, layers or the project's analysis,
so a cut that equals this run is right whatever led to it, and a mark that reaches an output is a fault.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

NAN = float("nan")
Arguments = dict[str, Any]


def given_to(func: Any, args: Any, kwargs: Arguments) -> Arguments:
    """All arguments of a call by name, those left out too."""
    schema = func._schema.arguments
    named = dict(zip((argument.name for argument in schema), args, strict=False))
    return {**{argument.name: argument.default_value for argument in schema}, **named, **kwargs}


class Present(TorchDispatchMode):
    """A forward over the present numbers only."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The call as it is, unless it mixes absent numbers with present ones."""
        kwargs = kwargs or {}
        rule = RULES.get(func.overloadpacket.__name__)
        leaves = torch.utils._pytree.tree_leaves((args, kwargs))
        if rule is None or not any(isinstance(leaf, Tensor) and is_absent(leaf).any() for leaf in leaves):
            return func(*args, **kwargs)
        return rule(func, given_to(func, args, kwargs))


class Steady(TorchDispatchMode):
    """A forward that draws the same number everywhere: nets of two widths would else draw different ones."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The call as it is, unless it draws numbers."""
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        draw, given = DRAWS.get(name.rstrip("_")), given_to(func, args, kwargs)
        if draw is None or given.get("generator") is not None:  # of a seed of its own it draws what it always does
            return func(*args, **kwargs)
        drawn = draw(given)
        if name.endswith("_"):
            return args[0].copy_(drawn) if isinstance(drawn, Tensor) else args[0].fill_(drawn)
        return drawn.clone() if isinstance(drawn, Tensor) else func(*args, **kwargs).fill_(drawn)


DRAWS: dict[str, Callable[[Arguments], Any]] = {
    **dict.fromkeys(("rand", "rand_like", "randn", "randn_like"), lambda given: 0.5),
    "uniform": lambda given: (given["from"] + given["to"]) / 2,
    "normal": lambda given: given["mean"] + given["std"] / 2,
    "exponential": lambda given: 1 / given["lambd"],
    "bernoulli": lambda given: given.get("p", given["self"]),
}
"""What draws numbers -> one that it may draw; of choices between 0 and 1 their mean, by which nothing is dropped."""


def is_absent(x: Tensor) -> Tensor:
    """Where `x` is marked."""
    return x.isnan() if x.is_floating_point() or x.is_complex() else torch.zeros((), dtype=torch.bool)


def filled(x: Any, value: float = 0.0) -> Any:
    """`x` with a number in place of each mark."""
    return torch.where(is_absent(x), value, x) if isinstance(x, Tensor) else x


def marked(x: Tensor, gone: Tensor) -> Tensor:
    """`x` with a mark where `gone`."""
    return torch.where(gone, NAN, x)


def dims_of(x: Tensor, given: Arguments) -> list[int]:
    """The dimensions over which a reduction runs."""
    dims = given.get("dim")
    dims = [dims] if isinstance(dims, int) else dims
    return [dim % x.ndim for dim in dims] if dims else list(range(x.ndim))


def _counts(x: Tensor, given: Arguments, keepdim: bool) -> Tensor:
    return (~is_absent(x)).sum(dims_of(x, given), keepdim=keepdim)


def reduced(value: float) -> Callable[[Any, Arguments], Any]:
    """A reduction to which `value` adds nothing."""

    def rule(func: Any, given: Arguments) -> Any:
        x = given["self"]
        result = func(**{**given, "self": filled(x, value)})
        gone = _counts(x, given, bool(given.get("keepdim"))) == 0
        return (marked(result[0], gone), *result[1:]) if isinstance(result, tuple) else marked(result, gone)

    return rule


def mean(func: Any, given: Arguments) -> Tensor:
    x, keepdim = given["self"], bool(given.get("keepdim"))
    return filled(x).sum(dims_of(x, given), keepdim=keepdim) / _counts(x, given, keepdim)


def moments(x: Tensor, dims: list[int], correction: float = 0.0) -> tuple[Tensor, Tensor]:
    """Mean and variance over the present numbers, both with kept dimensions."""
    number = (~is_absent(x)).sum(dims, keepdim=True)
    middle = filled(x).sum(dims, keepdim=True) / number
    return middle, filled((x - middle) ** 2).sum(dims, keepdim=True) / (number - correction)


def variance(func: Any, given: Arguments) -> Any:
    x, dims = given["self"], dims_of(given["self"], given)
    correction = given.get("correction", 1)
    both = moments(x, dims, 1 if correction is None else correction)
    middle, spread = both if given.get("keepdim") else (part.squeeze(dims) for part in both)
    name = func.overloadpacket.__name__
    spread = spread.sqrt() if name.startswith("std") else spread
    return (spread, middle) if name.endswith("mean") else spread


def softmax(func: Any, given: Arguments) -> Tensor:
    x = given["self"]
    return marked(func(**{**given, "self": filled(x, -math.inf)}), is_absent(x))


def along(value: float) -> Callable[[Any, Arguments], Any]:
    """A running sum, product or maximum, to which `value` adds nothing."""

    def rule(func: Any, given: Arguments) -> Any:
        x = given["self"]
        result = func(**{**given, "self": filled(x, value)})
        return (
            (marked(result[0], is_absent(x)), result[1]) if isinstance(result, tuple) else marked(result, is_absent(x))
        )

    return rule


def ordered(func: Any, given: Arguments) -> Any:
    """The largest (or smallest) numbers in turn: absent ones come last."""
    first = given.get("largest", given.get("descending"))
    extreme = -math.inf if first else math.inf
    values, places = func(**{**given, "self": filled(given["self"], extreme)})
    return marked(values, values == extreme), places


def layer_norm(func: Any, given: Arguments) -> Any:
    x = given["input"]
    dims = list(range(x.ndim - len(given["normalized_shape"]), x.ndim))
    middle, spread = moments(x, dims)
    normed = _scaled((x - middle) / (spread + given["eps"]).sqrt(), given["weight"], given["bias"])
    return (normed.contiguous(), middle, spread)


def group_norm(func: Any, given: Arguments) -> Any:
    x = given["input"]
    grouped = x.reshape(given["N"], given["group"], -1)
    middle, spread = moments(grouped, [2])
    result = ((grouped - middle) / (spread + given["eps"]).sqrt()).view_as(x)
    shape = (1, -1, *[1] * (x.ndim - 2))
    weight, bias = (part if part is None else part.view(shape) for part in (given["weight"], given["bias"]))
    return (_scaled(result, weight, bias), middle, spread)


def batch_norm(func: Any, given: Arguments) -> Any:
    """Statistics of the batch; those that were noted before need no rule."""
    if not given.get("training", given.get("train", True)):
        return func(**given)
    x = given["input"]
    middle, spread = moments(x, [dim for dim in range(x.ndim) if dim != 1])
    shape = (1, -1, *[1] * (x.ndim - 2))
    weight, bias = (part if part is None else part.view(shape) for part in (given["weight"], given["bias"]))
    return (_scaled((x - middle) / (spread + given["eps"]).sqrt(), weight, bias), middle, spread)


def rms_norm(func: Any, given: Arguments) -> Any:
    x = given["input"]
    dims = list(range(x.ndim - len(given["normalized_shape"]), x.ndim))
    number = (~is_absent(x)).sum(dims, keepdim=True)
    eps = given["eps"] or torch.finfo(x.dtype).eps
    scale = (filled(x * x).sum(dims, keepdim=True) / number + eps).rsqrt()
    return (_scaled(x * scale, given["weight"], None).contiguous(), scale)


def _scaled(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _weights_gone(weight: Tensor, groups: int = 1, transposed: bool = False) -> Tensor:
    """(outputs,) which outputs of a convolution have no weight left."""
    if not transposed:
        return is_absent(weight).flatten(1).all(1)
    return is_absent(weight).unflatten(0, (groups, -1)).transpose(1, 2).flatten(2).all(2).flatten()


def convolution(func: Any, given: Arguments) -> Tensor:
    x, weight, bias = given["input"], given["weight"], given["bias"]
    result = func(**{**given, "input": filled(x), "weight": filled(weight), "bias": None})
    shape = (1, -1, *[1] * (weight.ndim - 2))
    result = marked(result, _weights_gone(weight, given.get("groups", 1), given.get("transposed", False)).view(shape))
    return result if bias is None else result + bias.view(shape)


def deformed(func: Any, given: Arguments) -> Tensor:
    weight, bias = given["weight"], given["bias"]
    result = func(**{name: filled(value) for name, value in {**given, "bias": torch.zeros_like(bias)}.items()})
    return marked(result, _weights_gone(weight).view(1, -1, 1, 1)) + bias.view(1, -1, 1, 1)


def product(left: str, right: str) -> Callable[[Any, Arguments], Tensor]:
    """A matrix product, with or without something that is added."""

    def rule(func: Any, given: Arguments) -> Tensor:
        result = func(**{name: filled(value) for name, value in given.items()})
        rows, columns = is_absent(given[left]).all(-1, keepdim=True), is_absent(given[right])
        columns = columns.all(-2, keepdim=True) if columns.ndim > 1 else columns.all()
        gone = (rows | columns) if columns.ndim else (rows.squeeze(-1) | columns)
        added = given.get("self") if left != "self" else None
        return marked(result, gone if added is None else gone | is_absent(added))

    return rule


def bilinear(func: Any, given: Arguments) -> Tensor:
    result = func(**{name: filled(value) for name, value in given.items()})
    return marked(result, _weights_gone(given["i2"].squeeze(0)))


def distances(func: Any, given: Arguments) -> Tensor:
    result = func(**{name: filled(value) for name, value in given.items()})
    return marked(result, is_absent(given["x1"]).all(-1)[..., None] | is_absent(given["x2"]).all(-1)[..., None, :])


def weight_norm(func: Any, given: Arguments) -> Any:
    v, dim = given["v"], given["dim"]
    length = filled(v * v).sum([d for d in range(v.ndim) if d != dim], keepdim=True).sqrt()
    return (v * (given["g"] / length), length)


def one_by_one(func: Any, given: Arguments) -> Tensor:
    """Kernels that lose a NaN on some processors."""
    return marked(func(**given), is_absent(given["self"]))


RULES: dict[str, Callable[[Any, Arguments], Any]] = {
    **dict.fromkeys(("sum", "linalg_vector_norm", "norm"), reduced(0.0)),
    **dict.fromkeys(("amax", "max", "logsumexp", "argmax"), reduced(-math.inf)),
    **dict.fromkeys(("amin", "min", "argmin"), reduced(math.inf)),
    **dict.fromkeys(("var", "std", "var_mean", "std_mean"), variance),
    **dict.fromkeys(("_softmax", "_log_softmax"), softmax),
    **dict.fromkeys(("topk", "sort"), ordered),
    **dict.fromkeys(("hardsigmoid", "hardswish", "hardtanh", "sign", "threshold"), one_by_one),
    "prod": reduced(1.0),
    "mean": mean,
    "cumsum": along(0.0),
    "cumprod": along(1.0),
    "cummax": along(-math.inf),
    "native_batch_norm": batch_norm,
    "native_layer_norm": layer_norm,
    "native_group_norm": group_norm,
    "_fused_rms_norm": rms_norm,
    "convolution": convolution,
    "deform_conv2d": deformed,
    "mm": product("self", "mat2"),
    "bmm": product("self", "mat2"),
    "mv": product("self", "vec"),
    "dot": product("self", "tensor"),
    "addmm": product("mat1", "mat2"),
    "baddbmm": product("batch1", "batch2"),
    "addmv": product("mat", "vec"),
    "_trilinear": bilinear,
    "_cdist_forward": distances,
    "_euclidean_dist": distances,
    "_weight_norm_interface": weight_norm,
}
