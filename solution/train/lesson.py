"""What a training makes small: a net with its loss, and what is trained beside it and thrown away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from solution.contracts import Given
from solution.losses.margins import MarginHead
from solution.models.stochastic_depth import set_drop_path
from solution.models.taps import Taps, classifier_path, replace, scales

if TYPE_CHECKING:
    from solution.train.step import Train

NUM_AUXILIARY = 2


class Lesson(nn.Module):
    """A net and its loss. A training fits all parameters; `net` alone is judged and kept.

    With `settings.margin` the net's classifier is a `MarginHead` while training, and folded at the end. With
    `settings.auxiliary` small heads on earlier feature maps are trained along (Szegedy et al., 2015, arXiv:1409.4842)
    and thrown away.
    """

    def __init__(self, net: nn.Module, settings: Train, given: Given) -> None:
        super().__init__()
        self.settings, self.given = settings, given
        set_drop_path(net, settings.drop_path)
        self.head = classifier_path(net) if settings.margin.on else ""
        if self.head:
            replace(net, self.head, MarginHead(net.get_submodule(self.head), settings.margin))
        self.auxiliary = _auxiliary(net, given) if settings.auxiliary else nn.ModuleDict()
        self.taps = tuple(name.replace("/", ".") for name in self.auxiliary)
        self.net = net

    def forward(self, images: Tensor, targets: Tensor, beside: Tensor | None = None) -> Tensor:
        """Scalar loss of images (B, C, H, W), labels (B,) or probabilities (B, C), and what lies beside them."""
        with Taps(self.net, self.taps) as taps:
            logits = self.net(images).float()
        return self.on_labels(logits, targets, taps)

    def on_labels(self, logits: Tensor, targets: Tensor, taps: Taps) -> Tensor:
        """The loss on labels, with the margin and the auxiliary heads that the settings ask for."""
        counts = self.given.counts
        harder = self.net.get_submodule(self.head).with_margin(logits, targets) if self.head else logits
        total = self.settings.loss(harder, targets, counts)
        if not self.auxiliary:
            return total
        aside = [head(taps.maps[name.replace("/", ".")]).float() for name, head in self.auxiliary.items()]
        losses = [self.settings.loss(said, targets, counts) for said in aside]
        return total + self.settings.auxiliary * torch.stack(losses).mean()

    def finished(self, net: nn.Module) -> nn.Module:
        """`net`, a copy of this lesson's with the weights that are kept, as it was before the lesson."""
        if self.head:
            head = net.get_submodule(self.head)
            replace(net, self.head, head.fold(_dominant(net, head, self.given) if head.settings.centres > 1 else None))
        return net


def _auxiliary(net: nn.Module, given: Given) -> nn.ModuleDict:
    """Classifiers on the maps of the sizes before the last. ModuleDict takes no dots in its keys."""
    shapes = scales(net, given.example)
    with torch.no_grad():
        num_classes = net.eval()(given.example).shape[1]
    names = list(shapes)[-NUM_AUXILIARY - 1 : -1]
    return nn.ModuleDict({name.replace(".", "/"): _classifier(shapes[name][1], num_classes) for name in names})


def _classifier(channels: int, num_classes: int) -> nn.Module:
    mixed = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
    return nn.Sequential(*mixed, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


@torch.no_grad()
def _dominant(net: nn.Module, head: MarginHead, given: Given) -> Tensor:
    """The sub-centre of each class that most training images are nearest to."""
    seen: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda module, args: seen.append(args[0].flatten(1)))
    labels = []
    for images, batch_labels, *_ in given.calibration or given.need("train", "choosing sub-centres"):
        net.eval()(images)
        labels.append(batch_labels)
    handle.remove()
    return head.dominant(torch.cat(seen), torch.cat(labels))
