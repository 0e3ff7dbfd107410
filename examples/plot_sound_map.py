"""
Where a sound comes from
========================

Two shapes move, and one of them sounds. :class:`skssl.AudioVisual` learns which frames
and sounds belong together, and so where in a frame the sound comes from.
"""

from skssl import AudioVisual, Augmentation, SoundMapDisplay
from skssl.datasets import make_clips

clips, waveforms, shapes, motions = make_clips(3000, image_size=32, random_state=0)
augment = Augmentation(crop_scale=None, jitter=0.5, gray=0.0)
settings = {
    "fusion": "localize",
    "epochs": 10,
    "batch_size": 32,
    "lr": 3e-3,
    "random_state": 0,
}
encoder = AudioVisual(backbone="convnet", augment=augment, **settings)
encoder.fit((clips, waveforms))

# %%
# The sound probably comes from the bright places. The smallest and the largest
# probability are written below.
SoundMapDisplay.from_estimator(encoder, clips[:, 0], waveforms, n_images=4)
