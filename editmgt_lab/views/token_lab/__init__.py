from .token_lab import TokenLab, token_lab

__all__ = ["TokenLab", "token_lab"]
