"""The drawn world as the embedded default: its pictures, a reader of pixels, a grammar, editors, the truth."""
