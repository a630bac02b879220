"""What a configuration may ask for: no more layers than there are weights for them, and no code from elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..errors import CheckpointError

FEWEST = 10  # tensors; fewer are no measure


def check_depth(config: Mapping[str, Any], stored: Collection[str], folder: Path) -> None:
    """Raises CheckpointError where a folder's configuration has more layers than its weights have tensors: to build
    millions of them would never end."""
    lists = {name: len(value) for name, value in config.items() if isinstance(value, (list, tuple))}
    depths = {name: value for name, value in config.items() if "layers" in name and isinstance(value, int)} | lists
    deep = [f"{name} {str(depth)[:20]}" for name, depth in depths.items() if depth > max(len(stored), FEWEST)]
    if deep:
        raise CheckpointError(
            f"{folder / 'config.json'} has {', '.join(deep[:5])}, and {len(stored)} tensors are stored",
            expected="the configuration that was saved with the weights",
            fix="download or copy both again",
        )


def check_kernels(config: Any, file: Path) -> None:
    """Raises CheckpointError where a configuration, or a part of it, names an attention that is not built in: for some
    transformers would fetch native code from the hub."""
    for name, value in config.items() if isinstance(config, Mapping) else ():
        if "attn_implementation" in name and value not in (None, "eager", "sdpa"):
            raise CheckpointError(
                f"{file} has {name} {value!r}, and no code that comes with a model is run",
                expected="an attention that is built in, such as 'sdpa'",
                fix=f"remove {name}",
            )
        check_kernels(value, file)
