"""Numbers of pictures: what an edit did, held against the truth, a reference or a judge; cards and reports of them."""

from .arithmetic import bootstrap_interval, edit_score, leakage, roc_auc, success
from .judge import read_scene
from .scorecard import ScoreCard
from .truth import Scores

__all__ = [
    "ScoreCard", "Scores", "bootstrap_interval", "edit_score", "leakage", "read_scene", "roc_auc", "success",
]  # fmt: skip
