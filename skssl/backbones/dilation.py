"""Finer maps of encoders, by dilation in place of strides."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from skssl.backbones.maps import PatchMap, map_shape


def dilate(encoder: nn.Module, shape: tuple[int, int, int], cells: int) -> None:
    """Replace the last strides of an encoder by dilation, until its map is fine enough.

    The convolutions keep their weights and, apart from the borders, what they see. The map gets finer by the strides.

    Parameters
    ----------
    encoder : torch.nn.Module
        An encoder of `build_backbone` with a map, see `feature_map`. It is changed in place. Only strides of
        ``nn.Conv2d``, ``nn.MaxPool2d`` and ``nn.AvgPool2d`` are replaced. Vision transformers are not changed.
    shape : tuple of int
        Channels, height and width of the images.
    cells : int
        The least height and width of the map, or those of the images if they are smaller.

    References
    ----------
    Chen et al., Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs, ICLR 2015.

    Examples
    --------
    >>> from skssl.backbones import ConvNet, dilate
    >>> from skssl.backbones.maps import map_shape
    >>> encoder = ConvNet()
    >>> dilate(encoder, (3, 32, 32), 8)
    >>> map_shape(encoder, (3, 32, 32))
    (128, 8, 8)
    """
    if any(isinstance(module, PatchMap) for module in encoder.modules()):
        return
    while min(size := map_shape(encoder, shape)[1:]) < min(cells, *shape[1:]) and _dilate_once(encoder, shape, size):
        pass


def _dilate_once(encoder: nn.Module, shape: tuple[int, int, int], size: tuple[int, int]) -> bool:
    """Replace the strides that lead to the size of the map; return whether there are any."""
    strided, after = [], []

    def note(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if max(_pair(module.stride)) > 1 and output.shape[2:] == size:
            strided.append(module)
        elif inputs[0].shape[2:] == size:
            after.append(module)

    kinds = nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d
    hooks = [module.register_forward_hook(note) for module in encoder.modules() if isinstance(module, kinds)]
    try:
        map_shape(encoder, shape)
    finally:
        for hook in hooks:
            hook.remove()
    factor = tuple(max(_pair(module.stride)[axis] for module in strided) for axis in (0, 1)) if strided else (1, 1)
    for module in strided:
        module.stride = (1, 1)
    for module in after:
        if isinstance(module, nn.Conv2d) and not isinstance(module.padding, str):
            module.dilation = tuple(old * by for old, by in zip(module.dilation, factor, strict=True))
            module.padding = tuple(old * by for old, by in zip(module.padding, factor, strict=True))
    return bool(strided)


def _pair(stride: int | tuple[int, int]) -> tuple[int, int]:
    """Return strides along both axes."""
    return (stride, stride) if isinstance(stride, int) else stride
