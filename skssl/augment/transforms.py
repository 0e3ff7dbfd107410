"""`Transform`: augmentations of other libraries and functions of your own, as views of a batch."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import KW_ONLY, dataclass
from numbers import Integral
from typing import Any, ClassVar, cast

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn

from skssl.augment.augmentation import Augmentation
from skssl.augment.preprocessing import Preprocessing, full_precision
from skssl.augment.presets import MultiCrop, as_augmentations
from skssl.augment.tensors import to_float
from skssl.images import Images
from skssl.images.base import Size, describe, is_pil_image, one_line
from skssl.images.photographs import Crops, still_boxes
from skssl.storage.parameters import name_of
from skssl.storage.registry import register

PIL_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
TRIED = 4  # images on which a transform is tried before a training
COPIES, SEEDS = 16, (1, 2, 3)  # of an image, which show whether a function draws for each image of a batch
OVERSHOOT = 0.1  # of values beyond [0, 1], as interpolation gives


@register("object")
@dataclass(eq=False, repr=False)
class Transform(Preprocessing):
    """A transform of another library, or a function of your own, as an augmentation.

    Transforms of torchvision, Albumentations, Kornia and lightly, and functions, can be passed to the parameter
    ``augment`` of a method directly. Use this class to change one of the settings below.

    Parameters
    ----------
    fn : callable
        The transform. It returns a view, or a list of views, as PIL images, arrays (h, w, c) or tensors (c, h, w), of
        uint8 or floats. A batched one returns a tensor (n, c, h, w), or a list of these.
    input : {"pil", "tensor", "array"}, default=None
        What the transform is given: a PIL image, a tensor (c, h, w) or an array (h, w, c), in the images' own dtype.
        Of photographs it is given the whole picture. None is "array" for Albumentations, which is called with
        ``image=``, and "pil" for all others, but "tensor" for images that are floats or have other than 1, 3 or 4
        channels.
    batched : bool, default=None
        Whether it is given a batch, as a float32 tensor (n, c, h, w) in [0, 1] on the device. It must draw its random
        numbers for each image separately. Photographs are resized whole. None is True for Kornia only.
    output : int, default=None
        The index of the view that is used, if `fn` returns a list. None: `fit` uses the views in turn.
    size : int, tuple of int or None, default=None
        Side, or height and width, of the views in pixels. None: `fit` tries the transform on a few images.
    interpolation, eval_resize
        How images are resized for a trained network, see `Augmentation`.
    mean, std : tuple of float, default=None
        Mean and standard deviation by which the transform normalises red, green and blue. None: those of the
        ``Normalize`` in it. Without one, values stay in [0, 1]. Images are normalised alike for a trained network.

    Notes
    -----
    Each image is transformed separately, unless `batched`. The global random generators of torch, NumPy and Python are
    seeded before each call and restored afterwards. The generators in a transform of Albumentations are seeded, too.
    The seeds depend on the estimator's `random_state`, the epoch and the image's place in it. Threads share the global
    generators, so the transforms run in this process, or in `n_jobs` worker processes.

    Examples
    --------
    >>> from torchvision.transforms import v2
    >>> flip = Transform(v2.RandomHorizontalFlip(), input="tensor")
    >>> images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    >>> flip(images, torch.Generator().manual_seed(0)).shape
    torch.Size([8, 3, 32, 32])
    """

    fn: Any
    _: KW_ONLY
    input: str | None = None
    batched: bool | None = None
    output: int | None = None
    mean: Any = None
    std: Any = None

    saliency: ClassVar[None] = None

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **Preprocessing._parameter_constraints,
        "fn": [callable],
        "input": [StrOptions({"pil", "tensor", "array"}), None],
        "batched": ["boolean", None],
        "output": [Interval(Integral, 0, None, closed="left"), None],
        "mean": ["array-like", None],
        "std": ["array-like", None],
    }

    def validate(self) -> None:
        """Check the parameters.

        Raises
        ------
        ValueError
            If a parameter is of the wrong type or out of its range, or the transform cannot be `batched`.
        """
        self._validate_params()
        if self.batched and self.input not in (None, "tensor"):
            raise ValueError(f"A batched Transform is given tensors. Got input={self.input!r}.")
        if self.batched and _is_from(self.fn, "torchvision"):
            raise ValueError(
                f"{name_of(self.fn)} draws its random numbers once for a batch, so that all images would get the same "
                "crop. Pass batched=False."
            )
        super().validate()

    @property
    def by_batch(self) -> bool:
        """Whether the transform is given a batch."""
        return _is_from(self.fn, "kornia") if self.batched is None else self.batched

    @torch.no_grad()
    @full_precision
    def __call__(
        self,
        images: Tensor,
        generator: torch.Generator,
        index: Tensor | None = None,
        n_views: int = 1,
        compile: bool = False,
    ) -> Tensor:
        """Make one or more views of every image, in this process.

        Parameters
        ----------
        images : Tensor of shape (n, c, h, w)
            uint8, or float in [0, 1], on any device.
        generator : torch.Generator
            Source of the seeds, on the images' device.
        index : int64 Tensor of shape (n,), optional
            Not used.
        n_views : int, default=1
            Number of views of each image.
        compile : bool, default=False
            Not used.

        Returns
        -------
        Tensor of shape (n_views * n, c, height, width), float32
            The first view of each image in the images' order, then the second of each, and so on.
        """
        seed = _seed_from(generator)
        if not self.by_batch:
            made = transform_images([self] * n_views, list(images.cpu()), [(seed, row) for row in range(len(images))])
            return _channels_last(to_float(torch.cat(made).permute(0, 3, 1, 2).to(images.device)))
        views = []
        with preserved_generators(images.device):
            for view in range(n_views):
                seed_generators(_joined(seed, view), self.fn, images.device)
                views.append(self._pick(self._batch_views(images)))
        return _channels_last(torch.cat(views))

    def draw_crops(
        self,
        sizes: Tensor,
        size: tuple[int, int],
        generator: torch.Generator,
        index: Tensor | None = None,
        n_views: int = 1,
    ) -> Crops:
        """Return the whole pictures as crops of photographs, see `Augmentation.draw_crops`."""
        return Crops(still_boxes(sizes, size, None).expand(n_views, -1, -1), size)

    def for_images(self, index: Tensor) -> Transform:
        """Return the transform itself, see `Augmentation.for_images`."""
        return self

    def after_crop(self) -> Transform:
        """Return the transform itself, see `Augmentation.after_crop`."""
        return self

    def read_views(self, images: Images, index: Tensor, generator: torch.Generator) -> Tensor:
        """Read images and make one view of each, see `Augmentation.read_views`."""
        if self.by_batch:
            return self(images.read(index), generator)
        seed = _seed_from(generator)
        pictures = images.pictures(index.cpu())[1]
        (made,) = transform_images([self], pictures, [(seed, row) for row in range(len(pictures))])
        return _channels_last(to_float(made.permute(0, 3, 1, 2).to(generator.device)))

    def image_views(self, picture: Tensor) -> list[Tensor]:
        """Call the transform with one image, by the random state of the global generators.

        Parameters
        ----------
        picture : Tensor of shape (c, h, w)
            The image, uint8 or float32 in [0, 1].

        Returns
        -------
        list of Tensors of shape (c, height, width)
            What the transform returned, uint8 or float32.

        Raises
        ------
        ValueError
            If the transform fails or returns anything else.
        """
        given = self._given(picture)
        try:
            found = self.fn(image=given) if self._by_name else self.fn(given)
        except Exception as error:
            raise ValueError(
                f"The augmentation {name_of(self.fn)} failed on an image of shape {tuple(picture.shape)}: "
                f"{one_line(error)}"
            ) from error
        found = found["image"] if isinstance(found, Mapping) and "image" in found else found
        return [self._as_tensor(view, len(picture)) for view in (found if isinstance(found, list | tuple) else [found])]

    @property
    def _by_name(self) -> bool:
        """Whether the image is passed by name, as Albumentations requires."""
        return any(kind.__module__.split(".")[0] == "albumentations" for kind in type(self.fn).__mro__)

    def _given(self, picture: Tensor) -> Any:
        """Return what the transform is given: a copy, which it may change."""
        suits_pil = picture.dtype == torch.uint8 and len(picture) in PIL_MODES
        kind = self.input or ("array" if self._by_name else "pil" if suits_pil else "tensor")
        if kind == "tensor":
            return picture.clone(memory_format=torch.contiguous_format)
        array = picture.permute(1, 2, 0).numpy().copy(order="C")
        if kind == "array":
            return array
        if not suits_pil:
            raise ValueError(
                f"PIL images hold uint8 and 1, 3 or 4 channels, but X holds a {describe(picture)}. Pass input='tensor'."
            )
        from PIL import Image

        return Image.fromarray(array[..., 0] if len(picture) == 1 else array)

    def _as_tensor(self, view: Any, channels: int) -> Tensor:
        """Return a view as a tensor (c, h, w) of uint8 or float32."""
        given = view
        if is_pil_image(view):
            view = np.array(view)
        if isinstance(view, np.ndarray) and view.ndim in (2, 3) and view.dtype.kind in "uf":
            view = torch.from_numpy(np.ascontiguousarray(np.atleast_3d(view))).permute(2, 0, 1)
        if isinstance(view, Tensor):
            view = view.detach().as_subclass(Tensor)
            view = view[0] if view.ndim == 4 and len(view) == 1 else view
            view = view.float() if view.is_floating_point() else view
        if not isinstance(view, Tensor) or view.ndim != 3 or view.dtype not in (torch.uint8, torch.float32):
            raise ValueError(
                f"The augmentation {name_of(self.fn)} must return a PIL image, array (h, w, c) or tensor (c, h, w), "
                f"of uint8 or floats, or a list of these. Got {describe(given)}."
            )
        if len(view) != channels:
            raise ValueError(
                f"The augmentation {name_of(self.fn)} must return views of {channels} channels, like the images. Got "
                f"{describe(given)}."
            )
        return view

    def _batch_views(self, images: Tensor) -> list[Tensor]:
        """Call the transform with a batch; return its views (n, c, h, w)."""
        if isinstance(self.fn, nn.Module):
            self.fn.to(images.device)
        try:
            found = self.fn(to_float(images).clone(memory_format=torch.contiguous_format))
        except Exception as error:
            raise ValueError(
                f"The augmentation {name_of(self.fn)} failed on a batch of shape {tuple(images.shape)}: "
                f"{one_line(error)}"
            ) from error
        views = list(found) if isinstance(found, list | tuple) else [found]
        for view in views:
            if not isinstance(view, Tensor) or view.ndim != 4 or view.shape[:2] != images.shape[:2]:
                raise ValueError(
                    f"The augmentation {name_of(self.fn)} must return a batch of {len(images)} views of "
                    f"{images.shape[1]} channels, as a tensor, or a list of these. Got {describe(view)}."
                )
        return [view.as_subclass(Tensor).float() for view in views]

    def _pick(self, views: Sequence[Tensor]) -> Tensor:
        """Return the view that is used."""
        return views[min(self.output or 0, len(views) - 1)]


#: An augmentation of either kind, which have the same methods.
View = Augmentation | Transform


def transform_images(
    transforms: Sequence[Transform], pictures: Sequence[Tensor], seeds: Sequence[tuple[int, ...]]
) -> list[Tensor]:
    """Transform each image by itself, in this process.

    Parameters
    ----------
    transforms : sequence of Transform
        One for each view. A transform that is listed twice is called twice, with separate seeds. Those that differ in
        `output` alone share a call.
    pictures : sequence of n uint8 or float32 Tensors of shape (c, h, w)
        The images.
    seeds : sequence of n tuples of int
        What the random numbers of each image follow from.

    Returns
    -------
    list of Tensors of shape (n, height, width, c)
        One for each view, uint8 or float32.
    """
    functions = list({id(transform.fn): transform.fn for transform in transforms}.values())
    calls = [  # by the function, and the number of views that it makes from the same output
        (next(i for i, fn in enumerate(functions) if fn is transform.fn), transforms[:place].count(transform))
        for place, transform in enumerate(transforms)
    ]
    views: list[list[Tensor]] = [[] for _ in transforms]
    with preserved_generators():
        for picture, seed in zip(pictures, seeds, strict=True):
            made: dict[tuple[int, int], list[Tensor]] = {}
            for transform, call, of in zip(transforms, calls, views, strict=True):
                if call not in made:
                    seed_generators(_joined(*seed, *call), transform.fn)
                    made[call] = transform.image_views(picture)
                view = transform._pick(made[call])
                if transform.size is not None and view.shape[1:] != transform.size_of(0, 0):
                    raise _size_error(transform, [transform.size_of(0, 0), tuple(view.shape[1:])])
                of.append(view)
    return [_stack(of) for of in views]


def resolve_transforms(augment: Any, images: Images, method: str, n_views: int, multi_crop: bool = False) -> Any:
    """Try the transforms of the parameter ``augment`` on a few images, and find the views' size and normalisation.

    Parameters
    ----------
    augment : object
        The parameter.
    images : Images
        The training images.
    method : str
        The method's name, for messages.
    n_views : int
        The number of views that it compares.
    multi_crop : bool, default=False
        Whether views may differ in size.

    Returns
    -------
    object
        The parameter itself if it holds no transforms. Otherwise a list of `Augmentation` and `Transform`, which have a
        size, a mean and a standard deviation.

    Raises
    ------
    ValueError
        If a transform fails, or its views do not suit the method.
    """
    if not has_transforms(augment):
        return augment
    items = list(augment) if isinstance(augment, list | tuple) else [augment]
    index = torch.linspace(0, len(images) - 1, min(len(images), TRIED)).long()
    pictures = images.pictures(index)[1]
    found: list[Any] = []
    for item in items:
        transform = item if isinstance(item, Transform) else Transform(item) if is_transform(item) else None
        if transform is None:
            found += as_augmentations(item, max(images.shape[1:]))
            continue
        transform.validate()
        batch = images.to("cpu").read(index) if transform.by_batch else None
        if transform.by_batch and isinstance(transform.fn, nn.Module):
            transform = Transform(**{**transform.get_params(deep=False), "fn": deepcopy(transform.fn)})
        views = _try_batch(transform, batch) if batch is not None else _try_images(transform, pictures)
        if transform.output is None and len(views[0]) > n_views:
            raise ValueError(
                f"The augmentation {name_of(transform.fn)} returns {len(views[0])} views of an image, but {method} "
                f"compares {n_views}. Pass Transform(..., output=0) to use the first."
            )
        if (transform.output or 0) >= len(views[0]):
            raise ValueError(
                f"The 'output' parameter of Transform must be below {len(views[0])}, the number of views that "
                f"{name_of(transform.fn)} returns. Got {transform.output}."
            )
        outputs = range(len(views[0])) if transform.output is None else [transform.output]
        alone = len(views[0]) == 1
        found += [_resolved(transform, [of[i] for of in views], None if alone else i) for i in outputs]
    sizes = {item.size_of(*images.shape[1:]) for item in found}
    if len(sizes) > 1 and not multi_crop:
        raise ValueError(
            f"{method} compares views of one size, but those of 'augment' have the sizes {sorted(sizes)}. Add a Resize "
            "or a crop to one size."
        )
    ways = [" and ".join(f"{name}={_rounded(getattr(item, name))}" for name in ("mean", "std")) for item in found]
    if len(set(ways)) > 1:
        other = next(way for way in ways if way != ways[0])
        raise ValueError(
            f"The views of 'augment' are normalised in different ways: by {ways[0]}, and by {other}. Normalise all "
            "views alike. An Augmentation takes mean and std."
        )
    return found


def _rounded(numbers: Sequence[float]) -> tuple[float, ...]:
    """Return numbers to five digits: those of a tensor are of lower precision."""
    return tuple(round(float(number), 5) for number in numbers)


def is_transform(item: Any) -> bool:
    """Return whether an item of the parameter ``augment`` is a `Transform` or will be wrapped in one."""
    return callable(item) and not isinstance(item, Augmentation | MultiCrop | type)


def has_transforms(augment: Any) -> bool:
    """Return whether the parameter ``augment`` is or holds a transform."""
    return any(is_transform(item) for item in (augment if isinstance(augment, list | tuple) else [augment]))


def as_views(augment: Any, image_size: int) -> list[Any]:
    """Return the augmentations and transforms of the parameter ``augment``, see `as_augmentations`."""
    if not has_transforms(augment):
        return list(as_augmentations(augment, image_size))
    items = augment if isinstance(augment, list | tuple) else [augment]
    found = [Transform(item) if is_transform(item) and not isinstance(item, Transform) else item for item in items]
    for item in found:
        item.validate()
    return found


def size_of_views(augment: Any) -> Size | None:
    """Return the height and width of the views of a transform, whatever the size of the images.

    Parameters
    ----------
    augment : object
        The parameter ``augment``.

    Returns
    -------
    (int, int) or None
        None if it depends on the images, or the transform fails on noise. Also for an `Augmentation`.
    """
    first = augment[0] if isinstance(augment, list | tuple) and augment else augment
    if not is_transform(first):
        return None
    transform = first if isinstance(first, Transform) else Transform(first)
    if transform.size is not None or transform.by_batch:
        return None if transform.size is None else transform.size_of(0, 0)
    noise = torch.Generator().manual_seed(0)
    pictures = [torch.randint(256, (3, *size), generator=noise, dtype=torch.uint8) for size in ((300, 400), (360, 320))]
    try:
        sizes = {tuple(views[0].shape[1:]) for views in _try_images(transform, pictures)}
    except ValueError:  # `fit` tries it on the images themselves
        return None
    return cast(Size, sizes.pop()) if len(sizes) == 1 else None


def _resolved(transform: Transform, views: Sequence[Tensor], output: int | None) -> Transform:
    """Return a transform with the size and the normalisation of its views (…, c, h, w)."""
    sizes = {tuple(view.shape[-2:]) for view in views} | ({transform.size_of(0, 0)} if transform.size else set())
    if len(sizes) > 1:
        raise _size_error(transform, sorted(sizes))
    mean, std = transform.mean, transform.std
    if (mean is None) != (std is None):
        raise ValueError(f"Transform needs mean and std, or neither. Got mean={mean!r} and std={std!r}.")
    if mean is None:
        mean, std = _normalization(transform.fn) or (None, None)
    low, high = min(float(view.min()) for view in views), max(float(view.max()) for view in views)
    if mean is None and views[0].is_floating_point() and not (low >= -OVERSHOOT and high <= 1 + OVERSHOOT):
        raise ValueError(
            f"The augmentation {name_of(transform.fn)} returns values from {low:.3g} to {high:.3g}, but no Normalize "
            "was found in it. Pass Transform(..., mean=..., std=...) to say how it normalises images in [0, 1], or let "
            "it return values in [0, 1]."
        )
    given = transform.get_params(deep=False)
    mean, std = ((0.0,) * 3, (1.0,) * 3) if mean is None else (mean, std)
    made = Transform(
        **{**given, "batched": transform.by_batch, "size": sizes.pop(), "mean": mean, "std": std, "output": output}
    )
    made.validate()
    return made


def _try_images(transform: Transform, pictures: Sequence[Tensor]) -> list[list[Tensor]]:
    """Return the views of images; warn if they do not follow from the seed."""
    with preserved_generators():
        made = []
        for i, picture in enumerate(pictures):
            seed_generators(_joined(i), transform.fn)
            made.append(transform.image_views(picture))
        seed_generators(_joined(0), transform.fn)
        again = transform.image_views(pictures[0])
    if len({len(views) for views in [*made, again]}) > 1:
        raise ValueError(
            f"The augmentation {name_of(transform.fn)} does not return the same number of views each time."
        )
    if not all(torch.equal(one, two) for one, two in zip(made[0], again, strict=True)):
        raise ValueError(_unseeded(transform))
    return made


def _try_batch(transform: Transform, images: Tensor) -> list[list[Tensor]]:
    """Return the views of a batch; refuse a function that draws its random numbers once for all images."""

    def views(batch: Tensor, seed: int) -> list[Tensor]:
        seed_generators(seed, transform.fn)
        return transform._batch_views(batch)

    with preserved_generators(), torch.no_grad():
        made, again = views(images, 0), views(images, 0)
        same = images[:1].expand(COPIES, -1, -1, -1)
        of_seeds = [views(same, seed)[0] for seed in SEEDS]
    if not all(torch.equal(one, two) for one, two in zip(made, again, strict=True)):
        raise ValueError(_unseeded(transform))
    once = all(bool((of == of[:1]).all()) for of in of_seeds)
    if once and any(of.shape != of_seeds[0].shape or not torch.equal(of, of_seeds[0]) for of in of_seeds):
        raise ValueError(
            f"The augmentation {name_of(transform.fn)} draws its random numbers once for a batch, so that all images "
            "get the same crop. Pass batched=False, or draw for each image."
        )
    return [made]


def _unseeded(transform: Transform) -> str:
    return (
        f"The augmentation {name_of(transform.fn)} returns different views from the same seeds, so training could not "
        "be repeated. Draw random numbers from the global generators of torch, NumPy or Python. Pass a transform of "
        "Albumentations directly, not inside a function."
    )


def _size_error(transform: Transform, sizes: Sequence[Any]) -> ValueError:
    """Return the error for views that differ in size."""
    return ValueError(
        f"The views of {name_of(transform.fn)} differ in size: {', '.join(f'{h}x{w}' for h, w in sizes)}. Add a Resize "
        "or a crop to one size."
    )


def _stack(views: Sequence[Tensor]) -> Tensor:
    """Stack views (c, h, w) as (n, h, w, c); floats if any are floats."""
    if any(view.dtype != views[0].dtype for view in views):
        views = [to_float(view) for view in views]
    return torch.stack([view.permute(1, 2, 0) for view in views])


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)


# The random generators.


def _joined(*numbers: int) -> int:
    """Return a seed that follows from numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def _seed_from(generator: torch.Generator) -> int:
    """Return a seed that follows from the state of a generator, and advance it; the host does not wait for a GPU."""
    state = generator.get_state().numpy().tobytes()
    torch.rand(1, generator=generator, device=generator.device)
    return int.from_bytes(hashlib.blake2b(state, digest_size=7).digest(), "little")


def seed_generators(seed: int, fn: Callable[..., Any], device: torch.device | str = "cpu") -> None:
    """Seed the global generators of torch, NumPy and Python, and those of a transform of Albumentations.

    Parameters
    ----------
    seed : int
        The seed, below 2**64.
    fn : callable
        The transform.
    device : torch.device or str, default="cpu"
        A device whose generator is seeded, too.
    """
    device = torch.device(device)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - transforms draw from the global generator
    random.seed(seed)
    if hasattr(fn, "set_random_seed"):
        fn.set_random_seed(seed % 2**32)


@contextmanager
def preserved_generators(device: torch.device | str = "cpu") -> Iterator[None]:
    """Restore the global generators of torch, NumPy and Python at the end, and compute in one thread on a CPU.

    Parameters
    ----------
    device : torch.device or str, default="cpu"
        A device whose generator is restored, too.
    """
    device = torch.device(device)
    on_cpu, kind = device.type == "cpu", "cuda" if device.type == "cpu" else device.type
    n_threads, of_python = torch.get_num_threads(), random.getstate()
    of_numpy = np.random.get_state()  # noqa: NPY002 - transforms draw from the global generator
    with torch.random.fork_rng([] if on_cpu else [device.index or 0], device_type=kind):
        if on_cpu:
            torch.set_num_threads(1)  # as worker processes do, so that the bits are the same
        try:
            yield
        finally:
            torch.set_num_threads(n_threads)
            np.random.set_state(of_numpy)  # noqa: NPY002
            random.setstate(of_python)


# What is known of other libraries.


def _parts(fn: Any) -> Iterator[Any]:
    """Iterate over a transform and the transforms in it, of torchvision, Albumentations, Kornia and lightly."""
    yield fn
    inner = getattr(fn, "transforms", None)
    found = list(inner) if isinstance(inner, Sequence | nn.ModuleList) else []
    found += [fn.transform] if callable(getattr(fn, "transform", None)) and not hasattr(type(fn), "transform") else []
    found += list(fn.children()) if isinstance(fn, nn.Module) and not found else []
    for part in found:
        yield from _parts(part)


def _is_from(fn: Any, library: str) -> bool:
    """Return whether a transform, or one in it, is of a library."""
    return any(kind.__module__.split(".")[0] == library for part in _parts(fn) for kind in type(part).__mro__)


def _normalization(fn: Any) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return the mean and standard deviation of the ``Normalize`` in a transform, or None if there is none."""
    found = set()
    for part in _parts(fn):
        if type(part).__name__ == "Normalize":
            flags = getattr(part, "flags", vars(part))  # Kornia's
            buffers = dict(part.named_buffers()) if isinstance(part, nn.Module) else {}
            values = [flags[name] if name in flags else buffers.get(name) for name in ("mean", "std")]
            mean, std = (tuple(np.ravel(np.asarray(value, np.float64)).tolist()) for value in values)
            found.add((mean * 3 if len(mean) == 1 else mean, std * 3 if len(std) == 1 else std))
    if len(found) > 1:
        raise ValueError(
            f"The augmentation {name_of(fn)} normalises in more than one way. Pass Transform(..., mean=..., std=...) "
            "to say how images are normalised for a trained network."
        )
    return found.pop() if found else None
