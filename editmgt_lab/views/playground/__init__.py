from .playground import Playground, playground

__all__ = ["Playground", "playground"]
