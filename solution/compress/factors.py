"""One convolution or linear layer as two or three thin ones, and the mathematics of it.

svd      1x1 convolution or linear layer: to r channels, then to all (Denton et al., 2014, arXiv:1404.0736)
spatial  k x k convolution: k x 1 to r channels, then 1 x k (Jaderberg et al., 2014, arXiv:1405.3866)
tucker   k x k convolution: 1x1 to r_in channels, k x k to r_out, 1x1 to all (Tucker-2; Kim et al., 2015,
         arXiv:1511.06530), through tensorly

Ranks are (r,) for svd and spatial, (r_out, r_in) for tucker. A grouped convolution is split group by group, at the same
ranks, into grouped layers. All layers made are ordinary; the bias goes to the last.

Factors are the nearest to the weights, or, where moments of the layer's inputs are given, those whose outputs are
nearest on such inputs: the first layers take the directions in which the inputs that the weights respond to vary most
(Zhang et al., 2015, arXiv:1411.4229), and the last one is fitted to the outputs by least squares.

Shapes: weights of a layer (G, O, I, kh, kw), G groups of O outputs and I inputs each; 1 x 1 for a linear layer.
Moments (G, D, D) of its patches, D = I * kh * kw: second moments of the inputs on calibration images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from solution.compress.fold_norms import Wiring
from solution.contracts import InputError
from solution.evaluate.cost import counted_class
from solution.graph import as_judged, images_for, observe

_ROUNDS = 2
"""Rounds of higher-order orthogonal iteration. Those after lower the error by a thousandth of it."""
_RIDGE = 1e-6
"""What is added to moments, as a fraction of their mean: directions that no input takes have none."""


def grouped(module: Any) -> Tensor:
    """The weight (G, O, I, kh, kw) of a convolution or linear layer, in float64."""
    groups, weight = getattr(module, "groups", 1), module.weight.detach().double()
    kernel = weight.shape[2:] or (1, 1)
    return weight.reshape(groups, len(weight) // groups, weight.shape[1], *kernel)


def patches(module: Any, x: Tensor) -> Tensor:
    """(N, G, D) what a convolution or linear layer sees at each of its N places in the input `x`."""
    if isinstance(module, nn.Linear):
        return x.reshape(-1, 1, x.shape[-1])
    mode = module.padding_mode
    x = F.pad(x, module._reversed_padding_repeated_twice, mode="constant" if mode == "zeros" else mode)
    columns = F.unfold(x, module.kernel_size, module.dilation, stride=module.stride)  # (B, G * D, places)
    return columns.unflatten(1, (module.groups, -1)).permute(0, 3, 1, 2).flatten(0, 1)


def unfoldings(method: str, weight: Tensor) -> tuple[Tensor, ...]:
    """The matrices (G, rows, columns) whose ranks `method` cuts."""
    if method == "svd":
        return (weight.flatten(2),)
    if method == "spatial":
        return (weight.permute(0, 2, 3, 1, 4).flatten(3).flatten(1, 2),)  # (G, I * kh, O * kw)
    return weight.flatten(2), weight.transpose(1, 2).flatten(2)


def principal(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Squared singular values (..., S), descending, and singular vectors (..., side, S) of the shorter side.

    They come from the product of the matrix with itself, which is small: a quarter of the work of a full SVD and less.
    """
    rows, columns = matrix.shape[-2:]
    energies, vectors = torch.linalg.eigh(matrix @ matrix.mT if rows <= columns else matrix.mT @ matrix)
    return energies.flip(-1).clamp(min=0), vectors.flip(-1)


def bases(matrix: Tensor) -> Tensor:
    """All left singular vectors (..., rows, rows) of `matrix`, the most important first."""
    return torch.linalg.eigh(matrix @ matrix.mT).eigenvectors.flip(-1)


def tucker_core(weight: Tensor, last: Tensor, first: Tensor) -> Tensor:
    """What is left of `weight` between bases (G, O, r_out) and (G, I, r_in): (G, r_out, r_in, kh, kw)."""
    return torch.einsum("goihw,gor,gis->grshw", weight, last, first)


def low_rank(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(..., m, rank) and (..., rank, n) whose product is the nearest to `matrix`. Both have columns of equal norms."""
    vectors = principal(matrix)[1][..., :rank]
    if matrix.shape[-2] <= matrix.shape[-1]:
        return _balanced(vectors, vectors.mT @ matrix)
    return _balanced(matrix @ vectors, vectors.mT)


def _balanced(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The same product, of factors whose columns have equal norms."""
    norms = left.norm(dim=-2), right.norm(dim=-1)
    scale = torch.where((norms[0] > 0) & (norms[1] > 0), norms[1] / norms[0], 1).sqrt()
    return left * scale[..., None, :], right / scale[..., None]


def whitened(method: str, weight: Tensor, moments: Tensor) -> Tensor:
    """`weight` as its outputs weigh it: the squares that `method` leaves out of it are what the outputs lose.

    Of svd that is exact. The others take the places of a kernel to see inputs of the same moments, unrelated.
    """
    root = _root(method, weight, moments)[0]
    if method == "spatial":
        flat = weight.permute(0, 1, 4, 2, 3).flatten(3)  # (G, O, kw, I * kh)
        return torch.einsum("gown,gnm->gowm", flat, root).unflatten(3, weight.shape[2:4]).permute(0, 1, 3, 4, 2)
    return torch.einsum("goihw,gij->gojhw", weight, root)


def _root(method: str, weight: Tensor, moments: Tensor) -> tuple[Tensor, Tensor]:
    """The root of the inputs' moments, along the axis that the first layer of `method` reads, and its inverse."""
    _, _, inputs, height, width = weight.shape
    six = moments.view(len(moments), inputs, height, width, inputs, height, width)
    if method == "spatial":
        side = torch.einsum("gihwjkw->gihjk", six).flatten(3).flatten(1, 2) / width
    else:
        side = torch.einsum("gihwjhw->gij", six) / (height * width)
    energies, vectors = torch.linalg.eigh(side)
    energies = energies.clamp(min=0) + _RIDGE * energies.mean(-1, keepdim=True).clamp(min=1e-30)
    roots = energies.sqrt()[:, None]
    return (vectors * roots) @ vectors.mT, (vectors / roots) @ vectors.mT


def factors_of(method: str, weight: Tensor, ranks: tuple[int, ...], moments: Tensor | None = None) -> list[Tensor]:
    """The weights of the thin layers, first to last, each (G, outputs, inputs, kh, kw)."""
    if method == "svd":
        if moments is None:
            (matrix,) = unfoldings(method, weight)
            last, first = low_rank(matrix, *ranks)
        else:
            matrix, whole = weight.flatten(2), whitened(method, weight, moments).flatten(2)
            last = bases(whole)[..., : ranks[0]]
            last, first = _balanced(last, last.mT @ matrix)
        return [first[..., None, None], last[..., None, None]]
    if method == "spatial":
        return _spatial(weight, ranks[0], moments)
    return _tucker(weight, ranks, moments)


def _spatial(weight: Tensor, rank: int, moments: Tensor | None) -> list[Tensor]:
    groups, outputs, inputs, height, width = weight.shape
    if moments is None:
        (matrix,) = unfoldings("spatial", weight)
        first, last = low_rank(matrix, rank)
        last = last.unflatten(2, (outputs, width)).transpose(1, 2)
    else:
        (matrix,) = unfoldings("spatial", whitened("spatial", weight, moments))
        first = _root("spatial", weight, moments)[1] @ bases(matrix)[..., :rank]
        # To all r channels at each of the kernel's columns: (G, r * kw, D)
        reads = torch.einsum("gnr,vw->grvnw", first, torch.eye(width).to(first)).flatten(3).flatten(1, 2)
        last = _fitted(weight.flatten(2), reads, moments).unflatten(2, (rank, width))
    return [first.mT.reshape(groups, rank, inputs, height, 1), last.reshape(groups, outputs, rank, 1, width)]


def _tucker(weight: Tensor, ranks: tuple[int, ...], moments: Tensor | None) -> list[Tensor]:
    if moments is None:
        parts = [_tucker_nearest(one, ranks) for one in weight]
        last, core, first = (torch.stack(tensors) for tensors in zip(*parts, strict=True))
    else:
        whole, (height, width) = whitened("tucker", weight, moments), weight.shape[3:]
        last = bases(whole.flatten(2))[..., : ranks[0]]
        side = bases(whole.transpose(1, 2).flatten(2))[..., : ranks[1]]
        first = _root("tucker", weight, moments)[1] @ side  # (G, I, r_in)
        places = torch.eye(height * width).to(first)
        reads = torch.einsum("gir,vw->grviw", first, places).flatten(3).flatten(1, 2)  # (G, r_in * area, D)
        core = _fitted(last.mT @ weight.flatten(2), reads, moments).unflatten(2, (ranks[1], height, width))
    return [first.mT[..., None, None], core, last[..., None, None]]


def _tucker_nearest(weight: Tensor, ranks: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Last factor (O, r_out), core and first factor (I, r_in) of one group's weight (O, I, kh, kw)."""
    import tensorly
    from tensorly.decomposition import partial_tucker

    sides = [matrix[0] for matrix in unfoldings("tucker", weight[None])]
    factors = [bases(matrix)[:, :rank] for matrix, rank in zip(sides, ranks, strict=True)]
    start = (tucker_core(weight[None], *(factor[None] for factor in factors))[0], factors)
    with tensorly.backend_context("pytorch"):
        (core, (last, first)), _ = partial_tucker(
            weight, list(ranks), modes=[0, 1], n_iter_max=_ROUNDS, init=start, random_state=0
        )
    return last, core, first


def _fitted(wanted: Tensor, reads: Tensor, moments: Tensor) -> Tensor:
    """(G, O, N) the layer that comes nearest to ``wanted @ patch`` (G, O, D) from ``reads @ patch`` (G, N, D)."""
    seen = reads @ moments @ reads.mT
    ridge = _RIDGE * seen.diagonal(dim1=-2, dim2=-1).mean(-1).clamp(min=1e-30)
    seen = seen + ridge[:, None, None] * torch.eye(seen.shape[-1]).to(seen)
    return torch.linalg.solve(seen, reads @ moments @ wanted.mT).mT


def product(factors: list[Tensor]) -> Tensor:
    """(G, O, D) the weight of the one layer that thin layers with these weights come to."""
    whole = factors[0]
    for factor in factors[1:]:
        # What a kernel of one axis or of 1 x 1 and the next one see together; no two share an axis but of length 1.
        whole = torch.einsum("gorab,grihw->goihawb", factor, whole)
        whole = whole.flatten(3, 4).flatten(4, 5)
    return whole.flatten(2)


def factored(module: Any, method: str, ranks: tuple[int, ...], weights: list[Tensor] | None = None) -> nn.Sequential:
    """The layers that take the place of `module`, a plain `nn.Conv2d` or `nn.Linear`.

    weights  as `factors_of` makes them; None takes the nearest to the weight of `module`
    """
    weights = factors_of(method, grouped(module), ranks) if weights is None else weights
    layers: list[nn.Module]
    if isinstance(module, nn.Linear):
        layers = [_linear(module, weight[0, :, :, 0, 0], last=weight is weights[-1]) for weight in weights]
    else:
        layers = [
            _conv(module, weight, place, last=weight is weights[-1])
            for weight, place in zip(weights, _places(module, method), strict=True)
        ]
    return nn.Sequential(*layers).train(module.training)


def _places(module: nn.Conv2d, method: str) -> list[dict[str, Any]]:
    """Stride, padding and dilation of each of the thin layers."""
    whole = {name: getattr(module, name) for name in ("stride", "padding", "dilation", "padding_mode")}
    if method == "svd":
        return [whole, {}]
    if method == "tucker":
        return [{}, whole, {}]

    def along(axis: int) -> dict[str, Any]:
        """Where the kernel goes, along one axis of the picture only."""
        one = {name: [other, other] for name, other in (("stride", 1), ("padding", 0), ("dilation", 1))}
        for name, pair in one.items():
            if not isinstance(whole[name], str):
                pair[axis] = whole[name][axis]
        places = {name: tuple(pair) for name, pair in one.items()} | {"padding_mode": module.padding_mode}
        return places | {"padding": whole["padding"]} if isinstance(whole["padding"], str) else places

    return [along(0), along(1)]


def _conv(whole: nn.Conv2d, weight: Tensor, place: Mapping[str, Any], *, last: bool) -> nn.Conv2d:
    groups, outputs, inputs, *kernel = weight.shape
    bias = last and whole.bias is not None
    # skip_init: filling weights that are replaced at once would draw random numbers.
    conv = nn.utils.skip_init(
        nn.Conv2d, groups * inputs, groups * outputs, tuple(kernel), groups=groups, bias=bias, **place
    )
    return _filled(conv, whole, weight.flatten(0, 1))


def _linear(whole: nn.Linear, weight: Tensor, *, last: bool) -> nn.Linear:
    bias = last and whole.bias is not None
    return _filled(nn.utils.skip_init(nn.Linear, *weight.shape[::-1], bias=bias), whole, weight)


def _filled(layer: Any, whole: Any, weight: Tensor) -> Any:
    """`layer` with `weight` in the precision of `whole`, and its bias; what was frozen stays frozen."""
    layer.weight = nn.Parameter(weight.to(whole.weight.dtype).contiguous(), requires_grad=whole.weight.requires_grad)
    if layer.bias is not None:
        layer.bias = nn.Parameter(whole.bias.detach().clone(), requires_grad=whole.bias.requires_grad)
    return layer


_PLACES = 64
"""So many places of each image are looked at, evenly spaced."""
_MOST = 2304
"""Layers whose patches are longer are left out: their moments take more memory than they are worth."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Statistics of layers' inputs on calibration images; empty when there are none.

    images   batches (B, C, H, W)
    means    layer -> mean of its patches (G, D)
    squares  layer -> mean of patch times patch (G, D, D), by which its outputs are weighed: without the mean where a
             bias, or the statistics of a norm after it, make up for it
    norms    layer -> the batch norm that alone sees its outputs
    """

    images: tuple[Tensor, ...] = ()
    means: dict[str, Tensor] = field(default_factory=dict)
    squares: dict[str, Tensor] = field(default_factory=dict)
    norms: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, model: nn.Module, modules: Mapping[str, Any], images: Sequence[Tensor]) -> Inputs:
        """Run the plain convolutions and linear layers among `modules` on `images`; very wide ones are left out."""
        if not images:
            return cls()
        kinds = (nn.Conv2d, nn.Linear)
        seen = {p: m for p, m in modules.items() if counted_class(m) in kinds and m.weight[0].numel() <= _MOST}
        try:
            norms = {layer: norm for norm, layer in Wiring(model).norms().items()}
        except InputError:  # then no layer is known to have a norm after it
            norms = {}
        means, squares = _moments(model, seen, images)
        for path, module in seen.items():
            if path in means and (module.bias is not None or path in norms):
                squares[path] = squares[path] - means[path][:, :, None] * means[path][:, None]
        return cls(images=tuple(images), means=means, squares=squares, norms=norms)

    def weigh(self, path: str, method: str, weight: Tensor) -> Tensor:
        """`weight` (G, O, I, kh, kw) of the layer at `path`, `whitened` where its inputs are known."""
        return whitened(method, weight, self.squares[path]) if path in self.squares else weight

    def fit(self, cut: nn.Module, whole: nn.Module, layers: Mapping[str, dict[str, Any]]) -> None:
        """Fit the thin layers of `cut`, in place, to the outputs of the layers of `whole`; means go into biases.

        layers: as in `DecomposePlan`.
        """
        for path in layers.keys() & self.squares.keys():
            module, row = whole.get_submodule(path), layers[path]
            thin: Any = cut.get_submodule(path)
            weight = grouped(module)
            factors = factors_of(row["method"], weight, row["ranks"], self.squares[path])
            missing = torch.einsum("god,gd->go", weight.flatten(2) - product(factors), self.means[path]).flatten()
            with torch.no_grad():
                for layer, factor in zip(thin, factors, strict=True):
                    layer.weight.copy_(factor.reshape(layer.weight.shape))
                if module.bias is not None:
                    thin[-1].bias.add_(missing)
                elif path in self.norms:
                    cut.get_submodule(self.norms[path]).get_buffer("running_mean").sub_(missing)

    def outputs(self, model: nn.Module, most: int | None = None) -> list[Tensor]:
        """All floating-point outputs for the images, or for the first batches of at most about `most` images."""
        made, images = [], 0
        with as_judged(model):
            for batch in self.images:
                made += [out for out in tree_leaves(model(images_for(model, batch))) if isinstance(out, Tensor)]
                images += len(batch)
                if most is not None and images >= most:
                    break
        return [out.float() for out in made if out.is_floating_point()]


def change(outputs: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """Squared change of outputs, as a fraction of their squares."""
    lost = sum(float((one - other).square().sum()) for one, other in zip(outputs, exact, strict=True))
    return lost / max(sum(float(other.square().sum()) for other in exact), 1e-30)


def _moments(
    model: nn.Module, modules: Mapping[str, nn.Module], images: Sequence[Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """{layer: mean (G, D)} and {layer: mean of patch times patch (G, D, D)} of the layers that run."""
    means: dict[str, Tensor] = {}
    squares: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def see(path: str, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        x = [*inputs, *named.values()][0]
        seen = patches(module, x.detach().float())
        step = max(1, len(seen) // len(x) // _PLACES) | 1  # an even step would meet the same columns again
        seen = seen[::step].double()
        means[path] = means.get(path, 0) + seen.sum(0)
        squares[path] = squares.get(path, 0) + torch.einsum("ngd,nge->gde", seen, seen)
        counts[path] = counts.get(path, 0) + len(seen)

    with as_judged(model), observe(modules, before=see):
        for batch in images:
            model(images_for(model, batch))
    return {p: total / counts[p] for p, total in means.items()}, {p: total / counts[p] for p, total in squares.items()}
