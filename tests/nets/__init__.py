"""Small nets of the kinds that users write, each of which the channel engine must cut right or refuse."""

from nets import (
    attacks,
    attention,
    detection,
    forms,
    generative,
    kernels,
    metric,
    mixers,
    modules,
    numbers,
    patterns,
    rearranged,
    residual,
    restoration,
    segmentation,
    several,
    signals,
    splits,
    students,
    tokens,
    transformers,
    unusual,
    weights,
    wrapped,
    written,
)
from nets.catalogue import UserNet

GROUPS = (
    *(students, residual, splits, rearranged, numbers, weights, segmentation, detection, restoration),
    *(generative, signals, attention, tokens, mixers, modules, metric, several, unusual, wrapped, forms),
    *(patterns, written, kernels, transformers, attacks),
)
NETS: dict[str, UserNet] = {net.name: net for group in GROUPS for net in group.NETS}
