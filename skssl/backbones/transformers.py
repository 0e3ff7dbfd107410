"""torchvision's vision transformer for images of any size, with access to the tokens of its patches."""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.vision_transformer import EncoderBlock

from skssl.backbones.maps import PatchMap
from skssl.backbones.positions import resample_positions, sincos_positions
from skssl.nn.masking import take_tokens

HEAD_DIM = 32  # width of a decoder's heads of attention, as in MAE


class VisionTransformer(torchvision.models.VisionTransformer):
    """A vision transformer without a classifier, see `backbones.ViT`.

    Parameters
    ----------
    size : tuple of int
        Height and width of the images in pixels, for which positions are not interpolated.
    patch_size : int
        Side of the patches in pixels.
    dim : int
        Width of the tokens, a multiple of 4.
    n_blocks, n_heads : int
        Number of blocks, and of heads of their attention.
    pool : {"token", "mean"} or None
        What the features are. None is the class token; methods may set another.

    Attributes
    ----------
    patches : PatchMap
        Called with the map of the patches' last tokens, (n, d, h', w').

    Examples
    --------
    >>> import torch
    >>> from skssl.backbones.transformers import VisionTransformer
    >>> encoder = VisionTransformer((32, 32), 4, dim=16, n_blocks=2, n_heads=2, pool="token")
    >>> encoder(torch.zeros(5, 3, 20, 28)).shape, encoder.tokens(torch.zeros(5, 3, 20, 28)).shape
    (torch.Size([5, 16]), torch.Size([5, 36, 16]))
    """

    def __init__(
        self, size: tuple[int, int], patch_size: int, dim: int, n_blocks: int, n_heads: int, pool: str | None
    ) -> None:
        super().__init__(patch_size, patch_size, n_blocks, n_heads, dim, 4 * dim)
        self.heads = nn.Identity()
        self.pool, self.patches = pool, PatchMap()
        self.grid = self.grid_of(*size)
        positions = torch.cat([torch.zeros(1, dim), sincos_positions(*self.grid, dim)])
        self.encoder.pos_embedding = nn.Parameter(positions[None])

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """Return the number of rows and columns of patches for images of a size in pixels."""
        return -(-height // self.patch_size), -(-width // self.patch_size)

    def no_weight_decay(self) -> set[str]:
        """Return the names of matrices that are not decayed, as in timm."""
        return {"class_token", "encoder.pos_embedding"}

    def forward(self, images: Tensor) -> Tensor:
        """Encode images.

        Parameters
        ----------
        images : Tensor of shape (n, c, h, w)
            Images.

        Returns
        -------
        Tensor of shape (n, d)
            Features.
        """
        tokens = self._encode(images)
        grid = self.patches(self.as_map(tokens, images))
        return self.heads(grid.mean((2, 3)) if self.pool == "mean" else tokens[:, 0])

    def tokens(
        self,
        images: Tensor,
        visible: Tensor | None = None,
        masked: Tensor | None = None,
        mask_token: Tensor | None = None,
    ) -> Tensor:
        """Encode images, and return all tokens.

        Parameters
        ----------
        images : Tensor of shape (n, c, h, w)
            Images.
        visible : int64 Tensor of shape (n, k), default=None
            Indices of the patches that are encoded. None is all patches.
        masked : bool Tensor of shape (n, h' * w'), default=None
            The patches that are replaced by the mask token, which gets their positions.
        mask_token : Tensor of shape (1, 1, d), default=None
            The mask token.

        Returns
        -------
        Tensor of shape (n, 1 + k, d)
            The class token and those of the patches, after the last LayerNorm.
        """
        return self._encode(images, visible, masked, mask_token)

    def _encode(
        self,
        images: Tensor,
        visible: Tensor | None = None,
        masked: Tensor | None = None,
        mask_token: Tensor | None = None,
    ) -> Tensor:
        """Return what `tokens` returns. Both passes call it, as `encode_in_parts` replaces them."""
        x = self.conv_proj(self.pad(images))  # (n, d, h', w')
        positions = resample_positions(self.encoder.pos_embedding, self.grid, (x.shape[2], x.shape[3]))
        x = x.flatten(2).transpose(1, 2)  # (n, h' * w', d)
        if masked is not None and mask_token is not None:
            x = torch.where(masked[..., None], mask_token.to(x.dtype), x)
        x = x + positions[:, 1:]
        if visible is not None:
            x = take_tokens(x, visible)
        first = (self.class_token + positions[:, :1]).expand(len(x), -1, -1)
        return self.encoder.ln(self.encoder.layers(torch.cat([first, x], 1)))

    def as_map(self, tokens: Tensor, images: Tensor) -> Tensor:
        """Return the tokens (n, 1 + h' * w', d) of all patches of images as a map (n, d, h', w')."""
        return tokens[:, 1:].transpose(1, 2).unflatten(2, self.grid_of(*images.shape[2:]))

    def pad(self, images: Tensor) -> Tensor:
        """Pad images (n, c, h, w) with zeros, on the right and below, to whole patches."""
        height, width = images.shape[2:]
        missing = -height % self.patch_size, -width % self.patch_size
        return F.pad(images, (0, missing[1], 0, missing[0])) if any(missing) else images

    def pixels(self, images: Tensor) -> Tensor:
        """Return the pixels of each patch.

        Parameters
        ----------
        images : Tensor of shape (n, c, h, w)
            Images.

        Returns
        -------
        Tensor of shape (n, h' * w', p * p * c)
            The pixels of the padded images' patches, of p x p pixels, row by row, the channels of a pixel together.
        """
        p = self.patch_size
        rows = self.pad(images).unflatten(3, (-1, p)).unflatten(2, (-1, p))  # (n, c, h', p, w', p)
        return rows.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


class TokenDecoder(nn.Module):
    """Predict values at places whose tokens are not known from those that are, by a small transformer.

    Parameters
    ----------
    n_in : int
        Width of the known tokens.
    dim : int
        Width of the decoder, a multiple of 4.
    depth : int
        Number of blocks.
    grid : tuple of int
        Rows and columns of the patches.
    n_out : int
        Number of values that are predicted at each place.

    Examples
    --------
    >>> import torch
    >>> from skssl.backbones.transformers import TokenDecoder
    >>> decoder = TokenDecoder(96, 32, 2, (4, 4), 48)
    >>> order = torch.arange(16).expand(5, -1)
    >>> decoder(torch.zeros(5, 1 + 4, 96), order[:, :4], order[:, 4:]).shape
    torch.Size([5, 12, 48])
    """

    def __init__(self, n_in: int, dim: int, depth: int, grid: tuple[int, int], n_out: int) -> None:
        super().__init__()
        n_heads = dim // HEAD_DIM if dim % HEAD_DIM == 0 else 1
        self.embed = nn.Linear(n_in, dim)
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.pos_embedding = nn.Parameter(torch.cat([torch.zeros(1, dim), sincos_positions(*grid, dim)])[None])
        self.layers = nn.Sequential(*(EncoderBlock(n_heads, dim, 4 * dim, 0.0, 0.0) for _ in range(depth)))
        self.ln = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, n_out)

    def no_weight_decay(self) -> set[str]:
        """Return the names of matrices that are not decayed."""
        return {"mask_token", "pos_embedding"}

    def forward(self, tokens: Tensor, known: Tensor, wanted: Tensor) -> Tensor:
        """Predict.

        Parameters
        ----------
        tokens : Tensor of shape (n, 1 + k, n_in)
            The class token and the known tokens.
        known : int64 Tensor of shape (n, k)
            The places of the known tokens.
        wanted : int64 Tensor of shape (n, m)
            The places at which values are predicted.

        Returns
        -------
        Tensor of shape (n, m, n_out)
            The predictions.
        """
        first, places = self.pos_embedding[:, :1], self.pos_embedding[:, 1:].expand(len(tokens), -1, -1)
        x = self.embed(tokens) + torch.cat([first.expand(len(tokens), -1, -1), take_tokens(places, known)], 1)
        x = self.layers(torch.cat([x, self.mask_token + take_tokens(places, wanted)], 1))
        return self.head(self.ln(x[:, 1 + known.shape[1] :]))
