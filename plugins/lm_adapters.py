"""LoRA adapters of a loaded model: its weights stay where they are, and layers take turns in its tree.

An adapter's layers hold the model's own ones and add to what they say. Of a model whose turn it is without an adapter
the tree is the one that was loaded: it pays nothing for those who use one. To change over, the layers that differ are
put in place of each other, which takes no arithmetic.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple

from plugins.adapter_files import WEIGHTS, AdapterFiles
from plugins.mlx_process import on_cpu

#: The most adapters that are kept loaded.
MOST: Final = 8
#: What mlx-lm's LoRA layers add to a model.
_LEAVES: Final = ("lora_a", "lora_b")


class _Place(NamedTuple):
    """A layer that an adapter changes."""

    path: str
    parent: Any
    name: str
    without: Any
    adapted: Any


class _Loaded(NamedTuple):
    places: Sequence[_Place]
    size: int


class Adapters:
    """The adapters of *model*: at most *most* of them, in *limit* bytes, the least recently used out first."""

    def __init__(self, model: Any, *, limit: int, most: int = MOST) -> None:
        self._model = model
        self._limit = limit
        self._most = most
        self._loaded: dict[str, _Loaded] = {}
        self._active = ""

    @property
    def size(self) -> int:
        """Return the bytes that loaded adapters take."""
        return sum(one.size for one in self._loaded.values())

    def check(self, files: AdapterFiles) -> None:
        """Raise a ``ValueError`` if this adapter could not even be loaded alone."""
        size = _size(files)
        if size > self._limit:
            raise ValueError(
                f"adapter: {files.folder} takes {size:,} bytes, and this model's adapters may take {self._limit:,} "
                "together: fuse it into the model with mlx_lm.fuse and use the fused model"
            )

    def fits(self, files: AdapterFiles, *, used: Collection[str]) -> bool:
        """Whether *files* is loaded, or could be without those that are *used*."""
        if files.key in self._loaded:
            return True
        kept = [one.size for key, one in self._loaded.items() if key in used]
        return len(kept) < self._most and sum(kept) + _size(files) <= self._limit

    def load(self, files: AdapterFiles, *, used: Collection[str]) -> None:
        """Load *files* unless they are loaded, letting go of those that are not *used*, and note that they are used.

        Raises:
            ValueError: they do not fit the model.

        """
        if files.key in self._loaded:
            self._loaded[files.key] = self._loaded.pop(files.key)
            return
        self._make_room(_size(files), used)
        self.use("")
        self._loaded[files.key] = self._read(files)

    def use(self, key: str) -> None:
        """Let the model answer with the adapter *key*; an empty one for none."""
        if key == self._active:
            return
        if self._active:
            for place in self._loaded[self._active].places:
                _put(place.parent, place.name, place.without)
        self._active = ""
        if key:
            for place in self._loaded[key].places:
                _put(place.parent, place.name, place.adapted)
        self._active = key

    def _make_room(self, size: int, used: Collection[str]) -> None:
        for key in [key for key in self._loaded if key not in used]:
            if len(self._loaded) < self._most and self.size + size <= self._limit:
                return
            if key == self._active:
                self.use("")
            del self._loaded[key]

    def _read(self, files: AdapterFiles) -> _Loaded:
        """Let mlx-lm change the model, take its new layers out again, and fill them."""
        from mlx_lm.tuner.utils import linear_to_lora_layers

        before: dict[str, Any] = dict(self._model.named_modules())
        try:
            linear_to_lora_layers(self._model, files.num_layers, dict(files.parameters))
        except (KeyError, ValueError, AttributeError) as error:
            raise ValueError(f"adapter: {files.folder} does not fit this model: {error}") from error
        finally:
            places = _changed(before, dict(self._model.named_modules()))
            for place in places:
                _put(place.parent, place.name, place.without)
        return _Loaded(places, _fill(files, {place.path: place.adapted for place in places}))


def _changed(before: dict[str, Any], after: dict[str, Any]) -> list[_Place]:
    """Return the layers of *before* in whose place another one is."""
    places = []
    for path, module in before.items():
        if path and after.get(path) is not module:
            parent, _, name = path.rpartition(".")
            places.append(_Place(path, _at(before, parent), name, module, after[path]))
    return places


def _at(modules: dict[str, Any], name: str) -> Any:
    """Return the module, or the list of modules, called *name*."""
    if name in modules:
        return modules[name]
    parent, _, last = name.rpartition(".")
    container = _at(modules, parent)
    return container[int(last)] if isinstance(container, list) else getattr(container, last)


def _put(parent: Any, name: str, module: Any) -> None:
    if isinstance(parent, list):
        parent[int(name)] = module
    else:
        setattr(parent, name, module)


def _fill(files: AdapterFiles, layers: dict[str, Any]) -> int:
    """Give *layers* the adapter's weights, every one of them; return their bytes."""
    import mlx.core as mx

    strange = next((name for name, layer in layers.items() if any(leaf not in layer for leaf in _LEAVES)), None)
    if strange is not None:
        raise ValueError(f"adapter: the layer {strange} of this kind of model cannot be changed per request")
    wanted = {f"{name}.{leaf}": tuple(layer[leaf].shape) for name, layer in layers.items() for leaf in _LEAVES}
    given = {name: tensor.shape for name, tensor in files.tensors.items()}
    if wanted != given:
        raise ValueError(f"adapter: {files.folder} does not fit this model: {_difference(wanted, given)}")
    weights: Any = mx.load(str(files.folder / WEIGHTS))
    size = 0
    for name, layer in layers.items():
        for leaf in _LEAVES:
            weight = weights[f"{name}.{leaf}"]
            # As the model's own: on a CPU only float32 is fast (`plugins.precision`).
            layer[leaf] = weight.astype(mx.float32) if on_cpu() else weight
            size += layer[leaf].nbytes
        layer.eval()
    mx.eval([layer[leaf] for layer in layers.values() for leaf in _LEAVES])
    return size


def _difference(wanted: dict[str, Any], given: dict[str, Any]) -> str:
    for name in sorted(wanted.keys() | given.keys()):
        if name not in wanted:
            return f"its {name} belongs to no layer that it says it changes"
        if name not in given:
            return f"its {name} is missing"
        if wanted[name] != given[name]:
            return f"its {name} has the shape {given[name]}, the model needs {wanted[name]}"
    return ""


def _size(files: AdapterFiles) -> int:
    elements = sum(tensor.elements for tensor in files.tensors.values())
    return 4 * elements if on_cpu() else sum(tensor.nbytes for tensor in files.tensors.values())
