"""Networks that tell whether a frame and a sound belong together."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skssl.nn.distributed import all_gather, local_rows
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
    >>> net(grids, sounds, 2).shape, net.cells(grids, sounds).shape
    (torch.Size([3, 5]), torch.Size([5, 3, 3]))
    """

    def __init__(self, fusion: str, frame_dim: int, sound_dim: int, dim: int) -> None:
        super().__init__()
        self.fusion = fusion
        self.frame_embedding: nn.Module
        self.sound_embedding: nn.Module
        if fusion == "concatenate":  # the first layer on both features is the sum of a layer on each
            self.frame_embedding = nn.Linear(frame_dim, dim)
            self.sound_embedding = nn.Linear(sound_dim, dim, bias=False)
            self.classifier = nn.Linear(dim, 1)
            return
        self.frame_embedding = MLP((frame_dim, dim, dim), output_norm=True)
        self.sound_embedding = MLP((sound_dim, dim, dim), output_norm=True)
        self.calibration = nn.Linear(1, 1)  # its sign is right from the start: near embeddings belong together
        nn.init.constant_(self.calibration.weight, -4.0 if fusion == "distance" else dim**-0.5)
        nn.init.constant_(self.calibration.bias, 4.0 if fusion == "distance" else 0.0)

    def embed(self, frames: Tensor, sounds: Tensor) -> tuple[Tensor, Tensor]:
        """Embed frames and sounds.

        Parameters
        ----------
        frames : Tensor of shape (n, frame_dim) or (n, frame_dim, h, w)
            Features of frames, or their maps for "localize".
        sounds : Tensor of shape (m, sound_dim)
            Features of sounds.

        Returns
        -------
        seen : float32 Tensor of shape (n, dim) or (n, h, w, dim)
            The embeddings of frames, or of the cells of their maps.
        heard : float32 Tensor of shape (m, dim)
            The embeddings of sounds. Those of "distance" have the length 1.
        """
        if frames.ndim == 4:
            cells = frames.movedim(1, 3)
            seen = self.frame_embedding(cells.flatten(0, 2)).view(*cells.shape[:3], -1).float()
        else:
            seen = self.frame_embedding(frames).float()
        heard = self.sound_embedding(sounds).float()
        if self.fusion == "distance":
            return F.normalize(seen, dim=1), F.normalize(heard, dim=1)
        return seen, heard

    def forward(self, frames: Tensor, sounds: Tensor, n_others: int) -> Tensor:
        """Compare each frame with its sound and with the sounds of other frames.

        Parameters
        ----------
        frames : Tensor of shape (n, frame_dim) or (n, frame_dim, h, w)
            Features of frames, or their maps for "localize".
        sounds : Tensor of shape (n, sound_dim)
            Features of their sounds.
        n_others : int
            Number of other sounds for each frame, see `with_others`.

        Returns
        -------
        float32 Tensor of shape (1 + n_others, n)
            The logits. The first row is of frames with their own sounds.
        """
        seen, heard = self.embed(frames, sounds)
        heard = with_others(heard, n_others)  # (k, n, dim)
        with torch.autocast(seen.device.type, enabled=False):
            if self.fusion == "localize":
                products = torch.einsum("nhwd,knd->knhw", seen, heard).flatten(2)
                return self.calibration(products[..., None])[..., 0].amax(2)
            if self.fusion == "concatenate":
                return self.classifier(F.relu(seen + heard))[..., 0]
            distance = (seen - heard).square().sum(2).clamp(min=1e-12).sqrt()
            return self.calibration(distance[..., None])[..., 0]

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
        seen, heard = self.embed(frames, sounds)
        with torch.autocast(seen.device.type, enabled=False):
            return self.calibration(torch.einsum("nhwd,nd->nhw", seen, heard)[..., None])[..., 0]


def with_others(rows: Tensor, count: int) -> Tensor:
    """Stack the rows of a batch with other rows of it.

    Parameters
    ----------
    rows : Tensor of shape (n, d)
        This process's rows.
    count : int
        Number of other rows for each row. All others are used if there are fewer.

    Returns
    -------
    Tensor of shape (1 + count, n, d)
        The rows, followed by the rows before them in the batch of all processes, one step at a time.

    Examples
    --------
    >>> import torch
    >>> from skssl.nn.correspondence import with_others
    >>> with_others(torch.arange(4.0)[:, None], 2)[..., 0].int().tolist()
    [[0, 1, 2, 3], [3, 0, 1, 2], [2, 3, 0, 1]]
    """
    gathered = all_gather(rows)
    others = (local_rows(gathered.roll(k, 0)) for k in range(1, min(count, len(gathered) - 1) + 1))
    return torch.stack([rows, *others])
