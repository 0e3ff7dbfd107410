"""The papers' augmentations by name, and crops of several sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

from sklearn.base import BaseEstimator, clone
from sklearn.utils._param_validation import Interval

from skssl.augment.augmentation import Augmentation
from skssl.augment.preprocessing import check_range
from skssl.backbones import SMALL
from skssl.errors import pick
from skssl.storage.registry import register

#: The augmentation of supervised training: torchvision's random resized crop and flip.
CROPS_AND_FLIPS = Augmentation(jitter=0.0, gray=0.0)

MAX_CROPS = 100  # of one kind; more would be a mistake


@register("object")
@dataclass(kw_only=True, eq=False, repr=False)
class MultiCrop(BaseEstimator):
    """Global views of large crops and smaller local views of small crops, as in SwAV [1]_ and DINO.

    Parameters
    ----------
    n_global, n_local : int, default=2, 6
        Number of global and of local views.
    global_scale, local_scale : tuple of float, default=(0.14, 1.0), (0.05, 0.14)
        Smallest and largest area of the crops, as fractions of the image's area.
    local_size : int or None, default=None
        Side of the local views in pixels. None: 3/7 of the images' longer side, as in 96 of 224 pixels.
    augment : str, Augmentation or sequence of Augmentation, default="simclr"
        The views' settings except for the crop. Several are used in turn.

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
        "n_global": [Interval(Integral, 2, MAX_CROPS, closed="both")],
        "n_local": [Interval(Integral, 0, MAX_CROPS, closed="both")],
        "global_scale": ["array-like"],
        "local_scale": ["array-like"],
        "local_size": [Interval(Integral, 1, None, closed="left"), None],
    }

    def views(self, image_size: int) -> list[Augmentation]:
        """Return one augmentation a view, the global ones first.

        Parameters
        ----------
        image_size : int
            The images' longer side, in pixels.

        Returns
        -------
        list of Augmentation
            The augmentations of ``n_global + n_local`` views.

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
    """Return the augmentations of an estimator's parameter ``augment``.

    Parameters
    ----------
    augment : str, Augmentation, sequence of Augmentation or MultiCrop
        Name of a preset, one augmentation for all views, one for each, or crops of several sizes.
    image_size : int
        The images' longer side, in pixels.

    Returns
    -------
    list of Augmentation
        At least one. Their parameters are valid.

    Raises
    ------
    ValueError
        If a name is unknown or a parameter out of its range.
    TypeError
        If an item is not an Augmentation.

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
        raise ValueError("The 'augment' parameter must hold at least one Augmentation. Got an empty sequence.")
    for augmentation in given:
        if not isinstance(augmentation, Augmentation):
            raise TypeError(
                "The 'augment' parameter must be a preset's name, an Augmentation, a sequence of them (one a view) or "
                f"a MultiCrop. Got {augmentation!r}."
            )
        augmentation.validate()
    return given


def view_size(augment: Any) -> tuple[int, int] | None:
    """Return the height and width that the parameter ``augment`` of an estimator gives to the first view.

    Parameters
    ----------
    augment : str, Augmentation, sequence of Augmentation or MultiCrop
        As for `as_augmentations`, where it is checked.

    Returns
    -------
    (int, int) or None
        None if they are those of the images.

    Examples
    --------
    >>> view_size(Augmentation(size=96)), view_size("simclr")
    ((96, 96), None)
    """
    if isinstance(augment, MultiCrop):
        return view_size(augment.augment)
    first = augment[0] if isinstance(augment, (list, tuple)) and augment else augment
    if not isinstance(first, Augmentation):
        return None
    first.ensure_valid()
    return None if first.size is None else first.size_of(0, 0)


def preset(name: str, image_size: int) -> tuple[Augmentation, ...]:
    """Build a paper's augmentations by name.

    Parameters
    ----------
    name : {"simclr", "simsiam", "byol", "moco", "leoclr", "gsg-cifar10", "instdisc", "pirl", "ressl", "mae", "simmim",
        "ijepa", "rotnet", "none"}
        Images of up to 64 pixels are called small.

        - "simclr": SimCLR [1]_, appendices A and B.9. Small images get colour strength 1/2 and no blur, others strength
          1 and a blur of half of the views. Values are normalised and crops are bilinear, as in most PyTorch versions.
          The authors' code leaves values in [0, 1], which makes a difference only at the borders of a convolution
          with BatchNorm, and its crops are bicubic, which costs more.
        - "simsiam": SimSiam [2]_, section 4, with the views of MoCo v2: crops of at least a fifth, and a blur of half
          of the views. Small images get no blur, as in appendix D.
        - "byol": BYOL [3]_, appendix B. The two views differ in blur and solarisation. The paper has no small images;
          they get no blur, as in solo-learn's settings for CIFAR.
        - "moco": MoCo v2 [6]_: crops of at least a fifth, and a blur of half of the views. Small images get crops of
          any size and no blur, as in the authors' demonstration on CIFAR-10, which normalises by CIFAR's own mean and
          standard deviation.
        - "leoclr": LeOCLR [7]_, algorithm 1. The first of three views is not cropped, but flipped and jittered as the
          two others. Small images get no blur; the paper does not mention them.
        - "instdisc": instance discrimination [8]_, from its code. Crops of at least a fifth, and jitter of every view
          with a hue of 0.4. Images that are not small are also flipped, as in MoCo v1.
        - "pirl": PIRL [9]_, from its code: SimCLR's crops, and jitter of every view with a hue of 0.2.
        - "ressl": ReSSL [10]_, from its code: MoCo v2's view, and one that is only cropped and flipped. Small
          images get crops of any size and no blur.
        - "gsg-cifar10": GSG [4]_ on CIFAR-10: SimCLR at strength 1/2 without blur, and ImageNet's mean and standard
          deviation.
        - "mae": MAE [11]_: bicubic crops of at least a fifth, and flips.
        - "simmim": SimMIM [12]_: crops of at least two thirds, and flips.
        - "ijepa": I-JEPA [13]_: crops of at least 0.3, and nothing else.
        - "rotnet": RotNet [5]_, from its code. Flips, and a crop: of the image padded by 4 pixels if it is small, else
          a random resized crop.
        - "none": normalisation alone.

    image_size : int
        The images' longer side, in pixels.

    Returns
    -------
    tuple of Augmentation
        One augmentation a view, the same object for equal views. Methods with more views use them in turn.

    Raises
    ------
    ValueError
        If the name is unknown.

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
    .. [10] Zheng et al., "ReSSL: Relational Self-Supervised Learning with Weak Augmentation", NeurIPS 2021.
    .. [11] He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022.
    .. [12] Xie et al., "SimMIM: A Simple Framework for Masked Image Modeling", CVPR 2022.
    .. [13] Assran et al., "Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture",
           CVPR 2023.

    Examples
    --------
    >>> preset("byol", 224)[1]
    Augmentation(blur=0.1, interpolation='bicubic', saturation=0.2, solarize=0.2)
    """
    views: tuple[dict[str, Any], ...] = pick("augment", name, _settings(image_size <= SMALL))
    first = Augmentation(**views[0])
    return tuple(first if settings == views[0] else Augmentation(**settings) for settings in views)


def _settings(small: bool) -> Mapping[str, tuple[dict[str, Any], ...]]:
    """Return the settings of every preset for small or large images: one dictionary a view."""
    blur = 0.0 if small else 0.5
    fifth = {"crop_scale": (0.2, 1.0)}
    strong = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2}
    byol = {"interpolation": "bicubic", "saturation": 0.2}
    geometric = {"jitter": 0.0, "gray": 0.0}
    return {
        "simclr": ({} if small else {**strong, "blur": blur},) * 2,
        "simsiam": ({**fifth, "blur": blur},) * 2,
        "byol": ({**byol, "blur": 0.0 if small else 1.0}, {**byol, "blur": 0.0 if small else 0.1, "solarize": 0.2}),
        "moco": ({} if small else {**fifth, "blur": blur},) * 2,
        "leoclr": ({"crop_scale": None, "blur": blur}, {"blur": blur}, {"blur": blur}),
        "gsg-cifar10": ({},) * 2,
        "instdisc": ({**fifth, "flip": 0.0 if small else 0.5, "jitter": 1.0, "hue": 0.4},),
        "pirl": ({"jitter": 1.0, "hue": 0.2},),
        "ressl": ({}, geometric) if small else ({**fifth, "blur": blur}, {**fifth, **geometric}),
        "mae": ({**geometric, **fifth, "interpolation": "bicubic"},),
        "simmim": ({**geometric, "crop_scale": (0.67, 1.0)},),
        "ijepa": ({**geometric, "crop_scale": (0.3, 1.0), "flip": 0.0},),
        "rotnet": ({**geometric, "crop_padding": 4 if small else 0},),
        "none": ({**geometric, "crop_scale": None, "flip": 0.0},),
    }
