"""Whether a model folder may be loaded at all: weights as safetensors only, nothing that is code, no lying header.

A model comes from a stranger. What is refused here could run that stranger's code (pickles, Python files, classes named
by ``auto_map`` or ``model_file``) or crash the reader. The check looks at the folder before a runner is started.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from jobs.errors import ModelBroken, ModelMissing
from plugins.model_files import read_json
from plugins.weights import read_header

#: File suffixes that are refused, and what they are.
REFUSED: Final = {
    ".py": "Python code",
    ".pyc": "Python code",
    ".so": "machine code",
    ".dylib": "machine code",
    ".bin": "a pickle",
    ".pt": "a pickle",
    ".pth": "a pickle",
    ".pkl": "a pickle",
    ".pickle": "a pickle",
    ".ckpt": "a pickle",
    ".npz": "weights that are not safetensors",
    ".npy": "weights that are not safetensors",
    ".gguf": "weights that are not safetensors",
    ".h5": "weights that are not safetensors",
}

# Keys that make a library import code from the folder, in any of its JSON files that are read while loading.
_CODE_KEYS: Final = ("auto_map", "model_file")
_CONFIGS: Final = ("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json")

#: More files than this is no model's folder.
MAX_FILES: Final = 10_000


def check_model_folder(folder: Path) -> None:
    """Check *folder* as a whole.

    Raises:
        ModelMissing: there is no such folder.
        ModelBroken: it must not or cannot be loaded; the message names the file and the reason.

    """
    if not folder.is_dir():
        raise ModelMissing(f"There is no model folder at {folder}.", path=str(folder))
    _check_configs(folder)
    weights = []
    for path in _files(folder):
        if what := REFUSED.get(path.suffix.lower()):
            raise _refused(folder, path, f"it is {what}, and only safetensors models without code are loaded")
        if _special(path):
            raise _refused(folder, path, "it is not a regular file")
        if path.suffix.lower() == ".safetensors":
            weights.append(path)
    if not weights:
        raise ModelBroken(f"{folder} has no safetensors weights.", path=str(folder))
    for path in weights:
        read_header(path)


def _check_configs(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise ModelBroken(f"{folder} has no config.json: it is not a model folder.", path=str(folder))
    for name in _CONFIGS:
        path = folder / name
        if path.is_file():
            _check_config(folder, path)


def _check_config(folder: Path, path: Path) -> None:
    try:
        config = read_json(path)
    except OSError as error:
        raise _refused(folder, path, f"it cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise _refused(folder, path, str(error)) from error
    if not isinstance(config, dict):
        raise _refused(folder, path, "it is not a JSON object")
    if key := next((key for key in _CODE_KEYS if _has(config, key)), None):
        raise _refused(folder, path, f"its key {key!r} asks for the model's own code to be run")


def _has(config: dict[str, Any], key: str) -> bool:
    """Look one level down as well: multimodal models keep a configuration for each part."""
    return key in config or any(isinstance(part, dict) and key in part for part in config.values())


def _files(folder: Path) -> Iterator[Path]:
    """Yield every file under *folder*; links to folders are not followed."""
    count = 0
    for root, _, names in os.walk(folder):
        for name in names:
            count += 1
            if count > MAX_FILES:
                raise ModelBroken(f"{folder} has more than {MAX_FILES:,} files: it is not a model folder.")
            yield Path(root, name)


def _special(path: Path) -> bool:
    """Tell whether *path* leads to a pipe, a socket or a device, which nobody should open."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False  # a link to nowhere: what needs it says so


def _refused(folder: Path, path: Path, why: str) -> ModelBroken:
    shown = path.relative_to(folder)
    return ModelBroken(f"{shown} in {folder} cannot be accepted: {why}.", file=str(path))
