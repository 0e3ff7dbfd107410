"""What several test files share: the estimators in a quick setting, and tiny images."""

import pytest

import skssl
from skssl.datasets import make_shapes

# Adding a method is one entry here: its class and what makes it quick.
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
    skssl.RotNet: {},
}


def quick(method, **params):
    """Make an estimator of a method that trains in a blink."""
    return method(
        **{"backbone": "convnet", "epochs": 1, "batch_size": 16, "random_state": 0, **QUICK[method], **params}
    )


@pytest.fixture(params=QUICK, ids=lambda method: method.__name__)
def method(request):
    """Each method in its turn."""
    return request.param


@pytest.fixture(scope="session")
def X():
    """40 colour images of 16x16 pixels, read-only."""
    images, _ = make_shapes(40, image_size=16, random_state=0)
    images.setflags(write=False)
    return images


@pytest.fixture(scope="session")
def y():
    """Their classes."""
    return make_shapes(40, image_size=16, random_state=0)[1]
