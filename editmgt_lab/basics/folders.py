"""Folders of pictures, rows or weights, without what systems and editors leave lying in them."""

from __future__ import annotations

import os
from pathlib import Path, PurePath

STRAY_NAMES = {
    "__macosx", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "@eadir", "lost+found",
    "$recycle.bin", "system volume information",
}  # fmt: skip
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
