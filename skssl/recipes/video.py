"""Data sets of clips, with and without sound."""

from __future__ import annotations

from typing import Any

from skssl.augment import Augmentation
from skssl.recipes.building import Recipe, changed, new_recipe

# Shuffle and Learn: 100,000 steps of 128 triplets of UCF101, whose first training split has 9,537 clips, that is 1,342
# epochs of one triplet of each clip. The scores are the accuracy of the whole network fine-tuned for action
# recognition, the mean of the three splits, and the mean average precision of detection on PASCAL VOC 2007.

# Objects that Sound prints no learning rate, which a search found, and no number of epochs. It falls by 6 % every 16
# epochs. The scores are the accuracy of correspondence, and the share of clips whose map points at the instrument that
# sounds.

_ave: dict[str, Any] = {
    "backbone": "vgg11_bn",
    "audio_backbone": "vgg11_bn",
    "epochs": 160,
    "batch_size": 2048,
    "optimizer": "adamw",
    "lr": 1e-4,
    "weight_decay": 1e-5,
    "schedule": tuple((k / 10, 0.94**k) for k in range(1, 10)),
    "warmup_epochs": 0,
    "proj_dim": 128,
    "n_negatives": 1,
    "window": 480,
}

VIDEO: dict[str, Recipe] = {
    "ShuffleAndLearn, UCF101": new_recipe(
        "ShuffleAndLearn",
        "the method's code and its table of results",
        scores={"UCF101": 50.2, "HMDB51": 18.1, "VOC 2007": 42.4},
        of="code",
        printed="positives",
        inferred="backbone epochs augment warmup_epochs",
        backbone="alexnet_bn",
        epochs=1342,
        batch_size=128,
        optimizer="sgd",
        lr=0.001,
        momentum=0.9,
        weight_decay=5e-4,
        schedule=((0.8, 0.1),),
        warmup_epochs=0,
        augment=Augmentation(crop_scale=(0.4, 1.0), size=227, jitter=0.0, gray=0.0),
        positives=0.25,
    ),
    "AVE-Net, AudioSet-Instruments": new_recipe(
        "AudioVisual",
        "Objects that Sound, section 3; not checked",
        scores={"correspondence": 81.9},
        inferred="backbone audio_backbone epochs lr optimizer warmup_epochs",
        fusion="distance",
        **_ave,
    ),
}
VIDEO["L3-Net, AudioSet-Instruments"] = changed(
    VIDEO["AVE-Net, AudioSet-Instruments"], scores={"correspondence": 80.8}, fusion="concatenate"
)
VIDEO["AVOL-Net, AudioSet-Instruments"] = changed(
    VIDEO["AVE-Net, AudioSet-Instruments"], scores={"localisation": 81.7}, fusion="localize", map_size=14
)
