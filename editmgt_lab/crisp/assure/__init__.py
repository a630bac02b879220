"""Stage 4: what an edit must show afterwards, by category, within bounds that are data."""
