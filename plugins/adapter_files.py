"""The files of a LoRA adapter in mlx-lm's format: looked at before anything is loaded. Imports no MLX.

A folder with ``adapter_config.json`` and ``adapters.safetensors``, which may come from a stranger: both are read as a
model's files are, at bounded cost, and nothing else of the folder is opened.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from jobs.errors import ModelBroken
from plugins.model_files import read_json
from plugins.weights import Tensor, read_header

CONFIG: Final = "adapter_config.json"
WEIGHTS: Final = "adapters.safetensors"
#: Largest rank that is believed: LoRA's are between 4 and 256.
_MOST_RANK: Final = 4096
#: What other libraries and older versions call it, and what to do.
_OTHERS: Final = {
    "adapter_model.safetensors": "it is in PEFT's format, which mlx-lm does not read: convert it",
    "adapter_model.bin": "it is a pickle in PEFT's format: convert it to safetensors in mlx-lm's format",
    "adapters.npz": "it is in the format of mlx-lm before 0.14: train or convert it with a newer one",
}


class AdapterFiles(NamedTuple):
    """An adapter that looks sound."""

    folder: Path
    #: Changes when a file of it does.
    key: str
    #: ``num_layers`` and ``lora_parameters`` as mlx-lm takes them.
    num_layers: int
    parameters: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


def check_adapter(folder: Path) -> AdapterFiles:
    """Return what is in *folder*.

    Raises:
        ValueError: it is no adapter that can be used; says which file, why, and what to do.

    """
    if not folder.is_dir():
        raise ValueError(f"adapter: there is no folder {folder}")
    for name, why in _OTHERS.items():
        if (folder / name).exists() and not (folder / WEIGHTS).exists():
            raise _refused(folder, name, why)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise _refused(folder, name, "it is missing; mlx_lm.lora writes both into its --adapter-path")
    config = _config(folder)
    try:
        tensors = read_header(folder / WEIGHTS)
    except ModelBroken as error:
        raise ValueError(f"adapter: {error.message} It is in {folder}.") from error
    parameters = _parameters(folder, config)
    return AdapterFiles(folder, key_of(folder), _layers(folder, config), parameters, tensors)


def _config(folder: Path) -> Mapping[str, Any]:
    try:
        config = read_json(folder / CONFIG)
    except OSError as error:
        raise _refused(folder, CONFIG, f"it cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise _refused(folder, CONFIG, str(error)) from error
    if not isinstance(config, Mapping):
        raise _refused(folder, CONFIG, "it is not a JSON object")
    kind = config.get("fine_tune_type", "lora")
    if kind != "lora":
        raise _refused(
            folder,
            CONFIG,
            f"its fine_tune_type is {kind!r}, and only 'lora' can be changed per request: fuse it into the model with "
            "mlx_lm.fuse and use the fused model",
        )
    return config


def _layers(folder: Path, config: Mapping[str, Any]) -> int:
    layers = config.get("num_layers")
    if type(layers) is not int or not -1 <= layers <= 1 << 20:
        raise _refused(folder, CONFIG, f"num_layers has to be a whole number, not {layers!r:.40}")
    return layers


def _parameters(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    found = config.get("lora_parameters")
    if not isinstance(found, Mapping):
        raise _refused(folder, CONFIG, "it has no lora_parameters; adapters of other libraries have to be converted")
    rank, scale, keys = found.get("rank"), found.get("scale"), found.get("keys")
    if type(rank) is not int or not 1 <= rank <= _MOST_RANK:
        raise _refused(folder, CONFIG, f"the rank has to be a whole number from 1 to {_MOST_RANK}, not {rank!r:.40}")
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not math.isfinite(scale):
        hint = "; mlx-lm wants 'scale' and not 'alpha'" if "alpha" in found else ""
        raise _refused(folder, CONFIG, f"the scale has to be a number, not {scale!r:.40}{hint}")
    if keys is not None and not (isinstance(keys, list) and all(isinstance(key, str) for key in keys)):
        raise _refused(folder, CONFIG, "keys has to be a list of the layers' names")
    # Nothing is dropped while a model answers, whatever it was trained with.
    return {"rank": rank, "scale": scale, "dropout": 0.0, **({} if keys is None else {"keys": keys})}


def key_of(folder: Path) -> str:
    """Return what changes when a file of the adapter in *folder* does; raises ``OSError`` if one is not there."""
    facts = [(folder / name).stat() for name in (CONFIG, WEIGHTS)]
    marks = ":".join(f"{one.st_ino}-{one.st_size}-{one.st_mtime_ns}-{one.st_ctime_ns}" for one in facts)
    return f"{folder.resolve()}:{marks}"


def _refused(folder: Path, name: str, why: str) -> ValueError:
    return ValueError(f"adapter: {name} in {folder} cannot be used: {why}")
