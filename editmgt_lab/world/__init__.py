"""The drawn world: a small world of editing tasks whose truth is known."""

from .backgrounds import BACKGROUNDS, STYLES
from .edits import CATEGORIES, HELD_OUT_PHRASINGS, PHRASINGS, PROPORTIONS, EditSample, phrases, sample_edit
from .objects import COLOURS, KINDS
from .scenes import (
    HELD_OUT_PAIRS,
    PIXELS,
    PLACES,
    SIZES,
    SPLITS,
    TRAIN_PAIRS,
    Item,
    Scene,
    caption,
    label_map,
    render,
    sample_scene,
)
from .skills import SKILLS, Skill, sample_skill

__all__ = [
    "BACKGROUNDS", "CATEGORIES", "COLOURS", "HELD_OUT_PAIRS", "HELD_OUT_PHRASINGS", "KINDS", "PHRASINGS", "PIXELS",
    "PLACES", "PROPORTIONS", "SIZES", "SKILLS", "SPLITS", "STYLES", "TRAIN_PAIRS", "EditSample", "Item", "Scene",
    "Skill", "caption", "label_map", "phrases", "render", "sample_edit", "sample_scene", "sample_skill",
]  # fmt: skip
