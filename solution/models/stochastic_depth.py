"""Stochastic depth (Huang et al., 2016, arXiv:1603.09382): while training, residual branches are left out at random.

A block offers itself by a number `drop_path`, and sends its branch through `kept`; see `ShuffleUnit`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from solution.contracts import InputError


def drop_branch(branch: Tensor, drop_path: float) -> Tensor:
    """`branch` (B, C, H, W), zero for each image with the chance `drop_path`, else scaled up to keep the mean."""
    if not drop_path:
        return branch
    # Drawn on the CPU, whose random state a resumed training takes up.
    alive = torch.rand(len(branch), 1, 1, 1) >= drop_path
    return branch * alive.to(branch) / (1 - drop_path)


def set_drop_path(net: nn.Module, last: float) -> None:
    """Let the blocks of `net` be skipped with a chance that grows linearly with depth, to `last` of the last block.

    `InputError` when no block offers itself, unless `last` is 0.
    """
    # Other libraries' blocks keep a module, or nothing, under this name.
    blocks = [module for module in net.modules() if isinstance(getattr(module, "drop_path", None), float)]
    if last and not blocks:
        raise InputError(f"{type(net).__name__} has no block that can be skipped while training: set drop_path to 0")
    for number, block in enumerate(blocks, start=1):
        setattr(block, "drop_path", last * number / len(blocks))  # noqa: B010 - a number, where typing expects a module
