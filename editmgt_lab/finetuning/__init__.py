"""Fine-tuning an editor on pairs of one's own: all weights or an adapter, on one processor or many."""

from ..data.tokens import TokenPairs
from .adapters import add_adapter, load_adapter, remove_adapter, save_adapter, stamp_adapter
from .finetuner import Finetuner
from .settings import FinetuneSettings

__all__ = [
    "FinetuneSettings", "Finetuner", "TokenPairs", "add_adapter", "load_adapter", "remove_adapter", "save_adapter",
    "stamp_adapter",
]  # fmt: skip
