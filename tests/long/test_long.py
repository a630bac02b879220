"""Long sessions, short: views leave nothing open, and what grows is found."""

from functools import partial

import nbformat
import pytest

from . import __main__ as long
from .work import VIEWS, edits, notebook_runs, openings


def seen(**last):
    first = {"memory": 1000, "threads": 3, "widgets": 0}
    return [first] * 19 + [first | last]


def test_what_grew_is_named_and_memory_has_its_bound():
    assert long.grown(seen(memory=1050)) == []
    assert long.grown(seen(memory=1051, widgets=2)) == ["memory 1,000 → 1,051", "widgets 0 → 2"]


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_that_is_closed_leaves_nothing_open(name):
    first, *_, last = openings(name, 3)
    assert long.grown([first | {"memory": 0}, last | {"memory": 0}]) == []


def keeping(count):
    """So many edits, and as many again of which each is followed by 8 MiB that stay."""
    kept = []
    for number, found in enumerate(edits(2 * count)):
        yield found
        if number >= count:
            kept.append(b"x" * 2**23)


def test_edits_leave_nothing_open_and_memory_that_stays_is_found():
    found = long.watch("edits", partial(keeping, 20), 40)
    assert long.grown(found[:20]) == []
    assert [each.split()[0] for each in long.grown(found)] == ["memory"]


def test_a_notebook_is_run_again_in_one_kernel(tmp_path):
    """Its cell leaves a thread, a file and a widget behind in every run, which only a kernel that stays can show."""
    cell = nbformat.v4.new_code_cell(
        "import ipywidgets, os, threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "os.open(os.devnull, os.O_RDONLY)\n"
        "ipywidgets.Layout()"
    )
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "left.ipynb")
    _, first, second = notebook_runs(tmp_path / "left.ipynb", 3)  # older ipykernels open a file in the second run
    assert first["memory"] > 0
    for name in ("threads", "files", "widgets", "comms"):
        assert second[name] == first[name] + 1, name


def test_the_figure_has_a_line_for_each_kind_of_work():
    figure = long.memory_figure({"edits": seen(memory=1020), "views": seen(memory=990)})
    assert [line.get_label().split(" (")[0] for line in figure.axes[0].lines][:2] == ["edits", "views"]
