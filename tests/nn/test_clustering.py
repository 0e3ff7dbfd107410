"""k-means and balanced samples."""

import torch

from skssl.nn.clustering import balanced_sample, k_means


def test_k_means_finds_separate_clusters_and_follows_the_seed():
    torch.manual_seed(0)
    x = (10 * torch.eye(2).repeat_interleave(30, 0) + 0.1 * torch.randn(60, 2))[torch.randperm(60)]
    for _ in range(3):
        centers, label = k_means(x, 2, 20)
        assert torch.equal(label, label[x[:, 0].argmax()] * (x[:, 0] > 5) + label[x[:, 1].argmax()] * (x[:, 1] > 5))
        for k in range(2):
            torch.testing.assert_close(centers[k], x[label == k].mean(0))
    starts = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        starts.append(k_means(x, 7, 1)[0])
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


def test_k_means_with_fewer_distinct_rows_than_clusters():
    centers, label = k_means(torch.ones(6, 2), 4, 10)
    assert torch.equal(centers, torch.ones(4, 2))
    assert label.max() < 4


def test_balanced_sample_draws_equally_from_every_cluster():
    label = torch.tensor([0] * 50 + [2] * 8 + [3] * 2)[torch.randperm(60)]  # cluster 1 is empty
    torch.manual_seed(0)
    drawn = balanced_sample(label)
    assert len(drawn) == 60
    assert (label[drawn].bincount(minlength=4) - torch.tensor([20, 0, 20, 20])).abs().max() <= 2
    of_large = drawn[label[drawn] == 0]
    assert len(of_large.unique()) == len(of_large), "a large cluster's images come once"
    assert set(drawn[label[drawn] == 3].tolist()) == set((label == 3).nonzero().flatten().tolist())
    assert not torch.equal(label[drawn], label[drawn].sort().values)
    assert not torch.equal(drawn, balanced_sample(label))
    torch.testing.assert_close(balanced_sample(torch.zeros(5, dtype=torch.long)).sort().values, torch.arange(5))
