from .filter_studio import FilterStudio, filter_studio

__all__ = ["FilterStudio", "filter_studio"]
