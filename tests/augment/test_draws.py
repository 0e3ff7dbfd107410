"""Random draws: their distributions, and that they are independent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from augment_cases import EVERYTHING, NO_STEPS, UNNORMALIZED, gen, smooth_images
from scipy import stats
from torchvision.transforms import RandomResizedCrop

from skssl.augment import Augmentation, preset, sample_crops


@pytest.mark.parametrize(
    ("size", "scale", "ratio"),
    [
        ((32, 32), (0.08, 1.0), (3 / 4, 4 / 3)),
        ((40, 64), (0.2, 1.0), (3 / 4, 4 / 3)),
        ((20, 60), (0.9, 1.0), (0.5, 2)),
    ],
)
def test_crop_boxes_are_distributed_as_in_torchvision(size, scale, ratio):
    n = 3000
    drawn = torch.stack(sample_crops(n, size, scale, ratio, gen()), 1).numpy()
    image = torch.empty(3, *size)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = np.array([RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(n)])
    assert (drawn == drawn.round()).all()
    assert (drawn >= 0).all()
    assert (drawn[:, 0] + drawn[:, 2] <= size[0]).all()
    assert (drawn[:, 1] + drawn[:, 3] <= size[1]).all()
    features = [(b[:, 0], b[:, 1], b[:, 2], b[:, 3], b[:, 2] * b[:, 3], b[:, 3] / b[:, 2]) for b in (drawn, expected)]
    for ours, theirs in zip(*features, strict=True):
        assert stats.ks_2samp(ours, theirs).pvalue > 1e-3


def test_crop_boxes_that_do_not_fit_are_centred():
    for size, expected in (((10, 60), (0, 20, 10, 20)), ((60, 10), (20, 0, 20, 10))):
        boxes = torch.stack(sample_crops(5, size, (1.0, 1.0), (0.5, 2.0), gen()), 1)
        assert boxes.tolist() == [list(expected)] * 5


def test_each_step_hits_independent_images_at_its_probability():
    images = torch.linspace(0, 1, 32).expand(1, 3, 2, 32) * torch.tensor([0.9, 0.5, 0.2]).view(1, 3, 1, 1)
    n, g = 1000, gen()
    batch = images.expand(n, -1, -1, -1)
    for name, p, changed in (
        ("flip", 0.3, lambda v: v[:, 0, 0, 0] > v[:, 0, 0, -1]),
        ("gray", 0.2, lambda v: (v[:, 0] - v[:, 2]).abs().amax((1, 2)) < 1e-6),
        ("jitter", 0.8, lambda v: (v - images).abs().amax((1, 2, 3)) > 1e-6),
        ("blur", 0.4, lambda v: (v - images).abs().amax((1, 2, 3)) > 0),
        ("solarize", 0.6, lambda v: (v - images).abs().amax((1, 2, 3)) > 0.5),
    ):
        extra = {"blur_sigma": (1.0, 2.0)} if name == "blur" else {}
        augmentation = Augmentation(**{**NO_STEPS, **UNNORMALIZED, name: p, **extra})
        hits = torch.stack([changed(augmentation(batch, g)) for _ in range(5)]).float()
        assert abs(hits.mean() - p) < 4 * (p * (1 - p) / (5 * n)) ** 0.5, name
        assert hits.std() > 0
        # The images that are hit are neither the first ones nor the same in each batch.
        assert abs(hits[:, : n // 2].mean() - hits[:, n // 2 :].mean()) < 0.08, name
        assert abs(np.corrcoef(hits[0], hits[1])[0, 1]) < 0.15, name


@pytest.mark.parametrize("n", [1, 2, 5])
def test_probability_holds_in_small_batches(n):
    images = torch.rand(1, 3, 4, 4, generator=gen()).expand(n, -1, -1, -1)
    augmentation, g = Augmentation(**{**NO_STEPS, **UNNORMALIZED, "jitter": 0.8}), gen()
    hits = torch.stack([(augmentation(images, g) != images).flatten(1).any(1) for _ in range(600)]).float()
    assert ((hits.mean(0) - 0.8).abs() < 0.07).all()


def test_jitter_orders_are_uniform():
    for settings, orders in (({}, 24), ({"hue": 0.0}, 6)):
        draws = Augmentation(**settings).draw(6000, (8, 8), gen())
        assert stats.chisquare(draws.order.bincount(minlength=orders)).pvalue > 1e-3
        assert len(draws.order.bincount()) == orders


def test_jitter_without_strength_draws_nothing():
    weak = Augmentation(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
    assert weak.draw(4, (8, 8), gen()).jitter is None
    assert weak.set_params(contrast=0.1).draw(4, (8, 8), gen()).jitter is not None


def test_settings_with_one_seed_draw_alike():
    """The draws of a step do not depend on which other steps are on."""
    one, other = (Augmentation(**settings).draw(50, (32, 32), gen()) for settings in ({}, EVERYTHING))
    assert torch.equal(one.corner, other.corner)
    assert torch.equal(one.order, other.order)
    assert (other.jitter | ~one.jitter).all()  # the probability is higher


def test_quarter_turns_are_uniform():
    """Each of the four turns is as frequent, within the share of views that are turned."""
    images = smooth_images(1).expand(2000, -1, -1, -1)[..., :4, :4]
    turned = [torch.rot90(preset("none", 4)[0].normalize(images[:1]), k, (2, 3)) for k in range(4)]
    for share in (1.0, 0.4):
        views = preset("none", 4)[0].set_params(quarter_turn=share)(images, gen())
        counts = [((views - one).abs() < 1e-5).flatten(1).all(1).sum().item() for one in turned]
        assert sum(counts) == 2000
        assert [count / 2000 for count in counts[1:]] == pytest.approx([share / 4] * 3, abs=0.03)
