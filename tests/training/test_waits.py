"""No training step makes the host wait for the device. Operations that would wait are detected on a CPU, too."""

import itertools
import time
import traceback
from unittest import mock

import numpy as np
import pytest
import torch
from conftest import quick
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import skssl
from skssl.augment.views import make_views
from skssl.callbacks import GradientSNR, LinearMonitor
from skssl.methods import directpred
from skssl.nn import batchnorm
from skssl.training.loader import ImageLoader

# Operations that read the device's memory, whose output has a size that the host must know, or that run on the host.
WAITING = {"_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select", "_unique", "_unique2", "bincount"}
WAITING |= {"unique_dim", "unique_consecutive", "repeat_interleave", "_linalg_eigh", "_linalg_svd", "linalg_eig"}
WAITING |= {"linalg_lstsq", "_linalg_check_errors"}
# Methods by which Python reads a tensor; on a CPU they are no operation. `numpy` is refused elsewhere.
READING = {"item", "tolist", "cpu", "__bool__", "__int__", "__float__", "__index__", "__contains__"}
# Functions that make a tensor of Python numbers, which is copied to the device.
MAKING = {"tensor", "as_tensor", "scalar_tensor", "new_tensor", "asarray"}


class Waits(TorchDispatchMode):
    """Records the operations that wait, while it is watching."""

    def __init__(self):
        super().__init__()
        self.watching, self.seen, self.read = False, [], _Reads(self)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, indices = func._schema.name.removeprefix("aten::"), ()
        if name in ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"):
            indices = [index for index in args[1] if index is not None]
        if name.removesuffix("_") in WAITING or any(i.dtype in (torch.bool, torch.uint8) for i in indices):
            self.note(name)
        return func(*args, **(kwargs or {}))

    def note(self, name):
        if self.watching:
            stack = traceback.extract_stack()
            place = next((frame for frame in reversed(stack) if "/skssl/" in frame.filename), stack[-3])
            self.seen.append(f"{name} in {place.filename}:{place.lineno}: {place.line}")


class _Reads(TorchFunctionMode):
    """Records the calls by which Python reads a tensor."""

    def __init__(self, waits):
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        to_host = name == "to" and "cpu" in [x for x in args if isinstance(x, str)] and not kwargs.get("non_blocking")
        if name in READING | MAKING or to_host:
            self.waits.note(name)
        return func(*args, **kwargs)


@pytest.fixture
def seen(monkeypatch):
    """Return what waits from the first step of the second epoch, when constants are cached, to the last but one.

    The losses are read at the end of an epoch.
    """
    epoch, waits, epochs = ImageLoader.epoch, Waits(), itertools.count()

    def watching(self, *args, **kwargs):
        first = next(epochs) == 0
        for step, batch in enumerate(epoch(self, *args, **kwargs), 1):
            waits.watching = not first and step < len(self)
            yield batch

    monkeypatch.setattr(ImageLoader, "epoch", watching)
    # As on a GPU: views and groups all at once, DirectPred without eigenvectors.
    monkeypatch.setattr(skssl.Augmentation, "_make_views", make_views)
    monkeypatch.setattr(batchnorm, "_at_once", lambda images: True)
    monkeypatch.setattr(batchnorm.SplitBatchNorm, "BY_MOMENTS", ("cpu",))
    monkeypatch.setattr(directpred, "_by_eigenvectors", directpred._by_products)
    with waits, waits.read:
        yield waits.seen


def assert_no_waits(seen, estimator, X, y=None):
    """Train for two epochs of four steps, with a progress bar that shows the loss in each step."""
    watched = {"epochs": 2, "batch_size": 10, "verbose": 1, "device": "cpu"}
    watched["callbacks"] = [GradientSNR(), LinearMonitor(np.arange(40) % 2)]
    with mock.patch.object(time, "monotonic", itertools.count(1.0).__next__):
        estimator.set_params(**watched).fit(X, y)
    assert not seen, "\n".join(sorted(set(seen)))


def test_no_step_waits_for_the_device(method, X, y, seen):
    assert_no_waits(seen, quick(method), X, y)


def test_no_task_waits_for_the_device(X, y, seen):
    tasks = ["rotation", "jigsaw", "relative_patch", "inpainting", "colorization"]
    assert_no_waits(seen, quick(skssl.SimCLR, aux=tasks), X, y)


@pytest.mark.parametrize(
    ("method", "params"),
    [
        (skssl.SwAV, {"augment": skssl.MultiCrop(n_local=2), "queue_length": 0}),
        (skssl.DINO, {"augment": skssl.MultiCrop(n_local=2)}),
        (skssl.IBOT, {"augment": skssl.MultiCrop(n_local=2), "centering": "sinkhorn"}),
        (skssl.PCL, {"instance_epochs": 0}),
        (skssl.MoCo, {"symmetric": True, "optimizer": "lars"}),
        (skssl.SimCLR, {"optimizer": "adamw", "false_negatives": "remove"}),
        (skssl.DirectPred, {"direct": "copy"}),
        (skssl.ContextEncoder, {"adversarial_weight": 0.1}),
    ],
)
def test_no_variant_waits_for_the_device(method, params, X, y, seen):
    assert_no_waits(seen, quick(method, **params), X, y)


def test_waits_are_detected(X, seen):
    class Waiting(skssl.SimCLR):
        def losses(self, net, batch):
            found = super().losses(net, batch)
            first = batch.views[0]
            first[first > 0], first.nonzero(), torch.linalg.eigh(torch.eye(2)), float(first.sum()), first.cpu()
            torch.tensor([1.0])
            return found

    with pytest.raises(AssertionError) as caught:
        assert_no_waits(seen, Waiting(backbone="convnet", random_state=0), X)
    for name in ("index", "nonzero", "_linalg_eigh", "_local_scalar_dense", "cpu", "tensor"):
        assert f"{name} in" in str(caught.value)
