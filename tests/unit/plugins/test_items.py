"""What a batch works on: folders, JSONL, CSV."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import InvalidInput, InvalidParams
from plugins import items
from plugins.items import fill, from_csv, from_folder, from_jsonl, read_items_file

GLOBS = ["*.txt", "*.md"]


def put(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("hello")


def test_a_folder_gives_its_prompts_by_path(tmp_path: Path) -> None:
    """Subfolders too, in a stable order; outputs mirror the tree."""
    put(tmp_path, "b.txt", "a.md", "sub/c.TXT", "d.pdf")
    found = from_folder(tmp_path, globs=GLOBS, recursive=True)
    assert [(item.id, item.output) for item in found] == [
        ("a.md", "a.out"),
        ("b.txt", "b.out"),
        ("sub/c.TXT", "sub/c.out"),
    ]
    assert found[2].file == tmp_path / "sub/c.TXT"
    assert [item.id for item in from_folder(tmp_path, globs=GLOBS, recursive=False)] == ["a.md", "b.txt"]


def test_two_prompts_of_one_stem_get_two_outputs(tmp_path: Path) -> None:
    """note.txt and Note.md would write one file on a Mac, whose file names have no case."""
    put(tmp_path, "note.txt", "Note.md")
    assert [item.output for item in from_folder(tmp_path, globs=GLOBS, recursive=True)] == [
        "Note.md.out",
        "note.txt.out",
    ]


def test_own_files_links_and_dot_files_are_left_out(tmp_path: Path) -> None:
    """A batch run twice beside its inputs does not take its own answers for prompts."""
    put(tmp_path, "a.txt", "a.out.txt", "b.error.txt", ".c.txt", ".git/d.txt", "x.manifest.json")
    (tmp_path / "link.txt").symlink_to(tmp_path / "a.txt")
    assert [item.id for item in from_folder(tmp_path, globs=["*"], recursive=True)] == ["a.txt"]


def test_a_folder_without_prompts_is_an_error(tmp_path: Path) -> None:
    """Nothing to do is a mistake somebody wants to hear of; so is a folder that is none or too full."""
    with pytest.raises(InvalidInput, match=r"Nothing in .* matches \*.txt, \*.md"):
        from_folder(tmp_path, globs=GLOBS, recursive=True)
    put(tmp_path, "a.txt")
    with pytest.raises(InvalidInput, match="is not a folder"):
        from_folder(tmp_path / "a.txt", globs=GLOBS, recursive=True)


def test_too_many_items_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One batch has a limit, said with both numbers."""
    monkeypatch.setattr(items, "MOST_ITEMS", 1)
    put(tmp_path, "a.txt", "b.txt")
    with pytest.raises(InvalidInput, match=r"2 items in .* are more than the 1"):
        from_folder(tmp_path, globs=GLOBS, recursive=True)
    with pytest.raises(InvalidInput, match="2 items are more"):
        from_jsonl('{"prompt": "a"}\n{"prompt": "b"}', template=None)


@pytest.mark.skipif(sys.platform == "darwin", reason="APFS refuses such names")
def test_a_name_that_is_not_utf8_spoils_only_its_item(tmp_path: Path) -> None:
    """It could neither be written into the manifest nor into the ledger."""
    put(tmp_path, "a.txt")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff.txt")).write_text("hello")
    good, bad = from_folder(tmp_path, globs=GLOBS, recursive=True)
    assert good.problem is None
    assert "name is not UTF-8" in (bad.problem or "")


def test_jsonl_lines_become_items_and_broken_ones_are_named() -> None:
    """Blank lines are passed over; every broken line keeps its number and spoils only itself."""
    text = '{"prompt": "a", "id": "x"}\n\n{"prompt": \n[1]\n{"messages": [], "seed": 1, "id": 7}\n'
    one, broken, no_object, last = from_jsonl(text, template=None)
    assert (one.key, one.id, dict(one.params), one.output) == ("1", "x", {"prompt": "a"}, "items/000001")
    assert (broken.problem or "").startswith("line 3 is not JSON: ")
    assert no_object.problem == "line 4 is not a JSON object but list"
    assert (last.id, dict(last.params)) == ("7", {"messages": [], "seed": 1})


def test_a_line_separator_inside_json_text_ends_no_line() -> None:
    """U+2028 may stand unescaped in JSON; only a newline parts lines."""
    assert len(from_jsonl('{"prompt": "a\u2028b\x85c"}', template=None)) == 1


def test_a_deeply_nested_line_spoils_only_itself() -> None:
    """The JSON parser gives up with RecursionError, which is no reason to fail the batch."""
    deep, fine = from_jsonl("[" * 100_000 + "\n" + '{"prompt": "a"}', template=None)
    assert "line 1 is not JSON" in (deep.problem or "")
    assert fine.problem is None


def test_a_template_takes_fields_of_jsonl_lines() -> None:
    """With a template a line is any object; texts go in as they are, other values as JSON."""
    good, bad = from_jsonl('{"a": "x", "n": [1, 2], "id": 3}\n{"b": 1}', template="{a}-{n}")
    assert (good.id, dict(good.params)) == ("3", {"prompt": "x-[1, 2]"})
    assert bad.problem == "line 2 has none of the template's fields"


def test_csv_rows_fill_the_template() -> None:
    """Quoted commas and line breaks survive; values are not looked at again for placeholders."""
    text = 'id,name,city\n1,"Doe, {city}",Rome\n2,"a\nb",Ulm\n'
    one, two = from_csv(text, template="{name} of {city} {other}")
    assert (one.id, one.params["prompt"]) == ("1", "Doe, {city} of Rome {other}")
    assert (two.id, two.key, two.params["prompt"]) == ("2", "4", "a\nb of Ulm {other}")


def test_ragged_csv_rows_spoil_only_themselves() -> None:
    """Too many or too few fields are named with the line."""
    long, short, fine = from_csv("a,b\n1,2,3\n1\n1,2\n", template="{a}{b}")
    assert long.problem == "line 2 has 1 more fields than the header"
    assert short.problem == "line 3 ends before column 'b'"
    assert fine.problem is None


def test_csv_that_cannot_work_is_refused() -> None:
    """A template without a column, a doubled column and broken quoting concern the whole file."""
    with pytest.raises(InvalidParams, match=r"it has \{a\}, \{b\}"):
        from_csv("a,b\n1,2\n", template="{c}")
    with pytest.raises(InvalidInput, match="'a' more than once"):
        from_csv("a,a\n1,2\n", template="{a}")
    with pytest.raises(InvalidInput, match="Line 2 is not CSV"):
        from_csv('a\n"x"y\n', template="{a}")


@settings(deadline=None)  # a loaded machine is no finding
@given(
    st.dictionaries(st.text("ab{}", min_size=1, max_size=3), st.text("ab{}", max_size=6), max_size=3), st.text("ab{} ")
)
def test_filling_never_raises_and_changes_nothing_it_does_not_know(values: dict[str, str], template: str) -> None:
    """Any braces in template and values are harmless; without a known placeholder the template stays as it is."""
    filled = fill(template, values)
    if not any("{" + name + "}" in template for name in values):
        assert filled == template


def test_a_file_is_read_by_its_suffix(tmp_path: Path) -> None:
    """A spreadsheet's CSV with a byte order mark keeps its first column's name; an empty file has no items."""
    table = tmp_path / "a.CSV"
    table.write_bytes(b"\xef\xbb\xbfname\r\nBo\r\n")
    assert read_items_file(table, template="{name}", limit=100, follow=True)[0].params == {"prompt": "Bo"}
    with pytest.raises(InvalidParams, match="needs a template"):
        read_items_file(table, template=None, limit=100, follow=True)
    table.write_text("name\n")
    with pytest.raises(InvalidInput, match="has no items"):
        read_items_file(table, template="{name}", limit=100, follow=True)
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"prompt": "a"}')
    assert len(read_items_file(lines, template=None, limit=100, follow=True)) == 1
