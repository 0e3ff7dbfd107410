"""Masked images: MAE, SimMIM and I-JEPA against literal versions, patch by patch."""

import numpy as np
import pytest
import torch
from conftest import quick
from helpers import built, drift

import skssl
from skssl.backbones import ViT
from skssl.losses import ijepa, mae, simmim
from skssl.nn.masking import block_size, order_outside, random_blocks, random_mask


def patch(images, i, row, column, p=4):
    """Return the pixels of a patch, (c, p, p)."""
    return images[i, :, p * row : p * row + p, p * column : p * column + p]


def test_mae_loss_is_the_error_of_normalised_pixels():
    draw = torch.Generator().manual_seed(0)
    predicted, pixels = (torch.randn(3, 5, 12, generator=draw, dtype=torch.float64) for _ in range(2))
    found = {True: [], False: []}
    for a, b in zip(predicted.flatten(0, 1).numpy(), pixels.flatten(0, 1).numpy(), strict=True):
        found[False].append(((a - b) ** 2).mean())
        found[True].append(((a - (b - b.mean()) / np.sqrt(b.var(ddof=1) + 1e-6)) ** 2).mean())
    for normalize, errors in found.items():
        assert mae(predicted, pixels, normalize).item() == pytest.approx(np.mean(errors), rel=1e-12)


@pytest.mark.parametrize("norm_pix_loss", [True, False])
def test_mae_is_its_literal_version(norm_pix_loss, X):
    """The authors' code: mask tokens are put back in the order of the image, and all patches are predicted."""
    params = {"decoder_dim": 16, "decoder_depth": 2, "norm_pix_loss": norm_pix_loss}
    estimator, net, batch = built(skssl.MAE, X, **params)
    images, decoder, errors = batch.views[0], net.decoder, []
    torch.manual_seed(3)
    found = estimator.losses(net, batch)["mae"]
    torch.manual_seed(3)
    noise = torch.rand(12, 16)
    for i in range(12):
        kept = sorted(range(16), key=lambda j: noise[i, j].item())[:4]
        tokens = net.encoder.tokens(images[i : i + 1], torch.tensor([kept]))[0]
        known = dict(zip(kept, decoder.embed(tokens[1:]), strict=True))
        whole = [decoder.embed(tokens[0]), *(known.get(j, decoder.mask_token[0, 0]) for j in range(16))]
        x = torch.stack(whole) + decoder.pos_embedding[0]
        predicted = decoder.head(decoder.ln(decoder.layers(x[None])[0]))[1:]
        for j in set(range(16)) - set(kept):
            target = patch(images, i, *divmod(j, 4)).permute(1, 2, 0).flatten()
            if norm_pix_loss:
                target = (target - target.mean()) / (target.var() + 1e-6).sqrt()
            errors.append((predicted[j] - target).square().mean())
    torch.testing.assert_close(found, torch.stack(errors).mean())


def test_mae_encodes_visible_patches_alone(X):
    estimator, net, batch = built(skssl.MAE, X)
    seen = []
    net.encoder.encoder.layers.register_forward_hook(lambda layers, given, output: seen.append(output.shape))
    estimator.losses(net, batch)
    net.encoder(batch.views[0])
    assert seen == [(12, 1 + 4, 96), (12, 1 + 16, 96)]
    assert [len(net.decoder.layers), net.decoder.embed.out_features] == [1, 48]


def test_mae_needs_a_vision_transformer(X):
    with pytest.raises(ValueError, match=r"MAE needs a vision transformer .*backbone='vit_micro'.* Got ConvNet"):
        quick(skssl.MAE, backbone="convnet").fit(X)


def test_masked_cells_are_as_many_in_each_image():
    found = random_mask(50, 3, 5, 0.5, torch.device("cpu"))
    assert (found.sum((1, 2)) == 8).all()
    assert found.float().mean(0).min() > 0.2, "any cell may be masked"


def masked_pixels(seed, cell, n=12, side=16):
    """Return SimMIM's mask, cell by cell."""
    torch.manual_seed(seed)
    cells = -(-side // cell)
    noise, masked = torch.rand(n, cells**2), torch.zeros(n, side, side, dtype=torch.bool)
    for i in range(n):
        for j in sorted(range(cells**2), key=lambda j: noise[i, j].item())[: int(np.ceil(0.6 * cells**2))]:
            row, column = divmod(j, cells)
            masked[i, cell * row : cell * row + cell, cell * column : cell * column + cell] = True
    return masked


@pytest.mark.parametrize("mask_size", [None, 8])
def test_simmim_of_a_vision_transformer_is_its_literal_version(mask_size, X):
    estimator, net, batch = built(skssl.SimMIM, X, mask_size=mask_size)
    images, encoder, layer, errors = batch.views[0], net.encoder, net.pixel_decoder[0], []
    with torch.no_grad():
        net.mask_token.normal_(generator=torch.Generator().manual_seed(1))
    torch.manual_seed(3)
    found = estimator.losses(net, batch)["simmim"]
    masked = masked_pixels(3, mask_size or 4)
    for i in range(12):
        tokens = [encoder.class_token[0, 0]]
        for j in range(16):
            hidden = masked[i, 4 * (j // 4), 4 * (j % 4)]
            embedded = encoder.conv_proj(patch(images, i, *divmod(j, 4))[None]).flatten()
            tokens.append(net.mask_token[0, 0] if hidden else embedded)
        x = torch.stack(tokens) + encoder.encoder.pos_embedding[0]
        x = encoder.encoder.ln(encoder.encoder.layers(x[None]))[0, 1:]
        for row in range(16):
            for column in range(16):
                if masked[i, row, column]:
                    for channel in range(3):
                        k = 16 * channel + 4 * (row % 4) + column % 4  # as PixelShuffle counts
                        predicted = layer.weight[k, :, 0, 0] @ x[4 * (row // 4) + column // 4] + layer.bias[k]
                        errors.append((predicted - images[i, channel, row, column]).abs())
    torch.testing.assert_close(found, torch.stack(errors).mean())


def test_simmim_of_a_convolutional_network_masks_pixels(X):
    estimator, net, batch = built(skssl.SimMIM, X, backbone="convnet", mask_size=5)
    with torch.no_grad():
        net.mask_token.copy_(torch.tensor([0.1, -0.2, 0.3]).view(1, 3, 1, 1))
    images, seen = batch.views[0], []
    net.encoder.register_forward_pre_hook(lambda encoder, given: seen.append(given[0]))
    torch.manual_seed(3)
    found = estimator.losses(net, batch)["simmim"]
    masked = masked_pixels(3, 5)
    assert torch.equal(seen[0], torch.where(masked[:, None], net.mask_token, images))
    grid = net.encoder.features(seen[0])
    predicted = torch.nn.functional.pixel_shuffle(net.pixel_decoder[0](grid), 8)
    errors = [(predicted - images)[i, :, masked[i]].abs().mean() for i in range(12)]
    torch.testing.assert_close(found, torch.stack(errors).mean())
    torch.testing.assert_close(simmim(predicted, images, masked), found)


@pytest.mark.parametrize(("pool", "expected"), [(None, "mean"), ("token", "token")])
def test_simmim_pools_patches_unless_told_otherwise(pool, expected, X):
    assert quick(skssl.SimMIM, backbone=ViT("micro", pool=pool), epochs=0).fit(X).encoder_.pool == expected


def test_simmim_clips_the_gradient_of_all_parameters(X):
    estimator, net, batch = built(skssl.SimMIM, X, clip_grad=1e-3)
    estimator.losses(net, batch)["simmim"].backward()
    estimator.after_backward(net)
    norms = [p.grad.norm() for p in net.parameters() if p.grad is not None]
    assert torch.stack(norms).norm().item() == pytest.approx(1e-3, rel=1e-2)


def test_blocks_may_lie_anywhere_in_the_grid():
    grid, sides = (5, 7), (2, 3)
    found = random_blocks(300, 2, grid, sides, torch.device("cpu"))
    assert found.shape == (300, 2, 6)
    corners = set()
    for block in found.flatten(0, 1).tolist():
        top, left = divmod(block[0], 7)
        assert block == [7 * (top + i) + left + j for i in range(2) for j in range(3)]
        corners.add((top, left))
    assert corners == {(top, left) for top in range(4) for left in range(5)}
    assert [block_size(grid, scale) for scale in (0.01, 0.175, 0.9)] == [(1, 1), (2, 2), (4, 6)]


def test_patches_outside_of_blocks_come_first():
    blocks = random_blocks(20, 3, (4, 4), (2, 2), torch.device("cpu"))
    for order, block in zip(order_outside(blocks, 16).tolist(), blocks.flatten(1).tolist(), strict=True):
        outside = set(range(16)) - set(block)
        assert sorted(order) == list(range(16))
        assert set(order[: len(outside)]) == outside


@pytest.mark.parametrize("n_blocks", [1, 3])
def test_ijepa_is_its_literal_version(n_blocks, X):
    estimator, net, batch = built(skssl.IJEPA, X, n_blocks=n_blocks, predictor_dim=16, predictor_depth=2)
    drift(net.target)
    images, predictor, errors = batch.views[0], net.predictor, []
    torch.manual_seed(3)
    found = estimator.losses(net, batch)["ijepa"]
    found.backward()
    assert all(p.grad is None for p in net.target.parameters())
    torch.manual_seed(3)
    top, left, noise = torch.randint(0, 3, (12, n_blocks)), torch.randint(0, 3, (12, n_blocks)), torch.rand(12, 16)
    n_context = {1: 12, 3: 4}[n_blocks]
    for i in range(12):
        blocks = [
            [4 * (top[i, k] + a).item() + (left[i, k] + b).item() for a in range(2) for b in range(2)]
            for k in range(n_blocks)
        ]
        hidden = {j for block in blocks for j in block}
        context = sorted(range(16), key=lambda j: noise[i, j].item() + (j in hidden))[:n_context]
        whole = net.target[0].tokens(images[i : i + 1])[0, 1:]
        tokens = predictor.embed(net.encoder.tokens(images[i : i + 1], torch.tensor([context]))[0])
        positions = predictor.pos_embedding[0]
        for block in blocks:
            x = [tokens[0] + positions[0], *(t + positions[1 + j] for t, j in zip(tokens[1:], context, strict=True))]
            x += [predictor.mask_token[0, 0] + positions[1 + j] for j in block]
            x = predictor.head(predictor.ln(predictor.layers(torch.stack(x)[None])[0]))[-4:]
            for j, predicted in zip(block, x, strict=True):
                target = (whole[j] - whole[j].mean()) / (whole[j].var(correction=0) + 1e-5).sqrt()
                error = (predicted - target).abs()
                errors.append(torch.where(error < 1, error**2 / 2, error - 0.5).mean())
    torch.testing.assert_close(found, torch.stack(errors).mean())


def test_ijepa_loss_is_smooth():
    errors = torch.linspace(-3, 3, 25, dtype=torch.float64)
    expected = [e**2 / 2 if abs(e) < 1 else abs(e) - 0.5 for e in errors.tolist()]
    assert ijepa(errors, torch.zeros(25)).item() == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("method", [skssl.MAE, skssl.SimMIM])
def test_masked_images_are_learned(method, X):
    history = quick(method, epochs=6, batch_size=20, lr=2e-3, augment="none").fit(X).history_["loss"]
    assert history.iloc[-1] < 0.95 * history.iloc[0]
