"""Measures of collapse during training."""

import pytest
import torch

from skssl.training.collapse import effective_rank, spread


def test_spread_and_effective_rank_detect_collapse():
    draw = torch.Generator().manual_seed(0)
    even = torch.randn(2000, 64, generator=draw)
    assert spread(even).item() == pytest.approx(1, abs=0.02)
    assert effective_rank(even).item() > 60
    point = torch.ones(2000, 64) + 0.001 * even
    assert spread(point).item() < 0.01
    line = torch.randn(2000, 1, generator=draw) * torch.ones(64)
    assert effective_rank(line).item() == pytest.approx(1, abs=1e-3)
