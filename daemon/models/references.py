"""What a model reference means: an alias, ``demo:lm``, a folder, or a Hugging Face id. Finds folders, loads nothing.

The hub's cache is read by its documented layout, so the daemon needs no hub library and no network to answer.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol

from jobs.errors import InvalidParams, ModelMissing
from plugins.model_files import read_json

#: The embedded demo models, by the name after ``demo:``.
DEMO_MODELS: Final = Path(__file__).parents[2] / "plugins" / "demo_models"

#: The option that names a smaller model which is loaded beside a language model.
DRAFT: Final = "draft_model"
_DEMO: Final = "demo:"
HUB_ID: Final = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96})(?:@(?P<revision>[\w./-]{1,128}))?", re.ASCII
)
_DEPTH: Final = 8  # aliases that name aliases that name aliases


class Alias(Protocol):
    """A model as the configuration has it (`daemon.config.model.ModelConfig`)."""

    @property
    def path(self) -> str:
        """A reference."""

    @property
    def runtime(self) -> str | None:
        """The runtime that serves it, None for the one that is asked for."""

    @property
    def pin(self) -> bool:
        """Whether it is kept for ever."""

    @property
    def keep_alive(self) -> float:
        """Seconds; -1 for ever, 0 for not at all."""

    @property
    def options(self) -> Mapping[str, Any]:
        """For the runtime."""


@dataclass(frozen=True, kw_only=True)
class ResolvedModel:
    """A model that can be loaded."""

    #: What the request called it.
    ref: str
    runtime: str
    #: Its folder.
    path: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    pin: bool = False
    #: Seconds it stays after its last use; None: for ever.
    keep_alive_s: float | None = 300.0

    @property
    def folders(self) -> tuple[Path, ...]:
        """Return what is loaded: its folder, and that of its draft model if it has one."""
        draft = self.options.get(DRAFT)
        return (self.path, Path(draft)) if isinstance(draft, str) else (self.path,)

    def drafted_by(self, draft: ResolvedModel) -> ResolvedModel:
        """Return this model with *draft* beside it."""
        return replace(self, options={**self.options, DRAFT: str(draft.path)})

    def covers(self, other: ResolvedModel) -> bool:
        """Whether this is *other*, perhaps with a draft model beside it: who needs none is served as well."""
        options = {key: value for key, value in self.options.items() if key != DRAFT}
        return (self.runtime, self.path, options) == (other.runtime, other.path, dict(other.options))

    @property
    def key(self) -> str:
        """Identify what is loaded: two references to one folder with the same options share one runner."""
        return f"{self.runtime}:{self.path}:{json.dumps(dict(self.options), sort_keys=True, default=str)}"


class ModelResolver:
    """Turns references into folders, following the configuration it was made with.

    *aliases* maps names to models, *defaults* runtimes to references, *keep_alive* is in seconds as the configuration
    has it. *environ* says where the hub's cache is.
    """

    def __init__(
        self,
        *,
        aliases: Mapping[str, Alias] | None = None,
        defaults: Mapping[str, str] | None = None,
        keep_alive: float = 300.0,
        environ: Mapping[str, str] = os.environ,
        demo_models: Path = DEMO_MODELS,
    ) -> None:
        self._aliases = aliases or {}
        self._defaults = defaults or {}
        self._keep_alive = keep_alive
        self._hub = hub_cache(environ)
        self._demo_models = demo_models

    def __call__(self, ref: str | None, runtime: str) -> ResolvedModel:
        """Return what *ref* (None: the default of *runtime*) stands for; an empty *runtime* is guessed.

        Raises:
            ModelMissing: it is not on this machine; the message names the command that fetches it.
            InvalidParams: it is no reference at all, or there is no default.

        """
        asked = ref if ref is not None else self._default(runtime)
        found, alias = asked, None
        for _ in range(_DEPTH):
            if found not in self._aliases:
                break
            following = self._aliases[found]
            alias = alias or following  # what the outermost name says counts
            if following.path == found:
                break  # an alias may carry the name of the very model it configures
            found = following.path
        folder = self._folder(found)
        return ResolvedModel(
            ref=asked,
            runtime=(alias and alias.runtime) or runtime or guess_runtime(folder),
            path=folder,
            options=self._options(alias) if alias else {},
            pin=bool(alias and alias.pin),
            keep_alive_s=_stay(alias.keep_alive if alias else self._keep_alive),
        )

    def _options(self, alias: Alias) -> dict[str, Any]:
        """Return the options of *alias*; a draft model is a reference there, and a folder for the runtime."""
        options = dict(alias.options)
        if isinstance(draft := options.get(DRAFT), str):
            options[DRAFT] = str(self(draft, "lm").path)
        return options

    def _default(self, runtime: str) -> str:
        if runtime not in self._defaults:
            raise InvalidParams(f"No model was named, and the runtime {runtime!r} has no default in the configuration.")
        return self._defaults[runtime]

    def _folder(self, ref: str) -> Path:
        if ref.startswith(_DEMO):
            return self._demo(ref.removeprefix(_DEMO))
        if ref.startswith(("/", "~")):
            return _local(ref)
        if match := HUB_ID.fullmatch(ref):
            return find_in_hub(self._hub, match["repo"], match["revision"] or "main")
        raise InvalidParams(
            f"{ref!r} is no model: give an alias from the configuration, demo:lm, an absolute path, or org/name."
        )

    def _demo(self, name: str) -> Path:
        folder = self._demo_models / name
        if not re.fullmatch(r"[a-z]+", name) or not (folder / "config.json").is_file():
            known = sorted(one.name for one in self._demo_models.glob("[a-z]*") if (one / "config.json").is_file())
            raise ModelMissing(f"There is no demo model {name!r}; there are: {', '.join(known) or 'none'}.")
        return folder


def guess_runtime(folder: Path) -> str:
    """Return the built-in runtime that a model folder looks made for."""
    try:
        config = read_json(folder / "config.json")
        return "whisper" if "n_audio_state" in config or config.get("model_type") == "whisper" else "lm"
    except (OSError, ValueError, TypeError, AttributeError):
        return "lm"  # loading it tells what is wrong


def hub_cache(environ: Mapping[str, str]) -> Path:
    """Return where the hub's libraries keep models, by their own rules."""
    if exact := environ.get("HF_HUB_CACHE"):
        return Path(exact).expanduser()
    if home := environ.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    if cache := environ.get("XDG_CACHE_HOME"):
        return Path(cache).expanduser() / "huggingface" / "hub"
    return Path(environ.get("HOME") or "~").expanduser() / ".cache" / "huggingface" / "hub"


def find_in_hub(cache: Path, repo: str, revision: str) -> Path:
    """Return the snapshot folder of *repo* at *revision* (branch, tag or commit) in *cache*.

    Raises:
        ModelMissing: it is not there, or only parts of it are.

    """
    at = "" if revision == "main" else f"@{revision}"
    fetch = f"Fetch it with `mlxd models pull {repo}{at}`."
    if ".." in (*repo.split("/"), *revision.split("/")):
        raise ModelMissing(f"{repo}{at} is no model.")
    home = cache / f"models--{repo.replace('/', '--')}"
    reference = home / "refs" / revision
    commit = reference.read_text().strip() if reference.is_file() else revision
    folder = home / "snapshots" / commit
    if not commit or not folder.is_dir():
        raise ModelMissing(f"The model {repo}{at} is not on this machine. {fetch}", model=f"{repo}{at}")
    if gaps := _gaps(folder):
        raise ModelMissing(
            f"The model {repo}{at} is here only in part ({gaps} is missing). {fetch}", model=f"{repo}{at}"
        )
    return folder


def _gaps(folder: Path) -> str | None:
    """Return the name of a file that an interrupted download left out, if that shows."""
    if not (folder / "config.json").is_file():
        return "config.json"
    index = folder / "model.safetensors.index.json"
    try:
        named = read_json(index)["weight_map"].values() if index.is_file() else ()
        return next((name for name in sorted(set(named)) if not (folder / name).is_file()), None)
    except (ValueError, KeyError, AttributeError, TypeError):
        return index.name


def _local(ref: str) -> Path:
    folder = Path(ref).expanduser()
    if not folder.is_dir():
        raise ModelMissing(f"There is no model folder at {folder}.", path=str(folder))
    return folder.resolve()


def _stay(keep_alive: float) -> float | None:
    return None if keep_alive < 0 else keep_alive
