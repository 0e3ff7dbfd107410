"""Optimisers by name, including LARS."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from skssl.backbones.maps import layers
from skssl.errors import pick
from skssl.storage.registry import register


@register("optimizer")
class LARS(Optimizer):
    r"""Momentum SGD whose steps are scaled to the norm of the weights, layer by layer.

    Four update rules are known as LARS. This is BYOL's (also Barlow Twins', VICReg's and DINO's):

    .. math::
        d = g + \lambda w, \quad d \leftarrow \eta \frac{\lVert w\rVert}{\lVert d\rVert} d, \quad
        \mu \leftarrow m \mu + d, \quad w \leftarrow w - \mathrm{lr}\,\mu.

    Parameters of one axis (biases and gains of norms) are neither decayed nor scaled.

    Parameters
    ----------
    params : iterable
        Parameters or parameter groups.
    lr : float
        Learning rate.
    momentum : float, default=0.9
        m.
    weight_decay : float, default=0.0
        lambda.
    trust : float, default=1e-3
        The trust coefficient, eta.

    References
    ----------
    You et al., Large Batch Training of Convolutional Networks, 2017; Grill et al., NeurIPS 2020, section 3.3.

    Examples
    --------
    >>> import torch
    >>> from skssl.training.optim import LARS
    >>> weight = torch.nn.Parameter(torch.tensor([[3.0, 4.0]]))
    >>> weight.grad = torch.tensor([[100.0, 0.0]])
    >>> LARS([weight], lr=1.0, trust=0.1).step()
    >>> weight.data  # moved by a tenth of its norm, 5
    tensor([[2.5000, 4.0000]])
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 1e-3,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step.

        Parameters
        ----------
        closure : callable, optional
            Called first. It computes the loss and its gradients.

        Returns
        -------
        object
            The result of the closure.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            for p in params:
                self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
            buffers = [self.state[p]["momentum_buffer"] for p in params]
            torch._foreach_mul_(buffers, group["momentum"])
            flat = [i for i, p in enumerate(params) if p.ndim <= 1]
            deep = [i for i, p in enumerate(params) if p.ndim > 1]
            if flat:
                torch._foreach_add_([buffers[i] for i in flat], [params[i].grad for i in flat])
            if deep:
                weights = [params[i] for i in deep]
                directions = torch._foreach_add([w.grad for w in weights], weights, alpha=group["weight_decay"])
                norms = (
                    torch.stack(torch._foreach_norm(weights)),
                    torch.stack(torch._foreach_norm(directions)),
                )
                trust = group["trust"] * norms[0] / norms[1]
                trust = torch.where((norms[0] > 0) & (norms[1] > 0), trust, 1.0)
                torch._foreach_addcmul_([buffers[i] for i in deep], directions, list(trust.unbind()))
            torch._foreach_add_(params, buffers, alpha=-group["lr"])
        return loss


@register("optimizer")
class LARC(Optimizer):
    r"""Momentum SGD whose gradients are scaled to the norm of the weights: another rule known as LARS.

    SwAV, DeepCluster-v2 and the linear probes of SimSiam and guided stop-gradient take it from NVIDIA's apex, with
    ``clip=False``:

    .. math::
        d = \eta \frac{\lVert w\rVert}{\lVert g\rVert + \lambda \lVert w\rVert + 10^{-8}} (g + \lambda w), \quad
        \mu \leftarrow m \mu + d, \quad w \leftarrow w - \mathrm{lr}\,\mu.

    All parameters are scaled, also biases and gains of norms. If a parameter or its gradient is zero, d = g.

    Parameters
    ----------
    params : iterable
        Parameters or parameter groups.
    lr : float
        Learning rate.
    momentum : float, default=0.9
        m.
    weight_decay : float, default=0.0
        lambda.
    trust : float, default=1e-3
        The trust coefficient, eta.

    References
    ----------
    You et al., Large Batch Training of Convolutional Networks, 2017, equation 6.

    Examples
    --------
    >>> import torch
    >>> from skssl.training.optim import LARC
    >>> bias = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    >>> bias.grad = torch.tensor([100.0, 0.0])
    >>> LARC([bias], lr=1.0, trust=0.1).step()
    >>> bias.data  # moved by a tenth of its norm, 5
    tensor([2.5000, 4.0000])
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 1e-3,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step.

        Parameters
        ----------
        closure : callable, optional
            Called first. It computes the loss and its gradients.

        Returns
        -------
        object
            The result of the closure.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            decay = group["weight_decay"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                buffer = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
                buffer.mul_(group["momentum"]).add_(larc_gradient(p, p.grad, decay, group["trust"]))
                p.sub_(group["lr"] * buffer)
        return loss


def larc_gradient(
    p: Tensor, grad: Tensor, decay: float | Tensor, trust: float = 1e-3, dim: tuple[int, ...] | None = None
) -> Tensor:
    """Scale a gradient to the norm of its parameter, as `LARC` does.

    Parameters
    ----------
    p : Tensor
        The parameter.
    grad : Tensor of the same shape
        Its gradient.
    decay : float or Tensor
        The weight decay.
    trust : float, default=1e-3
        The trust coefficient.
    dim : tuple of int, default=None
        Axes of the norms. The other axes hold several parameters side by side. None is all axes.

    Returns
    -------
    Tensor of the same shape
        d of `LARC`.

    Examples
    --------
    >>> import torch
    >>> from skssl.training.optim import larc_gradient
    >>> larc_gradient(torch.tensor([3.0, 4.0]), torch.tensor([100.0, 0.0]), decay=0.0, trust=0.1)
    tensor([0.5000, 0.0000])
    """
    size, slope = (torch.linalg.vector_norm(x, dim=dim, keepdim=True) for x in (p, grad))
    scaled = trust * size / (slope + decay * size + 1e-8) * (grad + decay * p)
    return torch.where((size > 0) & (slope > 0), scaled, grad)


OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": torch.optim.SGD, "lars": LARS, "adamw": torch.optim.AdamW}


def make_optimizer(
    optimizer: str | type[Optimizer],
    module: nn.Module,
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
    unscheduled: Collection[str] = (),
    rates: Mapping[str, float] | None = None,
    scales: Mapping[str, float] | None = None,
) -> Optimizer:
    """Make an optimiser of the parameters of a module that require a gradient.

    Parameters
    ----------
    optimizer : {"sgd", "lars", "adamw"} or torch.optim.Optimizer subclass
        The optimiser. AdamW does not decay parameters of one axis, which are biases and gains of norms. No optimiser
        decays the parameters that modules name in ``no_weight_decay()``, as timm's do: positions and class tokens.
    module : torch.nn.Module
        The module.
    lr, momentum, weight_decay : float
        Passed to the optimiser if it takes them. The momentum is the first beta of Adam and AdamW.
    unscheduled : collection of str, default=()
        Names of submodules whose learning rate stays constant, such as SimSiam's predictor.
    rates : mapping of str to float, default=None
        Learning rates of submodules, by their name, that differ from `lr`.
    scales : mapping of str to float, default=None
        Factors of the learning rates of parameters, by their name, which are 1 otherwise, see `layer_scales`.

    Returns
    -------
    torch.optim.Optimizer
        The optimiser. For the schedule, each parameter group holds its learning rate as "peak", whether it is
        scheduled as "scheduled", the factor of the rate as "scale", and whether it is decayed as "decayed".

    Raises
    ------
    TypeError, ValueError
        If the name is unknown, or the class makes no optimiser of these parameters.

    Examples
    --------
    >>> from torch import nn
    >>> from skssl.training.optim import make_optimizer
    >>> net = nn.ModuleDict({"encoder": nn.Linear(2, 2), "predictor": nn.Linear(2, 2)})
    >>> made = make_optimizer("sgd", net, lr=0.1, momentum=0.9, weight_decay=0.0, unscheduled=["predictor"])
    >>> [(len(group["params"]), group["scheduled"]) for group in made.param_groups]
    [(2, True), (2, False)]
    """
    kind = pick("optimizer", optimizer, OPTIMIZERS) if isinstance(optimizer, str) else optimizer
    base = kind.func if isinstance(kind, partial) else kind
    groups = parameter_groups(
        module,
        lr=lr,
        weight_decay=weight_decay,
        unscheduled=unscheduled,
        rates=rates or {},
        scales=scales or {},
        decay_vectors=base is not torch.optim.AdamW,
    )
    options: dict[str, Any] = {"momentum": momentum}
    adams = torch.optim.Adam, torch.optim.AdamW
    if isinstance(base, type) and issubclass(base, (torch.optim.SGD, *adams)):  # a function is accepted, too
        options["fused"] = True  # on all devices
    if isinstance(kind, type) and issubclass(kind, adams):
        options["betas"] = (momentum, inspect.signature(kind).parameters["betas"].default[1])
    try:
        options = {name: value for name, value in options.items() if name in inspect.signature(kind).parameters}
        made = kind(groups, lr=lr, **options)  # type: ignore[call-arg]
    except (TypeError, ValueError) as error:
        raise type(error)(f"optimizer={kind!r} cannot be made with lr={lr}: {error}") from error
    if not isinstance(made, torch.optim.Optimizer):
        raise TypeError(f"optimizer={kind!r} must make a torch.optim.Optimizer. It made {type(made).__name__}.")
    if base is torch.optim.SGD and momentum:
        _initialize_momentum(made)
    return made


def parameter_groups(
    module: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    unscheduled: Collection[str],
    rates: Mapping[str, float],
    decay_vectors: bool,
    scales: Mapping[str, float] = MappingProxyType({}),
) -> list[dict[str, Any]]:
    """Group the parameters of a module that require a gradient by learning rate, schedule and weight decay.

    Parameters
    ----------
    module : torch.nn.Module
        The module.
    lr, weight_decay, unscheduled, rates, scales
        As for `make_optimizer`.
    decay_vectors : bool
        Whether parameters of one axis, such as biases, are decayed.

    Returns
    -------
    list of dict
        The groups, with the entries "params", "lr", "peak", "scheduled", "scale", "decayed" and
        "weight_decay".

    Examples
    --------
    >>> from torch import nn
    >>> from skssl.training.optim import parameter_groups
    >>> layer = nn.Linear(2, 2)
    >>> found = parameter_groups(layer, lr=0.1, weight_decay=1e-4, unscheduled=(), rates={}, decay_vectors=False)
    >>> [group["weight_decay"] for group in found]
    [0.0001, 0.0]
    """
    groups: dict[tuple[float, bool, float, bool], list[nn.Parameter]] = {}
    kept = {
        f"{path}.{name}".lstrip(".")
        for path, part in module.named_modules()
        for name in getattr(part, "no_weight_decay", set)()
    }
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            part = name.split(".")[0]
            decayed = (decay_vectors or parameter.ndim > 1) and name not in kept
            key = rates.get(part, lr), part not in unscheduled, scales.get(name, 1.0), decayed
            groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": rate * scale,
            "peak": rate * scale,
            "scheduled": scheduled,
            "scale": scale,
            "decayed": decayed,
            "weight_decay": weight_decay if decayed else 0.0,
        }
        for (rate, scheduled, scale, decayed), parameters in groups.items()
    ]


def layer_scales(encoder: nn.Module, decay: float, prefix: str = "encoder.") -> dict[str, float]:
    """Return factors of the learning rates of an encoder's layers that fall towards the images: layer-wise decay.

    Parameters
    ----------
    encoder : torch.nn.Module
        The encoder, which may contain the network with the layers of `backbones.layers`.
    decay : float
        The factor from a layer to the one before it, in (0, 1]. The last layer has this factor; what follows it, such
        as the last norm of a vision transformer, has a factor of 1.
    prefix : str, default="encoder."
        What precedes the names of the parameters.

    Returns
    -------
    dict of str to float
        The factors by the names of the parameters.

    Raises
    ------
    ValueError
        If the layers of the encoder are not known, and `decay` is not 1.

    References
    ----------
    Clark et al., ELECTRA, ICLR 2020; Bao et al., BEiT, ICLR 2022, for vision transformers.

    Examples
    --------
    >>> from skssl.backbones import ConvNet
    >>> from skssl.training.optim import layer_scales
    >>> found = layer_scales(ConvNet(), 0.5)
    >>> [found[f"encoder.features.{i}.weight"] for i in (0, 3, 6, 9)]
    [0.0625, 0.125, 0.25, 0.5]
    """
    if decay == 1:
        return {}
    found = layers(encoder)
    if len(found) < 2:
        raise ValueError(
            "layer_decay needs an encoder whose layers are known: a vision transformer, or a network with stages (see "
            f"skssl.backbones.stages). Got layer_decay={decay} and {type(encoder).__name__}."
        )
    depths = {id(p): i for i, layer in enumerate(found) for part in layer for p in part.parameters()}
    names = dict(encoder.named_parameters())
    first = next(i for i, p in enumerate(names.values()) if depths.get(id(p), 0) > 0)  # what precedes it is layer 0
    return {
        f"{prefix}{name}": decay ** (len(found) - depths.get(id(p), 0 if i < first else len(found)))
        for i, (name, p) in enumerate(names.items())
    }


def clip_gradients(module: nn.Module, max_norm: float, *, each: bool = False) -> None:
    """Scale the gradients of a module down to a norm, without waiting for the device.

    Parameters
    ----------
    module : torch.nn.Module
        The module.
    max_norm : float
        The largest norm. Smaller gradients are not changed.
    each : bool, default=False
        Whether the norm is that of each parameter's gradient, as in DINO, and not that of all together.

    Examples
    --------
    >>> import torch
    >>> from skssl.training.optim import clip_gradients
    >>> layer = torch.nn.Linear(2, 1)
    >>> layer.weight.grad, layer.bias.grad = torch.tensor([[4.0, 0.0]]), torch.tensor([3.0])
    >>> clip_gradients(layer, 1.0)
    >>> layer.weight.grad, layer.bias.grad
    (tensor([[0.8000, 0.0000]]), tensor([0.6000]))
    """
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    norms = torch.stack(torch._foreach_norm(gradients))
    if each:
        torch._foreach_mul_(gradients, list((max_norm / (norms + 1e-6)).clamp_(max=1).unbind()))
    else:
        torch._foreach_mul_(gradients, (max_norm / (torch.linalg.vector_norm(norms) + 1e-6)).clamp_(max=1))


def _initialize_momentum(optimizer: Optimizer) -> None:
    """Begin with a momentum of zeros: fused SGD fails if only some parameters have a momentum, as layers thaw."""
    for parameter in optimizer_parameters(optimizer):
        optimizer.state[parameter] = {"momentum_buffer": torch.zeros_like(parameter)}


def optimizer_parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    """List the parameters of an optimiser, in the order of its groups.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        The optimiser.

    Returns
    -------
    list of torch.nn.Parameter
        The parameters.

    Examples
    --------
    >>> import torch
    >>> from skssl.training.optim import optimizer_parameters
    >>> len(optimizer_parameters(torch.optim.SGD(torch.nn.Linear(2, 2).parameters())))
    2
    """
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def laid_out_as(parameter: nn.Parameter, value: Tensor) -> Tensor:
    """Give a tensor of an optimiser's state the memory layout of its parameter, which fused steps require.

    Parameters
    ----------
    parameter : torch.nn.Parameter
        The parameter.
    value : Tensor
        A tensor of the optimiser's state for the parameter.

    Returns
    -------
    Tensor
        A copy on the parameter's device, or the tensor itself if it is a counter, of another shape.

    Examples
    --------
    >>> import torch
    >>> from skssl.training.optim import laid_out_as
    >>> weight = torch.nn.Parameter(torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last))
    >>> laid_out_as(weight, torch.ones(2, 3, 4, 4)).is_contiguous(memory_format=torch.channels_last)
    True
    """
    if value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def reset_state(optimizer: Optimizer, module: nn.Module) -> None:
    """Reset an optimiser's state of the parameters of a module, such as momentum, to zero.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        The optimiser.
    module : torch.nn.Module
        A module whose parameters it trains.

    Examples
    --------
    >>> import torch
    >>> from skssl.training.optim import reset_state
    >>> layer = torch.nn.Linear(1, 1)
    >>> optimizer = torch.optim.SGD(layer.parameters(), lr=1.0, momentum=0.9)
    >>> layer(torch.ones(1)).backward()
    >>> optimizer.step()
    >>> reset_state(optimizer, layer)
    >>> optimizer.state[layer.weight]["momentum_buffer"]
    tensor([[0.]])
    """
    for parameter in module.parameters():
        for value in optimizer.state[parameter].values():
            if isinstance(value, torch.Tensor):
                value.zero_()
