"""What made a file: the sidecar ``NAME.mlxd.json`` beside an output, as a value. Reads and renders, decides nothing.

A job with many outputs (a batch) has one sidecar, beside the output it wrote last, that names all of them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import AwareDatetime, Field, ValidationError

from jobs.errors import InvalidInput
from jobs.model import Frozen, Job, OutputFile, Placement

#: Ends the name of every sidecar.
SUFFIX: Final = ".mlxd.json"
#: A job with more outputs than this has one sidecar for all of them.
MOST_SIDECARS: Final = 16
#: Parameters of more bytes stay in the ledger: `mlxd rerun` fetches them from there.
MOST_PARAMS: Final = 256_000
#: No sidecar is larger: 100,000 outputs take about 20 MB.
_LARGEST: Final = 64_000_000
#: Folders above a file in which a sidecar that names it is looked for (a batch's items lie one or more below).
_LEVELS: Final = 4
#: Parameters whose text is also kept as a hash, to compare without reading it.
_TEXTS: Final = ("prompt", "messages", "system", "template", "instruction", "initial_prompt", "steps")


class MadeFile(Frozen):
    """One output."""

    #: Relative to the folder of the sidecar; absolute if it lies elsewhere.
    name: str
    #: Bytes.
    size: int
    sha256: str


class InputFile(Frozen):
    """What the job read."""

    #: Absolute, where it was.
    path: str
    #: Bytes; None for a folder.
    size: int | None = None
    sha256: str | None = None


class UsedModel(Frozen):
    """A model the job used."""

    #: What the job called it; None: the default of the runtime.
    ref: str | None = None
    #: What that meant: an alias, ``demo:lm``, a path or a hub id.
    name: str
    runtime: str
    #: The folder it was loaded from.
    path: str
    #: The hub's commit, or ``sha256:...`` over configuration, sizes and headers of the weights.
    revision: str
    #: As in its ``config.json``: bits, group size; None: not quantised.
    quantization: dict[str, Any] | None = None
    #: What the runtime was given, and what it said when it had loaded.
    options: dict[str, Any] = Field(default_factory=dict)
    info: dict[str, Any] = Field(default_factory=dict)
    #: Time of the last change of its files, nanoseconds: what the hash of a header does not see.
    stamp: int = 0


class Provenance(Frozen):
    """Everything a sidecar says."""

    #: Version of this format.
    mlxd_provenance: int = 1
    job: str
    task: str
    #: Parameters that were asked for; None: too long, the ledger has them.
    params: dict[str, Any] | None = None
    #: What the configuration said of this task where the job said nothing.
    defaults: dict[str, Any] = Field(default_factory=dict)
    #: Parameter -> SHA-256 of its text.
    hashes: dict[str, str] = Field(default_factory=dict)
    placement: Placement = Placement()
    input: InputFile | None = None
    models: tuple[UsedModel, ...] = ()
    #: Distribution -> version, those that are installed.
    versions: dict[str, str] = Field(default_factory=dict)
    seed: int | None = None
    #: Tokens, or seconds of audio, as the task reported them.
    usage: dict[str, float] = Field(default_factory=dict)
    submitted: AwareDatetime
    started: AwareDatetime | None = None
    #: When the result was there.
    done: AwareDatetime
    #: The job whose recorded result this is, if it was not made anew.
    reused_from: str | None = None
    outputs: tuple[MadeFile, ...]


def text_hashes(params: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of the prompts and templates in *params*."""
    return {name: _hash(params[name]) for name in _TEXTS if params.get(name) not in (None, [], {})}


def usage(result: Mapping[str, Any]) -> dict[str, float]:
    """Return how much the job read, wrote and heard, as its *result* says."""
    names = {"prompt_tokens": "prompt_tokens", "completion_tokens": "completion_tokens", "duration": "audio_seconds"}
    return {
        said: result[name]
        for name, said in names.items()
        if isinstance(result.get(name), (int, float)) and not isinstance(result.get(name), bool)
    }


def kept_params(params: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return *params* if they are short enough for a sidecar."""
    return dict(params) if len(json.dumps(params, default=str)) <= MOST_PARAMS else None


def sidecars(made: Provenance, outputs: Sequence[OutputFile]) -> Iterable[tuple[OutputFile, str]]:
    """Yield each output that gets a sidecar, with the sidecar's content."""
    chosen = outputs if len(outputs) <= MOST_SIDECARS else outputs[-1:]
    for beside in chosen:
        told = [beside, *(one for one in outputs if one.path != beside.path)]
        files = tuple(
            MadeFile(name=_relative(one.path, beside.path.parent), size=one.size, sha256=one.sha256) for one in told
        )
        content = made.model_copy(update={"outputs": files}).model_dump(mode="json", exclude_none=True)
        yield beside, json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def sidecar_of(output: Path) -> Path:
    """Return where the sidecar of *output* lies, if it has one of its own."""
    return output.with_name(output.name + SUFFIX)


def is_sidecar(path: Path) -> bool:
    """Tell whether *path* is the name of a sidecar."""
    return path.name.lower().endswith(SUFFIX)


def read(path: Path) -> Provenance:
    """Return what the sidecar *path* says.

    Raises:
        InvalidInput: it is missing, cannot be read or is none of ours.

    """
    try:
        if path.stat().st_size > _LARGEST:
            raise InvalidInput(f"{path} is too large for a provenance file.", file=str(path))
        return Provenance.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}.", file=str(path)) from error
    except ValidationError as error:
        wrong = f"{path} is no provenance file of this version of mlxd ({error.error_count()} problems)."
        raise InvalidInput(wrong, file=str(path)) from error


def find(file: Path) -> tuple[Path, Provenance, MadeFile]:
    """Return the sidecar that tells of *file*, what it says, and its entry for *file*.

    It lies beside the file under its name, or beside or above it and names the file among others.

    Raises:
        InvalidInput: there is none.

    """
    file = Path(os.path.abspath(file))  # noqa: PTH100 - a link's own sidecar, not its target's
    if is_sidecar(file):
        file = file.with_name(file.name[: -len(SUFFIX)])
    own = sidecar_of(file)
    candidates = [own] if own.is_file() else _near(file)
    for path in candidates:
        try:
            made = read(path)
        except InvalidInput:
            if path == own:
                raise
            continue  # somebody's broken file; another one may tell
        for entry in made.outputs:
            if os.path.normpath(path.parent / entry.name) == str(file):
                return path, made, entry
        if path == own and made.outputs:  # both were moved together or renamed together
            return path, made, made.outputs[0]
    raise InvalidInput(
        f"Nothing says what made {file}: there is no {own.name} beside it, and none above it that names it. "
        "They are written where outputs lie in watched folders or in a folder named with --output.",
        file=str(file),
    )


def is_own_output(path: Path) -> bool:
    """Tell whether a sidecar beside *path* says that mlxd wrote a file of this name: it may come from another Mac."""
    sidecar = sidecar_of(path)
    try:
        if not sidecar.is_file():
            return False
        return any(entry.name == path.name for entry in read(sidecar).outputs)
    except (OSError, InvalidInput):
        return False


def made_by(job: Job, **facts: Any) -> Provenance:
    """Return the provenance of *job*'s outputs (which are still to be told) from what it says itself and *facts*."""
    return Provenance(
        job=job.id,
        task=job.task,
        placement=job.placement,
        submitted=job.created_at,
        started=job.started_at,
        outputs=(),
        **facts,
    )


def _near(file: Path) -> Iterable[Path]:
    for folder in list(file.parents)[:_LEVELS]:
        try:
            found = sorted(path for path in folder.glob(f"*{SUFFIX}") if path.is_file())
        except OSError:
            continue
        # One that is beside a single other file tells of that file's job, which may have written this one too.
        yield from found


def _relative(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)


def _hash(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()
