"""Views in every form against torchvision: at once, in parts, compiled; on the same draws and in distribution."""

from __future__ import annotations

import collections
import functools
import warnings

import numpy as np
import pytest
import torch
from augment_cases import (
    EVERYTHING,
    NAMES,
    NO_STEPS,
    SETTINGS,
    UNNORMALIZED,
    different_views,
    gen,
    smooth_images,
)
from references import views_one_by_one
from scipy import stats
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import v2

from skssl.augment import Augmentation, cell_positions, compiled, cpu_parts, gaussian_blur, preset
from skssl.augment.views import make_views, view_constants


def torchvision_pipeline(settings):
    """Build torchvision's transforms of one image."""
    a = Augmentation(**settings)
    mode = v2.InterpolationMode(a.interpolation)
    steps = [v2.ToDtype(torch.float32, scale=True)]
    if a.crop_padding:
        steps.append(v2.RandomCrop(32, padding=a.crop_padding))
    elif a.crop_scale:
        steps.append(v2.RandomResizedCrop(32, a.crop_scale, a.crop_ratio, mode, antialias=True))
    steps.append(v2.Lambda(lambda x: x.clamp(0, 1)))
    steps.append(v2.RandomHorizontalFlip(a.flip))
    jitter = v2.ColorJitter(a.brightness, a.contrast, a.saturation, a.hue)
    steps.append(v2.RandomApply([jitter], a.jitter))
    steps.append(v2.RandomGrayscale(a.gray))
    steps.append(v2.RandomApply([v2.GaussianBlur(3, a.blur_sigma)], a.blur))
    steps.append(v2.RandomSolarize(a.solarize_threshold, a.solarize))
    steps.append(v2.Normalize(a.mean, a.std))
    return v2.Compose(steps)


def statistics(views):
    """Compute means, deviations, quantiles, asymmetry, roughness and colourfulness of each view."""
    flat = views.flatten(2)
    quantiles = flat.quantile(torch.tensor([0.05, 0.5, 0.95]), dim=2).movedim(0, 1).flatten(1)
    half = views.shape[3] // 2
    sides = (views[..., :half].mean(3) - views[..., half:].mean(3)).mean(2)
    rough = views.diff(dim=3).abs().mean((2, 3))
    apart = (views[:, 0] - views[:, 1]).flatten(1).abs().mean(1, keepdim=True)
    return torch.cat([flat.mean(2), flat.std(2), quantiles, sides, rough, apart], 1)


@pytest.mark.parametrize("name", SETTINGS)
def test_views_are_distributed_as_in_torchvision(name):
    n = 1000
    image = smooth_images(1, seed=5)
    image[:, 0] = image[:, 0] // 2 + 100
    images = image.expand(n, 3, 32, 32)
    ours = statistics(Augmentation(**SETTINGS[name])(images, gen(3)))
    pipeline = torchvision_pipeline(SETTINGS[name])
    with torch.random.fork_rng():
        torch.manual_seed(1)
        theirs = statistics(torch.stack([pipeline(image[0]) for _ in range(n)]))
    if name == "none-0":
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
        return
    for a, b in zip(ours.T, theirs.T, strict=True):
        # Values that are equal up to rounding errors must not count as different.
        assert stats.ks_2samp(a.numpy().round(4), b.numpy().round(4), method="asymp").pvalue > 2e-4


def test_views_are_in_the_order_of_the_images():
    n = 37
    level = torch.linspace(0.2, 0.8, n).view(n, 1, 1, 1)
    colour = torch.cat([level, 1 - level, level * 0 + 0.5], 1)
    images = colour.expand(n, 3, 8, 8)
    weak = {"brightness": 1e-3, "contrast": 1e-3, "saturation": 1e-3, "hue": 1e-4}
    views = Augmentation(**{**UNNORMALIZED, **weak, "gray": 0.0, "blur": 0.5})(images, gen())
    torch.testing.assert_close(views, images, atol=5e-3, rtol=0)


GEOMETRY = {
    "crop and flip": {"size": (8, 12)},
    "whole image": {"crop_scale": None, "size": (8, 12)},
    "padding": {"crop_padding": 3},
    "turns": {"quarter_turn": 1.0, "size": 10},
    "saliency": {"saliency": torch.rand(5, 4, 4, generator=gen()), "size": 8},
}


@pytest.mark.parametrize("kind", GEOMETRY)
def test_corners_tell_where_each_pixel_of_a_view_lies(kind):
    rows, columns = torch.meshgrid(torch.arange(24) + 0.5, torch.arange(32) + 0.5, indexing="ij")
    places = torch.stack((rows, columns, rows)).expand(5, 3, 24, 32) / 32  # images whose values are their positions
    augment = Augmentation(jitter=0.0, gray=0.0, **UNNORMALIZED, **GEOMETRY[kind])
    views, corners = augment.with_corners(places, gen(), torch.arange(5), n_views=4)
    assert torch.equal(views, augment(places, gen(), torch.arange(5), n_views=4))
    positions = cell_positions(corners, views.shape[2:]).view(20, *views.shape[2:], 2)
    inner = (positions > 1).all(3) & (positions < torch.tensor([23.0, 31.0])).all(3)  # not black
    inner[:, [0, 1, -2, -1]] = inner[:, :, [0, 1, -2, -1]] = False  # the filter ends at the border of the crop
    assert inner.float().mean() > 0.2
    torch.testing.assert_close(32 * views[:, :2].movedim(1, 3)[inner], positions[inner], atol=0.2, rtol=0)
    assert len(set(corners.flatten(1).unbind())) == 20 or kind == "whole image"


def test_compiled_views_have_the_same_corners(compiling):
    settings = {**NO_STEPS, "crop_padding": 2, "flip": 0.5, "quarter_turn": 0.5}
    augment, images = Augmentation(**settings), smooth_images(4)
    views, corners = augment.with_corners(images, gen(), n_views=2, compile=True)
    expected = augment.with_corners(images, gen(), n_views=2)
    torch.testing.assert_close(views, expected[0], atol=1e-5, rtol=0)
    assert torch.equal(corners, expected[1])


def test_views_without_blur_are_unchanged():
    images = torch.rand(40, 3, 8, 8, generator=gen())
    augmentation = Augmentation(**{**NO_STEPS, **UNNORMALIZED, "blur": 0.25, "blur_sigma": (1.0, 1.0)})
    draws = augmentation.draw(40, (8, 8), gen())
    views = augmentation.apply(images, draws)
    assert torch.equal((views == images).flatten(1).all(1), ~draws.blur)
    torch.testing.assert_close(views[draws.blur], gaussian_blur(images[draws.blur], torch.ones(int(draws.blur.sum()))))


FORMS = {
    **SETTINGS,
    "all at once": EVERYTHING,
    **{f"{name}, large": settings for name, settings in different_views(224).items()},
    "padded": {"crop_padding": 3, "interpolation": "bicubic"},
    "without hue": {"hue": 0.0, "saturation": 0.9},
    "smaller": {"size": 9, "blur": 1.0},
    "of another shape": {"size": (9, 14), "blur": 0.5},
    "only resized": {**NO_STEPS, "size": 20},
    "only mirrored": {**NO_STEPS, "flip": 0.5},
}


def views_at_once(augmentation, images, draws):
    """Make views by the form with static shapes, which a GPU and the compiler use."""
    constants = view_constants(augmentation, images.shape[1], images.shape[2:], images.device)
    return make_views(augmentation, images, draws, constants)


@pytest.mark.parametrize("name", FORMS)
def test_views_in_parts_and_at_once_match_torchvision_on_the_same_draws(name, monkeypatch):
    augmentation, images = Augmentation(**FORMS[name]), smooth_images(30, 16, 16)
    draws = augmentation.draw(60, (16, 16), gen(1))
    views, at_once = augmentation.apply(images, draws), views_at_once(augmentation, images, draws)
    torch.testing.assert_close(views, at_once, atol=1e-5, rtol=0)
    assert views.stride() == at_once.stride()
    error = (views.double() - views_one_by_one(augmentation, images, draws)).abs()
    assert error.max() < 1e-3  # a hue is ill-conditioned where the clamp has left hardly any colour
    assert error.mean() < 1e-5
    assert torch.equal(augmentation(images, gen(1), n_views=2), views)
    monkeypatch.setattr(cpu_parts, "CACHED_PIXELS", 700)
    assert torch.equal(augmentation.apply(images, draws), views)


@pytest.mark.parametrize("settings", [{}, {"hue_space": "yiq"}, EVERYTHING], ids=str)
@pytest.mark.parametrize("c", [1, 3, 4])
def test_views_in_parts_and_at_once_agree_for_all_channels_and_hue_spaces(c, settings):
    augmentation, images = Augmentation(**settings), smooth_images(12, 12, 12, c)
    draws = augmentation.draw(24, (12, 12), gen())
    torch.testing.assert_close(
        augmentation.apply(images, draws), views_at_once(augmentation, images, draws), atol=1e-5, rtol=0
    )


def test_views_in_parts_and_at_once_agree_with_saliency_maps():
    maps = torch.rand(9, 5, 5, generator=gen())
    augmentation, images, index = (
        Augmentation(saliency=maps, good_crops=0.5),
        smooth_images(3, 16, 16),
        torch.tensor([4, 0, 7]),
    )
    draws = augmentation.draw(6, (16, 16), gen(), index.repeat(2))
    views = augmentation.apply(images, draws)
    torch.testing.assert_close(views_at_once(augmentation, images, draws), views, atol=1e-5, rtol=0)
    assert torch.equal(augmentation(images, gen(), index, 2), views)


@pytest.fixture
def compiling(monkeypatch):
    """Let torch.compile only trace, since its backend is slow, and empty the cache."""
    torch._dynamo.reset()
    monkeypatch.setattr(compiled, "COMPILED", {})
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))


@pytest.mark.parametrize("name", FORMS)
def test_compiled_views_are_one_graph(name, compiling):
    augmentation, images = Augmentation(**FORMS[name]), smooth_images(8, 16, 16)
    with warnings.catch_warnings(), torch._dynamo.config.patch(error_on_recompile=True):
        warnings.simplefilter("error")
        views = augmentation(images, gen(), n_views=2, compile=True)
        again = augmentation(images, gen(1), n_views=2, compile=True)
    torch.testing.assert_close(views, augmentation(images, gen(), n_views=2), atol=1e-5, rtol=0)
    torch.testing.assert_close(again, augmentation(images, gen(1), n_views=2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("c", [1, 4])
def test_compiled_views_are_one_graph_for_one_and_four_channels(c, compiling):
    images = smooth_images(4, 16, 12, c)
    for settings in ({}, {"blur": 1.0, "hue_space": "yiq"}):
        augmentation = Augmentation(**settings)
        views = augmentation(images, gen(), compile=True)
        torch.testing.assert_close(views, augmentation(images, gen()), atol=1e-5, rtol=0)


def test_compiled_views_with_saliency_maps(compiling):
    images, index = smooth_images(3, 16, 16), torch.tensor([4, 0, 7])
    for seed in (0, 1):
        augmentation = Augmentation(saliency=torch.rand(9, 5, 5, generator=gen(seed)))
        views = augmentation(images, gen(), index, 2, compile=True)
        torch.testing.assert_close(views, augmentation(images, gen(), index, 2), atol=1e-5, rtol=0)
    assert len(compiled.COMPILED) == 1


def test_compiled_function_is_shared_by_equal_settings_only(compiling):
    images = smooth_images(4, 8, 8)
    for _ in range(2):
        for k in range(10):  # more than Dynamo's limit of eight a function
            settings = {**NO_STEPS, "flip": (k + 1) / 10, "size": np.int64(8), "mean": [0.5, 0.5, 0.5]}
            augmentation = Augmentation(**settings)
            with torch._dynamo.config.patch(error_on_recompile=True):
                augmentation(images, gen(), compile=True)
    assert len(compiled.COMPILED) == 10


def test_failing_compilation_warns_once_and_views_are_made_without_it(monkeypatch):
    def broken(*args, **kwargs):
        def fail(*args):
            raise RuntimeError("no compiler here")

        return fail

    monkeypatch.setattr(compiled, "COMPILED", {})
    monkeypatch.setattr(torch, "compile", broken)
    images, augmentation = smooth_images(4, 8, 8), Augmentation()
    with pytest.warns(UserWarning, match="without torch.compile, which failed: RuntimeError: no compiler here"):
        views = augmentation(images, gen(), compile=True)
    torch.testing.assert_close(views, augmentation(images, gen()), atol=1e-5, rtol=0)
    augmentation(images, gen(), compile=True)  # no second warning


@pytest.mark.parametrize(("name", "side", "most"), [("byol", 32, 11), ("simclr", 224, 15)])
def test_compiled_views_need_few_kernels(name, side, most, monkeypatch):
    """Count the kernels that the compiler writes for a GPU, without running them."""
    pytest.importorskip("triton")
    from torch._inductor import config, metrics
    from torch._inductor.graph import GraphLowering

    def written(graph):
        graph.codegen()
        raise RuntimeError("All kernels are written.")

    torch._dynamo.reset()
    monkeypatch.setattr(torch.utils._triton, "triton_hash_with_backend", lambda: "none")
    monkeypatch.setattr(GraphLowering, "compile_to_module", written)
    monkeypatch.setattr(compiled, "COMPILED", {})
    images = smooth_images(2, side, side).contiguous(memory_format=torch.channels_last)
    with config.patch(force_disable_caches=True, cpu_backend="triton", compile_threads=1):
        metrics.reset()
        with pytest.warns(UserWarning, match="failed: InductorError: RuntimeError: All kernels are written"):
            preset(name, side)[-1](images, gen(), n_views=2, compile=True)
    if torch.__version__.startswith("2.11"):
        most += 1  # it writes one kernel more than later versions
    assert 0 < metrics.generated_kernel_count <= most


@pytest.mark.slow
def test_compiled_views_match_eager_views(monkeypatch):
    torch._dynamo.reset()
    monkeypatch.setattr(compiled, "COMPILED", {})
    images, augmentation = smooth_images(4), Augmentation(blur=0.5, solarize=0.5)
    views = augmentation(images, gen(), n_views=2, compile=True)
    expected = augmentation(images, gen(), n_views=2)
    torch.testing.assert_close(views, expected, atol=1e-5, rtol=0)
    assert views.stride() == expected.stride()


class Launches(TorchDispatchMode):
    """Counts operators except for views of a tensor."""

    def __init__(self):
        super().__init__()
        self.seen = collections.Counter()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.seen[str(operator)] += not operator.is_view and operator is not torch.ops.aten._unsafe_view.default
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize("side", [32, 224])
@pytest.mark.parametrize("name", NAMES)
def test_views_at_once_launch_few_operators_and_never_wait_for_the_device(name, side):
    for augmentation in dict.fromkeys(preset(name, side)):
        images = smooth_images(1, side, side)
        views_at_once(augmentation, images, augmentation.draw(2, (side, side), gen()))  # caches the constants
        with Launches() as launches:
            views_at_once(augmentation, images, augmentation.draw(2, (side, side), gen()))
        assert sum(launches.seen.values()) <= (60 if name in ("rotnet", "none") else 120)
        waits = ("_local_scalar_dense", "nonzero", "masked_select", "unique")
        assert not [operator for operator in launches.seen if any(name in operator for name in waits)]


@pytest.mark.parametrize("settings", [{}, {"crop_padding": 2}, {"crop_scale": None}, NO_STEPS], ids=str)
def test_views_agree_for_all_dtypes_and_memory_formats(settings):
    images = smooth_images(9, 12, 10)
    augmentation = Augmentation(blur=0.5, **settings)
    expected = augmentation(images, gen())
    last = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    torch.testing.assert_close(augmentation(last, gen()), expected)
    draws = augmentation.draw(9, (12, 10), gen())
    for given in (last, images / 255):
        torch.testing.assert_close(views_at_once(augmentation, given, draws), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(augmentation(images / 255, gen()), expected, atol=1e-4, rtol=1e-4)
    cut = torch.zeros(9, 3, 20, 20, dtype=torch.uint8)[:, :, 3:15, 5:15].copy_(images)
    assert torch.equal(augmentation(cut, gen()), expected)
