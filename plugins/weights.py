"""Reads safetensors headers, and believes none of what they say without checking it. Imports no MLX.

The format (https://huggingface.co/docs/safetensors): eight bytes little-endian header length, a JSON object that gives
each tensor ``dtype``, ``shape`` and ``data_offsets`` into what follows, then the tensors without gaps or overlaps.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

from jobs.errors import ModelBroken
from plugins.model_files import open_regular

#: Longest header, bytes; a tensor takes about a hundred. The format allows 100 MB, which Python makes gigabytes of.
MAX_HEADER: Final = 16 * 1024 * 1024
#: Most commas in it; a tensor needs five. Bounds what reading takes to a hundred megabytes.
MAX_COMMAS: Final = 1_000_000

_LENGTH_BYTES: Final = 8
#: More than any reader takes; multiplying what a header could hold otherwise would take hours.
_MOST_AXES: Final = 64
_LARGEST: Final = (1 << 63) - 1

#: Bits of each element type of the format.
BITS: Final = (
    dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8)
    | dict.fromkeys(("U16", "I16", "F16", "BF16"), 16)
    | dict.fromkeys(("U32", "I32", "F32"), 32)
    | dict.fromkeys(("U64", "I64", "F64", "C64"), 64)
    | {"F4": 4}
)

#: Element types that a cast to another float type changes.
FLOATS: Final = frozenset({"F16", "BF16", "F32", "F64"})


class Tensor(NamedTuple):
    """One tensor as the header has it."""

    dtype: str
    shape: tuple[int, ...]
    #: Bytes from the end of the header.
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        """Return its size in bytes."""
        return self.end - self.begin

    @property
    def elements(self) -> int:
        """Return how many numbers it has."""
        return math.prod(self.shape)


def read_header(path: Path) -> dict[str, Tensor]:
    """Return the tensors of the safetensors file *path* by name.

    Raises:
        ModelBroken: it cannot be read, is cut short, or its header lies.

    """
    try:
        with open_regular(path) as file:
            size = file.seek(0, 2)
            file.seek(0)
            length = _header_length(path, file.read(_LENGTH_BYTES), size)
            tensors = _tensors(path, file.read(length))
    except OSError as error:
        raise ModelBroken(f"{path.name} cannot be read: {error.strerror or error}.", file=str(path)) from error
    except ValueError as error:
        raise _broken(path, str(error)) from error
    _check_layout(path, tensors, size - _LENGTH_BYTES - length)
    return tensors


def read_headers(paths: Iterable[Path]) -> dict[str, Tensor]:
    """Return the tensors of all *paths*; raises as `read_header` does."""
    return {name: tensor for path in paths for name, tensor in read_header(path).items()}


def _header_length(path: Path, start: bytes, size: int) -> int:
    if len(start) < _LENGTH_BYTES:
        raise _broken(path, f"it has {size} bytes and cannot be a safetensors file")
    (length,) = struct.unpack("<Q", start)
    if length > MAX_HEADER:
        raise _broken(path, f"its header claims {length:,} bytes; the limit is {MAX_HEADER:,}")
    if length > size - _LENGTH_BYTES:
        raise _broken(
            path, f"its header claims {length:,} bytes, but the file has {size:,}: cut short or not safetensors"
        )
    return int(length)


def _tensors(path: Path, raw: bytes) -> dict[str, Tensor]:
    if raw.count(b",") > MAX_COMMAS:
        raise _broken(path, "its header describes more tensors than a model has")
    try:
        header = json.loads(raw, object_pairs_hook=_no_twins)
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"its header is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise _broken(path, "its header is not a JSON object")
    header.pop("__metadata__", None)
    return {name: _tensor(path, name, entry) for name, entry in header.items()}


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a name that is given twice: two readers could see two different models."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is given twice")
    return found


def _tensor(path: Path, name: str, entry: Any) -> Tensor:
    shown = name[:80]
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise _broken(path, f"the tensor {shown!r} is not described as the format wants it") from error
    if not isinstance(dtype, str) or dtype not in BITS:
        raise _broken(path, f"the tensor {shown!r} has the unknown type {dtype!r:.40}")
    numbers = (*shape, begin, end)
    if len(shape) > _MOST_AXES or not all(type(one) is int and 0 <= one <= _LARGEST for one in numbers) or begin > end:
        raise _broken(path, f"the tensor {shown!r} has impossible numbers")
    tensor = Tensor(dtype, shape, begin, end)
    needed = (tensor.elements * BITS[dtype] + 7) // 8
    if needed != tensor.nbytes:
        raise _broken(path, f"the tensor {shown!r} needs {needed:,} bytes, not {tensor.nbytes:,}")
    return tensor


def _check_layout(path: Path, tensors: dict[str, Tensor], room: int) -> None:
    """See that the tensors fill the file without gaps and overlaps: nothing hides, nothing is missing."""
    at = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != at:
            raise _broken(path, f"the tensor {name[:80]!r} begins at {tensor.begin:,}, not at {at:,}")
        at = tensor.end
    if at != room:
        raise _broken(path, f"its tensors take {at:,} bytes, but the file has {room:,} for them: cut short or padded")


def _broken(path: Path, why: str) -> ModelBroken:
    return ModelBroken(f"{path.name} is damaged: {why}.", file=str(path))
