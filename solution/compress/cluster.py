"""Clustering: the weights of a layer share a few values, its codebook, and each weight is a number into it.

    import solution as fw
    shared = fw.Cluster(bits=4)(model, x)

After Han et al., 2016 (Deep Compression, arXiv:1510.00149). Codebook and numbers are a parametrization, so a `Train`
step after this one moves the values of the codebook, and a checkpoint holds them instead of the weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from solution.compress.coupling.inputs import AnyNetStep
from solution.compress.layers import layer_for, layers_of, left_alone, savings, sound_weight
from solution.compress.parametrized import MASKS, materialize, materialized, note_computed
from solution.contracts import InputError, Plan, StepContext
from solution.text import columns

INITS = ("k-means++", "linear")
_MOST_POINTS = 1 << 14
"""Values that k-means sees of a layer: evenly spaced ones of all in order, so their quantiles are kept."""


def clusters(values: np.ndarray, count: int, init: str, seed: int) -> np.ndarray:
    """The number (N,) of the nearest of at most `count` centers, in ascending order, for each of `values` (N,)."""
    distinct = np.unique(values)
    if len(distinct) <= count:
        return np.searchsorted(distinct, values)
    seen = np.sort(values)
    seen = seen[np.linspace(0, len(seen) - 1, min(len(seen), _MOST_POINTS)).round().astype(int)]
    centers = np.sort(_centers(seen, min(count, len(np.unique(seen))), init, seed))
    return np.searchsorted((centers[1:] + centers[:-1]) / 2, values)


def _centers(seen: np.ndarray, count: int, init: str, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    start = np.linspace(seen.min(), seen.max(), count)[:, None] if init == "linear" else init
    with threadpool_limits(limits=1):  # on several threads the order of its sums, and so the result, is not fixed
        return KMeans(count, init=start, n_init=1, random_state=seed).fit(seen[:, None]).cluster_centers_.ravel()


class Codebook(nn.Module):
    """Parametrization of a weight by what its weights share.

    The parameter is the codebook (G, K): K values for each of G groups of rows. The buffer `codes`, uint8 in the
    weight's shape, is the index of each weight's value; with `zero`, code 0 is a zero that no training moves and code 1
    the first value. The gradient of a value is the mean of its weights' gradients, so that each step is the projection
    of the step that the weights would take, and a learning rate means what it means for them.
    """

    codes: Tensor

    def __init__(self, codes: Tensor, num_groups: int, num_values: int, *, zero: bool) -> None:
        super().__init__()
        self.register_buffer("codes", codes)
        self.num_groups, self.num_values, self.zero = num_groups, num_values, zero

    def forward(self, codebook: Tensor) -> Tensor:
        """(G, K) to the shape of the weight."""
        codes = self._rows()
        table = F.pad(codebook, (int(self.zero), 0))
        if table.requires_grad:
            table.register_hook(lambda gradient: gradient / self._counts(codes).to(gradient.dtype))
        return table.gather(1, codes).view(self.codes.shape)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The codebook (G, K) of means of the weights that share a code; 0 where none does."""
        codes = self._rows()
        table = torch.zeros(len(codes), self.size, dtype=torch.float64, device=weight.device)
        table.scatter_add_(1, codes, weight.detach().double().reshape(codes.shape))
        return (table / self._counts(codes))[:, int(self.zero) :].to(weight.dtype)

    @property
    def size(self) -> int:
        """Values of a codebook, with the fixed zero."""
        return self.num_values + int(self.zero)

    def _rows(self) -> Tensor:
        return self.codes.reshape(self.num_groups, -1).long()

    def _counts(self, codes: Tensor) -> Tensor:
        counts = torch.zeros(len(codes), self.size, dtype=torch.float64, device=codes.device)
        return counts.scatter_add_(1, codes, torch.ones_like(codes, dtype=torch.float64)).clamp_(min=1)


def codes_of(weight: Tensor, layer: dict[str, Any], init: str, seed: int) -> Tensor:
    """Codes, uint8 in the shape of `weight`, by k-means on each group of rows. layer: as in `ClusterPlan.layers`."""
    rows = weight.detach().double().cpu().numpy().reshape(layer["groups"], -1)
    codes = np.zeros(rows.shape, dtype=np.uint8)
    for row, into in zip(rows, codes, strict=True):
        wanted = row != 0 if layer["zero"] else np.ones(len(row), dtype=bool)
        if wanted.any():
            into[wanted] = clusters(row[wanted], layer["values"], init, seed) + layer["zero"]
    return torch.from_numpy(codes).view(weight.shape).to(weight.device)


@dataclass(frozen=True, kw_only=True)
class ClusterPlan(Plan):
    """Which layers get codebooks, of what size; the values are computed from the net that it is applied to.

    bits    of a code
    init    where k-means starts
    seed    of k-means
    layers  path -> {"shape": of the weight, "groups": codebooks, "values": in each, but for the zero,
            "zero": whether there is a fixed zero, "bytes": (as plain numbers, as codebook and codes)}
    saves   {"bytes": (before, after)} of these layers' weights in a checkpoint, a byte a code
    packed  the bytes when codes take `bits` bits each
    left    path -> why it is left as it is
    """

    kind: ClassVar[str] = "cluster"
    bits: int
    init: str
    seed: int
    layers: dict[str, dict[str, Any]]
    saves: dict[str, tuple[int, int]]
    packed: int
    left: dict[str, str]

    def cut(self, model: nn.Module) -> nn.Module:
        """Find and put in the codebooks, in place."""
        modules = {path: layer_for(model, path, layer["shape"]) for path, layer in self.layers.items()}
        for path, module in modules.items():
            layer = self.layers[path]
            weight = cast(Tensor, materialize(module).weight)
            codes = codes_of(weight, layer, self.init, self.seed)
            codebook = Codebook(codes, layer["groups"], layer["values"], zero=layer["zero"])
            parametrize.register_parametrization(module, "weight", codebook)
        return model

    def __str__(self) -> str:
        rows = [("layer", "weights", "codebooks", "values", "bytes")]
        for path, layer in self.layers.items():
            count = math.prod(layer["shape"])
            values = f"{layer['values']}{' and zero' if layer['zero'] else ''}"
            before, after = layer["bytes"]
            rows.append((path, f"{count:,}", str(layer["groups"]), values, f"{before:,} -> {after:,}"))
        packed = f"packed at {self.bits} bits a weight: {self.packed:,} bytes"
        return "\n".join([*columns(rows), *left_alone(self.left), *savings(self.saves), packed])


@dataclass(frozen=True, kw_only=True)
class Cluster(AnyNetStep):
    """Let weights share values. Exact zeros of a layer stay exactly zero, in training too.

    bits     of a code, 2 to 8: a layer's weights share 2 ** bits values
    groups   codebooks of a layer: 1 for the whole tensor, more for as many groups of output channels (the greatest
             common divisor with their number)
    init     "k-means++", or "linear": evenly spaced values, which leaves more of them to the few large weights
    layers   glob patterns of the layers chosen
    protect  glob patterns of layers that are left as they are
    """

    currency: ClassVar[str | None] = "bytes"
    bits: int = 4
    groups: int = 1
    init: str = "k-means++"
    layers: tuple[str, ...] = ("*",)
    protect: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise InputError(f"bits must lie between 2 and 8, got {self.bits}")
        if self.groups < 1:
            raise InputError(f"groups must be at least 1, got {self.groups}")
        if self.init not in INITS:
            raise InputError(f"init must be one of {', '.join(INITS)}, got {self.init!r}")

    def decide(self, model: nn.Module, context: StepContext) -> ClusterPlan:
        """Size the codebooks. `InputError` when no layer would get smaller."""
        modules, left = layers_of(materialized(model), self.layers, self.protect)
        layers: dict[str, dict[str, Any]] = {}
        packed = 0
        for path, module in modules.items():
            layer = self._layer(sound_weight(path, module))
            if _has_codebook(model.get_submodule(path), layer):
                left[path] = "it has such a codebook already"
            elif layer["bytes"][1] >= layer["bytes"][0]:
                left[path] = "with a codebook it would not get smaller"
            else:
                layers[path] = layer
                packed += _bytes(layer, self.bits, cast(Tensor, module.weight).element_size())
        if not layers:
            reasons = "; ".join(sorted(set(left.values()))) or "no layer was chosen"
            raise InputError(f"nothing would be clustered: {reasons}")
        note_computed(model, tuple(layers), context.log, keeps=MASKS | {"Codebook"})
        saves = {"bytes": tuple(sum(layer["bytes"][when] for layer in layers.values()) for when in (0, 1))}
        return ClusterPlan(
            bits=self.bits, init=self.init, seed=context.seed, layers=layers, saves=saves, packed=packed, left=left
        )

    def _layer(self, weight: Tensor) -> dict[str, Any]:
        zero = bool((weight == 0).any())
        groups = math.gcd(self.groups, len(weight))
        layer = {"shape": tuple(weight.shape), "groups": groups, "values": 2**self.bits - zero, "zero": zero}
        before = weight.numel() * weight.element_size()
        return layer | {"bytes": (before, _bytes(layer, 8, weight.element_size()))}


def _bytes(layer: dict[str, Any], bits: int, value_bytes: int) -> int:
    """Of codes at `bits` each and their codebooks."""
    return math.ceil(math.prod(layer["shape"]) * bits / 8) + layer["groups"] * layer["values"] * value_bytes


def _has_codebook(module: Any, layer: dict[str, Any]) -> bool:
    """Whether the layer has codebooks of that number and size."""
    book = module.parametrizations.weight[-1] if parametrize.is_parametrized(module, "weight") else None
    wanted = (layer["groups"], layer["values"] + layer["zero"])
    return isinstance(book, Codebook) and (book.num_groups, book.size) == wanted
