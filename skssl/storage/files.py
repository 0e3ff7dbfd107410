"""Read and write safetensors files with a header of plain values; atomic writes.

The header is JSON among the metadata of the safetensors file. Reading a file runs no code from it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import reprlib
import secrets
import stat
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Self

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

FORMAT = 1  # version of the header; a newer one is refused
LARGEST_HEADER = 2**23  # bytes; ten thousand epochs of history take half of it
MOST_TENSORS = 2**14
MOST_AXES = 64  # of a tensor, as in torch
MARK = "!"  # begins the key of a value that JSON cannot express
DTYPES = {  # by the names in safetensors' format
    **{f"F{bits}": getattr(torch, f"float{bits}") for bits in (16, 32, 64)},
    **{f"I{bits}": getattr(torch, f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"U{bits}": getattr(torch, f"uint{bits}") for bits in (8, 16, 32, 64)},
    **{"BF16": torch.bfloat16, "BOOL": torch.bool, "C64": torch.complex64},
    **{"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2},
}

PICKLES = b"PK\x03\x04", b"\x80"  # the first bytes of the files of torch.save

_Place = tuple[int, tuple[int, ...], torch.dtype]  # the first byte in the file, the shape and the dtype of a tensor


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
    with SavedFile(path) as file:
        return file.header, file.read()


class DamagedFileError(ValueError):
    """The error for a file that `write` has not written in this form."""


class ForeignFileError(DamagedFileError):
    """The error for trained weights of another library."""


class _ForeignError(ValueError):
    """Raised within `SavedFile` for trained weights of another library."""


class SavedFile:
    """A file that `write` has written, open for reading. The file need not be trusted.

    No code from the file runs. The header is read first, and the shapes of the tensors are checked against the size of
    the file, so that a caller can refuse a file before its tensors take memory. They take as much memory as the file
    has bytes. The file is not mapped into memory: if another process truncates it, an error is raised, while reading
    mapped pages would end the process.

    Parameters
    ----------
    path : str or path-like
        The file.

    Attributes
    ----------
    header : dict of str to object
        The plain values.
    shapes : dict of str to Tensor
        The tensors by name, on the meta device: with a shape and a dtype, and without values.

    Raises
    ------
    OSError
        If the file does not exist or cannot be read.
    ValueError
        If the file is damaged, was not written by skssl, or was written by a newer skssl.

    Examples
    --------
    >>> import tempfile, torch
    >>> from skssl.storage.files import SavedFile, write
    >>> path = tempfile.mkdtemp() + "/some.safetensors"
    >>> write(path, {"epochs": 3}, {"weight": torch.ones(2)})
    >>> with SavedFile(path) as file:
    ...     file.header, file.shapes["weight"].shape, file.read()
    ({'epochs': 3}, torch.Size([2]), {'weight': tensor([1., 1.])})
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._where = repr(os.fspath(path))
        self._file = _open(path)
        try:
            self._places, content = self._read_header()
            self._packed, self._checksum = content["header"], content["sha256"]
            self.header = _unpack(self._packed)
            self.shapes = {
                name: torch.empty(shape, dtype=dtype, device="meta") for name, (_, shape, dtype) in self._places.items()
            }
        except (ValueError, RuntimeError) as error:  # RecursionError is a RuntimeError, as is an overflow in torch
            self._file.close()
            raise self._refusal(error) from error
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        """Close the file."""
        self._file.close()

    def read(self, known: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Read the tensors, and compare them and the header with the checksum.

        Parameters
        ----------
        known : mapping of str to Tensor, optional
            Tensors that `read_tensor` has returned. They are not read again.

        Returns
        -------
        dict of str to Tensor
            The tensors, contiguous, on the CPU.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If the file is damaged.
        """
        known = known or {}
        tensors = {name: known[name] if name in known else self.read_tensor(name) for name in self._places}
        if self._checksum != checksum(self._packed, tensors):
            raise self._refusal(ValueError("its checksum does not match"))
        return tensors

    def read_tensor(self, name: str) -> Tensor:
        """Read a tensor, whose values are not compared with the checksum.

        Parameters
        ----------
        name : str
            Its name.

        Returns
        -------
        Tensor
            The tensor, contiguous, on the CPU.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If the file has been truncated.
        """
        place, shape, dtype = self._places[name]
        tensor = torch.empty(shape, dtype=dtype)
        if tensor.numel():
            self._file.seek(place)
            memory = tensor.reshape(-1).view(torch.uint8).numpy()
            if self._file.readinto(memory.data) < memory.size:
                raise self._refusal(ValueError("it was truncated while it was read"))
        return tensor

    def _read_header(self) -> tuple[dict[str, _Place], dict[str, Any]]:
        """Read the header; return the places of the tensors, and what `write` put among the metadata."""
        size = os.fstat(self._file.fileno()).st_size
        start = self._file.read(8)
        length = int.from_bytes(start, "little")
        if length > LARGEST_HEADER:
            if start.startswith(PICKLES):
                raise _ForeignError("it is a file of torch.save, or another archive or pickle")
            raise ValueError(f"its header would have {length} bytes, of at most {LARGEST_HEADER}")
        if length > size - 8:
            raise ValueError(f"its header would have {length} bytes, but the file has {size}")
        outer = _from_json(self._file.read(length).decode())
        metadata = outer.pop("__metadata__", None)
        text = metadata.get("skssl") if isinstance(metadata, dict) else None
        if not isinstance(text, str):
            raise _ForeignError("its metadata lack 'skssl'")
        places = _places(outer, 8 + length, size)
        content = _from_json(text)
        if type(content.get("format")) is not int or content["format"] < 1:
            raise ValueError("it lacks the number of its format")
        if content["format"] > FORMAT:
            raise ValueError(f"its format {content['format']} is that of a newer skssl; this one reads up to {FORMAT}")
        if content.keys() != {"format", "sha256", "header"} or not isinstance(content["header"], dict):
            raise ValueError("it has other keys than 'format', 'sha256' and 'header'")
        return places, content

    def _refusal(self, error: Exception) -> DamagedFileError:
        """Return the error for a file that cannot be read."""
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else first_line(error)
        kind = ForeignFileError if isinstance(error, _ForeignError) else DamagedFileError
        return kind(f"{self._where} cannot be read, it is damaged or not a file of skssl: {reason}.")


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


def take(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Remove the tensors whose names begin with a prefix, and return them, so that no other reference keeps them.

    Parameters
    ----------
    tensors : dict of str to Tensor
        Tensors by name, which is changed.
    prefix : str
        The prefix.

    Returns
    -------
    dict of str to Tensor
        The removed tensors by the rest of their names.

    Examples
    --------
    >>> import torch
    >>> from skssl.storage.files import take
    >>> tensors = {"net.weight": torch.ones(2), "seed": torch.zeros(1)}
    >>> take(tensors, "net."), tensors
    ({'weight': tensor([1., 1.])}, {'seed': tensor([0.])})
    """
    found = part(tensors, prefix)
    for name in found:
        del tensors[prefix + name]
    return found


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
        if tensor.numel():  # NumPy's empty arrays have a stride that `view` refuses
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


def _open(path: str | os.PathLike[str]) -> io.BufferedReader:
    """Open a regular file for reading; refuse folders, and pipes, which would block."""
    with contextlib.suppress(IsADirectoryError):
        file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))  # noqa: SIM115
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file
        file.close()
    raise ValueError(f"{os.fspath(path)!r} cannot be read: it is not a regular file.")


def _places(entries: dict[str, Any], start: int, size: int) -> dict[str, _Place]:
    """Return the place in the file, the shape and the dtype of each tensor; refuse any that do not fill the file."""
    if len(entries) > MOST_TENSORS:
        raise ValueError(f"it has {len(entries)} tensors, of at most {MOST_TENSORS}")
    found: dict[str, _Place] = {}
    spans = []
    for name, entry in entries.items():
        match entry:
            case {"dtype": str(kind), "shape": list(shape), "data_offsets": [int(begin), int(end)], **rest} if (
                not rest
                and kind in DTYPES
                and len(shape) <= MOST_AXES
                and all(type(of) is int and of >= 0 for of in shape)
            ):
                n_bytes = math.prod(shape) * DTYPES[kind].itemsize
            case _:
                raise ValueError(f"the tensor {name[:80]!r} is described by {reprlib.repr(entry)}")
        if end - begin != n_bytes:
            raise ValueError(f"the tensor {name[:80]!r} takes {n_bytes} bytes, but its place has {end - begin}")
        found[name] = start + begin, tuple(shape), DTYPES[kind]
        spans.append((begin, end))
    end_of_last = 0
    for begin, end in sorted(spans):
        if begin != end_of_last:
            raise ValueError(
                f"a tensor begins at byte {begin} of the data, but the one before it ends at {end_of_last}"
            )
        end_of_last = end
    if start + end_of_last != size:
        raise ValueError(f"its tensors end at byte {start + end_of_last}, but the file has {size} bytes")
    return found


def _from_json(text: str) -> dict[str, Any]:
    """Return the dict that JSON describes; refuse equal keys and numbers that do not fit into 64 bits."""
    found = json.loads(
        text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_integer, parse_float=_finite
    )
    if not isinstance(found, dict):
        raise ValueError("its header is not a dict")
    return found


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
