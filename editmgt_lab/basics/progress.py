"""How far a long call is, from its first moment on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeAlias

from tqdm.auto import tqdm

Tick: TypeAlias = "Callable[[], object]"
Watch: TypeAlias = "Callable[[str, int], AbstractContextManager[Tick]]"


@contextmanager
def show(name: str, total: int) -> Iterator[Tick]:
    """A bar that goes once the context is left; what it gives is called whenever one of `total` parts is done."""
    with tqdm(total=total, desc=name, leave=False) as bar:
        yield bar.update


@contextmanager
def hide(name: str, total: int) -> Iterator[Tick]:
    """`show` without a bar."""
    yield lambda: None
