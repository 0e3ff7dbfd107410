"""Rotation and contrastive accuracy of trained encoders at the backbone and the projector, as in EffSSL's table 4.

Encoders and rotation probes are trained on 20,000 images of CIFAR-10 and evaluated on the test set. The contrastive
accuracy uses SimCLR's views in batches of 512 for all encoders. RotNet has no projector. A method and seed take one to
two minutes on two CPU cores, without the training of the encoder.

    python -m benchmarks pretext_accuracy [NAME ...] [--seeds 0 1 2] [--epochs 10] [--images 20000] [--again]
"""

from __future__ import annotations

import itertools
import time

from benchmarks.encoders import options, run, to_do, trained
from benchmarks.methods import cifar10, evaluate
from benchmarks.record import record
from skssl.metrics import contrastive_accuracy, rotation_accuracy

NAMES = ["untrained", "RotNet", "BYOL", "BYOL + rotation", "SimCLR", "SimCLR + rotation"]
BATCH = 512


def main() -> None:
    """Train and evaluate the selected methods."""
    asked = options(__doc__, NAMES)
    X, y, X_test, y_test = cifar10(asked.images, asked.test)
    rows = [
        {**run(name, seed, asked), "batch_size": BATCH} for name, seed in itertools.product(asked.names, asked.seeds)
    ]
    for row in to_do("pretext_accuracy", rows, again=asked.again):
        found = trained(row, asked.cache, X, y)
        encoder, seed = found["encoder"], row["seed"]
        start = time.perf_counter()
        row["linear"] = evaluate(encoder.transform, X, y, X_test, y_test)["linear"]
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
