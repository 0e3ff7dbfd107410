"""iBOT: masks, losses and the step against literal versions, view by view and patch by patch."""

import math

import numpy as np
import pytest
import torch
from conftest import quick
from helpers import built, drift, random_rows, reached

import skssl
from skssl.backbones import ViT
from skssl.losses import ibot, koleo, sinkhorn
from skssl.methods.ibot import random_block_mask, random_mask_sizes

CPU = torch.device("cpu")


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def test_ibot_loss_is_a_mean_over_the_masked_patches_of_each_view():
    (student, scores), temperature = random_rows(2), 0.2
    targets = scores.softmax(1)
    views = [[0, 1, 2], [], [3], [4, 5]]  # the rows of each of four views
    total = 0.0
    for rows in views:
        losses = [-targets[j].detach().numpy() @ np.log(softmax(student[j].detach().numpy() / 0.2)) for j in rows]
        total += sum(losses) / max(len(rows), 1)
    n_masked = torch.tensor([len(rows) for rows in views for _ in rows])
    found = ibot(student, targets, n_masked, 4, temperature)
    assert found.item() == pytest.approx(total / 4, rel=1e-12)
    found.backward()
    assert (student.grad.abs().sum(1) > 0).all()
    assert scores.grad is None


def test_koleo_is_the_logarithm_of_the_distance_of_nearest_neighbours():
    (z,) = random_rows(1, n=9)
    unit = [row / np.linalg.norm(row) for row in z.detach().numpy()]
    least = [min(np.linalg.norm(a - b) for j, b in enumerate(unit) if j != i) for i, a in enumerate(unit)]
    found = koleo(z)
    assert found.item() == pytest.approx(-np.mean(np.log(least)), rel=1e-7)
    found.backward()
    spread = (z - 0.01 * z.grad).detach()
    assert koleo(spread) < found


def test_koleo_of_equal_embeddings_is_finite():
    z = torch.ones(3, 4, requires_grad=True)
    koleo(z).backward()
    assert torch.isfinite(z.grad).all()


def test_mask_sizes_are_evenly_spaced_over_a_share_of_the_views():
    torch.manual_seed(0)
    sizes, total = random_mask_sizes((2, 50), 64, (0.1, 0.5), 0.5, CPU)
    assert sizes.shape == (2, 50)
    masked = sizes[sizes > 0]
    assert sorted(masked.tolist()) == [6 + i * 27 // 50 for i in range(50)]
    assert masked.max() == 32
    assert sizes.sum() == total
    assert 15 < (sizes[0] > 0).sum() < 35, "in random order"
    assert random_mask_sizes((2, 1), 4, (0.1, 0.2), 0.1, CPU)[1] == 1, "at least one patch of one view"


@pytest.mark.parametrize("grid", [(8, 8), (5, 9)])
def test_block_masks_are_those_of_a_literal_version(grid):
    """BEiT's loop for each view with the same random numbers, and patches drawn at random for those missing."""
    height, width = grid
    sizes = torch.tensor([[0, 1, 4, 7], [12, 20, 22, 22]])
    torch.manual_seed(5)
    found = random_block_mask(sizes, grid)
    assert torch.equal(found.sum(-1), sizes)
    torch.manual_seed(5)
    share, log_aspect, top, left = torch.rand(4, 16, 2, 4)
    noise = torch.rand(2, 4, height * width)
    low, completed = (min(grid) // 3) ** 2, 0
    for a in range(2):
        for b in range(4):
            mask, size = np.zeros(grid, bool), sizes[a, b].item()
            for i in range(16):
                missing = size - mask.sum()
                area = low + (missing - low) * share[i, a, b].item()
                aspect = math.exp((2 * log_aspect[i, a, b].item() - 1) * math.log(1 / 0.3))
                h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
                if h < height and w < width:
                    y, x = int(top[i, a, b].item() * (height - h + 1)), int(left[i, a, b].item() * (width - w + 1))
                    if h * w - mask[y : y + h, x : x + w].sum() <= missing:
                        mask[y : y + h, x : x + w] = True
            mask = mask.ravel()
            assert found[a, b][mask].all()
            others = [j for j in noise[a, b].argsort(descending=True).tolist() if not mask[j]]
            mask[others[: size - mask.sum()]] = True
            completed += len(others) < height * width
            assert np.array_equal(found[a, b].numpy(), mask)
    assert completed > 3


def test_block_masks_are_rectangles_rather_than_single_patches():
    torch.manual_seed(0)
    sizes, _ = random_mask_sizes((400,), 196, (0.1, 0.5), 1.0, CPU)
    masks = random_block_mask(sizes, (14, 14)).view(-1, 14, 14).float()
    edges = masks.diff(dim=1).abs().sum() + masks.diff(dim=2).abs().sum()
    assert edges / masks.sum() < 0.7, "about 2.6 for patches drawn one by one, 0.6 for the masks of the authors' code"
    everywhere = masks.mean(0)
    assert everywhere.min() > 0.01, "corners are masked less often"
    assert everywhere.max() < 0.6


@pytest.mark.parametrize(("centering", "n_local"), [("mean", 0), ("mean", 2), ("sinkhorn", 0)])
def test_ibot_is_its_literal_version(centering, n_local, X):
    augment = skssl.MultiCrop(n_local=n_local, local_size=8) if n_local else None
    estimator, net, batch = built(skssl.IBOT, X, centering=centering, koleo=0.3, augment=augment, head_norm=False)
    drift(net.target)
    with torch.no_grad():
        net.mask_token.normal_(generator=torch.Generator().manual_seed(1))
    views = [view[:, :, :8, :8] if i >= 2 else view for i, view in enumerate(batch.views)]
    batch.views = views
    n, center, patch_center = 12, np.linspace(-0.1, 0.1, 12), np.linspace(0.2, -0.1, 12)
    net.center.copy_(torch.from_numpy(center))
    net.patch_center.copy_(torch.from_numpy(patch_center))
    torch.manual_seed(3)
    found = estimator.losses(net, batch)
    torch.manual_seed(3)
    sizes, total = random_mask_sizes((2, n), 16, (0.1, 0.5), 0.5, CPU)
    masks = random_block_mask(sizes, (4, 4))

    encoder, ours, theirs = net.encoder, torch.nn.Sequential(net.projector, net.prototypes), net.target[1:]
    student, teacher, classes, patches = {}, {}, {}, []
    for v, view in enumerate(views):
        for i in range(n):
            image = view[i : i + 1]
            mask = masks[v, i][None] if v < 2 else None
            tokens = encoder.tokens(image, None, mask, net.mask_token)[0]
            student[v, i], classes[v, i] = ours(tokens[:1])[0], tokens[0]
            if v < 2:
                whole = net.target[0].tokens(image)[0]
                teacher[v, i] = theirs(whole[:1])[0]
                chosen = 1 + masks[v, i].nonzero().flatten()
                patches += [(v, i, ours(tokens[j][None])[0], theirs(whole[j][None])[0]) for j in chosen]
    assert len(patches) == total
    scores = torch.stack([teacher[v, i] for v in range(2) for i in range(n)])
    patch_scores = torch.stack([patch[3] for patch in patches])
    if centering == "mean":
        q = ((scores - torch.from_numpy(center)) / 0.04).softmax(1)
        q_patches = ((patch_scores - torch.from_numpy(patch_center)) / 0.04).softmax(1)
        center = 0.9 * center + 0.1 * scores.detach().numpy().mean(0)
        patch_center = 0.9 * patch_center + 0.1 * patch_scores.detach().numpy().mean(0)
    else:
        q, q_patches = sinkhorn(scores, 0.04), sinkhorn(patch_scores, 0.04)
    np.testing.assert_allclose(net.center.numpy(), center, rtol=1e-6)
    np.testing.assert_allclose(net.patch_center.numpy(), patch_center, rtol=1e-6)

    terms = [
        -(q[n * g + i] * (student[v, i] / 0.1).log_softmax(0)).sum()
        for g in range(2)
        for v in range(len(views))
        for i in range(n)
        if v != g
    ]
    torch.testing.assert_close(found["dino"], torch.stack(terms).mean(), rtol=1e-6, atol=1e-9)
    expected = sum(
        -(target * (s / 0.1).log_softmax(0)).sum() / masks[v, i].sum()
        for (v, i, s, _), target in zip(patches, q_patches, strict=True)
    )
    torch.testing.assert_close(found["ibot"], expected / (2 * n), rtol=1e-6, atol=1e-9)
    spread = sum(koleo(torch.stack([classes[v, i] for i in range(n)])) for v in range(2))
    torch.testing.assert_close(found["koleo"], 0.3 * spread)

    sum(found.values()).backward()
    assert reached(net) == {"encoder", "projector", "prototypes", "mask_token"}
    assert all(p.grad is None for p in net.target.parameters())


def test_the_head_is_applied_to_masked_patches_alone(X):
    estimator, net, batch = built(skssl.IBOT, X)
    seen = []
    for part in (net.projector, net.target[1]):
        part.register_forward_pre_hook(lambda part, given: seen.append(given[0].shape))
    estimator.losses(net, batch)
    total = random_mask_sizes((2, 12), 16, (0.1, 0.5), 0.5, CPU)[1]
    assert seen == [(24 + total, 96)] * 2
    assert total < 24 * 16 / 5


def test_koleo_without_weight_is_not_computed(X):
    assert "koleo" not in quick(skssl.IBOT, koleo=0.0).fit(X).history_


@pytest.mark.parametrize("pool", ["token", "mean"])
def test_ibot_trains_with_multi_crop_and_accumulation(pool, X):
    crops = skssl.MultiCrop(n_local=2, local_size=10)
    estimator = quick(skssl.IBOT, backbone=ViT("micro", pool=pool), augment=crops, accumulate=2, head_norm=True).fit(X)
    assert np.isfinite(estimator.history_[["dino", "ibot", "koleo"]]).all(axis=None)
    assert estimator.transform(X).shape == (40, 96)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"backbone": "convnet"}, r"IBOT needs a vision transformer .*backbone='vit_micro'.* Got ConvNet"),
        ({"mask_ratio": (0.5, 0.1)}, r"'mask_ratio' parameter of IBOT must be two numbers.* Got \(0.5, 0.1\)"),
        ({"mask_ratio": (0.0, 0.5)}, r"'mask_ratio' parameter of IBOT must be .* Got \(0.0, 0.5\) instead"),
        ({"mask_ratio": 0.3}, "'mask_ratio' parameter of IBOT must be .* Got 0.3 instead"),
        ({"mask_probability": 0}, "'mask_probability' parameter of IBOT must be .* Got 0 instead"),
        ({"koleo": -1}, "'koleo' parameter of IBOT must be .* Got -1 instead"),
        ({"centering": "median"}, "'centering' parameter of IBOT must be .* Got 'median' instead"),
    ],
)
def test_invalid_parameters_raise(params, message, X):
    with pytest.raises(ValueError, match=message):
        quick(skssl.IBOT, **params).fit(X)
