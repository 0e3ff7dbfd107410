"""Linear probes of shape and motion on generated clips, of trained encoders and of untrained ones.

`make_clips` gives the clips, of which other ones are tested on. shape and motion: standardised logistic regression on
the mean features of each clip's frames. sound map: the share of test clips in whose second frame the largest value of
the map of `AudioVisual` lies within the bounding box of the shape that sounds. "box" is the mean area of the boxes,
which a random point would reach. Methods that do not train on clips train on all frames.

    python -m benchmarks clips [NAME ...] [--seeds 0 1 2] [--epochs 60] [--clips 2000] [--size 32] [--again]
"""

from __future__ import annotations

import argparse
import itertools
import time
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.encoders import to_do
from benchmarks.record import record
from skssl import AudioVisual, Augmentation, ShuffleAndLearn, SpotArtifacts
from skssl.datasets import make_clips
from skssl.methods.base import SSLTransformer
from skssl.methods.clips import ClipMethod

PLAIN = Augmentation(crop_scale=None, gray=0.0, jitter=0.5)  # of small images, without the crops that hide motion
METHODS: dict[str, tuple[Any, dict[str, Any]]] = {
    "ShuffleAndLearn": (ShuffleAndLearn, {"positives": 0.5}),
    "ShuffleAndLearn, sort": (ShuffleAndLearn, {"frame_order": "sort"}),
    "AudioVisual, localize": (AudioVisual, {}),
    "AudioVisual, distance": (AudioVisual, {"fusion": "distance"}),
    "AudioVisual, concatenate": (AudioVisual, {"fusion": "concatenate"}),
    "SpotArtifacts": (SpotArtifacts, {"lr": 2e-3, "width": 16, "mask_weight": 1.0, "pretrain_epochs": 20}),  # of 60
}
TEST = 1000  # clips


def probe(features: np.ndarray, labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray) -> float:
    """Return the accuracy of logistic regression on standardised features."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    return float(model.fit(features, labels).score(test, test_labels))


def mean_features(encoder: SSLTransformer, clips: np.ndarray) -> np.ndarray:
    """Return the mean features (n, d) of the frames of clips (n, t, h, w, c)."""
    return encoder.transform(clips.reshape(-1, *clips.shape[2:])).reshape(*clips.shape[:2], -1).mean(1)


def within_box(maps: np.ndarray, masks: np.ndarray) -> tuple[float, float]:
    """Return the share of maps (n, h, w) whose largest value is in the mask's box, and the mean area of the boxes.

    Examples
    --------
    >>> import numpy as np
    >>> masks = np.zeros((2, 4, 4), bool)
    >>> masks[:, 1:3, 1] = True
    >>> within_box(masks * 1.0 + [[[0.0]], [[2.0]]] * (np.arange(16).reshape(4, 4) == 15), masks)
    (0.5, 0.125)
    """
    rows, columns = masks.any(2)[:, :, None], masks.any(1)[:, None]
    spans = [
        np.maximum.accumulate(of, axis) & np.flip(np.maximum.accumulate(np.flip(of, axis), axis), axis)
        for of, axis in ((rows, 1), (columns, 2))
    ]
    boxes = (spans[0] & spans[1]).reshape(len(maps), -1)
    place = maps.reshape(len(maps), -1).argmax(1)
    return float(boxes[np.arange(len(maps)), place].mean()), float(boxes.mean())


def main() -> None:
    """Train and evaluate the selected methods, and their untrained encoders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["ShuffleAndLearn", "AudioVisual, localize"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--size", type=int, default=32, help="height and width in pixels")
    parser.add_argument("--again", action="store_true", help="repeat recorded runs")
    asked = parser.parse_args()
    rows = [
        {"method": name, "seed": seed, "epochs": epochs, "clips": asked.clips, "size": asked.size}
        for seed, name, epochs in itertools.product(asked.seeds, asked.names, (0, asked.epochs))
    ]
    for row in to_do("clips", rows, again=asked.again):
        clips, waveforms, *labels, masks = make_clips(
            asked.clips + TEST, image_size=asked.size, return_masks=True, random_state=row["seed"]
        )
        train, test = slice(0, asked.clips), slice(asked.clips, None)
        method, params = METHODS[row["method"]]
        how = {"backbone": "convnet", "batch_size": 32, "lr": 3e-3, "augment": PLAIN, **params}
        start = time.perf_counter()
        encoder = method(**how, epochs=row["epochs"], random_state=row["seed"], verbose=1)
        seen = clips[train] if issubclass(method, ClipMethod) else clips[train].reshape(-1, *clips.shape[2:])
        encoder.fit((seen, waveforms[train]) if method is AudioVisual else seen)
        seconds = time.perf_counter() - start
        features, features_test = (mean_features(encoder, clips[part]) for part in (train, test))
        for name, of in zip(("shape", "motion"), labels, strict=True):
            row[name] = probe(features, of[train], features_test, of[test])
        if hasattr(encoder, "sound_map"):
            maps = encoder.sound_map(clips[test][:, 1], waveforms[test])
            row["sound map"], row["box"] = within_box(maps, masks[test][:, 1])
        record("clips", [{**row, "seconds": seconds}])


if __name__ == "__main__":
    main()
