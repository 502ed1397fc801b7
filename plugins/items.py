"""Reads what a batch works on: a folder of prompts, a JSONL file, a CSV file. A bad item spoils only itself."""

from __future__ import annotations

import csv
import fnmatch
import io
import json
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from jobs.errors import InvalidInput, InvalidParams
from plugins import openai_batch
from plugins.inputs import read_text

#: Most items in one batch: each is an output file, a manifest entry and a part of the checkpoint.
MOST_ITEMS: Final = 100_000
#: Never taken as prompts from a folder: what a batch itself, or mlxd, writes beside them.
OWN_FILES: Final = (
    "*.out.txt",
    "*.out.json",
    "*.out ([0-9]*).txt",
    "*.out ([0-9]*).json",
    "*.out.parts.json",
    "*.out.parts ([0-9]*).json",
    "*.error.txt",
    "*manifest.json",
    "*manifest ([0-9]*).json",
    "*results.jsonl",
    "*results ([0-9]*).jsonl",
)


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing to generate for."""

    #: Unique in its batch and the same on the next attempt: relative path, or line number.
    key: str
    #: What the person calls it: the ``id`` of its line, otherwise the key.
    id: str
    #: Output file without suffix, relative.
    output: str
    #: File to read the prompt from.
    file: Path | None = None
    #: Parameters of its own: prompt, messages, system, sampling.
    params: Mapping[str, Any] = field(default_factory=dict)
    #: Why it cannot be done, if it is known already.
    problem: str | None = None
    #: The URL that its line names, if it is in OpenAI's Batch format: its result is then told in that format too.
    url: str | None = None


def from_folder(folder: Path, *, globs: Collection[str], recursive: bool, may_be_empty: bool = False) -> list[Item]:
    """Return the files in *folder* whose name matches one of *globs*, by path. Links and dot files are left out.

    Raises:
        InvalidInput: it is no folder, cannot be read, or nothing in it matches and it may not be empty.

    """
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is not a folder.", folder=str(folder))
    found = sorted(_walk(folder, globs=globs, recursive=recursive))
    if not found and not may_be_empty:
        raise InvalidInput(f"Nothing in {folder} matches {', '.join(globs)}.", folder=str(folder))
    _limit(len(found), folder)
    # Without case, as a Mac's file system compares names.
    taken = Counter(str(path.with_suffix("")).casefold() for path in found)
    return [_from_path(folder, path, alone=taken[str(path.with_suffix("")).casefold()] == 1) for path in found]


def _from_path(folder: Path, path: Path, *, alone: bool) -> Item:
    stem = path.with_suffix("") if alone else path
    name = os.fsencode(path).decode("utf-8", "replace")
    if name != str(path):
        return Item(key=name, id=name, output="", problem=f"{name}: the file's name is not UTF-8")
    return Item(key=str(path), id=str(path), output=f"{stem}.out", file=folder / path)


def _walk(folder: Path, *, globs: Collection[str], recursive: bool) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise InvalidInput(f"{error.filename} cannot be read: {error.strerror}.", folder=str(folder)) from error

    for root, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")] if recursive else []
        for name in names:
            path = Path(root, name)
            if _wanted(name, globs) and not path.is_symlink():
                yield path.relative_to(folder)


def _wanted(name: str, globs: Collection[str]) -> bool:
    name = name.lower()
    if name.startswith(".") or any(fnmatch.fnmatchcase(name, own) for own in OWN_FILES):
        return False
    return any(fnmatch.fnmatchcase(name, glob.lower()) for glob in globs)


def from_jsonl(text: str, *, template: str | None) -> list[Item]:
    """Return an item for each line of *text*, blank ones left out; a broken line becomes an item with a problem.

    Without *template* a line is ``{"prompt": str}`` or ``{"messages": [...]}`` with an optional ``id``, ``system`` and
    sampling parameters, or a request of OpenAI's Batch format. With it, a line is any object, whose fields fill the
    template.
    """
    # Not splitlines(): JSON text may hold U+2028 and its like unescaped.
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    _limit(len(lines), None)
    return _distinct([_from_line(number, line, template) for number, line in lines])


def _from_line(number: int, line: str, template: str | None) -> Item:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        return _broken(number, f"line {number} is not JSON: {error}")
    if not isinstance(data, dict):
        return _broken(number, f"line {number} is not a JSON object but {type(data).__name__}")
    if template is not None:
        return _from_row(number, data, template)
    if openai_batch.is_request(data):
        return _from_request(number, data)
    own_id = data.pop("id", None)
    return Item(key=str(number), id=_id(own_id, number), output=_numbered(number), params=data)


def _from_request(number: int, data: dict[str, Any]) -> Item:
    """Return the item of a line in OpenAI's Batch format; also a refused one is told of under its own id."""
    item = Item(
        key=str(number), id=_id(data["custom_id"], number), output=_numbered(number), url=str(data.get("url") or "")
    )
    try:
        return replace(item, params=openai_batch.parameters(data))
    except ValueError as error:
        return replace(item, problem=f"line {number}: {error}")


def _distinct(items: list[Item]) -> list[Item]:
    """Refuse what repeats a ``custom_id``: nobody could tell the answers apart."""
    seen: dict[str, str] = {}
    found = []
    for item in items:
        first = seen.setdefault(item.id, item.key) if item.url is not None else item.key
        again = f"line {item.key} repeats the custom_id {item.id!r} of line {first}"
        found.append(item if first == item.key or item.problem else replace(item, problem=again))
    return found


def from_csv(text: str, *, template: str) -> list[Item]:
    """Return an item for each row of *text* below the header; ``{column}`` in *template* stands for its value.

    Raises:
        InvalidInput: there is no header, two columns of one name, or a row that no CSV reader understands.
        InvalidParams: the template names none of the columns.

    """
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = list(reader.fieldnames or ())
        _check_columns(columns, template)
        items = [_from_fields(reader.line_num, row, template) for row in reader]
    except csv.Error as error:
        number = reader.reader.line_num  # the one of the DictReader still stands at the row before
        raise InvalidInput(f"Line {number} is not CSV: {error}.", line=number) from error
    _limit(len(items), None)
    return items


def _check_columns(columns: list[str], template: str) -> None:
    doubled = [name for name, count in Counter(columns).items() if count > 1]
    if doubled:
        raise InvalidInput(f"The CSV header names {', '.join(map(repr, doubled))} more than once.")
    if not any("{" + name + "}" in template for name in columns):
        names = ", ".join("{" + name + "}" for name in columns) or "none at all"
        raise InvalidParams(f"template uses no column of the CSV file; it has {names}.", columns=columns)


def _from_fields(number: int, row: dict[Any, Any], template: str) -> Item:
    if None in row:
        return _broken(number, f"line {number} has {len(row[None])} more fields than the header")
    if missing := [name for name, value in row.items() if value is None]:
        return _broken(number, f"line {number} ends before column {missing[0]!r}")
    return _from_row(number, row, template)


def _from_row(number: int, row: Mapping[str, Any], template: str) -> Item:
    prompt = fill(template, row)
    if prompt == template and "{" in template and not any("{" + name + "}" in template for name in row):
        return _broken(number, f"line {number} has none of the template's fields")
    return Item(key=str(number), id=_id(row.get("id"), number), output=_numbered(number), params={"prompt": prompt})


def fill(template: str, values: Mapping[str, Any]) -> str:
    """Replace each ``{name}`` of *values* in *template*, in one pass: what a value brings in is left alone."""
    if not values:
        return template
    pattern = re.compile("|".join(re.escape("{" + name + "}") for name in sorted(values, key=len, reverse=True)))
    return pattern.sub(lambda match: _text(values[match.group()[1:-1]]), template)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _id(value: Any, number: int) -> str:
    return str(number) if value in (None, "") else _text(value)


def _numbered(number: int) -> str:
    return f"items/{number:06d}"


def _broken(number: int, problem: str) -> Item:
    return Item(key=str(number), id=str(number), output=_numbered(number), problem=problem)


def _limit(count: int, where: Path | None) -> None:
    if count > MOST_ITEMS:
        place = f" in {where}" if where else ""
        raise InvalidInput(f"{count:,} items{place} are more than the {MOST_ITEMS:,} one batch takes; split it.")


def read_items_file(
    file: Path, *, template: str | None, limit: int, follow: bool, below: Path | None = None
) -> list[Item]:
    """Return the items of *file*, a ``.jsonl`` or ``.csv`` of at most *limit* bytes.

    Raises:
        InvalidInput: the file cannot be used, or has no items.
        InvalidParams: a CSV file without a fitting template.

    """
    text = read_text(file, limit=limit, follow=follow, below=below)
    if file.suffix.lower() == ".csv":
        if template is None:
            raise InvalidParams("A CSV file needs a template, in which {column} stands for that column's value.")
        items = from_csv(text, template=template)
    else:
        items = from_jsonl(text, template=template)
    if not items:
        raise InvalidInput(f"{file} has no items in it.", file=str(file))
    return items
