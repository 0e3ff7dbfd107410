"""Fixtures and helpers of the tests: quick estimators, small images and features."""

import multiprocessing
import warnings

import numpy as np
import pytest
from PIL import Image

with warnings.catch_warnings():  # skorch imports torch_geometric where that is installed, which warns
    warnings.simplefilter("ignore")
    import skorch  # noqa: F401

import skssl
from skssl.backbones import ViT
from skssl.datasets import make_shapes
from skssl.images import image_files

# The methods, with parameters that make them train fast. A new method needs an entry here.
QUICK = {
    skssl.SimCLR: {},
    skssl.SimSiam: {"proj_dim": 16, "pred_dim": 8},
    skssl.SimSiamGSG: {"proj_dim": 16, "pred_dim": 8},
    skssl.BYOL: {"hidden_dim": 16, "proj_dim": 8, "pred_dim": 16},
    skssl.BYOLGSG: {"proj_dim": 16, "pred_dim": 8, "pairing": "shared"},
    skssl.Jigsaw: {"tile_dim": 8, "n_permutations": 6},
    skssl.RelativePatch: {"hidden_dim": 16},
    skssl.Colorization: {"hidden_dim": 8, "stride": 2},
    skssl.ContextEncoder: {"hidden_dim": 8},
    skssl.DeepCluster: {"n_clusters": 6, "n_components": 8},
    skssl.DeepClusterV2: {"n_prototypes": 6, "hidden_dim": 16, "proj_dim": 8},
    skssl.RotNet: {},
    skssl.SupCon: {},
    skssl.InstDisc: {"n_negatives": 16},
    skssl.RotationDecoupling: {"n_negatives": 16},
    skssl.PIRL: {"n_negatives": 16},
    skssl.MoCo: {"bn_splits": 2},
    skssl.LeOCLR: {"bn_splits": 2},
    skssl.DenseCL: {"bn_splits": 2},
    skssl.PCL: {"bn_splits": 2, "n_clusters": (4, 8)},
    skssl.SwAV: {
        "n_prototypes": 6,
        "hidden_dim": 16,
        "proj_dim": 8,
        "freeze_prototypes": 0,
        "queue_length": 24,
        "queue_start": 0,
    },
    skssl.BarlowTwins: {"proj_dim": 16},
    skssl.DirectPred: {"hidden_dim": 16, "proj_dim": 8},
    skssl.DINO: {"hidden_dim": 16, "proj_dim": 8, "n_prototypes": 12, "freeze_last_layer": 0},
    skssl.VICReg: {"proj_dim": 16},
    skssl.VICRegL: {"proj_dim": 16, "local_dim": 8},
    skssl.MAE: {"backbone": ViT("micro"), "lr": 1e-3},
    skssl.SimMIM: {"backbone": ViT("micro"), "lr": 1e-3},
    skssl.IBOT: {
        "backbone": ViT("micro"),
        "hidden_dim": 16,
        "proj_dim": 8,
        "n_prototypes": 12,
        "head_norm": True,
        "freeze_last_layer": 0,
        "koleo": 0.1,
        "lr": 1e-3,
    },
    skssl.IJEPA: {"backbone": ViT("micro"), "lr": 1e-3},
    skssl.DCL: {"sigma": 0.5},
    skssl.NNCLR: {"queue_size": 24, "hidden_dim": 16, "proj_dim": 8, "pred_dim": 16},
    skssl.MoCoV3: {"hidden_dim": 16, "proj_dim": 8},
    skssl.FastSiam: {"proj_dim": 16, "pred_dim": 8, "n_views": 3},
    skssl.TiCo: {"hidden_dim": 16, "proj_dim": 8},
    skssl.WMSE: {"hidden_dim": 16, "proj_dim": 4, "whitening_size": 8},
    skssl.MMCR: {"hidden_dim": 16, "proj_dim": 8},
    skssl.ReSSL: {"hidden_dim": 16, "proj_dim": 8, "bn_splits": 2},
    skssl.LeJEPA: {"hidden_dim": 16, "proj_dim": 4, "n_directions": 8, "n_views": 3},
    skssl.SpotArtifacts: {"pretrain_epochs": 0, "width": 4},
    skssl.MSN: {"hidden_dim": 16, "proj_dim": 8, "n_prototypes": 12},
}

# Methods that train on clips, which the tests of all methods do not make. See tests/methods/test_clip_methods.py.
CLIP_METHODS = {
    skssl.ShuffleAndLearn: {"hidden_dim": 8},
    skssl.AudioVisual: {"proj_dim": 8, "window": 64},
}


def quick(method, **params):
    """Make an estimator of a method that trains in a fraction of a second."""
    return method(
        **{
            "backbone": "convnet",
            "epochs": 1,
            "batch_size": 16,
            "random_state": 0,
            **{**QUICK, **CLIP_METHODS}[method],
            **params,
        }
    )


def width(method):
    """Return the width of the features of a method's encoder in the tests: 96 for vision transformers, else 128."""
    return 96 if isinstance(QUICK[method].get("backbone"), ViT) else 128


def features(n=400, d=12, n_classes=3, seed=0):
    """Make badly conditioned features, whose variances span four decades and whose mean is far from zero."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n)
    X = rng.normal(size=(n_classes, d))[y] + rng.normal(size=(n, d))
    X = X @ np.diag(np.logspace(0, -2, d)) @ np.linalg.qr(rng.normal(size=(d, d)))[0] + 3
    return X.astype(np.float32), y


@pytest.fixture(params=QUICK, ids=lambda method: method.__name__)
def method(request):
    """Each method."""
    return request.param


@pytest.fixture(scope="session")
def X():
    """40 colour images of 16x16 pixels, read-only."""
    images, _ = make_shapes(40, image_size=16, random_state=0)
    images.setflags(write=False)
    return images


@pytest.fixture(scope="session")
def y():
    """The classes of X."""
    return make_shapes(40, image_size=16, random_state=0)[1]


@pytest.fixture
def png_files(X, tmp_path):
    """The images of `X` as PNG files."""
    for i, image in enumerate(X):
        Image.fromarray(image).save(tmp_path / f"{i:02d}.png")
    return sorted(map(str, tmp_path.glob("*.png")))


@pytest.fixture
def decoded_names(monkeypatch):
    """The names of the decoded files."""
    names, decode = [], image_files.decode_image
    monkeypatch.setattr(
        image_files, "decode_image", lambda file, name, *args: names.append(name) or decode(file, name, *args)
    )
    return names


@pytest.fixture(scope="module")
def processes():
    """Return a context whose processes start quickly, because their parent has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["conftest", "skssl.training.checkpoints", "joblib"])
    return context
