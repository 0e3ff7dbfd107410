"""Rotation and contrastive accuracy of trained encoders, at the backbone and at the projector: EffSSL's table 4.

20,000 images of CIFAR-10 to train the encoders and the rotation probes with, the test set to judge on. All encoders are
given SimCLR's views for the contrastive accuracy, in batches of 512. RotNet has no projector. On two CPU cores it takes
one to two minutes a method and seed, beside the training of the encoder.

    python -m benchmarks pretext_accuracy [NAME ...] [--seeds 0 1 2] [--epochs 10] [--images 20000] [--again]
"""

from __future__ import annotations

import itertools
import time

from benchmarks.encoders import options, run, to_do, trained
from benchmarks.methods import cifar10, judge
from benchmarks.record import record
from skssl.metrics import contrastive_accuracy, rotation_accuracy

NAMES = ["untrained", "RotNet", "BYOL", "BYOL + rotation", "SimCLR", "SimCLR + rotation"]
BATCH = 512


def main() -> None:
    """Train and judge what was asked for."""
    asked = options(__doc__, NAMES)
    X, y, X_test, y_test = cifar10(asked.images, asked.test)
    rows = [
        {**run(name, seed, asked), "batch_size": BATCH} for name, seed in itertools.product(asked.names, asked.seeds)
    ]
    for row in to_do("pretext_accuracy", rows, again=asked.again):
        found = trained(row, asked.cache, X, y)
        encoder, seed = found["encoder"], row["seed"]
        start = time.perf_counter()
        row["linear"] = judge(encoder.transform, X, y, X_test, y_test)["linear"]
        for layer in ("backbone", "projector"):
            if layer == "projector" and not hasattr(encoder.net_.module_, "projector"):
                continue
            row[f"rotation, {layer}"] = rotation_accuracy(encoder, X, X_test, layer=layer, random_state=seed, verbose=1)
            row[f"contrastive, {layer}"] = contrastive_accuracy(
                encoder, X_test, layer=layer, batch_size=BATCH, augment="simclr", random_state=seed, verbose=1
            )
        seconds = time.perf_counter() - start
        record("pretext_accuracy", [{**row, "seconds": seconds, "encoder_commit": found["commit"]}])


if __name__ == "__main__":
    main()
