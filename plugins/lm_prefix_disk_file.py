"""One kept beginning as a file: tokens, the layout of its cache, the cache's arrays, and a checksum of each.

It is a safetensors file, so `plugins.weights.read_header` bounds what a damaged or foreign header can cost and sees
that nothing is missing. Files are not synchronised: after a power cut one may have its length but not its content,
which the checksums (CRC-32, all bytes of the file) tell. Imports no MLX.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from plugins.model_files import open_regular
from plugins.weights import BITS, Tensor, read_header

#: Written into every file; another one is a stranger's.
FORMAT: Final = "mlxd-prefix-1"

_WORD: Final = 4
#: More than this is no layout of a cache, bytes.
_MOST_LAYOUT: Final = 1 << 20


class Spec(NamedTuple):
    """An array to be written: element type as safetensors names it, and shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Return its size in bytes."""
        elements = 1
        for axis in self.shape:
            elements *= axis
        return (elements * BITS[self.dtype] + 7) // 8


class Plan:
    """What a file will have: its head, and how long it will be."""

    def __init__(self, tokens: bytes, layout: bytes, specs: Sequence[Spec]) -> None:
        self.specs = list(specs)
        self._first = [tokens, layout]
        words = len(specs) + 3
        entries = {
            "tokens": Spec("U32", (len(tokens) // _WORD,)),
            "layout": Spec("U8", (len(layout),)),
            **{str(number): spec for number, spec in enumerate(specs)},
            "check": Spec("U32", (words,)),
        }
        described, at = {}, 0
        for name, spec in entries.items():
            described[name] = {"dtype": spec.dtype, "shape": spec.shape, "data_offsets": (at, at + spec.nbytes)}
            at += spec.nbytes
        text = json.dumps({"__metadata__": {"format": FORMAT}, **described}, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._head = struct.pack("<Q", len(text)) + text
        #: Bytes of the whole file.
        self.size = len(self._head) + at

    def write(self, file: BinaryIO, arrays: Iterable[Iterable[Any]]) -> None:
        """Write everything; *arrays* gives the pieces of each array in the order of the specs.

        Raises:
            ValueError: an array is not as long as was said.

        """
        sums = [zlib.crc32(self._head)]
        file.write(self._head)
        for part in self._first:
            file.write(part)
            sums.append(zlib.crc32(part))
        for spec, pieces in zip(self.specs, arrays, strict=True):
            total, written = 0, 0
            for piece in pieces:
                total = zlib.crc32(piece, total)
                written += file.write(piece)
            if written != spec.nbytes:
                raise ValueError(f"an array has {written} bytes instead of {spec.nbytes}")
            sums.append(total)
        file.write(struct.pack(f"<{len(sums)}I", *sums))


@dataclass(frozen=True, eq=False)
class Stored:
    """A file that was looked at: everything but the arrays, which are checked when they are read."""

    path: Path
    #: As they are compared: a numpy array of uint32.
    tokens: Any
    layout: Any
    tensors: dict[str, Tensor]
    #: Where the tensors begin in the file, bytes.
    start: int
    #: Bytes of the whole file.
    size: int
    sums: tuple[int, ...]

    @property
    def arrays(self) -> int:
        """Return how many arrays it has."""
        return len(self.tensors) - 3

    @property
    def trimmable(self) -> bool:
        """Whether it serves for prompts that part from it before its end."""
        return bool(self.layout["trimmable"])

    def read(self, number: int) -> bytearray:
        """Return the bytes of an array.

        Raises:
            OSError: it is gone or cannot be read.
            ValueError: it is damaged.

        """
        tensor = self.tensors[str(number)]
        with open_regular(self.path) as file:
            file.seek(self.start + tensor.begin)
            return _checked(file, tensor.nbytes, self.sums[number + 3])


def look(path: Path) -> Stored:
    """Return what the file *path* has.

    Raises:
        OSError: it cannot be read.
        ValueError, ModelBroken: it is damaged, or not one of ours.

    """
    import numpy as np

    tensors = read_header(path)
    if [*tensors][:2] != ["tokens", "layout"] or [*tensors][-1] != "check" or tensors["layout"].nbytes > _MOST_LAYOUT:
        raise ValueError("not a kept prefix")
    count = len(tensors) - 3
    if any(str(number) not in tensors for number in range(count)) or tensors["check"].shape != (count + 3,):
        raise ValueError("not a kept prefix")
    with open_regular(path) as file:
        size = file.seek(0, 2)
        start = size - tensors["check"].end
        file.seek(start + tensors["check"].begin)
        sums = struct.unpack(f"<{count + 3}I", file.read(tensors["check"].nbytes))
        file.seek(0)
        head = _checked(file, start, sums[0])
        if json.loads(head[8:]).get("__metadata__") != {"format": FORMAT}:
            raise ValueError("another format")
        tokens = _checked(file, tensors["tokens"].nbytes, sums[1])
        layout = json.loads(_checked(file, tensors["layout"].nbytes, sums[2]))
        if not isinstance(layout, dict) or layout.keys() != {"space", "trimmable", "layers"}:
            raise ValueError("another layout")
    return Stored(path, np.frombuffer(tokens, dtype=np.uint32), layout, tensors, start, size, sums)


def _checked(file: BinaryIO, length: int, expected: int) -> bytearray:
    data = bytearray(length)
    if file.readinto(data) != length or zlib.crc32(data) != expected:  # type: ignore[attr-defined]
        raise ValueError("its checksum is wrong")
    return data
