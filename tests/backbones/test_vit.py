"""Vision transformers: torchvision's layers, images of any size, and every user of maps."""

import importlib.util

import numpy as np
import pytest
import torch
import torchvision
from conftest import quick
from torch import nn
from torch.nn import functional as F

import skssl
from skssl import Augmentation, LinearProbe, MultiCrop, Rotation
from skssl.augment import grad_cam
from skssl.backbones import ViT, build_backbone, feature_map, load_weights, stages
from skssl.backbones.positions import resample_positions, sincos_positions
from skssl.backbones.transformers import VisionTransformer
from skssl.backbones.vit import vit_named
from skssl.nn.accumulation import encode_in_parts

needs_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")


def random_images(n, *size):
    return torch.randn(n, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def vit():
    """A small vision transformer for images of 16x12 pixels, in float64."""
    torch.manual_seed(0)
    return VisionTransformer((16, 12), 4, dim=16, n_blocks=2, n_heads=2, pool="token").double()


@pytest.mark.parametrize(("name", "dim", "blocks", "heads"), [("vit_micro", 96, 4, 3), ("vit_tiny", 192, 12, 3)])
def test_by_name(name, dim, blocks, heads):
    for side, patch in ((32, 4), (80, 16)):
        encoder, found = build_backbone(name, (3, side, side))
        assert (found, len(encoder.encoder.layers), encoder.encoder.layers[0].num_heads) == (dim, blocks, heads)
        assert encoder.conv_proj.kernel_size == (patch, patch)
    assert encoder(torch.zeros(2, 3, 80, 80)).shape == (2, dim)


def test_layers_are_torchvisions():
    ours = VisionTransformer((16, 16), 4, dim=16, n_blocks=2, n_heads=2, pool="token").double()
    torchs = torchvision.models.VisionTransformer(16, 4, 2, 2, 16, 64).double()
    torchs.heads = nn.Identity()
    torchs.load_state_dict(ours.state_dict())  # the same names
    images = random_images(2, 16, 16)
    torch.testing.assert_close(ours(images), torchs(images))


def test_names_of_torchvision():
    with torch.device("meta"):
        ours, torchs = vit_named("vit_b_32").build(224, 224, 64), torchvision.models.vit_b_32()
    shapes = {name: value.shape for name, value in torchs.state_dict().items() if not name.startswith("heads.")}
    assert {name: value.shape for name, value in ours.state_dict().items()} == shapes
    assert all(vit_named(name) for name in torchvision.models.list_models() if name.startswith("vit_"))


def test_positions_start_as_sines_and_cosines_of_the_place():
    found = sincos_positions(2, 3, 8)
    for row in range(2):
        for column in range(3):
            for place, part in ((column, found[3 * row + column, :4]), (row, found[3 * row + column, 4:])):
                angles = np.array([place, place / 100])
                np.testing.assert_allclose(part, [*np.sin(angles), *np.cos(angles)], rtol=1e-5, atol=1e-7)


def test_positions_are_interpolated_for_images_of_other_sizes(vit):
    positions = vit.encoder.pos_embedding.detach()
    grid = positions[:, 1:].unflatten(1, (4, 3)).permute(0, 3, 1, 2)
    expected = F.interpolate(grid, (2, 5), mode="bicubic", antialias=True).flatten(2).transpose(1, 2)
    found = resample_positions(positions, (4, 3), (2, 5))
    torch.testing.assert_close(found, torch.cat([positions[:, :1], expected], 1), rtol=1e-5, atol=1e-5)
    other = VisionTransformer((8, 20), 4, dim=16, n_blocks=2, n_heads=2, pool="token").double()
    other.load_state_dict({**vit.state_dict(), "encoder.pos_embedding": found})
    images = random_images(2, 8, 20)
    torch.testing.assert_close(vit(images), other(images))


def test_images_are_padded_to_whole_patches(vit):
    images = random_images(2, 13, 10)
    assert torch.equal(vit(images), vit(F.pad(images, (0, 2, 0, 3))))
    assert vit(random_images(2, 1, 1)).shape == (2, 16)


def test_features_are_the_class_token_or_the_mean_of_the_patches(vit):
    images = random_images(3, 16, 12)
    tokens = vit.tokens(images)
    assert tokens.shape == (3, 13, 16)
    assert torch.equal(vit(images), tokens[:, 0])
    vit.pool = "mean"
    torch.testing.assert_close(vit(images), tokens[:, 1:].mean(1))


def test_visible_patches_are_encoded_alone_and_masked_ones_replaced(vit):
    images = random_images(2, 16, 12)
    visible = torch.tensor([[0, 5, 7], [11, 2, 3]])
    mask_token = torch.randn(1, 1, 16, dtype=torch.float64)
    masked = torch.zeros(2, 12, dtype=torch.bool).scatter(1, visible, True)
    positions = vit.encoder.pos_embedding[0]
    for i in range(2):
        embedded = []
        for row in range(4):
            for column in range(3):
                patch = images[i, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
                embedded.append((vit.conv_proj.weight * patch).sum((1, 2, 3)) + vit.conv_proj.bias)
        first = vit.class_token[0, 0] + positions[0]
        few = torch.stack([first, *(embedded[j] + positions[1 + j] for j in visible[i].tolist())])
        torch.testing.assert_close(vit.tokens(images, visible)[i], vit.encoder.ln(vit.encoder.layers(few[None]))[0])
        rest = [mask_token[0, 0] if masked[i, j] else embedded[j] for j in range(12)]
        whole = torch.stack([first, *(x + positions[1 + j] for j, x in enumerate(rest))])
        found = vit.tokens(images, None, masked, mask_token)[i]
        torch.testing.assert_close(found, vit.encoder.ln(vit.encoder.layers(whole[None]))[0])


def test_pixels_of_patches(vit):
    images = random_images(2, 14, 12)
    found, padded = vit.pixels(images), F.pad(images, (0, 0, 0, 2))
    for row in range(4):
        for column in range(3):
            patch = padded[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            assert torch.equal(found[:, 3 * row + column], patch.permute(0, 2, 3, 1).flatten(1))


def test_map_of_the_patches(vit):
    images = random_images(2, 16, 12)
    features, grid = feature_map(vit, images)
    assert torch.equal(features, vit(images))
    assert torch.equal(grid.flatten(2).transpose(1, 2), vit.tokens(images)[:, 1:])
    assert list(stages(vit)) == ["patches"]


def test_encoding_in_parts_gives_the_same_tokens_and_gradients(vit):
    images, visible = random_images(6, 16, 12), torch.stack([torch.arange(i, i + 4) for i in range(6)])
    ratios = torch.linspace(-1, 1, 16, dtype=torch.float64)

    def run():
        vit.zero_grad()
        loss = (vit.tokens(images, visible) * ratios).square().sum() + (vit(images) * ratios).sum()
        loss.backward()
        return [loss.detach(), *(p.grad.clone() for p in vit.parameters())]

    whole = run()
    with encode_in_parts([vit], 3):
        parts = run()
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b)
    assert "tokens" not in vars(vit)


def test_weights_are_loaded_with_interpolated_positions():
    small, _ = build_backbone(ViT("micro", patch_size=8), (3, 32, 32))
    large, _ = build_backbone(ViT("micro", patch_size=8), (3, 48, 48))
    assert load_weights(large, small.state_dict()) == []
    assert torch.equal(large.conv_proj.weight, small.conv_proj.weight)
    found = resample_positions(small.encoder.pos_embedding.detach(), (4, 4), (6, 6))
    torch.testing.assert_close(large.encoder.pos_embedding.detach(), found)


@pytest.mark.parametrize("channels", [1, 4])
def test_channels(channels):
    encoder, _ = build_backbone("vit_micro", (channels, 28, 28))
    assert encoder(torch.zeros(2, channels, 28, 28)).shape == (2, 96)


def test_options_are_refused_by_name():
    with pytest.raises(ValueError, match="Unknown backbone 'vit_tinny', did you mean 'vit_tiny'"):
        build_backbone("vit_tinny", (3, 32, 32))
    with pytest.raises(ValueError, match=r"'pool' parameter of ViT must be a str among .*'mean'.* Got 'max'"):
        build_backbone(ViT("micro", pool="max"), (3, 32, 32))


MICRO = ViT("micro", pool="mean")


def test_estimators_train_save_and_search_options(X, tmp_path):
    estimator = quick(skssl.BYOL, backbone=MICRO, aux="jigsaw").set_params(backbone__patch_size=8)
    estimator.fit(X).save(tmp_path / "byol.safetensors")
    loaded = skssl.load(tmp_path / "byol.safetensors")
    assert loaded.backbone.get_params() == {"patch_size": 8, "pool": "mean", "size": "micro"}
    assert np.array_equal(loaded.transform(X), estimator.transform(X))
    larger = quick(
        skssl.BYOL, backbone=loaded.backbone, warm_start_from=loaded, augment=Augmentation(size=24), epochs=0
    )
    assert larger.fit(X).encoder_.encoder.pos_embedding.shape == (1, 10, 96)


@pytest.mark.parametrize(
    ("method", "params"),
    [
        (skssl.DINO, {"augment": MultiCrop(n_local=2, local_size=10)}),
        (skssl.DenseCL, {}),
        (skssl.MoCo, {"aux": "colorization"}),
        (skssl.SimCLR, {"aux": Rotation(shared="patches"), "accumulate": 2}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
@pytest.mark.parametrize("pool", ["token", "mean"])
def test_methods_that_read_maps_or_crops_of_several_sizes(method, params, pool, X):
    estimator = quick(method, backbone=ViT("micro", pool=pool), **params).fit(X)
    assert estimator.transform(X).shape == (40, 96)
    assert np.isfinite(estimator.history_["loss"]).all()


def test_inner_layers(X, y):
    estimator = quick(skssl.SimCLR, backbone="vit_micro", epochs=0).fit(X)
    probe = LinearProbe(encoder=estimator, layer="patches").fit(X, y)
    assert probe.predict(X).shape == (40,)
    with pytest.raises(ValueError, match=r"Unknown layer 'layer4'.* Known names: .*'patches'"):
        LinearProbe(encoder=estimator, layer="layer4").fit(X, y)
    with pytest.raises(ValueError, match=r"Unknown shared 'conv2'.* Known names: 'patches'"):
        quick(skssl.SimCLR, backbone="vit_micro", aux=Rotation(shared="conv2")).fit(X)


@pytest.mark.parametrize("pool", ["token", "mean"])
def test_grad_cam(pool, X):
    encoder, dim = build_backbone(ViT("micro", pool=pool), (3, 16, 16))
    classifier = nn.Sequential(encoder, nn.Linear(dim, 4)).eval()
    found = grad_cam(classifier, X[:3])
    assert found.shape == (3, 4, 4)
    images = torch.from_numpy(X[:3].copy()).permute(0, 3, 1, 2)
    pixels = Augmentation(crop_scale=None).normalize(images)
    tokens = []
    with torch.enable_grad():
        hook = encoder.encoder.layers[-1].ln_1.register_forward_hook(lambda *given: tokens.append(given[2]))
        scores = classifier(pixels)
        hook.remove()
        (gradient,) = torch.autograd.grad(scores.max(1).values.sum(), tokens[0])
    for i in range(3):
        weights = gradient[i, 1:].mean(0)
        cam = torch.stack([(weights * token).sum() for token in tokens[0][i, 1:]]).relu().view(4, 4)
        expected = (255 * cam / cam.max().clamp(min=1e-12)).round().detach().numpy()
        np.testing.assert_allclose(found[i], expected, atol=1)


@needs_timm
def test_timm_reads_images_of_other_sizes():
    encoder, _ = build_backbone("timm:vit_tiny_patch16_224", (3, 64, 64))
    with torch.no_grad():
        assert encoder(torch.zeros(2, 3, 40, 96)).shape == (2, 192)
