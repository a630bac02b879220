"""Stage 2: a caption of what is in the picture, instructions for chosen categories, rounds that refine them."""
