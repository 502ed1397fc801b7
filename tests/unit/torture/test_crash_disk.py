"""The simulated disk: what was synced is always there, what was not may be there in any part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torture.crash_cut import cut
from torture.crash_disk import ROOT, SECTOR, Disk, Image, Replay, materialise, of_folder, rng

CUTS = 300


def images(disk: Disk, *, at: int | None = None, cached: bool = False) -> list[Image]:
    """Return what many cuts at the same moment leave."""
    replay = Replay(disk.events, cached=cached)
    replay.forward(len(disk.events) if at is None else at)
    return [cut(replay, rng("test", number)) for number in range(CUTS)]


def a_file(content: bytes, *, after: Callable[[Disk, int], None] = lambda _disk, _inode: None) -> Disk:
    """Return a disk on which ``f`` was made with *content*, its name synced; *after* is done to it then."""
    disk = Disk()
    inode = disk.make("f")
    disk.sync(ROOT, full=True)
    disk.write(inode, 0, content)
    after(disk, inode)
    return disk


def sync(disk: Disk, inode: int) -> None:
    disk.sync(inode, full=False)


def test_a_synced_write_is_never_lost() -> None:
    """Data and name that were synced are in every image, whole."""
    content = rng("content").randbytes(5000)
    assert all(image == {"f": content} for image in images(a_file(content, after=sync)))


def test_an_unsynced_write_is_lost_sometimes_and_in_any_part() -> None:
    """Nothing, everything, zeros of the full length, and single sectors: all of it comes."""
    content = rng("content").randbytes(8 * SECTOR)
    found = [image["f"] or b"" for image in images(a_file(content))]
    assert b"" in found
    assert content in found
    assert bytes(len(content)) in found
    assert any(one not in {b"", content} and content[SECTOR : 2 * SECTOR] in one for one in found)


def test_a_name_needs_its_folder_synced() -> None:
    """A synced file whose folder was not synced may have no name; with the folder synced it always has."""
    disk = Disk()
    inode = disk.make("f")
    disk.write(inode, 0, b"x")
    disk.sync(inode, full=True)
    found = images(disk)
    assert {} in found
    assert {"f": b"x"} in found
    disk.sync(ROOT, full=True)
    assert all(image == {"f": b"x"} for image in images(disk))


def test_a_rename_is_whole_but_may_come_before_the_data() -> None:
    """The name shows the old file or the new one, never none; an unsynced new one may be empty under it."""
    disk = a_file(b"old", after=sync)
    disk.write(disk.make("new"), 0, b"new")
    disk.sync(ROOT, full=True)
    disk.replace("new", "f")
    found = [image.get("f") for image in images(disk)]
    assert {b"old", b"new", b""} <= set(found)
    assert None not in found


def test_an_old_version_of_a_sector_may_outlive_a_newer_one() -> None:
    """Of two unsynced writes to one place, any may be what is left."""
    disk = a_file(b"a" * SECTOR, after=sync)
    inode = disk.find("f") or 0
    disk.write(inode, 0, b"b" * SECTOR)
    disk.write(inode, 0, b"c" * SECTOR)
    assert {b"a" * SECTOR, b"b" * SECTOR, b"c" * SECTOR} <= {image["f"] for image in images(disk)}


def test_files_are_reordered() -> None:
    """Of two files written one after the other, the later may be there and the earlier not."""
    disk = Disk()
    for name in ("first", "second"):
        inode = disk.make(name)
        disk.sync(ROOT, full=True)
        disk.write(inode, 0, name.encode())
    assert {"first": b"", "second": b"second"} in images(disk)


def test_a_truncation_may_be_lost() -> None:
    """Until it is synced, a file that was cut off may be long again."""
    disk = a_file(b"long", after=sync)
    disk.truncate(disk.find("f") or 0, 1)
    assert {image["f"] for image in images(disk)} == {b"long", b"l"}


def test_a_drive_with_a_cache_needs_the_full_sync() -> None:
    """There a plain sync promises nothing, until a full one, of whichever file, empties the cache."""
    disk = a_file(b"x", after=sync)
    assert {"f": b""} in images(disk, cached=True)
    assert {"f": b""} not in images(disk)
    disk.sync(disk.make("other"), full=True)
    assert all(image["f"] == b"x" for image in images(disk, cached=True))


def test_the_moment_counts() -> None:
    """A cut before the sync is not protected by it, one after it is."""
    disk = a_file(b"x", after=sync)
    assert {"f": b""} in images(disk, at=len(disk.events) - 1)
    assert {"f": b""} not in images(disk)


def test_links_share_their_content_and_folders_nest(tmp_path: Path) -> None:
    """Two names of one file show the same; an image written to a real folder reads back the same."""
    disk = Disk()
    disk.make("d", folder=True)
    inode = disk.make("d/f")
    disk.write(inode, 0, b"x" * 2000)
    disk.link("d/f", "d/g")
    found = images(disk)
    assert all(image["d/f"] == image["d/g"] for image in found if "d/f" in image and "d/g" in image)
    whole = next(image for image in found if len(image) == 3)
    materialise(whole, tmp_path)
    assert of_folder(tmp_path) == whole


def test_a_loaded_image_is_safe() -> None:
    """A disk that begins with something begins with it synced, and what is done to it from then on is not."""
    disk = Disk()
    disk.load({"d": None, "d/f": b"old"})
    assert all(image == {"d": None, "d/f": b"old"} for image in images(disk))
    disk.unlink("d/f")
    assert {"d": None} in images(disk)
    assert {"d": None, "d/f": b"old"} in images(disk)


def test_cuts_repeat_by_their_seed() -> None:
    """The same seed cuts the same way."""
    disk = a_file(rng("content").randbytes(5000))
    assert images(disk) == images(disk)
