"""What befalls files in a watched folder: each scene is a short play of one or a few, told as pauses in seconds."""

from __future__ import annotations

import os
import socket
import stat
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from torture.watched_disk import WatchedDisk

#: A scene changes the disk and yields how long to wait until it goes on. *hold* is the folder's settling time, *long* a
#: time after which whatever held still must have been taken.
Scene = Callable[["Stage"], Iterator[float]]


class Stage:
    """What a scene plays with: the disk, a folder of its own in it, and its times."""

    def __init__(self, disk: WatchedDisk, folder: Path, *, hold: float, long: float) -> None:
        self.disk = disk
        self.folder = folder
        self.hold = hold
        self.long = long

    def file(self, suffix: str = ".txt") -> Path:
        """Return the path of a file that is not there yet, in a folder that is."""
        self.folder.mkdir(exist_ok=True)
        return self.folder / self.disk.name(suffix)

    def short(self) -> float:
        """Return a pause within which nothing settles."""
        return self.disk.chance.uniform(0.1, 0.6) * self.hold


def plain(at: Stage) -> Iterator[float]:
    """A file is written at once and left alone; sometimes dated long ago, or in the future."""
    path = at.file()
    at.disk.write(path, at.disk.fresh())
    if at.disk.chance.random() < 0.3:
        at.disk.date(path, at.disk.chance.choice([1.0, 915_148_800.0, 4_070_908_800.0]))
    yield 0


def slow_copy(at: Stage) -> Iterator[float]:
    """Chunks come one by one, more quickly than the settling time."""
    path = at.file(".mov")
    at.disk.write(path, at.disk.fresh())
    for _ in range(at.disk.chance.randrange(1, 9)):
        yield at.short()
        at.disk.append(path, at.disk.fresh())


def stalled_copy(at: Stage) -> Iterator[float]:
    """A copy pauses for so long that what is there counts as a file; the rest makes another content."""
    path = at.file(".mov")
    at.disk.write(path, at.disk.fresh())
    yield at.disk.chance.uniform(1, 4) * at.hold
    at.disk.append(path, at.disk.fresh())
    yield at.short()
    at.disk.append(path, at.disk.fresh())


def allocated_first(at: Stage) -> Iterator[float]:
    """Zeros first, in full length, then the content in place: the size never changes."""
    path, data = at.file(".bin"), at.disk.fresh() + bytes(4000)
    at.disk.write(path, bytes(len(data)) + at.disk.fresh()[:8])
    for start in range(0, len(data), 2000):
        yield at.short()
        at.disk.overwrite(path, start, data[start : start + 2000])


def renamed_in(at: Stage) -> Iterator[float]:
    """A file is written elsewhere on the disk and renamed in, whole."""
    made = at.disk.outside / at.disk.name()
    made.write_bytes(at.disk.fresh())
    yield at.short()
    at.disk.move(made, at.file())


def folder_renamed_in(at: Stage) -> Iterator[float]:
    """A whole tree appears under one new name; later it gets another name, and a file more."""
    made = at.disk.outside / at.disk.name("")
    for inner in ("", "deep", "deep/er"):
        (made / inner).mkdir(exist_ok=True, parents=True)
        (made / inner / at.disk.name()).write_bytes(at.disk.fresh())
    yield at.short()
    target = at.file("")
    at.disk.move(made, target)
    yield at.disk.chance.choice([at.short(), at.long])
    at.disk.write(target / "deep" / at.disk.name(), at.disk.fresh())
    yield at.disk.chance.choice([at.short(), at.long])
    at.disk.move(target, at.file(""))


def truncated_and_rewritten(at: Stage) -> Iterator[float]:
    """An editor empties a file, or cuts it, before it writes it anew; settled or not."""
    path = at.file()
    at.disk.write(path, at.disk.fresh())
    yield at.disk.chance.choice([at.short(), at.long])
    at.disk.cut(path, at.disk.chance.choice([0, path.stat().st_size // 2]))
    yield at.short()
    at.disk.write(path, at.disk.fresh())


def appended_later(at: Stage) -> Iterator[float]:
    """A log grows after it was taken, slowly, several times."""
    path = at.file(".log")
    at.disk.write(path, at.disk.fresh())
    for _ in range(2):
        yield at.long
        at.disk.append(path, at.disk.fresh())
        yield at.short()
        at.disk.append(path, at.disk.fresh())


def replaced(at: Stage) -> Iterator[float]:
    """An editor writes a hidden file and renames it over the old one."""
    path, hidden = at.file(), at.folder / f".{at.disk.name()}.swp"
    at.disk.write(path, at.disk.fresh())
    for _ in range(2):
        yield at.disk.chance.choice([at.short(), at.long])
        at.disk.write(hidden, at.disk.fresh(), counts=False)
        yield at.short()
        at.disk.move(hidden, path)


def deleted_early(at: Stage) -> Iterator[float]:
    """Gone before it settled; sometimes another comes under the same name."""
    path = at.file()
    at.disk.write(path, at.disk.fresh())
    yield at.short()
    at.disk.delete(path)
    if at.disk.chance.random() < 0.5:
        yield at.short()
        at.disk.write(path, at.disk.fresh())


def touched(at: Stage) -> Iterator[float]:
    """Only its times change, before it settled and after it was taken: it is one file all the while."""
    path = at.file()
    at.disk.write(path, at.disk.fresh())
    for _ in range(3):
        yield at.disk.chance.choice([at.short(), at.long])
        at.disk.touch(path)


def linked(at: Stage) -> Iterator[float]:
    """A second name for the same file is a file of its own."""
    path = at.file()
    at.disk.write(path, at.disk.fresh())
    yield at.disk.chance.choice([at.short(), at.long])
    at.disk.link(path, at.file())


def unicode_twins(at: Stage) -> Iterator[float]:
    """Composed and decomposed, two files on this disk."""
    number = at.disk.name("")
    for form in at.disk.chance.sample(["NFC", "NFD"], 2):
        at.disk.write(at.folder / unicodedata.normalize(form, f"Büché-Ω̈-가-{number}.txt"), at.disk.fresh())
        yield at.disk.chance.choice([0, at.short(), at.long])


def case_twins(at: Stage) -> Iterator[float]:
    """Names that differ by case alone, two files on this disk."""
    number = at.disk.name("")
    for name in at.disk.chance.sample([f"Straße-{number}.TXT", f"strasse-{number}.txt", f"STRASSE-{number}.txt"], 3):
        at.disk.write(at.folder / name, at.disk.fresh())
        yield at.disk.chance.choice([0, at.short()])


def longest_names(at: Stage) -> Iterator[float]:
    """255 bytes, in one, two, three and four bytes a character."""
    for letter in ("x", "ü", "漢", "🙈"):
        number = at.disk.name()
        fitting = letter * ((255 - len(number.encode())) // len(letter.encode()))
        at.disk.write(at.folder / f"{fitting}{'x' * (255 - len((fitting + number).encode()))}{number}", at.disk.fresh())
        yield at.short()


_HOSTILE: Final = (
    "new\nline", "tab\tand\rreturn", "\x1b[31mred\x1b[0m", "bell\x07", "\u202etxt.exe", "\u2066isolated",
    "👩\u200d👩\u200d👧",    "-rf", "--help",
    " leading", "trailing ", "quo'te\"s", "`id`", "$(id)",
    "%s%n", "back\\slash", "C:colon", "*?[a]",
    "&amp;<b>", ";rm", "|pipe", "\u2028line", "\ufeffbom", "zero\u200bwidth", "..two", "con",
    "{stem}", "{0.__class__}",
)  # fmt: skip


def hostile_names(at: Stage) -> Iterator[float]:
    """Names that make a shell, a terminal or a template do things; hidden ones are left alone."""
    for name in at.disk.chance.sample(_HOSTILE, 6):
        whole = f"{name}{at.disk.name()}"
        at.disk.write(at.folder / whole, at.disk.fresh(), counts=not whole.startswith("."))
        yield at.disk.chance.choice([0, at.short()])


def undecodable(at: Stage) -> Iterator[float]:
    """A name that is not UTF-8 cannot be written down: left alone, with a complaint."""
    at.disk.write(at.folder / os.fsdecode(b"\xff\xfe" + at.disk.name().encode()), at.disk.fresh(), counts=False)
    yield 0


def pipes_and_devices(at: Stage) -> Iterator[float]:
    """A pipe that nobody writes to, a socket, devices: opening one would hang, or worse."""
    at.disk.make(at.file(), os.mkfifo)
    yield at.short()
    at.disk.make(at.file(""), _bind)
    for kind, number in ((stat.S_IFCHR, os.makedev(1, 5)), (stat.S_IFBLK, os.makedev(7, 200))):
        with_device = at.file()
        try:
            at.disk.make(with_device, lambda path, kind=kind, number=number: os.mknod(path, kind | 0o600, number))
        except PermissionError:  # who may make no devices finds none in the folder either
            continue


def _bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))


def links(at: Stage) -> Iterator[float]:
    """Links to files and folders outside and inside, to nowhere, to themselves, and in a circle."""
    secret = at.disk.outside / at.disk.name()
    secret.write_bytes(at.disk.fresh())
    inside = at.file()
    at.disk.write(inside, at.disk.fresh())
    for target in (secret, inside, at.disk.outside, at.folder, Path("nowhere"), at.disk.root):
        at.disk.make(at.file(), lambda path, target=target: path.symlink_to(target))
        yield at.short() / 3
    one, other = at.file(), at.file()
    at.disk.make(one, lambda path: path.symlink_to(other))
    at.disk.make(other, lambda path: path.symlink_to(one))


def forbidden(at: Stage) -> Iterator[float]:
    """A file that nobody may read is taken once it is allowed."""
    path = at.file()
    at.disk.write(path, at.disk.fresh(), counts=False)
    at.disk.permit(path, 0, counts=False)
    yield at.disk.chance.choice([at.short(), at.long])
    at.disk.permit(path, 0o600, counts=True)


def forbidden_folder(at: Stage) -> Iterator[float]:
    """A folder that nobody may look into is left alone, and what is in it taken once it is allowed."""
    made = at.disk.outside / at.disk.name("")
    made.mkdir()
    (made / at.disk.name()).write_bytes(at.disk.fresh())
    target = at.file("")
    at.disk.move(made, target, counts=False)
    target.chmod(0)
    yield at.disk.chance.choice([at.short(), at.long])
    target.chmod(0o700)
    for path in sorted(target.iterdir()):
        at.disk.touch(path)


def empty(at: Stage) -> Iterator[float]:
    """An empty file is most often a copy that has just begun; one that stays empty is a file after a longer wait."""
    path = at.file()
    at.disk.write(path, b"")
    if at.disk.chance.random() < 0.6:
        yield at.disk.chance.uniform(0.5, 5) * at.hold
        at.disk.write(path, at.disk.fresh())
    yield 0


def nested(at: Stage) -> Iterator[float]:
    """Folders in folders, made one by one with a file in each."""
    folder = at.folder
    for depth in range(at.disk.chance.randrange(3, 12)):
        folder /= f"{at.disk.name('')}-{depth}"
        at.disk.write(folder / at.disk.name(), at.disk.fresh())
        yield at.short() / 4


def in_the_cloud(at: Stage) -> Iterator[float]:
    """The name is there, the content is not: never opened, taken when it was downloaded."""
    path = at.file()
    at.disk.in_cloud(path, at.disk.fresh())
    yield at.disk.chance.choice([at.short(), at.long])
    at.disk.download(path)


def downloads(at: Stage) -> Iterator[float]:
    """Browsers and their kin write under another name, and rename when they are done."""
    for form in at.disk.chance.sample(
        ["{}.crdownload", "{}.part", "{}.download", ".com.google.Chrome.{}", "{}.opdownload", "{}.aria2", "{}.!qB"], 3
    ):
        path = at.file()
        temporary = path.with_name(form.format(path.name))
        at.disk.write(temporary, at.disk.fresh(), counts=False)
        for _ in range(2):
            yield at.disk.chance.choice([at.short(), at.hold * 2])
            at.disk.append(temporary, at.disk.fresh(), counts=False)
        at.disk.move(temporary, path)


def safari(at: Stage) -> Iterator[float]:
    """Safari writes into a folder, and moves the file out of it."""
    path = at.file(".mov")
    inside = path.with_name(f"{path.name}.download") / path.name
    at.disk.write(inside, at.disk.fresh(), counts=False)
    yield at.disk.chance.choice([at.short(), at.hold * 3])
    at.disk.move(inside, path)


def rsync(at: Stage) -> Iterator[float]:
    """The program rsync writes ``.name.XXXXXX``, dates it as the original, and renames."""
    path = at.file()
    for _ in range(2):
        temporary = path.with_name(f".{path.name}.{at.disk.chance.randbytes(3).hex()}")
        at.disk.write(temporary, at.disk.fresh(), counts=False)
        yield at.short()
        os.utime(temporary, (1e9, 1e9))
        at.disk.move(temporary, path)
        yield at.long


def left_behind(at: Stage) -> Iterator[float]:
    """What editors, offices and systems leave lying about is no input."""
    for name in ("~$report.docx", "notes.txt~", "#notes.txt#", "notes.swp", "Thumbs.db", ".DS_Store", "._notes.txt"):
        at.disk.write(at.file("") / name, at.disk.fresh(), counts=False)
    at.disk.write(at.file("") / "done" / at.disk.name(), at.disk.fresh(), counts=False)
    at.disk.write(at.file("") / "node_modules" / at.disk.name(), at.disk.fresh(), counts=False)
    yield 0


def renamed_about(at: Stage) -> Iterator[float]:
    """Renamed inside, out and back again: each name that it holds for long is a file."""
    path = at.file()
    at.disk.write(path, at.disk.fresh())
    for _ in range(3):
        yield at.disk.chance.choice([at.short(), at.long])
        target = at.file() if at.disk.chance.random() < 0.7 else at.disk.outside / at.disk.name()
        at.disk.move(path, target)
        path = target


SCENES: Final[tuple[Scene, ...]] = (
    plain, plain, slow_copy, slow_copy, stalled_copy, allocated_first, renamed_in, folder_renamed_in,
    truncated_and_rewritten, appended_later, replaced, deleted_early, touched, linked, unicode_twins, case_twins,
    longest_names, hostile_names, undecodable, pipes_and_devices, links, forbidden, forbidden_folder, empty, nested,
    in_the_cloud, downloads, safari, rsync, left_behind, renamed_about,
)  # fmt: skip
