"""Each step against torchvision's function for one image."""

from __future__ import annotations

import itertools

import pytest
import torch
from augment_cases import gen, random_colors, smooth_images
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from skssl.augment import (
    adjust_hue,
    color_jitter,
    gaussian_blur,
    geometry,
    grayscale,
    resized_crop,
    rotate_quarter,
    sample_crops,
    solarize,
)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("h", "w", "size"), [(32, 32, (32, 32)), (37, 21, (16, 24)), (20, 20, (48, 33)), (9, 11, (1, 2))]
)
def test_resized_crop_matches_torchvision(h, w, size, interpolation):
    n = 24
    images = torch.rand(n, 3, h, w, generator=gen())
    boxes = sample_crops(n, (h, w), (0.08, 1.0), (3 / 4, 4 / 3), gen(1))
    flip = torch.rand(n, generator=gen(2)) < 0.5
    got = resized_crop(images, *boxes, size, flip, interpolation)
    for i in range(n):
        box = [int(side[i]) for side in boxes]
        mode = v2.InterpolationMode(interpolation)
        expected = TF.resized_crop(images[i], *box, list(size), mode, antialias=True)
        expected = TF.horizontal_flip(expected) if flip[i] else expected
        torch.testing.assert_close(got[i], expected, atol=1e-5, rtol=0)


def test_padded_crop_equals_a_crop_of_the_padded_image():
    images = smooth_images(6, 12, 10)
    top, left = torch.tensor([-4.0, 4, 0, -1, 2, 3]), torch.tensor([4.0, -4, 0, 2, -3, 1])
    height, width = torch.full((6,), 12.0), torch.full((6,), 10.0)
    got = resized_crop(images, top, left, height, width, (12, 10), padding=4)
    padded = torch.nn.functional.pad(images, (4,) * 4) / 255
    for i in range(6):
        y, x = int(top[i]) + 4, int(left[i]) + 4
        torch.testing.assert_close(got[i], padded[i, :, y : y + 12, x : x + 10])


@pytest.mark.parametrize("padding", [0, 4])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crops_agree_with_and_without_a_weight_table(interpolation, padding, monkeypatch):
    images = random_colors(32, 16, 16)
    start = torch.randint(-padding, 13, (2, 32), generator=gen(1)).float()
    side = torch.randint(1, 13, (2, 32), generator=gen(2)).minimum(16 + padding - start)
    flip = torch.rand(32, generator=gen(3)) < 0.5
    given = images, *start, *side, (12, 10), flip, interpolation, padding
    looked_up = resized_crop(*given)
    monkeypatch.setattr("skssl.augment.geometry.TABLE_BYTES", 0)
    geometry.weight_table.cache_clear()
    computed = resized_crop(*given)
    geometry.weight_table.cache_clear()
    torch.testing.assert_close(looked_up, computed, atol=1e-5, rtol=0)


def test_adjust_hue_matches_torchvision():
    images = random_colors(64)
    shift = torch.rand(64, generator=gen(1)) - 0.5
    shift[:8] = torch.tensor([0.0, 0.5, -0.5, 1 / 3, -1 / 6, 0.1, 0.2, 0.25])
    before = images.clone()
    got = adjust_hue(images, shift)
    for i in range(64):
        expected = TF.adjust_hue(images[i].double(), float(shift[i]))
        torch.testing.assert_close(got[i].double(), expected, atol=3e-6, rtol=0)
    assert torch.equal(images, before)


def test_yiq_hue_turns_as_hsv_and_keeps_luminance():
    images = random_colors(64) * 0.2 + 0.4  # far from the clamp
    shift = torch.rand(64, generator=gen(1)) - 0.5
    got = adjust_hue(images, shift, "yiq")
    luma = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    torch.testing.assert_close((got * luma).sum(1), (images * luma).sum(1), atol=1e-6, rtol=0)
    torch.testing.assert_close(adjust_hue(got, -shift, "yiq"), images, atol=1e-6, rtol=0)
    small = torch.full((64,), 0.05)
    exact = adjust_hue(images, small)
    right = (adjust_hue(images, small, "yiq") - exact).abs().mean()
    assert right < 0.5 * (adjust_hue(images, -small, "yiq") - exact).abs().mean()


def test_color_jitter_matches_torchvision_in_every_order():
    images = random_colors(24)
    factors = torch.rand(24, 3, generator=gen(1)) * 2
    place = torch.tensor(list(itertools.permutations(range(4))))
    shift = torch.rand(24, generator=gen(2)) - 0.5
    got = color_jitter(images, factors, place, shift)
    changes = [TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue]
    for i in range(24):
        x = images[i].double()
        for step in range(4):
            which = place[i].tolist().index(step)
            x = changes[which](x, float(shift[i] if which == 3 else factors[i, which]))
        # A hue is ill-conditioned where the clamp has left hardly any colour, hence not 1e-6.
        torch.testing.assert_close(got[i].double(), x, atol=2e-4, rtol=0)
        assert (got[i].double() - x).abs().mean() < 2e-6


@pytest.mark.parametrize("c", [1, 2, 4])
def test_color_jitter_of_one_two_and_four_channels(c):
    images = torch.rand(2, c, 5, 4, generator=gen())
    factors = torch.tensor([[1.5, 0.5, 0.2], [0.7, 1.6, 1.9]])
    place = torch.tensor([[3, 0, 2, 1], [1, 3, 0, 2]])  # contrast, hue, … and …, brightness, hue, contrast
    got = color_jitter(images, factors, place, torch.tensor([0.3, -0.2]))
    first = (0.5 * images[0] + 0.5 * images[0].mean()).clamp(0, 1)
    torch.testing.assert_close(got[0], (first * 1.5).clamp(0, 1))
    second = (images[1] * 0.7).clamp(0, 1)
    torch.testing.assert_close(got[1], (1.6 * second - 0.6 * second.mean()).clamp(0, 1))
    assert torch.equal(grayscale(images, torch.tensor([True, True])), images)


def test_grayscale_and_solarize_match_torchvision():
    images, where = random_colors(8), torch.arange(8) % 2 == 0
    grey, solarised = grayscale(images, where), solarize(images, 0.5, where)
    for i in range(8):
        expected = TF.rgb_to_grayscale(images[i], 3) if where[i] else images[i]
        torch.testing.assert_close(grey[i], expected, atol=1e-6, rtol=0)
        assert torch.equal(solarised[i], TF.solarize(images[i], 0.5) if where[i] else images[i])


@pytest.mark.parametrize(("h", "w", "kernel"), [(32, 20, 3), (64, 80, 7), (2, 3, 3)])
def test_gaussian_blur_matches_torchvision(h, w, kernel):
    images, sigma = torch.rand(3, 2, h, w, generator=gen()), torch.tensor([0.1, 0.7, 2.0])
    got = gaussian_blur(images, sigma)
    for i in range(3):
        expected = TF.gaussian_blur(images[i], [kernel] * 2, [float(sigma[i])])
        torch.testing.assert_close(got[i], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.int64])
def test_rotate_quarter_matches_rot90(dtype):
    images = smooth_images(8, 6, 6).to(dtype)
    k = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])
    for given in (images, images.contiguous(memory_format=torch.channels_last)):
        got = rotate_quarter(given, k)
        assert got.dtype == dtype
        for i in range(8):
            assert torch.equal(got[i], images[i].rot90(int(k[i]), (1, 2)))
    with pytest.raises(ValueError, match="got 6 and 5"):
        rotate_quarter(images[..., :5], k)
