"""Audio-visual correspondence: tell whether a sound belongs to a frame, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skssl.augment import Augmentation
from skssl.backbones import build_backbone, dilate, feature_map, map_channels
from skssl.images import Clips
from skssl.images.arrays import MemoryImages, StoredTensor
from skssl.images.sounds import add_sounds, as_pairs, log_spectrogram, split_pairs
from skssl.losses import correspondence
from skssl.methods.clips import ClipMethod
from skssl.nn.correspondence import Correspondence
from skssl.training.encoding import encode
from skssl.training.objective import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class AudioVisual(ClipMethod):
    """Audio-visual correspondence: tell whether a sound belongs to a frame.

    X is a tuple ``(frames, waveforms)`` or a list of pairs ``(frame, waveform)``, which scikit-learn can split. Frames
    are images or clips, see `images.as_clips`; of a clip each step reads a random frame. Waveforms are (n, samples), of
    one sample rate. `transform` takes such pairs, or frames alone.

    Parameters
    ----------
    fusion : {"localize", "distance", "concatenate"}, default="localize"
        How frame and sound are compared. "concatenate": a classifier reads both features, as in L3-Net. "distance": the
        Euclidean distance of normalised embeddings, as in AVE-Net. "localize": the largest scalar product of the
        sound's embedding with those of the cells of the frame's map, as in AVOL-Net, which provides `sound_map`.
    audio_backbone : str, torch.nn.Module or callable, default="audio_convnet"
        The encoder of log-spectrograms, see `backbone` and `backbones.AudioConvNet`.
    proj_dim : int, default=128
        Width of the embeddings, or of the hidden layer of "concatenate".
    n_negatives : int, default=31
        Number of other clips in the batch whose sounds a frame is compared with. The papers have 1.
    map_size : int, default=8
        Least height and width, in cells, of the map of "localize". Dilation replaces the last strides of a backbone
        whose map is smaller, see `backbones.dilate`. The paper has 14 for 224 pixels.
    window : int, default=128
        Samples of a window of the log-spectrogram. Windows overlap by half. The papers' have 0.01 seconds.

    References
    ----------
    Arandjelović and Zisserman, Look, Listen and Learn, ICCV 2017 (L3-Net), and Objects that Sound, ECCV 2018 (AVE-Net,
    AVOL-Net). The papers hear one second around the frame, ours the whole sound of the clip. Their softmax over two
    classes is one logistic unit here. Log-spectrograms are standardised, which hides the volume. BatchNorm follows the
    layers of the embeddings, without which small networks hardly learn. The settings are ours.

    Examples
    --------
    >>> from skssl import AudioVisual
    >>> from skssl.datasets import make_clips
    >>> clips, waveforms, *_ = make_clips(64, random_state=0)
    >>> encoder = AudioVisual(backbone="convnet", epochs=1, batch_size=32, random_state=0).fit((clips, waveforms))
    >>> encoder.transform_audio(waveforms).shape, encoder.sound_map(clips[:, 0], waveforms).shape
    ((64, 512), (64, 32, 32))
    """

    fusion: str = "localize"
    audio_backbone: Any = "audio_convnet"
    proj_dim: int = 128
    n_negatives: int = 31
    map_size: int = 8
    window: int = 128

    _parameter_constraints: ClassVar[dict] = {
        **ClipMethod._parameter_constraints,
        "fusion": [StrOptions({"localize", "distance", "concatenate"})],
        "audio_backbone": [str, nn.Module, callable],
        **{name: [Interval(Integral, 1, None, closed="left")] for name in ("proj_dim", "n_negatives", "map_size")},
        "window": [Interval(Integral, 4, None, closed="left")],
    }

    @property
    def chance(self) -> dict[str, float]:
        """The accuracy of a random guess."""
        return {"correspondence_accuracy": 0.5}

    def _as_images(self, X: Any, **how: Any) -> Clips:
        frames, waveforms = split_pairs(X)
        clips = super()._as_images(frames, **how)
        if waveforms is None and how["reset"] and not clips.extra:
            raise TypeError("AudioVisual learns from sounds, too. Pass X as (frames, waveforms) or as a list of pairs.")
        return clips if waveforms is None else add_sounds(clips, waveforms, self.window)

    def _as_samples(self, X: Any) -> Any:
        return super()._as_samples(as_pairs(X))

    def build(self, net: Objective, dim: int, n_samples: int) -> None:  # noqa: D102
        net.audio_encoder, audio_dim = build_backbone(self.audio_backbone, (1, *(self.window // 2 + 1,) * 2))
        if self.fusion == "localize":
            dilate(net.encoder, net.shape, self.map_size)
            dim = map_channels(net.encoder, net.shape)
        net.correspondence = Correspondence(self.fusion, dim, audio_dim, self.proj_dim)

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        seen, heard = self.look(net, batch.views[0]), net.audio_encoder(batch.made["sounds"])
        positive, negative = net.correspondence(seen, heard, self.n_negatives).tensor_split([1])
        accuracy = ((positive > 0).float().mean() + (negative <= 0).float().mean()) / 2
        return {"correspondence": correspondence(positive, negative), "correspondence_accuracy": accuracy}

    def look(self, net: Objective, images: Tensor) -> Tensor:
        """Return what is compared with sounds: the features (n, d) of images, or their maps (n, c', h', w')."""
        return feature_map(net.encoder, images)[1] if self.fusion == "localize" else net.encoder(images)

    def transform_audio(self, waveforms: Any) -> np.ndarray:
        """Encode sounds.

        Parameters
        ----------
        waveforms : array-like of shape (n, samples)
            The sounds.

        Returns
        -------
        float32 ndarray of shape (n, d)
            The features.
        """
        check_is_fitted(self)
        spectrograms = MemoryImages(StoredTensor(log_spectrogram(waveforms, self.window)), (0.0, 1.0))
        unchanged, net = Augmentation(mean=(0.0,) * 3, std=(1.0,) * 3), self.net_
        how = unchanged, torch.device(net.device), net.dtype
        return encode(net.module_.audio_encoder, spectrograms, *how).numpy()

    @available_if(lambda self: self.fusion == "localize")
    @torch.inference_mode()
    def sound_map(self, frames: Any, waveforms: Any) -> np.ndarray:
        """Return where in frames the sounds come from, if ``fusion="localize"``.

        Parameters
        ----------
        frames, waveforms : array-like
            n images or clips, and their sounds, as for `fit`.

        Returns
        -------
        float32 ndarray of shape (n, h, w), or (n, t, h, w) of clips
            Probabilities that the sound comes from a place, interpolated to the size of the frames.
        """
        check_is_fitted(self)
        clips: Any = self._read((frames, waveforms), reset=False)
        net, maps = self.net_.module_.eval(), []
        for index, images in self._still_frames(clips):
            heard = net.audio_encoder(clips.extra["sounds"][index].to(images.device))
            logits = net.correspondence.cells(self.look(net, images), heard.repeat_interleave(clips.n_frames, 0))
            maps.append(nn.functional.interpolate(logits[:, None].sigmoid(), clips.shape[1:], mode="bilinear").cpu())
        return torch.cat(maps).view(len(clips), clips.n_frames, *clips.shape[1:]).squeeze(1).numpy()
