"""Read and write safetensors files with a header of plain values; atomic writes.

The header is JSON among the metadata of the safetensors file. Reading a file runs no code from it.
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

FORMAT = 1  # version of the header; a newer one is refused
LARGEST_HEADER = 2**23  # bytes; ten thousand epochs of history take half of it
MOST_TENSORS = 2**14
MARK = "!"  # begins the key of a value that JSON cannot express


def write(path: str | os.PathLike[str], header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write plain values and tensors to a file, atomically.

    Parameters
    ----------
    path : str or path-like
        The file. An existing one is replaced.
    header : mapping of str to object
        Plain values: None, bools, integers of 64 bits, floats (also infinite and NaN), strings, and lists, tuples and
        dicts with string keys of these. NumPy scalars become Python's.
    tensors : mapping of str to Tensor
        Tensors by name, on any device and in any memory layout. Tensors that share memory are written separately.

    Raises
    ------
    TypeError, ValueError
        If the header holds other values, or is too long.
    OSError
        If the file cannot be written, for example because the disk is full.

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
    """Return contiguous tensors on the CPU that share no memory, as safetensors requires.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        Tensors by name.

    Returns
    -------
    dict of str to Tensor
        The tensors, copied only if necessary.
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
    """Read a file that `write` has written. The file need not be trusted.

    No code from the file runs, and reading takes about as much memory as the file has bytes.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    header : dict of str to object
        The plain values.
    tensors : dict of str to Tensor
        The tensors, contiguous, on the CPU.

    Raises
    ------
    OSError
        If the file does not exist or cannot be read.
    ValueError
        If the file is damaged, was not written by skssl, or was written by a newer skssl.
    """
    where = repr(os.fspath(path))
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would block
        raise ValueError(f"{where} cannot be read: it is not a regular file.")
    with open(path, "rb") as file:
        claimed = int.from_bytes(file.read(8), "little")
    if claimed > LARGEST_HEADER:
        raise ValueError(
            f"{where} cannot be read, it is damaged or not a safetensors file: its header would have {claimed} bytes, "
            f"of at most {LARGEST_HEADER}."
        )
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            text, names = (file.metadata() or {}).get("skssl"), file.keys()
            if len(names) > MOST_TENSORS:
                raise ValueError(f"it has {len(names)} tensors, of at most {MOST_TENSORS}")
            # Tensors that are mapped from the file would change with it.
            tensors = {} if text is None else {name: file.get_tensor(name).clone() for name in names}
    except (safetensors.SafetensorError, RuntimeError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{where} cannot be read, it is damaged or not a safetensors file: {first_line(error)}"
        ) from error
    if text is None:
        raise ValueError(f"{where} is a safetensors file, but was not written by skssl: its metadata lack 'skssl'.")
    try:
        content = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_integer, parse_float=_finite
        )
        if not isinstance(content, dict) or type(content.get("format")) is not int:
            raise ValueError("it lacks the number of its format")
        if content["format"] > FORMAT:
            raise ValueError(f"its format {content['format']} is that of a newer skssl; this one reads up to {FORMAT}")
        if content.keys() != {"format", "sha256", "header"} or not isinstance(content["header"], dict):
            raise ValueError("it has other keys than 'format', 'sha256' and 'header'")
        if content["sha256"] != checksum(content["header"], tensors):
            raise ValueError("its checksum does not match, so the file is damaged")
        return _unpack(content["header"]), tensors
    except (ValueError, RuntimeError) as error:  # RecursionError is a RuntimeError
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else first_line(error)
        raise ValueError(f"{where} cannot be read, its header is not valid: {reason}") from error


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
    """Compute a checksum, which detects damage. It does not prove who wrote the file.

    Parameters
    ----------
    header : object
        Values that JSON can express.
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
    """Flush the entries of a folder to the disk, where the system allows it."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _pack(value: Any, name: str) -> Any:
    """Turn a plain value into one that JSON can express."""
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
    """Invert `_pack`."""
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
            raise ValueError(f"{key[:40]!r} is an unknown key")
    return {key.removeprefix(MARK): _unpack(of) for key, of in value.items()}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a dict of pairs; refuse a key that occurs twice."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"it has {key[:40]!r} twice")
        found[key] = value
    return found


def _no_constant(text: str) -> Any:
    """Refuse NaN and Infinity, which Python accepts although they are not JSON."""
    raise ValueError(f"{text} is not JSON")


def _integer(text: str) -> int:
    """Return the integer in a string; refuse more than 64 bits."""
    if len(text) > 20 or not -(2**63) <= int(text) < 2**63:
        raise ValueError(f"{text[:20]}… does not fit into 64 bits")
    return int(text)


def _finite(text: str) -> float:
    """Return the float in a string; refuse one that overflows."""
    if not math.isfinite(float(text)):
        raise ValueError(f"{text[:40]} is too large for a float")
    return float(text)


def first_line(error: BaseException) -> str:
    r"""Return the first line of an error's message.

    Parameters
    ----------
    error : Exception
        The error.

    Returns
    -------
    str
        The line, at most 300 characters of it; the name of the error's class if the message is empty.

    Examples
    --------
    >>> first_line(ValueError("It is too long.\nSee below."))
    'It is too long.'
    """
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
