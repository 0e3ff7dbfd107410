"""Batched augmentation on the device, with draws of its own for every image, and the papers' presets."""

from skssl.augment.augmentation import Augmentation
from skssl.augment.blur import gaussian_blur
from skssl.augment.color import adjust_hue, grayscale, solarize
from skssl.augment.crops import salient_crops, sample_crops
from skssl.augment.draws import Draws
from skssl.augment.geometry import cell_positions, resized_crop, rotate_quarter
from skssl.augment.jitter import color_jitter
from skssl.augment.presets import MultiCrop, as_augmentations, preset
from skssl.augment.saliency import grad_cam
from skssl.augment.transforms import Transform

__all__ = [
    "Augmentation",
    "Draws",
    "MultiCrop",
    "Transform",
    "adjust_hue",
    "as_augmentations",
    "cell_positions",
    "color_jitter",
    "gaussian_blur",
    "grad_cam",
    "grayscale",
    "preset",
    "resized_crop",
    "rotate_quarter",
    "salient_crops",
    "sample_crops",
    "solarize",
]
