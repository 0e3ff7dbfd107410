"""Long runs of what a service does: ``python tests/soak.py threads --minutes 60``.

The suite runs the same for seconds.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections import Counter

import numpy as np
import torch
from torch import nn
from torchvision.models import resnet18

from skssl import BYOL, KNNProbe, LinearProbe, SimCLR
from skssl.datasets import make_shapes

THREADS = 8


def estimators():
    """Return four fitted estimators as functions from images to an array."""
    X, y = make_shapes(48, image_size=16, random_state=0)
    shared = {"batch_size": 16, "random_state": 0, "device": "cpu"}
    simclr = SimCLR(backbone="convnet", epochs=1, **shared).fit(X)
    byol = BYOL(backbone=resnet18(num_classes=4), epochs=0, **shared).fit(X)
    trained = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1))
    own = KNNProbe(encoder=nn.Sequential(trained, nn.Flatten()).train(), n_neighbors=3).fit(X, y)
    linear = LinearProbe(encoder=simclr).fit(X, y)
    return X, [simclr.transform, byol.transform, own.predict_proba, linear.predict_proba]


def modules():
    """Return modules of a user's own, which no estimator knows."""
    torch.manual_seed(0)
    return [
        nn.Sequential(nn.Linear(12, 7), nn.ReLU(), nn.Linear(7, 3)).train(),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval(),
        nn.TransformerEncoderLayer(12, 2, 16, batch_first=True).eval(),
    ]


def threads(seconds: float) -> dict[str, int]:
    """Call four estimators from eight threads, with other modules between them, and compare every result."""
    X, calls = estimators()
    parts = [X[i : i + 12] for i in (0, 12, 24, 36)]
    expected = [[call(part) for part in parts] for call in calls]
    others = modules()
    inputs = [torch.randn(5, 12), torch.randn(2, 3, 9, 9), torch.randn(2, 4, 12)]
    outputs = [module(given).detach() for module, given in zip(others, inputs, strict=True)]
    torch_as_it_was = nn.Module.__call__, nn.Module.__getattr__, torch.get_num_threads(), torch.get_rng_state()
    done: Counter[str] = Counter()
    errors: list[BaseException] = []
    end = time.monotonic() + seconds

    def work(seed: int) -> None:
        draw = np.random.default_rng(seed)
        try:
            while time.monotonic() < end and not errors:
                i, j = draw.integers(len(calls)), draw.integers(len(parts))
                np.testing.assert_allclose(calls[i](parts[j]), expected[i][j], rtol=1e-4, atol=1e-5)
                done["transforms"] += 1
                i = draw.integers(len(others))
                torch.testing.assert_close(others[i](inputs[i]).detach(), outputs[i])
                done["modules"] += 1
        except BaseException as error:
            errors.append(error)

    running = [threading.Thread(target=work, args=(seed,)) for seed in range(THREADS)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if errors:
        raise errors[0]
    call, get, n_threads, state = torch_as_it_was
    assert nn.Module.__call__ is call
    assert nn.Module.__getattr__ is get
    assert torch.get_num_threads() == n_threads
    assert torch.equal(torch.get_rng_state(), state)
    return dict(done)


SOAKS = {"threads": threads}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("soak", choices=SOAKS)
    parser.add_argument("--minutes", type=float, default=60)
    given = parser.parse_args()
    print(SOAKS[given.soak](60 * given.minutes))
