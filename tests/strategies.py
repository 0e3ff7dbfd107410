"""Hypothesis strategies for damaged and forged files, shared by the tests and ``tests/fuzz.py``.

Each of `TARGETS` is a function of an empty folder. It returns a strategy for cases and a check, which returns the
outcome of a case.
"""

import contextlib
import copy
import io
import json
import os
import resource
import struct
import sys
import time
import warnings

import numpy as np
import safetensors.torch
import torch
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from skorch.callbacks import Callback

import skssl
from skssl.datasets import make_shapes
from skssl.storage.files import checksum
from skssl.training.checkpoints import LOCK, STATE

SECONDS, BYTES = 10.0, 2**29  # limits of a case: time and additional memory
NUMBERS = [0, 1, -1, 2, 7, 10**6, 10**9, 10**12, 2**31, 2**63 - 1, 2**63, 10**400, 0.5, -0.0, 1e-320, 1e308]
WORDS = ["", "SimCLR", "os.system", "../../etc/passwd", "!tuple", "!float", "object", "dict", "cuda:99", "bfloat16"]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(NUMBERS),
    st.floats(),
    st.sampled_from([*WORDS, *skssl.__all__]),
    st.text(max_size=8),
)
VALUES = st.recursive(
    SCALARS, lambda of: st.lists(of, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=4), of)
)


class Saved:
    """A saved estimator, split into its parts."""

    def __init__(self, content):
        (length,) = struct.unpack("<Q", content[:8])
        self.outer = json.loads(content[8 : 8 + length])
        self.inner = json.loads(self.outer["__metadata__"]["skssl"])
        self.content, self.data = content, content[8 + length :]
        self.tensors = safetensors.torch.load(content)


def places(value, path=()):
    """Yield the path of each part of a JSON value: a tuple of keys."""
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def changed(value, path, change, new):
    """Return a JSON value in which the part at a path is replaced, removed or followed by another."""
    value = copy.deepcopy(value)
    if not path:
        return new
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    if change == "remove":
        del inner[path[-1]]
    elif change == "add" and isinstance(inner, dict):
        inner[str(new)[:8]] = new
    elif change == "add":
        inner.insert(path[-1], new)
    else:
        inner[path[-1]] = new
    return value


CHANGES = st.sampled_from(["replace", "replace", "remove", "add"])


@st.composite
def damaged(draw, saved):
    """Draw the bytes of a damaged file."""
    content = saved.content
    kind = draw(st.sampled_from(["cut", "flip", "append", "noise", "outer"]))
    if kind == "cut":
        return content[: draw(st.integers(0, len(content) - 1) | st.integers(0, 200))]
    if kind == "append":
        return content + draw(st.binary(min_size=1, max_size=64))
    if kind == "noise":
        return draw(st.binary(max_size=64)) + draw(st.sampled_from([b"", content[:8], content[8:], content[:3000]]))
    if kind == "flip":
        flipped = bytearray(content)
        spots = st.integers(0, len(content) - 1) | st.integers(0, min(len(content), 4000) - 1)
        for spot in draw(st.lists(spots, min_size=1, max_size=4, unique=True)):
            flipped[spot] ^= draw(st.integers(1, 255))
        return bytes(flipped)
    path = draw(st.sampled_from(list(places(saved.outer))))
    outer = changed(saved.outer, path, draw(CHANGES), draw(VALUES))
    text = json.dumps(outer).encode()
    return struct.pack("<Q", len(text)) + text + saved.data


@st.composite
def forged(draw, saved):
    """Draw the bytes of a malicious file in the right format, most with a valid checksum."""
    tensors, inner = dict(saved.tensors), saved.inner
    for _ in range(draw(st.integers(0, 2))):
        path = draw(st.sampled_from(list(places(inner))))
        inner = changed(inner, path, draw(CHANGES), draw(VALUES))
        if not (isinstance(inner, dict) and isinstance(inner.get("header"), dict)):
            break
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from(sorted(tensors))) if tensors else "net.none"
        kind = draw(st.sampled_from(["drop", "rename", "reshape", "retype", "add", "empty"]))
        old = tensors.pop(name, torch.zeros(1))
        if kind == "rename":
            tensors[draw(st.sampled_from(["net.", "optimizer.0.", "parameter.0", name + "x", "optimizer.x.y"]))] = old
        elif kind == "reshape":
            tensors[name] = old.reshape(draw(st.sampled_from([(-1,), (1, -1), (*old.shape, 1)])))
        elif kind == "retype":
            tensors[name] = old.to(draw(st.sampled_from([torch.float64, torch.bfloat16, torch.int64, torch.bool])))
        elif kind == "add":
            tensors |= {name: old, draw(st.text(max_size=5)): old.clone()}
        elif kind == "empty":
            tensors[name] = old.new_empty(draw(st.sampled_from([(0,), (0, 10**12), (2, 0, 3)])))
    if isinstance(inner, dict) and draw(st.booleans() | st.just(True)):
        with contextlib.suppress(ValueError):  # NaN cannot be hashed
            inner = {**inner, "sha256": checksum(inner.get("header"), tensors)}
    text = json.dumps(inner)
    if draw(st.integers(0, 20)) == 0:
        deep = draw(st.integers(1, 10**5))
        text = text.replace("null", "[" * deep + "]" * draw(st.sampled_from([0, deep])), 1)
    return safetensors.torch.save(tensors, {"skssl": text})


def largest():
    """Return the peak memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def loading(folder):
    """Check that `skssl.load` returns an estimator that transforms or predicts, or an error that names the file."""
    X, y = make_shapes(8, image_size=16, random_state=0)
    small = {"backbone": "convnet", "epochs": 1, "batch_size": 4, "precision": "float32", "random_state": 0}
    path = os.fspath(folder / "fuzzed.safetensors")
    saved = []
    encoder = skssl.SimCLR(proj_dim=4, hidden_dim=4, aux="rotation", **small)
    for estimator in (
        skssl.FineTuner(clone(encoder).fit(X), layer="projector1", epochs=1, batch_size=4, random_state=0),
        skssl.KNNProbe(encoder=encoder, n_neighbors=2, layer="conv2"),
        skssl.MLPProbe(encoder=FrozenEstimator(clone(encoder).fit(X)), hidden_layer_sizes=(4,), epochs=1),
        skssl.LinearProbe(C=[0.1, 1.0], validation_fraction=0.5, class_weight={"disc": 2.0, "square": 1}),
        skssl.SimCLR(proj_dim=4, hidden_dim=4, momentum=0.0, aux=skssl.Rotation(angles=(0, 180)), **small),
        skssl.MoCo(proj_dim=4, queue_size=8, bn_splits=1, optimizer="adamw", augment=skssl.Augmentation(), **small),
        skssl.SwAV(
            proj_dim=4, hidden_dim=4, n_prototypes=4, augment=skssl.MultiCrop(n_local=1), aux=["jigsaw"], **small
        ),
    ):
        if isinstance(estimator, skssl.LinearProbe):
            estimator.fit(np.arange(24.0).reshape(8, 3), np.array(["disc", "square"] * 4)).save(path)
        else:
            estimator.fit(X, y).save(path)
        with open(path, "rb") as file:
            saved.append(Saved(file.read()))
    cases = st.sampled_from(saved).flatmap(lambda one: damaged(one) | forged(one))

    def check(content):
        with open(path, "wb") as file:
            file.write(content)
        before, started = largest(), time.perf_counter()
        try:
            estimator = skssl.load(path)
        except ValueError as error:
            message = str(error)
            assert path in message, f"does not name the file: {message}"
            assert len(message) < 1000
            assert "\n" not in message
            outcome = "refused"
        else:
            outcome = "loaded"
            use(estimator)
        assert time.perf_counter() - started < SECONDS
        assert largest() - before < BYTES
        assert os.listdir(folder) == [os.path.basename(path)]
        return outcome

    return cases, check


def use(estimator):
    """Encode or classify two images, or two rows of features."""
    if hasattr(estimator, "transform"):
        shape, scale = estimator._shape, estimator._scale
    else:
        encoder = getattr(estimator, "encoder_", None)
        source = encoder.read if encoder else getattr(estimator, "_reader", None)
        shape, scale = (source.reading["shape"], source.reading["scale"]) if source else (None, None)
    if shape is None:
        queries = np.zeros((2, estimator.n_features_in_))
    elif max(shape) <= 64 and shape[0] == 3:
        queries = np.zeros((2, *shape[1:], 3), np.uint8 if scale is None else np.float32)
    else:
        return
    if hasattr(estimator, "transform"):
        features = estimator.transform(queries)
        assert features.shape == (2, 128)
        assert features.dtype == np.float32
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names of features
        try:
            probabilities = estimator.predict_proba(queries)
        except ValueError as error:  # a parameter of the prediction, such as n_neighbors
            assert 20 < len(str(error)) < 1000  # noqa: PT017 - no test expects it
        else:
            assert probabilities.shape == (2, len(estimator.classes_))


def resuming(folder):
    """Check that `fit` resumes from a checkpoint, or raises an error of one line; it leaves no other files."""
    X, _ = make_shapes(8, image_size=16, random_state=0)
    small = {"backbone": "convnet", "epochs": 2, "batch_size": 4, "precision": "float32", "random_state": 0}
    state = folder / STATE
    state.unlink(missing_ok=True)
    estimators, saved = [], []
    for estimator in (
        skssl.SimCLR(proj_dim=4, hidden_dim=4, aux=skssl.Rotation(angles=(0, 180)), **small),
        skssl.MoCo(proj_dim=4, queue_size=8, bn_splits=1, optimizer="adamw", **small),
        skssl.DeepCluster(n_clusters=2, optimizer="lars", **small),
    ):
        estimator.set_params(checkpoint=folder, checkpoint_every="1 us")
        with contextlib.suppress(Interruption):
            clone(estimator).set_params(callbacks=[Interrupts()]).fit(X)
        with open(state, "rb") as file:
            saved.append(Saved(file.read()))
        os.remove(state)
        estimators.append(estimator.set_params(checkpoint_every="1 h"))
    cases = st.sampled_from(range(len(saved))).flatmap(
        lambda i: st.tuples(st.just(i), damaged(saved[i]) | forged(saved[i]))
    )

    def check(case):
        number, content = case
        with open(state, "wb") as file:
            file.write(content)
        before, started = largest(), time.perf_counter()
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                estimator = clone(estimators[number]).fit(X)
        except (ValueError, FloatingPointError) as error:
            message = str(error)
            assert 20 < len(message) < 1000
            assert "\n" not in message
            outcome = "refused"
        else:
            outcome = "resumed"
            assert len(estimator.history_) == 2 or Saved(content).inner["header"]["training"]["finished"]
            assert estimator.transform(X).dtype == np.float32
        assert time.perf_counter() - started < SECONDS
        assert largest() - before < BYTES
        assert set(os.listdir(folder)) <= {STATE, LOCK}
        return outcome

    return cases, check


class Interruption(Exception):
    """Ends a training, as a failing disk would; a KeyboardInterrupt of a callback would stop it early."""


class Interrupts(Callback):
    """Ends a training in the second step of its second epoch, after a save."""

    def on_batch_begin(self, net, training=None, **kwargs):
        if len(net.history) == 2 and self.steps_ == 3:
            raise Interruption
        self.steps_ += 1

    def on_train_begin(self, net, **kwargs):
        self.steps_ = 0


TARGETS = {"load": loading, "checkpoints": resuming}
