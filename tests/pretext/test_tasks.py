"""Pretext tasks and their estimators against literal versions."""

import copy
import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from conftest import quick
from helpers import built, reached
from scipy.ndimage import gaussian_filter
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

import skssl
from skssl import losses
from skssl.backbones import build_backbone, stages
from skssl.images import as_images
from skssl.pretext import TASKS
from skssl.pretext.colorization import color_cells, color_weights, rgb_to_lab, soft_encode
from skssl.pretext.inpainting import center_region, dcgan_discriminator, random_region
from skssl.pretext.jigsaw import far_permutations
from skssl.pretext.relative_patch import drop_channels, neighbor_pairs
from skssl.pretext.rotation import inner_square, rotate, rotate_among
from skssl.pretext.tiles import cut_tiles, encode_tiles, normalize_tiles
from skssl.training.loader import ImageLoader
from skssl.training.objective import Batch

F = nn.functional


def net_and_batch(method, X, n=12, **params):
    """A float32 net, and a batch with images and views."""
    estimator, net, batch = built(method, X, **params)
    images = torch.from_numpy(X[:n].copy()).permute(0, 3, 1, 2)
    return estimator, net.float(), Batch(images, [view[:n].float() for view in batch.views], torch.arange(n))


def places(tile, side):
    """Return the top row and left column of a tile, cut from an image whose pixels are numbered row by row."""
    first = int(tile[0, 0])
    assert torch.equal(tile, first + torch.arange(tile.shape[0])[:, None] * side + torch.arange(tile.shape[1]))
    return divmod(first, side)


# Jigsaw


def test_tiles_have_random_positions_in_their_cells():
    torch.manual_seed(0)
    numbered = torch.arange(32 * 32).view(1, 1, 32, 32).repeat(300, 1, 1, 1)
    tiles = cut_tiles(torch.cat([numbered, -numbered], 1), grid=3)  # cells of 10, tiles of 8
    assert tiles.shape == (300, 9, 2, 8, 8)
    assert torch.equal(tiles[:, :, 0], -tiles[:, :, 1])
    found = np.array([[places(tile[0], 32) for tile in image] for image in tiles])  # (300, 9, 2)
    low = np.array([(10 * i, 10 * j) for i, j in itertools.product(range(3), repeat=2)])  # row by row
    offset = found - low
    assert offset.min() == 0
    assert offset.max() == 2 + 2, "the offset of the grid plus that of the tile"
    assert (np.ptp(offset, axis=1) <= 2).all(), "the tiles of an image stay in cells of one grid"
    assert len(np.unique(offset.reshape(300, -1), axis=0)) > 290, "each image must have its own draws"
    gaps = found[:, 1, 1] - (found[:, 0, 1] + 8)
    assert set(np.unique(gaps)) == {0, 1, 2, 3, 4}, "the distance between neighbours must vary"


def test_tiles_of_rectangular_and_of_tiny_images():
    assert cut_tiles(torch.zeros(2, 3, 12, 40), grid=3).shape == (2, 9, 3, 3, 3)
    tiny = cut_tiles(torch.tensor([7.0]).view(1, 1, 1, 1), grid=3)
    assert tiny.unique().tolist() == [7.0]
    assert torch.equal(normalize_tiles(tiny), torch.zeros_like(tiny)), "a constant tile must not become NaN"


def test_normalised_tiles_are_invariant_to_brightness_contrast_and_channel_shift():
    tiles = torch.rand(2, 9, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = normalize_tiles(tiles)
    tile = tiles[1, 4, 2]
    torch.testing.assert_close(found[1, 4, 2], (tile - tile.mean()) / tile.std(correction=0))
    changed = 0.5 * tiles + torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)
    torch.testing.assert_close(normalize_tiles(changed), found)


def test_far_permutations_matches_the_greedy_search():
    found = far_permutations(4, 12, seed=3)
    everything = np.array(list(itertools.permutations(range(4))))
    for k in range(1, 12):
        distance = (everything[:, None] != found[None, :k]).mean((1, 2))
        rest = [d for p, d in zip(everything, distance, strict=True) if not (p == found[:k]).all(1).any()]
        mine = (found[k] != found[:k]).mean()
        assert mine == pytest.approx(max(rest)), k
    assert len(np.unique(far_permutations(4, 24, seed=0), axis=0)) == 24, "there are 24 permutations of 4 tiles"
    assert np.array_equal(far_permutations(9, 100, seed=0), far_permutations(9, 100, seed=0))
    nine = far_permutations(9, 100, seed=0)
    assert len(np.unique(nine, axis=0)) == 100
    assert (np.sort(nine, 1) == np.arange(9)).all()
    assert (nine[:, None] != nine).sum(2).sum() / (100 * 99) > 8.05, "a random set has a mean distance of 8"


def test_jigsaw_permutations_are_equal_in_every_training(X):
    makers = [quick(skssl.Jigsaw, random_state=seed) for seed in (0, 1)]
    makers += [quick(skssl.SimCLR, aux=skssl.JigsawTask(n_permutations=6), random_state=2)]
    first, *others = (maker._make_trainer(as_images(X)).module_.jigsaw_permutations for maker in makers)
    assert all(torch.equal(first, other) for other in others)
    again = pickle.loads(pickle.dumps(makers[0].fit(X))).partial_fit(X)
    assert torch.equal(again.net_.module_.jigsaw_permutations, first)


def test_jigsaw_loss_matches_its_formula(X, monkeypatch):
    task = skssl.JigsawTask(tile_dim=8, n_permutations=6, gray=0.0, flip=0.0)
    _, net, batch = net_and_batch(skssl.SimCLR, X, aux=task)
    fixed = cut_tiles(batch.images.float(), 3)
    monkeypatch.setattr("skssl.pretext.jigsaw.cut_tiles", lambda images, grid: fixed)
    torch.manual_seed(1)
    found = task.losses(net, batch)
    torch.manual_seed(1)
    torch.rand(2, 12)  # grey, flip
    label = torch.randint(6, (12,))
    laid = [
        normalize_tiles(fixed[i, net.jigsaw_permutations[k, slot]][None, None])[0, 0]
        for i, k in enumerate(label)
        for slot in range(9)
    ]
    reduced = net.jigsaw_tile(net.encoder(torch.stack(laid)))  # in one pass, for BatchNorm
    scores = torch.stack([net.jigsaw_head(reduced[9 * i : 9 * i + 9].flatten()) for i in range(12)])
    torch.testing.assert_close(found["jigsaw"], F.cross_entropy(scores, label), rtol=1e-4, atol=1e-5)
    assert found["jigsaw_accuracy"] == (scores.argmax(1) == label).float().mean()
    found["jigsaw"].backward()
    assert reached(net) == {"encoder", "jigsaw_tile", "jigsaw_head"}, "the head must be on the features"


def test_jigsaw_uses_images_not_views(X):
    estimator, net, batch = net_and_batch(skssl.Jigsaw, X)
    torch.manual_seed(0)
    first = estimator.losses(net, batch)["jigsaw"]
    batch.views = [view + 1 for view in batch.views]
    torch.manual_seed(0)
    assert estimator.losses(net, batch)["jigsaw"] == first
    batch.images = 255 - batch.images.flip(2)
    torch.manual_seed(0)
    assert estimator.losses(net, batch)["jigsaw"] != first


def test_jigsaw_makes_random_images_grey_and_flips_them(X, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "skssl.pretext.jigsaw.cut_tiles", lambda images, grid: seen.append(images) or cut_tiles(images, 3)
    )
    _, net, batch = net_and_batch(skssl.SimCLR, X, aux=(task := skssl.JigsawTask(gray=0.5, flip=0.5, n_permutations=6)))
    torch.manual_seed(0)
    task.losses(net, batch)
    gray = (seen[0].amax(1) - seen[0].amin(1)).amax((1, 2)) < 1e-2
    assert 0 < gray.sum() < 12
    same = (seen[0] - batch.images).abs().amax((1, 2, 3)) < 1e-2
    mirrored = (seen[0] - batch.images.flip(3)).abs().amax((1, 2, 3)) < 1e-2
    assert 0 < mirrored[~gray].sum() < (~gray).sum()
    assert (same ^ mirrored)[~gray].all()


def test_small_tiles_are_encoded_in_float32_on_cpu(X):
    seen = []
    encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    encoder[0].register_forward_hook(lambda module, given, output: seen.append((given[0].shape[-1], output.dtype)))
    with torch.autocast("cpu", torch.bfloat16):
        encode_tiles(encoder, torch.zeros(2, 9, 3, 15, 15))
        encode_tiles(encoder, torch.zeros(2, 9, 3, 16, 16))
    encode_tiles(encoder, torch.zeros(2, 9, 3, 16, 16), size=20)
    assert seen == [(15, torch.float32), (16, torch.bfloat16), (20, torch.float32)]


def test_jigsaw_rejects_too_many_permutations(X):
    with pytest.raises(ValueError, match=r"'n_permutations' parameter of JigsawTask must be at most 24.*Got 100"):
        quick(skssl.Jigsaw, grid=2, n_permutations=100).fit(X)


def test_jigsaw_accuracy_exceeds_chance():
    X, _ = skssl.datasets.make_shapes(256, image_size=24, random_state=0)
    history = quick(skssl.Jigsaw, epochs=8, n_permutations=4, tile_dim=32, batch_size=32, lr=0.1).fit(X).history_
    assert history["jigsaw_accuracy"].iloc[-1] > 0.35


# Relative patch location


def test_neighbor_pairs_label_the_relative_position():
    pairs = set(map(tuple, neighbor_pairs(3).T.tolist()))
    assert len(pairs) == neighbor_pairs(3).shape[1] == 40
    # The centre is 4; its neighbours are labelled row by row, without the centre itself.
    assert {(second, side) for first, second, side in pairs if first == 4} == {
        (0, 0), (1, 1), (2, 2), (3, 3), (5, 4), (6, 5), (7, 6), (8, 7)
    }  # fmt: skip
    assert all((second, first, 7 - side) in pairs for first, second, side in pairs), "swapped, the label is opposite"
    assert {second for first, second, _ in pairs if first == 0} == {1, 3, 4}, "only neighbours are paired"


@pytest.mark.parametrize("size", [None, 7])
def test_relative_patch_loss_matches_its_formula(size, X, monkeypatch):
    task = skssl.RelativePatchTask(hidden_dim=16, drop_colors=0.0, tile_size=size)
    _, net, batch = net_and_batch(skssl.SimCLR, X, aux=task)
    fixed = cut_tiles(batch.images.float(), 3)
    monkeypatch.setattr("skssl.pretext.relative_patch.cut_tiles", lambda images, grid: fixed)
    found = task.losses(net, batch)
    patches = normalize_tiles(fixed).flatten(0, 1)  # of 4x4 pixels
    if size:
        patches = F.interpolate(patches, size=(size, size), mode="bilinear", antialias=True)
    features = net.encoder(patches).view(12, 9, -1)
    joined, label = [], []
    for image in features:
        for a, b in itertools.product(range(9), repeat=2):
            down, right = b // 3 - a // 3, b % 3 - a % 3
            if a != b and max(abs(down), abs(right)) == 1:
                joined.append(torch.cat([image[a], image[b]]))
                label.append(
                    [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)].index((down, right))
                )
    scores = net.relative_patch_head(torch.stack(joined))
    torch.testing.assert_close(
        found["relative_patch"], F.cross_entropy(scores, torch.tensor(label)), rtol=1e-4, atol=1e-5
    )
    found["relative_patch"].backward()
    assert reached(net) == {"encoder", "relative_patch_head"}


def test_tile_size_enlarges_patches_for_encoders_with_large_kernels(X):
    needy = nn.Sequential(nn.Conv2d(3, 4, 11), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(RuntimeError, match="Kernel size can't be greater"):
        quick(skssl.RelativePatch, backbone=needy).fit(X)
    assert np.isfinite(quick(skssl.RelativePatch, backbone=needy, tile_size=11).fit(X).history_["loss"]).all()
    with pytest.raises(ValueError, match="'tile_size' parameter of RelativePatch"):
        quick(skssl.RelativePatch, tile_size=0).fit(X)


def test_drop_channels_keeps_one_random_channel():
    torch.manual_seed(0)
    patches = normalize_tiles(torch.rand(50, 9, 3, 8, 8))
    found = drop_channels(patches, 1.0)
    kept = (found == patches).all(4).all(3)  # (50, 9, 3)
    assert (kept.sum(2) == 1).all()
    assert np.bincount(kept.float().argmax(2).flatten()) / 450 == pytest.approx([1 / 3] * 3, abs=0.08)
    assert found[~kept].std().item() == pytest.approx(0.01, rel=0.05)
    assert torch.equal(drop_channels(patches, 0.0), patches)
    half = (drop_channels(patches, 0.5) == patches).all(4).all(3).all(2).float().mean().item()
    assert half == pytest.approx(0.5, abs=0.1)
    gray = patches[:, :, :1]
    assert torch.equal(drop_channels(gray, 1.0), gray)


def test_relative_patch_hides_colours_from_the_encoder(X):
    task = skssl.RelativePatchTask(hidden_dim=16)
    _, net, batch = net_and_batch(skssl.SimCLR, X, aux=task)
    batch.images = torch.randint(256, (12, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    seen = []
    net.encoder.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    task.losses(net, batch)
    (patches,) = seen
    assert ((patches.std((2, 3)) > 0.1).sum(1) == 1).all()


# Rotation's ablations


@pytest.mark.parametrize("angles", [(0, 45, 200), tuple(range(0, 360, 30))])
def test_interpolated_rotation_matches_a_loop_and_has_no_empty_corners(angles):
    share = inner_square(angles)
    view = torch.rand(len(angles), 1, 9, 9, generator=torch.Generator().manual_seed(0))
    found = rotate(view, torch.tensor(angles, dtype=torch.float32), share)
    for image, turned, angle in zip(view[:, 0].numpy(), found[:, 0].numpy(), angles, strict=True):
        c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        for row, column in itertools.product(range(9), repeat=2):
            right, up = (column - 4) * share, (4 - row) * share
            # The source of the pixel at (right, up) is found by the opposite rotation.
            x, y = 4 + (c * right + s * up), 4 - (-s * right + c * up)
            assert min(x, y) > -1e-9
            assert max(x, y) < 8 + 1e-9, "within the centres of the border pixels, so nothing is extrapolated"
            x, y = min(max(x, 0), 8), min(max(y, 0), 8)
            i, j = min(int(y), 7), min(int(x), 7)
            v, u = y - i, x - j
            (a, b), (d, e) = image[i : i + 2, j : j + 2]
            expected = (1 - v) * ((1 - u) * a + u * b) + v * ((1 - u) * d + u * e)
            assert turned[row, column] == pytest.approx(expected, abs=1e-5)


def test_interpolated_quarter_rotation_matches_rot90():
    view = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    angles = torch.tensor([0.0, 90.0, 180.0, 270.0])
    exact = torch.stack([image.rot90(k, (1, 2)) for k, image in enumerate(view)])
    torch.testing.assert_close(rotate(view, angles, 1.0), exact, rtol=1e-4, atol=1e-5)
    assert torch.equal(rotate(view, angles), exact)
    upright = rotate(view, torch.zeros(4), inner_square((0, 45)))
    assert not torch.allclose(upright, view, atol=0.05), "0 degrees must be cropped and resized, too"
    torch.testing.assert_close(rotate(view, angles, 0.8), rotate(exact, torch.zeros(4), 0.8), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"square images.*8 and 6"):
        rotate(view[..., :6], angles, 0.8)


def texture(views):
    """Return the products of near pixels, and the energy by place, of views (n, 1, 32, 32)."""
    shifts = [(y, x) for y in range(4) for x in range(-3, 4)]
    near = [(views * views.roll(shift, (2, 3)))[..., 3:, 3:-3].mean((2, 3)) for shift in shifts]
    places = F.adaptive_avg_pool2d(views.square(), 8).flatten(1)
    return torch.cat([*near, places], dim=1).numpy()


def test_corners_and_blur_do_not_tell_the_angle_of_noise():
    angles, n = (0, 45), 1200
    noise = torch.randn(n, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    angle = torch.tensor(angles).repeat(n // 2).float()
    accuracy = {}
    for name, turned in {
        "bilinear": rotate(noise, angle, inner_square(angles)),
        "alike": rotate_among(noise, angle, angles),
    }.items():
        model, features = make_pipeline(StandardScaler(), LogisticRegression(C=0.1)), texture(turned)
        accuracy[name] = model.fit(features[:600], angle[:600]).score(features[600:], angle[600:])
    assert accuracy["bilinear"] > 0.9
    assert 0.4 < accuracy["alike"] < 0.6, "a guess"


def test_rotation_among_angles_blurs_only_if_some_differ_by_other_than_quarter_turns():
    view = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for angles in [(0, 90, 180, 270), (45, 135, 225, 315)]:
        angle = torch.tensor(angles).float()
        assert torch.equal(rotate_among(view, angle, angles), rotate(view, angle, inner_square(angles)))
    k = torch.tensor([0.0, 90.0, 180.0, 270.0])
    mixed = rotate_among(view, k, (0, 90, 180, 270, 45))
    for i in range(4):  # quarter turns stay exact turns of each other
        upright = rotate_among(view[i : i + 1], torch.zeros(1), (0, 90, 180, 270, 45))
        torch.testing.assert_close(mixed[i], upright[0].rot90(i, (1, 2)), rtol=1e-4, atol=1e-5)
    smooth = torch.stack([torch.from_numpy(gaussian_filter(channel, 1, truncate=3)) for channel in view[0]])
    share = inner_square((0, 45)) * (1 - 8 / 16)
    expected = rotate(smooth[None], torch.zeros(1), share, "bicubic")
    torch.testing.assert_close(rotate_among(view[:1], torch.zeros(1), (0, 45)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("angles", [(0, 180), tuple(range(0, 360, 45))])
def test_rotnet_loss_with_any_angles(angles, X):
    estimator, net, batch = net_and_batch(skssl.RotNet, X, angles=angles)
    found = estimator.losses(net, batch)
    (view,) = batch.views
    turned = [rotate_among(view, torch.full((12,), float(angle)), angles) for angle in angles]
    scores = net.turn_classifier(net.encoder(torch.cat(turned)))
    label = torch.arange(len(angles)).repeat_interleave(12)
    torch.testing.assert_close(found["rotation"], F.cross_entropy(scores, label))


def turned_outputs(task, net, batch, different=False):
    """The output of the head for both views, with the same draws as the task."""
    k, labels, outputs = len(task.angles), [], []
    for view in batch.views:
        if different and labels:
            labels.append((labels[0] + torch.randint(1, k, (12,))) % k)
            torch.rand(12)
        else:
            labels.append(torch.randint(k, (12,)))
        turned = rotate(view, net.rotation_angles[labels[-1]])
        outputs.append(net.rotation_head(net.projector(net.encoder(turned))))
    return outputs, labels


def test_rotation_by_sup_con(X):
    task = skssl.Rotation(loss="sup_con")
    _, net, batch = net_and_batch(skssl.SimSiam, X, aux=task)
    torch.manual_seed(2)
    found = task.losses(net, batch)
    torch.manual_seed(2)
    outputs, labels = turned_outputs(task, net, batch)
    expected = sum(losses.sup_con(z, y) for z, y in zip(outputs, labels, strict=True))
    torch.testing.assert_close(found, {"rotation": expected})


def test_rotation_by_cosine_compares_different_angles(X):
    task = skssl.Rotation(loss="cosine")
    _, net, batch = net_and_batch(skssl.SimSiam, X, aux=task)
    torch.manual_seed(2)
    found = task.losses(net, batch)
    torch.manual_seed(2)
    outputs, labels = turned_outputs(task, net, batch, different=True)
    assert (labels[0] != labels[1]).all()
    torch.testing.assert_close(found, {"rotation": F.cosine_similarity(*outputs).mean()})
    found["rotation"].backward()
    assert reached(net) == {"encoder", "projector", "rotation_head"}
    batch.views = batch.views[:1]
    assert task.losses(net, batch)["rotation"] < 1, "a single view must be rotated by two angles"


def gradients(module):
    return [p.grad is not None and p.grad.abs().sum().item() > 0 for p in module.parameters()]


@pytest.mark.parametrize("head", ["projector", "backbone"])
@pytest.mark.parametrize(("shared", "n"), [("conv1", 1), ("conv3", 3), ("conv4", 4), ("backbone", 4), ("projector", 4)])
def test_rotation_copies_the_layers_that_it_does_not_share(shared, n, head, X):
    task = skssl.Rotation(shared=shared, head=head)
    estimator, net, batch = net_and_batch(skssl.SimCLR, X, aux=task)
    parameters = len(list(net.encoder.parameters()))
    task.losses(net, batch)["rotation"].backward()
    assert gradients(net.encoder) == [True] * (3 * n) + [False] * (parameters - 3 * n)
    if shared.startswith("conv"):
        own = {id(p) for p in net.rotation_encoder.parameters()} - {id(p) for p in net.encoder.parameters()}
        assert len(own) == parameters - 3 * n
        assert all(gradients(net.rotation_encoder))
    else:
        assert not hasattr(net, "rotation_encoder")
    assert any(gradients(net.projector)) == (shared == "projector" and head == "projector")
    assert hasattr(net, "rotation_projector") == (shared != "projector" and head == "projector")
    net.zero_grad()
    estimator.losses(net, batch)["nt_xent"].backward()
    assert all(gradients(net.encoder))
    assert reached(net) <= {"encoder", "projector", "rotation_encoder"}, "at most through shared layers"


def test_stages_of_a_resnet():
    encoder, _ = build_backbone("resnet18", (3, 32, 32))
    found = stages(encoder)
    assert list(found) == ["conv1", "layer1", "layer2", "layer3", "layer4"]
    assert found["conv1"][:2] == [encoder.conv1, encoder.bn1]
    assert found["layer2"] == [encoder.layer2]
    kept = {id(p) for stage in found.values() for layer in stage for p in layer.parameters()}
    assert kept == {id(p) for p in encoder.parameters()}


def test_rotation_branch_shares_its_layers_after_pickling(X):
    def make():
        return quick(skssl.SimCLR, aux=skssl.Rotation(shared="conv2"), epochs=2)

    parts = make()
    for _ in range(2):
        parts = pickle.loads(pickle.dumps(parts.partial_fit(X)))
    assert np.array_equal(parts.transform(X), make().fit(X).transform(X))
    net = parts.net_.module_
    assert net.rotation_encoder.features[0] is net.encoder.features[0]


# Colorization


def literal_lab(red, green, blue):
    r, g, b = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (red, green, blue))
    x = (0.4124564 * r + 0.3575761 * g + 0.1804375 * b) / 0.95047
    y = 0.2126729 * r + 0.7151522 * g + 0.0721750 * b
    z = (0.0193339 * r + 0.1191920 * g + 0.9503041 * b) / 1.08883
    x, y, z = (t ** (1 / 3) if t > (6 / 29) ** 3 else t / (3 * (6 / 29) ** 2) + 4 / 29 for t in (x, y, z))
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def test_rgb_to_lab_matches_the_formulas():
    draw = np.random.default_rng(0)
    pixels = [(0, 0, 0), (1, 1, 1), (0.5, 0.5, 0.5), (1, 0, 0), (0, 0.03, 0.002), *draw.random((20, 3)).tolist()]
    images = torch.tensor(pixels, dtype=torch.float64).view(5, 5, 3).movedim(2, 0)[None]
    found = rgb_to_lab(images)[0].movedim(0, 2).reshape(-1, 3).numpy()
    np.testing.assert_allclose(found, [literal_lab(*pixel) for pixel in pixels], rtol=1e-9, atol=1e-9)
    known = {0: (0, 0, 0), 1: (100, 0, 0), 3: (53.24, 80.09, 67.20)}  # black, white and red from published tables
    for i, lab in known.items():
        assert found[i] == pytest.approx(lab, abs=0.02)
    with torch.autocast("cpu", torch.bfloat16):
        assert rgb_to_lab(images.float()).dtype == torch.float32


def test_color_cells_cover_srgb():
    cells = color_cells()
    colours = rgb_to_lab(torch.rand(20000, 3, 1, 1, generator=torch.Generator().manual_seed(0)))[:, 1:, 0, 0]
    assert (torch.cdist(colours, cells).amin(1) <= 50**0.5 + 1e-3).float().mean() > 0.999
    assert torch.equal(cells % 10, torch.zeros_like(cells))


def test_soft_encode_is_a_gaussian_over_the_five_nearest_cells():
    cells = color_cells()
    ab = torch.tensor([[3.0, -4.0], [60.0, 20.0]])
    found = soft_encode(ab, cells)
    for colour, shares in zip(ab, found, strict=True):
        distance = [math.dist(colour, cell) for cell in cells.tolist()]
        nearest = sorted(range(len(cells)), key=distance.__getitem__)[:5]
        weight = {i: math.exp(-(distance[i] ** 2) / (2 * 5**2)) for i in nearest}
        expected = [weight.get(i, 0.0) / sum(weight.values()) for i in range(len(cells))]
        assert shares.tolist() == pytest.approx(expected, abs=1e-6)


def test_rare_colours_have_larger_weights():
    counts = torch.tensor([60.0, 30.0, 10.0, 0.0])
    share = [0.6, 0.3, 0.1]
    raw = [1 / (0.5 * p + 0.5 / 3) for p in share]
    mean = sum(p * w for p, w in zip(share, raw, strict=True))
    assert color_weights(counts, 0.5).tolist() == pytest.approx([*(w / mean for w in raw), 0.0])
    assert color_weights(counts, 1.0).tolist() == pytest.approx([1.0, 1.0, 1.0, 0.0])
    assert color_weights(counts, 0.0).isfinite().all()


def test_colorization_loss_matches_its_formula(X, monkeypatch):
    task = skssl.ColorizationTask(hidden_dim=8, stride=4)
    _, net, batch = net_and_batch(skssl.SimCLR, X, n=4, aux=task)
    images = batch.images.float() / 255
    images[3] = 0.4  # grey
    monkeypatch.setattr(skssl.ColorizationTask, "_augment", staticmethod(lambda images, generator: images))
    batch.images = images
    seen = []
    net.encoder.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    for step in (1, 2):  # the counts accumulate over steps
        found = task.losses(net, batch)["colorization"]
        lab = rgb_to_lab(images)
        expected_input = ((lab[:, :1] - 50) / 25).repeat(1, 3, 1, 1)
        torch.testing.assert_close(seen[-1], expected_input)
        decoded = net.colorization_decoder(net.encoder.features(expected_input))
        logs = net.colorization_head(F.interpolate(decoded, (4, 4), mode="bilinear")).log_softmax(1)
        labels = {
            (i, r, c): soft_encode(lab[i, 1:, 4 * r + 2, 4 * c + 2][None], net.colorization_cells)[0]
            for i, r, c in itertools.product(range(4), repeat=3)
        }
        counts = step * torch.stack(list(labels.values())).sum(0)
        torch.testing.assert_close(net.colorization_counts, counts, rtol=1e-4, atol=1e-4)
        weights = color_weights(counts, 0.5)
        assert lab[3, 1:].abs().amax() < 0.1
        total = 0.0
        for (i, r, c), z in labels.items():
            if any(abs(v) > 5 for v in lab[i, 1:, 2::4, 2::4].flatten()):  # otherwise it counts as grey
                total -= weights[z.argmax()] * (z * logs[i, :, r, c]).sum() / len(labels)
        torch.testing.assert_close(found, total, rtol=1e-3, atol=1e-4)
    found.backward()
    assert reached(net) == {"encoder", "colorization_decoder", "colorization_head"}


def test_colorization_crops_keep_their_colours():
    even = torch.rand(16, 3, 1, 1, generator=torch.Generator().manual_seed(0)).repeat(1, 1, 16, 16)
    found = skssl.ColorizationTask()._augment(even, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, even)


def test_colorization_uses_images_not_views(X):
    estimator, net, batch = net_and_batch(skssl.Colorization, X, augment="simclr")
    found = []
    for shift in (0, 1):
        batch.views = [view + shift for view in batch.views]
        torch.manual_seed(0)
        net.colorization_counts.zero_()
        found.append(estimator.losses(net, batch)["colorization"].item())
    assert found[0] == found[1]
    batch.images = batch.images[:, :1].repeat(1, 3, 1, 1)
    assert estimator.losses(net, batch)["colorization"] == 0, "grey images must have no weight"


def test_colorization_with_other_encoders(X):
    for backbone in ("resnet18", nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU())):
        _, net, batch = net_and_batch(skssl.Colorization, X, backbone=backbone)
        assert net.method.losses(net, batch)["colorization"].isfinite()
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 256, 8))
    with pytest.raises(ValueError, match="last map"):
        quick(skssl.Colorization, backbone=flat).fit(X)


# Inpainting


@pytest.mark.parametrize(
    ("side", "hole", "margin"), [(16, 8, 1), (32, 16, 1), (128, 64, 4), (13, 6, 1), (4, 2, 0), (1, 1, 0)]
)
def test_center_region_and_its_margin(side, hole, margin):
    rows, columns, found = center_region(side, 2 * side)
    assert (rows.stop - rows.start, columns.stop - columns.start, found) == (hole, side, margin)
    assert abs(rows.start - (side - rows.stop)) <= 1


@pytest.mark.parametrize("side", [16, 20])
def test_inpainting_loss_of_the_center_matches_its_formula(side, X):
    X = np.tile(X, (1, 2, 2, 1))[:, :side, :side]
    task = skssl.ContextEncoderTask(region="center", hidden_dim=16)
    _, net, batch = net_and_batch(skssl.SimCLR, X, aux=task)
    view = torch.randn(12, 3, side, side, generator=torch.Generator().manual_seed(1))
    batch.views = [view, view + 1]
    seen = []
    net.encoder.register_forward_pre_hook(lambda module, given: seen.append(given[0].clone()))
    before = view.clone()
    found = task.losses(net, batch)["inpainting"]
    assert torch.equal(view, before), "the view of the method must not be masked"
    q, half = side // 4, side // 2
    masked = view.clone()
    masked[:, :, q + 1 : q + half - 1, q + 1 : q + half - 1] = 0
    assert torch.equal(seen[0], masked)
    made = net.inpainting_decoder(net.encoder(masked))
    if side == 20:
        made = F.interpolate(made, (10, 10), mode="bilinear")
    total = 0.0
    for r, c in itertools.product(range(half), repeat=2):
        weight = 10 if {r, c} & {0, half - 1} else 1
        total += weight * ((made[:, :, r, c] - view[:, :, q + r, q + c]) ** 2).sum()
    torch.testing.assert_close(found, total / (12 * 3 * half**2), rtol=1e-4, atol=1e-5)
    found.backward()
    assert reached(net) == {"encoder", "inpainting_decoder"}


@pytest.mark.parametrize("side", [16, 20])
def test_inpainting_loss_of_random_regions_matches_its_formula(side, X):
    X = np.tile(X, (1, 2, 2, 1))[:, :side, :side]
    _, net, batch = net_and_batch(skssl.SimCLR, X, aux=skssl.ContextEncoderTask(hidden_dim=16))
    view = torch.randn(12, 3, side, side, generator=torch.Generator().manual_seed(1))
    batch.views = [view, view + 1]
    seen = []
    net.encoder.register_forward_pre_hook(lambda module, given: seen.append(given[0].clone()))
    found = net.tasks["inpainting"][0].losses(net, batch)["inpainting"]
    made = net.inpainting_decoder(net.encoder(seen[0]))
    made = F.interpolate(made, (side, side), mode="bilinear") if side == 20 else made
    errors = []
    for i, r, c in itertools.product(range(12), range(side), range(side)):
        if (seen[0][i, :, r, c] == 0).all():
            errors.append((made[i, :, r, c] - view[i, :, r, c]).square().mean())
        else:
            assert torch.equal(seen[0][i, :, r, c], view[i, :, r, c])
    assert len(errors) == 12 * side**2 // 4, "a quarter of each image is hidden"
    torch.testing.assert_close(found, torch.stack(errors).mean(), rtol=1e-4, atol=1e-5)
    found.backward()
    assert reached(net) == {"encoder", "inpainting_decoder"}


@pytest.mark.parametrize("region", ["random", "center"])
def test_adversarial_inpainting_has_the_gradients_of_two_literal_losses(region, X, monkeypatch):
    narrow = torch.Tensor.float
    monkeypatch.setattr(torch.Tensor, "float", lambda x: x if x.dtype == torch.float64 else narrow(x))
    _, net, batch = built(skssl.ContextEncoder, X, region=region, hidden_dim=16, adversarial_weight=0.3)
    other, (view,) = copy.deepcopy(net), batch.views
    torch.manual_seed(1)
    found = net(batch)
    found["loss"].backward()

    torch.manual_seed(1)
    weight = torch.ones(8, 8)
    weight[[0, -1]] = weight[:, [0, -1]] = 10
    if region == "random":
        hole = random_region(12, 16, 16, view.device).double()
        made = hole * other.inpainting_decoder(other.encoder(view * (1 - hole))) + (1 - hole) * view
        real, error = view, (made - view).square().sum() / (3 * hole.sum())
    else:
        filled, real = view.clone(), view[:, :, 4:12, 4:12]
        filled[:, :, 5:11, 5:11] = 0
        made = other.inpainting_decoder(other.encoder(filled))
        error = (weight * (made - real) ** 2).mean()
    is_real, made_is_real = (torch.sigmoid(other.inpainting_discriminator(images)) for images in (real, made))
    critic = -is_real.log().mean() - (1 - made_is_real).log().mean()
    maker = 0.7 * error - 0.3 * made_is_real.log().mean()
    for name, loss in (("discriminator", critic), ("decoder", maker)):
        parameters = list(other.get_submodule(f"inpainting_{name}").parameters())
        parameters += list(other.encoder.parameters()) if name == "decoder" else []
        expected = torch.autograd.grad(loss, parameters, retain_graph=True)
        mine = list(net.get_submodule(f"inpainting_{name}").parameters())
        mine += list(net.encoder.parameters()) if name == "decoder" else []
        for p, gradient in zip(mine, expected, strict=True):
            torch.testing.assert_close(p.grad, gradient, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found["loss"], critic + maker)
    right = torch.cat([is_real > 0.5, made_is_real < 0.5]).double().mean().item()
    assert found["inpainting_discriminator_accuracy"].item() == pytest.approx(right)
    for (name, value), after in zip(net.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(value, after, rtol=1e-9, atol=1e-12, msg=name)


def test_the_discriminator_is_dcgans():
    torch.manual_seed(0)
    convolutions = [part for part in dcgan_discriminator(3, 64, 512).modules() if isinstance(part, nn.Conv2d)]
    assert [part.out_channels for part in convolutions] == [64, 128, 256, 512, 1]
    assert all(part.weight.std().item() == pytest.approx(0.02, rel=0.1) for part in convolutions)
    assert dcgan_discriminator(1, 4, 8)(torch.zeros(2, 1, 4, 4)).shape == (2,)


def test_the_discriminator_learns_to_tell_regions_with_a_tenth_of_the_rate(X):
    few = {"region": "center", "epochs": 8, "batch_size": 8, "schedule": "constant", "momentum": 0.5, "lr": 0.05}
    trained = quick(skssl.ContextEncoder, adversarial_weight=0.001, **few).fit(X)
    rates = {group["lr"] for group in trained.net_.optimizer_.param_groups}
    assert sorted(rates) == pytest.approx([0.005, 0.05])
    accuracy = trained.history_["inpainting_discriminator_accuracy"]
    assert accuracy.iloc[0] < 0.6 < 0.7 < accuracy.iloc[-1]
    assert "inpainting_discriminator" not in quick(skssl.ContextEncoder).fit(X).history_


def test_random_regions_are_smooth_and_differ_between_images():
    torch.manual_seed(0)
    holes = random_region(200, 32, 32, torch.device("cpu"))[:, 0]
    assert (holes.sum((1, 2)) == 256).all()
    assert len({tuple(hole.flatten().tolist()) for hole in holes}) == 200
    alike = (holes[:, 1:] == holes[:, :-1]).float().mean()  # of neighbours; 1/16 + 9/16 if they were independent
    assert alike > 0.85
    share = holes.float().mean(0)
    assert ((share > 0.05) & (share < 0.5)).all(), "every pixel must be hidden in some images"


def test_inpainting_loss_decreases():
    X, _ = skssl.datasets.make_shapes(128, image_size=16, random_state=0)
    history = quick(skssl.ContextEncoder, epochs=6, hidden_dim=64, batch_size=32, lr=5e-3).fit(X).history_
    assert history["inpainting"].iloc[-1] < 0.8 * history["inpainting"].iloc[0]


def test_every_task_by_name_with_a_method(X):
    history = quick(skssl.BYOL, aux=list(TASKS), aux_weight={"jigsaw": 0.5}).fit(X).history_
    assert set(TASKS) < set(history)
    weights = {name: 0.5 if name == "jigsaw" else skssl.BYOL.default_settings.aux_weight for name in TASKS}
    expected = history["byol"] + sum(weight * history[name] for name, weight in weights.items())
    np.testing.assert_allclose(history["loss"], expected, rtol=1e-3)
    with pytest.raises(ValueError, match="Unknown aux 'jigsw', did you mean 'jigsaw'"):
        quick(skssl.BYOL, aux="jigsw").fit(X)


@pytest.mark.parametrize(
    ("method", "aux", "n_views"),
    [
        (skssl.Jigsaw, None, 0),
        (skssl.Colorization, "relative_patch", 0),
        (skssl.RelativePatch, "rotation", 1),
        (skssl.ContextEncoder, None, 1),
        (skssl.SimCLR, "jigsaw", 2),
    ],
)
def test_views_are_skipped_when_no_loss_uses_them(method, aux, n_views, X, monkeypatch):
    seen = []
    views = ImageLoader.views
    monkeypatch.setattr(ImageLoader, "views", lambda *given: seen.append(views(*given)) or seen[-1])
    history = quick(method, aux=aux).fit(X).history_
    assert {len(made) for made, corners in seen} == {n_views}
    assert history["embedding_std"].notna().all()
