"""BatchNorm on groups of a batch: one pass equals one pass for each group."""

import pytest
import torch
from torch import nn

from skssl.nn import batchnorm
from skssl.nn.batchnorm import run_with_split_batchnorm, split_batchnorm


def test_groups_are_normalised_separately_and_have_two_images():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(2)
    images = torch.randn(7, 2, 3, 3)
    (found,) = run_with_split_batchnorm(lambda part: (norm(part),), [norm], images, 2)
    for part, result in [(images[:4], found[:4]), (images[4:], found[4:])]:
        expected = (part - part.mean((0, 2, 3), keepdim=True)) / part.var((0, 2, 3), keepdim=True, correction=0).sqrt()
        torch.testing.assert_close(result, expected, rtol=1e-3, atol=1e-4)
    sizes = []
    for n, groups in [(7, 8), (13, 6), (256, 8), (1, 8)]:
        images = torch.zeros(n, 1, 1, 1)
        run_with_split_batchnorm(lambda part: (sizes.append(len(part)) or part,), [norm], images, groups)
    assert sizes == [3, 2, 2, *[3, 2, 2, 2, 2, 2], *[32] * 8, 1]


class Activated(nn.BatchNorm2d):
    """BatchNorm with a ReLU, as some libraries have."""

    def forward(self, x):
        return super().forward(x).relu()


def normalising():
    """A network with every sort of BatchNorm, on cells and on features."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Conv2d(6, 5, 3), Activated(5)]
    layers += [nn.BatchNorm2d(5, momentum=0.3, affine=False), nn.GroupNorm(1, 5), nn.BatchNorm2d(5).eval()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4), nn.BatchNorm1d(4, momentum=None)]
    layers += [nn.Linear(4, 4), nn.BatchNorm1d(4, momentum=0.0), nn.BatchNorm1d(4, track_running_stats=False)]
    return nn.Sequential(*layers, nn.BatchNorm1d(4, track_running_stats=False).eval()).double()


@pytest.mark.parametrize(("n", "groups"), [(24, 4), (27, 5), (6, 1)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("by_moments", [False, True])
def test_one_pass_equals_one_pass_for_each_group(n, groups, layout, by_moments, monkeypatch):
    monkeypatch.setattr(batchnorm.SplitBatchNorm, "BY_MOMENTS", ("cpu",) if by_moments else ())
    one, other = normalising(), normalising()
    kinds = [type(part) for part in one]
    for _ in range(3):
        images = torch.randn(n, 3, 6, 6, dtype=torch.float64).to(memory_format=layout)
        expected = torch.cat([one(part) for part in images.tensor_split(groups)])
        with split_batchnorm([other], groups):
            found = other(images)
        weigh = torch.randn_like(expected)
        (expected * weigh).sum().backward()
        (found * weigh).sum().backward()
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-9, atol=1e-9, msg=name)
    assert other[11].num_batches_tracked == 3 * groups
    for (name, a), b in zip(one.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-9, msg=name)
    assert [type(part) for part in other] == kinds
    assert not any("groups" in vars(part) for part in other if isinstance(part, nn.BatchNorm2d))


@pytest.mark.parametrize("by_moments", [False, True])
def test_one_pass_keeps_layout_and_precision(by_moments, monkeypatch):
    monkeypatch.setattr(batchnorm.SplitBatchNorm, "BY_MOMENTS", ("cpu",) if by_moments else ())
    norm, images = nn.BatchNorm2d(4), torch.randn(6, 4, 3, 3).bfloat16().to(memory_format=torch.channels_last)
    with split_batchnorm([norm], 3):
        found = norm(images)
    expected = torch.cat([nn.BatchNorm2d(4)(part) for part in images.chunk(3)])
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected, rtol=2**-8, atol=0)  # a rounding of bfloat16
    assert norm.running_mean.dtype == torch.float32
