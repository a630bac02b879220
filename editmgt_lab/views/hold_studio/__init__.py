from .hold_studio import HoldStudio, hold_studio

__all__ = ["HoldStudio", "hold_studio"]
