"""
Where a sound comes from
========================

Two shapes move, and one of them sounds. :class:`skssl.AudioVisual` learns which frames and sounds belong together, and
so where in a frame the sound comes from.
"""

from torch import nn

from skssl import AudioVisual, Augmentation, SoundMapDisplay
from skssl.datasets import make_clips


def sound_network():
    """Encode spectrograms by a few strided convolutions, which is quick."""
    layers = []
    for n_in, n_out, stride in ((1, 16, 4), (16, 32, 2), (32, 64, 2), (64, 128, 2)):
        layers += [nn.Conv2d(n_in, n_out, stride + 1, stride, padding=1), nn.BatchNorm2d(n_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


clips, waveforms, shapes, motions = make_clips(1000, image_size=32, random_state=0)
augment = Augmentation(crop_scale=None, jitter=0.0, gray=0.0)
settings = {"fusion": "localize", "epochs": 80, "batch_size": 64, "lr": 3e-3, "random_state": 0}
encoder = AudioVisual(backbone="convnet", audio_backbone=sound_network, augment=augment, **settings)
encoder.fit((clips, waveforms))

# %%
# Bright places are those that the sound belongs to.
SoundMapDisplay.from_estimator(encoder, clips[:, 0], waveforms, n_images=4)
