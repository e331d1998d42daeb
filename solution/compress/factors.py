"""One convolution or linear layer as two or three thin ones, and the mathematics of it.

svd      1x1 convolution or linear layer: to r channels, then to all (Denton et al., 2014, arXiv:1404.0736)
spatial  k x k convolution: k x 1 to r channels, then 1 x k (Jaderberg et al., 2014, arXiv:1405.3866)
tucker   k x k convolution: 1x1 to r_in channels, k x k to r_out, 1x1 to all (Tucker-2; Kim et al., 2015,
         arXiv:1511.06530), through tensorly

Ranks are (r,) for svd and spatial, (r_out, r_in) for tucker. All layers made are ordinary; the bias goes to the last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_ROUNDS = 2
"""Rounds of higher-order orthogonal iteration. Those after lower the error by a thousandth of it."""


def unfoldings(method: str, weight: Tensor) -> tuple[Tensor, ...]:
    """The matrices whose ranks `method` cuts, in float64. weight: (O, I) or (O, I, kh, kw)."""
    weight = weight.detach().double()
    if method == "svd":
        return (weight.flatten(1),)
    if method == "spatial":
        return (weight.permute(1, 2, 0, 3).flatten(2).flatten(0, 1),)  # (I * kh, O * kw)
    return weight.flatten(1), weight.transpose(0, 1).flatten(1)


def principal(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Squared singular values (S,), descending, and singular vectors (side, S) of the shorter side of `matrix`.

    They come from the product of the matrix with itself, which is small: a quarter of the work of a full SVD and less.
    """
    rows, columns = matrix.shape
    energies, vectors = torch.linalg.eigh(matrix @ matrix.T if rows <= columns else matrix.T @ matrix)
    return energies.flip(0).clamp(min=0), vectors.flip(1)


def bases(matrix: Tensor) -> Tensor:
    """All left singular vectors (rows, rows) of `matrix`, the most important first."""
    return torch.linalg.eigh(matrix @ matrix.T).eigenvectors.flip(1)


def tucker_core(weight: Tensor, last: Tensor, first: Tensor) -> Tensor:
    """What is left of `weight` (O, I, kh, kw) between bases (O, r_out) and (I, r_in): (r_out, r_in, kh, kw)."""
    return torch.einsum("oihw,or,is->rshw", weight, last, first)


def low_rank(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(m, rank) and (rank, n) whose product is the nearest to `matrix` (m, n). Both have columns of equal norms."""
    vectors = principal(matrix)[1][:, :rank]
    if matrix.shape[0] <= matrix.shape[1]:
        left, right = vectors, vectors.T @ matrix
        scale = right.norm(dim=1)
    else:
        left, right = matrix @ vectors, vectors.T
        scale = left.norm(dim=0)
    scale = torch.where(scale > 0, scale, 1).sqrt()
    if matrix.shape[0] <= matrix.shape[1]:
        return left * scale, right / scale[:, None]
    return left / scale, right * scale[:, None]


def factored(module: nn.Module, method: str, ranks: tuple[int, ...]) -> nn.Sequential:
    """The layers that take the place of `module`, a plain `nn.Conv2d` without groups or an `nn.Linear`."""
    return nn.Sequential(*_MAKERS[method](module, ranks)).train(module.training)


def _svd(module: nn.Module, ranks: tuple[int, ...]) -> list[nn.Module]:
    last, first = low_rank(*unfoldings("svd", module.weight), *ranks)
    if isinstance(module, nn.Linear):
        return [_linear(module, first, bias=False), _linear(module, last, bias=True)]
    place = {"stride": module.stride, "padding": module.padding, "padding_mode": module.padding_mode}
    return [_conv(module, first[..., None, None], place), _conv(module, last[..., None, None], {}, bias=True)]


def _spatial(module: nn.Conv2d, ranks: tuple[int, ...]) -> list[nn.Module]:
    outputs, inputs, height, width = module.weight.shape
    first, last = low_rank(*unfoldings("spatial", module.weight), *ranks)
    first = first.T.reshape(-1, inputs, height, 1)
    last = last.reshape(-1, outputs, 1, width).transpose(0, 1)
    return [_conv(module, first, _along(module, 0)), _conv(module, last, _along(module, 1), bias=True)]


def _tucker(module: nn.Conv2d, ranks: tuple[int, ...]) -> list[nn.Module]:
    import tensorly
    from tensorly.decomposition import partial_tucker

    weight = module.weight.detach().double()
    factors = [bases(matrix)[:, :rank] for matrix, rank in zip(unfoldings("tucker", weight), ranks, strict=True)]
    start = (tucker_core(weight, *factors), factors)
    with tensorly.backend_context("pytorch"):
        (core, (last, first)), _ = partial_tucker(
            weight, list(ranks), modes=[0, 1], n_iter_max=_ROUNDS, init=start, random_state=0
        )
    place = {name: getattr(module, name) for name in ("stride", "padding", "dilation", "padding_mode")}
    return [
        _conv(module, first.T[..., None, None], {}),
        _conv(module, core, place),
        _conv(module, last[..., None, None], {}, bias=True),
    ]


_MAKERS: dict[str, Callable[[Any, tuple[int, ...]], list[nn.Module]]] = {
    "svd": _svd,
    "spatial": _spatial,
    "tucker": _tucker,
}


def _along(module: nn.Conv2d, axis: int) -> dict[str, Any]:
    """Where the kernel of `module` goes, along one axis of the picture only."""

    def one(pair: tuple[int, ...], other: int) -> tuple[int, int]:
        return (pair[0], other) if axis == 0 else (other, pair[1])

    padding = module.padding if isinstance(module.padding, str) else one(module.padding, 0)
    return {
        "stride": one(module.stride, 1),
        "padding": padding,
        "dilation": one(module.dilation, 1),
        "padding_mode": module.padding_mode,
    }


def _conv(whole: nn.Module, weight: Tensor, place: dict[str, Any], *, bias: bool = False) -> nn.Conv2d:
    outputs, inputs, *kernel = weight.shape
    bias = bias and whole.bias is not None
    # skip_init: filling weights that are replaced at once would draw random numbers.
    conv = nn.utils.skip_init(nn.Conv2d, inputs, outputs, tuple(kernel), bias=bias, **place)
    return _filled(conv, whole, weight, bias)


def _linear(whole: nn.Module, weight: Tensor, *, bias: bool) -> nn.Linear:
    bias = bias and whole.bias is not None
    return _filled(nn.utils.skip_init(nn.Linear, *weight.shape[::-1], bias=bias), whole, weight, bias)


def _filled(layer: Any, whole: nn.Module, weight: Tensor, bias: bool) -> Any:
    """`layer` with `weight` in the precision of `whole`, and its bias; what was frozen stays frozen."""
    layer.weight = nn.Parameter(weight.to(whole.weight.dtype).contiguous(), requires_grad=whole.weight.requires_grad)
    if bias:
        layer.bias = nn.Parameter(whole.bias.detach().clone(), requires_grad=whole.bias.requires_grad)
    return layer
