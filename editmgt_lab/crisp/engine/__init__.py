"""Daft, and what it lacks: keyed shards, a value or an error for every row, operators that are part of the key."""
