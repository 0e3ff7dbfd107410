"""Train the head of a probe by SGD, on fixed features or on the features of augmented images."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from skssl.augment.augmentation import Augmentation
from skssl.augment.presets import as_augmentations
from skssl.images import Clips, Images
from skssl.probes.encoders import Encoder
from skssl.training import schedules
from skssl.training.cuda_graphs import capture
from skssl.training.encoding import encoding_batch_size
from skssl.training.optim import larc_gradient
from skssl.training.schedules import sequence_course, step_decay
from skssl.training.seeding import seeded

GRAPH_DEVICES = {"cuda"}  # types of devices that support graphs
STEPS_PER_GRAPH = 256  # at most

#: Maps sample indices (b,) and a generator to features (b, d).
FeatureSource = Callable[[Tensor, torch.Generator], Tensor]

#: "multistep" is MoCo's schedule: a tenth at epochs 60 and 80 of 100. "steps" is its name in version 0.1.0.
SCHEDULES: dict[str, Callable[[float, float], float]] = {
    **{name: schedules.SCHEDULES[name] for name in ("constant", "cosine", "epoch_cosine")},
    **dict.fromkeys(("multistep", "steps"), partial(step_decay, (0.6, 0.8), 0.1)),
}


def resolve_augmentation(
    encoder: Encoder | None, augment: Any, shape: tuple[int, int, int], known: np.ndarray
) -> Augmentation | None:
    """Return the augmentation of a probe's training images.

    Parameters
    ----------
    encoder : Encoder or None
        The encoder. Features without an encoder are not augmented.
    augment : str, Augmentation or None
        The setting of the user or the protocol. The first view of a preset is used.
    shape : tuple of int
        Channels, height and width of the images.
    known : bool ndarray of shape (n,)
        Whether each image has a label. Saliency maps of the others are left out.

    Returns
    -------
    Augmentation or None
        None if the images are not augmented.
    """
    if encoder is None or augment in (None, "none"):
        return None
    augmentation = as_augmentations(augment, max(shape[1:]))[0]
    return augmentation if known.all() else augmentation.for_images(torch.from_numpy(known.nonzero()[0]))


def normalize_weights(weights: np.ndarray, index: Tensor, device: torch.device) -> Tensor:
    """Return sample weights of mean 1 over the training samples.

    Parameters
    ----------
    weights : ndarray of shape (n,)
        The weights of all samples.
    index : int64 Tensor of shape (m,)
        The indices of the training samples, on the CPU.
    device : torch.device
        The device of the training.

    Returns
    -------
    float32 Tensor of shape (n,)
        The weights, on the device.
    """
    every = torch.from_numpy(weights)
    return (every / every[index].mean()).float().to(device)


class FixedFeatures:
    """Features that are the same in every epoch.

    Parameters
    ----------
    features : ndarray of shape (n, d)
        The features.
    device : torch.device
        The device of the training.
    """

    def __init__(self, features: np.ndarray, device: torch.device) -> None:
        self.features = torch.tensor(features, dtype=torch.float32, device=device)

    def __call__(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """Return the float32 features (b, d) of the samples at int64 indices (b,); the generator is not used."""
        return self.features.index_select(0, index)


class AugmentedFeatures:
    """Features of images that are augmented anew each time; the encoder does not change.

    Parameters
    ----------
    images : Images
        The images.
    encoder : Encoder
        The encoder, used in evaluation mode.
    augment : Augmentation
        The augmentation. A copy is used, with the mean and the standard deviation of the encoder.

    Raises
    ------
    ValueError
        If the number of saliency maps is not that of the images.
    """

    def __init__(self, images: Images, encoder: Encoder, augment: Augmentation) -> None:
        (self.view,) = encoder.augmentations(augment, max(images.shape[1:]), len(images))
        self.images, self.encoder = images.to(encoder.device), encoder

    @torch.no_grad()
    def __call__(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """Return the float32 features (b, d) of augmented images at int64 indices (b,), on the encoder's device."""
        images, encoder = self.images, self.encoder
        module = encoder.module.eval()
        n_frames = images.n_frames if isinstance(images, Clips) else 1
        parts = index.split(max(1, encoding_batch_size(images.shape, encoder.device) // n_frames))
        if isinstance(images, Clips):
            found = [encoder.encode_views(self.view, images.read(part), part, generator) for part in parts]
        else:
            found = [module(self.view.read_views(images, part, generator)).float() for part in parts]
        return torch.cat(found)


class LinearHeads(nn.Module):
    """Linear layers that are trained side by side from the same initial weights.

    Parameters
    ----------
    layer : torch.nn.Linear
        The initial weights of each head.
    n_heads : int
        The number of heads.
    """

    def __init__(self, layer: nn.Linear, n_heads: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(layer.weight.detach().repeat(n_heads, 1, 1))  # (k, n_classes, d)
        self.bias = nn.Parameter(layer.bias.detach().repeat(n_heads, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map features (b, d) to logits (b, k, n_classes)."""
        return F.linear(x, self.weight.flatten(0, 1), self.bias.flatten()).unflatten(1, self.bias.shape)


def train_head(
    make_head: Callable[[int], nn.Module],
    features: FeatureSource,
    index: Tensor,
    labels: Tensor,
    *,
    solver: str = "sgd",
    epochs: int,
    batch_size: int,
    lr: Sequence[float],
    momentum: float,
    nesterov: bool,
    schedule: str | Sequence[Any],
    weight_decay: Sequence[float],
    seed: int,
    verbose: int,
    weights: Tensor | None = None,
) -> nn.Module:
    """Make a head and minimise its cross-entropy.

    On CUDA the steps on fixed features run as CUDA graphs of up to 256 steps. Launched one by one, their small kernels
    would wait for the host.

    Parameters
    ----------
    make_head : callable
        Maps the number of features to a head: a module from features (b, d) to logits (b, n_classes), or `LinearHeads`.
        It may draw from the global generator.
    features : callable
        Maps sample indices and a generator to features.
    index : int64 Tensor of shape (n,)
        The indices of the training samples, on the CPU.
    labels : int64 Tensor
        The class of every sample. Its device is that of the training and of the indices given to `features`.
    solver : {"sgd", "larc"}, default="sgd"
        The optimiser.
    epochs, batch_size, momentum, nesterov, schedule
        As in the probes.
    lr, weight_decay : sequences of float
        One value for each head. Only parameters with more than one axis are decayed.
    seed : int
        The seed of the initial weights, the order of the samples and the augmentation. The global random state is
        restored.
    verbose : int
        Whether to show a progress bar.
    weights : float32 Tensor, default=None
        The weight of every sample, of mean 1 over the training samples, on the device of `labels`. None is 1 for all.
        A step minimises the sum of the weighted losses divided by the number of samples, so that it follows the
        gradient of the weighted mean over all samples on average.

    Returns
    -------
    torch.nn.Module
        The head, on the CPU and in evaluation mode.

    Raises
    ------
    ValueError
        If the final parameters are not finite.
    """
    device = labels.device
    seeds = [int(state) for state in np.random.SeedSequence(seed).generate_state(2)]
    order, generator = torch.Generator().manual_seed(seed), torch.Generator(device).manual_seed(seeds[0])
    n_features = features(index[:1].to(device), torch.Generator(device)).shape[1]
    with seeded(seeds[1]):
        head = make_head(n_features).to(device).train()
    n_heads = torch.tensor(float(len(lr)), device=device)
    optimizer = _SGD(head, solver, momentum, nesterov, weight_decay)

    def run_steps(part: Tensor, rates: Tensor) -> Tensor:
        """Train on some samples batch by batch, with learning rates (k,) for each; return the last loss."""
        for batch, rate in zip(_split_batches(part, batch_size), rates, strict=True):
            logits, truth = head(features(batch, generator)), labels[batch]
            if logits.ndim == 3:  # several heads
                truth = truth[:, None].expand(logits.shape[:2]).flatten()
            # The mean over heads; their sum is minimised.
            if weights is None:
                loss = F.cross_entropy(logits.flatten(0, -2), truth)
            else:
                losses = F.cross_entropy(logits.flatten(0, -2), truth, reduction="none")
                loss = (losses.unflatten(0, (len(batch), -1)) * weights[batch][:, None]).mean()
            optimizer.step(torch.autograd.grad(loss, optimizer.params, n_heads), rate)
        return loss.detach()

    graphed = device.type in GRAPH_DEVICES and isinstance(features, FixedFeatures)
    run = GraphedFunction(run_steps) if graphed else run_steps
    factor_at = SCHEDULES[schedule] if isinstance(schedule, str) else sequence_course(schedule)
    peaks = torch.tensor(lr)
    n_steps = len(_split_batches(index, batch_size))
    title = f"lr={lr[0]:g}" if len(lr) == 1 else f"{len(lr)} candidates"
    progress = tqdm(range(epochs), title, unit=" epochs", leave=None, disable=not verbose)
    for epoch in progress:
        times = [epoch + step / n_steps for step in range(n_steps)]
        factors = torch.tensor([factor_at(time / epochs, time) for time in times])
        shuffled = index[torch.randperm(len(index), generator=order)].to(device)
        parts = _split_batches(shuffled, STEPS_PER_GRAPH * batch_size)
        sizes = [len(_split_batches(part, batch_size)) for part in parts]
        rates = (factors[:, None] * peaks).to(device).split(sizes)
        for part, part_rates in zip(parts, rates, strict=True):
            loss = run(part, part_rates)
        if verbose:
            progress.set_postfix(loss=f"{loss.item():.4g}")
    finite = torch.stack([p.isfinite().flatten(optimizer.lead).all(-1) for p in optimizer.params]).all(0).reshape(-1)
    if not finite.all():
        rate = lr[int(finite.logical_not().nonzero()[0])]
        raise ValueError(f"SGD diverged: with lr={rate:g} the weights are not finite. Lower lr or scale the features.")
    return head.eval().cpu()


def _split_batches(index: Tensor, size: int) -> list[Tensor]:
    """Split indices into batches; a last batch of one sample joins the one before it, since BatchNorm needs two."""
    parts = list(index.split(size))
    if len(parts) > 1 and len(parts[-1]) == 1 < size:
        parts[-2:] = [index[(len(parts) - 2) * size :]]
    return parts


class _SGD:
    """Momentum SGD or LARC for one head or several, whose learning rates are a tensor."""

    def __init__(
        self, head: nn.Module, solver: str, momentum: float, nesterov: bool, weight_decay: Sequence[float]
    ) -> None:
        self.params = list(head.parameters())
        self.velocities = [torch.zeros_like(p) for p in self.params]
        self.lead = int(isinstance(head, LinearHeads))  # number of leading axes that index heads
        self.decays: list[Tensor | float] = [
            self._expand(p.new_tensor(weight_decay), p) if p.ndim - self.lead > 1 and any(weight_decay) else 0.0
            for p in self.params
        ]
        self.larc, self.momentum, self.nesterov = solver == "larc", momentum, nesterov

    @staticmethod
    def _expand(values: Tensor, p: Tensor) -> Tensor:
        """Give values of the heads (k,) as many axes as a parameter has."""
        return values.reshape(-1, *[1] * (p.ndim - 1))

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], rates: Tensor) -> None:
        """Update the parameters by their gradients, with learning rates (k,)."""
        for p, gradient, velocity, decay in zip(self.params, gradients, self.velocities, self.decays, strict=True):
            if self.larc:
                direction = larc_gradient(p, gradient, decay, dim=tuple(range(self.lead, p.ndim)))
            else:
                direction = gradient if isinstance(decay, float) else gradient.addcmul(decay, p)
            velocity.mul_(self.momentum).add_(direction)
            ahead = self.nesterov and not self.larc
            update = direction.add(velocity, alpha=self.momentum) if ahead else velocity
            p.addcmul_(update, self._expand(rates, p), value=-1)


class GraphedFunction:
    """A function of tensors that is replayed as a CUDA graph.

    For each combination of input shapes the first call warms up, the second is captured, and later ones are replayed.
    If the capture fails, a warning is issued and the function is called as usual.

    Parameters
    ----------
    function : callable
        Maps tensors to a tensor. It must change other tensors in place only.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function
        self.graphs: dict[Any, _Recording | None] = {}
        self.works = True

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Call the function or replay its graph."""
        shapes = tuple(x.shape for x in inputs)
        if not self.works or shapes not in self.graphs:
            self.graphs[shapes] = None
            return self.function(*inputs)
        recording = self.graphs[shapes]
        if recording is None:
            try:
                self.graphs[shapes] = recording = _Recording(self.function, inputs)
            except RuntimeError as error:
                message = f"The training is slower, since no CUDA graph could be captured: {error}"
                warnings.warn(message, RuntimeWarning, stacklevel=2)
                self.works = False
                return self.function(*inputs)
        return recording.replay(inputs)


class _Recording:
    """A call of a function, captured with copies of its inputs."""

    def __init__(self, function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> None:
        self.function, self.inputs = function, tuple(x.clone() for x in inputs)
        self.graph = capture(self._call)

    def _call(self) -> None:
        self.output = self.function(*self.inputs)

    def replay(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Call the function with new inputs; the next call overwrites the output."""
        for captured, given in zip(self.inputs, inputs, strict=True):
            captured.copy_(given)
        self.graph.replay()
        return self.output
