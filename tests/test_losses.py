"""Losses against literal loops in float64, and their gradients."""

import itertools
import math

import numpy as np
import pytest
import torch
from helpers import cosine, numpy, random_rows
from torch.nn import functional as F

from skssl import losses


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_nt_xent_matches_a_loop(temperature):
    z1, z2 = random_rows(2)
    z = np.concatenate(numpy([z1, z2]))
    n = len(z1)
    total = 0.0
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        denominator = sum(math.exp(cosine(z[i], z[k]) / temperature) for k in range(2 * n) if k != i)
        total -= math.log(math.exp(cosine(z[i], z[j]) / temperature) / denominator)
    assert losses.nt_xent(z1, z2, temperature).item() == pytest.approx(total / (2 * n), rel=1e-12)


def test_nt_xent_invariances_and_gradients():
    z1, z2 = random_rows(2)
    loss = losses.nt_xent(z1, z2, 0.2)
    order = torch.randperm(len(z1), generator=torch.Generator().manual_seed(1))
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))[0]
    same = [
        losses.nt_xent(z2, z1, 0.2),
        losses.nt_xent(z1[order], z2[order], 0.2),
        losses.nt_xent(3 * z1, 0.1 * z2, 0.2),
        losses.nt_xent(z1 @ rotation, z2 @ rotation, 0.2),
    ]
    assert torch.allclose(torch.stack(same), loss, rtol=1e-12)
    assert not torch.isclose(losses.nt_xent(z1, z2[order], 0.2), loss)
    assert torch.autograd.gradcheck(lambda a, b: losses.nt_xent(a, b, 0.3), (z1, z2))


def test_nt_xent_is_finite_at_low_temperatures():
    z1, z2 = random_rows(2)
    for temperature in (0.1, 0.01, 0.002):  # exp(1 / 0.002) is no float32
        found = losses.nt_xent(z1.float(), z2.float(), temperature)
        torch.testing.assert_close(found.double(), losses.nt_xent(z1, z2, temperature), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sigma", [None, 0.5])
@pytest.mark.parametrize("y", [None, [0, 0, 1, -1, -1, 1]])
def test_dcl_matches_a_loop(sigma, y):
    z1, z2 = random_rows(2)
    a, b = numpy([z1, z2])
    z, n, total = np.concatenate([a, b]), len(a), 0.0
    weights = [1.0] * n
    if sigma:
        shares = [math.exp(cosine(a[i], b[i]) / sigma) for i in range(n)]
        weights = [2 - share / (sum(shares) / n) for share in shares]
    for i in range(2 * n):
        others = [k for k in range(2 * n) if k % n != i % n and (y is None or y[i % n] < 0 or y[k % n] != y[i % n])]
        total -= weights[i % n] * cosine(a[i % n], b[i % n]) / 0.2
        total += math.log(sum(math.exp(cosine(z[i], z[k]) / 0.2) for k in others))
    known = None if y is None else torch.tensor(y)
    assert losses.dcl(z1, z2, 0.2, sigma, known).item() == pytest.approx(total / (2 * n), rel=1e-12)
    if sigma is None:
        assert torch.autograd.gradcheck(lambda *x: losses.dcl(*x, 0.2, None, known), (z1, z2))


def test_dcl_weights_have_no_gradient_and_one_class_keeps_its_negatives():
    z1, z2 = random_rows(2)
    found = torch.autograd.grad(losses.dcl(z1, z2, 0.2, 0.5), z1)[0]
    with torch.no_grad():
        positive = F.cosine_similarity(z1, z2)
        weight = 2 - 6 * F.softmax(positive / 0.5, dim=0)
    negative = losses.dcl(z1, z2, 0.2) + F.cosine_similarity(z1, z2).mean() / 0.2
    loss = negative - (weight * F.cosine_similarity(z1, z2)).mean() / 0.2
    torch.testing.assert_close(found, torch.autograd.grad(loss, z1)[0])
    one_class = torch.zeros(6, dtype=torch.long)
    torch.testing.assert_close(losses.dcl(z1, z2, 0.2, None, one_class), losses.dcl(z1, z2, 0.2))


def test_info_nce_matches_a_loop():
    q, k, negatives = random_rows(3)
    a, b, c = numpy([q, k, negatives])
    total = 0.0
    for i in range(len(a)):
        positive = math.exp(cosine(a[i], b[i]) / 0.3)
        total -= math.log(positive / (positive + sum(math.exp(cosine(a[i], n) / 0.3) for n in c)))
    assert losses.info_nce(q, k, negatives, 0.3).item() == pytest.approx(total / len(a), rel=1e-12)
    assert torch.autograd.gradcheck(lambda *x: losses.info_nce(*x, 0.3), (q, k, negatives))


def test_info_nce_without_negatives_uses_the_other_keys():
    q, k = random_rows(2)
    others = [losses.info_nce(q[i : i + 1], k[i : i + 1], k[torch.arange(6) != i], 0.3) for i in range(6)]
    assert torch.isclose(losses.info_nce(q, k, temperature=0.3), torch.stack(others).mean(), rtol=1e-12)
    assert torch.autograd.gradcheck(lambda *x: losses.info_nce(*x, None, 0.3), (q, k))


def test_nt_xent_equals_the_mean_info_nce_of_the_anchors():
    z1, z2 = random_rows(2)
    z = torch.cat([z1, z2])
    n = len(z1)
    parts = []
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        others = [k for k in range(2 * n) if k not in (i, j)]
        parts.append(losses.info_nce(z[i : i + 1], z[j : j + 1], z[others], 0.2))
    assert torch.isclose(losses.nt_xent(z1, z2, 0.2), torch.stack(parts).mean(), rtol=1e-12)


def test_negative_cosine_and_byol_loss_match_loops():
    p1, p2, z1, z2 = random_rows(4)
    a1, a2, b1, b2 = numpy([p1, p2, z1, z2])
    expected = -np.mean([cosine(p, z) for p, z in zip(a1, b2, strict=True)])
    assert losses.negative_cosine(p1, z2).item() == pytest.approx(expected, rel=1e-12)

    def squared(p, z):
        return sum((p / np.linalg.norm(p) - z / np.linalg.norm(z)) ** 2)

    expected = np.mean([squared(a1[i], b2[i]) + squared(a2[i], b1[i]) for i in range(len(a1))])
    assert losses.byol_loss(p1, p2, z1, z2).item() == pytest.approx(expected, rel=1e-12)


def test_targets_get_no_gradient():
    p1, p2, z1, z2 = random_rows(4)
    (losses.negative_cosine(p1, z2) + losses.byol_loss(p1, p2, z1, z2)).backward()
    assert p1.grad.abs().sum() > 0
    assert p2.grad.abs().sum() > 0
    assert z1.grad is None
    assert z2.grad is None


def literal_guided(p, z, q, y, partner, rule, draws=None):
    """Algorithm 1, one pair at a time; p, z: the first images' two views, q, y: the second images'."""
    total, sources = 0.0, []
    for i, j in enumerate(partner):
        first, second = [z[0][i], z[1][i]], [y[0][j], y[1][j]]
        ways = list(itertools.product((0, 1), (0, 1)))  # 11-21, 11-22, 12-21, 12-22
        distances = [float(np.sqrt(((first[a] - second[c]) ** 2).sum())) for a, c in ways]
        best = min(range(4), key=lambda w: (distances[w], w))
        if rule == "random":
            best = draws[i]
        a, c = ways[best]
        if rule == "reverse":
            a, c = 1 - a, 1 - c
        sources.append((a, c))
        total += -cosine(p[a][i], first[1 - a]) / 2 - cosine(q[c][j], second[1 - c]) / 2
    return total / len(partner), sources


PARTNERS = [[3, 1, 5, 0, 2, 4], [0, 1, 2, 3, 4, 5], [1, 0, 3, 2, 5, 4]]  # some fixed points, all, none


@pytest.mark.parametrize("partner", PARTNERS)
@pytest.mark.parametrize("rule", ["guided", "reverse"])
@pytest.mark.parametrize("pairing", ["fresh", "shared"])
def test_guided_stop_gradient_matches_a_loop(partner, rule, pairing):
    p1, p2, z1, z2, p3, p4, z3, z4 = random_rows(8, seed=len(rule))
    q = (p3, p4, z3, z4) if pairing == "fresh" else None
    loss = losses.guided_stop_gradient(p1, p2, z1, z2, torch.tensor(partner), rule, q)
    second = numpy([p3, p4, z3, z4]) if q else numpy([p1, p2, z1, z2])
    a = numpy([p1, p2, z1, z2])
    expected, sources = literal_guided(a[:2], a[2:], second[:2], second[2:], partner, rule)
    assert loss.item() == pytest.approx(expected, rel=1e-12)

    loss.backward()
    assert all(z.grad is None for z in (z1, z2, z3, z4))
    moved = [np.zeros((6, 2), bool) for _ in range(2)]
    for i, j in enumerate(partner):
        moved[0][i, sources[i][0]] = True
        moved[1 if q else 0][j, sources[i][1]] = True
    for predictions, expected_moves in zip([(p1, p2), (p3, p4)][: 2 if q else 1], moved, strict=False):
        got = np.stack([p.grad.abs().sum(1).numpy() > 0 for p in predictions], axis=1)
        np.testing.assert_array_equal(got, expected_moves)


def test_guided_stop_gradient_takes_the_first_of_equal_distances():
    ones = torch.ones(4, 3, dtype=torch.float64)
    p = [torch.full((4, 3), float(i), dtype=torch.float64).add(torch.eye(4, 3)).requires_grad_() for i in range(1, 5)]
    q = (p[2], p[3], ones, ones)
    losses.guided_stop_gradient(p[0], p[1], ones, ones, torch.arange(4), "guided", q).backward()
    assert [x.grad.abs().sum().item() > 0 for x in p] == [True, False, True, False]
    for x in p:
        x.grad = None
    losses.guided_stop_gradient(p[0], p[1], ones, ones, torch.arange(4), "reverse", q).backward()
    assert [x.grad.abs().sum().item() > 0 for x in p] == [False, True, False, True]


def test_random_stop_gradient_chooses_for_each_pair():
    n = 4000
    p1, p2, z1, z2, p3, p4, z3, z4 = random_rows(8, n=n)
    draws = torch.randint(4, (n,), generator=torch.Generator().manual_seed(7)).tolist()
    partner = torch.randperm(n, generator=torch.Generator().manual_seed(8))
    loss = losses.guided_stop_gradient(
        p1, p2, z1, z2, partner, "random", (p3, p4, z3, z4), generator=torch.Generator().manual_seed(7)
    )
    a = numpy([p1, p2, z1, z2, p3, p4, z3, z4])
    expected, sources = literal_guided(a[:2], a[2:4], a[4:6], a[6:], partner.tolist(), "random", draws)
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    shares = [sources.count(way) / n for way in itertools.product((0, 1), (0, 1))]
    assert shares == pytest.approx([0.25] * 4, abs=0.03)


def test_guided_stop_gradient_does_not_normalise_projections():
    """Scaling one projection changes the choice, which it could not if they were normalised first."""
    p1, p2, z1, z2, p3, p4, z3, z4 = random_rows(8, n=50)
    partner = torch.arange(50).roll(1)
    before = losses.guided_stop_gradient(p1, p2, z1, z2, partner, "guided", (p3, p4, z3, z4))
    after = losses.guided_stop_gradient(p1, p2, 100 * z1, z2, partner, "guided", (p3, p4, z3, z4))
    assert not torch.isclose(before, after)
    with pytest.raises(ValueError, match="Unknown rule 'guide', did you mean 'guided'"):
        losses.guided_stop_gradient(p1, p2, z1, z2, partner, "guide")


def test_losses_are_computed_in_float32():
    z1, z2 = (z.detach().float() for z in random_rows(2, n=32, d=16))
    with torch.autocast("cpu", torch.bfloat16):
        inside = losses.nt_xent(z1, z2, 0.1)
        half = losses.nt_xent(z1.bfloat16(), z2.bfloat16(), 0.1)
    assert inside.dtype == half.dtype == torch.float32
    assert torch.equal(inside, losses.nt_xent(z1, z2, 0.1))
    assert torch.isclose(half, inside, rtol=0.05)


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def literal_sinkhorn(scores, epsilon, n_iterations):
    """The paper's algorithm, a number at a time: a row a prototype, a column a sample."""
    n, k = scores.shape
    q = [[math.exp(float(scores[b, j]) / epsilon) for b in range(n)] for j in range(k)]
    total = sum(map(sum, q))
    q = [[value / total for value in row] for row in q]
    for _ in range(n_iterations):
        for row in q:
            row[:] = [value / sum(row) / k for value in row]
        for b in range(n):
            column = sum(row[b] for row in q)
            for row in q:
                row[b] = row[b] / column / n
    return torch.tensor(q, dtype=torch.float64).T * n


@pytest.mark.parametrize("n_iterations", [1, 3])
@pytest.mark.parametrize("epsilon", [0.05, 0.5])
def test_sinkhorn_matches_the_papers_algorithm(n_iterations, epsilon):
    scores = F.normalize(random(7, 4), dim=1)
    found = losses.sinkhorn(scores, epsilon, n_iterations)
    torch.testing.assert_close(found, literal_sinkhorn(scores, epsilon, n_iterations))


def test_sinkhorn_normalises_samples_last_and_uses_all_prototypes():
    scores = torch.cat([torch.ones(60, 1), 0.9 * torch.rand(60, 3)], 1).requires_grad_()  # all prefer the first
    few, many = (losses.sinkhorn(scores, 0.05, n) for n in (1, 200))
    torch.testing.assert_close(few.sum(1), torch.ones(60))
    assert not torch.allclose(few.sum(0), torch.full((4,), 15.0), rtol=1e-3)
    torch.testing.assert_close(many.sum(0), torch.full((4,), 15.0), rtol=1e-3, atol=0)
    assert not many.requires_grad


def test_sinkhorn_stays_finite_and_in_float32():
    scores = torch.tensor([[1.0, -1.0], [1.0, -1.0]])  # exp(-2 / epsilon) is nothing in float32
    torch.testing.assert_close(losses.sinkhorn(scores, 1e-3), torch.full((2, 2), 0.5))
    with torch.autocast("cpu", torch.bfloat16):
        half = losses.sinkhorn(F.normalize(random(6, 3), dim=1).bfloat16(), 0.05)
        z = F.normalize(random(6, 3), dim=1).float()
        assert losses.prototype_scores(z, z).dtype == torch.float32
    assert half.dtype == torch.float32


@pytest.mark.parametrize(("n_views", "n_codes"), [(2, 2), (5, 2), (3, 1)])
def test_swapped_prediction_matches_a_loop(n_views, n_codes):
    scores, codes = random(n_views, 6, 4), random(n_codes, 6, 4, seed=1).softmax(-1)
    scores.requires_grad_()
    total = 0.0
    for a in range(n_codes):
        for v in range(n_views):
            for i in range(6):
                p = np.exp(scores[v, i].detach().numpy() / 0.3)
                terms = [-codes[a, i, j].item() * math.log(p[j] / p.sum()) for j in range(4)]
                total += (v != a) * sum(terms) / (n_codes * (n_views - 1) * 6)
    loss = losses.swapped_prediction(scores, codes.requires_grad_(), 0.3)
    assert loss.item() == pytest.approx(total, rel=1e-12)
    loss.backward()
    assert codes.grad is None
    assert torch.autograd.gradcheck(lambda s: losses.swapped_prediction(s, codes, 0.3), (scores,))


def test_contrastive_loss_matches_a_loop_over_pairs():
    draw = torch.Generator().manual_seed(0)
    z1, z2 = (torch.rand(30, 3, generator=draw, dtype=torch.float64, requires_grad=True) for _ in range(2))
    same = torch.rand(30, generator=draw) < 0.5
    total, cases = 0.0, set()
    for a, b, s in zip(z1.tolist(), z2.tolist(), same.tolist(), strict=True):
        distance = math.dist(a, b)
        total += distance**2 if s else max(0.0, 0.6 - distance) ** 2
        cases.add((s, distance > 0.6))
    assert len(cases) == 4, "pairs of both kinds, on both sides of the margin"
    found = losses.contrastive_loss(z1, z2, same, margin=0.6)
    assert found.item() == pytest.approx(total / 30, rel=1e-12)
    assert torch.autograd.gradcheck(lambda a, b: losses.contrastive_loss(a, b, same, 0.6), (z1, z2))
    equal = torch.ones(2, 3, requires_grad=True)
    losses.contrastive_loss(equal, torch.ones(2, 3), torch.tensor([True, False])).backward()
    assert torch.isfinite(equal.grad).all(), "equal embeddings have a finite gradient"


def test_triplet_loss_matches_a_loop_over_triplets():
    draw = torch.Generator().manual_seed(0)
    z = [torch.rand(30, 3, generator=draw, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    terms = [
        math.dist(a, p) ** 2 - math.dist(a, n) ** 2 + 0.2 for a, p, n in zip(*(of.tolist() for of in z), strict=True)
    ]
    assert min(terms) < 0 < max(terms)
    found = losses.triplet_loss(*z, margin=0.2)
    assert found.item() == pytest.approx(sum(max(0.0, term) for term in terms) / 30, rel=1e-12)
    assert torch.autograd.gradcheck(lambda *of: losses.triplet_loss(*of, 0.2), z)


@pytest.mark.parametrize("n_views", [2, 4])
def test_averaged_targets_match_a_loop(n_views):
    p, z = random(n_views, 6, 5).requires_grad_(), random(n_views, 6, 5, seed=1).requires_grad_()
    total = 0.0
    for v in range(n_views):
        for i in range(6):
            target = sum(z[w, i].detach().numpy() for w in range(n_views) if w != v) / (n_views - 1)
            total -= cosine(p[v, i].detach().numpy(), target) / (6 * n_views)
    loss = losses.averaged_targets(p, z)
    assert loss.item() == pytest.approx(total, rel=1e-12)
    loss.backward()
    assert z.grad is None
    assert torch.autograd.gradcheck(lambda p: losses.averaged_targets(p, z), (p,))


def test_tico_matches_loops_over_two_steps():
    z1, z2 = random_rows(2)
    matrix = np.zeros((5, 5))
    covariance = torch.zeros(5, 5, dtype=torch.float64)
    for step in range(2):
        a, b = numpy([z1 + step, z2])
        units = [row / np.linalg.norm(row) for row in a]
        matrix = 0.7 * matrix + 0.3 * sum(np.outer(u, u) for u in units) / 6
        covariance = losses.tico_covariance(z1 + step, covariance.detach(), 0.7)
        np.testing.assert_allclose(covariance.detach(), matrix, rtol=1e-12)
        invariance, contrast = losses.tico(z1 + step, z2, covariance)
        assert invariance.item() == pytest.approx(np.mean([1 - cosine(*pair) for pair in zip(a, b, strict=True)]))
        assert contrast.item() == pytest.approx(np.mean([u @ matrix @ u for u in units]), rel=1e-12)

    def loss(z):
        return sum(losses.tico(z, z2, losses.tico_covariance(z, torch.eye(5, dtype=torch.float64), 0.7)))

    assert torch.autograd.gradcheck(loss, (z1,))
    loss(z1).backward()
    assert z2.grad is None


@pytest.mark.parametrize(("groups", "eps"), [(1, 0.0), (2, 0.1)])
def test_w_mse_matches_a_loop_over_groups_and_pairs(groups, eps):
    z = random(3, 12, 3).requires_grad_()
    size, total = 12 // groups, []
    for g in range(groups):
        units = []
        for v in range(3):
            rows = z[v, g * size : (g + 1) * size].detach().numpy()
            centred = rows - rows.mean(0)
            factor = np.linalg.cholesky((1 - eps) * np.cov(rows.T) + eps * np.eye(3))
            whitened = [np.linalg.inv(factor) @ row for row in centred]
            units.append([row / np.linalg.norm(row) for row in whitened])
        total += [
            sum((a - b) ** 2) for v, w in [(0, 1), (0, 2), (1, 2)] for a, b in zip(units[v], units[w], strict=True)
        ]
    assert losses.w_mse(z, groups, eps).item() == pytest.approx(np.mean(total), rel=1e-9)
    assert torch.autograd.gradcheck(lambda z: losses.w_mse(z, groups, eps), (z,))


@pytest.mark.parametrize("shape", [(7, 4), (4, 7), (3, 5, 2)])
def test_nuclear_norm_matches_singular_values(shape):
    x = random(*shape).requires_grad_()
    expected = torch.linalg.svdvals(x).sum(-1)
    torch.testing.assert_close(losses.nuclear_norm(x), expected, rtol=1e-10, atol=0)
    (found,) = torch.autograd.grad(losses.nuclear_norm(x).sum(), x)
    torch.testing.assert_close(found, torch.autograd.grad(expected.sum(), x)[0], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("lambd", [0.0, 0.3])
def test_mmcr_matches_a_loop_over_images(lambd):
    z = random(6, 3, 5).requires_grad_()
    units = [[view / np.linalg.norm(view) for view in image] for image in z.detach().numpy()]
    expected = -np.linalg.norm(np.stack([sum(image) / 3 for image in units]), "nuc")
    expected += lambd * sum(np.linalg.norm(np.stack(image), "nuc") for image in units) / 6
    assert losses.mmcr(z, lambd).item() == pytest.approx(expected, rel=1e-10)
    assert torch.autograd.gradcheck(lambda z: losses.mmcr(z, lambd), (z,))


def test_ressl_matches_a_loop():
    q, k, queue = random_rows(3)
    a, b, c = numpy([q, k, queue])
    total = 0.0
    for i in range(6):
        teacher = np.exp([cosine(b[i], m) / 0.2 for m in c])
        student = np.exp([cosine(a[i], m) / 0.3 for m in c])
        total -= sum(teacher / teacher.sum() * np.log(student / student.sum())) / 6
    loss = losses.ressl(q, k, queue, 0.3, 0.2)
    assert loss.item() == pytest.approx(total, rel=1e-12)
    loss.backward()
    assert k.grad is None
    assert torch.autograd.gradcheck(lambda q: losses.ressl(q, k, queue, 0.3, 0.2), (q,))


def test_sigreg_matches_a_loop_and_is_small_for_gaussians_alone():
    z, directions = random(2, 7, 3).requires_grad_(), random(4, 3, seed=1)
    points, total = np.linspace(-2, 2, 9), []  # the whole range, which is symmetric
    for view in z.detach().numpy():
        for a in directions.numpy():
            projected = view @ (a / np.linalg.norm(a))
            empirical = [sum(np.exp(1j * t * projected)) / 7 for t in points]
            gaussian = np.exp(-(points**2) / 2)
            square = np.abs(empirical - gaussian) ** 2 * gaussian
            total.append(7 * sum((square[1:] + square[:-1]) / 2 * np.diff(points)))
    assert losses.sigreg(z, directions, 5, 2.0).item() == pytest.approx(np.mean(total), rel=1e-12)
    assert torch.autograd.gradcheck(lambda z: losses.sigreg(z, directions, 5, 2.0), (z,))
    normal = random(1000, 3)
    fine = losses.sigreg(normal, directions)
    for other in (2 * normal, normal + 1, normal.sign(), 0 * normal):
        assert losses.sigreg(other, directions) > 10 * fine


def test_msn_terms_match_a_loop():
    scores, targets = random(2, 6, 4).requires_grad_(), random(6, 4, seed=1).softmax(1).requires_grad_()
    total, mean = 0.0, np.zeros(4)
    for anchor in scores.detach().numpy():
        for i in range(6):
            p = np.exp(anchor[i] / 0.3)
            p /= p.sum()
            total -= sum(targets[i].detach().numpy() * np.log(p)) / 12
            mean += p / 12
    found = losses.msn_terms(scores, targets, 0.3)
    assert found[0].item() == pytest.approx(total, rel=1e-12)
    assert found[1].item() == pytest.approx(math.log(4) + sum(mean * np.log(mean)), rel=1e-12)
    sum(found).backward()
    assert targets.grad is None
    assert torch.autograd.gradcheck(lambda s: losses.msn_terms(s, targets, 0.3), (scores,))
