"""The one loop that trains a probe step by step, on features as they are or on those of images augmented anew."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from skssl.augment.augmentation import Augmentation
from skssl.augment.presets import as_augmentations
from skssl.images import Images
from skssl.probes.encoders import Encoder
from skssl.training import optim
from skssl.training.encoding import at_a_time
from skssl.training.optim import larc_gradient

CAPTURED = {"cuda"}  # types of devices that have graphs
AT_ONCE = 256  # steps that a graph holds at most

Draw = Callable[[Tensor, torch.Generator], Tensor]  # from sample numbers (b,) to features (b, d)


def _steps(progress: float, epoch: float) -> float:
    """Fall to a tenth at 60 % of the training and again at 80 % (MoCo's epochs 60 and 80 of 100)."""
    return 0.1 ** sum(progress >= drop for drop in (0.6, 0.8))


SCHEDULES = {name: optim.SCHEDULES[name] for name in ("constant", "cosine", "epoch_cosine")} | {"steps": _steps}


def augmentation_for(encoder: Encoder | None, augment: Any, shape: tuple[int, int, int]) -> Augmentation | None:
    """Tell the augmentation of a probe's training images, if there is one.

    Parameters
    ----------
    encoder : Encoder or None
        The encoder; without one there is nothing to augment.
    augment : str, Augmentation or None
        What the user or the protocol says; of a preset with several views the first counts.
    shape : tuple of int
        Channels, height and width of the images.

    Returns
    -------
    Augmentation or None
        None where there is none.
    """
    if encoder is None or augment in (None, "none"):
        return None
    return as_augmentations(augment, max(shape[1:]))[0]


class AsTheyAre:
    """Draw features without change.

    Parameters
    ----------
    features : ndarray of shape (n, d)
        The features.
    device : torch.device
        Where they are wanted.
    """

    def __init__(self, features: np.ndarray, device: torch.device) -> None:
        self.features = torch.tensor(features, dtype=torch.float32, device=device)

    def __call__(self, rows: Tensor, draws: torch.Generator) -> Tensor:
        """Draw, from int64 numbers (b,) and a generator, which is not used, float32 features (b, d)."""
        return self.features.index_select(0, rows)


def augmented(images: Images, encoder: Encoder, augment: Augmentation) -> Draw:
    """Draw the features of images that are augmented anew every time; nothing in the encoder moves.

    Parameters
    ----------
    images : Images
        The images.
    encoder : Encoder
        The encoder, which is put in evaluation mode.
    augment : Augmentation
        The augmentation, of which a copy with the encoder's mean and deviation is taken.

    Returns
    -------
    callable
        From int64 numbers (b,) and a generator to float32 features (b, d), all on the encoder's device.

    Raises
    ------
    ValueError
        If saliency maps are of another number than the images.
    """
    (view,) = encoder.augmentations(augment, max(images.shape[1:]), len(images))
    images = images.to(encoder.device)

    @torch.no_grad()
    def draw(rows: Tensor, draws: torch.Generator) -> Tensor:
        encoder.module.eval()
        parts = rows.split(at_a_time(images.shape, encoder.device))
        return torch.cat([encoder.module(view(images.read(part), draws, part)).float() for part in parts])

    return draw


class Heads(nn.Module):
    """Linear layers side by side, that start alike and are trained at once.

    Parameters
    ----------
    layer : torch.nn.Linear
        What each of them starts as.
    n_heads : int
        How many.
    """

    def __init__(self, layer: nn.Linear, n_heads: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(layer.weight.detach().repeat(n_heads, 1, 1))  # (k, n_classes, d)
        self.bias = nn.Parameter(layer.bias.detach().repeat(n_heads, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map features (b, d) to logits (b, k, n_classes)."""
        return F.linear(x, self.weight.flatten(0, 1), self.bias.flatten()).unflatten(1, self.bias.shape)


def train(
    make: Callable[[int], nn.Module],
    draw: Draw,
    rows: Tensor,
    target: Tensor,
    *,
    solver: str = "sgd",
    epochs: int,
    batch_size: int,
    lr: Sequence[float],
    momentum: float,
    nesterov: bool,
    schedule: str,
    weight_decay: Sequence[float],
    seed: int,
    verbose: int,
) -> nn.Module:
    """Make a head, or `Heads`, and minimise its cross-entropy.

    On CUDA the steps on features as they are run as CUDA graphs: the host, which could not launch that many small
    kernels fast enough, starts hundreds of steps at once.

    Parameters
    ----------
    make : callable
        From the features' width to a head, which maps features (b, d) to logits (b, n_classes), or to `Heads`; it may
        draw from the global generator.
    draw : callable
        From sample numbers and a generator to features.
    rows : int64 Tensor of shape (n,)
        Which samples to train on, on the CPU.
    target : int64 Tensor
        The class of every sample, on the device that computes, which is also that of what `draw` is given.
    solver : {"sgd", "larc"}, default="sgd"
        The optimiser.
    epochs, batch_size, momentum, nesterov, schedule
        As in the probes.
    lr, weight_decay : sequences of float
        One for each of the heads. Weight decay is that of all parameters with more than one axis.
    seed : int
        Of the head, the order of the samples and the augmentation. The global random state is left as it was.
    verbose : int
        Whether to show a progress bar.

    Returns
    -------
    torch.nn.Module
        The head, on the CPU and in evaluation mode.

    Raises
    ------
    ValueError
        If the parameters are not finite in the end.
    """
    device = target.device
    seeds = [int(state) for state in np.random.SeedSequence(seed).generate_state(2)]
    order, draws = torch.Generator().manual_seed(seed), torch.Generator(device).manual_seed(seeds[0])
    width = draw(rows[:1].to(device), torch.Generator(device)).shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seeds[1])
        head = make(width).to(device).train()
    n_heads = torch.tensor(float(len(lr)), device=device)
    update = _Update(head, solver, momentum, nesterov, weight_decay)

    def steps(part: Tensor, rates: Tensor) -> Tensor:
        """Go through some samples, batch by batch, each with its learning rates (k,)."""
        for batch, rate in zip(_split(part, batch_size), rates, strict=True):
            logits, wanted = head(draw(batch, draws)), target[batch]
            if logits.ndim == 3:  # of several heads
                wanted = wanted[:, None].expand(logits.shape[:2]).flatten()
            loss = F.cross_entropy(logits.flatten(0, -2), wanted)  # the mean over heads, of which the sum is minimised
            update(torch.autograd.grad(loss, update.params, n_heads), rate)
        return loss.detach()

    run = Replayed(steps) if device.type in CAPTURED and isinstance(draw, AsTheyAre) else steps
    course, peaks = SCHEDULES[schedule], torch.tensor(lr)
    n_steps = len(_split(rows, batch_size))
    title = f"lr={lr[0]:g}" if len(lr) == 1 else f"{len(lr)} candidates"
    progress = tqdm(range(epochs), title, unit=" epochs", leave=None, disable=not verbose)
    for epoch in progress:
        done = [epoch + step / n_steps for step in range(n_steps)]
        factors = torch.tensor([course(at / epochs, at) for at in done])
        shuffled = rows[torch.randperm(len(rows), generator=order)].to(device)
        parts = _split(shuffled, AT_ONCE * batch_size)
        rates = (factors[:, None] * peaks).to(device).split([len(_split(part, batch_size)) for part in parts])
        for part, rates_of_part in zip(parts, rates, strict=True):
            loss = run(part, rates_of_part)
        if verbose:
            progress.set_postfix(loss=f"{loss.item():.4g}")
    finite = torch.stack([p.isfinite().flatten(update.lead).all(-1) for p in update.params]).all(0).reshape(-1)
    if not finite.all():
        rate = lr[int(finite.logical_not().nonzero()[0])]
        raise ValueError(f"SGD diverged: with lr={rate:g} the weights are not finite. Lower lr or scale the features.")
    return head.eval().cpu()


def _split(rows: Tensor, size: int) -> list[Tensor]:
    """Cut rows into parts, of which no last one is of a single row: BatchNorm could not normalise it."""
    parts = list(rows.split(size))
    if len(parts) > 1 and len(parts[-1]) == 1 < size:
        parts[-2:] = [rows[(len(parts) - 2) * size :]]
    return parts


class _Update:
    """Momentum SGD or LARC, of one head or of several at once, whose learning rates are a tensor."""

    def __init__(
        self, head: nn.Module, solver: str, momentum: float, nesterov: bool, weight_decay: Sequence[float]
    ) -> None:
        self.params = list(head.parameters())
        self.velocities = [torch.zeros_like(p) for p in self.params]
        self.lead = int(isinstance(head, Heads))  # axes that hold heads
        self.decays: list[Tensor | float] = [
            self.beside(p.new_tensor(weight_decay), p) if p.ndim - self.lead > 1 and any(weight_decay) else 0.0
            for p in self.params
        ]
        self.larc, self.momentum, self.nesterov = solver == "larc", momentum, nesterov

    @staticmethod
    def beside(values: Tensor, p: Tensor) -> Tensor:
        """Give the heads' values (k,) as many axes as their parameters have."""
        return values.reshape(-1, *[1] * (p.ndim - 1))

    @torch.no_grad()
    def __call__(self, gradients: Sequence[Tensor], rates: Tensor) -> None:
        """Take a step."""
        for p, gradient, velocity, decay in zip(self.params, gradients, self.velocities, self.decays, strict=True):
            if self.larc:
                moved = larc_gradient(p, gradient, decay, dim=tuple(range(self.lead, p.ndim)))
            else:
                moved = gradient if isinstance(decay, float) else gradient.addcmul(decay, p)
            velocity.mul_(self.momentum).add_(moved)
            ahead = moved.add(velocity, alpha=self.momentum) if self.nesterov and not self.larc else velocity
            p.addcmul_(ahead, self.beside(rates, p), value=-1)


class Replayed:
    """A function of tensors that a CUDA graph does again, from the third call on with tensors of the same shapes.

    The first call warms up, the second is captured. Where that fails the function is called as it is, with a warning.

    Parameters
    ----------
    function : callable
        From tensors to a tensor. What it does besides to other tensors it must do in place.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function
        self.graphs: dict[Any, tuple[tuple[Tensor, ...], Callable[[], Tensor]] | None] = {}
        self.works = True

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Call the function, or do again what it did."""
        shapes = tuple(x.shape for x in inputs)
        if not self.works or shapes not in self.graphs:
            self.graphs[shapes] = None
            return self.function(*inputs)
        if self.graphs[shapes] is None:
            kept = tuple(x.clone() for x in inputs)
            try:
                self.graphs[shapes] = kept, _capture(self.function, kept)
            except RuntimeError as error:
                message = f"No CUDA graph could be made, so that training is slower: {error}"
                warnings.warn(message, RuntimeWarning, stacklevel=2)
                self.works = False
                return self.function(*inputs)
        kept, again = self.graphs[shapes]  # type: ignore[misc]
        for mine, given in zip(kept, inputs, strict=True):
            mine.copy_(given)
        return again()


def _capture(function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Callable[[], Tensor]:
    """Record what a function does on the GPU, which it does not do meanwhile, and return what does it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = function(*inputs)

    def again() -> Tensor:
        graph.replay()
        return found

    return again
