"""Trained encoders for other programs: weights that torchvision and timm load, and ONNX."""

from __future__ import annotations

import copy
import io
import os
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from skssl.errors import pick
from skssl.storage.files import own, write_bytes


def export(encoder: nn.Module, transform: nn.Module, shape: tuple[int, int, int], path: str | os.PathLike[str]) -> None:
    """Write a trained encoder in a format that other programs read.

    Parameters
    ----------
    encoder : torch.nn.Module
        The encoder, whose ``state_dict`` is written to ".safetensors", ".pt" and ".pth".
    transform : torch.nn.Module
        The graph for ".onnx": from images, float32 of shape (n, c, h, w) in [0, 1], to features of shape (n, d).
    shape : tuple of int
        The images' channels, height and width.
    path : str or path-like
        The file. Its suffix selects the format.

    Raises
    ------
    ValueError
        If the suffix is unknown.
    OSError
        If the file cannot be written.
    """
    formats = {
        ".safetensors": lambda: safetensors.torch.save(own(encoder.state_dict()), {"format": "pt"}),
        ".pt": lambda: _as_pickle(encoder),
        ".pth": lambda: _as_pickle(encoder),
        ".onnx": lambda: _as_onnx(transform, shape),
    }
    write_bytes(path, pick("suffix of the exported file", Path(path).suffix, formats)())


def _as_pickle(encoder: nn.Module) -> bytes:
    """Return an encoder's weights in the format of ``torch.save``."""
    file = io.BytesIO()
    torch.save(own(encoder.state_dict()), file)
    return file.getvalue()


def _as_onnx(transform: nn.Module, shape: tuple[int, int, int]) -> bytes:
    """Return a module as an ONNX graph for any number of images."""
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError("Exporting to '.onnx' needs onnx and onnxscript: pip install 'skssl[onnx]'.") from error
    program = torch.onnx.export(
        copy.deepcopy(transform).cpu().eval(),
        (torch.zeros(2, *shape),),
        input_names=["images"],
        output_names=["features"],
        dynamic_shapes={"images": {0: torch.export.Dim("n")}},
        dynamo=True,
        verbose=False,
    )
    assert program is not None  # only the older exporter returns None
    return program.model_proto.SerializeToString()
