"""Detection and segmentation on an encoder's maps: transfer to tasks that ask where things are."""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, cast
from xml.etree import ElementTree

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from skssl.backbones import stages
from skssl.devices import available, portable, resolve_device
from skssl.encoders import MODULE_SHAPE, as_trained, last_of, outputs_of
from skssl.engine import Progress
from skssl.errors import pick
from skssl.images import as_images, read_picture
from skssl.optim import make_optimizer, schedule_factor

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DetectionTransfer", "SegmentationTransfer", "average_precision", "mean_iou"]

VOID = 255  # a mask's value where no class is given, or any would do
MAPS = 4  # of the pyramid, the coarsest ones
LONGEST = 5 / 3  # of an image's longer side by `image_size`: 1333 by 800 in Faster R-CNN, 1000 by 600 in UPerNet
ANCHOR = 8  # an anchor's side by its map's stride: 32 by 4, 64 by 8, …
LR, LR_IMAGES = 0.02, 16  # the papers' learning rate, and for how many images a step


# Folders in PASCAL VOC's format


class VOCObject(NamedTuple):
    """An object in an annotation: its class, its box (left, top, right, bottom) and whether it is marked difficult."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool


def read_objects(path: str | os.PathLike[str]) -> list[VOCObject]:
    """Read the objects of an annotation in PASCAL VOC's format.

    Parameters
    ----------
    path : str or path
        The XML file. Its boxes hold the first and the last pixel, counted from 1.

    Returns
    -------
    list of VOCObject
        The objects; a box goes from edge to edge, (0, 0, width, height) is the whole image.

    Raises
    ------
    ValueError
        If the file is no such annotation, or a box has no area.
    """
    found = []
    try:
        for node in ElementTree.parse(path).getroot().iter("object"):
            corners = [float(node.findtext(f"bndbox/{of}", "missing")) for of in ("xmin", "ymin", "xmax", "ymax")]
            box = (corners[0] - 1, corners[1] - 1, corners[2], corners[3])
            name = node.findtext("name", "").strip()
            if not (name and box[0] < box[2] and box[1] < box[3]):
                raise ValueError(f"an object {name!r} has the corners {corners}")
            found.append(VOCObject(name, box, node.findtext("difficult", "0").strip() == "1"))
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"{str(path)!r} is no annotation in PASCAL VOC's format: {error}.") from error
    return found


def read_mask(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a mask, whose values are classes: uint8 (h, w)."""
    from PIL import Image

    try:
        with Image.open(path) as mask:
            mode, values = mask.mode, np.asarray(mask)
    except OSError as error:
        raise ValueError(f"{str(path)!r} cannot be read as a mask: {error}") from error
    if mode not in ("P", "L"):
        raise ValueError(
            f"{str(path)!r} is of mode {mode}, but a palette or grey image was expected, whose values are the classes."
        )
    return values


def _find(
    folder: str | os.PathLike[str], split: str, lists: str, annotations: str, ending: str
) -> list[tuple[Path, Path]]:
    """Find the images of a split of a folder, each with the file that annotates it."""
    root = Path(folder)
    parts = ("JPEGImages", f"ImageSets/{lists}", annotations)
    for part in parts:
        if not (root / part).is_dir():
            raise FileNotFoundError(
                f"{str(root)!r} is no folder in PASCAL VOC's format: it has no {part}, while {', '.join(parts)} were "
                "expected."
            )
    splits = {path.stem: path for path in sorted((root / parts[1]).glob("*.txt"))}
    names = [line.split()[0] for line in pick("split", split, splits).read_text().splitlines() if line.strip()]
    if not names:
        raise ValueError(f"The split {split!r} of {str(root)!r} has no images.")
    images = {path.stem: path for path in sorted((root / parts[0]).iterdir())}
    files = []
    for name in names:
        annotation = root / annotations / f"{name}{ending}"
        if name not in images or not annotation.is_file():
            lacking = f"annotation {str(annotation)!r}" if name in images else f"file in {str(root / parts[0])!r}"
            raise FileNotFoundError(f"The image {name!r} of the split {split!r} has no {lacking}.")
        files.append((images[name], annotation))
    return files


class _Samples(Dataset):
    """The images of a split with what is to be found in them."""

    def __init__(self, files: Sequence[tuple[Path, Any]], channels: int) -> None:
        self.files, self.channels = files, channels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[Tensor, Any]:
        """Read an image, uint8 (c, h, w), and its mask; objects have been read."""
        path, target = self.files[i]
        image = torch.from_numpy(read_picture(path, f"The file {str(path)!r}", self.channels)).permute(2, 0, 1)
        if isinstance(target, Path):
            mask = torch.from_numpy(read_mask(target).copy())
            if mask.shape != image.shape[1:]:
                raise ValueError(
                    f"The mask {str(target)!r} has the height and width {tuple(mask.shape)}, but its image has "
                    f"{tuple(image.shape[1:])}."
                )
            return image, mask
        return image, target


def _each(X: Any, channels: int) -> Iterator[Tensor]:
    """Go through whatever the user calls images, each of its own size: float32 (c, h, w) in [0, 1]."""
    if isinstance(X, (str, os.PathLike)) or hasattr(X, "getbands") or getattr(X, "ndim", 4) == 2:
        raise TypeError("X must be a sequence of images, which one image alone is not: put it into a list.")
    for i, x in enumerate(X):
        if isinstance(x, (str, os.PathLike)) or hasattr(x, "getbands"):
            name = f"Sample {i} of X" + (f", the file {str(x)!r}," if isinstance(x, (str, os.PathLike)) else "")
            image = torch.from_numpy(read_picture(x, name, channels)).permute(2, 0, 1)
        else:
            x = x if isinstance(x, Tensor) else np.asarray(x)
            image = as_images(x[None], reset=False, scale=(0.0, 1.0)).read(torch.tensor([0]))[0]
        if len(image) not in (1, channels):
            raise ValueError(f"Sample {i} of X has {len(image)} channels, but the encoder reads {channels}.")
        yield _unit(image).expand(channels, -1, -1)


def _unit(image: Tensor) -> Tensor:
    """Bring uint8 to float32 in [0, 1]."""
    return image.float() / 255 if image.dtype == torch.uint8 else image


# Networks


class Pyramid(nn.Module):
    """A feature pyramid on the maps of an encoder's stages, one map for each resolution, the coarsest four.

    Parameters
    ----------
    encoder : torch.nn.Module
        The encoder, which becomes a part of the pyramid: it is left in evaluation mode and without gradients if it is
        frozen.
    channels : int
        Channels of the images.
    width : int
        Channels of the pyramid's maps.
    frozen : bool
        Whether the encoder stays as it is.
    pooled : bool, default=False
        Whether the coarsest map is joined by what is seen of it as a whole, in halves, thirds and sixths (PSPNet).
    beyond : bool, default=False
        Whether there is another map above the coarsest, of half its resolution.

    Attributes
    ----------
    out_channels : int
        `width`, for torchvision.
    strides : list of int
        Pixels of the image by cell of the encoder's maps, in rising order.

    Raises
    ------
    ValueError
        If the encoder has no stages that end in maps.

    References
    ----------
    Lin et al., Feature Pyramid Networks for Object Detection, CVPR 2017. BatchNorm follows its convolutions, as in
    MoCo [He et al., CVPR 2020, section 4.2], since the maps of different encoders differ in scale.
    """

    def __init__(
        self, encoder: nn.Module, channels: int, width: int, *, frozen: bool, pooled: bool = False, beyond: bool = False
    ) -> None:
        from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

        super().__init__()
        self.encoder, self.frozen, self.out_channels = encoder.requires_grad_(not frozen), frozen, width
        ends = [last_of(stage) for stage in stages(encoder).values()]
        with torch.no_grad():
            weight = next(encoder.parameters(), torch.zeros(()))
            side = MODULE_SHAPE[1]
            grids = outputs_of(ends, encoder.eval(), torch.zeros(1, channels, side, side, device=weight.device))
        found = {grid.shape[2]: (end, grid.shape[1]) for end, grid in zip(ends, grids, strict=True) if grid.ndim == 4}
        if not found:
            raise ValueError(
                "encoder must have stages that end in maps, as ResNets have (see skssl.backbones.stages). Got "
                f"{type(encoder).__name__}, which has none."
            )
        sides = sorted(found, reverse=True)[-MAPS:]
        self.ends = [found[side][0] for side in sides]  # in a list, as they are no children of this module, too
        self.strides = [2 ** round(math.log2(side / cells)) for cells in sides]
        widths = [found[side][1] for side in sides]
        self.context = PyramidPooling(widths[-1], width) if pooled else nn.Identity()
        self.fpn = FeaturePyramidNetwork(
            [*widths[:-1], width if pooled else widths[-1]],
            width,
            extra_blocks=LastLevelMaxPool() if beyond else None,
            norm_layer=nn.BatchNorm2d,
        )

    def train(self, mode: bool = True) -> Self:
        """Set the mode, but leave a frozen encoder in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Map images (n, c, h, w) to maps of `width` channels by the names "0", "1", …, the finest first."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            grids = outputs_of(self.ends, self.encoder, images)
        return self.fpn({str(i): grid for i, grid in enumerate([*grids[:-1], self.context(grids[-1])])})


class PyramidPooling(nn.Module):
    """A map joined by its own means over a grid of 1, 2, 3 and 6 cells a side (Zhao et al., PSPNet, CVPR 2017)."""

    def __init__(self, channels: int, width: int) -> None:
        from torchvision.ops import Conv2dNormActivation

        super().__init__()
        cells = (1, 2, 3, 6)
        self.branches = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(n), Conv2dNormActivation(channels, width, 1)) for n in cells
        )
        self.join = Conv2dNormActivation(channels + len(cells) * width, width, 3)

    def forward(self, grid: Tensor) -> Tensor:
        """Map (n, c, h, w) to (n, width, h, w)."""
        seen = [_resize(branch(grid), grid.shape[2:]) for branch in self.branches]
        return self.join(torch.cat([grid, *seen], dim=1))


class Segmenter(nn.Module):
    """From images to classes of their pixels, called as torchvision's detectors are.

    Parameters
    ----------
    pyramid : Pyramid
        From images to maps.
    n_classes : int
        The number of classes.
    transform : torchvision.models.detection.transform.GeneralizedRCNNTransform
        Brings images to size, normalises and pads them.
    """

    def __init__(self, pyramid: Pyramid, n_classes: int, transform: nn.Module) -> None:
        from torchvision.ops import Conv2dNormActivation

        super().__init__()
        self.transform, self.pyramid, width = transform, pyramid, pyramid.out_channels
        self.fuse = Conv2dNormActivation(len(pyramid.strides) * width, width, 3)
        self.classifier = nn.Conv2d(width, n_classes, 1)

    def forward(self, images: list[Tensor], targets: list[Tensor] | None = None) -> Any:
        """Give the loss of images (c, h, w) and masks (h, w) of int64; in evaluation mode the predicted masks."""
        batch, _ = self.transform(images)
        maps = list(self.pyramid(batch.tensors).values())
        joined = torch.cat([_resize(grid, maps[0].shape[2:]) for grid in maps], dim=1)
        scores = _resize(self.classifier(self.fuse(joined)), batch.tensors.shape[2:])
        if targets is None:
            return [
                _resize(score[None, :, :h, :w], image.shape[1:])[0].argmax(0)
                for score, (h, w), image in zip(scores, batch.image_sizes, images, strict=True)
            ]
        truth = torch.full_like(scores[:, 0], VOID, dtype=torch.int64)
        for i, (target, (h, w)) in enumerate(zip(targets, batch.image_sizes, strict=True)):
            truth[i, :h, :w] = F.interpolate(target[None, None].float(), (h, w), mode="nearest-exact")[0, 0].long()
        known = (truth != VOID).sum().clamp(min=1)  # a batch may be void altogether
        return {"loss_pixels": F.cross_entropy(scores, truth, ignore_index=VOID, reduction="sum") / known}


def _resize(grid: Tensor, size: Sequence[int]) -> Tensor:
    """Resize maps (n, c, h, w) bilinearly."""
    return F.interpolate(grid, tuple(size), mode="bilinear")


# Estimators


@dataclass(kw_only=True, eq=False, repr=False)
class _DenseTransfer(BaseEstimator, ABC):
    """What detection and segmentation share: a pyramid on an encoder, a folder to learn from, and how it is learned.

    Parameters
    ----------
    encoder : fitted estimator of skssl, FrozenEstimator of one, or torch.nn.Module
        The encoder, of which a copy is used. It needs stages that end in maps (`backbones.stages`), as ResNets, AlexNet
        and "convnet" have. Images are normalised as those that it was trained on; for a module, by ImageNet's mean and
        deviation.
    frozen : bool, default=True
        Whether the encoder stays as it is, or is trained with the rest, its BatchNorm included.
    image_size : int or sequence of int, default=800 (detection), 480 (segmentation)
        To what the shorter side is brought, in pixels, unless the longer side would exceed 5/3 of it. Of several one is
        drawn for each training image, and the last is for testing. The papers draw from ``range(480, 801, 32)`` to
        detect, and from (300, 375, 450, 525, 600) to segment.
    epochs : int, default=24 (detection), 45 (segmentation)
        How often `fit` goes through the images.
    width : int, default=256
        Channels of the pyramid's maps. A detector's layers that classify boxes have four times as many units.
    batch_size : int, default=16
        Images a step. An epoch's last, shorter batch is left out, unless it is the only one.
    lr : float, default=None
        Learning rate at its highest. None is 0.02 for 16 images a step, and in proportion to them.
    momentum, weight_decay : float, default=0.9, 1e-4
        Of SGD.
    warmup_epochs : float, default=1.0
        Epochs in which the rate rises from 0. Then it falls along half a cosine.
    flip : float, default=0.5
        The share of training images that are mirrored.
    num_workers : int, default=0
        Processes that read images while the network trains; 0 reads them in between.
    device : str or torch.device, default="auto"
        "auto" is CUDA, else MPS, else the CPU.
    random_state : int, RandomState instance or None, default=None
        Seed of the weights, the order, mirroring and all else. The global random state is not used.
    verbose : int, default=0
        1 shows a progress bar for every epoch.
    """

    encoder: Any = field(kw_only=False)
    frozen: bool = True
    image_size: Any = 800
    width: int = 256
    epochs: int = 24
    batch_size: int = 16
    lr: float | None = None
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup_epochs: float = 1.0
    flip: float = 0.5
    num_workers: int = 0
    device: Any = "auto"
    random_state: Any = None
    verbose: int = 0

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "frozen": ["boolean"],
        "image_size": [Interval(Integral, 32, None, closed="left"), "array-like", range],
        "width": [Interval(Integral, 1, None, closed="left")],
        "epochs": [Interval(Integral, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 2, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither"), None],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "warmup_epochs": [Interval(Real, 0, None, closed="left")],
        "flip": [Interval(Real, 0, 1, closed="both")],
        "num_workers": [Interval(Integral, 0, None, closed="left")],
        "device": [str, torch.device],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Add the parameters to the docstring."""
        super().__init_subclass__(**kwargs)
        shared = inspect.getdoc(_DenseTransfer) or ""
        shared = shared[shared.index("Parameters\n") :]
        cls.__doc__ = inspect.cleandoc(cls.__doc__ or "").replace("Attributes\n", f"{shared}\n\nAttributes\n", 1)

    @abstractmethod
    def _learn(self, folder: Any, split: str) -> list[tuple[Path, Any]]:
        """Find the training images with their targets, and set `classes_`."""

    @abstractmethod
    def _build(self, encoder: nn.Module, channels: int, **transform: Any) -> nn.Module:
        """Make the network, whose images are brought to size and normalised as `transform` says."""

    @abstractmethod
    def _target(self, target: Any, device: torch.device, mirrored: int) -> Any:
        """Make what the network takes for a target; of a mirrored image of that width, if it is not 0."""

    def fit(self, folder: str | os.PathLike[str], split: str = "train") -> Self:
        """Learn from a folder in PASCAL VOC's format.

        Parameters
        ----------
        folder : str or path
            The folder, such as ``VOCdevkit/VOC2007``.
        split : str, default="train"
            Which images, by the name of a list in its ``ImageSets``.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        FileNotFoundError
            If this is no such folder, or an image or an annotation is missing.
        NotFittedError
            If the encoder is an estimator that is not fitted.
        ValueError
            If there is no such split, a file cannot be read, a parameter is out of range, or the encoder has no maps.
        FloatingPointError
            If the training diverges.
        """
        self._validate_params()
        sizes = [int(size) for size in np.atleast_1d(np.asarray(self.image_size))]
        if not sizes or min(sizes) < 32:
            raise ValueError(f"image_size must be an integer from 32 on, or some of them. Got {self.image_size!r}.")
        device, trained = resolve_device(self.device), as_trained(self.encoder, device=self.device)
        self._channels = channels = trained.shape[0]
        samples = _Samples(self._learn(folder, split), channels)
        if len(samples) < 2:
            raise ValueError(f"{type(self).__name__} needs at least 2 images to learn from. Got {len(samples)}.")
        gain, offset = (row.flatten() for row in trained.augment._scaling(channels, torch.device("cpu")))
        transform = {
            "min_size": tuple(sizes),
            "max_size": round(LONGEST * max(sizes)),
            "image_mean": (-offset / gain).tolist(),
            "image_std": (1 / gain).tolist(),
        }
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        devices = [] if device.type == "cpu" else [device.index or 0]
        with torch.random.fork_rng(devices, device_type="cuda" if device.type == "cpu" else device.type):
            torch.manual_seed(seed)
            encoder = copy.deepcopy(trained.module)  # the user's own stays as it is
            self.model_ = self._build(encoder, channels, **transform).to(device)
            self.history_ = self._train(samples, torch.Generator().manual_seed(seed), device)
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Bring the network to where it can be loaded anywhere."""
        state = super().__getstate__()
        return {**state, "model_": portable(state["model_"])} if "model_" in state else state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Bring the network to its device, if this machine has such a one."""
        super().__setstate__(state)
        if "model_" in state:
            self.model_.to(available(self.device))

    def _train(self, samples: _Samples, order: torch.Generator, device: torch.device) -> pd.DataFrame:
        """Train the network, and give the history."""
        import pandas as pd

        batch_size = min(self.batch_size, len(samples))
        loader = DataLoader(
            samples,
            batch_size,
            shuffle=True,
            drop_last=True,  # BatchNorm cannot learn from one image
            collate_fn=list,
            num_workers=self.num_workers,
            generator=order,
        )
        rate = self.lr or LR * self.batch_size / LR_IMAGES
        optimizer = make_optimizer("sgd", self.model_, lr=rate, momentum=self.momentum, weight_decay=self.weight_decay)
        rows = []
        for epoch in range(self.epochs):
            self.model_.train()
            progress = Progress(f"Epoch {epoch + 1}/{self.epochs}", self.verbose)
            started, sums = time.perf_counter(), cast(dict[str, Tensor], {})
            for step, batch in enumerate(progress(cast(Any, loader), len(loader), batch_size)):
                done = epoch + step / len(loader)
                done += (done < self.warmup_epochs) / len(loader)  # the first step is not one of rate 0
                for group in optimizer.param_groups:
                    group["lr"] = rate * schedule_factor("cosine", done, self.epochs, self.warmup_epochs)
                losses = self._losses(cast(Any, batch), device)
                optimizer.zero_grad()
                losses["loss"].backward()
                optimizer.step()
                sums = {name: value.detach() + sums.get(name, 0.0) for name, value in losses.items()}
                progress.show(sums["loss"], step + 1)
            means = {name: float(value) / len(loader) for name, value in sums.items()}
            if not math.isfinite(means["loss"]):
                raise FloatingPointError(
                    f"The training has diverged in epoch {epoch + 1}: the loss is {means['loss']:.4g}. Try a learning "
                    f"rate below lr={rate:g} or more warmup_epochs."
                )
            speed = len(loader) * batch_size / (time.perf_counter() - started)
            rows.append(
                {"epoch": epoch + 1, **means, "lr": optimizer.param_groups[0]["lr"], "images_per_second": speed}
            )
        return pd.DataFrame(rows)

    def _losses(self, batch: list[tuple[Tensor, Any]], device: torch.device) -> dict[str, Tensor]:
        """Compute the losses of a batch, some of whose images are mirrored."""
        images, targets = [], []
        for (image, target), draw in zip(batch, torch.rand(len(batch)).tolist(), strict=True):
            pixels = _unit(image.to(device, non_blocking=True))
            images.append(pixels.flip(-1) if draw < self.flip else pixels)
            targets.append(self._target(target, device, image.shape[2] if draw < self.flip else 0))
        losses = self.model_(images, targets)
        return {"loss": sum(losses.values()), **losses}

    def _progress(self, n_images: int) -> Iterable[int]:
        """Count images that are gone through, with a bar if one is asked for."""
        return tqdm(range(n_images), desc="Evaluation", unit=" images", dynamic_ncols=True, disable=not self.verbose)

    def _run(self, image: Tensor) -> Any:
        """Run the network on an image (c, h, w), alone, so that it does not depend on others."""
        device = next(self.model_.parameters()).device
        with torch.no_grad():
            return self.model_.eval()([_unit(image.to(device))])[0]


@dataclass(kw_only=True, eq=False, repr=False)
class DetectionTransfer(_DenseTransfer):
    """Faster R-CNN on the maps of a trained encoder: how well what it has learned serves to find objects.

    A feature pyramid (FPN) joins the maps of the encoder's stages, torchvision's ``FasterRCNN`` does the rest, and both
    are trained on a folder in PASCAL VOC's format: the images in ``JPEGImages``, what they show in
    ``Annotations/<name>.xml``, which of them are for what in ``ImageSets/Main/<split>.txt``.

    Attributes
    ----------
    classes_ : ndarray of str
        The names of the classes.
    history_ : pandas.DataFrame
        A row an epoch: epoch, loss, its four parts by torchvision's names, lr, images_per_second.
    model_ : torchvision.models.detection.FasterRCNN
        The trained detector; label 0 is the background, the others are places in `classes_` plus 1.

    Notes
    -----
    The settings are those of MoCo [1]_ and Ericsson et al. [2]_ (24,000 steps of 16 images at a rate of 0.02, or
    144,000 of 2 at 0.0025, after 100 steps of warm-up), but the rate falls along a cosine and not in two steps of a
    tenth. As in [2]_ and other than in [1]_ on VOC, whose head is C4, the detector has a pyramid. Anchors are eight
    times as large as their map's stride, 32 pixels at a stride of 4. Objects marked difficult are learned from, as in
    Detectron2.

    References
    ----------
    .. [1] He et al., Momentum Contrast for Unsupervised Visual Representation Learning, CVPR 2020, section 4.2.
    .. [2] Ericsson et al., How Well Do Self-Supervised Models Transfer?, CVPR 2021, and its code.
    .. [3] Ren et al., Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks, NeurIPS 2015.

    Examples
    --------
    >>> import tempfile
    >>> from skssl import DetectionTransfer, SimCLR
    >>> from skssl.datasets import make_shapes, make_voc_folder
    >>> encoder = SimCLR(backbone="convnet", epochs=0).fit(make_shapes(2, random_state=0)[0])
    >>> folder = make_voc_folder(tempfile.mkdtemp(), 8, random_state=0)
    >>> detector = DetectionTransfer(encoder, image_size=64, width=16, epochs=1, random_state=0).fit(folder)
    >>> detector.classes_
    array(['disc', 'square'], dtype='<U6')
    >>> sorted(detector.evaluate(folder))
    ['AP', 'AP50', 'AP75']
    """

    def predict(self, X: Any) -> list[dict[str, np.ndarray]]:
        """Find objects.

        Parameters
        ----------
        X : sequence of files, PIL images or arrays (h, w), (h, w, c) or (c, h, w), or array of these
            Images, each of its own size; uint8, or float in [0, 1].

        Returns
        -------
        list of dict
            For each image "boxes", float32 (k, 4), in pixels from the left, the top, the left and the top edge to the
            box's left, top, right and bottom; "labels", str (k,); and "scores", float32 (k,), in (0.05, 1], falling.
        """
        check_is_fitted(self, "model_")
        return [self._named(self._run(image)) for image in _each(X, self._channels)]

    def evaluate(self, folder: str | os.PathLike[str], split: str = "val") -> dict[str, float]:
        """Compare what is found with what is there.

        Parameters
        ----------
        folder : str or path
            A folder in PASCAL VOC's format.
        split : str, default="val"
            Which of its images.

        Returns
        -------
        dict of str to float
            See `average_precision`. Objects marked difficult do not count.

        Raises
        ------
        FileNotFoundError
            If this is no such folder, or an image or an annotation is missing.
        ImportError
            If pycocotools is not installed.
        ValueError
            If there is no such split, or there are objects of classes that the training images do not hold.
        """
        check_is_fitted(self, "model_")
        _pycocotools()  # refuse before the work rather than after it
        files = _objects(folder, split)
        _check_known({thing.name for _, things in files for thing in things}, self.classes_, split)
        truth = [
            {
                "boxes": np.array([thing.box for thing in things], np.float32).reshape(-1, 4),
                "labels": np.array([thing.name for thing in things], self.classes_.dtype),
                "difficult": np.array([thing.difficult for thing in things], bool),
            }
            for _, things in files
        ]
        samples = _Samples(files, self._channels)
        found = [self._named(self._run(samples[i][0])) for i in self._progress(len(samples))]
        return average_precision(truth, found)

    def _learn(self, folder: Any, split: str) -> list[tuple[Path, Any]]:
        files = _objects(folder, split)
        names = [thing.name for _, things in files for thing in things]
        if not names:
            raise ValueError(f"The split {split!r} of {str(folder)!r} has no objects to learn from.")
        self.classes_ = np.unique(names)
        return files

    def _build(self, encoder: nn.Module, channels: int, **transform: Any) -> nn.Module:
        from torchvision.models.detection import FasterRCNN
        from torchvision.models.detection.anchor_utils import AnchorGenerator
        from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
        from torchvision.ops import MultiScaleRoIAlign

        pyramid = Pyramid(encoder, channels, self.width, frozen=self.frozen, beyond=True)
        strides = [*pyramid.strides, 2 * pyramid.strides[-1]]
        cells = 7
        return FasterRCNN(
            pyramid,
            rpn_anchor_generator=AnchorGenerator([(ANCHOR * s,) for s in strides], [(0.5, 1.0, 2.0)] * len(strides)),
            box_roi_pool=MultiScaleRoIAlign([str(i) for i in range(len(pyramid.strides))], cells, sampling_ratio=2),
            box_head=TwoMLPHead(self.width * cells**2, 4 * self.width),
            box_predictor=FastRCNNPredictor(4 * self.width, len(self.classes_) + 1),
            **transform,
        )

    def _target(self, target: list[VOCObject], device: torch.device, mirrored: int) -> dict[str, Tensor]:
        boxes = torch.tensor([thing.box for thing in target], dtype=torch.float32).reshape(-1, 4)
        if mirrored:
            boxes[:, [0, 2]] = mirrored - boxes[:, [2, 0]]
        labels = np.searchsorted(self.classes_, [thing.name for thing in target]) + 1
        return {"boxes": boxes.to(device), "labels": torch.from_numpy(labels).to(device)}

    def _named(self, found: dict[str, Tensor]) -> dict[str, np.ndarray]:
        """Turn what torchvision gives into arrays, labels into names."""
        arrays = {name: value.cpu().numpy() for name, value in found.items()}
        return {**arrays, "labels": self.classes_[arrays["labels"] - 1]}


@dataclass(kw_only=True, eq=False, repr=False)
class SegmentationTransfer(_DenseTransfer):
    """UPerNet's head on the maps of a trained encoder: how well what it has learned serves to classify pixels.

    The encoder's last map is pooled over grids of several sizes, a feature pyramid joins the maps of its stages, and
    all of the pyramid's maps together, at the size of the finest, are classified by two convolutions. The head is
    trained on a folder in PASCAL VOC's format: the images in ``JPEGImages``, masks in
    ``SegmentationClass/<name>.png``, which of them are for what in ``ImageSets/Segmentation/<split>.txt``.

    Attributes
    ----------
    classes_ : ndarray of uint8
        The masks' values. 255 is void, and no class.
    history_ : pandas.DataFrame
        A row an epoch: epoch, loss, loss_pixels, lr, images_per_second.
    model_ : torch.nn.Module
        The trained network.

    Notes
    -----
    Simpler than [1]_ and its code, which Ericsson et al. [2]_ use: the learning rate falls along a cosine and not
    polynomially, there is no second loss on an inner layer, the loss is taken at the images' full size and not at a
    quarter of it, and images are tested at one size.

    References
    ----------
    .. [1] Xiao et al., Unified Perceptual Parsing for Scene Understanding, ECCV 2018, section 3.1.
    .. [2] Ericsson et al., How Well Do Self-Supervised Models Transfer?, CVPR 2021, and its code.

    Examples
    --------
    >>> import tempfile
    >>> from skssl import SegmentationTransfer, SimCLR
    >>> from skssl.datasets import make_shapes, make_voc_folder
    >>> encoder = SimCLR(backbone="convnet", epochs=0).fit(make_shapes(2, random_state=0)[0])
    >>> folder = make_voc_folder(tempfile.mkdtemp(), 8, random_state=0)
    >>> segmenter = SegmentationTransfer(encoder, image_size=64, width=16, epochs=1, random_state=0).fit(folder)
    >>> segmenter.classes_
    array([0, 1, 2], dtype=uint8)
    >>> sorted(segmenter.evaluate(folder))
    ['mean_iou', 'pixel_accuracy']
    """

    image_size: Any = 480
    epochs: int = 45

    def predict(self, X: Any) -> list[np.ndarray]:
        """Classify pixels.

        Parameters
        ----------
        X : sequence of files, PIL images or arrays (h, w), (h, w, c) or (c, h, w), or array of these
            Images, each of its own size; uint8, or float in [0, 1].

        Returns
        -------
        list of ndarray of uint8, shape (h, w)
            For each image the class of every pixel, of `classes_`.
        """
        check_is_fitted(self, "model_")
        return [self._valued(self._run(image)) for image in _each(X, self._channels)]

    def evaluate(self, folder: str | os.PathLike[str], split: str = "val") -> dict[str, float]:
        """Compare predicted masks with the true ones.

        Parameters
        ----------
        folder : str or path
            A folder in PASCAL VOC's format.
        split : str, default="val"
            Which of its images.

        Returns
        -------
        dict of str to float
            See `mean_iou`. Void pixels do not count.

        Raises
        ------
        FileNotFoundError
            If this is no such folder, or an image or a mask is missing.
        ValueError
            If there is no such split, or there are pixels of classes that the training images do not hold.
        """
        check_is_fitted(self, "model_")
        files = _find(folder, split, *_MASKS)
        _check_known(set(_values(files).tolist()), self.classes_, split)
        samples, truth, found = _Samples(files, self._channels), [], []
        for i in self._progress(len(samples)):
            image, mask = samples[i]
            truth.append(mask.numpy())
            found.append(self._valued(self._run(image)))
        return mean_iou(truth, found)

    def _learn(self, folder: Any, split: str) -> list[tuple[Path, Any]]:
        files = _find(folder, split, *_MASKS)
        self.classes_ = _values(files)
        if len(self.classes_) < 2:
            raise ValueError(
                f"The masks of the split {split!r} of {str(folder)!r} must hold at least 2 classes, the background "
                f"among them. Got {self.classes_.tolist()}."
            )
        return files

    def _build(self, encoder: nn.Module, channels: int, **transform: Any) -> nn.Module:
        from torchvision.models.detection.transform import GeneralizedRCNNTransform

        pyramid = Pyramid(encoder, channels, self.width, frozen=self.frozen, pooled=True)
        return Segmenter(pyramid, len(self.classes_), GeneralizedRCNNTransform(**transform))

    def _target(self, target: Tensor, device: torch.device, mirrored: int) -> Tensor:
        places = torch.full((256,), VOID)
        places[torch.from_numpy(self.classes_).long()] = torch.arange(len(self.classes_))
        target = places[target.long()].to(device)
        return target.flip(-1) if mirrored else target

    def _valued(self, found: Tensor) -> np.ndarray:
        """Turn places among the classes into their values."""
        return self.classes_[found.cpu().numpy()]


_MASKS = ("Segmentation", "SegmentationClass", ".png")


def _objects(folder: Any, split: str) -> list[tuple[Path, list[VOCObject]]]:
    """Find the images of a split with the objects in them."""
    return [(image, read_objects(path)) for image, path in _find(folder, split, "Main", "Annotations", ".xml")]


def _values(files: Sequence[tuple[Path, Any]]) -> np.ndarray:
    """List the classes in masks, as uint8."""
    values = np.unique(np.concatenate([np.unique(read_mask(path)) for _, path in files]))
    return values[values != VOID]


def _check_known(names: set[Any], classes: np.ndarray, split: str) -> None:
    """Refuse classes that were not learned."""
    unknown = sorted(names - set(classes.tolist()))
    if unknown:
        raise ValueError(
            f"The split {split!r} has the class {unknown[0]!r}, which the training images do not hold: their classes "
            f"are {classes.tolist()}."
        )


# Measures


def _pycocotools() -> tuple[Any, Any]:
    """Import what computes average precision."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise ImportError("Average precision needs pycocotools: pip install 'skssl[detection]'.") from error
    return COCO, COCOeval


def average_precision(
    truth: Sequence[dict[str, np.ndarray]], found: Sequence[dict[str, np.ndarray]]
) -> dict[str, float]:
    r"""Mean average precision of boxes, as COCO computes it.

    For each class and each threshold of the intersection over union the found boxes are gone through by falling score;
    each is true if it meets the threshold with a true box of its image and class that no earlier one has taken. The
    precision at a recall is the highest at that recall or beyond, and is averaged over 101 recalls from 0 to 1. At most
    100 boxes an image count. pycocotools computes it.

    Parameters
    ----------
    truth : sequence of dict
        For each image "boxes" (k, 4), from edge to edge as left, top, right, bottom; "labels" (k,); and, if some do not
        count, whether found or not, "difficult" (k,) of bool.
    found : sequence of dict
        For each image "boxes", "labels" and "scores".

    Returns
    -------
    dict of str to float
        "AP", the mean over the classes that are there and the thresholds 0.5, 0.55, …, 0.95; "AP50" and "AP75",
        those at 0.5 and 0.75 alone. From 0 to 1.

    Raises
    ------
    ImportError
        If pycocotools is not installed.
    ValueError
        If `truth` and `found` are of several lengths, or no object counts.

    References
    ----------
    Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014, and its code.

    Examples
    --------
    >>> import numpy as np
    >>> from skssl.dense import average_precision
    >>> truth = [{"boxes": np.array([[0, 0, 10, 10]]), "labels": np.array(["cat"])}]
    >>> found = [{"boxes": np.array([[0, 0, 10, 8]]), "labels": np.array(["cat"]), "scores": np.array([0.9])}]
    >>> {name: round(value, 2) for name, value in average_precision(truth, found).items()}
    {'AP': 0.7, 'AP50': 1.0, 'AP75': 1.0}
    """
    COCO, COCOeval = _pycocotools()
    if len(truth) != len(found):
        raise ValueError(f"truth and found must be of one length. Got {len(truth)} and {len(found)}.")
    classes = np.unique([name for image in truth for name in image["labels"]])

    def index(images: Sequence[dict[str, np.ndarray]]) -> Any:
        """Put boxes into COCO's form."""
        rows: list[dict[str, Any]] = []
        for i, image in enumerate(images):
            difficult = image.get("difficult", np.zeros(len(image["labels"]), bool))
            scores = image.get("scores", np.ones(len(image["labels"])))
            for box, name, hard, score in zip(image["boxes"], image["labels"], difficult, scores, strict=True):
                left, top, right, bottom = (float(value) for value in box)
                place = np.searchsorted(classes, name)
                if place < len(classes) and classes[place] == name:
                    rows.append(
                        {
                            "id": len(rows) + 1,
                            "image_id": i,
                            "category_id": int(place),
                            "bbox": [left, top, right - left, bottom - top],
                            # What is out of the range of areas neither counts as found nor as missed
                            "area": -1.0 if hard else (right - left) * (bottom - top),
                            "iscrowd": 0,
                            "score": float(score),
                        }
                    )
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i} for i in range(len(images))],
            "annotations": rows,
            "categories": [{"id": k} for k in range(len(classes))],
        }
        coco.createIndex()
        return coco

    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(index(truth), index(found), "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [100]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., 0, 0]  # thresholds, recalls, classes
    precision = precision[:, :, (precision[0] >= 0).all(0)]  # -1 where no object of a class counts
    if not precision.size:
        raise ValueError("truth must hold at least one object that counts. Got none.")
    by_threshold = precision.mean((1, 2))
    return {"AP": float(by_threshold.mean()), "AP50": float(by_threshold[0]), "AP75": float(by_threshold[5])}


def mean_iou(truth: Iterable[np.ndarray], found: Iterable[np.ndarray]) -> dict[str, float]:
    """Mean intersection over union of the classes of pixels, and the share of pixels whose class is right.

    Parameters
    ----------
    truth : iterable of ndarray of uint8, shape (h, w)
        The masks. Pixels of 255 are void and do not count.
    found : iterable of ndarray of uint8, shape (h, w)
        The predicted ones.

    Returns
    -------
    dict of str to float
        "mean_iou", the mean over the classes that are in any mask, true or predicted, of the pixels that have the class
        in both, by those that have it in either, all images together; "pixel_accuracy". From 0 to 1.

    Raises
    ------
    ValueError
        If there are not as many predicted masks as true ones, their shapes differ, or all pixels are void.

    Examples
    --------
    >>> import numpy as np
    >>> from skssl.dense import mean_iou
    >>> scores = mean_iou([np.array([[0, 0], [1, 255]])], [np.array([[0, 1], [1, 1]])])
    >>> scores["mean_iou"], round(scores["pixel_accuracy"], 2)
    (0.5, 0.67)
    """
    counts = np.zeros((256, 256), np.int64)  # of pixels, by their true and their predicted class
    for true, predicted in zip(truth, found, strict=True):
        if true.shape != predicted.shape:
            raise ValueError(f"A mask of shape {true.shape} has been predicted as one of shape {predicted.shape}.")
        pairs = true.astype(np.int64) * 256 + predicted
        counts += np.bincount(pairs.ravel(), minlength=256**2).reshape(256, 256)
    counts[VOID] = 0
    if not counts.any():
        raise ValueError("truth must hold at least one pixel that is not void. Got none.")
    right = counts.diagonal()
    either = counts.sum(0) + counts.sum(1) - right
    return {
        "mean_iou": float((right[either > 0] / either[either > 0]).mean()),
        "pixel_accuracy": float(right.sum() / counts.sum()),
    }
