"""Helpers of the tests of several rooms."""

import numpy as np
import torch
from conftest import quick
from skorch.callbacks import Callback
from torch.utils.data import Dataset

import skssl
from skssl.images import as_images
from skssl.training.objective import Batch


def built(method, X, **params):
    """Make an estimator, its untrained net in float64 and a batch of random views."""
    estimator = quick(method, precision="float32", **params)
    net = estimator._make_trainer(as_images(X)).module_.double().train()
    draw = torch.Generator().manual_seed(0)
    views = [torch.randn(12, 3, 16, 16, generator=draw, dtype=torch.float64) for _ in range(estimator.n_views)]
    corners = random_corners(estimator.n_views, 12) if net.reads_corners else None
    return estimator, net, Batch(torch.zeros(12, 3, 16, 16), views, torch.arange(12), corners=corners)


def random_corners(n_views, n):
    """Return the corners of random views of images of 16x16 pixels, of which about half are flipped."""
    draw = torch.Generator().manual_seed(1)
    black = torch.zeros(n, 3, 16, 16)
    return [skssl.Augmentation().with_corners(black, draw)[1].double() for _ in range(n_views)]


def reached(net):
    """Return the names of the net's children that have a nonzero gradient."""
    return {name.split(".")[0] for name, p in net.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


def drift(module):
    """Add noise to the parameters of a momentum copy, so that it differs from its source."""
    draw = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn(p.shape, generator=draw, dtype=p.dtype), alpha=0.05)


class Items(Dataset):
    """A data set made of a list. Errors in it are raised."""

    def __init__(self, items):
        self.items = list(items)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        if isinstance(self.items[i], Exception):
            raise self.items[i]
        return self.items[i]


class Look(Callback):
    """Record a function of the net before the first step and after each step."""

    def __init__(self, look):
        self.look, self.seen = look, []

    def on_batch_begin(self, trainer, **kwargs):
        if not self.seen:
            self.seen.append(self.look(trainer.module_))

    def on_batch_end(self, trainer, **kwargs):
        self.seen.append(self.look(trainer.module_))


def random_rows(n_tensors, n=6, d=5, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(n, d, dtype=torch.float64, generator=draw, requires_grad=True) for _ in range(n_tensors)]


def cosine(a, b):
    return float(np.dot(a, b) / np.sqrt(np.dot(a, a) * np.dot(b, b)))


def numpy(tensors):
    return [tensor.detach().numpy() for tensor in tensors]
