"""Images and settings that the tests of augmentation share."""

from __future__ import annotations

import torch

from skssl.augment import preset

NO_STEPS = {"crop_scale": None, "flip": 0.0, "jitter": 0.0, "gray": 0.0}
UNNORMALIZED = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
NAMES = ("simclr", "simsiam", "byol", "moco", "leoclr", "gsg-cifar10", "instdisc", "pirl", "ressl", "rotnet", "none")


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def smooth_images(n, h=32, w=32, c=3, seed=0):
    """Make smooth random uint8 images."""
    coarse = torch.rand(n, c, 4, 4, generator=gen(seed))
    smooth = torch.nn.functional.interpolate(coarse, (h, w), mode="bicubic").clamp(0, 1)
    return (smooth * 255).round().byte()


def random_colors(n, h=8, w=8, seed=0):
    """Make images of random colours, and among them greys, ties of two channels, black and white."""
    x = torch.rand(n, 3, h, w, generator=gen(seed))
    x[0] = 0.3
    x[1] = (x[1] * 2).round() / 2
    x[2, :2] = 0.25
    x[3, 1:] = 0.5
    x[4, ::2] = 0.75
    x[5, :, ::2], x[5, :, 1::2] = 0.0, 1.0
    return x


EVERYTHING = {"blur": 0.5, "solarize": 0.4, "quarter_turn": 0.7, "interpolation": "bicubic", "jitter": 0.9, "gray": 0.3}


def different_views(side):
    """Return the settings of each different view of the presets once."""
    found = {}
    for name in NAMES:
        for view, augmentation in enumerate(preset(name, side)):
            if augmentation.get_params() not in found.values():
                found[f"{name}-{view}"] = augmentation.get_params()
    return found


SETTINGS = {
    "strong": {"blur": 0.5, "solarize": 0.3, "brightness": 1.5, "hue": 0.3, "contrast": 0.0},
    **different_views(32),
}
