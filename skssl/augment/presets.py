"""The papers' augmentations by name, and crops of several sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

from sklearn.base import BaseEstimator, clone
from sklearn.utils._param_validation import Interval

from skssl.augment.augmentation import Augmentation
from skssl.augment.parameters import check_range
from skssl.backbones import SMALL
from skssl.errors import pick
from skssl.storage.registry import register

# What labels are learned with: torchvision's random resized crop and flip
CROPS_AND_FLIPS = Augmentation(jitter=0.0, gray=0.0)


@register("object")
@dataclass(kw_only=True, eq=False, repr=False)
class MultiCrop(BaseEstimator):
    """Some views of large crops and some smaller views of small crops, as SwAV and DINO take them.

    Parameters
    ----------
    n_global, n_local : int, default=2, 6
        How many of each.
    global_scale, local_scale : tuple of float, default=(0.14, 1.0), (0.05, 0.14)
        The least and the greatest area of the crops.
    local_size : int or None, default=None
        Side of the smaller views. None: 3/7 of the images' longer side, as 96 is of 224.
    augment : str, Augmentation or sequence of Augmentation, default="simclr"
        What else is done to the views; one for each, starting again from the first.

    References
    ----------
    .. [1] Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments", NeurIPS 2020,
           section 3.2 and appendix A.

    Examples
    --------
    >>> [view.size for view in MultiCrop(n_local=1).views(32)]
    [None, None, 14]
    """

    n_global: int = 2
    n_local: int = 6
    global_scale: tuple[float, float] = (0.14, 1.0)
    local_scale: tuple[float, float] = (0.05, 0.14)
    local_size: int | None = None
    augment: Any = "simclr"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_global": [Interval(Integral, 2, 100, closed="both")],
        "n_local": [Interval(Integral, 0, 100, closed="both")],
        "global_scale": ["array-like"],
        "local_scale": ["array-like"],
        "local_size": [Interval(Integral, 1, None, closed="left"), None],
    }

    def views(self, image_size: int) -> list[Augmentation]:
        """Make one augmentation a view, the global ones first.

        Parameters
        ----------
        image_size : int
            The images' longer side, in pixels.

        Returns
        -------
        list of Augmentation
            For ``n_global + n_local`` views.

        Raises
        ------
        ValueError
            If a parameter is out of its range.
        """
        self._validate_params()
        for name in ("global_scale", "local_scale"):
            check_range(self, name, 1.0)
        given = as_augmentations(self.augment, image_size)
        small = {"crop_scale": self.local_scale, "size": self.local_size or round(image_size * 3 / 7)}
        large = {"crop_scale": self.global_scale}
        made = [[clone(augment).set_params(**crop) for augment in given] for crop in (large, small)]
        return [made[i >= self.n_global][i % len(given)] for i in range(self.n_global + self.n_local)]


def as_augmentations(augment: Any, image_size: int) -> list[Augmentation]:
    """Turn what the user gave as ``augment`` into a list of augmentations.

    Parameters
    ----------
    augment : str, Augmentation, sequence of Augmentation or MultiCrop
        A preset's name, one for all views, one for each, or crops of several sizes.
    image_size : int
        The images' longer side, in pixels.

    Returns
    -------
    list of Augmentation
        At least one, each with its parameters checked.

    Raises
    ------
    ValueError
        If a name is unknown or a parameter out of its range.
    TypeError
        If something is no augmentation.

    Examples
    --------
    >>> as_augmentations("none", 32)
    [Augmentation(crop_scale=None, flip=0.0, gray=0.0, jitter=0.0)]
    """
    if isinstance(augment, MultiCrop):
        augment = augment.views(image_size)
    elif isinstance(augment, str):
        augment = preset(augment, image_size)
    given = list(augment) if isinstance(augment, Sequence) else [augment]
    if not given:
        raise ValueError("The 'augment' parameter must have one Augmentation or more, but it is an empty sequence.")
    for augmentation in given:
        if not isinstance(augmentation, Augmentation):
            raise TypeError(
                "The 'augment' parameter must be a preset's name, an Augmentation, one Augmentation a view or a "
                f"MultiCrop. Got {augmentation!r}."
            )
        augmentation.validate()
    return given


def preset(name: str, image_size: int) -> tuple[Augmentation, ...]:
    """Build a paper's augmentations by name.

    Parameters
    ----------
    name : {"simclr", "simsiam", "byol", "moco", "leoclr", "gsg-cifar10", "instdisc", "pirl", "rotnet", "none"}
        - "simclr": SimCLR [1]_, appendices A and B.9. Up to 64 pixels colour strength 1/2 and no blur, above
          them strength 1 and blur for half of the views. As in most PyTorch versions values are normalised (its own
          code leaves them in [0, 1], which only the borders of a convolution with BatchNorm notice) and crops
          are bilinear (its own are bicubic, which costs more).
        - "simsiam": SimSiam [2]_, section 4, with the views of MoCo v2: crops of at least a fifth, blur for
          half of the views. Up to 64 pixels no blur, as in its appendix D.
        - "byol": BYOL [3]_, appendix B. The two views differ in blur and solarisation. The paper has no small
          images; up to 64 pixels the blur is left out, as in solo-learn's settings for CIFAR.
        - "moco": MoCo v2 [6]_: crops of at least a fifth, blur for half of the views. Up to 64 pixels as in its
          authors' demonstration on CIFAR-10: any crops, no blur (there with that set's own mean and deviation).
        - "leoclr": LeOCLR [7]_, algorithm 1: the first of three views is not cropped, but flipped and coloured like
          the others. Up to 64 pixels, for which the paper says nothing else, no blur.
        - "instdisc": instance discrimination [8]_, from its code. Crops of at least a fifth, every image jittered, at
          full strength in hue, and above 64 pixels flips: there it is MoCo v1's, too.
        - "pirl": PIRL [9]_, from its code: SimCLR's crops, every image jittered, with a hue of 0.2.
        - "gsg-cifar10": GSG [4]_ on CIFAR-10: SimCLR at strength 1/2, no blur, ImageNet's mean and deviation.
        - "rotnet": RotNet [5]_, from its code. Flips, and up to 64 pixels a crop of the image padded by 4,
          above them a resized crop.
        - "none": normalisation alone.

    image_size : int
        The images' longer side, in pixels.

    Returns
    -------
    tuple of Augmentation
        One a view, the same object where they are alike; a method with more views starts again from the first.

    Raises
    ------
    ValueError
        If there is no preset of that name.

    References
    ----------
    .. [1] Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020.
    .. [2] Chen and He, "Exploring Simple Siamese Representation Learning", CVPR 2021.
    .. [3] Grill et al., "Bootstrap Your Own Latent", NeurIPS 2020.
    .. [4] "Implicit Contrastive Representation Learning with Guided Stop-gradient", NeurIPS 2023.
    .. [5] Gidaris et al., "Unsupervised Representation Learning by Predicting Image Rotations", ICLR 2018.
    .. [6] Chen et al., "Improved Baselines with Momentum Contrastive Learning", 2020.
    .. [7] "LeOCLR: Leveraging Original Images for Contrastive Learning of Visual Representations",
           arXiv:2403.06813.
    .. [8] Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018.
    .. [9] Misra and van der Maaten, "Self-Supervised Learning of Pretext-Invariant Representations", CVPR 2020.

    Examples
    --------
    >>> preset("byol", 224)[1]
    Augmentation(blur=0.1, interpolation='bicubic', saturation=0.2, solarize=0.2)
    """
    views: tuple[dict[str, Any], ...] = pick("augment", name, _PRESETS)(image_size <= SMALL)
    first = Augmentation(**views[0])
    return tuple(first if settings == views[0] else Augmentation(**settings) for settings in views)


_STILL: dict[str, Any] = {"jitter": 0.0, "gray": 0.0}
_SIMCLR_LARGE = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2, "blur": 0.5}
_PRESETS: Mapping[str, Callable[[bool], tuple[dict[str, Any], ...]]] = {
    "simclr": lambda small: ({} if small else _SIMCLR_LARGE,) * 2,
    "simsiam": lambda small: ({"crop_scale": (0.2, 1.0), "blur": 0.0 if small else 0.5},) * 2,
    "byol": lambda small: tuple(
        {
            "interpolation": "bicubic",
            "saturation": 0.2,
            "blur": 0.0 if small else blur,
            "solarize": solarize,
        }
        for blur, solarize in ((1.0, 0.0), (0.1, 0.2))
    ),
    "moco": lambda small: ({} if small else {"crop_scale": (0.2, 1.0), "blur": 0.5},) * 2,
    "leoclr": lambda small: tuple({**crop, "blur": 0.0 if small else 0.5} for crop in ({"crop_scale": None}, {}, {})),
    "gsg-cifar10": lambda small: ({},) * 2,
    "instdisc": lambda small: ({"crop_scale": (0.2, 1.0), "flip": 0.0 if small else 0.5, "jitter": 1.0, "hue": 0.4},),
    "pirl": lambda small: ({"jitter": 1.0, "hue": 0.2},),
    "rotnet": lambda small: ({**_STILL, "crop_padding": 4 if small else 0},),
    "none": lambda small: ({**_STILL, "crop_scale": None, "flip": 0.0},),
}
