"""The whole command as a process to be killed, which leaves a line in a file for every shard that it begins.

Every file stays half written for a moment, so that some of the kills come then.
"""

import time
from pathlib import Path

import editmgt_lab.crisp.__main__ as crisp
from editmgt_lab.crisp.drawn.reader import read_drawn
from editmgt_lab.crisp.engine.runner import load_daft
from editmgt_lab.crisp.engine.stages import Stage
from editmgt_lab.world import Scene, render

HALF_WRITTEN = 0.02  # s

load_daft()
for style in (None, "sepia"):  # what a reader draws once, before there are processes to be killed
    read_drawn(render(Scene("meadow", (), style)))


def run(arguments, log):
    make, replace = Stage._make, Path.replace

    def logged(self, given, store):
        with open(log, "a") as file:
            file.write(f"{self.name} {self.key(given)}\n")
        return make(self, given, store)

    def slowly(self, target):
        time.sleep(HALF_WRITTEN)
        return replace(self, target)

    Stage._make, Path.replace = logged, slowly
    raise SystemExit(crisp.main(arguments))
