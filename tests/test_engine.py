"""What the engine offers to those who write methods: labels, hooks, passes over views of several sizes, queues."""

from collections import deque
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import skssl
from skssl.augment import MultiCrop
from skssl.base import SSLTransformer
from skssl.engine import join
from skssl.nn import MLP, Queue


@dataclass(kw_only=True, eq=False, repr=False)
class Probing(SSLTransformer):
    """Records what its hooks are given."""

    labelled: bool = True
    multi_crop: ClassVar[bool] = True
    paper: ClassVar[dict] = {**skssl.SimCLR.paper, "augment": "none"}
    seen: ClassVar[list] = []

    @property
    def uses_labels(self):
        return self.labelled

    def build(self, net, dim, n_samples):
        net.projector = MLP((dim, 8))
        net.frozen = torch.nn.Linear(8, 8)

    def losses(self, net, batch):
        target = None if batch.target is None else batch.target.tolist()
        self.seen.append(("losses", batch.index.tolist(), target, [tuple(view.shape[1:]) for view in batch.views]))
        z = torch.stack(net.project(batch.views))
        return {"square": net.frozen(z).square().mean()}

    def before_epoch(self, net, epoch, encode):
        self.seen.append(("before_epoch", epoch, encode(net.encoder)))

    def after_backward(self, net):
        assert all(p.grad is not None for p in net.parameters())
        net.frozen.zero_grad()


@pytest.fixture
def seen():
    Probing.seen.clear()
    return Probing.seen


def probing(**params):
    return Probing(backbone="convnet", epochs=2, batch_size=16, random_state=0, **params)


def test_labels_reach_the_batch_as_numbers_by_image(seen, X):
    y = np.array(["dog", "cat", "emu", "cat"] * 10, dtype=object)
    y[5] = -1
    probing().fit(X, y)
    batches = [entry for entry in seen if entry[0] == "losses"]
    assert len(batches) == 4
    for _, index, target, _ in batches:
        assert target == [-1 if i == 5 else ["cat", "dog", "emu"].index(y[i]) for i in index]


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "requires y to be passed, but the target y is None"),
        (np.zeros(39), r"inconsistent numbers of samples: \[40, 39\]"),
        (np.zeros((40, 2)), "1d array"),
    ],
)
def test_labels_that_are_missing_or_misshapen_are_refused(y, message, X):
    with pytest.raises(ValueError, match=message):
        probing().fit(X, y)


def test_who_does_not_use_labels_does_not_read_them(seen, X):
    probing(labelled=False).fit(X, y="anything")
    assert {target for kind, _, target, *_ in (e for e in seen if e[0] == "losses")} == {None}


def test_before_epoch_can_encode_everything_as_transform_does(seen, X):
    estimator = probing().partial_fit(X, np.arange(40))
    trained = estimator.transform(X)
    estimator.partial_fit(X, np.arange(40))
    epochs = [entry for entry in seen if entry[0] == "before_epoch"]
    assert [epoch for _, epoch, _ in epochs] == [0, 1]
    np.testing.assert_allclose(epochs[1][2].numpy(), trained, rtol=1e-5, atol=1e-6)
    assert estimator.net_.module_.encoder.training, "training goes on in training mode"


def test_after_backward_can_cancel_a_gradient(X):
    estimator = probing(weight_decay=0.0)
    start = estimator._make_trainer(skssl.images.as_images(X)).module_.frozen.weight.clone()
    net = estimator.fit(X, np.arange(40)).net_.module_
    assert torch.equal(net.frozen.weight, start)


def test_a_method_with_a_row_an_image_refuses_other_images(X):
    @dataclass(kw_only=True, eq=False, repr=False)
    class Bank(Probing):
        per_image: ClassVar[bool] = True

    estimator = Bank(backbone="convnet", batch_size=16, labelled=False).partial_fit(X)
    with pytest.raises(ValueError, match=r"Bank keeps something .* needs the 40 images .* Got 30"):
        estimator.partial_fit(X[:30])


def test_project_runs_the_encoder_once_a_resolution_and_the_head_once(X):
    net = probing()._make_trainer(skssl.images.as_images(X)).module_
    views = [torch.randn(4, 3, side, side) for side in (16, 16, 8, 8, 8)]
    calls = []
    hook = net.encoder.register_forward_hook(lambda module, args, out: calls.append(tuple(args[0].shape)))
    found = net.project(views)
    hook.remove()
    assert calls == [(8, 3, 16, 16), (12, 3, 8, 8)]
    by_hand = [net.encoder(torch.cat(views[:2])), net.encoder(torch.cat(views[2:]))]
    torch.testing.assert_close(torch.cat(found), net.projector(torch.cat(by_hand)))
    assert [len(z) for z in found] == [4] * 5


def test_views_too_small_for_bfloat16_are_encoded_in_float32(X):
    net = probing()._make_trainer(skssl.images.as_images(X)).module_
    dtypes = []
    net.encoder.register_forward_hook(lambda module, args, out: dtypes.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        found = net.project([torch.randn(4, 3, side, side) for side in (16, 16, 7, 7)])
    assert dtypes == [torch.bfloat16, torch.float32]
    assert all(z.isfinite().all() for z in found)


def test_views_that_lie_side_by_side_are_joined_without_a_copy():
    whole = torch.randn(6, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    parts = whole.chunk(3)
    assert join(parts).data_ptr() == whole.data_ptr()
    for views in (parts, parts[1:], parts[::-1], parts[::2], [parts[0], parts[0]], [torch.ones(2, 3, 4, 4)] * 2):
        assert torch.equal(join(views), torch.cat(list(views)))
        assert join(views).is_contiguous(memory_format=torch.channels_last) or views[0] is not parts[0]
    grad = [torch.randn(2, 3, 4, 4, requires_grad=True) for _ in range(2)]
    join(grad).sum().backward()
    assert all(torch.equal(view.grad, torch.ones(2, 3, 4, 4)) for view in grad)


def test_multi_crop_makes_views_of_two_sizes(seen, X):
    crops = MultiCrop(n_local=3, augment="byol", global_scale=(0.3, 1.0), local_size=8)
    estimator = probing(augment=crops).fit(X, np.arange(40))
    assert seen[1][3] == [(3, 16, 16)] * 2 + [(3, 8, 8)] * 3
    made = estimator.net_.augmentations
    assert [view.solarize for view in made] == [0.0, 0.2, 0.0, 0.2, 0.0], "the pair of BYOL's takes turns"
    assert [view.crop_scale for view in made] == [(0.3, 1.0)] * 2 + [(0.05, 0.14)] * 3
    assert estimator.transform(X).shape == (40, 128)


def test_multi_crop_is_refused_where_views_are_compared_one_to_one(X):
    with pytest.raises(TypeError, match="SimCLR compares views of one size"):
        skssl.SimCLR(backbone="convnet", augment=MultiCrop()).fit(X)
    with pytest.raises(ValueError, match=r"'n_global' parameter of MultiCrop must be an int in the range \[2, 100\]"):
        probing(augment=MultiCrop(n_global=1)).fit(X, np.arange(40))


def test_queue_keeps_the_latest_in_the_order_of_a_ring():
    torch.manual_seed(0)
    queue, literal = Queue(7, 2), deque(maxlen=7)
    assert torch.allclose(queue.items.norm(dim=1), torch.ones(7))
    for n in (3, 3, 5, 9, 1):
        batch = F.normalize(torch.randn(n, 2), dim=1)
        queue.push(batch)
        literal.extend(batch)
    found = torch.cat([queue.items[queue.place :], queue.items[: queue.place]])  # from the oldest on
    assert torch.equal(found, torch.stack(list(literal)))
