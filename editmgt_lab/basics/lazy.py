"""transformers takes seconds to import: only whoever loads a network waits for it."""

from __future__ import annotations

import threading
from types import ModuleType

_IMPORTING = threading.Lock()


def transformers() -> ModuleType:
    """The library. It puts another module in its own place while it is imported, so that a thread which asks for it
    just then would be left with the one that has no names."""
    with _IMPORTING:
        import transformers

        return transformers
