"""The race: the best linear accuracy on CIFAR-10 after two minutes on two cores, or three on one GPU."""

from __future__ import annotations

from skssl.augment import Augmentation
from skssl.backbones import StagePool
from skssl.recipes.building import Recipe, new_recipe

#: The entries of docs/race.md by track.
RACE: dict[str, Recipe] = {
    "CPU": new_recipe(
        "SimCLR",
        "skssl, docs/race.md; its linear probe is logistic regression on 5,000 labels",
        61.42,
        of="code",
        backbone=StagePool("convnet", n_stages=2, grid=3),
        epochs=20,
        batch_size=256,
        hidden_dim=128,
        augment=Augmentation(crop_scale=(0.2, 1.0)),
        precision="bfloat16",
    ),
    "GPU": new_recipe(
        "SimCLR",
        "skssl, docs/race.md; one seed, its linear probe is logistic regression on 50,000 labels",
        81.87,
        of="code",
        backbone=StagePool("resnet18", n_stages=2, grid=2),
        epochs=105,
        batch_size=512,
        hidden_dim=512,
        augment=Augmentation(crop_scale=(0.2, 1.0)),
        precision="bfloat16",
    ),
}
