"""Pictures of every stage (matplotlib) and the playground (ipywidgets)."""

from .figures import (
    attention_figure,
    consolidation_figure,
    edit_figure,
    panels_figure,
    steps_figure,
    text_figure,
    tokens_figure,
)
from .playground import Playground, playground

__all__ = [
    "Playground", "attention_figure", "consolidation_figure", "edit_figure", "panels_figure", "playground",
    "steps_figure", "text_figure", "tokens_figure",
]  # fmt: skip
