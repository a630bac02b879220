"""Evaluation: what an edit did, held against the small world's truth, and what it costs."""

from .answers import evaluate
from .judge import read_scene
from .metrics import bootstrap_interval, edit_score, leakage, roc_auc, success
from .scorecard import ScoreCard
from .truth import Scores

__all__ = [
    "ScoreCard", "Scores", "bootstrap_interval", "edit_score", "evaluate", "leakage", "read_scene", "roc_auc",
    "success",
]  # fmt: skip
