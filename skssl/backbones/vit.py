"""Vision transformers by size: the parameters that select one."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar, cast

from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval, StrOptions
from torch import nn

from skssl.storage.registry import register

if TYPE_CHECKING:
    from skssl.backbones.transformers import VisionTransformer

SMALL_PATCH, LARGE_PATCH = 4, 16  # sides of the patches of small and of large images, in pixels
#: Width, number of blocks and number of heads.
SIZES = {
    "micro": (96, 4, 3),
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
}
TORCHVISION_SIZES = {"b": "base", "l": "large", "h": "huge"}  # as in "vit_b_16"


@register("object")
@dataclass(eq=False, repr=False)
class ViT(BaseEstimator):
    """A vision transformer as the parameter `backbone`, with options that its name does not have.

    Images of any size are read: those whose sides are no multiples of the patch are padded with the mean colour on the
    right and below. Positions start as sines and cosines of the place, as in MAE and MoCo v3, and are trained. For
    images of another size than those of the training they are interpolated. All other layers, their initial weights
    and the names of the parameters are torchvision's.

    Parameters
    ----------
    size : {"micro", "tiny", "small", "base", "large", "huge"}, default="tiny"
        Width of the tokens, number of blocks and of heads: "micro" for CPUs has 96, 4 and 3, "tiny" 192, 12 and 3,
        "small" 384, 12 and 6, "base" 768, 12 and 12, "large" 1024, 24 and 16, "huge" 1280, 32 and 16.
    patch_size : int, default=None
        Side of the patches in pixels. None is 4 for images whose longer side is at most 64 pixels, and 16 for others.
    pool : {"token", "mean"}, default=None
        What the features are: the class token, or the mean of the patches' tokens, both after the last LayerNorm. None
        is the class token, but the mean for methods that do not train the class token, such as `SimMIM`.

    References
    ----------
    Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021; Touvron et al., DeiT, ICML 2021, for "tiny" and
    "small". "micro" is ours.

    Examples
    --------
    >>> from skssl import SimCLR
    >>> from skssl.backbones import ViT, build_backbone
    >>> SimCLR(backbone=ViT("micro", pool="mean")).get_params()["backbone__pool"]
    'mean'
    >>> encoder, dim = build_backbone(ViT("micro"), (3, 32, 32))
    >>> dim, encoder.conv_proj
    (96, Conv2d(3, 96, kernel_size=(4, 4), stride=(4, 4)))
    """

    size: str = "tiny"
    patch_size: int | None = None
    pool: str | None = None

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "size": [StrOptions(set(SIZES))],
        "patch_size": [Interval(Integral, 1, None, closed="left"), None],
        "pool": [StrOptions({"token", "mean"}), None],
    }

    def build(self, height: int, width: int, small: int) -> VisionTransformer:
        """Build the network, untrained and without a classifier.

        Parameters
        ----------
        height, width : int
            Size of the images, for which positions are not interpolated.
        small : int
            The longest side of images that get small patches by default.

        Returns
        -------
        VisionTransformer
            The network, which reads three channels.
        """
        from skssl.backbones.transformers import VisionTransformer

        self._validate_params()
        dim, n_blocks, n_heads = SIZES[self.size]
        patch = self.patch_size or (SMALL_PATCH if max(height, width) <= small else LARGE_PATCH)
        return VisionTransformer((height, width), int(patch), dim, n_blocks, n_heads, self.pool)


def vit_named(name: str) -> ViT | None:
    """Return the vision transformer of a name.

    Parameters
    ----------
    name : str
        "vit_" and a size, such as "vit_tiny", or one of torchvision's names, such as "vit_b_16".

    Returns
    -------
    ViT or None
        None for any other name.

    Examples
    --------
    >>> from skssl.backbones.vit import vit_named
    >>> vit_named("vit_b_32"), vit_named("resnet18")
    (ViT(patch_size=32, size='base'), None)
    """
    prefix, _, size = name.partition("vit_")
    letter, _, patch = size.partition("_")
    if prefix == "" and size in SIZES:
        return ViT(size)
    if prefix == "" and letter in TORCHVISION_SIZES and patch.isdecimal():
        return ViT(TORCHVISION_SIZES[letter], int(patch))
    return None


def is_vit(encoder: nn.Module) -> bool:
    """Return whether an encoder is one of skssl's vision transformers, whose tokens a method can mask.

    Parameters
    ----------
    encoder : torch.nn.Module
        The encoder.

    Returns
    -------
    bool
        Whether it is.

    Examples
    --------
    >>> from skssl.backbones import ConvNet
    >>> from skssl.backbones.vit import is_vit
    >>> is_vit(ConvNet())
    False
    """
    from skssl.backbones.transformers import VisionTransformer

    return isinstance(encoder, VisionTransformer)


def require_vit(encoder: nn.Module, name: str) -> VisionTransformer:
    """Return an encoder that must be one of skssl's vision transformers.

    Parameters
    ----------
    encoder : torch.nn.Module
        The encoder.
    name : str
        The method that requires it, for the message.

    Returns
    -------
    VisionTransformer
        The encoder.

    Raises
    ------
    ValueError
        If it is another network.

    Examples
    --------
    >>> from skssl.backbones import ConvNet
    >>> from skssl.backbones.vit import require_vit
    >>> require_vit(ConvNet(), "MAE")
    Traceback (most recent call last):
    ...
    ValueError: MAE needs a vision transformer of skssl: backbone='vit_micro', 'vit_tiny', 'vit_small' or 'vit_base', or
    a skssl.backbones.ViT. Got ConvNet.
    """
    if not is_vit(encoder):
        raise ValueError(
            f"{name} needs a vision transformer of skssl: backbone='vit_micro', 'vit_tiny', 'vit_small' or 'vit_base', "
            f"or a skssl.backbones.ViT. Got {type(encoder).__name__}."
        )
    return cast("VisionTransformer", encoder)
