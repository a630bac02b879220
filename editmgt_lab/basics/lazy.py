"""transformers takes seconds to import: only whoever loads a network waits for it."""

from __future__ import annotations

import threading
from types import ModuleType

LOADING = threading.RLock()  # transformers sets torch's default dtype, for all threads, while it loads a network


def transformers() -> ModuleType:
    """The library. It puts another module in its own place while it is imported, so that a thread which asks for it
    just then would be left with the one that has no names."""
    with LOADING:
        import transformers

        return transformers
