"""Slow, literal versions that tests compare with."""

from __future__ import annotations

import itertools

import torch
from torch.nn import functional as F
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF


def views_one_by_one(augment, images, draws):
    """Make views image by image and step by step in float64, by torchvision's functions."""
    n, (h, w) = len(draws.corner), images.shape[2:]
    size, padding = list(augment.size_of(h, w)), augment.crop_padding
    return torch.stack(
        [_view(augment, images[i % len(images)], draws.take(slice(i, i + 1)), size, padding) for i in range(n)]
    )


def _view(augment, image, drawn, size, padding):
    x = image.double() / (255 if image.dtype == torch.uint8 else 1)
    top, left, height, width = (int(side) for side in (*drawn.corner[0], *drawn.sides[0]))
    x = F.pad(x, (padding,) * 4)
    mode = v2.InterpolationMode(augment.interpolation)
    x = TF.resized_crop(x, top + padding, left + padding, height, width, size, mode, antialias=True).clamp(0, 1)
    if drawn.flip is not None and drawn.flip:
        x = TF.horizontal_flip(x)
    if drawn.jitter is not None and drawn.jitter:
        x = jittered(x, drawn)
    if drawn.gray is not None and drawn.gray:
        x = TF.rgb_to_grayscale(x, 3)
    if drawn.blur is not None and drawn.blur:
        x = TF.gaussian_blur(x, [2 * max(1, size[0] // 20) + 1] * 2, [float(drawn.sigma)])
    if drawn.solarize is not None and drawn.solarize:
        x = TF.solarize(x, augment.solarize_threshold)
    x = TF.normalize(x, list(augment.mean), list(augment.std))
    return x if drawn.turns is None else x.rot90(int(drawn.turns), (1, 2))


def jittered(x, drawn):
    """Jitter the colours of one image in its order."""
    changes = [TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue]
    amounts = [*drawn.factors[0].tolist(), *([] if drawn.shift is None else drawn.shift.tolist())]
    place = list(itertools.permutations(range(len(amounts))))[int(drawn.order)]
    for step in range(len(amounts)):
        which = place.index(step)
        x = changes[which](x, amounts[which])
    return x
