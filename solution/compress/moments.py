"""Second moments of layers' inputs on calibration images, for factors and ranks that keep outputs, not weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from solution.compress.factors import factors_of, grouped, patches, product, whitened
from solution.compress.fold_norms import Wiring
from solution.contracts import InputError
from solution.evaluate.cost import counted_class
from solution.graph.observe import observe
from solution.graph.running import as_judged, images_for

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
