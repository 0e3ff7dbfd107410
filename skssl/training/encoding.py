"""Features of all images, in evaluation mode and without augmentation."""

from __future__ import annotations

import math
from contextlib import closing

import torch
from torch import Tensor, nn

from skssl.augment.augmentation import Augmentation
from skssl.images import Clips, Images
from skssl.nn.distributed import all_gather, local_rows, n_processes
from skssl.nn.inference import eval_mode, fuse_batchnorm
from skssl.nn.precision import mixed_precision
from skssl.training.cpu_threads import limited_threads
from skssl.training.devices import keeping_memory

# Pixels per batch: as many as a CPU's cache holds feature maps of, and enough to keep a GPU busy
PIXELS_PER_BATCH = {"cpu": 2**18, "cuda": 2**23}


def encode(
    module: nn.Module,
    images: Images,
    augment: Augmentation,
    device: torch.device,
    dtype: torch.dtype,
    to: torch.device | str = "cpu",
) -> Tensor:
    """Run a module on all images, of the size of views, without augmentation and in evaluation mode.

    The features of a clip are the mean of those of its frames.

    Parameters
    ----------
    module : torch.nn.Module
        Maps normalised images to features.
    images : Images
        The images.
    augment : Augmentation
        Its views' size and normalisation are used, see `Augmentation.eval_transform`. Photographs take the still view
        of its `eval_resize`.
    device : torch.device
        The device of the module.
    dtype : torch.dtype
        The type that it computes in.
    to : torch.device or str, default="cpu"
        The device of the features.

    Returns
    -------
    float32 Tensor of shape (n, d)
        The features of the images, in their order.
    """
    if isinstance(images, Clips):
        of_frames = encode(module, images.frames, augment, device, dtype, to)
        return of_frames.unflatten(0, (len(images), images.n_frames)).mean(1)
    images = images.still(augment.size_of(*images.shape[1:]), augment.eval_resize, augment.interpolation)
    with (
        closing(images),
        keeping_memory(),
        limited_threads(device),
        eval_mode(module),
        torch.inference_mode(),
        mixed_precision(dtype, device),
    ):
        network = fuse_batchnorm(module)
        channels, *size = images.shape
        height, width = max(size, augment.size_of(*size), key=math.prod)  # views may be larger than the images
        batch_size = encoding_batch_size((channels, height, width), device)
        features = [
            network(augment.eval_transform(batch.to(device))).float().to(to)
            for _, batch in images.batches(torch.arange(len(images)).split(batch_size))
        ]
    return torch.cat(features)


class TransformModule(nn.Module):
    """A network with the resizing and normalisation of `encode` before it, as one module for export.

    Parameters
    ----------
    module : torch.nn.Module
        From normalised images to features.
    augment : Augmentation
        Its size and normalisation are used, see `Augmentation.eval_transform`.
    shape : tuple of int
        The images' channels, height and width.

    Examples
    --------
    >>> import torch
    >>> from skssl import Augmentation
    >>> from skssl.training.encoding import TransformModule
    >>> TransformModule(torch.nn.Flatten(), Augmentation(size=4), (3, 8, 8))(torch.zeros(2, 3, 8, 8)).shape
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
    """Encode all images with several processes, each of which encodes its share.

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
    rows = torch.arange(-(-n // n_processes()) * n_processes()) % n  # the same number for each
    return all_gather(encode(module, images.take(local_rows(rows)), augment, device, dtype, device))[:n]


def encoding_batch_size(shape: tuple[int, int, int], device: torch.device) -> int:
    """Return the batch size for encoding.

    Parameters
    ----------
    shape : tuple of int
        Channels, height and width of an image.
    device : torch.device
        The device.

    Returns
    -------
    int
        The number of images per batch, at least 1.

    Examples
    --------
    >>> import torch
    >>> from skssl.training.encoding import encoding_batch_size
    >>> encoding_batch_size((3, 32, 32), torch.device("cpu")), encoding_batch_size((3, 224, 224), torch.device("cpu"))
    (256, 5)
    """
    return max(1, PIXELS_PER_BATCH.get(device.type, PIXELS_PER_BATCH["cpu"]) // (shape[1] * shape[2]))
