"""The fast path from pixels to an optimiser's step against the slow one, which does the same things one by one."""

import copy

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as TF
from conftest import quick
from skorch.callbacks import Callback

import skssl
import skssl.augment
from skssl.augment import IMAGENET_MEAN, IMAGENET_STD
from skssl.images import as_images
from skssl.optim import schedule_factor


@pytest.fixture
def drawn(monkeypatch):
    """Whatever the latest views were drawn with, by the name of the function that was told."""
    seen = {}

    def listen(name):
        original = getattr(skssl.augment, name)

        def listening(*arguments):
            seen[name] = arguments
            seen[f"{name} found"] = original(*arguments)
            return seen[f"{name} found"]

        monkeypatch.setattr(skssl.augment, name, listening)

    for name in ("_filters", "_blends", "_hue_turns", "_graying", "_split"):
        listen(name)
    permute = torch.randperm

    def listening(n, **how):
        seen["order"] = permute(n, **how)
        return seen["order"]

    monkeypatch.setattr(torch, "randperm", listening)
    return seen


def views_one_by_one(images, drawn):
    """SimCLR's two views of each image, image by image and step by step in float64 by torchvision."""
    order, bounds = drawn["order"].tolist(), [*drawn["_split found"], len(drawn["order"])]
    boxes, _, size, flip, *_ = drawn["_filters"]
    (factors, steps, _), (shift, _), (gray, _) = drawn["_blends"], drawn["_hue_turns"], drawn["_graying"]
    views = torch.empty(len(order), 3, *size, dtype=torch.float64)
    for row, place in enumerate(order):
        x = torch.from_numpy(images[place % len(images)]).movedim(2, 0).double() / 255
        x = TF.resized_crop(x, *(int(side[row]) for side in boxes), list(size), antialias=True)
        x = TF.horizontal_flip(x) if flip[row] else x
        hue_at = next(k for k, bound in enumerate(bounds) if row < bound)
        for k in range(4 if hue_at < 4 else 0):
            if k == hue_at:
                x = TF.adjust_hue(x, float(shift[row]))
            if k < 3:
                step = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation)[steps[row, k]]
                x = step(x, float(factors[row, steps[row, k]]))
        x = TF.rgb_to_grayscale(x, 3) if gray[row] else x
        views[place] = TF.normalize(x, list(IMAGENET_MEAN), list(IMAGENET_STD))
    return views.chunk(2)


def nt_xent_pair_by_pair(z, temperature):
    """SimCLR's loss, one similarity after the other."""
    z = torch.nn.functional.normalize(z, dim=1)
    n, losses = len(z) // 2, []
    for i in range(2 * n):
        others = [z[i] @ z[j] / temperature for j in range(2 * n) if j != i]
        losses.append(torch.logsumexp(torch.stack(others), 0) - z[i] @ z[(i + n) % (2 * n)] / temperature)
    return torch.stack(losses).mean()


class Losses(Callback):
    """The loss of every step."""

    def initialize(self):
        self.seen = []
        return self

    def on_batch_end(self, net, loss, **kwargs):
        self.seen.append(loss.item())


# In bfloat16 the rate is lower, since rounding grows from step to step as the rate is high.
@pytest.mark.parametrize(("precision", "lr", "tolerance"), [("float32", 0.02, 1e-4), ("bfloat16", 0.001, 1e-2)])
def test_views_losses_and_steps_are_those_of_the_slow_path(X, drawn, precision, lr, tolerance):
    settings = {"lr": lr, "momentum": 0.9, "weight_decay": 1e-3, "schedule": "cosine", "warmup_epochs": 1}
    method = quick(skssl.SimCLR, epochs=3, precision=precision, **settings)
    net = method.set_params(callbacks=[losses := Losses()]).fit(X).net_
    start = quick(skssl.SimCLR, epochs=0, precision="float32").fit(X).net_
    slow = copy.deepcopy(start.module_).double().train()
    moved = [torch.zeros_like(p) for p in slow.parameters()]
    expected = []
    loader = net.get_iterator((as_images(X), None), training=True)
    for epoch in range(3):
        for step, batch in enumerate(loader.epoch(*net.generators(epoch))):
            views = views_one_by_one(X[batch.index.numpy()], drawn)
            for ours, theirs in zip(batch.views, views, strict=True):
                error = (ours.double() - theirs).abs()
                assert error.mean() < 1e-5
                assert error.max() < 2e-4 / min(IMAGENET_STD)  # a hue of hardly any colour is ill-conditioned
            loss = nt_xent_pair_by_pair(slow.projector(slow.encoder(torch.cat(views))), method.temperature)
            expected.append(loss.item())
            progress = epoch + (step + (epoch < 1)) / len(loader)  # the first step is not one at no rate at all
            rate = method.lr * schedule_factor("cosine", progress, 3, 1)
            for parameter, velocity, gradient in zip(
                slow.parameters(), moved, torch.autograd.grad(loss, [*slow.parameters()]), strict=True
            ):
                velocity.mul_(0.9).add_(gradient + method.weight_decay * parameter.detach())
                parameter.data -= rate * velocity
    np.testing.assert_allclose(losses.seen, expected, rtol=tolerance)
    features = slow.encoder.eval()(net.augmentations[0].still(as_images(X).read(torch.arange(40))).double())
    cosine = torch.nn.functional.cosine_similarity(torch.from_numpy(method.transform(X)).double(), features)
    assert cosine.min() > (0.99999 if precision == "float32" else 0.999)
