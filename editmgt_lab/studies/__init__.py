"""One file for each question asked of a model; each is a command, and writes its pictures and numbers."""
