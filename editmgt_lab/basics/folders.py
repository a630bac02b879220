"""Folders of pictures, rows or weights: read without what systems and editors leave lying in them, written whole."""

from __future__ import annotations

import errno
import itertools
import json
import os
import platform
import re
import shutil
import stat
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import TypeVar

import psutil
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ..errors import DataError, DiskError, LabError

STRAY_NAMES = {
    "__macosx", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "@eadir", "lost+found",
    "$recycle.bin", "system volume information",
}  # fmt: skip
_Path = TypeVar("_Path", str, Path)
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


def plain(file: _Path) -> _Path:
    """The file, which can be opened without waiting for ever. Raises OSError for a pipe or a device, and for what is
    not there."""
    if not _is_plain(os.stat(file)):
        raise OSError(errno.EINVAL, "no plain file, but a pipe or a device", os.fspath(file))
    return file


def _is_plain(about: os.stat_result) -> bool:
    return stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode)


def check_plain(file: Path, kind: type[LabError]) -> None:
    """Raises `kind` for what never ends when it is read, a pipe or a device, or is too large for a configuration, a
    vocabulary or a list of rows; OSError for what is not there."""
    about = file.stat()
    if not (plain := _is_plain(about)) or about.st_size > LARGEST_TEXT:
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


# Writing. Nothing has its final place before it is whole: it is written in a hidden folder beside it, whose name says
# who writes, and moved. So a kill leaves what was there before; what it leaves beside that, the next writer removes.

_HOST = f"{zlib.crc32(platform.node().encode()):08x}"
_WRITER = re.compile(rf"\..*\.{_HOST}-(\d+)-\d+\.unfinished")
_FORGOTTEN = 3600.0  # seconds after which another computer's are nobody's
_numbers, _swept = itertools.count(), set()


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A path to write a file or a folder to, which takes the place of `path` if all goes well.

    Raises DiskError where the disk does not take it.
    """
    with _beside(path) as unfinished:
        yield unfinished / path.name
        _share(unfinished)
        made = unfinished / path.name
        if made.is_dir() and path.exists():
            _keep(made)
            before = path.rename(unfinished / f"{path.name}.before")  # at once, since removing it takes a while
            try:
                made.rename(path)
            except OSError:
                before.rename(path)
                raise
        else:
            _move_last(made, path)


@contextmanager
def written_into(folder: Path) -> Iterator[Path]:
    """An empty folder for what writes its files itself; they are moved into `folder`, each whole, if all goes well.

    What else lies there stays. Raises DiskError where the disk does not take them.
    """
    with _beside(folder / "files") as unfinished:
        yield unfinished
        _share(unfinished)
        *files, last = sorted(unfinished.iterdir())
        for file in files:
            _move(file, folder / file.name)
        _move_last(last, folder / last.name)


def write_text(path: Path, text: str) -> None:
    """In UTF-8, whole or not at all; half a surrogate pair is written as \\ud83d. Raises DiskError."""
    with written_whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> None:
    """A safetensors file with texts in its head, whole or not at all. Raises DiskError.

    The library writes texts in any order; here they stand by their names, so that the same content is the same bytes.
    """
    with written_whole(path) as unfinished:
        save_file(dict(tensors), unfinished, metadata=dict(texts))
        with unfinished.open("r+b") as file:
            size = int.from_bytes(file.read(8), "little")
            head = json.loads(file.read(size))
            head["__metadata__"] = dict(sorted(texts.items()))
            file.seek(8)
            file.write(json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode().ljust(size))


def append_line(path: Path, line: str) -> None:
    """Write a line behind the others of a file that is there; it is on the disk when this returns. Raises DiskError."""
    content = line.encode("utf-8", "backslashreplace") + b"\n"
    try:
        with path.open("r+b", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            if file.write(content) < len(content):
                file.truncate(end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))
            os.fsync(file.fileno())
    except OSError as error:
        raise not_written(path, error) from error


def make_folder(folder: Path) -> Path:
    """The folder, made where it is not there. Raises DiskError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_written(folder, error) from error
    return folder


def remove(path: Path) -> None:
    """A file, or a folder with all that is in it, or nothing. Raises DiskError where it stays."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise not_written(path, error) from error


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """An empty folder beside `path`, gone in the end."""
    unfinished = _hidden(path)
    try:
        unfinished.mkdir(parents=True)
        if (here := path.parent.absolute()) not in _swept:  # once: a folder may hold a million files
            _swept.add(here)
            _sweep(here)
        yield unfinished
    except (OSError, SafetensorError) as error:
        raise not_written(path, error) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _hidden(path: Path) -> Path:
    """A name beside `path` that nobody else has, and that says whose it is."""
    return path.with_name(f".{path.name}.{_HOST}-{os.getpid()}-{next(_numbers)}.unfinished")


def _sweep(folder: Path) -> None:
    """Remove what killed processes left half written in a folder."""
    for unfinished in folder.glob(".*.unfinished"):
        with suppress(OSError, DiskError):
            if _is_abandoned(unfinished):
                remove(unfinished)


def _share(folder: Path) -> None:
    """Give files the permissions of any new file: safetensors lets nobody but their owner read what it writes."""
    usual = folder.stat().st_mode & 0o666
    for file in folder.rglob("*"):
        if not (file.is_dir() or file.is_symlink()):
            with suppress(OSError):  # some file systems have none
                file.chmod(usual)


def _move(unfinished: Path, path: Path) -> None:
    _keep(unfinished)
    unfinished.replace(path)


def _keep(unfinished: Path) -> None:
    """Wait until the disk has it: else a power cut may keep the name and lose what it names."""
    for file in unfinished.rglob("*") if unfinished.is_dir() else (unfinished,):
        if not file.is_dir():
            with file.open("r+b") as opened:
                os.fsync(opened.fileno())


def _move_last(unfinished: Path, path: Path) -> None:
    """Move what is alone in a hidden folder, after that folder is gone: a kill after the move would leave it behind,
    and who finds all there writes nothing more, so that nobody would remove it."""
    alone = _hidden(path)
    unfinished.rename(alone)
    try:
        shutil.rmtree(unfinished.parent)
        _move(alone, path)
    except OSError:
        remove(alone)
        raise


def _is_abandoned(unfinished: Path) -> bool:
    """Whether whoever wrote this is gone."""
    written = unfinished.stat().st_mtime
    if not (writer := _WRITER.fullmatch(unfinished.name)):
        return time.time() - written > _FORGOTTEN
    try:
        return psutil.Process(int(writer[1])).create_time() > written + 1  # by now its number is another process's
    except psutil.NoSuchProcess:
        return True


def not_written(path: Path, error: Exception) -> DiskError:
    """What to raise for a file or folder that the disk does not take."""
    return DiskError(
        f"{path} cannot be written: {error}",
        expected="a folder that is there and can be written to, with room on its disk",
        fix="mend that, then run the same again: what is there is whole, and is gone on with",
    )
