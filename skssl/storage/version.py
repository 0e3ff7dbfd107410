"""The version of skssl, and those of the packages that it uses."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys

__version__ = "0.1.0"

REQUIRED = (
    "torch",
    "torchvision",
    "scikit-learn",
    "skorch",
    "numpy",
    "scipy",
    "pandas",
    "joblib",
    "safetensors",
    "pillow",
)
OPTIONAL = ("timm", "matplotlib", "pyarrow", "onnx", "pycocotools", "dask", "tensorboard")


def show_versions() -> None:
    """Print the versions of skssl and its dependencies, the devices and the threads, for a report of a problem.

    Examples
    --------
    >>> import skssl
    >>> skssl.show_versions()
    System:
        python: 3...
       machine: ...
    <BLANKLINE>
    Packages:
    ...
    <BLANKLINE>
    Computation:
    ...
    """
    import joblib
    import torch

    packages = {"skssl": __version__}
    for name in (*REQUIRED, *OPTIONAL):
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if name in REQUIRED:
                packages[name] = "not installed"
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    environment = ("OMP_NUM_THREADS", "GOMP_SPINCOUNT", "CUDA_VISIBLE_DEVICES", "SKSSL_DATA", "SKSSL_CACHE")
    computation = {
        "CUDA": str(torch.version.cuda or "not in this build of torch"),
        "CUDA devices": ", ".join(devices) or "none",
        "MPS": "available" if torch.backends.mps.is_available() else "not available",
        "cores": str(joblib.cpu_count()),
        "threads of torch": str(torch.get_num_threads()),
        **{name: os.environ[name] for name in environment if name in os.environ},
    }
    system = {"python": sys.version.replace("\n", " "), "machine": platform.platform()}
    blocks = {"System": system, "Packages": packages, "Computation": computation}
    width = max(len(name) for block in blocks.values() for name in block)
    texts = [
        "\n".join([f"{title}:", *(f"{name:>{width + 4}}: {value}" for name, value in block.items())])
        for title, block in blocks.items()
    ]
    print("\n\n".join(texts))
