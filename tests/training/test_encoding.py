"""Features of all images."""

import numpy as np
import torch

from skssl import Augmentation
from skssl.images import as_images
from skssl.training.encoding import encode


def test_batches_are_small_if_images_are_enlarged():
    images = as_images(np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8))
    shapes = []

    class Mean(torch.nn.Module):
        def forward(self, x):
            shapes.append(tuple(x.shape))
            return x.mean((2, 3))

    encode(Mean(), images, Augmentation(size=512), torch.device("cpu"), torch.float32)
    assert shapes == [(1, 3, 512, 512)] * 6
    shapes.clear()
    encode(Mean(), images, Augmentation(size=4), torch.device("cpu"), torch.float32)
    assert shapes == [(6, 3, 4, 4)]
