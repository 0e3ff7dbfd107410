"""Training against a literal version that makes views, pairs and steps one by one."""

import copy

import numpy as np
import pytest
import torch
from conftest import quick
from references import views_one_by_one
from skorch.callbacks import Callback

import skssl
from skssl.augment.normalization import IMAGENET_STD
from skssl.images import as_images
from skssl.training.schedules import schedule_factor


def nt_xent_pair_by_pair(z, temperature):
    """Compute SimCLR's loss from one pair at a time."""
    z = torch.nn.functional.normalize(z, dim=1)
    n, losses = len(z) // 2, []
    for i in range(2 * n):
        others = [z[i] @ z[j] / temperature for j in range(2 * n) if j != i]
        losses.append(torch.logsumexp(torch.stack(others), 0) - z[i] @ z[(i + n) % (2 * n)] / temperature)
    return torch.stack(losses).mean()


class Losses(Callback):
    """Records the loss of every step."""

    def initialize(self):
        self.seen = []
        return self

    def on_batch_end(self, net, loss, **kwargs):
        self.seen.append(loss.item())


# In bfloat16 the rate is lower, since rounding grows from step to step as the rate is high.
@pytest.mark.parametrize(("precision", "lr", "tolerance"), [("float32", 0.01, 1e-4), ("bfloat16", 0.001, 1e-2)])
def test_views_losses_and_steps_equal_those_made_one_by_one(X, precision, lr, tolerance):
    settings = {"lr": lr, "momentum": 0.9, "weight_decay": 1e-3, "schedule": "cosine", "warmup_epochs": 1}
    method = quick(skssl.SimCLR, epochs=3, precision=precision, **settings)
    net = method.set_params(callbacks=[losses := Losses()]).fit(X).net_
    start = quick(skssl.SimCLR, epochs=0, precision="float32").fit(X).net_
    slow = copy.deepcopy(start.module_).double().train()
    moved = [torch.zeros_like(p) for p in slow.parameters()]
    expected = []
    loader = net.get_iterator((as_images(X), None), training=True)
    for epoch in range(3):
        draws = torch.Generator().manual_seed(net.generators(epoch)[1].initial_seed())  # not the loader's own
        for step, batch in enumerate(loader.epoch(*net.generators(epoch))):
            augment, n = net.augmentations[0], len(batch.index)
            drawn = augment.draw(2 * n, tuple(batch.images.shape[2:]), draws)
            views = views_one_by_one(augment, torch.from_numpy(X[batch.index.numpy()]).movedim(3, 1), drawn).chunk(2)
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
    features = slow.encoder.eval()(net.augmentations[0].eval_transform(as_images(X).read(torch.arange(40))).double())
    cosine = torch.nn.functional.cosine_similarity(torch.from_numpy(method.transform(X)).double(), features)
    assert cosine.min() > (0.99999 if precision == "float32" else 0.999)
