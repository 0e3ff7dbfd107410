"""Trained encoders for other programs: weights that torchvision and timm load, and ONNX."""

from __future__ import annotations

import copy
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors.torch
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skssl.augment.augmentation import Augmentation
from skssl.errors import pick
from skssl.storage.files import own, write_bytes

if TYPE_CHECKING:
    from skssl.methods.base import SSLTransformer


def export(estimator: SSLTransformer, path: str | os.PathLike[str]) -> None:
    """Write a trained encoder in a form that other programs read, see `SSLTransformer.export`.

    Parameters
    ----------
    estimator : SSLTransformer
        It is fitted.
    path : str or path-like
        The file, whose suffix says which form.
    """
    check_is_fitted(estimator)
    forms = {".safetensors": _as_safetensors, ".pt": _as_pickle, ".pth": _as_pickle, ".onnx": _as_onnx}
    write_bytes(path, pick("suffix of the exported file", Path(path).suffix, forms)(estimator))


def _as_safetensors(estimator: SSLTransformer) -> bytes:
    """The encoder's weights alone, in safetensors' format."""
    return safetensors.torch.save(own(estimator.encoder_.state_dict()), {"format": "pt"})


def _as_pickle(estimator: SSLTransformer) -> bytes:
    """The encoder's weights alone, as ``torch.load`` reads them."""
    file = io.BytesIO()
    torch.save(own(estimator.encoder_.state_dict()), file)
    return file.getvalue()


class _Transform(nn.Module):
    """What `transform` does to images (n, c, h, w) of floats in [0, 1]."""

    gain: Tensor
    offset: Tensor

    def __init__(self, encoder: nn.Module, augment: Augmentation, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.encoder = encoder
        self.size, self.mode = augment.size_of(*shape[1:]), augment.interpolation
        black, white = (augment.normalize(of(1, shape[0], 1, 1)) for of in (torch.zeros, torch.ones))
        self.register_buffer("gain", white - black)
        self.register_buffer("offset", black)

    def forward(self, images: Tensor) -> Tensor:
        """Encode images (n, c, h, w) as features (n, d)."""
        if self.size != images.shape[2:]:
            images = nn.functional.interpolate(images, self.size, mode=self.mode, antialias=True).clamp(0, 1)
        return self.encoder(images * self.gain + self.offset)


def _as_onnx(estimator: SSLTransformer) -> bytes:
    """The encoder with what `transform` does to images before it, as a graph."""
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError("Exporting to '.onnx' needs onnx and onnxscript: pip install 'skssl[onnx]'.") from error
    shape = estimator.net_.module_.shape
    encoder = copy.deepcopy(estimator.encoder_).cpu()
    program = torch.onnx.export(
        _Transform(encoder, estimator.net_.augmentations[0], shape).eval(),
        (torch.zeros(2, *shape),),
        input_names=["images"],
        output_names=["features"],
        dynamic_shapes={"images": {0: torch.export.Dim("n")}},
        dynamo=True,
        verbose=False,
    )
    assert program is not None  # None is the older exporter's
    return program.model_proto.SerializeToString()
