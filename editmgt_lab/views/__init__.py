"""Pictures of every stage (matplotlib), and widgets to touch them (anywidget, ipywidgets)."""

from .attention_explorer import AttentionExplorer, attention_explorer
from .decode_player import DecodePlayer, decode_player
from .figures import (
    attention_figure,
    consolidation_figure,
    curves_figure,
    edit_figure,
    panels_figure,
    steps_figure,
    text_figure,
    tokens_figure,
)
from .filter_studio import FilterStudio, filter_studio
from .finetune_dashboard import FinetuneDashboard, finetune_dashboard
from .hold_studio import HoldStudio, hold_studio
from .injection_dial import InjectionDial, injection_dial
from .playground import Playground, playground
from .recording import Run, record
from .token_lab import TokenLab, token_lab

__all__ = [
    "AttentionExplorer", "DecodePlayer", "FilterStudio", "FinetuneDashboard", "HoldStudio", "InjectionDial",
    "Playground", "Run", "TokenLab", "attention_explorer", "attention_figure", "consolidation_figure", "curves_figure",
    "decode_player", "edit_figure", "filter_studio", "finetune_dashboard", "hold_studio", "injection_dial",
    "panels_figure", "playground", "record", "steps_figure", "text_figure", "token_lab", "tokens_figure",
]  # fmt: skip
