"""Gradient signal-to-noise ratio of SimSiam with and without the rotation task, as in EffSSL's supplement.

The ratio is that of the encoder's parameters, on 20,000 images of CIFAR-10, with a row for each epoch. All runs use the
same batches. A method and seed take about two minutes on two CPU cores.

    python -m benchmarks gradient_snr [NAME ...] [--seeds 0 1 2] [--epochs 10] [--images 20000] [--again]
"""

from __future__ import annotations

import itertools

from benchmarks.encoders import options, run, to_do
from benchmarks.methods import METHODS, cifar10
from benchmarks.record import record
from skssl.callbacks import GradientSNR

NAMES = ["SimSiam", "SimSiam + rotation"]
DECAY = 0.99


def main() -> None:
    """Train the selected methods, and record the ratios."""
    asked = options(__doc__, NAMES)
    X, y, *_ = cifar10(asked.images, asked.test)
    rows = [{**run(name, seed, asked), "decay": DECAY} for name, seed in itertools.product(asked.names, asked.seeds)]
    for row in to_do("gradient_snr", rows, again=asked.again):
        method, params = METHODS[row["method"]]
        settings = {"backbone": row["backbone"], "epochs": row["epochs"], "random_state": row["seed"], "verbose": 1}
        history = method(**settings, **params, callbacks=[GradientSNR(decay=DECAY)]).fit(X, y).history_
        columns = ["epoch", "loss", "gradient_snr", "gradient_snr_squared"]
        record("gradient_snr", [{**row, **of_epoch} for of_epoch in history[columns].to_dict("records")])


if __name__ == "__main__":
    main()
