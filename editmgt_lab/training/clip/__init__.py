"""A small CLIP of the drawn world, from nothing: pictures and captions in one space."""
