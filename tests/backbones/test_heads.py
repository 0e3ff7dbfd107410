"""The classifier of any network is found by what it does, and its outputs are read as features."""

import collections
import dataclasses

import pytest
import torch
import torchvision
from torch import nn

from skssl.backbones import build_backbone


def trunk():
    return [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]


class Functional(nn.Module):
    """A classifier without a module of its own."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(*trunk())
        self.weight = nn.Parameter(torch.randn(5, 8))

    def forward(self, images):
        return nn.functional.linear(self.trunk(images), self.weight).log_softmax(1)


class Cosine(nn.Module):
    """Cosine similarities to class vectors, scaled."""

    def __init__(self):
        super().__init__()
        self.weight, self.scale = nn.Parameter(torch.randn(5, 8)), nn.Parameter(torch.ones(()))

    def forward(self, features):
        return self.scale * (features @ nn.functional.normalize(self.weight, dim=1).T)


class Heads(nn.Module):
    """A network with several heads, whose results are combined."""

    def __init__(self, combine):
        super().__init__()
        self.trunk, self.combine = nn.Sequential(*trunk()), combine
        self.one, self.two = nn.Linear(8, 5), nn.Linear(8, 5)

    def forward(self, images):
        features = self.trunk(images)
        return self.combine(self.one(features), self.two(features))


class Residual(nn.Module):
    """A residual network that ends with a linear map whose result is added to its input."""

    def __init__(self):
        super().__init__()
        self.trunk, self.last = nn.Sequential(*trunk()), nn.Linear(8, 8)

    def forward(self, images):
        features = self.trunk(images)
        return features + self.last(features)


class Returns(nn.Module):
    """A network whose output is made of its map, its features and its class scores."""

    def __init__(self, make, channels=3):
        super().__init__()
        self.body, self.fc, self.make = nn.Conv2d(channels, 8, 3), nn.Linear(8, 5), make

    def forward(self, images):
        grid = self.body(images).relu()
        features = grid.mean((2, 3))
        return self.make(grid, features, self.fc(features))


@dataclasses.dataclass
class Answer:
    logits: torch.Tensor
    hidden_states: tuple | None = None


class ModelOutput(collections.OrderedDict):
    """A dict like Hugging Face's."""


GoogLeNetOutputs = collections.namedtuple("GoogLeNetOutputs", ["logits", "aux_logits2"])

CLASSIFIERS = {
    "linear": ([nn.Linear(8, 5)], "5, a Linear from 8 to 5"),
    "nested": (
        [nn.Sequential(nn.Dropout(), nn.Sequential(nn.Linear(8, 5, bias=False)))],
        "5.1.0, a Linear from 8 to 5",
    ),
    "probabilities": ([nn.Linear(8, 5), nn.LogSoftmax(1)], "5, a Linear from 8 to 5"),
    "hidden layer": ([nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 5)], "7, a Linear from 6 to 5"),
    "weight norm": ([nn.utils.parametrizations.weight_norm(nn.Linear(8, 5))], "5, a ParametrizedLinear from 8 to 5"),
    "cosine": ([Cosine()], "5, a Cosine from 8 to 5"),
}
FEATURES = {
    "activation": [nn.Linear(8, 6), nn.ReLU()],
    "norm": [nn.Linear(8, 6), nn.BatchNorm1d(6)],
    "identity": [nn.Linear(8, 6), nn.Identity()],
    "removed": [nn.Linear(8, 6), nn.ReLU(), nn.Dropout(), nn.Identity()],
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_last_linear_map_is_removed(name, capsys):
    layers, found = CLASSIFIERS[name]
    net = nn.Sequential(*trunk(), *layers)
    encoder, dim = build_backbone(net, (3, 16, 16), verbose=1)
    assert dim == (6 if name == "hidden layer" else 8)
    assert capsys.readouterr().out == f"backbone Sequential: {dim} features, without its classifier ({found}).\n"
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    before = net.eval()[:7] if name == "hidden layer" else net.eval()[:5]
    assert torch.equal(encoder.eval()(images), before(images))
    again, _ = build_backbone(encoder, (3, 16, 16), verbose=1)
    assert torch.equal(again.eval()(images), before(images)), "an encoder loses no further layer"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", FEATURES)
def test_a_linear_map_that_gives_features_is_kept(name):
    net = nn.Sequential(*trunk(), *FEATURES[name])
    encoder, dim = build_backbone(net, (3, 16, 16))
    assert dim == 6
    assert encoder.state_dict().keys() == net.state_dict().keys()


def test_a_residual_branch_and_a_lone_linear_map_are_kept():
    assert "last.weight" in build_backbone(Residual(), (3, 16, 16))[0].state_dict()
    assert build_backbone(nn.Sequential(nn.Flatten(), nn.Linear(48, 5)), (3, 4, 4))[1] == 5
    assert build_backbone(nn.Conv2d(3, 7, 1), (3, 4, 4))[1] == 7


def test_the_last_1x1_convolution_is_removed():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    assert build_backbone(net, (3, 8, 8))[1] == 8
    assert build_backbone(net[:3], (3, 8, 8))[1] == 8, "a map of class scores"
    assert build_backbone(net[:2], (3, 8, 8))[1] == 8, "a map of features"
    normed = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 5, 1), nn.BatchNorm2d(5), nn.AdaptiveAvgPool2d(1))
    assert build_backbone(normed, (3, 8, 8))[1] == 5, "the last layer of MobileNetV2's features"


@pytest.mark.parametrize(
    "combine", [torch.add, lambda *both: torch.cat(both, 1), lambda *both: torch.stack(both).mean(0)]
)
def test_several_heads_are_refused(combine):
    choice = (
        r"Heads cannot be used .* one, two\. .* nn\.Identity\(\) in place of the classifier\. .* end with nn\.Identity"
    )
    with pytest.raises(ValueError, match=choice):
        build_backbone(Heads(combine), (3, 16, 16))
    assert build_backbone(nn.Sequential(Heads(combine), nn.Identity()), (3, 16, 16))[1] in (5, 10)


def test_a_head_without_a_module_is_refused():
    with pytest.raises(ValueError, match=r"Functional cannot be used .* one that is not a module"):
        build_backbone(Functional(), (3, 16, 16))


def test_scores_that_a_function_normalises_are_refused():
    class Probabilities(nn.Sequential):
        def forward(self, images):
            return super().forward(images).softmax(1)

    with pytest.raises(ValueError, match=r"Probabilities cannot be used .* by a function"):
        build_backbone(Probabilities(*trunk(), nn.Linear(8, 5)), (3, 16, 16))


def test_a_wrapped_network_loses_its_classifier():
    net = nn.Sequential(*trunk(), nn.Linear(8, 5))
    assert build_backbone(nn.DataParallel(net), (3, 16, 16))[1] == 8
    assert build_backbone(torch.compile(net, backend="eager"), (3, 16, 16))[1] == 8
    encoder, dim = build_backbone(lambda: nn.DataParallel(net), (3, 16, 16))
    assert dim == 8
    assert isinstance(encoder, nn.Sequential)


def test_frozen_layers_stay_frozen():
    net = nn.Sequential(*trunk(), nn.Linear(8, 5)).requires_grad_(False)
    encoder, dim = build_backbone(net, (3, 16, 16))
    assert dim == 8
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


@pytest.mark.parametrize(
    ("make", "dim"),
    [
        (lambda grid, features, scores: {"pooler_output": features, "last_hidden_state": grid}, 8),
        (lambda grid, features, scores: ModelOutput(logits=scores, hidden_states=(grid, grid)), 8),
        (lambda grid, features, scores: Answer(scores), 8),
        (lambda grid, features, scores: ModelOutput(last_hidden_state=grid), 8),
        (lambda grid, features, scores: GoogLeNetOutputs(scores, scores), 8),
        (lambda grid, features, scores: (features, grid), 8),
        (lambda grid, features, scores: (scores, None), 8),
        (lambda grid, features, scores: [grid], 8),
        (lambda grid, features, scores: {"features": features, "loss": None}, 8),
    ],
    ids=["pooler", "logits", "dataclass", "map", "namedtuple", "two", "none", "list", "dict"],
)
def test_one_tensor_of_several_is_taken(make, dim):
    net = Returns(make).eval()
    encoder, found = build_backbone(net, (3, 8, 8))
    assert found == dim
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(encoder(images), net.body(images).relu().mean((2, 3)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda grid, features, scores: (features, scores), r"Returns .* tuple \(0: \(2, 8\), 1: \(2, 5\)\)"),
        (lambda grid, features, scores: {"last_hidden_state": grid.flatten(2).mT}, r"shape \(2, 36, 8\) from Returns"),
        (lambda grid, features, scores: None, r"Returns .* returns a NoneType"),
        (lambda grid, features, scores: [grid, grid], r"Returns .* list \(0: \(2, 8, 6, 6\)"),
    ],
)
def test_outputs_without_one_right_answer_are_refused(make, message):
    with pytest.raises(ValueError, match=message) as raised:
        build_backbone(Returns(make), (3, 8, 8))
    assert "Wrap it in a module" in str(raised.value)


def test_googlenet_trains_without_auxiliary_classifiers():
    net = torchvision.models.googlenet(weights=None, init_weights=False)
    encoder, dim = build_backbone(net, (3, 64, 64))
    assert dim == 1024
    assert encoder(torch.rand(2, 3, 64, 64)).shape == (2, 1024)
    assert not any(name.startswith(("aux", "fc")) for name in encoder.state_dict())


def test_an_error_names_the_class_and_stays_short():
    net = torchvision.models.vit_b_32(weights=None)
    with pytest.raises(
        ValueError, match=r"^backbone VisionTransformer cannot read images of shape .* \(3, 32, 32\)"
    ) as raised:
        build_backbone(net, (3, 32, 32))
    assert len(str(raised.value)) < 300
