"""A module run over all images, in evaluation mode and without augmentation."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from skssl.augment.augmentation import Augmentation
from skssl.images import Images
from skssl.nn.distributed import all_gather, local_rows, n_processes
from skssl.nn.passes import eval_mode, fuse_batchnorm
from skssl.nn.precision import mixed_precision
from skssl.training.cores import limited_threads
from skssl.training.devices import keeping_memory

if TYPE_CHECKING:
    pass


# Pixels that are encoded at a time: those that a CPU's cache holds the maps of, and enough to keep a GPU busy
ENCODED = {"cpu": 2**18, "cuda": 2**23}


def encode(
    module: nn.Module,
    images: Images,
    augment: Augmentation,
    device: torch.device,
    dtype: torch.dtype,
    to: torch.device | str = "cpu",
) -> Tensor:
    """Run a module over all images, of the views' size but without augmentation, in evaluation mode.

    Parameters
    ----------
    module : torch.nn.Module
        From normalised images to features.
    images : Images
        The images.
    augment : Augmentation
        Its views' size and normalisation are used, see `Augmentation.eval_transform`.
    device : torch.device
        Where the module is.
    dtype : torch.dtype
        What it computes in.
    to : torch.device or str, default="cpu"
        Where the features are to be.

    Returns
    -------
    float32 Tensor of shape (n, d)
        The features of the images, in their order.
    """
    with (
        closing(images),
        keeping_memory(),
        limited_threads(device),
        eval_mode(module),
        torch.inference_mode(),
        mixed_precision(dtype, device),
    ):
        network = fuse_batchnorm(module)
        features = [
            network(augment.eval_transform(batch.to(device))).float().to(to)
            for _, batch in images.batches(torch.arange(len(images)).split(at_a_time(images.shape, device)))
        ]
    return torch.cat(features)


class Transform(nn.Module):
    """A network with the resizing and normalization of `encode` before it, as one module for export.

    Parameters
    ----------
    module : torch.nn.Module
        From normalized images to features.
    augment : Augmentation
        Its size and normalization are used, see `Augmentation.eval_transform`.
    shape : tuple of int
        The images' channels, height and width.

    Examples
    --------
    >>> import torch
    >>> from skssl import Augmentation
    >>> from skssl.training.encoding import Transform
    >>> Transform(torch.nn.Flatten(), Augmentation(size=4), (3, 8, 8))(torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 48])
    """

    gain: Tensor
    offset: Tensor

    def __init__(self, module: nn.Module, augment: Augmentation, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.module = module
        self.size, self.mode = augment.size_of(*shape[1:]), augment.interpolation
        black, white = (augment.normalize(of(1, shape[0], 1, 1)) for of in (torch.zeros, torch.ones))
        self.register_buffer("gain", white - black)
        self.register_buffer("offset", black)

    def forward(self, images: Tensor) -> Tensor:
        """Return the features of images.

        Parameters
        ----------
        images : float32 Tensor of shape (n, c, h, w)
            Images in [0, 1].

        Returns
        -------
        Tensor of shape (n, d)
            The features.
        """
        if self.size != images.shape[2:]:
            images = nn.functional.interpolate(images, self.size, mode=self.mode, antialias=True).clamp(0, 1)
        return self.module(images * self.gain + self.offset)


def encode_together(
    module: nn.Module, images: Images, augment: Augmentation, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Encode all images for all processes, each of which does its share.

    Parameters
    ----------
    module, images, augment, device, dtype
        As for `encode`.

    Returns
    -------
    float32 Tensor of shape (n, d)
        The features of all images, on the device.
    """
    n = len(images)
    rows = torch.arange(-(-n // n_processes()) * n_processes()) % n  # as many for each
    return all_gather(encode(module, images.take(local_rows(rows)), augment, device, dtype, device))[:n]


def at_a_time(shape: tuple[int, int, int], device: torch.device) -> int:
    """Tell how many images are encoded at a time.

    Parameters
    ----------
    shape : tuple of int
        Their channels, height and width.
    device : torch.device
        Where.

    Returns
    -------
    int
        At least one.

    Examples
    --------
    >>> import torch
    >>> from skssl.training.encoding import at_a_time
    >>> at_a_time((3, 32, 32), torch.device("cpu")), at_a_time((3, 224, 224), torch.device("cpu"))
    (256, 5)
    """
    return max(1, ENCODED.get(device.type, ENCODED["cpu"]) // (shape[1] * shape[2]))
