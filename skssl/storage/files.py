"""What lies on disk: one safetensors file with a header of plain values, written whole or not at all.

The header is JSON among the file's own metadata, so that there is no archive and no path in it. Reading runs nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
import safetensors
import torch
from safetensors.torch import save
from torch import Tensor

FORMAT = 1  # of the header; a reader refuses a higher one
LARGEST_HEADER = 2**23  # bytes; names, shapes, parameters and ten thousand epochs of history are half of it
MOST_TENSORS = 2**14
MARK = "!"  # begins the name of what JSON has no form for


def write(path: str | os.PathLike[str], header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a file whole, or leave what was there before.

    Parameters
    ----------
    path : str or path-like
        Where to. What is there is replaced.
    header : mapping of str to object
        Plain values: None, bools, integers of 64 bits, floats (infinite and NaN, too), strings, and lists, tuples and
        dicts with string keys of these. NumPy's scalars become Python's.
    tensors : mapping of str to Tensor
        Tensors by name, on any device and in any layout. Of those that share memory each gets its own.

    Raises
    ------
    TypeError, ValueError
        If the header holds something else, or too much of it.
    OSError
        If the file cannot be written: the disk is full, the folder is missing or may not be written to.

    Examples
    --------
    >>> import tempfile, torch
    >>> from skssl.storage.files import read, write
    >>> path = tempfile.mkdtemp() + "/some.safetensors"
    >>> write(path, {"epochs": 3, "scale": (0.0, 1.0)}, {"weight": torch.ones(2)})
    >>> read(path)
    ({'epochs': 3, 'scale': (0.0, 1.0)}, {'weight': tensor([1., 1.])})
    """
    packed, mine = _pack(dict(header), "header"), own(tensors)
    text = json.dumps({"format": FORMAT, "sha256": checksum(packed, mine), "header": packed})
    content = save(mine, {"skssl": text})
    if int.from_bytes(content[:8], "little") > LARGEST_HEADER or len(mine) > MOST_TENSORS:
        raise ValueError(
            f"{os.fspath(path)!r} would have a header of more than {LARGEST_HEADER} bytes or more than {MOST_TENSORS} "
            "tensors."
        )
    write_bytes(path, content)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces another one once it is complete.

    Parameters
    ----------
    path : str or path-like
        The file to replace. A link is followed. If an error occurs in the block, the file stays unchanged.

    Yields
    ------
    binary file
        The temporary file, in the same folder.

    Raises
    ------
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from skssl.storage.files import atomic_write
    >>> path = Path(tempfile.mkdtemp()) / "scores.json"
    >>> with atomic_write(path) as file:
    ...     _ = file.write(b"{}")
    >>> path.read_bytes()
    b'{}'
    """
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name}.{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):  # the file may not exist; the first error is raised
            os.unlink(temporary)
        if isinstance(error, OSError) and error.errno and error.filename in (None, temporary):
            message = f"{os.fspath(path)!r} could not be written and is unchanged: {error.strerror}"
            raise OSError(error.errno, message) from error
        raise
    _sync_folder(folder)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file atomically.

    Parameters
    ----------
    path : str or path-like
        The file. If it cannot be written, an existing file stays unchanged.
    content : bytes
        Its new content.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    with atomic_write(path) as file:
        file.write(content)


def own(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bring tensors to the CPU, contiguous and each in memory of its own, as safetensors wants them.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        Tensors by name.

    Returns
    -------
    dict of str to Tensor
        The same, copied where they must be.
    """
    found: dict[str, Tensor] = {}
    taken = set()
    for name, tensor in tensors.items():
        mine = tensor.detach().cpu().contiguous()
        place = mine.untyped_storage().data_ptr()
        found[name] = mine.clone() if place in taken else mine
        taken.add(place)
    return found


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what `write` has written, to the CPU. A file from anywhere executes nothing and takes about its own size.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    header : dict of str to object
        The plain values.
    tensors : dict of str to Tensor
        The tensors, contiguous, in memory of their own.

    Raises
    ------
    OSError
        If there is no such file, or it may not be read.
    ValueError
        If it is truncated or too long, damaged, no file of skssl's, or of a newer skssl.
    """
    where = repr(os.fspath(path))
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for ever
        raise ValueError(f"{where} cannot be read: it is no regular file.")
    with open(path, "rb") as file:
        claimed = int.from_bytes(file.read(8), "little")
    if claimed > LARGEST_HEADER:
        raise ValueError(
            f"{where} cannot be read, it is damaged or no safetensors file: its header would have {claimed} bytes, of "
            f"at most {LARGEST_HEADER}."
        )
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            text, names = (file.metadata() or {}).get("skssl"), file.keys()
            if len(names) > MOST_TENSORS:
                raise ValueError(f"it has {len(names)} tensors, of at most {MOST_TENSORS}")
            # Copies: the file's pages would change, or be gone, with the file.
            tensors = {} if text is None else {name: file.get_tensor(name).clone() for name in names}
    except (safetensors.SafetensorError, RuntimeError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{where} cannot be read, it is damaged or no safetensors file: {first_line(error)}"
        ) from error
    if text is None:
        raise ValueError(f"{where} is a safetensors file, but was not written by skssl: its metadata lack 'skssl'.")
    try:
        content = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_integer, parse_float=_finite
        )
        if not isinstance(content, dict) or type(content.get("format")) is not int:
            raise ValueError("it lacks the format's number")
        if content["format"] > FORMAT:
            raise ValueError(f"it is in format {content['format']} of a newer skssl, this one reads up to {FORMAT}")
        if content.keys() != {"format", "sha256", "header"} or not isinstance(content["header"], dict):
            raise ValueError("it is not in the form that skssl writes")
        if content["sha256"] != checksum(content["header"], tensors):
            raise ValueError("its checksum is another one, so that the file is damaged")
        return _unpack(content["header"]), tensors
    except (ValueError, RuntimeError) as error:  # a RecursionError is one of the latter
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else first_line(error)
        raise ValueError(f"{where} cannot be read, its header is not skssl's: {reason}") from error


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        Tensors by name.
    prefix : str
        The prefix.

    Returns
    -------
    dict of str to Tensor
        The tensors by the rest of their names.

    Examples
    --------
    >>> import torch
    >>> from skssl.storage.files import part
    >>> part({"net.weight": torch.ones(2), "seed": torch.zeros(1)}, "net.")
    {'weight': tensor([1., 1.])}
    """
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def checksum(header: Any, tensors: Mapping[str, Tensor]) -> str:
    """Compute the checksum of what a file holds, which tells damage, but does not keep anyone from making another file.

    Parameters
    ----------
    header : object
        What JSON has forms for.
    tensors : mapping of str to Tensor
        Contiguous tensors on the CPU.

    Returns
    -------
    str
        SHA-256 in hexadecimal digits.
    """
    found = hashlib.sha256(json.dumps(header, allow_nan=False).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _sync_folder(folder: str) -> None:
    """Make a folder's new entry last, where the system lets a folder be opened."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _pack(value: Any, name: str) -> Any:
    """Bring a plain value into JSON's forms."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise ValueError(f"{name} must fit into 64 bits to be saved. Got {value:.3g}.")
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {f"{MARK}float": str(float(value))}
    if isinstance(value, (list, tuple)):
        packed = [_pack(of, f"{name}[{i}]") for i, of in enumerate(value)]
        return packed if isinstance(value, list) else {f"{MARK}tuple": packed}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {MARK + key if key.startswith(MARK) else key: _pack(of, f"{name}[{key!r}]") for key, of in value.items()}
    raise TypeError(
        f"{name} must be a plain value to be saved: None, a bool, number, string, list, tuple or dict with "
        f"string keys. Got {value!r}."
    )


def _unpack(value: Any) -> Any:
    """Turn JSON's forms back into what they stand for."""
    if isinstance(value, list):
        return [_unpack(of) for of in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {f"{MARK}tuple"} and isinstance(value[f"{MARK}tuple"], list):
        return tuple(_unpack(of) for of in value[f"{MARK}tuple"])
    if value.keys() == {f"{MARK}float"} and value[f"{MARK}float"] in ("inf", "-inf", "nan"):
        return float(value[f"{MARK}float"])
    for key in value:
        if key.startswith(MARK) and not key.startswith(2 * MARK):
            raise ValueError(f"{key[:40]!r} stands for nothing that it knows")
    return {key.removeprefix(MARK): _unpack(of) for key, of in value.items()}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dict of pairs with different keys."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"it has {key[:40]!r} twice")
        found[key] = value
    return found


def _no_constant(text: str) -> Any:
    """Refuse what Python's reader takes for a number, but JSON does not."""
    raise ValueError(f"{text} is not JSON")


def _integer(text: str) -> int:
    """Read an integer of 64 bits."""
    if len(text) > 20 or not -(2**63) <= int(text) < 2**63:
        raise ValueError(f"{text[:20]}… does not fit into 64 bits")
    return int(text)


def _finite(text: str) -> float:
    """Read a number that a float can hold."""
    if not math.isfinite(float(text)):
        raise ValueError(f"{text[:40]} is more than a float can hold")
    return float(text)


def first_line(error: BaseException) -> str:
    r"""Tell in a line what an error says.

    Parameters
    ----------
    error : Exception
        The error.

    Returns
    -------
    str
        The first line of its message, or its beginning; its class where there is none.

    Examples
    --------
    >>> first_line(ValueError("It is too long.\nSee below."))
    'It is too long.'
    """
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
