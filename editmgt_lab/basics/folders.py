"""Folders of pictures, rows or weights: read without what systems and editors leave lying in them, written whole."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath

from safetensors import SafetensorError

from ..errors import DataError, LabError

STRAY_NAMES = {
    "__macosx", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "@eadir", "lost+found",
    "$recycle.bin", "system volume information",
}  # fmt: skip
LARGEST_TEXT = 500_000_000  # bytes
STRAY_ENDINGS = ("~", ".bak", ".swp", ".swo", ".orig", ".tmp", ".part", ".crdownload")


def is_stray(path: str | os.PathLike[str]) -> bool:
    """Whether nobody means this file: hidden, a system's or an editor's own, a back-up, or in such a folder.

    path: relative to the folder that somebody named, which itself may be hidden.
    """
    return any(_is_stray(part) for part in PurePath(path).parts if part not in (os.curdir, os.pardir))


def _is_stray(name: str) -> bool:
    """Hidden are .ipynb_checkpoints, .DS_Store, macOS's ._twins and Vim's swap files too; ~$ and #…# are editors'."""
    name = name.lower()
    kept_by_emacs = len(name) > 1 and name[0] == name[-1] == "#"
    return name.startswith((".", "~$")) or kept_by_emacs or name in STRAY_NAMES or name.endswith(STRAY_ENDINGS)


def files_in(folder: str | os.PathLike[str], pattern: str = "*", *, deep: bool = True) -> list[Path]:
    """The files of a folder, and with `deep` of those in it, whose name fits the pattern; sorted, no stray one.

    An empty list where there is no such folder.
    """
    folder = Path(folder)
    found = folder.rglob(pattern) if deep else folder.glob(pattern)
    return sorted(path for path in found if path.is_file() and not is_stray(path.relative_to(folder)))


def check_plain(file: Path, kind: type[LabError]) -> None:
    """Raises `kind` for what never ends when it is read, a pipe or a device, or is too large for a configuration, a
    vocabulary or a list of rows; OSError for what is not there."""
    about = file.stat()
    plain = stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode)
    if not plain or about.st_size > LARGEST_TEXT:
        raise kind(
            f"{file} is {'too large' if plain else 'no plain file'}",
            expected=f"a file of at most {LARGEST_TEXT // 1_000_000} MB",
            fix="download or copy it again",
        )


def check_texts_of(folder: Path, kind: type[LabError]) -> None:
    """`check_plain` of all of a folder's files but its weights, for libraries that read whatever is there."""
    for file in folder.iterdir() if folder.is_dir() else ():
        if file.exists() and file.suffix != ".safetensors":
            check_plain(file, kind)


def within(folder: str | os.PathLike[str], name: str | os.PathLike[str]) -> Path:
    """The path of a file that a data set names in its own folder. Raises DataError for one that lies elsewhere: an
    absolute name, one that climbs out, a link that leads out. In the hub's cache links to its own store are followed.
    """
    homes, path = [os.path.realpath(folder)], Path(folder) / name
    if (snapshots := Path(homes[0]).parent).name == "snapshots":
        homes.append(str(snapshots.with_name("blobs")))
    with suppress(ValueError):  # of a name with a null in it
        real = os.path.realpath(path)
        if not os.path.isabs(name) and any(real.startswith(os.path.join(home, "")) for home in homes):
            return path
    raise DataError(
        f"{os.fspath(name)!r} lies outside of {folder}",
        expected="files of the data set itself: relative names, and no link that leads out",
        fix="copy what is meant into its folder, if you trust whoever wrote that name",
    )


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A name to write to, which becomes `path` if all goes well. Raises DataError where the disk does not take it."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        unfinished.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            unfinished.unlink()
        raise DataError(
            f"{path} cannot be written: {error}", expected="a folder with room on its disk", fix="make room there"
        ) from error


def sweep(folder: Path, *, within: bool = True) -> None:
    """Remove what killed processes left half written in a folder, and in those within it if they are all ours."""
    for unfinished in [*folder.glob("**/.*.unfinished" if within else ".*.unfinished")]:
        if unfinished.is_dir():
            shutil.rmtree(unfinished, ignore_errors=True)
        else:
            unfinished.unlink(missing_ok=True)
