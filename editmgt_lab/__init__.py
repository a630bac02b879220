"""EditMGT Lab: see how a masked generative transformer edits an image, stage by stage."""

from . import world
from .attention import capture_attention
from .consolidation import consolidate
from .consolidation import smooth_heat as smooth
from .decoding import RegionHoldSampler
from .editor import Editor
from .errors import LabError
from .loading import load
from .results import DecodeStep, EditResult
from .text import TextCondition
from .transformer import MaskedGenerativeTransformer

__all__ = [
    "DecodeStep", "EditResult", "Editor", "LabError", "MaskedGenerativeTransformer", "RegionHoldSampler",
    "TextCondition", "capture_attention", "consolidate", "load", "smooth", "world",
]  # fmt: skip
