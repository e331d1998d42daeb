"""Which block goes next: the one whose loss is missed least, the one that changes its input least, or the last.

Measured loss, one block after another so that each choice knows the earlier ones: after Elkerdawy et al., 2020
(arXiv:2011.14260). Block influence: Men et al., 2024 (ShortGPT, arXiv:2403.03853).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from solution.compress.residual import Block, taken_out
from solution.contracts import Batches, InputError, StepContext
from solution.evaluate.running import as_judged, images_for, while_hooked

Pick = Callable[[Sequence[Block], Sequence[Block]], Block]
"""(Blocks that are gone, blocks of which one must go) -> that one."""


def mean_loss(model: nn.Module, batches: Batches) -> float:
    """Mean cross-entropy over all images: smoother than a count of hits, so better for ranking."""
    total, images = 0.0, 0
    with torch.inference_mode():
        for x, labels in batches:
            logits = model(images_for(model, x))
            total += float(F.cross_entropy(logits, labels.to(logits.device), reduction="sum"))
            images += len(labels)
    return total / images


def least_harm(model: nn.Module, context: StepContext) -> Pick:
    """Pick the block without which the loss on the dev split is lowest. Every pick measures every candidate."""
    batches = list(context.need("dev", 'ranking "dev"'))
    probe = copy.deepcopy(model).eval().to(context.device)

    def pick(gone: Sequence[Block], candidates: Sequence[Block]) -> Block:
        losses = {block: mean_loss(taken_out(probe, [*gone, block]), batches) for block in candidates}
        block = min(losses, key=losses.__getitem__)
        _check(block, losses)
        context.log(f"without {block.path}: loss {losses[block]:.3f} on the dev split")
        return block

    return pick


def least_influence(model: nn.Module, blocks: Sequence[Block], context: StepContext) -> Pick:
    """Pick the block of lowest influence on the calibration batches, or on the example when there are none."""
    batches = context.calibration if context.calibration is not None else [(context.example, torch.empty(0))]
    influence = block_influence(copy.deepcopy(model).to(context.device), blocks, batches)

    def pick(_gone: Sequence[Block], candidates: Sequence[Block]) -> Block:
        block = min(candidates, key=influence.__getitem__)
        _check(block, influence)
        context.log(f"without {block.path}: influence {influence[block]:.4f}")
        return block

    return pick


def last_first(_gone: Sequence[Block], candidates: Sequence[Block]) -> Block:
    """Pick the last block."""
    return candidates[-1]


def _check(block: Block, scores: Mapping[Block, float]) -> None:
    wrong = next((other for other, score in scores.items() if not math.isfinite(score)), None)
    if wrong is not None:
        raise InputError(
            f"blocks cannot be ranked: {wrong.path} has the score {scores[wrong]}. The weights hold NaN or infinity, "
            "or the images do"
        )


def block_influence(model: nn.Module, blocks: Sequence[Block], batches: Batches) -> dict[Block, float]:
    """1 - cosine similarity of what enters and leaves each block, mean over images: 0 changes nothing.

    The similarity is taken over all values of an image, so that it does not matter along which axis channels lie.
    """
    total, images = dict.fromkeys(blocks, 0.0), 0
    with as_judged(model), _compared(model, total):
        for x, _ in batches:
            model(images_for(model, x))
            images += len(x)
    return {block: value / images for block, value in total.items()}


@contextmanager
def _compared(model: nn.Module, total: dict[Block, float]) -> Iterator[None]:
    """While inside, add up 1 - cosine similarity of every image."""
    entered: dict[Block, Tensor] = {}
    handles = []
    for block in total:

        def before(_module: nn.Module, inputs: tuple[Tensor, ...], block: Block = block) -> None:
            entered[block] = inputs[0].flatten(1).clone()  # the block may work in place

        def after(_module: nn.Module, _inputs: object, output: Tensor, block: Block = block) -> None:
            alike = F.cosine_similarity(entered.pop(block).double(), output.flatten(1).double(), dim=1)  # (B,)
            total[block] += float((1 - alike).sum())

        module = model.get_submodule(block.path)
        handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    with while_hooked(handles):
        yield
