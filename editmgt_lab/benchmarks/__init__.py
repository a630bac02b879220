"""The published benchmarks of instruction-based editing, run with any editor and scored as their authors score them."""

from .anybench import AnyBench
from .emu_edit import EmuEdit
from .gedit import GEdit
from .magicbrush import MagicBrush
from .run import editor_answers, run
from .small_world import SmallWorld

BENCHMARKS = {each.name: each for each in (EmuEdit, MagicBrush, AnyBench, GEdit, SmallWorld)}

__all__ = ["BENCHMARKS", "AnyBench", "EmuEdit", "GEdit", "MagicBrush", "SmallWorld", "editor_answers", "run"]
