"""Commands that are killed: a rerun ends where a run that was never stopped ends, byte for byte.

`python -m tests.kills --count 100 --seed 0` ends commands at moments drawn from a seed, by SIGKILL or in the middle of
a write, runs them again, and compares. Then it fills their disk, takes their right to write, and removes their folder.
"""
