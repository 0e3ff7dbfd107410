"""`Augmentation`: random views of a batch of images, drawn and then made on the images' device.

`Augmentation.draw` draws all random numbers of a batch in one call (draws.py). `Augmentation.apply` makes the views by
pure functions of images and draws (views.py), in parts on a CPU (cpu_parts.py) or by the compiler (compiled.py). No
step waits for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from skssl.augment.compiled import make_compiled_views
from skssl.augment.cpu_parts import make_views_in_parts
from skssl.augment.draws import Draws, draw_boxes, draw_constants, number_counts, to_draws, view_corners
from skssl.augment.parameters import Parameters
from skssl.augment.preprocessing import full_precision
from skssl.augment.views import ViewConstants, make_views, view_constants
from skssl.images import Images
from skssl.images.photographs import Crops, Photographs
from skssl.storage.registry import register

NO_INDEX = (
    "An Augmentation with saliency maps needs the images' indices in the training set, but index is None. Pass index."
)


@register("object")
@dataclass(kw_only=True, eq=False, repr=False)
class Augmentation(Parameters):
    """Random views of a batch of images, with draws of its own for every image.

    The steps and their order are torchvision's: crop, flip, colour jitter, grey, blur, solarise, normalise. Views are
    float32 and ready for a network. The defaults are SimCLR's settings for CIFAR [1]_ with ImageNet's mean and
    standard deviation.

    Parameters
    ----------
    crop_scale : tuple of float or None, default=(0.08, 1.0)
        Smallest and largest area of the random resized crop, as fractions of the image's area. None: no such crop.
    crop_ratio : tuple of float, default=(3/4, 4/3)
        Smallest and largest aspect ratio of that crop, width by height.
    crop_padding : int, default=0
        If above 0, the random resized crop is replaced by a crop of the image's own size, from the image padded by
        this number of black pixels on every side.
    saliency : array of shape (n_samples, h, w) or None, default=None
        A saliency map for each training image, of any size, such as `grad_cam` computes. The random crop is drawn until
        its mean saliency is above that of the image. After ten failures the next crop is taken. See `salient_crops`.
    good_crops : float, default=1.0
        Probability that a crop is chosen by the saliency map.
    size : int, tuple of int or None, default=None
        Side, or height and width, of the views in pixels. None: those of the images.
    interpolation : {"bilinear", "bicubic"}, default="bilinear"
        How crops are resized, always with antialiasing.
    eval_resize : float or None, default=256/224
        The still view of a photograph, which a trained network is given: the picture is resized so that its shorter
        side is so many times that of the view, and the centre is cut out. None: the whole picture is resized. Images of
        one size are resized whole.
    flip : float, default=0.5
        Probability of a flip from left to right.
    quarter_turn : float, default=0.0
        Probability of a turn by 0, 90, 180 or 270 degrees, with equal chances. Views must be square.
    jitter : float, default=0.8
        Probability of changing brightness, contrast, saturation and hue, in a random order.
    brightness, contrast, saturation : float, default=0.4
        Strength s: the factor is uniform in [max(0, 1 - s), 1 + s].
    hue : float, default=0.1
        Strength s, at most 0.5: the shift is uniform in [-s, s], in turns of the circle of hues.
    hue_space : {"hsv", "yiq"}, default="hsv"
        Space in which the hue turns, see `adjust_hue`. The papers use "hsv".
    gray : float, default=0.2
        Probability of greyscale.
    blur : float, default=0.0
        Probability of a Gaussian blur.
    blur_sigma : tuple of float, default=(0.1, 2.0)
        Smallest and largest standard deviation of the blur, in pixels.
    solarize : float, default=0.0
        Probability of inverting the values from `solarize_threshold` on.
    solarize_threshold : float, default=0.5
        Threshold in [0, 1].
    mean, std : tuple of float, default=ImageNet's
        Mean and standard deviation of red, green and blue in [0, 1], for the normalisation. Images with other than
        three channels take their averages, keep saturation and hue, and do not become grey.

    Notes
    -----
    A call is `draw` followed by `apply`. The random numbers of a view do not depend on which steps are on, so that two
    settings with one seed crop alike.

    References
    ----------
    .. [1] Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020,
           appendix A.

    Examples
    --------
    >>> images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    >>> augment = Augmentation(crop_scale=(0.2, 1.0), hue=0.0)
    >>> views = augment(images, torch.Generator().manual_seed(0))
    >>> views.shape, views.dtype
    (torch.Size([8, 3, 32, 32]), torch.float32)
    >>> augment
    Augmentation(crop_scale=(0.2, 1.0), hue=0.0)
    """

    @torch.no_grad()
    @full_precision
    def __call__(
        self,
        images: Tensor,
        generator: torch.Generator,
        index: Tensor | None = None,
        n_views: int = 1,
        compile: bool = False,
        n_frames: int = 1,
    ) -> Tensor:
        """Make one or more random views of every image.

        Parameters
        ----------
        images : Tensor of shape (n, c, h, w)
            uint8, or float in [0, 1], on any device and in any memory format.
        generator : torch.Generator
            Source of the random numbers, on the images' device.
        index : int64 Tensor of shape (n,), optional
            Indices of the images in the training set. Only `saliency` needs them.
        n_views : int, default=1
            Number of views of each image. One call is faster than several.
        compile : bool, default=False
            Whether to use ``torch.compile``. It takes seconds once in a process for each setting and shape.
            Augmentations of equal parameters share the compiled function.
        n_frames : int, default=1
            Number of frames of each clip, whose views are drawn alike. The images are the first frame of each clip,
            then the second of each, and so on, and `index` has an entry for each clip.

        Returns
        -------
        Tensor of shape (n_views * n, c, height, width), float32
            The first view of each image in the images' order, then the second of each, and so on. Channels are last
            in memory.

        Raises
        ------
        ValueError
            If a parameter is of the wrong type or out of its range.
        """
        return self._draw_and_make(images, generator, index, n_views, compile, n_frames)[0]

    @torch.no_grad()
    @full_precision
    def with_corners(
        self,
        images: Tensor,
        generator: torch.Generator,
        index: Tensor | None = None,
        n_views: int = 1,
        compile: bool = False,
        n_frames: int = 1,
    ) -> tuple[Tensor, Tensor]:
        """Make the same views as a call, and return where their corners lie in the images.

        Parameters
        ----------
        images, generator, index, n_views, compile, n_frames
            As for a call.

        Returns
        -------
        views : Tensor of shape (n_views * n, c, height, width), float32
            The views.
        corners : Tensor of shape (n_views * n, 2, 2, 2), float32
            ``corners[i, :, b, r]`` is the position (y, x) of a corner of view i, in pixels of the image: the upper
            one if b is 0 and the lower one if b is 1, the left one if r is 0 and the right one if r is 1. Crops, flips
            and quarter-turns move the corners. `cell_positions` interpolates
            between them.

        Raises
        ------
        ValueError
            If a parameter is of the wrong type or out of its range.

        Examples
        --------
        >>> mirror = Augmentation(crop_scale=None, flip=1.0)
        >>> _, corners = mirror.with_corners(torch.zeros(1, 3, 32, 48), torch.Generator())
        >>> corners[0, :, 0, 0]  # the upper left corner of the view is the upper right corner of the image
        tensor([ 0., 48.])
        """
        views, corners = self._draw_and_make(images, generator, index, n_views, compile, n_frames, corners=True)
        assert corners is not None
        return views, corners

    def _draw_and_make(
        self,
        images: Tensor,
        generator: torch.Generator,
        index: Tensor | None,
        n_views: int,
        compile: bool,
        n_frames: int,
        corners: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the views, and their corners if asked, see `with_corners`."""
        self.ensure_valid()
        size = tuple(images.shape[2:])
        index = index if index is None or n_views == 1 else index.repeat(n_views)
        numbers, maps = self._draw_numbers(n_views * len(images) // n_frames, size, generator, index)
        if n_frames > 1:
            numbers, maps = numbers.repeat(n_frames, 1), maps if maps is None else maps.repeat(n_frames, 1, 1)
        for_draws = draw_constants(self, size, images.device)
        for_views = view_constants(self, images.shape[1], size, images.device)
        if compile and not torch.compiler.is_compiling():
            return make_compiled_views(self, images, numbers, maps, for_draws, for_views, corners)
        draws = to_draws(self, numbers, maps, for_draws)
        return self._make_views(images, draws, for_views), view_corners(draws) if corners else None

    @torch.no_grad()
    def draw(self, n: int, size: tuple[int, int], generator: torch.Generator, index: Tensor | None = None) -> Draws:
        """Draw the random parameters of n views in one call of the generator.

        Parameters
        ----------
        n : int
            Number of views.
        size : tuple of int
            Height and width of the images.
        generator : torch.Generator
            Source of the random numbers. The draws are on its device.
        index : int64 Tensor of shape (n,), optional
            Indices of the views' images in the training set. Only `saliency` needs them.

        Returns
        -------
        Draws
            The draws.

        Raises
        ------
        ValueError
            If a parameter is of the wrong type or out of its range.

        Examples
        --------
        >>> augment = Augmentation(flip=0.0, jitter=1.0)
        >>> draws = augment.draw(4, (32, 32), torch.Generator().manual_seed(0))
        >>> draws.sides.shape, draws.flip, draws.jitter
        (torch.Size([4, 2]), None, tensor([True, True, True, True]))
        """
        self.ensure_valid()
        numbers, maps = self._draw_numbers(n, size, generator, index)
        return to_draws(self, numbers, maps, draw_constants(self, size, generator.device))

    @torch.no_grad()
    @full_precision
    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        """Make the views of images by draws. This is a pure function with static shapes.

        Parameters
        ----------
        images : Tensor of shape (n, c, h, w)
            uint8, or float in [0, 1], on any device and in any memory format.
        draws : Draws
            Draws of ``n_views * n`` views, by `draw`. View i is one of image i % n.

        Returns
        -------
        Tensor of shape (n_views * n, c, height, width), float32
            The views, in the order of the draws. Channels are last in memory.

        Raises
        ------
        ValueError
            If a parameter is of the wrong type or out of its range.

        Examples
        --------
        >>> images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
        >>> augment = Augmentation(jitter=0.0)
        >>> draws = augment.draw(16, (32, 32), torch.Generator().manual_seed(0))
        >>> augment.apply(images, draws).shape
        torch.Size([16, 3, 32, 32])
        """
        self.ensure_valid()
        constants = view_constants(self, images.shape[1], tuple(images.shape[2:]), images.device)
        return self._make_views(images, draws, constants)

    def _make_views(self, images: Tensor, draws: Draws, constants: ViewConstants) -> Tensor:
        """Make the views at once, or in parts on a CPU."""
        in_parts = images.device.type == "cpu" and not torch.compiler.is_compiling()
        return (make_views_in_parts if in_parts else make_views)(self, images, draws, constants)

    def _draw_numbers(
        self, n: int, size: Sequence[int], generator: torch.Generator, index: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return uniform numbers (n, k) in [0, 1) for n views, and the saliency maps (n, h, w) of their images."""
        maps = None if self.saliency is None else self._saliency_maps(index, size)
        k = sum(number_counts(maps is not None).values())
        return torch.rand(n, k, generator=generator, device=generator.device), maps

    def _saliency_maps(self, index: Tensor | None, size: Sequence[int]) -> Tensor:
        """Return the saliency maps of images, resized to their size, (n, h, w)."""
        if index is None:
            raise ValueError(NO_INDEX)
        cached = getattr(self, "_maps", None)  # the array, and its copy on the device: the host waits for a transfer
        if cached is None or cached[0] is not self.saliency or cached[1].device != index.device:
            maps = torch.as_tensor(self.saliency)
            maps = maps if maps.dtype == torch.uint8 else maps.float()  # uint8 takes a quarter of the memory
            self._maps = cached = self.saliency, maps.to(index.device)
        own = cached[1].index_select(0, index)[:, None].float()  # (n, 1, h', w')
        return torch.nn.functional.interpolate(own, size, mode="bilinear", antialias=True)[:, 0]

    @torch.no_grad()
    def draw_crops(
        self,
        sizes: Tensor,
        size: tuple[int, int],
        generator: torch.Generator,
        index: Tensor | None = None,
        n_views: int = 1,
    ) -> Crops:
        """Draw the crops of photographs, to be cut out where they are decoded.

        Parameters
        ----------
        sizes : int64 Tensor of shape (n, 2)
            Heights and widths of the pictures.
        size : tuple of int
            Height and width of the views if `size` of the augmentation is None.
        generator : torch.Generator
            Source of the random numbers, on the CPU.
        index : int64 Tensor of shape (n,), optional
            Indices of the pictures in the training set. Only `saliency` needs them.
        n_views : int, default=1
            Number of views of each picture.

        Returns
        -------
        Crops
            ``n_views`` boxes of each picture. It is the whole picture if there is no random resized crop.

        Examples
        --------
        >>> sizes = torch.tensor([[300, 400], [64, 48]])
        >>> crops = Augmentation(size=32).draw_crops(sizes, (224, 224), torch.Generator().manual_seed(0), n_views=2)
        >>> crops.boxes.shape, crops.size
        (torch.Size([2, 2, 4]), (32, 32))
        """
        self.ensure_valid()
        maps = None
        if self.saliency is not None:
            if index is None:
                raise ValueError(NO_INDEX)
            maps = torch.as_tensor(self.saliency)[index].float().repeat(n_views, 1, 1)
        boxes = draw_boxes(self, sizes.repeat(n_views, 1), generator, maps)
        return Crops(boxes.view(n_views, -1, 4), self.size_of(*size), self.interpolation)

    def read_views(self, images: Images, index: Tensor, generator: torch.Generator) -> Tensor:
        """Read images and make one random view of each. Photographs are cropped from the whole picture.

        Parameters
        ----------
        images : Images
            The images, on the generator's device.
        index : int64 Tensor of shape (n,)
            Indices of the images to read.
        generator : torch.Generator
            Source of the random numbers.

        Returns
        -------
        Tensor of shape (n, c, height, width), float32
            The views, in the order of the indices.

        Examples
        --------
        >>> from skssl.images import as_images
        >>> images = as_images(torch.zeros(8, 32, 32, 3, dtype=torch.uint8))
        >>> Augmentation(size=16).read_views(images, torch.arange(4), torch.Generator()).shape
        torch.Size([4, 3, 16, 16])
        """
        if not isinstance(images, Photographs):
            return self(images.read(index), generator, index)
        seed = torch.randint(2**62, (1,), generator=generator, device=generator.device)  # boxes are drawn on the CPU
        boxes, on_host = torch.Generator().manual_seed(int(seed)), index.cpu()
        (pixels,) = images.read_crops(on_host, lambda sizes: [self.draw_crops(sizes, images.shape[1:], boxes, on_host)])
        return self.after_crop()(pixels, generator)

    def for_images(self, index: Tensor) -> Augmentation:
        """Return the same augmentation for some of the training images.

        Parameters
        ----------
        index : int64 Tensor of shape (n,)
            Indices of the images, on the CPU.

        Returns
        -------
        Augmentation
            It has only these images' saliency maps. Without maps, it is the augmentation itself.

        Examples
        --------
        >>> augment = Augmentation(saliency=torch.rand(100, 4, 4))
        >>> augment.for_images(torch.tensor([5, 8])).saliency.shape
        torch.Size([2, 4, 4])
        """
        if self.saliency is None:
            return self
        return copy(self).set_params(saliency=torch.as_tensor(self.saliency)[index])

    def after_crop(self) -> Augmentation:
        """Return the rest of the augmentation, for images that have been cropped by `draw_crops`.

        Returns
        -------
        Augmentation
            A copy without the random resized crop.

        Examples
        --------
        >>> Augmentation(size=32, flip=0.0).after_crop()
        Augmentation(crop_scale=None, flip=0.0)
        """
        return copy(self).set_params(crop_scale=None, saliency=None, size=None)
