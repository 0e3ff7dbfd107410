"""The one loop that trains a probe step by step, on features as they are or on those of images augmented anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from skssl import optim
from skssl.augment import Augmentation, as_augmentations
from skssl.encoders import Encoder
from skssl.engine import at_a_time
from skssl.images import Images
from skssl.optim import LARC

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


def as_they_are(features: np.ndarray, device: torch.device) -> Draw:
    """Draw features without change.

    Parameters
    ----------
    features : ndarray of shape (n, d)
        The features.
    device : torch.device
        Where they are wanted.

    Returns
    -------
    callable
        From int64 numbers (b,) and a generator, which is not used, to float32 features (b, d).
    """
    kept = torch.tensor(features, dtype=torch.float32, device=device)
    return lambda rows, draws: kept.index_select(0, rows)


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


def train(
    make: Callable[[int], nn.Module],
    draw: Draw,
    rows: Tensor,
    target: Tensor,
    *,
    solver: str = "sgd",
    epochs: int,
    batch_size: int,
    lr: float,
    momentum: float,
    nesterov: bool,
    schedule: str,
    weight_decay: float,
    seed: int,
    verbose: int,
) -> nn.Module:
    """Make a head and minimise its cross-entropy.

    Parameters
    ----------
    make : callable
        From the features' width to a head, which maps features (b, d) to logits (b, n_classes); it may draw from the
        global generator.
    draw : callable
        From sample numbers and a generator to features.
    rows : int64 Tensor of shape (n,)
        Which samples to train on, on the CPU.
    target : int64 Tensor
        The class of every sample, on the device that computes, which is also that of what `draw` is given.
    solver : {"sgd", "larc"}, default="sgd"
        The optimiser.
    epochs, batch_size, lr, momentum, nesterov, schedule
        As in the probes.
    weight_decay : float
        That of all parameters with more than one axis.
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
    groups: list[dict[str, Any]] = [
        {"params": [p for p in head.parameters() if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in head.parameters() if p.ndim <= 1]},
    ]
    optimizer: torch.optim.Optimizer
    if solver == "larc":
        optimizer = LARC(groups, lr=lr, momentum=momentum)
    else:
        optimizer = torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov)
    course = SCHEDULES[schedule]
    progress = tqdm(range(epochs), f"lr={lr:g}", unit=" epochs", leave=None, disable=not verbose)
    for epoch in progress:
        batches = list(rows[torch.randperm(len(rows), generator=order)].to(device).split(batch_size))
        if len(batches) > 1 and len(batches[-1]) == 1 < batch_size:
            batches[-2:] = [torch.cat(batches[-2:])]  # BatchNorm cannot normalise a single sample
        for step, batch in enumerate(batches):
            done = epoch + step / len(batches)
            for group in optimizer.param_groups:
                group["lr"] = lr * course(done / epochs, done)
            loss = F.cross_entropy(head(draw(batch, draws)), target[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if verbose:
            progress.set_postfix(loss=f"{loss.item():.4g}")
    if not all(bool(p.isfinite().all()) for p in head.parameters()):
        raise ValueError(f"SGD diverged: with lr={lr:g} the weights are not finite. Lower lr or scale the features.")
    return head.eval().cpu()
