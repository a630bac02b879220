"""The λ figure: what holding buys and costs, measured on the small world and held against the published curves."""

from .figure import Example, measure, pasted, save

__all__ = ["Example", "measure", "pasted", "save"]
