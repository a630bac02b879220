"""Stage 2: an instruction becomes text tokens and a pooled vector, and each word knows its rows."""

from .encoding import Focus, TextCondition, TextEncoder, find_rows
from .loading import load_text_encoder

__all__ = ["Focus", "TextCondition", "TextEncoder", "find_rows", "load_text_encoder"]
