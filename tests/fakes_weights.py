"""Writes safetensors files for tests, honest and lying ones."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from plugins.weights import BITS


def write_safetensors(path: Path, tensors, *, header=None, raw=None, tail: bytes = b"") -> Path:
    """Write *tensors* (name -> (dtype, shape)) filled with zeros; *header* changes entries, *raw* replaces it all."""
    entries, at = {"__metadata__": {"format": "mlx"}}, 0
    for name, (dtype, shape) in tensors.items():
        count = 1
        for side in shape:
            count *= side
        size = count * BITS[dtype] // 8
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    entries.update(header or {})
    text = raw if raw is not None else json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(at) + tail)
    return path
