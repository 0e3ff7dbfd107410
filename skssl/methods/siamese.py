"""The base classes of SimSiam, BYOL and their guided forms: predict a view from another with a stopped gradient."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import ClassVar

from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn

from skssl.losses import guided_stop_gradient, negative_cosine
from skssl.methods.base import SSLTransformer
from skssl.nn.distributed import all_gather, shared_randperm
from skssl.nn.heads import MLP
from skssl.training.objective import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class Siamese(SSLTransformer):
    """A method that predicts the projection of a view, whose gradient is stopped, from another view; abstract.

    Each view passes through the networks separately, so BatchNorm sees one view at a time.

    Parameters
    ----------
    proj_dim : int, default=2048
        Width of the projector's hidden and output layers.
    proj_layers : int, default=2
        Layers of the projector: 2 on CIFAR, 3 on ImageNet.
    pred_dim : int, default=512
        Width of the predictor's hidden layer.
    predictor : bool, default=True
        Whether there is a predictor.
    """

    proj_dim: int = 2048
    proj_layers: int = 2
    pred_dim: int = 512
    predictor: bool = True

    _parameter_constraints: ClassVar[dict] = {
        **SSLTransformer._parameter_constraints,
        "proj_dim": [Interval(Integral, 1, None, closed="left")],
        "proj_layers": [Interval(Integral, 1, 100, closed="both")],
        "pred_dim": [Interval(Integral, 1, None, closed="left")],
        "predictor": ["boolean"],
    }

    def heads(self, dim: int) -> tuple[nn.Module, nn.Module]:
        """Make SimSiam's heads: BatchNorm after every layer of the projector, none after the predictor."""
        projector = MLP((dim, *[self.proj_dim] * self.proj_layers), output_norm=True)
        return projector, MLP((self.proj_dim, self.pred_dim, self.proj_dim))

    def build(self, net: Objective, dim: int, n_samples: int) -> None:
        """Add the projector and the predictor."""
        net.projector, predictor = self.heads(dim)
        net.predictor = predictor if self.predictor else nn.Identity()

    def targets(self, net: Objective, views: list[Tensor], projections: list[Tensor]) -> list[Tensor]:
        """Return the projections to predict, one for each view. By default they are the network's own."""
        return projections

    def symmetric(self, p1: Tensor, p2: Tensor, z1: Tensor, z2: Tensor) -> dict[str, Tensor]:
        """Compute the symmetric loss: SimSiam's, between -1 and 1."""
        return {"negative_cosine": (negative_cosine(p1, z2) + negative_cosine(p2, z1)) / 2}

    def predictions(self, net: Objective, views: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return a prediction and the projection to predict for each view."""
        projections = [net.projector(net.encoder(view)) for view in views]
        return [net.predictor(projection) for projection in projections], self.targets(net, views, projections)

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:
        """Compute the symmetric loss."""
        p, z = self.predictions(net, batch.views)
        return self.symmetric(*p, *z)


@dataclass(kw_only=True, eq=False, repr=False)
class GuidedSiamese(Siamese):
    """A Siamese method with guided stop-gradient, which repels images that are too near each other; abstract.

    Parameters
    ----------
    stop_gradient : {"guided", "random", "reverse", "symmetric"}, default="guided"
        Where the gradient is stopped. "symmetric" predicts each of an image's two views from its sibling. The other
        values pair images at random and predict one view of each: "guided" predicts from the nearest two views of the
        pair, "reverse" from their siblings, "random" from views chosen at random.
    pairing : {"fresh", "shared"}, default="fresh"
        Views of an image when it is the second of a pair. "fresh" makes two further views, four in all, as in the
        reference code. "shared" uses the same two views, which halves the cost. Not used if
        `stop_gradient="symmetric"`.
    """

    stop_gradient: str = "guided"
    pairing: str = "fresh"

    _parameter_constraints: ClassVar[dict] = {
        **Siamese._parameter_constraints,
        "stop_gradient": [StrOptions({"guided", "random", "reverse", "symmetric"})],
        "pairing": [StrOptions({"fresh", "shared"})],
    }

    @property
    def n_views(self) -> int:
        """Four if an image has separate views as the second of a pair, otherwise two."""
        return 2 if self.stop_gradient == "symmetric" or self.pairing == "shared" else 4

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:
        """Compute the loss of guided stop-gradient on pairs of images, or the symmetric loss."""
        if self.stop_gradient == "symmetric":
            return super().losses(net, batch)
        p, z = self.predictions(net, batch.views)
        p, z = [all_gather(prediction) for prediction in p], [all_gather(target) for target in z]
        partner = shared_randperm(len(p[0]), batch.index.device)
        seconds = (p[2], p[3], z[2], z[3]) if self.pairing == "fresh" else None
        loss = guided_stop_gradient(p[0], p[1], z[0], z[1], partner, self.stop_gradient, seconds)
        return {"negative_cosine": loss}
