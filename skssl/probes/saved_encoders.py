"""Encoders of probes and fine-tuned classifiers in saved files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from skssl.augment.augmentation import Augmentation
from skssl.backbones import build_backbone
from skssl.methods.base import SSLTransformer, pixels
from skssl.nn.precision import usable_precision
from skssl.probes.encoders import Encoder, Source, at_layer
from skssl.storage.parameters import Given, Parts
from skssl.storage.saving import READING, Field, is_int
from skssl.training.devices import available
from skssl.training.state import LARGEST_TRIED, Blank

#: The plain values of an encoder: the index of the estimator that it is from, its layer, and how it reads images.
ENCODER = {
    "estimator": Field(lambda value: value is None or is_int(1)(value), "the number of an estimator or None"),
    "layer": Field(lambda value: type(value) is str, "a layer"),
    **READING,
}


def pack_encoder(source: Source, parts: Parts, prefix: str) -> dict[str, Any]:
    """Return what a file needs of an encoder besides its tensors.

    Parameters
    ----------
    source : Source
        Where the encoder comes from.
    parts : Parts
        The estimators of the file, to which the encoder's is added.
    prefix : str
        What precedes the names of the encoder's parameters, such as ``encoder__``.

    Returns
    -------
    dict of str to object
        The values of `ENCODER`.
    """
    known = source.estimator is not None
    index = parts.add_estimator(source.estimator, prefix, source.trained) if known else None
    return {"estimator": index, "layer": source.layer, **source.reading}


class SavedEncoder:
    """An encoder that a file describes.

    Parameters
    ----------
    values : dict of str to object
        The values of `ENCODER`.
    parameter : object
        The parameter that holds the encoder, which is used if it is a module.
    given : Given
        The estimators of the file.

    Attributes
    ----------
    source : Source
        Where the encoder comes from.
    shape, encoded : tuple of int
        Channels, height and width of the images, and of what the network reads.

    Raises
    ------
    ValueError
        If the values do not fit.
    """

    def __init__(self, values: Mapping[str, Any], parameter: Any, given: Given) -> None:
        self.shape: tuple[int, int, int] = values["shape"]
        reading = {name: values[name] for name in READING}
        reader: Any = None
        trained: Any = None
        if values["estimator"] is not None:
            reader, trained = (known.get(values["estimator"]) for known in (given.estimators, given.trained))
            if not isinstance(reader, SSLTransformer) or hasattr(reader, "_shape"):
                raise ValueError("The estimator of an encoder must be a method of its own that is not fitted.")
            trained._validate_params()
            reader._set_reading(values)
            augmentations, self.encoded = trained._loaded_views(self.shape)
            self.augment, self.backbone, self.precision = augmentations[0], trained.backbone, trained.precision
        elif isinstance(parameter, nn.Module):
            self.augment, self.encoded = Augmentation(), self.shape
            self.backbone, self.precision = parameter, "auto"
        else:
            raise ValueError(f"The encoder must be a module. Got a {type(parameter).__name__}.")
        self.source = Source(reader, trained, values["layer"], reading)

    def network(self, backbone: Any) -> nn.Module:
        """Return the network up to the layer, with a backbone."""
        layer, trained = self.source.layer, self.source.trained
        if trained is None:
            return at_layer(build_backbone(backbone, self.shape)[0], None, layer)
        net = trained._make_objective(self.shape, self.encoded, self.source.reading["n_samples"], backbone)
        return at_layer(net.encoder, getattr(net, "projector", None), layer)

    def blank(self, make: Any) -> Blank:
        """Return a network that contains the encoder: what a function of the backbone makes, without values."""
        return Blank(make, self.backbone, pixels(self.encoded))

    def encoder(self, module: nn.Module, device: Any) -> Encoder:
        """Return the encoder with its network; the device is that of the estimator if there is one."""
        trained = self.source.trained
        home = available(device if trained is None else trained.device)
        dtype = usable_precision(self.precision, home, min(self.encoded[1:]))
        module.to(home).to(memory_format=torch.channels_last)
        return Encoder(module, self.augment, home, dtype, self.shape, self.source)


@torch.no_grad()
def n_features(module: nn.Module, shape: tuple[int, int, int]) -> int:
    """Return the number of features that a network maps an image to, without computing them if that is possible.

    Parameters
    ----------
    module : torch.nn.Module
        The network from images (n, c, h, w) to features (n, d). It is set to evaluation mode.
    shape : tuple of int
        The images' channels, height and width.

    Returns
    -------
    int
        The number of features.

    Raises
    ------
    ValueError
        If the output has another form.

    Examples
    --------
    >>> from skssl.backbones import ConvNet
    >>> from skssl.probes.saved_encoders import n_features
    >>> n_features(ConvNet(), (3, 10**6, 10**6))
    128
    """
    module.eval()
    values = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    try:
        blank = {name: torch.empty_like(value, device="meta") for name, value in values.items()}
        with torch.device("meta"):
            output = torch.func.functional_call(module, blank, (torch.zeros(1, *shape),))
    except Exception:
        if pixels(shape) > LARGEST_TRIED:
            raise
        output = module(torch.zeros(1, *shape, device=next(iter(values.values()), torch.empty(0)).device))
    if output.ndim != 2:
        raise ValueError(f"The encoder must return features (n, d). Got the shape {tuple(output.shape)}.")
    return output.shape[1]
