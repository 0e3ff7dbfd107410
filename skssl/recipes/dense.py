"""Detection and segmentation.

The training sets have 16,551 (VOC07+12), 118,287 (COCO), 20,210 (ADE20K), 10,582 (VOC12 with the additional masks) and
2,975 images (Cityscapes), by which the papers' steps are converted to epochs.
"""

from __future__ import annotations

from typing import Any

from skssl.recipes.building import Recipe


def _dense(
    method: str, source: str, /, *, of: str = "code", inferred: str = "", scores: Any = None, **params: Any
) -> Recipe:
    """Return a recipe for detection or segmentation, whose arguments are of one origin except for those inferred."""
    origin = {**dict.fromkeys(params, of), **dict.fromkeys(inferred.split(), "inferred")}
    return {"method": method, "params": params, "scores": scores or {}, "source": source, "origin": origin}


_VOC_SIZES = tuple(range(480, 801, 32))
_moco_voc: dict[str, Any] = {  # 24,000 steps; the rate falls after 18,000 and 22,000, and rises for 100
    "frozen": False,
    "image_size": _VOC_SIZES,
    "epochs": 23,
    "batch_size": 16,
    "lr": 0.02,
    "schedule": ((3 / 4, 0.1), (11 / 12, 0.01)),
    "warmup_epochs": 0.1,
}
_moco_coco: dict[str, Any] = {  # 90,000 or 180,000 steps, of which 1,000 are warm-up
    "frozen": False,
    "image_size": tuple(range(640, 801, 32)),
    "batch_size": 16,
    "lr": 0.02,
    "schedule": ((2 / 3, 0.1), (8 / 9, 0.01)),
    "warmup_epochs": 0.14,
}
_ericsson_voc: dict[str, Any] = {  # 144,000 steps; the rate falls after 96,000 and 128,000, and rises for 100
    "image_size": _VOC_SIZES,
    "epochs": 17,
    "batch_size": 2,
    "lr": 0.0025,
    "schedule": ((2 / 3, 0.1), (8 / 9, 0.01)),
    "warmup_epochs": 0.01,
}
_moco_masks: dict[str, Any] = {
    "frozen": False,
    "batch_size": 16,
    "schedule": ((0.7, 0.1), (0.9, 0.01)),
    "warmup_epochs": 0.0,
}
_CROPS = "the FCN there, and its random crops, are replaced by UPerNet's head and whole images"

DENSE: dict[str, Recipe] = {
    "MoCo v2 and DenseCL, VOC07+12": _dense(
        "DetectionTransfer",
        "MoCo's code, which DenseCL uses; its head is R50-C4",
        scores={
            "MoCo v2, 200 epochs, AP": 57.0,
            "MoCo v2, 200 epochs, AP50": 82.4,
            "MoCo v2, 200 epochs, AP75": 63.6,
            "DenseCL, 200 epochs, AP": 58.7,
        },
        **_moco_voc,
    ),
    "GSG and Ericsson et al., VOC07+12": _dense(
        "DetectionTransfer",
        "Ericsson et al.'s code for frozen encoders; GSG, section 5.2, whose other settings are not checked",
        frozen="layer3",
        **_ericsson_voc,
    ),
    "Ericsson et al., VOC07+12, fine-tuned": _dense(
        "DetectionTransfer",
        "Ericsson et al.'s code; BatchNorm is frozen there in all layers",
        frozen="layer1",
        **_ericsson_voc,
    ),
    "MoCo, COCO, 1x": _dense(
        "DetectionTransfer", "MoCo's code with Detectron2's 1x; its masks are left out", epochs=12, **_moco_coco
    ),
    "MoCo, COCO, 2x": _dense("DetectionTransfer", "MoCo's code; its masks are left out", epochs=24, **_moco_coco),
    "Ericsson et al., ADE20K": _dense(
        "SegmentationTransfer",
        "Ericsson et al.'s code: 150,000 steps on two devices",
        frozen=False,
        image_size=(300, 375, 450, 525, 600),
        epochs=30,
        batch_size=4,
        lr=0.02,
        schedule="polynomial",
        warmup_epochs=0.0,
    ),
    "MoCo, VOC12": _dense(
        "SegmentationTransfer",
        f"MoCo, appendix A.5: 30,000 steps on the augmented set; {_CROPS}",
        of="printed",
        inferred="warmup_epochs",
        epochs=45,
        lr=0.003,
        **_moco_masks,
    ),
    "MoCo, Cityscapes": _dense(
        "SegmentationTransfer",
        f"MoCo, appendix A.5: 90,000 steps; {_CROPS}",
        of="printed",
        inferred="warmup_epochs image_size",
        image_size=1024,
        epochs=484,
        lr=0.01,
        **_moco_masks,
    ),
    "DenseCL, Cityscapes": _dense(
        "SegmentationTransfer",
        f"mmsegmentation's configuration of 40,000 steps that DenseCL's code names; not checked; {_CROPS}",
        inferred="warmup_epochs image_size",
        frozen=False,
        image_size=1024,
        epochs=108,
        batch_size=8,
        lr=0.01,
        weight_decay=5e-4,
        schedule="polynomial",
        warmup_epochs=0.0,
    ),
}
