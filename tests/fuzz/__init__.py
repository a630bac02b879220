"""Bad input of every kind: each case must end in a right result or in a LabError, soon and in little memory.

`python -m tests.fuzz --count 10000 --seed 0` draws cases from a seed, each from its kind and number alone. A case is a
recipe in plain JSON, so one that fails is made smaller, kept, and done again with `--replay FILE`.
"""
