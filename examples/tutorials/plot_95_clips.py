"""
Clips and sounds
================

A clip has an order, and often a sound. Both are there to learn from without labels. This tutorial trains on each,
looks at what a step reads, classifies clips, and shows where in a frame a sound comes from.
"""

# %%
# The order of frames
# -------------------
#
# In the generated clips one shape moves, and another stands still. Your own clips are arrays, folders of image files or
# video files, see :func:`skssl.images.as_clips`.
from skssl.datasets import make_clips

clips, _, shapes, motions = make_clips(1400, image_size=16, random_state=0)
train, test = slice(0, 1000), slice(1000, None)
print(clips.shape, sorted(set(motions.tolist())))

# %%
# :class:`skssl.ShuffleAndLearn` tells whether three frames of a clip are in order. The frames are augmented alike, so
# that the motion remains. In the other triplets the middle frame was shown before or after both of its neighbours.
from skssl import ShuffleAndLearn, ViewsDisplay

encoder = ShuffleAndLearn(backbone="convnet", epochs=10, batch_size=32, random_state=0)
ViewsDisplay.from_estimator(encoder, clips[train], n_images=4)

# %%
# Probes and the other tools read clips as they read images. The features of a clip are the mean over its frames.
from sklearn.base import clone

from skssl import LinearProbe

untrained = clone(encoder).set_params(epochs=0).fit(clips[train])
encoder.fit(clips[train])
for name, fitted in (("untrained", untrained), ("trained", encoder)):
    probe = LinearProbe(encoder=fitted).fit(clips[train], motions[train])
    accuracy = probe.score(clips[test], motions[test])
    print(f"{name}: {accuracy:.2f} of four motions are recognised")

# %%
# Frames and sounds
# -----------------
#
# :class:`skssl.AudioVisual` tells whether a sound belongs to a frame. X is a tuple of clips and waveforms, or a list of
# pairs, which scikit-learn's cross-validation can split.
from skssl import AudioVisual, Augmentation

clips, waveforms, shapes, motions, masks = make_clips(
    1300, n_silent=0, return_masks=True, random_state=0
)
train, test = slice(0, 1000), slice(1000, None)
# No crops: they could cut off the shape
augment = Augmentation(crop_scale=None, jitter=0.5, gray=0.0)
encoder = AudioVisual(
    backbone="convnet",
    augment=augment,
    epochs=8,
    batch_size=32,
    lr=3e-3,
    random_state=0,
)
encoder.fit((clips[train], waveforms[train]))
print(encoder.history_[["loss", "correspondence_accuracy"]].iloc[[0, -1]].round(2))

# %%
# The encoder has features for frames and for sounds. The sounds tell the motions apart.
features = encoder.transform_audio(waveforms)
probe = LinearProbe().fit(features[train], motions[train])
accuracy = probe.score(features[test], motions[test])
print(f"{accuracy:.2f} of four motions are recognised by their sounds")

# %%
# :class:`skssl.SoundMapDisplay` draws frames in the light of ``sound_map``, the probability that the sound comes from a
# place. The brightest place has the largest one. No label and no box has told the encoder where the shapes are.
from skssl import SoundMapDisplay

SoundMapDisplay.from_estimator(encoder, clips[test], waveforms[test], n_images=6)

# %%
# After these few seconds the largest value of the map is often inside the shape. The benchmarks train on more clips,
# with a second shape that makes no sound, see :doc:`/benchmarks`.
frames, masks = clips[test][:, 4], masks[test][:, 4]
maps = encoder.sound_map(frames, waveforms[test]).reshape(len(frames), -1)
inside = masks.reshape(len(frames), -1)[range(len(frames)), maps.argmax(1)].mean()
print(f"{inside:.2f} of the maps point at the shape")
print(f"the shape covers {masks.mean():.2f} of a frame")
