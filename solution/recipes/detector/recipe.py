"""A detector made small in every way: half precision, pruned weights and channels, shared weights, int8, runtimes.

    python -m solution run detector_yolov8n --data coco128.tar
    python -m solution run detector_yolov8n --data coco128.tar --weights yolov8n.safetensors
    python -m solution run detector_ssdlite_coco --data coco128.tar
    python -m solution run detector_ssdlite --data my_boxes/

The first takes YOLOv8n with ultralytics' own weights, which that library (extra `detection`, AGPL-3.0) downloads; the
second with the weights of a file, in ultralytics' names, batch norms folded. The others take torchvision's SSDLite on
MobileNetV3 without that extra: with torchvision's weights for COCO, which it downloads, or from random ones for a set
of any classes. From COCO128's 128 pictures alone it learns next to nothing: that wants a larger set.

Weights are pruned by 5 and 10 %, as published, and on to where mAP breaks, counted from those that are not zero yet: a
net whose weights were rounded before has zeros already. A cut net trains on for 15 epochs. Smaller pictures cost a
convolutional net nothing but detail: After is the net as it came, on three quarters of the side.

Expected of YOLOv8n on COCO128's val, seed 0, with weights that were rounded before: mAP50-95 0.421; float16 0.421,
clusters 0.416, int8 in OpenVINO 0.420; a tenth of the MACs out 0.328, and 0.360 after 15 epochs on 128 pictures, which
are too few; pictures of 480 px 0.415, in int8 0.406. Time: about an hour on one core.
"""

from __future__ import annotations

from solution.compress.channels.step import PruneChannels
from solution.compress.cluster import Cluster
from solution.compress.prune_weights import PruneWeights
from solution.compress.quantize import Quantize
from solution.contracts import ModelSettings, Recipe, Stage, Step
from solution.data.detection import DetectionData
from solution.models.ssdlite import SsdLite
from solution.models.weights import OWN
from solution.models.yolo import Yolo
from solution.recipes.detector.report import report
from solution.train.pretraining import Unchanged
from solution.train.step import TrainDetector

PERCENTS = (5, 10, 15, 20, 30, 40, 50)


def recipe() -> Recipe:
    """YOLOv8n."""
    return _recipe(
        "detector_yolov8n", Yolo(name="yolov8n", weights=OWN), DetectionData(calibration_images=128), Unchanged(), 480
    )


def ssdlite() -> Recipe:
    """SSDLite, trained first."""
    base = TrainDetector(epochs=120, lr=1e-3)
    return _recipe("detector_ssdlite", SsdLite(), DetectionData(size=320, calibration_images=128), base, 256)


def ssdlite_coco() -> Recipe:
    """SSDLite with torchvision's weights."""
    model, data = SsdLite(weights=OWN), DetectionData(size=320, calibration_images=128)
    return _recipe("detector_ssdlite_coco", model, data, Unchanged(), 256)


def _recipe(name: str, model: ModelSettings, data: DetectionData, base: Step, side: int) -> Recipe:
    """`side`: of the smaller pictures, in pixels."""
    return Recipe(
        name=name,
        data=data,
        model=model,
        stages=(
            Stage(name="original", step=base),
            Stage(name="float16", step=Quantize(scheme="float16", other_dtype="float16"), after="original"),
            *_pruned("global"),
            *_pruned("local"),
            Stage(name="clustered", step=Cluster(bits=7), after="original"),
            # A few huge inputs are cut off, and mean errors are mostly theirs: undone everywhere, they cost 0.15 mAP.
            Stage(name="int8", step=Quantize(scheme="int8", activations=8, correct_bias=False), after="original"),
            Stage(name="cut", step=_cut(), after="original"),
            # Without norms, and with few pictures: a rate ten times as high makes the cut net worse than it was.
            Stage(name="cut_tuned", step=TrainDetector(epochs=15, lr=2e-5)),
            Stage(name="smaller", step=Unchanged(), after="original", size=side),
        ),
        before="original",
        after="smaller",
        thorough=True,
        exports=("onnxruntime", "openvino", "openvino int8"),
        report=report,
    )


def _cut() -> PruneChannels:
    """A tenth of the MACs, where the fewest answers are: equal shares of all layers cost a detector far more."""
    return PruneChannels(macs="90%", ranking="global", importance="activation", reconstruct=True)


def _pruned(scope: str) -> tuple[Stage, ...]:
    return tuple(
        Stage(
            name=f"{scope}_{percent}",
            step=PruneWeights(sparsity=percent / 100, more=True, scope=scope),
            after="original",
        )
        for percent in PERCENTS
    )
