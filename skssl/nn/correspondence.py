"""Networks that tell whether a frame and a sound belong together."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skssl.nn.heads import MLP


class Correspondence(nn.Module):
    """The logit that a frame and a sound belong together, from what their encoders return.

    Parameters
    ----------
    fusion : {"concatenate", "distance", "localize"}
        "concatenate": a hidden layer on both features. "distance": the Euclidean distance of normalised embeddings.
        "localize": the largest scalar product of the sound's embedding with those of the cells of a map.
    frame_dim, sound_dim : int
        Width of the features of frames, or channels of their maps, and width of the features of sounds.
    dim : int
        Width of the embeddings, or of the hidden layer.

    Examples
    --------
    >>> import torch
    >>> from skssl.nn.correspondence import Correspondence
    >>> net, grids, sounds = Correspondence("localize", 8, 6, 4), torch.rand(5, 8, 3, 3), torch.rand(5, 6)
    >>> net(grids, sounds).shape, net.cells(grids, sounds).shape
    (torch.Size([5]), torch.Size([5, 3, 3]))
    """

    def __init__(self, fusion: str, frame_dim: int, sound_dim: int, dim: int) -> None:
        super().__init__()
        self.fusion = fusion
        if fusion == "concatenate":
            self.classifier = MLP((frame_dim + sound_dim, dim, 1), norm=False)
            return
        self.frame_embedding = MLP((frame_dim, dim, dim), output_norm=True)
        self.sound_embedding = MLP((sound_dim, dim, dim), output_norm=True)
        self.calibration = nn.Linear(1, 1)  # its sign is right from the start: near embeddings belong together
        nn.init.constant_(self.calibration.weight, -4.0 if fusion == "distance" else dim**-0.5)
        nn.init.constant_(self.calibration.bias, 4.0 if fusion == "distance" else 0.0)

    def forward(self, frames: Tensor, sounds: Tensor) -> Tensor:
        """Compare frames with sounds, row by row.

        Parameters
        ----------
        frames : Tensor of shape (n, frame_dim) or (n, frame_dim, h, w)
            Features of frames, or their maps for "localize".
        sounds : Tensor of shape (n, sound_dim)
            Features of sounds.

        Returns
        -------
        float32 Tensor of shape (n,)
            The logits.
        """
        if self.fusion == "localize":
            return self.cells(frames, sounds).amax((1, 2))
        if self.fusion == "concatenate":
            return self.classifier(torch.cat([frames, sounds], 1))[:, 0].float()
        seen, heard = (
            F.normalize(x.float(), dim=1) for x in (self.frame_embedding(frames), self.sound_embedding(sounds))
        )
        distance = (seen - heard).square().sum(1).clamp(min=1e-12).sqrt()
        return self.calibration(distance[:, None])[:, 0].float()

    def cells(self, frames: Tensor, sounds: Tensor) -> Tensor:
        """Compare each cell of the maps of frames with a sound, for "localize".

        Parameters
        ----------
        frames : Tensor of shape (n, frame_dim, h, w)
            Maps of frames.
        sounds : Tensor of shape (n, sound_dim)
            Features of sounds.

        Returns
        -------
        float32 Tensor of shape (n, h, w)
            The logits.
        """
        cells = frames.movedim(1, 3)
        seen, heard = self.frame_embedding(cells.flatten(0, 2)).view(*cells.shape[:3], -1), self.sound_embedding(sounds)
        product = (seen.float() * heard.float()[:, None, None]).sum(3, keepdim=True)
        return self.calibration(product)[..., 0].float()
