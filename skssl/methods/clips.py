"""The base class of methods that train on clips."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor

from skssl.augment.augmentation import Augmentation
from skssl.augment.transforms import has_transforms
from skssl.images import Clips, Images, as_clips
from skssl.images.clips import ClipFiles
from skssl.methods.base import SSLTransformer
from skssl.methods.settings import Settings
from skssl.nn.precision import mixed_precision
from skssl.training.encoding import encoding_batch_size
from skssl.training.trainer import Trainer


@dataclass(kw_only=True, eq=False, repr=False)
class ClipMethod(SSLTransformer):
    """A method that trains on clips; abstract.

    `transform` takes images and clips. The features of a clip are the mean of those of its frames.

    Parameters
    ----------
    n_frames : int, default=None
        The number of frames of a clip to use, evenly spaced. None: all frames of an array, of other clips as many as
        the shortest has, but at most 16 of files and videos. See `images.as_clips`.
    """

    n_frames: int | None = None

    default_settings: ClassVar[Settings] = Settings(
        augment=Augmentation(crop_scale=(0.5, 1.0), gray=0.0),
        optimizer="adamw",
        lr=4e-3,
        weight_decay=1e-4,
        schedule="cosine",
        warmup=0.05,
        aux_weight=1.0,
    )
    _parameter_constraints: ClassVar[dict] = {
        **SSLTransformer._parameter_constraints,
        "n_frames": [Interval(Integral, 1, None, closed="left"), None],
    }

    @property
    def n_views(self) -> int:
        """One view of a frame."""
        return 1

    @property
    def least_frames(self) -> int:
        """The number of frames that a clip must have."""
        return 1

    def _as_images(self, X: Any, *, whole: Any = None, size: Any = None, **how: Any) -> Clips:
        return as_clips(X, self.image_shape, n_frames=self.n_frames, n_jobs=self.n_jobs, **how)

    def _as_samples(self, X: Any) -> Any:
        return ClipFiles(X) if isinstance(X, (str, os.PathLike)) else X

    def _make_trainer(self, images: Images, start: dict[str, Tensor] | None = None) -> Trainer:
        name, given = type(self).__name__, self.setting("augment")
        if has_transforms(given):
            raise TypeError(
                f"{name} gives all frames of a clip the same random numbers, which transforms of other libraries do "
                f"not allow. Pass an Augmentation or the name of a preset as augment. Got {given!r}."
            )
        count = images.n_frames if isinstance(images, Clips) else 1
        if count < self.least_frames:
            chosen = "" if self.n_frames is None else f" with n_frames={self.n_frames}"
            raise ValueError(
                f"{name} needs clips of at least {self.least_frames} frames. Those in X have {count}{chosen}. Pass an "
                "array (n, t, h, w, c), folders of frames or videos, see images.as_clips."
            )
        return super()._make_trainer(images, start)

    def _still_frames(self, clips: Clips) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the indices of clips, and their frames (b * n_frames, c, h, w) as the encoder reads them after `fit`.

        The body of the loop runs in the precision of the training.
        """
        net, device = self.net_, torch.device(self.net_.device)
        at_once = max(1, encoding_batch_size(clips.shape, device) // clips.n_frames)
        for index in torch.arange(len(clips)).split(at_once):
            images = net.augmentations[0].eval_transform(clips.read(index).flatten(0, 1).to(device))
            with mixed_precision(net.dtype, device):
                yield index, images
