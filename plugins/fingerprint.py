"""What a model's folder holds, as a hash: two that differ in weights, quantisation, tokenizer or template differ in it.

Small files count with all they say; weights with their headers, samples of their content, and the time of their last
change: reading gigabytes would take longer than what the hash is for. Imports no MLX.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from plugins.model_files import MAX_CONFIG, open_regular
from plugins.weights import MAX_HEADER

#: Files that decide what a model computes of a text.
_DECISIVE: Final = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.tiktoken", "*.txt")
#: Places in the weights that are looked at, and the bytes of each.
_SAMPLES: Final = 16
_SAMPLE: Final = 4096


def fingerprint(model: Path, more: Mapping[str, Any]) -> str:
    """Return a hash, 32 hexadecimal digits, of the folder *model* and of *more*, which JSON must be able to say.

    Raises:
        OSError: a file cannot be read.
        ValueError: one is no regular file.

    """
    digest = hashlib.sha256(json.dumps(more, sort_keys=True, default=str).encode())
    for path in sorted({path for pattern in _DECISIVE for path in model.glob(pattern)}):
        with open_regular(path) as file:
            size = file.seek(0, 2)
            digest.update(f"\0{path.name}\0{size}\0".encode())
            if path.suffix == ".safetensors":
                digest.update(str(path.stat().st_mtime_ns).encode())
                for start, length in _places(file, size):
                    file.seek(start)
                    digest.update(file.read(length))
            else:
                file.seek(0)
                digest.update(file.read(MAX_CONFIG * 4))
    return digest.hexdigest()[:32]


def _places(file: Any, size: int) -> list[tuple[int, int]]:
    """Return where the header is and where the samples are, as starts and lengths in bytes."""
    file.seek(0)
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0  # noqa: PLR2004 - the header's length takes eight
    header = min(length, MAX_HEADER, size) + 8
    return [
        (0, header),
        *((header + number * max(0, size - header) // _SAMPLES, _SAMPLE) for number in range(_SAMPLES)),
    ]
