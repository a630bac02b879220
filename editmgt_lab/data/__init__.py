"""Data sets of edits: tables from files or the hub, their rows checked and opened, pairs to learn from."""
