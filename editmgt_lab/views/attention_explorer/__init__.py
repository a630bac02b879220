from .attention_explorer import AttentionExplorer, attention_explorer

__all__ = ["AttentionExplorer", "attention_explorer"]
