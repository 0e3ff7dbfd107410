"""Trained weights for an encoder, from files of other libraries and from state dicts."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from skssl.backbones.channels import adapt_kernels
from skssl.backbones.positions import fit_positions
from skssl.nn.distributed import is_main_process
from skssl.storage.files import first_line


def load_weights(
    encoder: nn.Module, weights: str | os.PathLike[str] | Mapping[str, Any], *, verbose: int = 0
) -> list[str]:
    """Load trained weights into an encoder, as far as they fit.

    Parameters
    ----------
    encoder : torch.nn.Module
        The encoder, which is changed.
    weights : str, path-like or mapping
        A file of safetensors, or of ``torch.save``, which is read with ``weights_only=True``; a folder of Hugging Face,
        with such a file as "model.safetensors" or "pytorch_model.bin"; or the content of a file: a state dict, or a
        dict that holds one, such as "state_dict", "model" or "teacher". Names may have a prefix, such as
        "module.encoder_q." in MoCo's checkpoints and "module." in SwAV's. The prefix with the most tensors that fit is
        taken, and among equals the first one, or the teacher's. A convolution for other channels is adapted as in
        `build_backbone`, and positions of a vision transformer's patches for another square are interpolated. Tensors
        that the encoder lacks, such as heads, are left out.
    verbose : int, default=0
        1 prints how many tensors were loaded, and which were left out.

    Returns
    -------
    list of str
        The names of the encoder's tensors that were not found or have another shape; they keep their values.

    Warns
    -----
    UserWarning
        If that list is not empty.

    Raises
    ------
    ValueError
        If the file cannot be read without running code from it, or no tensor with more than one axis fits.
    OSError
        If the file cannot be opened.

    Examples
    --------
    >>> import torch
    >>> from skssl.backbones import ConvNet, load_weights
    >>> trained = {f"module.encoder_q.{name}": value for name, value in ConvNet().state_dict().items()}
    >>> load_weights(ConvNet(), {"state_dict": trained, "epoch": 200}, verbose=1)
    Loaded 24 of 24 tensors with the prefix 'module.encoder_q.'.
    []
    """
    where = repr(os.fspath(weights)) if isinstance(weights, str | os.PathLike) else "the weights"
    content = _read(weights) if isinstance(weights, str | os.PathLike) else weights
    own = encoder.state_dict()
    first = next((name for name, value in own.items() if value.ndim == 4), None)
    best: dict[str, Tensor] = {}
    rank, prefix, given = (0, False), "", dict[str, Tensor]()
    for key, tensors in _state_dicts(content):
        for candidate in _prefixes(tensors, own):
            found = {}
            for name, value in own.items():
                tensor = tensors.get(candidate + name)
                if tensor is not None and (fitted := _fit(tensor, value, name, name == first)) is not None:
                    found[name] = fitted
            score = sum(tensor.ndim > 1 for tensor in found.values()), "teacher" in f"{key}.{candidate}"
            if score > rank:
                best, rank, prefix, given = found, score, candidate, tensors
    if not best:
        names = [name for _, tensors in _state_dicts(content) for name in tensors]
        raise ValueError(
            f"None of the tensors in {where} fits the encoder. It has {_listed(names)}; the encoder, a "
            f"{type(encoder).__name__}, has {_listed(own)}."
        )
    encoder.load_state_dict(best, strict=False)
    missing = [name for name in own if name not in best and not name.endswith("num_batches_tracked")]
    if missing:
        warnings.warn(
            f"{len(missing)} of the {len(own)} tensors of the encoder are not in {where} or have another shape there, "
            f"and keep their initial values: {_listed(missing)}.",
            UserWarning,
            stacklevel=2,
        )
    if verbose and is_main_process():
        named = [name for name in given if not name.endswith("num_batches_tracked")]
        unused = [name for name in named if name.removeprefix(prefix) not in best]
        print(
            f"Loaded {len(best)} of {len(own)} tensors"
            + (f" with the prefix {prefix!r}" if prefix else "")
            + (f"; not used: {_listed(unused)}" if unused else "")
            + "."
        )
    return missing


def _read(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """Read a file of safetensors or of ``torch.save`` without running code from it."""
    where = os.fspath(path)
    if os.path.isdir(where):  # of Hugging Face
        files = [os.path.join(where, name) for name in ("model.safetensors", "pytorch_model.bin")]
        where = next(filter(os.path.isfile, files), files[0])
    if not os.path.exists(where):
        raise FileNotFoundError(f"backbone_weights is {os.fspath(path)!r}, but there is no file {where!r}.")
    try:
        if os.path.splitext(where)[1] == ".safetensors":
            return load_file(where)
        content = torch.load(where, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch raises errors of any type for damaged pickles
        raise ValueError(
            f"{where!r} cannot be read as trained weights: expected a safetensors file (.safetensors), or a file of "
            f"torch.save that holds only tensors and plain values. Got: {_reason(error)}"
        ) from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{where!r} must hold a state dict. Got a {type(content).__name__}.")
    return content


def _reason(error: Exception) -> str:
    """Return why a file cannot be read. For other objects, torch's own text is advice to run their code."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    return f"an object of {found[1]}. Save its state_dict() instead." if found else first_line(error)


def _state_dicts(content: Mapping[str, Any]) -> Iterable[tuple[str, dict[str, Tensor]]]:
    """Yield the state dicts in a checkpoint: itself, then those that it holds, with their names."""
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if tensors:
        yield "", tensors
    for key, value in content.items():
        if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
            for inner, found in _state_dicts(value):
                yield f"{key}.{inner}", found


def _prefixes(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Return what precedes the encoder's names in the names of tensors, in the order of the tensors."""
    last: dict[str, list[str]] = {}
    for name in own:
        last.setdefault(name.rpartition(".")[2], []).append(name)
    found: dict[str, None] = {}
    for name in tensors:
        for mine in last.get(name.rpartition(".")[2], ()):
            prefix = name.removesuffix(mine)
            if prefix != name and (not prefix or prefix.endswith(".")):
                found[prefix] = None
    return list(found)


def _fit(tensor: Tensor, own: Tensor, name: str, first: bool) -> Tensor | None:
    """Return a tensor for one of the encoder's, or None if it has another shape.

    The `first` convolution and positions are adapted.
    """
    if tensor.shape == own.shape:
        return tensor
    if first and tensor.ndim == 4 and (tensor.shape[0], tensor.shape[2:]) == (own.shape[0], own.shape[2:]):
        return adapt_kernels(tensor, own.shape[1])
    positions = name.rpartition(".")[2].startswith("pos_embed") and tensor.ndim == own.ndim == 3
    if positions and (tensor.shape[0], tensor.shape[2]) == (own.shape[0], own.shape[2]):
        return fit_positions(tensor.to(own.dtype), own.shape[1])
    return None


def _listed(names: Iterable[str], most: int = 5) -> str:
    """Return names as text, at most so many of them."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
