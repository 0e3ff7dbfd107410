"""The base of detection and segmentation: parameters, training loop, images of any size."""

from __future__ import annotations

import copy
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from skssl.augment.normalization import gain_and_offset
from skssl.images import as_images
from skssl.images.image_files import decode_image
from skssl.methods.docstrings import inherit_parameters
from skssl.probes.encoders import as_trained
from skssl.training.devices import available, keeping_memory, portable, resolve_device
from skssl.training.optim import make_optimizer
from skssl.training.progress import Progress
from skssl.training.schedules import SchedulerRates, check_schedule, makes_scheduler, schedule_factor
from skssl.training.seeding import seeded
from skssl.transfer.annotations import AnnotatedImages, Sample

if TYPE_CHECKING:
    import pandas as pd

Folders = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
MAX_ASPECT = 5 / 3  # longer side / `image_size`, at most: 1333 / 800 in Faster R-CNN, 1000 / 600 in UPerNet
BASE_LR, BASE_BATCH_SIZE = 0.02, 16  # the papers' learning rate and batch size


@dataclass(kw_only=True, eq=False, repr=False)
class DenseTransfer(BaseEstimator, ABC):
    """Base class of detection and segmentation with a feature pyramid on an encoder.

    Parameters
    ----------
    encoder : fitted estimator of skssl, FrozenEstimator of one, or torch.nn.Module
        The encoder, which is copied. It needs stages that end in feature maps (`backbones.stages`), as ResNets, AlexNet
        and "convnet" have. Images are normalised as in its training; for a module, by ImageNet's mean and standard
        deviation.
    frozen : bool or str, default=True
        Whether the encoder is frozen, including its BatchNorm. If False, it is trained with the rest. The name of a
        stage (`backbones.stages`), such as "layer3", freezes the encoder up to and including that stage.
    image_size : int or sequence of int, default=800
        Length of the resized shorter side in pixels. It is reduced if the longer side would exceed 5/3 of it. Of
        several sizes, one is drawn for each training image, and the last is used for testing. The papers draw from
        ``range(480, 801, 32)`` for detection and from (300, 375, 450, 525, 600) for segmentation.
    epochs : int, default=24
        Number of passes over the images.
    width : int, default=256
        Channels of the pyramid's feature maps. The hidden layers of a detector's box head have four times as many
        units.
    batch_size : int, default=16
        Images per step. The last batch of an epoch is dropped if it is shorter, unless it is the only one.
    lr : float, default=None
        Peak learning rate. None is 0.02 * batch_size / 16.
    momentum : float, default=0.9
        Momentum of SGD.
    weight_decay : float, default=1e-4
        Weight decay of SGD.
    schedule : {"constant", "cosine", "epoch_cosine", "polynomial", "step"}, sequence or callable, default="cosine"
        Schedule of the learning rate, as for the methods. Papers use ((0.75, 0.1), (0.92, 0.01)), which is a tenth
        and a hundredth from these shares of the training on, for detection, and "polynomial" for segmentation. See
        `recipes.DENSE`.
    warmup_epochs : float, default=1.0
        Epochs during which the rate rises linearly from 0. It must be 0 with one of torch's schedulers.
    flip : float, default=0.5
        Probability that a training image is flipped horizontally.
    num_workers : int, default=0
        Processes that read images; 0 reads them in the main process.
    device : str or torch.device, default="auto"
        "auto" is CUDA if available, else MPS, else the CPU.
    random_state : int, RandomState instance or None, default=None
        Seed of all random numbers. The global random state is restored.
    verbose : int, default=0
        1 shows a progress bar with the time left.
    """

    encoder: Any = field(kw_only=False)
    frozen: bool | str = True
    image_size: Any = 800
    width: int = 256
    epochs: int = 24
    batch_size: int = 16
    lr: float | None = None
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: str | Sequence[Any] | Callable[..., Any] = "cosine"
    warmup_epochs: float = 1.0
    flip: float = 0.5
    num_workers: int = 0
    device: Any = "auto"
    random_state: Any = None
    verbose: int = 0

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "frozen": ["boolean", str],
        "image_size": [Interval(Integral, 32, None, closed="left"), "array-like", range],
        "width": [Interval(Integral, 1, None, closed="left")],
        "epochs": [Interval(Integral, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 2, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither"), None],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "schedule": [str, "array-like", callable],
        "warmup_epochs": [Interval(Real, 0, None, closed="left")],
        "flip": [Interval(Real, 0, 1, closed="both")],
        "num_workers": [Interval(Integral, 0, None, closed="left")],
        "device": [str, torch.device],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Document the parameters that a class inherits."""
        super().__init_subclass__(**kwargs)
        inherit_parameters(cls, DenseTransfer)

    @abstractmethod
    def _find_training_samples(self, folder: Any, split: Any) -> list[Sample]:
        """Return the training images with their targets, and set `classes_`."""

    @abstractmethod
    def _build(self, encoder: nn.Module, channels: int, **transform: Any) -> nn.Module:
        """Build the network; `transform` says how images are resized and normalised."""

    @abstractmethod
    def _target(self, target: Any, device: torch.device, flipped_width: int) -> Any:
        """Return a target in the form that the network expects; for a flipped image, given its width instead of 0."""

    def fit(self, folder: Folders, split: str | Sequence[str] = "train") -> Self:
        """Train on annotated images.

        Parameters
        ----------
        folder : str, path, or list of these
            The folder, such as ``VOCdevkit/VOC2007``, or several in the same format, which are joined.
        split : str or list of str, default="train"
            The split, or one for each folder. Its names are those of the data set: of the lists in ``ImageSets``
            (PASCAL VOC), "train2017" (COCO), "train" (Cityscapes), "training" (ADE20K).

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        FileNotFoundError
            If a folder is in no known format, or lacks a part of its format, an image or an annotation.
        NotFittedError
            If the encoder is an estimator that is not fitted.
        ValueError
            If there is no such split, the folders differ in format, a file cannot be read, a parameter is out of range,
            or the encoder has no feature maps.
        FloatingPointError
            If the training diverges.
        """
        self._validate_params()
        check_schedule(self.schedule, self.warmup_epochs)
        sizes = [int(size) for size in np.atleast_1d(np.asarray(self.image_size))]
        if not sizes or min(sizes) < 32:
            raise ValueError(
                f"image_size must be an integer of at least 32, or a sequence of these. Got {self.image_size!r}."
            )
        device, trained = resolve_device(self.device), as_trained(self.encoder, device=self.device)
        self._channels = channels = trained.shape[0]
        samples = AnnotatedImages(self._find_training_samples(folder, split), channels)
        if len(samples) < 2:
            raise ValueError(f"{type(self).__name__} needs at least 2 training images. Got {len(samples)}.")
        gain, offset = gain_and_offset(trained.augment.mean, trained.augment.std, channels, torch.device("cpu"))
        transform = {
            "min_size": tuple(sizes),
            "max_size": round(MAX_ASPECT * max(sizes)),
            "image_mean": (-offset / gain).tolist(),
            "image_std": (1 / gain).tolist(),
        }
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        with seeded(seed, device):
            encoder = copy.deepcopy(trained.module)  # the user's encoder is not changed
            self.model_ = self._build(encoder, channels, **transform).to(device)
            with keeping_memory():
                self.history_ = self._train(samples, torch.Generator().manual_seed(seed), device)
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Return the state with the network on the CPU, so that any machine can load it."""
        state = super().__getstate__()
        return {**state, "model_": portable(state["model_"])} if "model_" in state else state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Bring the network to its device, if this machine has such a one."""
        super().__setstate__(state)
        if "model_" in state:
            self.model_.to(available(self.device))

    def _train(self, samples: AnnotatedImages, order: torch.Generator, device: torch.device) -> pd.DataFrame:
        """Train the network and return the history."""
        import pandas as pd

        batch_size = min(self.batch_size, len(samples))
        loader = DataLoader(
            samples,
            batch_size,
            shuffle=True,
            drop_last=True,  # BatchNorm needs more than one image
            collate_fn=list,
            num_workers=self.num_workers,
            generator=order,
        )
        rate = self.lr or BASE_LR * self.batch_size / BASE_BATCH_SIZE
        optimizer = make_optimizer("sgd", self.model_, lr=rate, momentum=self.momentum, weight_decay=self.weight_decay)
        scheduler = SchedulerRates(cast(Any, self.schedule), [rate]) if makes_scheduler(self.schedule) else None
        rows: list[dict[str, Any]] = []
        with Progress(self.verbose, self.epochs, len(loader), batch_size) as progress:
            for epoch in range(self.epochs):
                self.model_.train()
                started, sums = time.perf_counter(), cast(dict[str, Tensor], {})
                for step, batch in enumerate(progress(cast(Any, loader), f"Epoch {epoch + 1}/{self.epochs}")):
                    if scheduler is not None:
                        (lr,) = scheduler(epoch, step, len(loader), [row["loss"] for row in rows])
                    else:
                        done = epoch + step / len(loader)
                        done += (done < self.warmup_epochs) / len(loader)  # so that the rate of the first step is not 0
                        lr = rate * schedule_factor(cast(Any, self.schedule), done, self.epochs, self.warmup_epochs)
                    for group in optimizer.param_groups:
                        group["lr"] = lr
                    losses = self._losses(cast(Any, batch), device)
                    optimizer.zero_grad()
                    losses["loss"].backward()
                    optimizer.step()
                    sums = {name: value.detach() + sums.get(name, 0.0) for name, value in losses.items()}
                    progress.show(sums["loss"], step + 1)
                means = {name: float(value) / len(loader) for name, value in sums.items()}
                if not math.isfinite(means["loss"]):
                    raise FloatingPointError(
                        f"The training diverged in epoch {epoch + 1}: the loss is {means['loss']:.4g}. Try a learning "
                        f"rate below lr={rate:g} or more warmup_epochs."
                    )
                speed = len(loader) * batch_size / (time.perf_counter() - started)
                rows.append(
                    {"epoch": epoch + 1, **means, "lr": optimizer.param_groups[0]["lr"], "images_per_second": speed}
                )
        return pd.DataFrame(rows)

    def _losses(self, batch: list[tuple[Tensor, Any]], device: torch.device) -> dict[str, Tensor]:
        """Compute the losses of a batch after random flips."""
        images, targets = [], []
        for (image, target), draw in zip(batch, torch.rand(len(batch)).tolist(), strict=True):
            pixels = _unit(image.to(device, non_blocking=True))
            images.append(pixels.flip(-1) if draw < self.flip else pixels)
            targets.append(self._target(target, device, image.shape[2] if draw < self.flip else 0))
        losses = self.model_(images, targets)
        return {"loss": sum(losses.values()), **losses}

    def _progress(self, n_images: int) -> Iterable[int]:
        """Return the indices of the images, with a progress bar if `verbose` is set."""
        return tqdm(range(n_images), desc="Evaluation", unit=" images", dynamic_ncols=True, disable=not self.verbose)

    def _predict_one(self, image: Tensor) -> Any:
        """Run the network on one image (c, h, w). Alone, since padding would make it depend on others."""
        device = next(self.model_.parameters()).device
        with torch.no_grad():
            return self.model_.eval()([_unit(image.to(device))])[0]


def iter_images(X: Any, channels: int) -> Iterator[Tensor]:
    """Iterate over images of any kind and of several sizes; yield float32 (c, h, w) in [0, 1]."""
    if isinstance(X, (str, os.PathLike)) or hasattr(X, "getbands") or getattr(X, "ndim", 4) == 2:
        raise TypeError("X must be a sequence of images. Got a single image; put it into a list.")
    for i, x in enumerate(X):
        if isinstance(x, (str, os.PathLike)) or hasattr(x, "getbands"):
            name = f"Sample {i} of X" + (f", the file {str(x)!r}," if isinstance(x, (str, os.PathLike)) else "")
            image = torch.from_numpy(decode_image(x, name, channels)).permute(2, 0, 1)
        else:
            x = x if isinstance(x, Tensor) else np.asarray(x)
            image = as_images(x[None], reset=False, scale=(0.0, 1.0)).read(torch.tensor([0]))[0]
        if len(image) not in (1, channels):
            raise ValueError(f"Sample {i} of X has {len(image)} channels, but the encoder expects {channels}.")
        yield _unit(image).expand(channels, -1, -1)


def _unit(image: Tensor) -> Tensor:
    """Convert uint8 to float32 in [0, 1]."""
    return image.float() / 255 if image.dtype == torch.uint8 else image


def check_known(names: set[Any], classes: np.ndarray, split: Any) -> None:
    """Raise if there are classes that the training images lack."""
    unknown = sorted(names - set(classes.tolist()))
    if unknown:
        raise ValueError(
            f"The split {split!r} has the class {unknown[0]!r}, which the training images lack. Their classes are "
            f"{classes.tolist()}."
        )
