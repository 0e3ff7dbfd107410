"""DirectPred: set a linear predictor from the statistics of the projections instead of training it."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import ClassVar

import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn

from skssl.losses import byol_loss
from skssl.losses.precision import full_precision
from skssl.methods.momentum import MomentumMethod
from skssl.methods.settings import Settings
from skssl.nn.distributed import all_reduce_mean
from skssl.nn.heads import MLP
from skssl.training.objective import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class DirectPred(MomentumMethod):
    """DirectPred: BYOL with a linear predictor that is computed from the correlation of the projections.

    Parameters
    ----------
    direct : {"pred", "copy"}, default="pred"
        "pred" gives the predictor the eigenvectors of the correlation F and the square roots of its eigenvalues. "copy"
        (DirectCopy) sets it to F.
    freq : int, default=1
        Number of steps between two updates of the predictor, which is updated in the first step of every epoch. If it
        is larger than 1, the gradient trains the predictor in between; at 1 it is not trained.
    rho : float, default=0.3
        Share of the running correlation that is kept in a step.
    eps : float, default=0.01
        Value added to the predictor's eigenvalues.
    hidden_dim : int, default=512
        Width of the projector's hidden layer.
    proj_dim : int, default=128
        Width of the projector's output and of the predictor.

    References
    ----------
    Tian et al., Understanding Self-Supervised Learning Dynamics without Contrastive Pairs, ICML 2021, section 4. Wang
    et al., Towards Demystifying Representation Learning with Non-contrastive Self-supervision, 2021 ("copy"). As in the
    reference code, `eps` is added after scaling the largest eigenvalue to 1; the paper multiplies `eps` by that
    eigenvalue. The scale of the predictor does not matter otherwise, since predictions are normalised. Unlike in the
    reference code, the copy starts with the online weights, and the projector's BatchNorm has a scale and a shift. On a
    GPU, where an eigendecomposition would synchronise, matrix products give the same predictor to about 1e-3.

    Examples
    --------
    >>> from skssl import DirectPred
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = DirectPred(backbone="convnet", epochs=1, batch_size=32, random_state=0).fit(X)
    >>> encoder.transform(X).shape
    (64, 128)
    """

    direct: str = "pred"
    freq: int = 1
    rho: float = 0.3
    eps: float = 0.01
    hidden_dim: int = 512
    proj_dim: int = 128
    ema_momentum: float = 0.996

    default_settings: ClassVar[Settings] = Settings(
        augment="simclr",
        optimizer="sgd",
        lr=0.06,
        weight_decay=4e-4,
        schedule="constant",
        warmup=0.0,
        aux_weight=1.0,
    )
    _parameter_constraints: ClassVar[dict] = {
        **MomentumMethod._parameter_constraints,
        "direct": [StrOptions({"pred", "copy"})],
        "freq": [Interval(Integral, 1, None, closed="left")],
        "rho": [Interval(Real, 0, 1, closed="left")],
        "eps": [Interval(Real, 0, None, closed="left")],
        "hidden_dim": [Interval(Integral, 1, None, closed="left")],
        "proj_dim": [Interval(Integral, 1, None, closed="left")],
    }

    def build(self, net: Objective, dim: int, n_samples: int) -> None:
        """Add the predictor, which requires a gradient only if it is trained between two updates."""
        net.projector = MLP((dim, self.hidden_dim, self.proj_dim))
        net.predictor = nn.Linear(self.proj_dim, self.proj_dim, bias=False).requires_grad_(bool(self.freq > 1))
        net.register_buffer("correlation", torch.zeros(self.proj_dim, self.proj_dim))
        super().build(net, dim, n_samples)

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        z = [net.projector(net.encoder(view)) for view in batch.views]  # BatchNorm sees one view at a time
        p1, p2 = (net.predictor(projection) for projection in z)
        with torch.no_grad():
            z1, z2 = (net.target(view) for view in batch.views)
            now = all_reduce_mean(correlation(torch.cat(z)).to(net.correlation.dtype))
            old = torch.where(net.correlation.any(), net.correlation, now)  # the first batch initialises it
            net.correlation.copy_(old.lerp(now, 1 - self.rho))
        return {"byol": byol_loss(p1, p2, z1, z2)}

    @torch.no_grad()
    def after_step(self, net: Objective, step: int, progress: float) -> None:
        """Set the predictor every `freq` steps, and update the momentum copy."""
        if step % self.freq == 0:
            weight = direct_pred if self.direct == "pred" else direct_copy
            net.predictor.weight.copy_(weight(net.correlation, self.eps))
        super().after_step(net, step, progress)


@full_precision
def correlation(z: Tensor) -> Tensor:
    """Return the mean of z z^T over rows that are neither centred nor normalised: (n, d) -> (d, d)."""
    return z.T @ z / len(z)


def direct_pred(f: Tensor, eps: float) -> Tensor:
    """Return the predictor U diag(sqrt(s / max s) + eps) U^T of a correlation U diag(s) U^T: (d, d) -> (d, d).

    ``eigh`` synchronises with a CUDA device. There, a matrix square root computes the same without synchronisation.
    """
    f = f.nan_to_num()  # the trainer reports divergence
    return (_by_eigenvectors if f.device.type == "cpu" else _by_products)(f, eps)


def _by_eigenvectors(f: Tensor, eps: float) -> Tensor:
    """Decompose the correlation, in about 1 ms for 128 dimensions on one core of a CPU."""
    values, vectors = torch.linalg.eigh(f)
    share = values.clamp(min=0) / values[-1].clamp(min=torch.finfo(f.dtype).tiny)  # eigh sorts them in ascending order
    return vectors * (share.sqrt() + eps).clamp(min=1e-4) @ vectors.T


@full_precision
def _by_products(f: Tensor, eps: float) -> Tensor:
    """Compute (f / max s)^(1/2) to about 1e-3 with matrix products, and add eps to its diagonal.

    It is the coupled Newton-Schulz iteration, in which roots of small eigenvalues grow by half in each iteration until
    they converge. 1e-6 is added first, because float32 errors can make small eigenvalues negative, which have no root.
    """
    eye = torch.eye(len(f), dtype=torch.float64, device=f.device)
    tiny = torch.finfo(f.dtype).tiny
    root, inverse = f.double() / f.double().norm().clamp(min=tiny) + 1e-6 * eye, eye
    for _ in range(22):
        factor = torch.addmm(eye, inverse, root, beta=1.5, alpha=-0.5)
        root, inverse = root @ factor, factor @ inverse
    power, largest = root, torch.zeros_like(root[0, 0])  # the logarithm of the largest eigenvalue
    for k in range(16):  # the norm of root^(2^k) approaches its largest eigenvalue
        norm = power.norm()
        largest = largest + norm.log() / 2**k
        power = (power / norm) @ (power / norm)
    return direct_copy((root / largest.exp()).to(f.dtype), max(eps, 1e-4))


def direct_copy(f: Tensor, eps: float) -> Tensor:
    """Return the predictor F + eps I of a correlation F: (d, d) -> (d, d)."""
    return f + eps * torch.eye(len(f), dtype=f.dtype, device=f.device)
