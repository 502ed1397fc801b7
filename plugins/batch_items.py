"""Which items a batch is about: those of its folder or file, or of these the ones that an earlier batch did not do."""

from __future__ import annotations

import json
from pathlib import Path

from jobs.errors import InvalidInput
from plugins.batch_params import Params
from plugins.inputs import read_text
from plugins.items import Item, from_folder, read_items_file


def chosen_items(params: Params, *, follow: bool, below: Path | None = None) -> list[Item]:
    """Return the items that *params* mean. With *follow* false the file must not be a link, nor a folder below *below*.

    Raises:
        InvalidInput: folder, file or manifest cannot be used, or nothing is left of them.
        InvalidParams: a CSV file without a fitting template.

    """
    items = _all_items(params, follow=follow, below=below)
    if params.only_failed is None:
        return items
    wanted = unfinished_in(params.only_failed, limit=params.max_items_bytes)
    chosen = [item for item in items if (item.key, item.id) in wanted]
    if not chosen:
        raise InvalidInput(f"Nothing of {params.only_failed} failed that is still here.", file=str(params.only_failed))
    return chosen


def unfinished_in(manifest_file: Path, *, limit: int) -> set[tuple[str, str]]:
    """Return key and id of each item that failed or was left, as the manifest of an earlier batch says.

    Raises:
        InvalidInput: it cannot be read or is no manifest.

    """
    try:
        entries = json.loads(read_text(manifest_file, limit=limit))["items"]
        told = {(str(one.get("line", one["id"])), str(one["id"])): one["status"] for one in entries}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(f"{manifest_file} is no manifest of a batch.", file=str(manifest_file)) from error
    return {key for key, status in told.items() if status in ("failed", "left")}


def _all_items(params: Params, *, follow: bool, below: Path | None) -> list[Item]:
    if params.folder is not None:
        return from_folder(params.folder, globs=params.globs, recursive=params.recursive, may_be_empty=params.only_new)
    file: Path = params.file  # type: ignore[assignment] # the validator saw to it
    return read_items_file(file, template=params.template, limit=params.max_items_bytes, follow=follow, below=below)
