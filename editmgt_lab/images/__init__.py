"""Pictures and masks in and out: orientation, alpha, colour and size are brought to the model's grid, and back."""

from .fitting import Fitted, Geometry, aspects_differ, fit, fit_together, square_side, to_images, to_tensor
from .masks import READINGS, Mask, MaskPicture, fit_mask, mask_of_cells, read_mask, shows_by_alpha
from .opening import MAX_PIXELS, Picture, load_image, open_picture, px

__all__ = [
    "MAX_PIXELS", "READINGS", "Fitted", "Geometry", "Mask", "MaskPicture", "Picture", "aspects_differ", "fit",
    "fit_mask", "fit_together", "load_image", "mask_of_cells", "open_picture", "px", "read_mask", "shows_by_alpha",
    "square_side", "to_images", "to_tensor",
]  # fmt: skip
