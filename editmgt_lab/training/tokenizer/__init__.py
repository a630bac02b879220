"""Stage 1 of the recipe: the VQ model, then its decoder again."""
