"""Evaluation: what an edit did, held against the small world's truth, and what it costs."""

from .metrics import bootstrap_interval, edit_score, leakage, roc_auc, success
from .scorecard import ScoreCard, Scores, evaluate

__all__ = ["ScoreCard", "Scores", "bootstrap_interval", "edit_score", "evaluate", "leakage", "roc_auc", "success"]
